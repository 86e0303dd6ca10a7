"""The commands and their options: arguments in, one call out."""

from __future__ import annotations

import asyncio
import json as json_lib
import logging
import os
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
    from .workers import Worker

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
_LINE = "%(asctime)s %(levelname)-7s %(name)s "
_DATABASE = "ANTIPHON_APPS_DATABASE"
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
    browser: Annotated[bool, typer.Option(help="Open the chat app in the browser.")] = True,
    log_level: LogLevel = "",
) -> None:
    """Show a conversation: server, chat backend and two users on this machine."""
    try:
        from .demo import demo
    except ModuleNotFoundError as exc:
        _missing("backend", exc)
    _log_to_stderr(log_level)
    _run(lambda stop: demo(LinePrinter(), once=once, browser=browser, stop=stop))


@app.command("chat")
def chat_command(
    env: EnvFile = None,
    app_key: AppKey = "",
    host: Host = "",
    port: Port = 0,
    scheme: Scheme = "",
    path: ServerPath = "",
    api: Api = "",
    auth_url: AuthUrl = "",
    listen: Annotated[
        str, typer.Option(help="Address to serve the app on; port 0 takes a free one.")
    ] = "127.0.0.1:0",
    public_url: Annotated[
        str, typer.Option(help="Where people reach it, if a web server stands in front.")
    ] = "",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder for unsent messages and the last history.", show_default=False),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open it in the browser.")] = True,
    native: Annotated[bool, typer.Option(help="Open it in a window of its own.")] = False,
    log_level: LogLevel = "",
) -> None:
    """Chat in the browser; without a key, the log-in screen asks which server."""
    try:
        from .chat import chat, data_folder
    except ModuleNotFoundError as exc:
        _missing("app", exc)
    _log_to_stderr(log_level)

    async def run(stop: asyncio.Event) -> None:
        settings = _given_settings(
            env,
            app_key=app_key,
            host=host,
            port=port,
            scheme=scheme,
            path=path,
            api_url=api,
            auth_endpoint=auth_url,
        )
        on, on_port = _address(listen)
        await chat(
            settings,
            host=on,
            port=on_port,
            public_url=public_url,
            data=data or data_folder(),
            browser=browser,
            native=native,
            stop=stop,
        )

    _run(run)


