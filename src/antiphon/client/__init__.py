"""The asyncio client of a Pusher-protocol server."""

from .authorizer import Authorization, Authorizer, HttpAuthorizer, SecretAuthorizer
from .bindings import Binding
from .channel import Channel, ChannelState, Members, PresenceChannel
from .client import Client
from .flow import Stream
from .states import ConnectingIn, ConnectionState, Observation, StateChange, Subscribed

__all__ = [
    "Authorization",
    "Authorizer",
    "Binding",
    "Channel",
    "ChannelState",
    "Client",
    "ConnectingIn",
    "ConnectionState",
    "HttpAuthorizer",
    "Members",
    "Observation",
    "PresenceChannel",
    "SecretAuthorizer",
    "StateChange",
    "Stream",
    "Subscribed",
]
