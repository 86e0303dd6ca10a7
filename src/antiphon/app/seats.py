"""Who sits at the app: one seat per browser session, which outlives its tabs for a while."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from antiphon.chat.dialect import Dialect
from antiphon.chat.models import User
from antiphon.chat.observations import ChatObservation, ConversationsChanged
from antiphon.chat.problems import Problem
from antiphon.chat.rest import Login, RestClient
from antiphon.chat.session import ChatSession
from antiphon.client import Observation
from antiphon.errors import AntiphonError, ConnectionFailed, SettingsError
from antiphon.settings import Settings

__all__ = [
    "EXPIRES_AFTER",
    "MAX_SEATS",
    "Happening",
    "NoSeatFree",
    "Seat",
    "Seats",
    "View",
]

EXPIRES_AFTER: Final = 600.0
"""Seconds a seat is kept after its last tab has gone."""
MAX_SEATS: Final = 1_000
"""Seats at once where somebody has logged in; the others cannot keep anybody out."""
KEPT_HAPPENINGS: Final = 100
"""How much of what happened on the wire a seat remembers."""


class NoSeatFree(AntiphonError):
    """The app serves as many people as it can."""


class Happening(msgspec.Struct, frozen=True):
    """One thing the client has observed.

    Attributes:
        at: When.
        what: The observation: a change of state, an event, an error and so on.
    """

    at: datetime
    what: Observation


class Seat:
    """One browser session's place: its chat, and which tabs look at it.

    Attributes:
        id: Names the seat; it is the browser's secret, and is not to be shown.
        guest: The name under which it may be taken without logging in; empty for everybody else.
        settings: The server and backend in use; None until the log-in screen has asked for them.
        user: Who has logged in; None before.
        chat: The session, from the log-in to the log-out.
        needs_login: Whether the token is not accepted any more: the same user has to log in again.
        has_list: Whether the conversations are known, be it that there are none.
        trouble: Why they are not, if the backend has failed to tell.
        happenings: The last of what the client has observed, oldest first.
    """

    def __init__(self, id_: str, seats: Seats, *, guest: str = "") -> None:
        self.id = id_
        self.guest = guest
        self.settings = seats.settings
        self.user: User | None = None
        self.chat: ChatSession | None = None
        self.needs_login = False
        self.has_list = False
        self.trouble: Problem | None = None
        self.happenings: deque[Happening] = deque(maxlen=KEPT_HAPPENINGS)
        self._seats = seats
        self._views: set[View] = set()
        self._watchers: list[Callable[[Happening], None]] = []
        self._enders: list[Callable[[], None]] = []
        self._entering = asyncio.Lock()
        self._ends: asyncio.TimerHandle | None = None
        self._is_gone = False

    @property
    def expires_at(self) -> float | None:
        """When the seat ends, by the loop's clock; None while a tab looks at it."""
        return self._ends.when() if self._ends is not None else None

    @property
    def query(self) -> str:
        """What an address within the app ends with to mean this seat: `?as=…` or nothing."""
        return f"?as={self.guest}" if self.guest else ""

    @property
    def dialect(self) -> Dialect:
        """How the backend spells the chat."""
        return self._seats.dialect

    @property
    def asks_for_server(self) -> bool:
        """Whether the log-in screen asks which server to use."""
        return self._seats.settings is None

    @property
    def unsent(self) -> int:
        """Messages the backend does not have yet."""
        return len(self.chat.outbox.waiting()) if self.chat is not None else 0

    @property
    def keeps_unsent(self) -> bool:
        """Whether unsent messages outlive the seat, for the next log-in."""
        return self._seats.data_folder is not None

    async def log_in(self, email: str, password: str, settings: Settings | None = None) -> None:
        """Log in and start the chat; the same user again goes on with what is there.

        Args:
            email: Whose account.
            password: Its password.
            settings: The server and backend, where the app was started without.

        Raises:
            LoginFailed: E-mail or password are wrong.
            ApiError: The backend could not be asked.
            NoSeatFree: Too many people use the app.
            SettingsError: No server is known, or what is kept on disk cannot be opened.
        """
        settings = settings or self.settings
        if settings is None:
            raise SettingsError("No server is known: say which one.")
        async with RestClient(settings.api_url, dialect=self.dialect) as rest:
            login = await rest.login(email, password)
        await self.enter(login, settings)

    async def enter(self, login: Login, settings: Settings | None = None) -> None:
        """Start the chat of somebody who has logged in; it connects in the background.

        Raises:
            NoSeatFree: Too many people use the app.
            SettingsError: No server is known, or what is kept on disk cannot be opened.
        """
        settings = settings or self.settings
        if settings is None:
            raise SettingsError("No server is known: say which one.")
        async with self._entering:
            if self.chat is None and self._seats.are_taken:
                raise NoSeatFree("Too many people are using this app at the moment.")
            if self._is_gone:
                return
            user, self.user = self.user, login.user
            self.needs_login = False
            is_same = user is not None and str(user.id) == str(login.user.id)
            if self.chat is not None and is_same and settings == self.settings:
                self.chat.renew(login.token)
                return
            had_chat = self.chat is not None
            await self._close_chat()
            chat = ChatSession(
                settings,
                token=login.token,
                user_id=login.user.id,
                dialect=self.dialect,
                path=self._seats.store_path(settings, login),
                max_attempts=self._seats.max_attempts,
                presence=PRESENCE,
            )
            chat.client.observe(self._remember)
            chat.observe(self._heed)
            try:
                await chat.start()
            except BaseException:
                await chat.close()
                raise
            self.settings = settings
            self.chat = chat
        if had_chat:  # somebody else's: its tabs have to begin anew
            self._end()

    async def log_out(self) -> None:
        """End the chat and the token; every tab of the seat is told."""
        async with self._entering:
            chat = self.chat
            if chat is not None and not self.guest:
                with contextlib.suppress(AntiphonError):  # the token then ends by its age
                    await chat.rest.logout()
            await self._close_chat()
        self._end()

    def on_happening(self, handler: Callable[[Happening], None]) -> Callable[[], None]:
        """Be told of each happening; the answer ends that."""
        self._watchers.append(handler)
        return lambda: _discard(self._watchers, handler)

    def on_end(self, handler: Callable[[], None]) -> Callable[[], None]:
        """Be told when the chat has ended by a log-out or by time; the answer ends that."""
        self._enders.append(handler)
        return lambda: _discard(self._enders, handler)

    async def close(self) -> None:
        """Close the chat for good; the token stays good."""
        self._is_gone = True
        if self._ends is not None:
            self._ends.cancel()
        async with self._entering:
            await self._close_chat()
        self._end()

    def _end(self) -> None:
        for ended in tuple(self._enders):
            ended()

    async def _close_chat(self) -> None:
        chat, self.chat = self.chat, None
        self.happenings.clear()
        self.has_list = False
        self.trouble = None
        if chat is not None:
            await chat.close()

    def _heed(self, observation: ChatObservation) -> None:
        match observation:
            case ConversationsChanged():
                self.has_list = True
                self.trouble = None
            case Problem(needs_login=True):
                self.needs_login = True
            case Problem(error=error) if not (self.has_list or isinstance(error, ConnectionFailed)):
                self.trouble = observation

    def _remember(self, observation: Observation) -> None:
        happening = Happening(datetime.now(UTC), observation)
        self.happenings.append(happening)
        for watcher in tuple(self._watchers):
            watcher(happening)

    def _entered(self, view: View) -> None:
        if self._ends is not None:
            self._ends.cancel()
            self._ends = None
        self._views.add(view)

    def _left(self, view: View) -> None:
        if view not in self._views:
            return  # it has left before: a second timer would end the seat under somebody's eyes
        self._views.remove(view)
        if not self._views and not self._is_gone:
            # A browser that only looked at the log-in screen leaves nothing to keep.
            delay = self._seats.expires_after if self.chat is not None else 0.0
            self._ends = asyncio.get_running_loop().call_later(delay, self._seats.expire, self)