@app.command("serve")
def serve_command(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8080,
    env: EnvFile = None,
    app_id: AppId = "",
    app_key: AppKey = "",
    app_secret: AppSecret = "",
    config: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file with one [[apps]] table per application, or a JSON list of them"
            " (or ANTIPHON_APPS); SIGHUP reads it again."
        ),
    ] = None,
    apps_database: Annotated[
        str,
        typer.Option(
            help="A database with the table antiphon_apps, sqlite:////path/apps.db or postgresql://…"
            " (or ANTIPHON_APPS_DATABASE)."
        ),
    ] = "",
    path: Annotated[str, typer.Option(help="Prefix of all routes, behind a proxy.")] = "",
    unix: Annotated[
        Path | None, typer.Option(help="A Unix socket to listen on, instead of host and port.")
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            help="Speak TLS with the certificate in this PEM file; SIGHUP reads it again."
        ),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="Its key, if that is not in the same file.")
    ] = None,
    metrics_token: Annotated[
        str,
        typer.Option(
            help="Serve /metrics to who knows this token (or better ANTIPHON_METRICS_TOKEN)."
        ),
    ] = "",
    drain: Annotated[
        float, typer.Option(help="Seconds over which connections are closed at the end.", min=0)
    ] = 5.0,
    redis: Annotated[
        str,
        typer.Option(
            help="The Redis through which several servers are one, redis://… (or ANTIPHON_REDIS)."
        ),
    ] = "",
    redis_prefix: Annotated[
        str, typer.Option(help="Begins all keys there; one for each installation.")
    ] = "antiphon",
    workers: Annotated[
        int, typer.Option(help="Processes that serve together, over --redis.", min=1)
    ] = 1,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            help="Address or network of a proxy whose X-Forwarded-For is believed; repeatable."
        ),
    ] = None,
    max_connections_per_address: Annotated[
        int, typer.Option(help="Open connections from one address; 0 for no limit.", min=0)
    ] = 0,
    max_connects_per_minute: Annotated[
        int, typer.Option(help="New connections from one address; 0 for no limit.", min=0)
    ] = 0,
    log_level: LogLevel = "info",
) -> None:
    """Run the server alone."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to read again
    try:
        from .serve import serve
    except ModuleNotFoundError as exc:
        _missing("server", exc)
    _log_to_stderr(log_level)

    given = app_id or app_key or app_secret or env
    if bool(config) + bool(apps_database) + bool(given) > 1:
        _end(
            2,
            "Applications come from one of these: --config, --apps-database, --app-… and --env.",
        )
    if tls_key is not None and tls_cert is None:
        _end(2, "A key is of no use without its certificate: give --tls-cert.")
    redis = redis or os.environ.get("ANTIPHON_REDIS", "")
    if workers > 1 and not redis:
        _end(2, "Workers know of each other over Redis: give --redis, or start one.")
    console_password = os.environ.get("ANTIPHON_CONSOLE_PASSWORD", "")
    if workers > 1 and console_password:
        _end(
            2,
            "The console shows one process: start one worker, or several servers on ports of their"
            " own, or leave ANTIPHON_CONSOLE_PASSWORD out.",
        )
    database = apps_database or ("" if config or given else os.environ.get(_DATABASE, ""))
    from_variable = not (config or given or database) and bool(os.environ.get("ANTIPHON_APPS"))

    def work(worker: Worker | None = None) -> None:
        async def run(stop: asyncio.Event) -> None:
            apps = config or (None if from_variable or database else _one_app(env, *one))
            await serve(apps, database=database, stop=stop, **options)

        one = app_id, app_key, app_secret
        options: dict[str, Any] = {
            "host": host,
            "port": port,
            "path": path,
            "unix": unix or "",
            "tls": None if tls_cert is None else (tls_cert, tls_key or tls_cert),
            "metrics_token": metrics_token or os.environ.get("ANTIPHON_METRICS_TOKEN", ""),
            "console_password": console_password,
            "trusted_proxies": trusted_proxy or (),
            "max_connections_per_address": max_connections_per_address,
            "max_connects_per_minute": max_connects_per_minute,
            "drain": drain,
            "redis": redis,
            "redis_prefix": redis_prefix,
        }
        if worker is not None:
            options |= {"listening": worker.listening, "siblings": worker.siblings}
        _run(run)

    if workers == 1:
        work()
        return
    from .workers import run_workers

    def status_of(worker: Worker) -> int:
        for handler in logging.root.handlers:
            if isinstance(handler.formatter, _OneLine):
                handler.setFormatter(_OneLine(f"{_LINE} worker {worker.number}: %(message)s"))
        try:
            work(worker)
        except typer.Exit as exc:
            return int(exc.exit_code)
        return 0

    try:
        status = run_workers(workers, status_of, host=host, port=port, unix=str(unix or ""))
    except SettingsError as exc:
        _end(2, str(exc))
    raise typer.Exit(status)


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
            _end(2, "There is no terminal to ask for the password: give it in ANTIPHON_PASSWORD.")
        password = typer.prompt(f"Password of {email}", hide_input=True, err=True)
    return Credentials(email=email, password=password, token=token)


def _given_settings(env: Path | None, **options: Any) -> Settings | None:
    """The settings, or None if nothing says which server is meant."""
    if env is None and not any(options.values()):
        named = ("REVERB_APP_KEY", "PUSHER_APP_KEY")
        if not any(os.environ.get(name) for name in named):
            return None
    settings = Settings.from_env(env, **options)
    if not settings.api_url:
        raise SettingsError("A chat needs its backend's address: give --api, or set APP_URL.")
    return settings


def _address(text: str) -> tuple[str, int]:
    """The host and the port of `host:port`, `[host]:port` or `host`."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, "0"
    if not port.isascii() or not port.isdigit() or not host:
        raise SettingsError(f"{text!r} is no address to listen on: write it as 127.0.0.1:8000.")
    return host.strip("[]"), int(port)


def _one_app(env: Path | None, app_id: str, app_key: str, app_secret: str) -> App:
    """The application of `serve`'s options, of the environment, or of a `.env` file."""
    given = Settings.from_env(env, app_id=app_id, app_key=app_key, app_secret=app_secret)
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
    logging.getLogger("nicegui").setLevel(logging.ERROR)
    if not level:
        if logging.lastResort is not None:
            logging.lastResort.setFormatter(_OneLine())
        logging.getLogger("antiphon").addHandler(logging.NullHandler())
        logging.getLogger("antiphon").propagate = False
        return
    names = {"debug", "info", "warning", "error"}
    if level.lower() not in names:
        _end(2, f"The log level is one of {', '.join(sorted(names))}, not {level!r}.")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _OneLine(f"{_LINE} %(message)s"),
    )
    logging.basicConfig(level=level.upper(), handlers=[handler])


class _OneLine(logging.Formatter):
    """Logs what strangers have said without letting it steer the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(map(printable, super().formatException(ei).split("\n")))


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
