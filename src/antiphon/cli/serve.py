"""`antiphon serve`: the server alone, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from antiphon.errors import SettingsError
from antiphon.server import Server, load_apps
from antiphon.settings import App

__all__ = ["serve", "tune_collector"]

log = logging.getLogger("antiphon.server")

REFRESH: Final = 5.0
"""Seconds after which a database's applications are read again."""
Read = Callable[[], Awaitable[tuple[App, ...]]]


async def serve(
    apps: App | Path | None, *, database: str = "", stop: asyncio.Event, **options: Any
) -> None:
    """Serve until told to stop. SIGHUP reads the applications and the certificate again.

    Args:
        apps: One application, a file with several, or None for those in the environment.
        database: Address of the database that has the applications, in place of `apps`; it is read
            every 5 seconds.
        stop: Ends it when set, as gently as `drain` among the options says; who cancels it after
            that has it end at once.
        **options: For `Server`.

    Raises:
        SettingsError: An application, the address or a certificate cannot be used.
    """
    _raise_file_limit()
    tune_collector()
    told = asyncio.Event()
    if hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, told.set)
    async with _source(apps, database) as read:
        chosen = await read()
        if not chosen:
            raise SettingsError(
                "The table antiphon_apps has no application that can be served: insert one."
            )
        try:
            async with Server(chosen, **options) as server:
                for app in chosen:
                    log.info("application %s with key %s at %s", app.id, app.key, server.url)
                follow = _follow(server, read, chosen, told, REFRESH if database else None)
                following = asyncio.create_task(follow)
                try:
                    await stop.wait()
                finally:
                    following.cancel()
                    await asyncio.wait([following])
        except asyncio.CancelledError:
            if not stop.is_set():
                raise


@asynccontextmanager
async def _source(apps: App | Path | None, database: str) -> AsyncIterator[Read]:
    """Where applications are read from, as often as one likes."""
    if database:
        try:
            from antiphon.server.app_table import AppTable  # only who has a database pays for it
        except ModuleNotFoundError as exc:
            raise SettingsError(
                "Applications from a database need the extra backend:"
                " pip install 'antiphon[backend]'."
            ) from exc
        table = AppTable(database)
        await table.open()
        try:
            yield table.read
        finally:
            await table.close()
    else:

        async def read() -> tuple[App, ...]:
            return (apps,) if isinstance(apps, App) else load_apps(apps)

        yield read


async def _follow(
    server: Server,
    read: Read,
    served: tuple[App, ...],
    told: asyncio.Event,
    refresh: float | None,
) -> None:
    """Take over what has changed: when told to, and, from a database, by itself."""
    complaint = ""
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(told.wait(), refresh)
        if told.is_set():
            told.clear()
            complaint = ""  # who asks is told again
            _reload_tls(server)
        try:
            apps = await read()
            if apps != served:
                await server.change_apps(apps)
                _tell_changes(served, apps)
                served = apps
            if complaint:
                log.info("the applications can be read again")
            complaint = ""
        except SettingsError as exc:
            if str(exc) != complaint:  # once, and not every five seconds
                log.error("the applications stay as they were: %s", exc)
            complaint = str(exc)
        except Exception:
            log.exception("the applications could not be changed")


def _reload_tls(server: Server) -> None:
    try:
        server.reload_tls()
    except SettingsError as exc:
        log.error("the certificate stays as it was: %s", exc)


def _tell_changes(before: tuple[App, ...], after: tuple[App, ...]) -> None:
    old = {app.id: app for app in before}
    for app in after:
        if old.pop(app.id, None) != app:
            what = "is served as it is now" if app.enabled else "is disabled"
            log.info("application %s with key %s %s", app.id, app.key, what)
    for id_ in old:
        log.info("application %s is served no longer", id_)


def tune_collector() -> None:
    """Let the garbage collector look less often, and not at what is there for good.

    A server that many connect to makes objects that stay: at every 700 of them Python looks for
    cycles, which here are few. Measured: a sixth less CPU for each connection.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


def _raise_file_limit() -> None:
    """Allow as many connections as the system does: many begin with 1024 descriptors."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows, which knows no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as exc:  # macOS says "unlimited" and means less
        log.debug("the limit of open files stays at %d: %s", soft, exc)
