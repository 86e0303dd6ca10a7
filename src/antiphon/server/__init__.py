"""A Pusher-compatible server: WebSocket and HTTP API on one port."""

from .apps import load_apps
from .server import Server

__all__ = ["Server", "load_apps"]
