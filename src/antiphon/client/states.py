"""What a client tells about itself: its state, and what else can be observed."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from antiphon.errors import AntiphonError
from antiphon.protocol.frames import Event

__all__ = [
    "ConnectingIn",
    "ConnectionState",
    "Frame",
    "Observation",
    "Reconnected",
    "StateChange",
    "Stats",
    "Subscribed",
]


class ConnectionState(StrEnum):
    """The state of the connection, in pusher-js's words."""

    INITIALIZED = "initialized"
    """Not connected yet."""
    CONNECTING = "connecting"
    """Dialling, or waiting for the next attempt."""
    CONNECTED = "connected"
    """Open; events arrive."""
    UNAVAILABLE = "unavailable"
    """Not connected for 10 seconds; attempts go on."""
    FAILED = "failed"
    """Given up: the server refuses this client, or all attempts are used up."""
    DISCONNECTED = "disconnected"
    """Ended by the program."""


class StateChange(msgspec.Struct, frozen=True):
    """The connection has moved.

    Attributes:
        previous: The state it was in.
        current: The state it is in now.
        error: Why it moved, where that was not wished for.
    """

    previous: ConnectionState
    current: ConnectionState
    error: AntiphonError | None = None


class ConnectingIn(msgspec.Struct, frozen=True):
    """The client will dial again.

    Attributes:
        seconds: How long from now.
        attempt: Which attempt it will be since a connection last lasted, from 1.
        max_attempts: After how many the client gives up; None for never.
    """

    seconds: float
    attempt: int
    max_attempts: int | None


class Subscribed(msgspec.Struct, frozen=True):
    """A channel has been joined, for the first time or again.

    Attributes:
        channel: The channel's name.
    """

    channel: str


class Reconnected(msgspec.Struct, frozen=True):
    """A new connection stands, and every channel has its answer: events arrive again.

    What the server sent in between is lost, unless it keeps it; this is the moment to fetch it.

    Attributes:
        away: Seconds between the loss of the old connection and the new one.
        channels: The channels that are subscribed again.
        failed: The channels that were refused, and `pusher:signin` if the sign-in was.
    """

    away: float
    channels: tuple[str, ...]
    failed: tuple[str, ...]


Observation = StateChange | ConnectingIn | Subscribed | Reconnected | Event | AntiphonError
"""All that `Client.observe` reports, in the order in which it happened."""


class Frame(msgspec.Struct, frozen=True):
    """A text message as it went over the wire.

    Attributes:
        direction: `in` from the server, `out` to it.
        text: The message; in place of a signature it has `…`.
    """

    direction: Literal["in", "out"]
    text: str


class Stats(msgspec.Struct, frozen=True):
    """What a client has done since it was made.

    Attributes:
        frames_received: Text messages.
        bytes_received: Bytes of their payloads.
        frames_sent: Text messages.
        bytes_sent: Bytes of their payloads.
        connections: Connections on which the handshake was done.
        reconnects: Those of them that followed another one.
        lag: Events that wait now for asynchronous handlers and streams.
        dropped: Events lost to the policies `drop_oldest` and `error`.
        paused: Seconds the socket was not read because a handler was slow.
        round_trip: Seconds between the last ping and its answer; None before there was one.
    """

    frames_received: int
    bytes_received: int
    frames_sent: int
    bytes_sent: int
    connections: int
    reconnects: int
    lag: int
    dropped: int
    paused: float
    round_trip: float | None
