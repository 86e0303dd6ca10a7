"""Opening a page."""

from __future__ import annotations

import os
import sys
import webbrowser

__all__ = ["show_in_browser"]


def show_in_browser(url: str) -> None:
    """Open a page where there is a screen: a browser for text would take the terminal."""
    has_screen = sys.platform in ("win32", "darwin") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    if has_screen:
        webbrowser.open(url)
