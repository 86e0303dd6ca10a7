"""A server to talk to.

These fixtures live on their module's event loop, so that a module needs one server and not one
per test. Who uses them marks its tests with `pytest.mark.asyncio(loop_scope="module")`.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest_asyncio

from antiphon.server import Server
from antiphon.settings import App

from .server.wire import Wire

# A shell that starts something in the background has it ignore Ctrl-C, and so all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

Serve = Callable[..., Awaitable[Server]]
Connect = Callable[..., Awaitable[Wire]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    """A server of the application `k` with its limits as they come, for a whole module."""
    async with Server(App(id="1", key="k", secret="s")) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def serve() -> AsyncIterator[Serve]:
    """Starts a server for one test: `await serve(max_channels=2)`, or with whole `App`s."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            *apps: App,
            host: str = "127.0.0.1",
            path: str = "",
            options: Mapping[str, Any] = MappingProxyType({}),
            **app: Any,
        ) -> Server:
            apps = apps or (App(**{"id": "1", "key": "k", "secret": "s", **app}),)
            return await stack.enter_async_context(Server(apps, host=host, path=path, **options))

        yield start


@pytest_asyncio.fixture(loop_scope="module")
async def connect(server: Server, serve: Serve) -> AsyncIterator[Connect]:
    """Opens raw connections, to the module's server or another; hangs up when the test ends."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_(to: Server = server, path: str = "/app/k", **options: Any) -> Wire:
            wire = await Wire.connect(to.port, path, **options)
            return await stack.enter_async_context(wire)

        yield open_
