"""The line above a conversation: whose it is, and whether they are there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from nicegui.element import Element

__all__ = ["ChatHeader"]


class ChatHeader(Element, component="chat_header.js"):
    """Avatar, name and a line below it, with an arrow back on a narrow screen.

    Args:
        on_back: Called when the arrow is pressed.
    """

    def __init__(self, *, on_back: Callable[[], Any]) -> None:
        super().__init__()
        self.on("back", lambda: on_back())

    def show(
        self,
        *,
        title: str,
        initials: str,
        color: str,
        line: str,
        typing: bool,
        online: bool,
        seen_at: datetime | None,
    ) -> None:
        """Show a conversation as it is now.

        Args:
            title: What people call it.
            initials: What its avatar says.
            color: The avatar's colour.
            line: What stands below the name.
            typing: Whether that line says that somebody types.
            online: Whether the one other person in it is there.
            seen_at: When that person was there last; it is told if there is no `line`.
        """
        shown = {
            "title": title,
            "initials": initials,
            "color": color,
            "line": line,
            "typing": typing,
            "online": online,
            "seen": None if seen_at is None else seen_at.timestamp() * 1000,
        }
        if any(self.props.get(name) != value for name, value in shown.items()):
            self.props.update(shown)
