"""What comes from the backend: events, and what was missed, each told once and in order."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from antiphon.errors import AntiphonError, ApiError, LoginFailed, PayloadInvalid
from antiphon.protocol.frames import Event

from .events import ChatEvents, MessageSentEvent, MessagesReadEvent, UserIsTypingEvent
from .models import Id
from .observations import ConversationsChanged

if TYPE_CHECKING:
    from .core import Core
    from .room import Room

__all__ = ["FIRST_DELAY", "MAX_DELAY", "Inbox", "is_passing"]

CATCH_UPS_AT_ONCE: Final = 4
ASK_EVERY: Final = 2.0
"""Seconds between two looks at the list because of events of unknown conversations."""
FIRST_DELAY: Final = 0.5
MAX_DELAY: Final = 30.0
"""Seconds between two tries to ask the backend for who one is, or for what was missed."""
HOLD: Final = 5.0
"""Seconds that events wait for a backend that fails to say what was missed before them."""
STRANGERS: Final = 1_000
"""Conversations of which the list knew nothing, and for which it is not asked again."""

log = logging.getLogger("antiphon.chat")


class Inbox:
    """Takes events as they come, and fetches what was missed; until that is done, events wait.

    Attributes:
        is_whole: Whether nothing was missed that is not fetched yet.
        has_been_whole: Whether it ever was.
        refusal: Why what was missed is not to be had, if the backend refuses to say.
    """

    def __init__(self, core: Core) -> None:
        self.is_whole = False
        self.has_been_whole = False
        self.refusal: AntiphonError | None = None
        self._core = core
        self._events = ChatEvents(core.dialect.event_names, fields=core.dialect.fields)
        # While something may have been missed, what comes waits.
        self._held: list[MessageSentEvent | MessagesReadEvent] | None = []
        self._catching_up: asyncio.Task[None] | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._asking: asyncio.TimerHandle | None = None
        self._asked_at = -ASK_EVERY
        self._strange: set[str] = set()

    # Events

    async def receive(self, event: Event) -> None:
        """Take an event of any channel."""
        core = self._core
        if core.is_closed or core.presence.receive(event):
            return
        try:
            decoded = self._events.decode(event)
        except PayloadInvalid as exc:
            core.report(exc)
            return
        match decoded:
            case MessageSentEvent() | MessagesReadEvent() if self._held is not None:
                self._held.append(decoded)
            case MessageSentEvent() | MessagesReadEvent():
                self._take(decoded)
            case UserIsTypingEvent(conversation_id=conversation_id, user=user):
                if (room := self._known(conversation_id)) is not None:
                    room._typing.typed(user)
            case _:
                log.debug("%s is none of the chat's events", event.name)
        await core.listeners.keep_pace()

    def _take(self, event: MessageSentEvent | MessagesReadEvent) -> None:
        """Take what is told once and in order."""
        if isinstance(event, MessageSentEvent):
            id_ = event.message.chat_id
            room = self._known(id_) or self._core.room(id_)
            room._receive(event.message, event.temp_id)
            return
        known = self._known(event.conversation_id)
        if known is not None:
            known._marks.read(event)
        self._core.listeners.call("read", event)

    def _known(self, conversation_id: Id) -> Room | None:
        """A conversation; if there is none yet, the list is asked for, once."""
        id_ = str(conversation_id)
        room = self._core.rooms.get(id_)
        if room is None and id_ not in self._strange and len(self._strange) < STRANGERS:
            self._strange.add(id_)
            self.ask_soon()
        return room

    def _wait_on(self) -> None:
        """Let what is held wait as long as it takes."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def release(self) -> None:
        """Nothing is waited for any more: what has waited comes now."""
        self._wait_on()
        held, self._held = self._held, None
        for event in held or ():
            self._take(event)

    # What was missed

    def lost(self) -> None:
        """From now on something may be missed."""
        self.is_whole = False
        self.refusal = None
        if self._held is None:
            self._held = []
        self._wait_on()
        if self._catching_up is not None:
            self._catching_up.cancel()

    def joined(self) -> None:
        """From now on events come: fetch what was missed."""
        self.lost()
        self._strange.clear()
        self._catching_up = self._core.spawn(self._catch_up())

    def ask_soon(self) -> None:
        """Fetch the list of conversations, though not more often than is decent."""
        if self._asking is None and self._core.dialect.conversations and not self._core.is_closed:
            loop = asyncio.get_running_loop()
            at = max(loop.time(), self._asked_at + ASK_EVERY)
            self._asking = loop.call_at(at, self.ask)

    def ask(self) -> None:
        """Fetch the list and what is missing."""
        self.stop_asking()
        if not self._core.is_connected:
            return  # the next connection asks in any case
        self._asked_at = asyncio.get_running_loop().time()
        if self._catching_up is not None and not self._catching_up.done():
            self.ask_soon()  # what is under way may have asked too early
            return
        self.refusal = None
        self._catching_up = self._core.spawn(self._catch_up())

    def stop_asking(self) -> None:
        """Take back what `ask_soon` has planned."""
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    async def _catch_up(self) -> None:
        """Fetch the list and what is missing of each, until that is done or the connection lost."""
        core = self._core
        delay = FIRST_DELAY
        try:
            while (error := await self._try_to_catch_up()) is not None:
                if delay == FIRST_DELAY:
                    core.report(error)
                    # A backend that restarts is back within seconds, and nothing comes out of
                    # order. After that: better messages with a gap that is mended later than none.
                    self._patience = asyncio.get_running_loop().call_later(HOLD, self.release)
                if not is_passing(error):
                    self.refusal = error
                    self.release()
                    core.link.settle(error)
                    return
                await core.pause(delay)
                delay = min(delay * 2, MAX_DELAY)
        finally:
            self._wait_on()
        was_whole, self.is_whole = self.is_whole, True
        self.has_been_whole = True
        core.login_is_good()
        self.release()
        if not was_whole:
            core.outbox.again()
        core.presence.watch_newest()
        core.link.settle(None)

    async def _try_to_catch_up(self) -> ApiError | None:
        try:
            await self._catch_up_once()
        except ApiError as exc:
            return exc
        except Exception as exc:  # ours, and what is held would be held for ever
            log.exception("catching up failed")
            return ApiError(f"An error in antiphon itself: {exc!r}")
        return None

    async def _catch_up_once(self) -> None:
        core = self._core
        missed: list[Room] = []
        if core.dialect.conversations:
            conversations = await core.rest.conversations()
            for conversation in conversations:
                room = core.room(conversation.id)
                room._describe(conversation)
                if room._history.seed(conversation, is_first=not self.has_been_whole):
                    missed.append(room)
            core.keep_list(conversations)
        core.tell(ConversationsChanged(tuple(core.rooms)))
        missed += [room for room in core.rooms.values() if room.is_open and room not in missed]
        slots = asyncio.Semaphore(CATCH_UPS_AT_ONCE)

        async def catch_up(room: Room) -> None:
            async with slots:
                await room._history.catch_up()
                if room.is_open:
                    await room._history.fill()  # it may have been opened while nobody answered

        results = await asyncio.gather(*(catch_up(room) for room in missed), return_exceptions=True)
        for result in results:
            if isinstance(result, ApiError) and not _concerns_all(result):
                core.report(result)  # such as of one that the user is no longer in
            elif isinstance(result, BaseException):
                raise result


def is_passing(error: ApiError) -> bool:
    """Whether asking again may help."""
    return error.code is None or error.code in (408, 425, 429) or error.code >= 500


def _concerns_all(error: ApiError) -> bool:
    """Whether what one conversation's request met would meet the others'."""
    return is_passing(error) or isinstance(error, LoginFailed)
