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
        form.on("submit.prevent", lambda: submit())
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
            server = _Server(seat) if seat.asks_for_server else None
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

    async def submit() -> None:
        if button.props.get("loading"):
            return
        say("")
        address = (email.value or "").strip()
        _set_error(email, _wrong_address(address))
        _set_error(password, "" if password.value else "Enter your password.")
        wrong = next((field for field in (email, password) if field.error), None)
        if wrong is not None:
            wrong.run_method("focus")
            return
        busy(True)
        try:
            settings = server.settings() if server is not None else None
            await seat.log_in(address, password.value, settings)
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


class _Server:
    """The fields that say which server, folded away once they are known."""

    def __init__(self, seat: Seat) -> None:
        known = seat.settings or Settings(
            app_key="app-key", port=8080, scheme="http", api_url="http://127.0.0.1:8000"
        )
        with ui.expansion("Server", icon="dns", value=seat.settings is None) as folded:
            folded.classes("lg-server").props("dense")
            with ui.element("div").classes("lg-server-fields"):
                self._api = _field("Backend address", known.api_url)
                self._host = _field("Host", known.host)
                self._port = _field("Port", str(known.port)).props("inputmode=numeric")
                self._key = _field("App key", known.app_key)
                self._scheme = ui.select(["http", "https"], value=known.scheme, label="Scheme")
                self._scheme.props("outlined")

    def settings(self) -> Settings:
        """What is written there.

        Raises:
            SettingsError: It cannot be used.
        """
        port = (self._port.value or "").strip()
        if not port.isdecimal() or len(port) > _PORT_DIGITS:
            raise SettingsError("The port is a number up to 65535.")
        api_url = (self._api.value or "").strip()
        if not api_url:
            raise SettingsError("Enter the backend's address, such as https://chat.example.com.")
        return Settings(
            app_key=(self._key.value or "").strip(),
            host=(self._host.value or "").strip(),
            port=int(port),
            scheme=str(self._scheme.value),
            api_url=api_url,
        )


def _field(label: str, value: str) -> ui.input:
    field = ui.input(label, value=value)
    field.props("outlined spellcheck=false autocomplete=off autocapitalize=off")
    return field


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
