"""The embedded chat backend: log in, talk, and have channels authorized, on one machine.

It answers the routes a Laravel application has, and publishes what happens to the members' own
channels of a Pusher server.
"""

from __future__ import annotations

from .accounts import hash_password
from .app import create_app
from .config import BackendConfig
from .models import Conversation, Message, Page, User
from .store import Store

__all__ = [
    "BackendConfig",
    "Conversation",
    "Message",
    "Page",
    "Store",
    "User",
    "create_app",
    "hash_password",
]
