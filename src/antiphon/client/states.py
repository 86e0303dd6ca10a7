"""What a client tells about itself: its state, and what else can be observed."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from antiphon.errors import AntiphonError
from antiphon.protocol.frames import Event

__all__ = ["ConnectingIn", "ConnectionState", "Observation", "StateChange", "Subscribed"]


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


Observation = StateChange | ConnectingIn | Subscribed | Event | AntiphonError
"""All that `Client.observe` reports, in the order in which it happened."""
