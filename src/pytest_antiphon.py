"""antiphon's fixtures for pytest, which finds them by itself wherever antiphon is installed.

A module of its own beside the package: pytest loads it at every start, and importing anything
inside `antiphon` would load the client. What the fixtures need is loaded by who uses them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from antiphon import App
    from antiphon.testing import PusherServer

__all__ = ["pusher_app", "pusher_server"]


@pytest.fixture
def pusher_app() -> App:
    """The application that `pusher_server` serves; override it to set limits."""
    from antiphon import App

    return App(id="test", key="test-key", secret="test-secret")  # noqa: S106


@pytest.fixture
def pusher_server(pusher_app: App, _pusher_server_ends: None) -> Iterator[PusherServer]:
    """A real Pusher server on a free port of this machine, for one test.

    An `antiphon.testing.PusherServer`: `settings` for clients and publishers, `trigger(…)` to
    publish, `connections` and `channels` to look at, `disconnect_all(…)`, `stop()` and `start()`
    for faults. It runs in a thread of its own, and serves plain and asynchronous tests alike.
    """
    from antiphon.testing import PusherServer

    server = PusherServer(pusher_app)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def _pusher_server_ends() -> Iterator[None]:
    """Lets a server end while the next test runs; only the last ones are waited for."""
    from antiphon.testing.server import wait_for_ends

    yield
    wait_for_ends()
