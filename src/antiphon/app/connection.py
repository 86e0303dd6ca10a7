"""The details of the connection: where it leads, how it does, and what came over it last."""

from __future__ import annotations

import asyncio
import re
from itertools import count
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from nicegui.element import Element

from antiphon.chat.observations import ChatObservation, ChatState
from antiphon.chat.session import ChatSession
from antiphon.client import (
    ConnectingIn,
    ConnectionState,
    Observation,
    Reconnected,
    StateChange,
    Subscribed,
)
from antiphon.errors import AntiphonError
from antiphon.protocol.frames import Event
from antiphon.settings import Settings

from .seats import Happening, Seat, View
from .theme import screen

__all__ = ["ConnectionDetails", "connection_screen", "server_address"]

_TOGETHER: Final = 0.25
"""Seconds; what happens within them travels together."""
_MAX_ROWS: Final = 100
_MAX_TEXT: Final = 12_000
"""Characters of an event's data that a page gets; a server's usual limit is 10 240 bytes."""
_SECRET: Final = re.compile(
    r'"(auth|signature|shared_secret|token|password|secret)"\s*:\s*"(?:[^"\\]|\\.)*"'
)
_STATES: Final = {
    ChatState.CLOSED: ("Closed", ""),
    ChatState.CONNECTING: ("Connecting", "warn"),
    ChatState.CONNECTED: ("Connected", "good"),
    ChatState.RECONNECTING: ("Reconnecting", "warn"),
    ChatState.FAILED: ("Not connected", "bad"),
}


def connection_screen(view: View) -> None:
    """Build the screen with the details of a seat's connection in the current slot."""
    seat = view.seat
    assert seat.chat is not None, "who has not logged in has no connection"
    with screen("Connection", back="/" + seat.query):
        ConnectionDetails(seat, seat.chat)


class ConnectionDetails(Element, component="connection.js"):
    """Facts of a connection and the last 100 things that happened on it, as one element.

    Args:
        seat: Remembers what has happened.
        chat: The seat's session.
    """

    def __init__(self, seat: Seat, chat: ChatSession) -> None:
        super().__init__()
        self._chat = chat
        self._numbers = count()
        self._new: list[Happening] = []
        self._sending: asyncio.TimerHandle | None = None
        self._props["first"] = {
            "facts": _facts(chat),
            "rows": [self._row(happening) for happening in seat.happenings],
        }
        self._ends = (seat.on_happening(self._happened), chat.observe(self._observe))
        self.on("look", self._send, args=[])
        self.on("retry", chat.retry, args=[])
        self.on("clear", lambda: seat.happenings.clear(), args=[])  # NiceGUI asks for a signature

    def _happened(self, happening: Happening) -> None:
        self._new.append(happening)
        del self._new[:-_MAX_ROWS]
        self._soon()

    def _observe(self, observation: ChatObservation) -> None:
        self._soon()

    def _soon(self) -> None:
        if self._sending is None:
            self._sending = asyncio.get_running_loop().call_later(_TOGETHER, self._send)

    def _send(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        new, self._new = self._new, []
        self.run_method("put", _facts(self._chat), [self._row(happening) for happening in new])

    def _row(self, happening: Happening) -> dict[str, Any]:
        kind, name, channel, data = _words(happening.what)
        text = _SECRET.sub(r'"\1":"…"', _json(data))
        return {
            "n": next(self._numbers),
            "at": round(happening.at.timestamp() * 1000),
            "kind": kind,
            "name": name,
            "channel": channel,
            "text": text[:_MAX_TEXT],
            "cut": max(0, len(text) - _MAX_TEXT),
        }

    def _handle_delete(self) -> None:
        for end in self._ends:
            end()
        if self._sending is not None:
            self._sending.cancel()
        super()._handle_delete()


def server_address(settings: Settings) -> str:
    """The server's address as people write it: scheme, host and port."""
    parts = urlsplit(settings.websocket_url)
    return f"{parts.scheme}://{parts.netloc}{settings.path}"


def _words(what: Observation) -> tuple[str, str, str, Any]:
    """A happening as kind, name, channel and data."""
    match what:
        case Event():
            return "event", what.name, what.channel or "", what.data
        case StateChange():
            error = None if what.error is None else str(what.error)
            data = {"previous": what.previous, "current": what.current, "error": error}
            return "state", f"{what.previous} → {what.current}", "", data
        case ConnectingIn():
            return "wait", f"next attempt in {what.seconds:.1f} s", "", what
        case Subscribed():
            return "channel", "subscribed", what.channel, what
        case Reconnected():
            return "state", f"reconnected after {what.away:.1f} s", "", what
        case AntiphonError():
            channel = getattr(what, "channel", None) or ""
            failure = {"error": str(what), "kind": what.kind, "code": what.code}
            return "error", type(what).__name__, channel, failure


def _json(data: Any) -> str:
    try:
        return msgspec.json.encode(data).decode()
    except (UnicodeError, RecursionError):  # half of a surrogate pair; nested beyond reason
        return "(data that no JSON can hold)"


def _facts(chat: ChatSession) -> dict[str, Any]:
    """What the screen says of a session now."""
    client, settings = chat.client, chat.settings
    stats = client.stats
    state, tone = _STATES[chat.state]
    is_up = client.state is ConnectionState.CONNECTED
    attempt = []
    if chat.connecting_in is not None and not is_up:
        of = chat.connecting_in.max_attempts
        number = str(chat.connecting_in.attempt) + ("" if of is None else f" of {of}")
        attempt = [("Attempt", number, False)]
    problem = None if chat.state is ChatState.CONNECTED else chat.problem
    is_down = chat.state in (ChatState.RECONNECTING, ChatState.FAILED)
    round_trip = stats.round_trip
    return {
        "state": state,
        "tone": tone,
        "problem": None if problem is None else f"{problem.explanation} {problem.advice}".strip(),
        "can_retry": is_down and not (problem is not None and problem.needs_login),
        "rows": [
            *attempt,
            ("Socket id", client.socket_id or "None", client.socket_id is not None),
            ("Server", server_address(settings), True),
            ("Encrypted", "Yes (TLS)" if settings.secure else "No", False),
            ("App key", settings.app_key, True),
            (
                "Round trip",
                "Not measured yet" if round_trip is None else f"{round_trip * 1000:.1f} ms",
                False,
            ),
            ("Received", _traffic(stats.frames_received, stats.bytes_received), False),
            ("Sent", _traffic(stats.frames_sent, stats.bytes_sent), False),
            ("Reconnects", f"{stats.reconnects:,}", False),
        ],
        "channels": [
            (name, str(client.channels[name].state))
            for name in sorted(client.channels, key=_in_order)
        ],
    }


def _in_order(name: str) -> list[str | int]:
    """What sorts conversation.2 before conversation.10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _traffic(frames: int, size: int) -> str:
    """A number of frames and their bytes, such as "12 frames, 3.4 kB"."""
    unit, units = float(size), iter(("B", "kB", "MB", "GB"))
    name = next(units)
    while unit >= 1000 and name != "GB":
        unit, name = unit / 1000, next(units)
    shown = f"{unit:.0f}" if name == "B" else f"{unit:.1f}"
    return f"{frames:,} frame{'' if frames == 1 else 's'}, {shown} {name}"
