"""A conversation as a session holds it: its people, its timeline, what is unread and who types."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from antiphon.errors import ApiError

from .history import PAGE, History
from .marks import Marks
from .models import Conversation, Draft, Entry, Message, User
from .observations import ConversationsChanged, TimelineChanged
from .timeline import Change, Timeline
from .who_types import WhoTypes

if TYPE_CHECKING:
    from .core import Core
    from .events import TypingUser

__all__ = ["Room"]


class Room:
    """One conversation; made by `ChatSession`.

    Its timeline is always one run of messages without a gap, up to the newest. What troubles the
    network makes is not raised here but told by the session, unless a method says so.

    Attributes:
        id: The conversation's id, as text.
        members: Everyone in it, oneself included.
        first_unread: Key of the entry where the new messages began when it was opened.
    """

    def __init__(self, core: Core, id_: str) -> None:
        self.id = id_
        self.members: tuple[User, ...] = ()
        self.first_unread: str | None = None
        self._core = core
        self._title: str | None = None
        self._opens = 0
        # Its parts; the session's other parts talk to them.
        self._marks = Marks(core, self)
        self._typing = WhoTypes(core, self)
        self._history = History(core, self)

    def __repr__(self) -> str:
        """Id and title."""
        return f"<Room {self.id} {self.title!r}, {self.unread} unread>"

    # What a screen shows

    @property
    def title(self) -> str:
        """What people call it: its title, or the others' names."""
        if self._title:
            return self._title
        names = [user.name or user.email or str(user.id) for user in self.others]
        if not names and not self._history.is_seeded:
            names = [f"Conversation {self.id}"]
        return ", ".join(names) or "You"

    @property
    def others(self) -> tuple[User, ...]:
        """Everyone in it but oneself."""
        return tuple(user for user in self.members if str(user.id) != self._core.my_id)

    @property
    def timeline(self) -> Timeline:
        """Its messages."""
        return self._history.timeline

    @property
    def last(self) -> Entry | None:
        """The newest entry, unsent ones too."""
        return self.timeline.last

    @property
    def unread(self) -> int:
        """How many messages of others stand after one's read mark."""
        return self._marks.unread

    @property
    def typing(self) -> tuple[TypingUser, ...]:
        """Who types now."""
        return self._typing.users

    @property
    def is_open(self) -> bool:
        """Whether it was opened and not closed since."""
        return self._opens > 0

    @property
    def is_loading(self) -> bool:
        """Whether a page of history is under way."""
        return self._history.is_loading

    # Open and close

    async def open(self) -> None:
        """Join its presence channel, and load its newest messages and what was missed.

        Each `open()` is undone by one `close()`, also one that was cancelled.
        """
        self._opens += 1
        if self._opens == 1:
            self._core.presence.join(self)
        # Also for who opens it a second time: a page that is reloaded leaves a while later.
        self.first_unread = None
        await self._load()
        self.first_unread = self._marks.first_unread()

    async def _load(self) -> None:
        """Load what an open conversation needs: a page, and what was missed."""
        if self._core.is_closed:
            return
        try:
            await self._history.fill()
            if self._history.has_cursor and self._core.is_connected:
                await self._history.catch_up()
        except ApiError as exc:
            self._core.report(exc)

    def close(self) -> None:
        """Leave its presence channel, when nobody else has it open."""
        if not self._opens:
            return
        self._opens -= 1
        if self._opens:
            return
        self._marks.attended = False
        self._typing.stop_typing()
        self._core.presence.leave(self)
        self._history.settle()

    async def older(self, limit: int = PAGE) -> bool:
        """Load a page of older messages.

        Args:
            limit: Messages of the page.

        Returns:
            Whether there are older ones still.

        Raises:
            ApiError: The backend refused or could not be asked, or the session is closed.
        """
        return await self._history.older(limit)

    # Read

    @property
    def attended(self) -> bool:
        """Whether it is shown and has the focus: then what comes is marked as read."""
        return self._marks.attended

    @attended.setter
    def attended(self, attended: bool) -> None:
        self._marks.attended = attended
        if attended:
            self.seen()

    def seen(self, message_id: str | None = None) -> None:
        """The reader has seen the messages up to one.

        Args:
            message_id: It; None for the newest.
        """
        self._marks.seen(message_id)

    # Write

    def keystroke(self) -> None:
        """The text has changed: tell the others that one types."""
        self._typing.keystroke()

    async def send(self, content: str, *, temp_id: str | None = None) -> Entry:
        """Send a message: it is in the timeline at once, and kept when this returns.

        Args:
            content: The text.
            temp_id: The caller's own id for it, such as a browser's that may offer it twice; what
                is there under it already is not sent again.

        Raises:
            ValueError: There is no text, or none that an encoding can carry.
            SettingsError: The session's file could not keep it; it is not sent.
            ClientClosed: The session is closed.
        """
        if not content.strip():
            raise ValueError("A message has a text.")
        try:
            content.encode()
        except UnicodeEncodeError:
            raise ValueError(
                "The text holds half a character (a lone surrogate), which cannot be sent."
            ) from None
        temp_id = temp_id or f"temp-{uuid.uuid4().hex}"
        before = self.timeline.get(temp_id)
        if before is not None:
            return before
        draft = Draft(
            temp_id=temp_id,
            conversation_id=self.id,
            content=content,
            created_at=datetime.now(UTC),
        )
        self._typing.stop_typing(is_sent=True)
        entry = self._show_draft(draft)
        try:
            await self._core.outbox.put(draft)
        except BaseException:
            # Cancelled, it may be kept all the same.
            if draft not in self._core.outbox.waiting(self.id):
                self._take_away(temp_id)
            raise
        return self.timeline.get(temp_id) or entry

    async def retry(self, key: str) -> None:
        """Send a message that has failed, and those that failed with it."""
        await self._core.outbox.retry(key)

    async def discard(self, key: str) -> None:
        """Let go of a message that is not sent; nothing happens while it is under way."""
        if await self._core.outbox.discard(key):
            self._take_away(key)

    def _show_draft(self, draft: Draft) -> Entry:
        """Show a message that is not sent yet."""
        me = self._core.me
        change = self.timeline.write(draft, me.name if me is not None else "")
        self._tell([change])
        self._core.tell(ConversationsChanged((self.id,)))
        return change.entry

    def _take_away(self, key: str) -> None:
        """Show a message no longer that will not be sent."""
        self._tell(self.timeline.discard(key))
        self._core.tell(ConversationsChanged((self.id,)))

    # What the session tells it

    def _describe(self, conversation: Conversation) -> None:
        """The backend, or the file, says what it is."""
        self.members = conversation.members
        self._title = conversation.title

    def _receive(self, message: Message, temp_id: str | None) -> None:
        """A message has come by an event."""
        self._typing.wrote(str(message.sender_id))
        self._history.message(message, temp_id)

    def _sending(self, draft: Draft) -> None:
        """A message is sent again."""
        self._tell(self.timeline.sending(draft.temp_id))

    def _failed(self, draft: Draft) -> None:
        """A message could not be sent."""
        self._tell(self.timeline.failed(draft.temp_id, draft.failure))
        self._core.tell(ConversationsChanged((self.id,)))

    def _tell(self, changes: list[Change], *, is_history: bool = False) -> None:
        if changes:
            self._core.tell(TimelineChanged(self.id, tuple(changes), is_history))

    def _end(self) -> str | None:
        """The session ends: nothing is planned any more; the read mark that is still to be sent."""
        self._typing.close()
        return self._marks.close()
