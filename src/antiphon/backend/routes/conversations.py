"""Conversations: what members may do in them. For everybody else they do not exist."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException, NotFoundException, ValidationException
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, JSONBody, QueryParameter

from antiphon.backend.answers import refusals
from antiphon.backend.broadcasts import Broadcasts, MessageSent, MessagesRead, UserIsTyping
from antiphon.backend.models import MAX_ID, Conversation, Page, User
from antiphon.backend.store import Store

__all__ = ["conversation_routes"]

MAX_BYTES: Final = 8_000
MAX_ENCODED: Final = 8_800
"""Bytes of a content as JSON; with names and ids around it, it fits into Pusher's 10 KiB."""

Id = Annotated[int, msgspec.Meta(ge=1, le=MAX_ID)]
Bound = Annotated[int | None, QueryParameter(ge=0, le=MAX_ID)]


class NewConversation(msgspec.Struct, frozen=True):
    """What `POST /api/conversations` takes; oneself is a member in any case."""

    member_ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=1_000)]
    title: Annotated[str, msgspec.Meta(max_length=200)] | None = None

    def __post_init__(self) -> None:
        if self.title is not None:
            _check_text("title", self.title)


class NewMessage(msgspec.Struct, frozen=True, rename={"temp_id": "tempId"}):
    """What `POST /api/conversations/{id}/messages` takes; the content is kept as it is."""

    content: Annotated[str, msgspec.Meta(max_length=4_000)]
    temp_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None

    def __post_init__(self) -> None:
        _check_text("content", self.content)
        if len(self.content.encode()) > MAX_BYTES:
            raise ValueError(f"The content is longer than {MAX_BYTES} bytes.")
        if len(msgspec.json.encode(self.content)) > MAX_ENCODED:
            raise ValueError("The content has too many characters that JSON escapes.")
        if self.temp_id is not None:
            _check_text("tempId", self.temp_id)


class ReadMark(msgspec.Struct, frozen=True):
    """What `POST /api/conversations/{id}/read` takes: everything up to a message is read."""

    message_id: Id


class NewlyRead(msgspec.Struct, frozen=True):
    """The messages of others that were unread before."""

    message_ids: list[str]


@get("/api/conversations", tags=["conversations"], responses=refusals(401))
async def list_conversations(
    me: NamedDependency[User], store: NamedDependency[Store]
) -> list[Conversation]:
    """One's conversations, those with news first."""
    return await store.conversations.of(me.id)


@post(
    "/api/conversations",
    tags=["conversations"],
    responses={
        200: ResponseSpec(Conversation, description="The two have a conversation"),
        **refusals(400, 401, 413, 422),
    },
)
async def create_conversation(
    data: JSONBody[NewConversation], me: NamedDependency[User], store: NamedDependency[Store]
) -> Response[Conversation]:
    """Start a conversation; of two people's there is only one, answered with 200 ever after."""
    user_ids = {me.id, *data.member_ids}
    if len(user_ids) == 1:
        raise ValidationException("A conversation needs somebody else.")
    try:
        new_id, created = await store.conversations.create(user_ids, title=data.title)
    except LookupError as exc:
        raise ValidationException(str(exc)) from exc
    (conversation,) = await store.conversations.of(me.id, only=new_id)
    return Response(conversation, status_code=201 if created else 200)


@get(
    "/api/conversations/{conversation_id:int}/messages",
    tags=["messages"],
    responses=refusals(400, 401, 404, 422),
)
async def list_messages(
    conversation_id: FromPath[int],
    me: NamedDependency[User],
    store: NamedDependency[Store],
    limit: Annotated[int, QueryParameter(ge=1, le=100)] = 50,
    before_id: Bound = None,
    after_id: Bound = None,
) -> Page:
    """The newest messages, those before `before_id`, or those after `after_id`.

    One's own carry the `tempId` they were sent with.
    """
    await _members(store, conversation_id, me)
    return await store.conversations.messages(
        conversation_id,
        limit=limit,
        before_id=before_id,
        after_id=after_id,
        viewer_id=me.id,
    )


@post(
    "/api/conversations/{conversation_id:int}/messages",
    tags=["messages"],
    responses={
        200: ResponseSpec(MessageSent, description="This tempId was sent before"),
        **refusals(400, 401, 404, 409, 413, 422),
    },
)
async def send_message(
    data: JSONBody[NewMessage],
    conversation_id: FromPath[int],
    me: NamedDependency[User],
    store: NamedDependency[Store],
    broadcasts: NamedDependency[Broadcasts],
    socket_id: NamedDependency[str | None],
) -> Response[MessageSent]:
    """Send a message; the same `tempId` again answers 200 with the first message.

    Either way the members are told: the first telling may have been lost, and who has heard it
    knows the message by its id.
    """
    members = await _members(store, conversation_id, me)
    message, created = await store.conversations.add_message(
        conversation_id, me.id, data.content, temp_id=data.temp_id
    )
    if message.chat_id != str(conversation_id):
        raise HTTPException("This tempId belongs to another conversation.", status_code=409)
    sent = MessageSent(message=message, temp_id=data.temp_id)
    await broadcasts.message_sent(sent, members, socket_id=socket_id)
    return Response(sent, status_code=201 if created else 200)


@post(
    "/api/conversations/{conversation_id:int}/typing",
    status_code=204,
    tags=["messages"],
    responses=refusals(400, 401, 404),
)
async def typing(
    conversation_id: FromPath[int],
    me: NamedDependency[User],
    store: NamedDependency[Store],
    broadcasts: NamedDependency[Broadcasts],
    socket_id: NamedDependency[str | None],
) -> None:
    """Tell the others that one is typing."""
    members = await _members(store, conversation_id, me)
    event = UserIsTyping(conversation_id=conversation_id, user=me)
    await broadcasts.typing(event, members, socket_id=socket_id)


@post(
    "/api/conversations/{conversation_id:int}/read",
    status_code=200,
    tags=["messages"],
    responses=refusals(400, 401, 404, 413, 422),
)
async def mark_read(
    data: JSONBody[ReadMark],
    conversation_id: FromPath[int],
    me: NamedDependency[User],
    store: NamedDependency[Store],
    broadcasts: NamedDependency[Broadcasts],
    socket_id: NamedDependency[str | None],
) -> NewlyRead:
    """Read everything up to a message."""
    members = await _members(store, conversation_id, me)
    ids = await store.conversations.mark_read(conversation_id, me.id, data.message_id)
    event = MessagesRead(conversation_id=conversation_id, reader_id=me.id, message_ids=ids)
    await broadcasts.messages_read(event, members, socket_id=socket_id)
    return NewlyRead(ids)


conversation_routes = [
    list_conversations,
    create_conversation,
    list_messages,
    send_message,
    typing,
    mark_read,
]


async def _members(store: Store, conversation_id: int, me: User) -> list[int]:
    """Who is in one's conversation; a stranger does not learn whether there is one."""
    found = await store.conversations.member_ids(conversation_id) if _fits(conversation_id) else []
    if me.id not in found:
        raise NotFoundException("There is no such conversation.")
    return found


def _fits(number: int) -> bool:
    return 1 <= number <= MAX_ID


def _check_text(name: str, text: str) -> None:
    if not text.strip():
        raise ValueError(f"The {name} is blank.")
    if "\x00" in text:
        raise ValueError(f"The {name} holds a NUL.")
