"""A Laravel application's `.env`, as `docs/deploy.md` shows it, is all that its server needs.

PHP is not run here. What Laravel and its front end make of the file is done as they do it: the
broadcaster publishes with `REVERB_…`, and `resources/js/echo.js` connects with `VITE_REVERB_…`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from dotenv import dotenv_values

from antiphon import Client, Publisher, SecretAuthorizer, Settings
from tests.cli.command import Command, running

from .conftest import JsClient, PyPusher
from .node import Node

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE: Final = Path(__file__).parents[2] / "docs" / "deploy.md"
SERVER: Final = ("REVERB_APP_ID", "REVERB_APP_KEY", "REVERB_APP_SECRET")


def shown() -> str:
    """The file as it stands in the page."""
    found = re.search(
        r"```ini\n(# \.env of the application\n.*?)```", PAGE.read_text("utf-8"), re.S
    )
    assert found, "the page shows a whole .env"
    return found[1]


def values(text: str, folder: Path) -> dict[str, str]:
    """What an application reads from it."""
    (folder / ".env").write_text(text)
    return {name: value or "" for name, value in dotenv_values(folder / ".env").items()}


def echo_js(env: dict[str, str]) -> dict[str, Any]:
    """The options in Laravel's `resources/js/echo.js`."""
    return {
        "broadcaster": "reverb",
        "key": env["VITE_REVERB_APP_KEY"],
        "wsHost": env["VITE_REVERB_HOST"],
        "wsPort": env.get("VITE_REVERB_PORT", "80"),
        "wssPort": env.get("VITE_REVERB_PORT", "443"),
        "forceTLS": env.get("VITE_REVERB_SCHEME", "https") == "https",
        "enabledTransports": ["ws", "wss"],
    }


@contextlib.contextmanager
def laravel(env: dict[str, str]) -> Iterator[PyPusher]:
    """The broadcaster, as `config/broadcasting.php` makes it; here with the library for Python."""
    assert env["BROADCAST_CONNECTION"] == "reverb"
    settings = Settings(
        app_id=env["REVERB_APP_ID"],
        app_key=env["REVERB_APP_KEY"],
        app_secret=env["REVERB_APP_SECRET"],
        host=env["REVERB_HOST"],
        port=int(env["REVERB_PORT"]),
        scheme=env["REVERB_SCHEME"],
    )
    with contextlib.closing(PyPusher(settings)) as broadcaster:
        yield broadcaster


async def listening_port(command: Command) -> str:
    *_, line = await command.err_until("listening on 127.0.0.1:")
    return line.rpartition(":")[2]


async def test_the_env_of_an_application_that_had_reverb_is_enough(tmp_path: Path) -> None:
    given = {name: values(shown(), tmp_path)[name] for name in SERVER}
    async with running("serve", "--port", "0", "--drain", "0", env=given, cold=True) as server:
        text = shown().replace("8080", await listening_port(server))
        env = values(text, tmp_path)
        settings = Settings.from_env(tmp_path / ".env", environ={})
        authorizer = SecretAuthorizer(settings, user_id="1")
        async with (
            Node("echo_client.mjs") as program,
            Client(settings, authorizer=authorizer) as client,
            Publisher(settings) as publisher,
        ):
            ali = JsClient(program, "ali")
            await ali.call("connect", options=echo_js(env))
            await ali.connected()
            await ali.call("join", type="public", channel="orders", events=["OrderShipped"])
            await ali.heard("subscribed", channel="orders")
            with laravel(env) as broadcaster:
                await broadcaster.trigger("orders", "App\\Events\\OrderShipped", {"id": 5})
            assert (await ali.heard("event", event="OrderShipped"))["data"] == {"id": 5}

            mine = client.subscribe("private-user.1")
            await mine.subscribed(10)
            events = mine.stream("OrderShipped")
            await publisher.trigger("private-user.1", "OrderShipped", {"id": 6})
            async with asyncio.timeout(10):
                assert (await anext(events)).data == {"id": 6}