class View:
    """One tab: which conversation it shows.

    Attributes:
        seat: The seat it looks at.
        conversation_id: What it shows; None for no conversation.
    """

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self.conversation_id: str | None = None
        seat._entered(self)

    async def show(self, conversation_id: str | None) -> None:
        """Show another conversation; one that no tab shows any more is left."""
        previous, self.conversation_id = self.conversation_id, conversation_id
        chat = self.seat.chat
        if chat is None:
            return
        if previous is not None:
            chat.room(previous).close()
        if conversation_id is not None:
            await chat.room(conversation_id).open()

    def leave(self) -> None:
        """The tab has gone; what it alone has shown is left."""
        shown, self.conversation_id = self.conversation_id, None
        chat = self.seat.chat
        if chat is not None and shown is not None:
            chat.room(shown).close()
        self.seat._left(self)


PRESENCE: Final = 20
"""Conversations of the list, the newest, whose members' presence is shown."""


class Seats:
    """All seats of one app.

    Args:
        settings: The server and backend; None lets the log-in screen ask.
        dialect: How the backend spells the chat.
        data_folder: Where each account's unsent messages are kept; None for in memory only.
        guests: Log-ins that are given to whoever asks for them by name, for a demonstration.
        max_attempts: After how many attempts to connect a session gives up.
        expires_after: Seconds a seat is kept after its last tab has gone.
    """

    def __init__(
        self,
        settings: Settings | None,
        *,
        dialect: Dialect | None = None,
        data_folder: Path | None = None,
        guests: Mapping[str, Login] | None = None,
        max_attempts: int | None = 5,
        expires_after: float = EXPIRES_AFTER,
    ) -> None:
        self.settings = settings
        self.dialect = dialect or Dialect()
        self.data_folder = data_folder
        self.guests = guests or {}
        self.max_attempts = max_attempts
        self.expires_after = expires_after
        self._seats: dict[tuple[str, str], Seat] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._seats)

    @property
    def are_taken(self) -> bool:
        """Whether nobody else can log in at the moment."""
        return sum(seat.chat is not None for seat in self._seats.values()) >= MAX_SEATS

    async def view(self, id_: str, guest: str = "") -> View:
        """A tab on a browser session's seat, a new one if it has none; a guest's is logged in.

        Args:
            id_: The browser's secret.
            guest: A name out of `guests`; any other counts as none.

        Raises:
            NoSeatFree: All are taken, and it is a guest's.
            SettingsError: What is kept on disk for a guest cannot be opened.
        """
        if guest not in self.guests:
            guest = ""
        seat = self._seats.get((id_, guest))
        if seat is None:
            seat = self._seats[id_, guest] = Seat(id_, self, guest=guest)
        view = View(seat)
        if guest and seat.chat is None:
            try:
                await seat.enter(self.guests[guest])
            except BaseException:
                view.leave()
                raise
        return view

    def store_path(self, settings: Settings, login: Login) -> Path | None:
        """The file of an account, whose name tells nobody whose it is."""
        if self.data_folder is None:
            return None
        account = f"{settings.api_url}\n{login.user.id}"
        return self.data_folder / f"{hashlib.sha256(account.encode()).hexdigest()[:32]}.sqlite3"

    def expire(self, seat: Seat) -> None:
        """Let go of a seat, and close its chat."""
        if self._seats.get((seat.id, seat.guest)) is seat:
            del self._seats[seat.id, seat.guest]
            task = asyncio.get_running_loop().create_task(seat.close(), name="antiphon seat")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close every chat."""
        seats = list(self._seats.values())
        self._seats.clear()
        await asyncio.gather(*(seat.close() for seat in seats), *self._closing)


def _discard(handlers: list[Callable[..., None]], handler: Callable[..., None]) -> None:
    with contextlib.suppress(ValueError):
        handlers.remove(handler)
