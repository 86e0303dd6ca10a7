"""`antiphon serve`: the server alone, until told to stop."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from antiphon.server import Server, load_apps
from antiphon.settings import App

__all__ = ["serve"]

log = logging.getLogger("antiphon.server")


async def serve(apps: App | Path, *, host: str, port: int, path: str, stop: asyncio.Event) -> None:
    """Serve until told to stop.

    Args:
        apps: One application, or a TOML file with several.
        host: Address to listen on.
        port: TCP port; 0 takes a free one.
        path: Prefix of all routes.
        stop: Ends it when set.

    Raises:
        SettingsError: An application or the address cannot be used.
    """
    chosen = load_apps(apps) if isinstance(apps, Path) else (apps,)
    async with Server(chosen, host=host, port=port, path=path) as server:
        for app in chosen:
            log.info(
                "application %s with key %s at %s", app.id, app.key, server.settings().http_url
            )
        await stop.wait()
