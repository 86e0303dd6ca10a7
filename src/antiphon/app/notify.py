"""Whether somebody looks at the page, and what tells them of news when they do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nicegui.element import Element
from nicegui.events import GenericEventArguments

__all__ = ["FAVICON", "Attention"]

FAVICON: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 48 48">'
    '<rect x="3" y="6" width="30" height="24" rx="9" fill="#4650c4"/>'
    '<path d="M10 28v9l10-8z" fill="#4650c4"/>'
    '<rect x="17" y="16" width="28" height="22" rx="9" fill="#12724a" stroke="#fff"'
    ' stroke-width="3"/><g fill="#fff"><circle cx="26" cy="27" r="2"/>'
    '<circle cx="31.5" cy="27" r="2"/><circle cx="37" cy="27" r="2"/></g></svg>'
)
"""The app's icon, as NiceGUI takes it for a page's `favicon`."""

_MAX_TEXT: Final = 200
"""Characters; no desktop shows more."""


class Attention(Element, component="notify.js"):
    """Sees whether the reader looks at this page, and calls them when they do not.

    The page's title and icon tell how much is unread. Desktop notifications come only if the
    reader has switched them on in the settings of this browser, and looks elsewhere.

    Args:
        title: The page's title, without a number.
        on_look: Called with whether the reader looks at the page: once it is there, and whenever
            that changes.
        on_open: Called with the tag of a notification that was clicked.

    Attributes:
        is_looking: Whether the page is shown and has the focus.
    """

    def __init__(
        self,
        title: str,
        *,
        on_look: Callable[[bool], object] | None = None,
        on_open: Callable[[str], object] | None = None,
    ) -> None:
        super().__init__()
        self.is_looking = False
        self._on_look = on_look
        self._on_open = on_open
        self._props["title"] = title
        self._props["icon"] = FAVICON
        self._props["unread"] = 0
        self.on("look", self._looked)
        self.on("open", self._opened)

    def unread(self, count: int) -> None:
        """Show how many messages are unread; 0 shows none."""
        self._props["unread"] = count

    def title(self, title: str) -> None:
        """Change the page's title; the number stays in front of it."""
        self._props["title"] = title

    def notify(self, title: str, body: str, *, tag: str) -> None:
        """Show a desktop notification, unless the reader looks at the page.

        Args:
            title: Who, or which conversation.
            body: What; shortened to 200 characters.
            tag: Names what it is about: a later one takes the place of one with the same tag.
        """
        if not self.is_looking:
            body = body if len(body) <= _MAX_TEXT else body[: _MAX_TEXT - 1] + "…"
            self.run_method("notify", title, body, tag)

    def _looked(self, event: GenericEventArguments) -> None:
        self.is_looking = event.args is True
        if self._on_look is not None:
            self._on_look(self.is_looking)

    def _opened(self, event: GenericEventArguments) -> None:
        if self._on_open is not None:
            self._on_open(str(event.args))
