"""Real-time chat for Python over the Pusher protocol."""

from ._version import __version__
from .client import (
    Authentication,
    Authorization,
    Authorizer,
    AuthorizerByChannel,
    Channel,
    Client,
    ConnectingIn,
    ConnectionState,
    EncryptedChannel,
    Frame,
    HttpAuthorizer,
    PresenceChannel,
    Reconnected,
    SecretAuthorizer,
    StateChange,
    Stats,
    Subscribed,
    TriggerResult,
    User,
    UserAuthenticator,
    Watchlist,
)
from .errors import AntiphonError
from .protocol.frames import Event
from .protocol.presence import Member
from .publisher import BatchEvent, Publisher, Webhook, WebhookEvent
from .settings import App, Settings

__all__ = [
    "AntiphonError",
    "App",
    "Authentication",
    "Authorization",
    "Authorizer",
    "AuthorizerByChannel",
    "BatchEvent",
    "Channel",
    "Client",
    "ConnectingIn",
    "ConnectionState",
    "EncryptedChannel",
    "Event",
    "Frame",
    "HttpAuthorizer",
    "Member",
    "PresenceChannel",
    "Publisher",
    "Reconnected",
    "SecretAuthorizer",
    "Settings",
    "StateChange",
    "Stats",
    "Subscribed",
    "TriggerResult",
    "User",
    "UserAuthenticator",
    "Watchlist",
    "Webhook",
    "WebhookEvent",
    "__version__",
]
