"""The list of conversations as a single element, of which the page shows what fits into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

from nicegui import events
from nicegui.element import Element

__all__ = ["ConversationList", "Row"]


class Row(TypedDict):
    """One conversation as the list shows it.

    Attributes:
        id: The conversation's id.
        title: What people call it.
        initials: What its avatar says.
        color: The avatar's colour.
        online: Whether the one other person in it is there.
        text: The last message, or nothing.
        prefix: Who wrote it, such as `You`; empty where that is clear.
        status: How far an own last message has come; empty for others'.
        at: When that was, in milliseconds since 1970; None without a message.
        begun: When it was begun here, which places it while nothing is said in it; 0 for before.
        unread: How many messages are new.
        typing: Who types, in words; empty for nobody.
    """

    id: str
    title: str
    initials: str
    color: str
    online: bool
    text: str
    prefix: str
    status: str
    at: float | None
    begun: float
    unread: int
    typing: str


class ConversationList(Element, component="conversation_list.js"):
    """Conversations with a search above them, the newest first; thousands are no burden to a page.

    It fills its parent, which must be a flex column with a height.

    Args:
        on_open: Gets the id of the conversation that was chosen.
        on_start: Called when nothing was found and a new conversation is wanted.
    """

    def __init__(self, *, on_open: Callable[[str], Any], on_start: Callable[[], Any]) -> None:
        super().__init__()

        def opened(event: events.GenericEventArguments) -> Any:
            return on_open(event.args) if isinstance(event.args, str) else None

        self.on("open", opened)
        self.on("start", lambda: on_start())

    def choose(self, conversation_id: str | None) -> None:
        """Mark the conversation that is shown beside the list."""
        self.props["current"] = conversation_id

    def show(self, rows: Sequence[Row]) -> None:
        """Show these and no others."""
        self.run_method("show", list(rows))

    def put(self, rows: Sequence[Row]) -> None:
        """Add conversations, or show them as they are now."""
        self.run_method("put", list(rows))
