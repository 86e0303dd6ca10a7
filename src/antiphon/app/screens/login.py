"""The log-in screen: e-mail and password, and the server where the app does not know one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from nicegui import ui

from antiphon.app.seats import Seat
from antiphon.chat.problems import explain
from antiphon.errors import AntiphonError, ApiError, LoginFailed, SettingsError
from antiphon.settings import Settings

__all__ = ["login_screen"]

_PORT_DIGITS = 5
_FIELD = "outlined hide-bottom-space no-error-icon lazy-rules"
_FIELDS_OF_FORM = "(e) => emit(Object.fromEntries(new FormData(e.target)))"


def login_screen(seat: Seat, *, title: str, on_done: Callable[[], Any]) -> None:
    """Build the log-in screen in the current slot.

    Args:
        seat: Who logs in.
        title: The app's name.
        on_done: Called when somebody has logged in.
    """
    with ui.element("main").classes("lg-page"), ui.element("div").classes("lg-card"):
        ui.html(_MARK, sanitize=False).classes("lg-mark")
        with ui.element("h1").classes("lg-title"):
            ui.label(f"Log in to {title}")
        form = ui.element("form").classes("lg-form").props("novalidate")
        # With what stands in its fields: their own events may be on the way still, or overtaken.
        form.on("submit.prevent", lambda event: submit(event.args), js_handler=_FIELDS_OF_FORM)
        with form:
            email = (
                ui.input("E-mail")
                .props(f"{_FIELD} type=email name=email autocomplete=username inputmode=email")
                .props("autofocus spellcheck=false autocapitalize=off")
            )
            password = ui.input("Password", password=True).props(
                f"{_FIELD} name=password autocomplete=current-password"
            )
            with password.add_slot("append"):
                eye = ui.button(icon="visibility", color=None, on_click=lambda: reveal())
                eye.props("flat round dense type=button").classes("lg-eye")
            caps = ui.label("Caps lock is on.").classes("lg-caps")
            caps.props('role="status"').set_visibility(False)
            if seat.asks_for_server:
                _server_fields(seat)
            trouble = ui.element("div").classes("lg-trouble").props('role="alert"')
            button = ui.button("Log in").props("unelevated color=primary type=submit no-caps")
            button.classes("lg-submit")

    def reveal(shown: bool | None = None) -> None:
        shown = password.props["type"] == "password" if shown is None else shown
        password.props["type"] = "text" if shown else "password"
        eye.props["icon"] = "visibility_off" if shown else "visibility"
        eye.props["aria-label"] = "Hide password" if shown else "Show password"

    reveal(False)
    password.on(
        "keyup",
        lambda event: caps.set_visibility(bool(event.args)),
        js_handler="(e) => emit(!!(e.getModifierState && e.getModifierState('CapsLock')))",
    )
    for field in (email, password):
        field.on_value_change(lambda _, field=field: _set_error(field, ""))

    def say(text: str, advice: str = "") -> None:
        trouble.clear()
        with trouble:
            if text:
                ui.icon("error_outline").props('aria-hidden="true"')
                with ui.element("div"):
                    ui.label(text)
                    if advice:
                        ui.label(advice).classes("lg-advice")

    async def submit(written: dict[str, str]) -> None:
        if button.props.get("loading"):
            return
        say("")
        address = written["email"].strip()
        _set_error(email, _wrong_address(address))
        _set_error(password, "" if written["password"] else "Enter your password.")
        wrong = next((field for field in (email, password) if field.error), None)
        if wrong is not None:
            wrong.run_method("focus")
            return
        busy(True)
        try:
            settings = _server_settings(written) if seat.asks_for_server else None
            await seat.log_in(address, written["password"], settings)
        except LoginFailed:
            _set_error(password, "E-mail or password is wrong.")
            busy(False)
            password.run_method("focus")
            password.run_method("select")
        except SettingsError as exc:
            say(str(exc))
            busy(False)
        except AntiphonError as exc:
            say(*_words(exc))
            busy(False)
        else:
            result = on_done()
            if inspect.isawaitable(result):
                await result

    def busy(is_busy: bool) -> None:
        button.props["loading"] = is_busy
        for field in (email, password):
            field.props["readonly"] = is_busy


def _server_fields(seat: Seat) -> None:
    """The fields that say which server, folded away once they are known."""
    known = seat.settings or Settings(
        app_key="app-key", port=8080, scheme="http", api_url="http://127.0.0.1:8000"
    )
    fields = {
        "api_url": ("Backend address", known.api_url),
        "host": ("Host", known.host),
        "port": ("Port", str(known.port)),
        "app_key": ("App key", known.app_key),
    }
    with ui.expansion("Server", icon="dns", value=seat.settings is None) as folded:
        folded.classes("lg-server").props("dense")
        with ui.element("div").classes("lg-server-fields"):
            for name, (label, value) in fields.items():
                field = ui.input(label, value=value).props(f"outlined name={name}")
                field.props("spellcheck=false autocomplete=off autocapitalize=off")
                if name == "port":
                    field.props("inputmode=numeric")
            # The browser's own: NiceGUI's shows, and sends, what is chosen only when the server has
            # heard of it.
            with ui.element("label").classes("lg-scheme"):
                ui.label("Scheme")
                with ui.element("select").props("name=scheme"):
                    for scheme in ("http", "https"):
                        option = ui.element("option").props(f"value={scheme} label={scheme}")
                        option.props["selected"] = scheme == known.scheme


def _server_settings(written: dict[str, str]) -> Settings:
    """What is written there.

    Raises:
        SettingsError: It cannot be used.
    """
    port = written["port"].strip()
    if not port.isdecimal() or len(port) > _PORT_DIGITS:
        raise SettingsError("The port is a number up to 65535.")
    api_url = written["api_url"].strip()
    if not api_url:
        raise SettingsError("Enter the backend's address, such as https://chat.example.com.")
    return Settings(
        app_key=written["app_key"].strip(),
        host=written["host"].strip(),
        port=int(port),
        scheme=written["scheme"],
        api_url=api_url,
    )


def _set_error(field: ui.input, text: str) -> None:
    field.error = text or None


def _wrong_address(address: str) -> str:
    if not address:
        return "Enter your e-mail address."
    name, at, host = address.rpartition("@")
    if not (name and at and host) or any(c.isspace() for c in address):
        return "This is not an e-mail address."
    return ""


def _words(error: AntiphonError) -> tuple[str, str]:
    problem = explain(error)
    if isinstance(error, ApiError) and error.code == 422:
        return str(error), ""
    return problem.explanation, problem.advice


_MARK = """<svg viewBox="0 0 48 48" width="48" height="48" aria-hidden="true">
<rect x="3" y="6" width="30" height="24" rx="9" fill="var(--ap-primary)"/>
<path d="M10 28v9l10-8z" fill="var(--ap-primary)"/>
<rect x="17" y="16" width="28" height="22" rx="9" fill="var(--ap-positive)"
 stroke="var(--ap-surface)" stroke-width="3"/><g fill="var(--ap-surface)">
<circle cx="26" cy="27" r="2"/><circle cx="31.5" cy="27" r="2"/><circle cx="37" cy="27" r="2"/>
</g></svg>"""
