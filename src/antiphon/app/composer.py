"""The box one writes in: what is written stays in the browser until it is taken."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from nicegui import events
from nicegui.element import Element

from antiphon.errors import AntiphonError

__all__ = ["MAX_BYTES", "MAX_CHARACTERS", "Composer"]

MAX_CHARACTERS: Final = 4_000
"""Characters (UTF-16 units, as browsers count) in a message at the most."""

MAX_BYTES: Final = 8_000
"""Bytes in a message at the most, as UTF-8."""


class Composer(Element, component="composer.js"):
    """A message box: Enter sends, Shift+Enter breaks the line; with emoji, limits and drafts.

    Drafts and messages not yet taken live in the tab's session storage, by conversation: a reload
    or a lost socket loses neither. A message is offered to `on_send` until that returns, one at a
    time and in order, again every 5 s and after a reload; so `on_send` may see one twice, and tells
    it by its id.

    Args:
        on_send: Gets the text and its id, a random one that fits as the `temp_id` of a message.
            Once it has returned (a coroutine function: once it is done) the text is let go of. If
            it raises, the text comes back into the box with a line that says so: an
            `AntiphonError` in its own words, any other error goes where NiceGUI's errors go.
        on_keystroke: Called while one types, at most twice a second.

    A new composer is disabled until `conversation` names one.
    """

    def __init__(
        self, *, on_send: Callable[[str, str], Any], on_keystroke: Callable[[], Any]
    ) -> None:
        super().__init__()
        self._on_send = on_send
        self.on("send", self._send)
        self.on("keystroke", lambda: on_keystroke())
        self.props["max-characters"] = MAX_CHARACTERS
        self.props["max-bytes"] = MAX_BYTES

    def conversation(self, key: str | None) -> None:
        """Write in another conversation: its draft appears, the other one's is kept.

        Args:
            key: Names user and conversation, so that two users of one tab do not share drafts;
                None disables the box.
        """
        self.props["conversation"] = key

    def focus(self) -> None:
        """Put the cursor into the box."""
        self.run_method("focus")

    async def _send(self, event: events.GenericEventArguments) -> None:
        # A browser can be made to say anything.
        match event.args:
            case [str(conversation), str(id_), str(text)] if _fits(text) and 0 < len(id_) <= 64:
                pass
            case _:
                return
        if conversation != self.props.get("conversation"):
            return  # it is offered again when its conversation is open
        try:
            result = self._on_send(text, id_)
            if inspect.isawaitable(result):
                await result
        except AntiphonError as exc:
            self.run_method("refused", conversation, id_, str(exc))
            return
        except Exception:
            self.run_method("refused", conversation, id_, "")
            raise
        self.run_method("taken", conversation, id_)


def _fits(text: str) -> bool:
    characters = len(text.encode("utf-16-le", "surrogatepass")) // 2
    size = len(text.encode("utf-8", "replace"))
    return bool(text.strip()) and characters <= MAX_CHARACTERS and size <= MAX_BYTES
