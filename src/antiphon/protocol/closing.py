"""Close and error codes, and the one word a client acts on.

Pusher protocol 7, *connection closure*: 4000-4099 stop, 4100-4199 back off, 4200-4299 at once.
The rest as pusher-js 8.6 does it (`protocol.ts`, `getCloseAction`).
"""

from __future__ import annotations

from enum import Enum, IntEnum

__all__ = ["Action", "Code", "action_for"]


class Action(Enum):
    """What a client does when its connection has ended."""

    STOP = "stop"
    USE_TLS = "use TLS"
    BACK_OFF = "back off"
    RECONNECT = "reconnect at once"


class Code(IntEnum):
    """The codes antiphon itself sends or looks for."""

    ABNORMAL = 1006
    TOO_BIG = 1009
    TLS_ONLY = 4000
    UNKNOWN_APP = 4001
    APP_DISABLED = 4003
    OVER_QUOTA = 4004
    BAD_PROTOCOL = 4007
    UNAUTHORIZED = 4009
    OVER_CAPACITY = 4100
    RECONNECT = 4200
    NO_PONG = 4201
    INACTIVE = 4202
    CLIENT_EVENT_REJECTED = 4301
    WATCHLIST_LIMIT = 4302


def action_for(code: int | None) -> Action:
    """The action for a close code, or for a `pusher:error` in place of the handshake.

    Args:
        code: The code; None when the connection ended without one.
    """
    if code is None or code < 4000:
        return Action.BACK_OFF
    if code == Code.TLS_ONLY:
        return Action.USE_TLS
    if code < 4100:
        return Action.STOP
    if code < 4200:
        return Action.BACK_OFF
    if code < 4300:
        return Action.RECONNECT
    return Action.STOP
