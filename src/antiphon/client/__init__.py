"""The asyncio client of a Pusher-protocol server."""

from .auth import (
    Authentication,
    Authorization,
    Authorizer,
    AuthorizerByChannel,
    HttpAuthorizer,
    SecretAuthorizer,
    UserAuthenticator,
)
from .bindings import Binding
from .channel import Channel, ChannelState, EncryptedChannel, Members, PresenceChannel
from .client import Client
from .flow import Policy, Stream
from .outbox import TriggerResult
from .states import (
    ConnectingIn,
    ConnectionState,
    Frame,
    Observation,
    Reconnected,
    StateChange,
    Stats,
    Subscribed,
)
from .user import User, Watchlist

__all__ = [
    "Authentication",
    "Authorization",
    "Authorizer",
    "AuthorizerByChannel",
    "Binding",
    "Channel",
    "ChannelState",
    "Client",
    "ConnectingIn",
    "ConnectionState",
    "EncryptedChannel",
    "Frame",
    "HttpAuthorizer",
    "Members",
    "Observation",
    "Policy",
    "PresenceChannel",
    "Reconnected",
    "SecretAuthorizer",
    "StateChange",
    "Stats",
    "Stream",
    "Subscribed",
    "TriggerResult",
    "User",
    "UserAuthenticator",
    "Watchlist",
]
