"""Conversations, who is in them, what is said there and how far each member has read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError

from antiphon.backend.models import Conversation, Message, Page

from .tables import (
    SELECT_MESSAGE,
    SELECT_USER,
    conversations,
    members,
    messages,
    to_message,
    to_user,
    users,
)

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection

    from antiphon.backend.models import User

    from .database import Database

__all__ = ["Conversations"]

_NEWEST_ID = (
    select(func.max(messages.c.id))
    .where(messages.c.conversation_id == members.c.conversation_id)
    .correlate(members)
    .scalar_subquery()
)
_UNREAD_COUNT = (
    select(func.count())
    .where(
        messages.c.conversation_id == members.c.conversation_id,
        messages.c.sender_id != members.c.user_id,
        messages.c.id > members.c.last_read,
    )
    .correlate(members)
    .scalar_subquery()
)


class Conversations:
    """What the users say to each other."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, user_ids: Collection[int], *, title: str | None = None
    ) -> tuple[int, bool]:
        """The id of a conversation between these users, and whether it is new.

        Two users have one conversation, however often it is asked for.

        Raises:
            LookupError: One of the users does not exist.
        """
        ids = sorted(set(user_ids))
        pair = f"{ids[0]}:{ids[1]}" if len(ids) == 2 else None
        query = insert(conversations).values(title=title, pair=pair, created_at=datetime.now(UTC))
        try:
            async with self._database.writing() as db:
                new = await db.execute(query.returning(conversations.c.id))
                new_id: int = new.scalar_one()
                rows = [{"conversation_id": new_id, "user_id": user_id} for user_id in ids]
                await db.execute(insert(members), rows)
            return new_id, True
        except IntegrityError:
            # Either the pair has its conversation already, or a user does not exist.
            existing = await self._of_pair(pair) if pair else None
            if existing is None:
                raise LookupError("One of the users does not exist.") from None
            return existing, False

    async def _of_pair(self, pair: str) -> int | None:
        query = select(conversations.c.id).where(conversations.c.pair == pair)
        async with self._database.reading() as db:
            found: int | None = (await db.execute(query)).scalar_one_or_none()
        return found

    async def member_ids(self, conversation_id: int) -> list[int]:
        """Who is in a conversation; nobody if there is none with this id."""
        query = select(members.c.user_id).where(members.c.conversation_id == conversation_id)
        async with self._database.reading() as db:
            return list((await db.execute(query.order_by(members.c.user_id))).scalars())

    async def of(self, user_id: int, *, only: int | None = None) -> list[Conversation]:
        """The user's conversations, or `only` one of them, those with news first."""
        mine = members.c.user_id == user_id
        if only is not None:
            mine &= members.c.conversation_id == only
        heads = select(conversations.c.id, conversations.c.title, _UNREAD_COUNT.label("unread"))
        async with self._database.reading() as db:
            rows = (await db.execute(heads.join(members).where(mine))).all()
            people = await _people(db, mine)
            last = await _last_messages(db, mine, user_id)
        found = [
            Conversation(
                id=row.id,
                title=row.title,
                members=people[row.id],
                last_message=last.get(row.id),
                unread_count=row.unread,
            )
            for row in rows
        ]
        return sorted(found, key=_recency, reverse=True)

    async def add_message(
        self, conversation_id: int, sender_id: int, content: str, *, temp_id: str | None = None
    ) -> tuple[Message, bool]:
        """The message, and whether it is new.

        The first message to which a sender gives a `temp_id` keeps it: later ones add nothing and
        return the first, in whichever conversation that is.

        Raises:
            LookupError: There is no such conversation or sender.
        """
        query = insert(messages).values(
            conversation_id=conversation_id,
            sender_id=sender_id,
            content=content,
            temp_id=temp_id,
            sent_at=datetime.now(UTC),
        )
        try:
            async with self._database.writing() as db:
                await _lock(db, conversation_id)
                new_id = (await db.execute(query.returning(messages.c.id))).scalar_one()
                row = (await db.execute(SELECT_MESSAGE.where(messages.c.id == new_id))).one()
            return to_message(row), True
        except IntegrityError:
            first = await self._sent_before(sender_id, temp_id) if temp_id else None
            if first is None:
                raise LookupError("There is no such conversation or sender.") from None
            return first, False

    async def _sent_before(self, sender_id: int, temp_id: str) -> Message | None:
        same = (messages.c.sender_id == sender_id) & (messages.c.temp_id == temp_id)
        async with self._database.reading() as db:
            row = (await db.execute(SELECT_MESSAGE.where(same))).one_or_none()
        return to_message(row) if row else None

    async def messages(
        self,
        conversation_id: int,
        *,
        limit: int,
        before_id: int | None = None,
        after_id: int | None = None,
        viewer_id: int | None = None,
    ) -> Page:
        """The newest messages, those just before `before_id`, or those just after `after_id`.

        A viewer's own carry the `temp_id` they were sent with.
        """
        query = SELECT_MESSAGE.where(messages.c.conversation_id == conversation_id)
        if before_id is not None:
            query = query.where(messages.c.id < before_id)
        if after_id is not None:
            query = query.where(messages.c.id > after_id)
        forward = after_id is not None
        query = query.order_by(messages.c.id if forward else messages.c.id.desc())
        async with self._database.reading() as db:
            rows = (await db.execute(query.limit(limit + 1))).all()
        found = [to_message(row, viewer_id=viewer_id) for row in rows[:limit]]
        return Page(messages=found if forward else found[::-1], has_more=len(rows) > limit)

    async def mark_read(self, conversation_id: int, user_id: int, message_id: int) -> list[str]:
        """Move the user's read mark up to a message; never back.

        Returns:
            The ids of the others' messages that this has made read.
        """
        member = (members.c.conversation_id == conversation_id) & (members.c.user_id == user_id)
        here = messages.c.conversation_id == conversation_id
        mark = select(members.c.last_read).where(member).with_for_update()
        # A mark stands on a message that exists, so that no later one is born read.
        last = select(func.max(messages.c.id)).where(here, messages.c.id <= message_id)
        async with self._database.writing() as db:
            old = (await db.execute(mark)).scalar_one_or_none()
            new = (await db.execute(last)).scalar_one()
            if old is None or new is None or new <= old:
                return []
            await db.execute(update(members).where(member).values(last_read=new))
            newly_read = (
                select(messages.c.id)
                .where(here, messages.c.sender_id != user_id)
                .where(messages.c.id > old, messages.c.id <= new)
                .order_by(messages.c.id)
            )
            return [str(read_id) for read_id in (await db.execute(newly_read)).scalars()]


