"""The messages of a conversation as they come: pages, what was missed, events, answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from antiphon.errors import ApiError

from .models import Conversation, Message, Page
from .observations import ConversationsChanged, TimelineReplaced
from .timeline import Change, Timeline

if TYPE_CHECKING:
    from .core import Core
    from .room import Room

__all__ = ["PAGE", "History"]

PAGE: Final = 50
"""Messages of one page of history."""
CATCH_UP_PAGE: Final = 100
CATCH_UP_PAGES: Final = 12
"""Pages that are fetched of what was missed; if that is more, the timeline begins anew.

Of a thousand messages and more all come: ten pages, one for the overlap, one for a look back.
"""
OVERLAP: Final = 20
"""Messages fetched once more on catching up: they may have arrived in another order."""
KEPT_CLOSED: Final = 200
"""Messages kept in memory of a conversation that nobody has open."""
TOO_MANY: Final = "Many messages came meanwhile: here are the newest."


class History:
    """The timeline of one room: always one run of messages without a gap, up to the newest.

    Attributes:
        timeline: The messages.
        is_loading: Whether a page of history is under way.
        is_seeded: Whether the newest message is here, or there is none.
    """

    def __init__(self, core: Core, room: Room) -> None:
        self._core = core
        self._room = room
        self._fetching = asyncio.Lock()
        self.is_loading = False
        self._begin_unknown()

    def _begin_unknown(self) -> None:
        """Nothing is here, and nobody knows what there is."""
        self.timeline = Timeline(self._core.my_id)
        self.timeline.has_older = True
        self.is_seeded = False
        # Up to here nothing is missing; catching up begins there.
        self._cursor: str | None = None
        # Whether the list told of messages that are not fetched yet.
        self._is_missing = False

    def begin_anew(self) -> None:
        """Forget what was loaded before it was known who the user is."""
        self._begin_unknown()
        for draft in self._core.outbox.waiting(self._room.id):
            self._room._show_draft(draft)
        self._core.tell(TimelineReplaced(self._room.id))

    # What was here before, and what the list says

    def restore(self, conversation: Conversation, messages: list[Message]) -> None:
        """Take what the store has kept."""
        self._begin_unknown()
        last = conversation.last_message
        known = messages or ([last] if last is not None else [])
        self.is_seeded = True
        self.timeline.replace(known, has_older=bool(known))
        self._cursor = self.timeline.id_before_newest(OVERLAP)
        self._room._marks.count(conversation.unread_count, self.timeline.newest_id)

    def seed(self, conversation: Conversation, *, is_first: bool) -> bool:
        """Take what the list of conversations says; whether messages were missed.

        Args:
            conversation: What it says.
            is_first: Whether the session has just begun: then nothing is missed, all is old.
        """
        marks, last = self._room._marks, conversation.last_message
        newest = None if last is None else str(last.id)
        had, unread = self.is_seeded, marks.unread
        if not had and (is_first or last is None):
            messages = () if last is None else (last,)
            self._begin(Page(messages=messages, has_more=last is not None))
        elif not had:
            self._begin(Page())  # it is new, and so is all that is said in it
        marks.listed(conversation.unread_count, newest)
        if last is None:
            return False
        if last.sent_at is not None:
            self._core.presence.alive(last.sender_id, last.sent_at)
        if newest == self.timeline.newest_id:
            self._room._tell(self.timeline.add(last))  # it may have been read meanwhile
        self._is_missing = (
            self._cursor is None
            or newest != self.timeline.newest_id
            # One may also be missing before the newest, if they came in another order.
            or (had and marks.unread != unread)
        )
        return self._is_missing or self._room.is_open

    # What the backend is asked for

    async def fill(self) -> None:
        """Load a page, if there is less here.

        Raises:
            ApiError: The backend refused or could not be asked.
        """
        if len(self.timeline) < PAGE and (self.timeline.has_older or not self.is_seeded):
            await self.older(PAGE)

    async def older(self, limit: int) -> bool:
        """Load a page of older messages; whether there are older ones still.

        Raises:
            ApiError: The backend refused or could not be asked.
        """
        if self._core.is_closed:
            raise ApiError("The chat is closed: there is nobody to ask for older messages.")
        async with self._fetching:
            timeline = self.timeline
            oldest = timeline.oldest_id
            if not timeline.has_older and (oldest is not None or self.is_seeded):
                return False
            self.is_loading = True
            try:
                page = await self._core.rest.messages(self._room.id, limit=limit, before_id=oldest)
            finally:
                self.is_loading = False
            if timeline is self.timeline:  # it has not begun anew meanwhile
                self._take_older(page, oldest)
        return self.timeline.has_older

    def _take_older(self, page: Page, before: str | None) -> None:
        """Take a page that was asked for when this was the oldest message."""
        oldest = self.timeline.oldest_id
        if oldest is None:
            marks = self._room._marks
            unread = marks.unread
            self._begin(page)
            marks.count(unread, self.timeline.newest_id)  # a page of history is nothing new
            self._core.tell(TimelineReplaced(self._room.id))
        elif before is None or before == oldest:
            if self._cursor is None and page.messages:
                self._cursor = str(page.messages[-1].id)
            changes = self.timeline.add_older(page.messages, has_older=page.has_more)
            self._room._tell(changes, is_history=True)
        # Else the page is next to nothing: the oldest were let go of meanwhile.

    async def catch_up(self) -> None:
        """Fetch what was missed; the events meanwhile may have come first.

        Raises:
            ApiError: The backend refused or could not be asked.
        """
        rest, id_ = self._core.rest, self._room.id
        async with self._fetching:
            # One that is missing may also be older than all that are here.
            after = None if self._has_all() else self._cursor
            for _ in range(CATCH_UP_PAGES):
                page = await rest.messages(id_, limit=CATCH_UP_PAGE, after_id=after)
                if after is None and page.has_more:
                    if self._cursor is None:
                        break  # all of it is new, and it is more than a page
                    after = self._cursor
                    continue
                self._take(page.messages)
                after = str(page.messages[-1].id) if page.messages else after
                if not page.has_more or not page.messages:
                    self._cursor = after
                    self._is_missing = False
                    self.settle()
                    return
            self._begin(await rest.messages(id_, limit=PAGE))
            self._is_missing = False
            self._core.tell(TimelineReplaced(id_, TOO_MANY))
            self._room._marks.recount()
            self.settle()
            self._core.tell(ConversationsChanged((id_,)))

    @property
    def has_cursor(self) -> bool:
        """Whether it is known from where on something may be missing."""
        return self._cursor is not None

    def settle(self) -> None:
        """If nothing is missing up to now, catching up and counting begin here from now on."""
        if not self._core.inbox.is_whole or self._is_missing:
            return
        self._cursor = self.timeline.id_before_newest(OVERLAP)
        self._room._marks.settle()
        if not self._room.is_open:
            self.timeline.trim(KEPT_CLOSED)

    def overlap(self) -> str | None:
        """The message from which on another may still come between; None if that is the first."""
        return None if self._has_all() else self.timeline.id_before_newest(OVERLAP)

    def _has_all(self) -> bool:
        """Whether catching up would begin with the conversation's first message."""
        oldest = self.timeline.oldest_id
        return not self.timeline.has_older and oldest == self.timeline.id_before_newest(OVERLAP)

    def _begin(self, page: Page) -> None:
        """Begin the timeline with the newest page."""
        self.is_seeded = True
        self.timeline.replace(page.messages, has_older=page.has_more)
        # Not the newest that is here: an event may have come that left a gap behind the page.
        self._cursor = str(page.messages[-1].id) if page.messages else None
        self._core.keep(self._room.id, page.messages, replace=True)

    # What comes by itself

    def message(self, message: Message, temp_id: str | None = None) -> None:
        """A message has come by an event, or is the answer to one's own."""
        self._take((message,), temp_id)
        self.settle()

    def _take(self, messages: tuple[Message, ...], temp_id: str | None = None) -> None:
        """Put messages of the backend's into the timeline, and tell who wants to know."""
        self.is_seeded = True
        core, marks = self._core, self._room._marks
        changes: list[Change] = []
        news: list[Message] = []
        for message in messages:
            some = self.timeline.add(message, temp_id=temp_id)
            changes += some
            if any(change.is_news for change in some):
                news.append(message)
                core.presence.alive(message.sender_id, message.sent_at)
            changes += marks.arrived(message.id)
        if not changes:
            return
        self._room._tell(changes)
        core.keep(self._room.id, messages)
        of_others = [message for message in news if str(message.sender_id) != core.my_id]
        if of_others:
            marks.deliver(str(of_others[-1].id))
            marks.recount()
        core.tell(ConversationsChanged((self._room.id,)))
        for message in of_others:
            core.listeners.call("message", message)
