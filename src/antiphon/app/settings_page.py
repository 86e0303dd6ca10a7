"""The settings: colours and notifications, which the browser keeps; and the server in use."""

from __future__ import annotations

from urllib.parse import urlsplit

from nicegui import ui
from nicegui.element import Element

from antiphon import __version__

from .connection import server_address
from .seats import View
from .theme import THEME_COOKIE, current_theme, screen, text

__all__ = ["settings_screen"]


class _Preferences(Element, component="preferences.js"):
    """What the browser keeps for itself."""

    def __init__(self) -> None:
        super().__init__()
        self._props["theme"] = current_theme()
        self._props["cookie"] = THEME_COOKIE


def settings_screen(view: View) -> None:
    """Build the settings in the current slot."""
    seat = view.seat
    with screen("Settings", back="/" + seat.query):
        _Preferences()
        if seat.chat is not None:
            settings = seat.chat.settings
            with _section("Server"):
                _fact("Server", server_address(settings), "ap-mono")
                _fact("App key", settings.app_key, "ap-mono")
                _fact("Backend", _without_credentials(settings.api_url), "ap-mono")
                with ui.element("a").classes("ap-row ap-row-link") as link:
                    text("Connection details").classes("ap-row-text")
                    ui.icon("chevron_right").props("aria-hidden=true")
                link.props["href"] = "/connection" + seat.query
        with _section("About"):
            _fact("antiphon", f"Version {__version__}")


def _section(title: str) -> Element:
    with ui.element("section").classes("ap-section") as section:
        section.props["aria-label"] = title
        text(title, "h2")
        return ui.element("div").classes("ap-card")


def _fact(name: str, value: str, classes: str = "") -> None:
    with ui.element("div").classes("ap-row"):
        text(name)
        text(value).classes(f"ap-value {classes}")


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