async def _people(db: AsyncConnection, mine: ColumnElement[bool]) -> dict[int, list[User]]:
    people: dict[int, list[User]] = defaultdict(list)
    query = SELECT_USER.add_columns(members.c.conversation_id).join(members).order_by(users.c.id)
    my_ids = select(members.c.conversation_id).where(mine)
    for row in await db.execute(query.where(members.c.conversation_id.in_(my_ids))):
        people[row.conversation_id].append(to_user(row))
    return people


async def _last_messages(
    db: AsyncConnection, mine: ColumnElement[bool], user_id: int
) -> dict[int, Message]:
    newest = messages.c.id.in_(select(_NEWEST_ID).where(mine))
    rows = await db.execute(SELECT_MESSAGE.where(newest))
    return {row.conversation_id: to_message(row, viewer_id=user_id) for row in rows}


async def _lock(db: AsyncConnection, conversation_id: int) -> None:
    # A conversation's messages are committed in the order of their ids: otherwise who asks for
    # what came after one id could miss a message that was numbered first and committed last.
    row = select(conversations.c.id).where(conversations.c.id == conversation_id)
    await db.execute(row.with_for_update(key_share=True))


def _recency(conversation: Conversation) -> tuple[int, int]:
    last = conversation.last_message
    return (int(last.id) if last else 0, conversation.id)
