"""The messages of one conversation as a single element: a page feels one of them, or a thousand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, Required, TypedDict

from nicegui import events
from nicegui.element import Element

__all__ = ["Item", "MessageList"]

_TOGETHER: Final = 0.03
"""Seconds; what comes within them travels together."""

_MAX_TEXT: Final = 20_000
"""Characters of a message that a page shows; more would freeze it."""


class Item(TypedDict, total=False):
    """One message as the list shows it; in an update, what is left out stays as it was.

    Attributes:
        key: Names the message for as long as the conversation is open.
        after: Key of the message it stands behind, None for the first of all; without it, a new
            message stands at the end. A message that is shown keeps its place.
        own: Whether the reader wrote it: right, and with its status.
        sender: The writer's name.
        sender_id: Tells two writers of one name apart.
        text: What it says. Beyond 20 000 characters it is cut.
        at: When it was written: ISO 8601 with a zone, or milliseconds since 1970. Without it, or
            if it is no date, the message shows no time.
        status: `sending`, `sent`, `delivered`, `read`, `failed` or nothing; shown for own ones.
        error: Why it failed, for a person.
    """

    key: Required[str]
    after: str | None
    own: bool
    sender: str
    sender_id: str
    text: str
    at: str | float | None
    status: str
    error: str


class MessageList(Element, component="message_list.js"):
    """The messages of the open conversation, as bubbles, newest at the bottom.

    It fills its parent, which must be a flex column with a height. Hide it with `set_visibility`;
    taken out of the page (`v-if`, a closed dialog, another tab panel) it forgets what it shows.

    Changes reach the browser in batches: the first at once, what follows within 30 ms together.

    Args:
        on_older: The reader nears the top. Gets the key of the first message the page has, or None
            if it has none; to be answered with `older`, and not called again before, except
            after `show`.
        on_seen: Gets the key of the newest message of others that the reader has before their
            eyes: scrolled there, in a visible window with the focus. At most 5 times a second.
        on_retry: Gets the key of a failed message that is to be sent again.
        on_discard: Gets the key of a failed message that is to be thrown away.

    The handlers may be coroutine functions.
    """

    def __init__(
        self,
        *,
        on_older: Callable[[str | None], Any],
        on_seen: Callable[[str], Any],
        on_retry: Callable[[str], Any],
        on_discard: Callable[[str], Any],
    ) -> None:
        super().__init__()
        self._waiting: list[tuple[Any, ...]] = []
        self._timer: asyncio.TimerHandle | None = None

        def ask_older(event: events.GenericEventArguments) -> Any:
            return on_older(event.args if isinstance(event.args, str) else None)

        def with_key(handler: Callable[[str], Any]) -> Callable[..., Any]:
            def handle(event: events.GenericEventArguments) -> Any:
                return handler(event.args) if isinstance(event.args, str) else None

            return handle

        self.on("older", ask_older)
        self.on("seen", with_key(on_seen))
        self.on("retry", with_key(on_retry))
        self.on("discard", with_key(on_discard))

    def show(
        self, items: Sequence[Item], *, has_older: bool, unread_from: str | None = None
    ) -> None:
        """Show another conversation, at its end or at the first unread message.

        Args:
            items: Its newest messages, oldest first. If there are none and `has_older` is true,
                the list shows that it is loading, and asks for them.
            has_older: Whether there are messages before these.
            unread_from: Key of the first unread message, which gets the "New messages" line.
        """
        self._waiting.clear()
        self._do("show", [_cut(item) for item in items], has_older, unread_from)

    def put(self, items: Sequence[Item]) -> None:
        """Add messages, or update shown ones where they stand.

        A reader at the end sees the new ones; one who reads further up is not moved, and learns
        from the button how many came.
        """
        self._do("put", [_cut(item) for item in items])

    # The list has no child elements, so what the name means elsewhere has no meaning here.
    def remove(self, key: str) -> None:  # type: ignore[override]
        """Take a message away; an unknown key is none."""
        self._do("remove", key)

    def older(self, items: Sequence[Item], has_older: bool, *, before: str | None) -> None:
        """Answer `on_older`; what is being read stays where it is.

        Args:
            items: Messages from before the first one, oldest first. None of them, with
                `has_older`, means that they could not be had: the reader asks again by scrolling.
            has_older: Whether there are still more.
            before: What `on_older` got. If the page begins with another message by now, the answer
                would leave a gap: it is not used, and the page asks again if it has to.
        """
        self._do("older", [_cut(item) for item in items], has_older, before)

    def _do(self, operation: str, *args: Any) -> None:
        self._waiting.append((operation, *args))
        if self._timer is None:
            self._flush()

    def _flush(self) -> None:
        self._timer = None
        if not self._waiting or self.is_deleted:
            return
        batch, self._waiting = self._waiting, []
        self.run_method("batch", batch)
        self._timer = asyncio.get_running_loop().call_later(_TOGETHER, self._flush)


def _cut(item: Item) -> Item:
    text = item.get("text", "")
    if len(text) <= _MAX_TEXT:
        return item
    left_out = len(text) - _MAX_TEXT
    return {**item, "text": f"{text[:_MAX_TEXT]} … ({left_out:,} more characters)"}
