"""The commands and their options: arguments in, one call out."""

from __future__ import annotations

import asyncio
import json as json_lib
import logging
import re
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from antiphon import __version__
from antiphon.errors import AntiphonError, InvalidName, SettingsError
from antiphon.protocol.channels import check_channel_name, check_event_name
from antiphon.settings import App, Settings

from .output import JsonPrinter, LinePrinter, Printer, printable

if TYPE_CHECKING:
    from .listen import Credentials

__all__ = ["app"]

app = typer.Typer(
    help="Real-time chat over the Pusher protocol: serve it, listen to it, publish on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

AppKey = Annotated[str, typer.Option(help="The application's key (or REVERB_APP_KEY).")]
AppId = Annotated[str, typer.Option(help="The application's id (or REVERB_APP_ID).")]
AppSecret = Annotated[
    str,
    typer.Option(help="The application's secret (or better REVERB_APP_SECRET)."),
]
Host = Annotated[
    str,
    typer.Option(help="The server's name or address (or REVERB_HOST); 127.0.0.1 if not given."),
]
Port = Annotated[
    int,
    typer.Option(
        help="Its port (or REVERB_PORT); 443 for https and 80 for http if not given.",
        min=0,
        max=65535,
        show_default=False,
    ),
]
Scheme = Annotated[str, typer.Option(help="http or https (or REVERB_SCHEME); https if not given.")]
ServerPath = Annotated[
    str, typer.Option("--path", help="Prefix in front of /app and /apps, behind a proxy.")
]
Api = Annotated[str, typer.Option(help="The chat backend's address (or APP_URL).")]
Email = Annotated[
    str, typer.Option(help="Log in as; the password is asked for, or ANTIPHON_PASSWORD.")
]
Password = Annotated[str, typer.Option(hidden=True, envvar="ANTIPHON_PASSWORD")]
Token = Annotated[
    str, typer.Option(help="Bearer token instead of a login.", envvar="ANTIPHON_TOKEN")
]
AuthUrl = Annotated[
    str, typer.Option(help="Address or path that signs channels; /broadcasting/auth.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
EnvFile = Annotated[
    Path | None,
    typer.Option("--env", help="A Laravel .env file with REVERB_… or PUSHER_… names."),
]
LogLevel = Annotated[
    str, typer.Option(help="Log to standard error: debug, info, warning or error.")
]
_INTERRUPTED = 130
Run = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """What is common to all commands."""
    if version:
        print(f"antiphon {__version__}")
        raise typer.Exit


@app.command("demo")
def demo_command(
    once: Annotated[bool, typer.Option("--once", help="End after the conversation.")] = False,
    log_level: LogLevel = "",
) -> None:
    """Show a conversation: server, chat backend and two users on this machine."""
    try:
        from .demo import demo
    except ModuleNotFoundError as exc:
        _missing("backend", exc)
    _log_to_stderr(log_level)
    _run(lambda stop: demo(LinePrinter(), once=once, stop=stop))


@app.command("serve")
def serve_command(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8080,
    app_id: AppId = "",
    app_key: AppKey = "",
    app_secret: AppSecret = "",
    config: Annotated[
        Path | None, typer.Option(help="A TOML file with one [[apps]] table per application.")
    ] = None,
    path: Annotated[str, typer.Option(help="Prefix of all routes, behind a proxy.")] = "",
    log_level: LogLevel = "info",
) -> None:
    """Run the server alone."""
    try:
        from .serve import serve
    except ModuleNotFoundError as exc:
        _missing("server", exc)
    _log_to_stderr(log_level)

    async def run(stop: asyncio.Event) -> None:
        if config is not None and (app_id or app_key or app_secret):
            raise SettingsError("Applications come from --config, or from --app-…: not from both.")
        apps = config or _one_app(app_id, app_key, app_secret)
        await serve(apps, host=host, port=port, path=path, stop=stop)

    _run(run)


@app.command("listen")
def listen_command(
    env: EnvFile = None,
    app_key: AppKey = "",
    host: Host = "",
    port: Port = 0,
    scheme: Scheme = "",
    path: ServerPath = "",
    api: Api = "",
    email: Email = "",
    password: Password = "",
    token: Token = "",
    auth_url: AuthUrl = "",
    channel: Annotated[
        list[str] | None,
        typer.Option(help="Subscribe to it; repeatable. By default the user's own."),
    ] = None,
    max_attempts: Annotated[
        int, typer.Option(help="Attempts to connect in a row; 0 for no end.", min=0)
    ] = 5,
    max_events: Annotated[
        int, typer.Option(help="End after so many events; 0 for no end.", min=0)
    ] = 0,
    json: AsJson = False,
    log_level: LogLevel = "",
) -> None:
    """Connect to any Pusher-protocol server and print what arrives."""
    from .listen import listen

    _log_to_stderr(log_level)
    credentials = _credentials(email, password, token)
    printer = JsonPrinter() if json else LinePrinter()

    async def run(stop: asyncio.Event) -> None:
        settings = Settings.from_env(
            env,
            app_key=app_key,
            host=host,
            port=port,
            scheme=scheme,
            path=path,
            api_url=api,
            auth_endpoint=auth_url,
        )
        await listen(
            settings,
            credentials,
            printer,
            channels=channel or (),
            max_attempts=max_attempts or None,
            max_events=max_events or None,
            stop=stop,
        )

    _run(run, printer)


@app.command("doctor")
def doctor_command(
    env: EnvFile = None,
    app_key: AppKey = "",
    app_id: AppId = "",
    app_secret: AppSecret = "",
    host: Host = "",
    port: Port = 0,
    scheme: Scheme = "",
    path: ServerPath = "",
    origin: Annotated[
        str, typer.Option(help="Connect as a page of this origin: https://your.site.")
    ] = "",
    api: Api = "",
    email: Email = "",
    password: Password = "",
    token: Token = "",
    auth_url: AuthUrl = "",
    channel: Annotated[
        str, typer.Option(help="Subscribe to it. By default the user's own, or a public one.")
    ] = "",
    timeout: Annotated[
        float, typer.Option(help="Seconds to wait for any one answer.", min=0.1, max=600)
    ] = 5.0,
    json: AsJson = False,
    log_level: LogLevel = "",
) -> None:
    """Say step by step why a connection does not work, and what to do about it."""
    from .doctor import JsonReport, LineReport, doctor

    _log_to_stderr(log_level)
    credentials = _credentials(email, password, token)
    report = JsonReport() if json else LineReport()

    async def run(stop: asyncio.Event) -> None:
        settings = Settings.from_env(
            env,
            app_id=app_id,
            app_key=app_key,
            app_secret=app_secret,
            host=host,
            port=port,
            scheme=scheme,
            path=path,
            api_url=api,
            auth_endpoint=auth_url,
        )
        well = await doctor(
            settings,
            credentials,
            report,
            channel=channel,
            origin=origin,
            timeout=timeout,
            stop=stop,
        )
        if not well:
            raise typer.Exit(_INTERRUPTED if stop.is_set() else 1)

    _run(run)


@app.command("publish")
def publish_command(
    channel: Annotated[str, typer.Argument(help="The channel's name.")],
    event: Annotated[str, typer.Argument(help="The event's name.")],
    data: Annotated[str, typer.Argument(help="The event's data: JSON, or any text.")],
    env: EnvFile = None,
    app_id: AppId = "",
    app_key: AppKey = "",
    app_secret: AppSecret = "",
    host: Host = "",
    port: Port = 0,
    scheme: Scheme = "",
    path: ServerPath = "",
    socket_id: Annotated[str, typer.Option(help="The connection that must not get it.")] = "",
) -> None:
    """Publish one event through the HTTP API."""
    from antiphon.publisher import Publisher

    async def run(stop: asyncio.Event) -> None:
        settings = Settings.from_env(
            env,
            app_id=app_id,
            app_key=app_key,
            app_secret=app_secret,
            host=host,
            port=port,
            scheme=scheme,
            path=path,
        )
        _check_publication(channel, event, data, socket_id)
        async with Publisher(settings) as publisher:
            await publisher.trigger(channel, event, data, socket_id=socket_id or None)
        print(f"Published {event} on {channel}.")

    _run(run, ends_at_once=True)


def _credentials(email: str, password: str, token: str) -> Credentials:
    """How to log in; a password that was not given is asked for."""
    from .listen import Credentials

    if email and not token and not password:
        if not sys.stdin.isatty():
            _end(2, "There is nobody to ask for the password: give it in ANTIPHON_PASSWORD.")
        password = typer.prompt(f"Password of {email}", hide_input=True, err=True)
    return Credentials(email=email, password=password, token=token)


def _one_app(app_id: str, app_key: str, app_secret: str) -> App:
    """The application of `serve`'s options, or of the environment."""
    given = Settings.from_env(app_id=app_id, app_key=app_key, app_secret=app_secret)
    for option, value in (("--app-id", given.app_id), ("--app-secret", given.app_secret)):
        if not value:
            raise SettingsError(f"The application is not complete: give {option}, or --config.")
    return App(id=given.app_id, key=given.app_key, secret=given.app_secret)


def _check_publication(channel: str, event: str, data: str, socket_id: str) -> None:
    """Refuse what no server would take, and warn of what was hardly meant."""
    check_channel_name(channel)
    check_event_name(event)
    if socket_id and not re.fullmatch(r"\d+\.\d+", socket_id):
        raise SettingsError(f"{socket_id!r} is no socket id: it is two numbers, as in 123.456.")
    if data.lstrip().startswith(("{", "[")):
        try:
            json_lib.loads(data)
        except ValueError:
            print(
                "antiphon: The data is not JSON, so it goes out as text; JSON has double quotes"
                " inside and single ones around: '{\"id\": 5}'",
                file=sys.stderr,
            )


def _run(main: Run, printer: Printer | None = None, *, ends_at_once: bool = False) -> None:
    """Run a command to its end, to Ctrl-C, or to the one line that says why it ended."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_with_signals(main, ends_at_once))
    except (SettingsError, InvalidName) as exc:
        _end(2, str(exc))
    except AntiphonError as exc:
        if printer is not None and str(printer.last_error) == str(exc):
            raise typer.Exit(1) from None  # it stands there already
        _end(1, str(exc))
    except TimeoutError:
        _end(1, "What was expected did not arrive in time.")


async def _with_signals(main: Run, ends_at_once: bool) -> None:
    """Turn Ctrl-C and SIGTERM into a request to stop; a second Ctrl-C means it.

    A command that only does one thing ends at once, with the status a shell gives for Ctrl-C.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    asked = 1 if ends_at_once else 0

    def ask() -> None:
        nonlocal asked
        if asked == 1:
            task.cancel()  # once: what it does to clean up is not to be cancelled too
        asked += 1
        stop.set()

    task = loop.create_task(main(stop))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask)
    try:
        await task
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        raise typer.Exit(_INTERRUPTED) from None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


def _log_to_stderr(level: str) -> None:
    """Log what antiphon has to say, if asked; errors are printed in any case."""
    # What strangers send to a port is not worth a line each; errors of uvicorn's own are.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    if not level:
        logging.getLogger("antiphon").addHandler(logging.NullHandler())
        logging.getLogger("antiphon").propagate = False
        return
    names = {"debug", "info", "warning", "error"}
    if level.lower() not in names:
        _end(2, f"The log level is one of {', '.join(sorted(names))}, not {level!r}.")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _OneLine("%(asctime)s %(levelname)-7s %(name)s  %(message)s"),
    )
    logging.basicConfig(level=level.upper(), handlers=[handler])


class _OneLine(logging.Formatter):
    """Logs what strangers have said without letting it steer the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))


def _missing(extra: str, exc: ModuleNotFoundError) -> NoReturn:
    if (exc.name or "").startswith("antiphon"):
        raise exc
    _end(
        1,
        f"This command needs more packages (in a clone '.[{extra}]'):"
        f" pip install 'antiphon[{extra}]'",
    )


def _end(status: int, why: str) -> NoReturn:
    print(f"antiphon: {why}", file=sys.stderr)
    raise typer.Exit(status)
