"""The chat in the browser, and its ways to show an error for any NiceGUI app."""

from __future__ import annotations

from .chat_app import ChatApp, Served
from .errors import show_error_dialog, show_error_snackbar

__all__ = ["ChatApp", "Served", "show_error_dialog", "show_error_snackbar"]
