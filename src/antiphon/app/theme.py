"""The look of the app: colours for light and dark, the column of a plain screen, and avatars."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final

from nicegui import context, ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

__all__ = [
    "THEME_COOKIE",
    "Theme",
    "apply_theme",
    "avatar",
    "avatar_color",
    "brief",
    "current_theme",
    "initials",
    "screen",
    "text",
]

THEME_COOKIE: Final = "antiphon_theme"
"""The browser's choice lies in this cookie; the page that is sent has it from the first byte."""

_CSS: Final = (Path(__file__).parent / "theme.css").read_text(encoding="utf-8")
_MAX_NAME: Final = 200
_LIGHT: Final = "html { background: #f3f4f9; color-scheme: light }"
_DARK: Final = "html { background: #11131a; color-scheme: dark }"


class Theme(StrEnum):
    """Which colours a browser wants."""

    LIGHT = "light"
    DARK = "dark"
    SYSTEM = "system"
    """What the system has set, also when it changes."""


# Before the page's script runs there is no body to carry a class, only the page's background.
_FIRST_PAINT: Final = {
    Theme.LIGHT: _LIGHT,
    Theme.DARK: _DARK,
    Theme.SYSTEM: f"{_LIGHT} @media (prefers-color-scheme: dark) {{ {_DARK} }}",
}
_IS_DARK: Final = {Theme.LIGHT: False, Theme.DARK: True, Theme.SYSTEM: None}


def current_theme() -> Theme:
    """What the browser that asks for this page has chosen; the system's if nothing."""
    try:
        return Theme(context.client.request.cookies.get(THEME_COOKIE, ""))
    except ValueError:
        return Theme.SYSTEM


def apply_theme() -> None:
    """Give this page the app's look; call it once in each page, before what it shows."""
    theme = current_theme()
    ui.add_head_html(f"<style>{_FIRST_PAINT[theme]}\n{_CSS}</style>")
    _PageColors(_IS_DARK[theme])


class _PageColors(Element, component="page_colors.js"):
    """Sets this page's colours, once."""

    def __init__(self, is_dark: bool | None) -> None:
        super().__init__()
        self._props["value"] = is_dark


@contextlib.contextmanager
def screen(title: str, *, back: str = "/") -> Iterator[Element]:
    """A screen with a header and one column, as the settings have it.

    Args:
        title: The header's text.
        back: Where the arrow in it leads.
    """
    with ui.element("div").classes("ap-screen"):
        with ui.element("header").classes("ap-screen-header"):
            link = ui.button(icon="arrow_back", color=None).props("flat round aria-label=Back")
            link.props["href"] = back  # which makes it a link
            text(title, "h1")
        with ui.element("div").classes("ap-screen-column") as column:  # Quasar has a main around it
            yield column


def text(content: str, tag: str = "span") -> TextElement:
    """Text in an element of one's choice; what it holds is shown as it is, HTML too."""
    return TextElement(tag=tag, text=content)


def avatar(name: str, id: object, size: int = 40, online: bool = False) -> Element:
    """A disc with somebody's initials; the name itself stands beside it.

    Args:
        name: Whose it is.
        id: The user's or the conversation's id; it alone decides the colour.
        size: Pixels.
        online: Whether it has a dot; later the class `ap-online` gives and takes it.
    """
    disc = text(initials(name)).classes("ap-avatar").props('aria-hidden="true"')
    disc.style(f"--size: {size}px; background: {avatar_color(id)}")
    if online:
        disc.classes("ap-online")
    return disc


def avatar_color(id: object) -> str:
    """The colour that an id has everywhere; 7 and "7" are one id.

    The message list reckons the same in the browser. White text on it is readable at any hue.
    """
    hue = 7
    for char in str(id):
        hue = (hue * 31 + ord(char)) % 3600
    return f"oklch(0.5 0.1 {hue * 137 % 360})"


def brief(name: str) -> str:
    """A name as far as a page shows it: 200 characters; some backends take a book for one."""
    return name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}…"


def initials(name: str) -> str:
    """One or two letters that stand for a name; a question mark for none."""
    words = [word for word in name.split() if word[0].isalnum()]
    if not words:
        return name.strip()[:1] or "?"
    return (words[0][0] + (words[-1][0] if len(words) > 1 else "")).upper()
