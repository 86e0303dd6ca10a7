"""A Pusher-compatible server: WebSocket and HTTP API on one port."""

from .apps import load_apps
from .http import HttpServer
from .server import Server

__all__ = ["HttpServer", "Server", "load_apps"]
