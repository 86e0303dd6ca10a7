"""Real-time chat for Python over the Pusher protocol."""

from ._version import __version__
from .client import (
    Authorization,
    Authorizer,
    Channel,
    Client,
    ConnectingIn,
    ConnectionState,
    HttpAuthorizer,
    PresenceChannel,
    SecretAuthorizer,
    StateChange,
    Subscribed,
)
from .errors import AntiphonError
from .protocol.frames import Event
from .protocol.presence import Member
from .publisher import BatchEvent, Publisher
from .settings import App, Settings

__all__ = [
    "AntiphonError",
    "App",
    "Authorization",
    "Authorizer",
    "BatchEvent",
    "Channel",
    "Client",
    "ConnectingIn",
    "ConnectionState",
    "Event",
    "HttpAuthorizer",
    "Member",
    "PresenceChannel",
    "Publisher",
    "SecretAuthorizer",
    "Settings",
    "StateChange",
    "Subscribed",
    "__version__",
]
