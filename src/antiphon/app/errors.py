"""Errors for people: a dialog for what stops one, a snackbar for what passes.

Both work in any NiceGUI app; call them where its elements are made, such as in an event handler,
or inside `with client:`.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from nicegui import context, ui
from nicegui.client import Client
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement
from nicegui.events import UiEventArguments, handle_event

from antiphon.chat.problems import Problem, explain
from antiphon.errors import AntiphonError, ErrorKind

__all__ = ["Action", "show_error_dialog", "show_error_snackbar"]

Action = Callable[[], Awaitable[None] | None]
"""What a button does: a function without arguments, plain or async."""

_ICONS: Final[dict[ErrorKind, str]] = {
    "connection": "wifi_off",
    "subscription": "lock",
    "event": "warning",
}
_MAX_SNACKBARS: Final = 2
_CSS: Final = Path(__file__).parent / "errors.css"

# A selection is copied without asking for a permission, and on plain http, too.
_COPY: Final = """(event) => {
  const button = event.currentTarget, icon = button.querySelector(".q-icon");
  getSelection().selectAllChildren(button.parentElement.querySelector("pre"));
  document.execCommand("copy");
  getSelection().removeAllRanges();
  icon.textContent = "check";
  button.setAttribute("aria-label", "Copied");
  setTimeout(() => {
    icon.textContent = "content_copy";
    button.setAttribute("aria-label", "Copy technical details");
  }, 2000);
}"""

# Quasar keeps the focus in only once the dialog stands still; a quick Tab may have left before.
_BRING_BACK: Final = """() => document.activeElement.closest(".ap-error") ||
  document.querySelector(".ap-error [autofocus]").focus()"""


class _Shown:
    """What one page shows now, so that nothing is shown twice."""

    def __init__(self) -> None:
        self.dialogs: dict[tuple[str, ...], ui.dialog] = {}
        self.snackbars: dict[tuple[str, ...], ui.notification] = {}


_shown: Final[weakref.WeakKeyDictionary[Client, _Shown]] = weakref.WeakKeyDictionary()


def show_error_dialog(
    problem: Problem | AntiphonError | str,
    *,
    on_retry: Action | None = None,
    on_login: Action | None = None,
    on_dismiss: Action | None = None,
) -> ui.dialog:
    """Say what has gone wrong, and what can be done about it.

    While the page shows a dialog of the same problem, that one stays the only one.

    Args:
        problem: What has gone wrong; an error is explained, a text is shown as it is.
        on_retry: Makes a Retry button, if the problem says that trying again may help.
        on_login: Makes a Log in button, if the problem says that only this helps.
        on_dismiss: Called when the dialog is closed in any other way: Dismiss, Esc, beside it.
    """
    problem = _as_problem(problem)
    dialogs = _on_this_page().dialogs
    key = (problem.kind, problem.title, problem.explanation)
    if key in dialogs:
        return dialogs[key]
    go, go_label = on_retry if problem.can_retry else None, "Retry"
    if problem.needs_login and on_login is not None:
        go, go_label = on_login, "Log in"
    is_decided = False

    def decide(action: Action | None) -> None:
        nonlocal is_decided
        if not is_decided:
            is_decided = True
            dialogs.pop(key, None)
            dialog.close()
            handle_event(action, UiEventArguments(sender=dialog, client=dialog.client))

    dialog = dialogs[key] = ui.dialog().classes(f"ap-error ap-{problem.kind}")
    with dialog, ui.element("div").classes("ap-error-panel"):
        with ui.element("div").classes("ap-error-head"):
            with ui.element("span").classes("ap-error-icon").props("aria-hidden=true"):
                ui.icon(_ICONS[problem.kind])
            title = TextElement(tag="h2", text=problem.title)
        text = TextElement(tag="p", text=problem.explanation)
        if problem.advice:
            TextElement(tag="p", text=problem.advice).classes("ap-error-advice")
        if problem.detail:
            _details(problem.detail)
        with ui.element("div").classes("ap-error-actions"):
            dismiss = ui.button("Dismiss", on_click=lambda: decide(on_dismiss), color=None)
            dismiss.props("flat no-caps").classes("ap-error-dismiss")
            last = dismiss
            if go is not None:
                last = ui.button(go_label, on_click=lambda: decide(go), color=None)
                last.props("unelevated no-caps").classes("ap-error-go")
            last.props("autofocus")
    dialog.props(
        f"role=alertdialog aria-labelledby={title.html_id} aria-describedby={text.html_id}"
    )
    dialog.on("update:model-value", lambda: decide(on_dismiss), args=[])
    dialog.on("show", js_handler=_BRING_BACK)
    dialog.on("hide", dialog.delete, args=[])
    dialog.open()
    return dialog


def show_error_snackbar(
    problem: Problem | AntiphonError | str, *, on_retry: Action | None = None
) -> ui.notification:
    """Mention a passing trouble at the edge of the screen; it goes by itself.

    While the page shows the same problem, it is not shown again. Of different ones the page shows
    two; a third takes the oldest one's place.

    Args:
        problem: What has gone wrong; an error is explained, a text is shown as it is.
        on_retry: Makes a Retry button, if the problem says that trying again may help.
    """
    problem = _as_problem(problem)
    snackbars = _on_this_page().snackbars
    key = (problem.kind, problem.title, problem.explanation)
    if key in snackbars:
        return snackbars[key]
    while len(snackbars) >= _MAX_SNACKBARS:
        snackbars.pop(next(iter(snackbars))).dismiss()

    def forget() -> None:
        if snackbars.get(key) is snackbar:  # and not a later one of the same problem
            del snackbars[key]

    snackbar = snackbars[key] = ui.notification(
        problem.title,
        caption=problem.explanation,
        icon=_ICONS[problem.kind],
        timeout=8.0 if on_retry is not None and problem.can_retry else 6.0,
        classes="ap-snackbar",
        textColor="snackbar",  # a colour that only errors.css knows
        attrs={"role": "alert"},
        on_dismiss=forget,
    )
    here = f"getElement({snackbar.id})"
    actions: list[dict[str, object]] = []
    if on_retry is not None and problem.can_retry:
        actions.append({"label": "Retry", ":handler": f"() => {here}?.$emit('retry')"})
        snackbar.on("retry", lambda: handle_event(on_retry, _sent_by(snackbar)), args=[])
    actions.append(
        {"icon": "close", "round": True, "aria-label": "Dismiss", ":handler": "() => {}"}
    )
    snackbar.props["options"]["actions"] = actions
    return snackbar


def _details(detail: str) -> None:
    """What a technician wants to know, folded away."""
    with ui.element("details").classes("ap-error-detail"):
        # Quasar keeps the focus in by sending it to the first tabindex, which must not be folded.
        TextElement(tag="summary", text="Technical details").props("tabindex=0")
        with ui.element("div").classes("ap-error-copyable"):
            TextElement(tag="pre", text=detail).props("tabindex=0")
            copy = ui.button(icon="content_copy", color=None).props("flat round")
            copy.props('aria-label="Copy technical details"').on("click", js_handler=_COPY)


def _as_problem(problem: Problem | AntiphonError | str) -> Problem:
    if isinstance(problem, Problem):
        return problem
    if isinstance(problem, AntiphonError):
        return explain(problem)
    return Problem(
        kind="event",
        title="Something went wrong",
        explanation=problem,
        advice="",
        can_retry=True,
        detail="",
        error=AntiphonError(problem),
    )


def _on_this_page() -> _Shown:
    client = context.client
    shown = _shown.get(client)
    if shown is None:
        shown = _shown[client] = _Shown()
        with client:
            ui.add_css(_CSS)
    return shown


def _sent_by(element: Element) -> UiEventArguments:
    return UiEventArguments(sender=element, client=element.client)
