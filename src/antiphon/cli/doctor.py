"""`antiphon doctor`: why a connection does not work, step by step."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import msgspec
from rich.console import Console
from rich.text import Text

from antiphon.chat import RestClient
from antiphon.doctor import Step, examine, verdict
from antiphon.doctor.case import LogIn
from antiphon.errors import ApiError, SettingsError
from antiphon.settings import Settings

from .listen import Credentials
from .output import printable

__all__ = ["JsonReport", "LineReport", "Report", "doctor"]

_MARKS: Final = {
    "ok": ("✓", "green"),
    "warning": ("!", "yellow"),
    "failed": ("✗", "bold red"),
    "skipped": ("-", "dim"),
}
_NOT_FOUND: Final = 404


async def doctor(
    settings: Settings,
    credentials: Credentials,
    report: Report,
    *,
    channel: str = "",
    origin: str = "",
    timeout: float = 5.0,
    stop: asyncio.Event | None = None,
) -> bool:
    """Examine a connection and report each step, until the end or until told to stop.

    Args:
        settings: Where the server is, and the auth endpoint if there is one.
        credentials: Who asks the endpoint.
        report: Where to.
        channel: What to subscribe to; the user's own by default, or a public one.
        origin: The `Origin` header to connect with.
        timeout: Seconds to wait for any one answer.
        stop: Ends it when set.

    Returns:
        Whether no step has failed.

    Raises:
        SettingsError: Nothing can sign the channel, or there is no backend to log in to.
        InvalidName: No channel can have this name.
    """
    if credentials.email and not settings.api_url:
        raise SettingsError("To log in there must be a backend: give --api, or set APP_URL.")
    steps: list[Step] = []

    async def work() -> None:
        examination = examine(
            settings,
            channel=channel,
            token=credentials.token,
            log_in=_log_in(settings, credentials, channel),
            origin=origin,
            timeout=timeout,
        )
        async with contextlib.aclosing(examination):
            async for step in examination:
                steps.append(step)
                report.step(step)

    working = asyncio.create_task(work())
    stopped = asyncio.create_task((stop or asyncio.Event()).wait())
    try:
        await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        interrupted = working.cancel()
        await asyncio.wait([working, stopped])
    if interrupted:
        return False
    try:
        working.result()
    except BrokenPipeError:
        # Whoever read has gone, such as `head`; what is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    well = all(step.outcome != "failed" for step in steps)
    report.verdict(well, verdict(steps))
    return well


def _log_in(settings: Settings, credentials: Credentials, channel: str) -> LogIn | None:
    """How to get a token, or of a token the user's own channel; None if neither is needed."""
    with_password = bool(credentials.email) and not credentials.token
    if not settings.api_url or not (with_password or (credentials.token and not channel)):
        return None

    async def log_in() -> tuple[str, str]:
        async with RestClient(settings.api_url, token=credentials.token) as api:
            if with_password:
                user = (await api.login(credentials.email, credentials.password)).user
                return api.token, user.channel
            try:
                return api.token, (await api.me()).channel
            except ApiError as exc:
                if exc.code != _NOT_FOUND:
                    raise
                return api.token, ""  # a backend of another kind: it can sign all the same

    return log_in


class LineReport:
    """Prints for people: a line for each step, and two more under one that fails."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stdout, highlight=False, soft_wrap=True)

    def step(self, step: Step) -> None:
        """Print a step."""
        mark, style = _MARKS[step.outcome]
        took = "" if step.outcome == "skipped" else f"{step.seconds * 1000:.1f} ms"
        dim = "dim" if step.outcome == "skipped" else ""
        self._console.print(
            Text.assemble(
                (f"{mark} ", style),
                (f"{step.name:<12}", dim),
                (f"{took:>11}  ", "dim"),
                (printable(step.detail), dim),
            )
        )
        for name, text in (("cause", step.cause), ("fix", step.fix)):
            if text:
                self._console.print(Text.assemble((f"  {name + ':':<7}", style), printable(text)))

    def verdict(self, well: bool, text: str) -> None:
        """Print what it comes to."""
        style = "bold green" if well else "bold red"
        self._console.print()
        self._console.print(Text(printable(text), style=style))


class JsonReport:
    """Prints for programs: one object a line, and nothing else."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout

    def step(self, step: Step) -> None:
        """Print a step."""
        fields = msgspec.structs.asdict(step)
        self._print("step", **{**fields, "seconds": round(step.seconds, 6)})

    def verdict(self, well: bool, text: str) -> None:
        """Print what it comes to."""
        self._print("verdict", ok=well, message=text)

    def _print(self, kind: str, **fields: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        print(json.dumps({"time": now, "kind": kind, **fields}), file=self._stream, flush=True)


Report = LineReport | JsonReport
