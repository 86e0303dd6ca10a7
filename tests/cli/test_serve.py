"""`antiphon serve`: the server alone, from its first line to its end."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from antiphon.publisher import Publisher
from antiphon.settings import Settings
from tests.server.wire import Wire, http

from .command import Call, Command, Ended, run, run_all, running
from .conftest import SECRET

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVE: Final = ("serve", "--port", "0")
ENV: Final = {"REVERB_APP_ID": "1", "REVERB_APP_KEY": "k", "REVERB_APP_SECRET": SECRET}


async def listening_port(command: Command) -> int:
    """Where it listens, as it says."""
    (line,) = await command.err_until("listening on 127.0.0.1:")
    return int(line.rpartition(":")[2])


async def test_a_server_serves_until_it_is_told_to_end_and_sends_its_clients_elsewhere() -> None:
    args = (*SERVE, "--app-id", "1", "--app-key", "k", "--app-secret", SECRET)
    async with running(*args, cold=True) as command:
        port = await listening_port(command)
        settings = Settings(
            app_id="1", app_key="k", app_secret=SECRET, host="127.0.0.1", port=port, scheme="http"
        )
        async with (
            await Wire.connect(port) as first,
            await Wire.connect(port) as second,
            Publisher(settings) as publisher,
        ):
            await first.join("private-room", secret=SECRET)
            await second.join("private-room", secret=SECRET)
            await publisher.trigger("private-room", "said", {"n": 1})
            assert (await first.event("said"))["data"] == {"n": 1}
            await second.event("said")
            status, body = await http(port, b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (status, body) == (200, b'{"health":"OK"}')
            command.signal(signal.SIGTERM)
            for wire in (first, second):
                closed = await wire.closed()
                assert closed.code == 4200, closed
                wire.send_close(4200)
        ended = await command.ended()
    assert (ended.status, ended.out) == (0, "")
    assert "application 1 with key k" in ended.err
    assert re.search(r"antiphon.server +stopped\n$", ended.err)


async def test_ctrl_c_ends_it_with_0_whether_or_not_clients_answer(tmp_path: Path) -> None:
    async with running(*SERVE, env=ENV) as command:
        port = await listening_port(command)
        async with await Wire.connect(port) as silent:
            silent.stop_reading()
            command.signal(signal.SIGINT)
            ended = await command.ended(timeout=15)
    assert ended.status == 0


TWO: Final = """
[[apps]]
id = "1"
key = "first"
secret = "secret-of-the-first"

[[apps]]
id = "2"
key = "second"
secret = "secret-of-the-second"
activity_timeout = 17
client_events = false
"""


async def test_a_file_gives_several_applications_that_hear_nothing_of_each_other(
    tmp_path: Path,
) -> None:
    (tmp_path / "apps.toml").write_text(TWO)
    args = (*SERVE, "--config", tmp_path / "apps.toml", "--path", "chat/")
    secrets = ("secret-of-the-first", "secret-of-the-second")
    async with running(*args, secrets=secrets) as command:
        port = await listening_port(command)
        async with (
            await Wire.connect(port, "/chat/app/first") as first,
            await Wire.open(port, "/chat/app/second") as second,
        ):
            greeting = await second.event("pusher:connection_established")
            assert greeting["data"]["activity_timeout"] == 17
            for wire in (first, second):
                await wire.subscribe("news")
            settings = Settings(
                app_id="2",
                app_key="second",
                app_secret="secret-of-the-second",
                host="127.0.0.1",
                port=port,
                scheme="http",
                path="chat",
            )
            async with Publisher(settings) as publisher:
                await publisher.trigger("news", "e", "for the second")
            assert (await second.event("e"))["data"] == "for the second"
            await first.ping()
            async with await Wire.open(port, "/chat/app/third") as stranger:
                assert (await stranger.closed()).code == 4001
        command.signal(signal.SIGTERM)
        ended = await command.ended()
    assert ended.status == 0
    applications = re.findall(r"application (\S+) with key (\S+) at (\S+)", ended.err)
    url = f"http://127.0.0.1:{port}/chat"
    assert applications == [("1", "first", url), ("2", "second", url)]


async def test_it_can_be_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    args = ("serve", "--port", port, "--log-level", "error")
    async with running(*args, env=ENV) as command:
        wire = await reached(port)
        await wire.hang_up()
        command.signal(signal.SIGTERM)
        assert await command.ended() == Ended(0, "", "")


async def reached(port: int) -> Wire:
    """A connection to a server that has yet to start."""
    async with asyncio.timeout(15):
        while True:
            try:
                return await Wire.connect(port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)


async def test_a_port_that_is_taken_is_one_line_and_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        status, out, err = await run("serve", "--port", port, env=ENV)
    assert (status, out) == (2, "")
    assert re.fullmatch(rf"antiphon: [^\n]*127\.0\.0\.1:{port}[^\n]*already[^\n]*\n", err)


FILES: Final[Mapping[str, tuple[str | bytes | None, str]]] = {
    "gone": (None, "gone.toml"),
    "no TOML": ("[[apps]\nid = ", "no-TOML.toml"),
    "no text": (b"\xff\xfe\x00", "no-text.toml"),
    "no applications": ("apps = []", "application"),
    "empty": ("", "apps"),
    "one table too few": ('[apps]\nid = "1"\nkey = "k"\nsecret = "s"', "apps"),
    "no secret": ('[[apps]]\nid = "1"\nkey = "k"', "secret"),
    "an empty key": ('[[apps]]\nid = "1"\nkey = ""\nsecret = "s"', "key"),
    "an id that is a number": ('[[apps]]\nid = 1\nkey = "k"\nsecret = "s"', r"apps\[0\].id"),
    "a setting nobody knows": (
        '[[apps]]\nid = "1"\nkey = "k"\nsecret = "s"\nmax_conections = 5',
        "max_conections",
    ),
    "the same key twice": (TWO.replace("second", "first"), "first"),
    "the same id twice": (TWO.replace('"2"', '"1"'), "id '1'"),
    "a time-out of nothing": (
        '[[apps]]\nid = "1"\nkey = "k"\nsecret = "s"\nactivity_timeout = 0',
        "activity",
    ),
    "a secret that is a number": (
        '[[apps]]\nid = "1"\nkey = "k"\nsecret = 123456789',
        r"apps\[0\].secret",
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    folder = tmp_path_factory.mktemp("files")
    calls = {}
    for name, (content, _) in FILES.items():
        path = folder / f"{name.replace(' ', '-')}.toml"
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        calls[name] = Call((*SERVE, "--config", path))
    return await run_all(calls)


@pytest.mark.parametrize("name", FILES)
async def test_a_file_that_cannot_be_used_is_one_line_that_says_which_and_why(
    refused: dict[str, Ended], name: str
) -> None:
    status, out, err = refused[name]
    assert (status, out) == (2, "")
    assert re.fullmatch(r"antiphon: [^\n]+\n", err)
    assert re.search(FILES[name][1], err), err
    assert f"{name.replace(' ', '-')}.toml" in err
    assert "secret-of-the" not in err
    assert "123456789" not in err
