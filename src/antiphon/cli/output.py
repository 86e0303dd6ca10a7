"""What the commands print: lines for people, or JSON for programs.

All that strangers may have written is printed without control characters, so that no message
can steer the terminal.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import msgspec
from rich.console import Console
from rich.text import Text

from antiphon.chat import (
    ChatEvent,
    ChatEvents,
    MessageSentEvent,
    MessagesReadEvent,
    UserIsTypingEvent,
)
from antiphon.client import ConnectingIn, ConnectionState, Observation, StateChange, Subscribed
from antiphon.errors import AntiphonError, PayloadInvalid
from antiphon.protocol.frames import Event

__all__ = ["JsonPrinter", "LinePrinter", "Printer"]

_TURNS: Final = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_STYLES: Final = {
    "SUCCESS": "green",
    "EVENT": "cyan",
    "INFO": "blue",
    "WARNING": "yellow",
    "ERROR": "bold red",
}


class LinePrinter:
    """Prints for people: a time, a level and a sentence; coloured on a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stdout, highlight=False, soft_wrap=True)
        self._chat = ChatEvents()
        self.last_error: AntiphonError | None = None

    def line(self, level: str, text: str) -> None:
        """Print one line."""
        stamp = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
        self._console.print(
            Text.assemble((f"[{stamp}] ", "dim"), (f"[{level}] ", _STYLES[level]), printable(text))
        )

    def plain(self, text: str = "") -> None:
        """Print text as it is."""
        self._console.print(Text(text))

    def logged_in(self) -> None:
        """A login has succeeded."""
        self.line("SUCCESS", "Login successful! ✓")

    def observe(self, observation: Observation, socket_id: str | None) -> None:
        """Print what a client has observed."""
        match observation:
            case StateChange(current=ConnectionState.CONNECTED):
                self.line("SUCCESS", "WebSocket connection opened")
                self.line("SUCCESS", f"Connected! socket_id={socket_id}")
            case StateChange(current=ConnectionState.CONNECTING, error=None):
                self.line("INFO", "Connecting …")
            case StateChange(current=ConnectionState.UNAVAILABLE):
                self.line("WARNING", "The server has been unavailable for 10 seconds")
            case StateChange(current=ConnectionState.DISCONNECTED):
                self.line("INFO", "Disconnected")
            case ConnectingIn(seconds, attempt, most):
                of = f" of {most}" if most is not None else ""
                when = f"in {seconds:.1f} s" if seconds else "at once"
                self.line("INFO", f"Attempt {attempt}{of} {when}")
            case Subscribed(channel):
                self.line("SUCCESS", f"Subscribed to {channel} ✓")
            case AntiphonError():
                self.last_error = observation
                self.line("ERROR", str(observation))
            case Event():
                self._event(observation)

    def _event(self, event: Event) -> None:
        if event.name.startswith("pusher:"):
            return
        try:
            chat = self._chat.decode(event)
        except PayloadInvalid as exc:
            self.line("ERROR", str(exc))
            chat = None
        if chat is None:
            self.line("EVENT", f"{event.name} on {event.channel or 'the connection'}")
            self._details({"Data": msgspec.json.encode(event.data).decode()})
        else:
            self._chat_event(chat)

    def _chat_event(self, event: ChatEvent) -> None:
        match event:
            case MessageSentEvent(message=message):
                self.line("EVENT", "📨 NEW MESSAGE")
                sender = message.sender_name or message.sender_id
                self._details({"ID": message.id, "From": sender, "Content": message.content})
            case UserIsTypingEvent(conversation_id=conversation, user=user):
                self.line("EVENT", "⌨️  TYPING")
                self._details({"User": user.name or user.id, "Conversation": conversation})
            case MessagesReadEvent(conversation_id=conversation, reader_id=reader):
                self.line("EVENT", "👀 MESSAGES READ")
                ids = ", ".join(str(id_) for id_ in event.message_ids)
                self._details({"Reader": reader, "Conversation": conversation, "Messages": ids})

    def _details(self, details: dict[str, object]) -> None:
        for name, value in details.items():
            text = printable(str(value), indent="    ")
            self._console.print(Text.assemble((f"  {name}: ", "dim"), text))


class JsonPrinter:
    """Prints for programs: one object a line, and nothing else."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        # Always None: what is told as JSON is told in words once more, on standard error.
        self.last_error: AntiphonError | None = None

    def logged_in(self) -> None:
        """Programs see the login in what follows."""

    def observe(self, observation: Observation, socket_id: str | None) -> None:
        """Print what a client has observed."""
        match observation:
            case StateChange(previous, current):
                self._print("state", previous=previous, current=current)
            case Subscribed(channel):
                self._print("subscribed", channel=channel)
            case AntiphonError():
                self._print(
                    "error",
                    type=observation.kind,
                    code=observation.code,
                    message=str(observation),
                    channel=getattr(observation, "channel", None),
                )
            case Event() if not observation.name.startswith("pusher:"):
                self._print(
                    "event",
                    event=observation.name,
                    channel=observation.channel,
                    data=observation.data,
                    user_id=observation.user_id,
                )

    def _print(self, kind: str, **fields: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        optional = ("channel", "user_id") if kind != "event" else ("user_id",)
        kept = {k: v for k, v in fields.items() if v is not None or k not in optional}
        line = msgspec.json.encode({"time": now, "kind": kind, **kept}).decode()
        # JSON lets DEL and the C1 controls stand as they are; a terminal obeys them.
        safe = "".join(json.dumps(c)[1:-1] if _steers(c) else c for c in line)
        print(safe, file=self._stream, flush=True)


Printer = LinePrinter | JsonPrinter


def printable(text: str, indent: str = "") -> str:
    """Text without control characters; its own line breaks are kept, and indented."""
    lines = ("".join("·" if _steers(c) else c for c in line) for line in text.split("\n"))
    return f"\n{indent}".join(lines) if indent else " ".join(lines)


def _steers(character: str) -> bool:
    """Whether it is obeyed and not shown: controls, line ends, turns of direction, halves."""
    return character in _TURNS or unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs")
