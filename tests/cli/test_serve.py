"""`antiphon serve`: the server alone, from its first line to its end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from antiphon.publisher import Publisher
from antiphon.settings import Settings
from tests.client.peer import CERTIFICATE, trusting_tls
from tests.server.cluster import REDIS, needs_redis
from tests.server.wire import Wire, http

from .command import TIMEOUT, Call, Command, Ended, run, run_all, running
from .conftest import SECRET
from .strangers import kept_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVE: Final = ("serve", "--port", "0", "--drain", "0")
ENV: Final = {"REVERB_APP_ID": "1", "REVERB_APP_KEY": "k", "REVERB_APP_SECRET": SECRET}


async def listening_port(command: Command) -> int:
    """Where it listens, as it says."""
    *_, line = await command.err_until("listening on 127.0.0.1:")
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
            ended = await command.ended()
    assert ended.status == 0


async def test_it_sends_its_clients_away_one_after_the_other() -> None:
    async with running("serve", "--port", "0", "--drain", "0.4", env=ENV) as command:
        port = await listening_port(command)
        async with await Wire.connect(port) as first, await Wire.connect(port) as second:
            began = asyncio.get_running_loop().time()
            command.signal(signal.SIGTERM)
            for wire, after in ((first, 0.0), (second, 0.2)):
                assert (await wire.closed()).code == 4200
                assert asyncio.get_running_loop().time() - began >= after
                wire.send_close(4200)
            ended = await command.ended()
    assert ended.status == 0
    assert "closing 2 connections within 0.4 s" in ended.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_sends_the_rest_away_at_once_and_all_ends_well(
    number: signal.Signals,
) -> None:
    async with running("serve", "--port", "0", "--drain", "600", env=ENV) as command:
        port = await listening_port(command)
        async with await Wire.connect(port) as first, await Wire.connect(port) as second:
            command.signal(number)
            assert (await first.closed()).code == 4200
            command.signal(number)
            assert (await second.closed()).code == 4200
            for wire in (first, second):
                wire.send_close(4200)
            ended = await command.ended()
    assert ended.status == 0
    assert re.search(r"antiphon.server +stopped\n$", ended.err)


# The real command, but for the second that it gives to those who do not answer: who is slow to
# send the second signal still finds it there.
PATIENT: Final = """
import antiphon.server.server as server
from antiphon.cli import run

server.CLOSE_PATIENCE = 3600.0
run()
"""


async def test_a_second_signal_does_not_wait_for_who_does_not_answer() -> None:
    async with (
        running(*SERVE, env=ENV, program=("-c", PATIENT)) as command,
        await Wire.connect(await listening_port(command)) as silent,
    ):
        command.signal(signal.SIGTERM)
        assert (await silent.closed()).code == 4200
        command.signal(signal.SIGTERM)
        ended = await command.ended()
    assert ended.status == 0
    assert re.search(r"antiphon.server +stopped\n$", ended.err)


async def test_a_unix_socket_is_listened_on_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "antiphon.sock"
    async with running(*SERVE, "--unix", path, env=ENV) as command:
        await command.err_until(f"application 1 with key k at unix:{path}")
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in await asyncio.wait_for(reader.readline(), 15)
        writer.close()
        command.signal(signal.SIGTERM)
        assert (await command.ended()).status == 0
    assert not path.exists()


async def test_the_application_may_stand_in_a_laravel_env_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(f'REVERB_APP_ID=7\nREVERB_APP_KEY="laravel-key"\nREVERB_APP_SECRET={SECRET}\n')
    async with running(*SERVE, "--env", file, secrets=(SECRET,)) as command:
        await command.err_until("application 7 with key laravel-key")
        command.signal(signal.SIGTERM)
        assert (await command.ended()).status == 0


async def test_sighup_reads_the_certificate_again(tmp_path: Path) -> None:
    file = tmp_path / "certificate.pem"
    file.write_bytes(CERTIFICATE.read_bytes())
    async with running(*SERVE, "--tls-cert", file, env=ENV) as command:
        port = await listening_port(command)
        settings = Settings(
            app_id="1", app_key="k", app_secret=SECRET, host="127.0.0.1", port=port, scheme="https"
        )
        async with Publisher(settings, ssl_context=trusting_tls()) as publisher:
            assert await publisher.channels() == {}
        command.signal(signal.SIGHUP)
        await command.err_until("the certificate was read again")
        file.write_text("")
        command.signal(signal.SIGHUP)
        await command.err_until(f"the certificate stays as it was: .*{file}")
        command.signal(signal.SIGTERM)
        assert (await command.ended()).status == 0


async def test_metrics_are_for_who_knows_the_token() -> None:
    async with running(*SERVE, env={**ENV, "ANTIPHON_METRICS_TOKEN": "metrics-token"}) as command:
        port = await listening_port(command)
        request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n"
        assert (await http(port, request % b"guessed"))[0] == 401
        status, body = await http(port, request % b"metrics-token")
        assert status == 200
        assert b'antiphon_connections{app="1"} 0\n' in body
        command.signal(signal.SIGTERM)
        assert (await command.ended()).status == 0


APPS: Final = json.dumps(
    [{"id": name, "key": name, "secret": f"secret-of-{name}"} for name in ("a", "b")]
)


async def test_two_of_them_are_one_server_over_redis() -> None:
    await needs_redis()
    shared = ("--redis-prefix", f"antiphon-test-{os.urandom(6).hex()}")
    env = {**ENV, "ANTIPHON_REDIS": REDIS}
    async with (
        running(*SERVE, *shared, env=env, cold=True) as one,
        running(*SERVE, *shared, env=env, cold=True) as other,
    ):
        ports = [await listening_port(command) for command in (one, other)]
        settings = Settings(
            app_id="1",
            app_key="k",
            app_secret=SECRET,
            host="127.0.0.1",
            port=ports[0],
            scheme="http",
        )
        async with await Wire.connect(ports[1]) as wire, Publisher(settings) as publisher:
            await wire.join("private-room", secret=SECRET)
            await publisher.trigger("private-room", "said", {"n": 1})
            assert (await wire.event("said"))["data"] == {"n": 1}
        for command in (one, other):
            command.signal(signal.SIGTERM)
            assert (await command.ended()).status == 0


async def test_a_redis_that_is_not_there_is_one_line_and_2() -> None:
    ended = await run(*SERVE, "--redis", "redis://user:hidden@127.0.0.1:1/0", env=ENV)
    assert ended.status == 2
    assert "The Redis at 127.0.0.1:1 cannot be used" in ended.err
    assert "hidden" not in ended.err


async def test_applications_may_stand_in_a_variable_or_in_a_json_file(tmp_path: Path) -> None:
    (tmp_path / "apps.json").write_text(APPS)
    ways = {
        "variable": ((), {"ANTIPHON_APPS": APPS, **ENV}, ["a", "b"]),
        "file": (("--config", tmp_path / "apps.json"), {"ANTIPHON_APPS": "["}, ["a", "b"]),
        "options": (("--app-key", "k"), {"ANTIPHON_APPS": APPS, **ENV}, ["1"]),
    }
    for args, env, found in ways.values():
        async with running(*SERVE, *args, env=env, secrets=("secret-of",)) as command:
            await command.err_until(f"application {found[-1]} with key")
            command.signal(signal.SIGTERM)
            ended = await command.ended()
        assert (ended.status, re.findall(r"application (\S+) with", ended.err)) == (0, found)


async def test_sighup_reads_the_applications_again(tmp_path: Path) -> None:
    file = tmp_path / "apps.json"
    file.write_text(APPS)
    async with running(*SERVE, "--config", file, secrets=("secret-of",)) as command:
        port = await listening_port(command)
        async with await Wire.connect(port, "/app/b") as wire:
            file.write_text("[")
            command.signal(signal.SIGHUP)
            await command.err_until("the applications stay as they were: .*apps.json")
            await wire.ping()
            listed = json.loads(APPS)
            file.write_text(json.dumps([listed[0], {**listed[0], "id": "c", "key": "c"}]))
            command.signal(signal.SIGHUP)
            await command.err_until("application c with key c is served as it is now")
            await command.err_until("application b is served no longer")
            assert (await wire.closed()).code == 4001
        async with await Wire.connect(port, "/app/c") as wire:
            await wire.ping()
        command.signal(signal.SIGTERM)
        assert (await command.ended()).status == 0


async def test_applications_may_stand_in_a_database(tmp_path: Path) -> None:
    file = tmp_path / "apps.db"
    database = {"ANTIPHON_APPS_DATABASE": f"sqlite:///{file}"}
    ended = await run(*SERVE, env=database)
    assert ended.status == 2
    assert "antiphon_apps has no application" in ended.err
    with sqlite3.connect(file) as db:
        db.execute("INSERT INTO antiphon_apps (id, key, secret) VALUES ('1', 'k', 'hidden')")
    async with running(*SERVE, env=database, secrets=("hidden",)) as command:
        port = await listening_port(command)
        async with await Wire.connect(port) as wire:
            with sqlite3.connect(file) as db:
                db.execute("INSERT INTO antiphon_apps (id, key, secret) VALUES ('2', 'm', 's')")
            command.signal(signal.SIGHUP)  # it would find out by itself, in some seconds
            await command.err_until("application 2 with key m is served")
            await wire.ping()
        async with await Wire.connect(port, "/app/m") as wire:
            await wire.ping()
        command.signal(signal.SIGTERM)
        assert (await command.ended()).status == 0


async def test_it_may_open_as_many_files_as_the_system_allows() -> None:
    program = """
import resource
from antiphon.cli.serve import _raise_file_limit

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
_raise_file_limit()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
"""
    assert await run(program=("-c", program)) == Ended(0, "", "")


MISTAKES: Final[Mapping[str, tuple[Call, str]]] = {
    "a key alone": (Call((*SERVE, "--tls-key", "k.pem"), ENV), "--tls-cert"),
    "no certificate": (Call((*SERVE, "--tls-cert", "/nowhere.pem"), ENV), r"/nowhere\.pem"),
    "no socket": (Call((*SERVE, "--unix", "/etc/hostname"), ENV), "no socket"),
    "a console of several": (
        Call(
            (*SERVE, "--workers", 2, "--redis", "redis://127.0.0.1:1/0"),
            {**ENV, "ANTIPHON_CONSOLE_PASSWORD": "a password of many characters"},
        ),
        "The console shows one process",
    ),
    "a short password": (
        Call(SERVE, {**ENV, "ANTIPHON_CONSOLE_PASSWORD": "secret"}),
        "needs 12",
    ),
    "no proxy": (Call((*SERVE, "--trusted-proxy", "nginx"), ENV), "no address of a proxy"),
    "two sources": (
        Call((*SERVE, "--app-key", "k", "--apps-database", "sqlite:///x")),
        "from one of these",
    ),
    "no database": (Call((*SERVE, "--apps-database", "mysql://x")), "sqlite:///path"),
    "no list": (Call(SERVE, {"ANTIPHON_APPS": "{"}), "ANTIPHON_APPS"),
    "no application": (Call(SERVE, {"ANTIPHON_APPS": "[]"}), "at least one"),
}


async def test_what_cannot_be_used_is_one_line_and_2() -> None:
    ends = await run_all({name: call for name, (call, _) in MISTAKES.items()})
    for name, (status, out, err) in ends.items():
        assert (status, out) == (2, ""), name
        assert re.fullmatch(r"antiphon: [^\n]+\n", err), err
        assert re.search(MISTAKES[name][1], err), err


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
    with kept_port() as port:
        args = ("serve", "--port", port, "--log-level", "error")
        async with running(*args, env=ENV) as command:
            wire = await reached(port)
            await wire.hang_up()
            command.signal(signal.SIGTERM)
            assert await command.ended() == Ended(0, "", "")


async def reached(port: int) -> Wire:
    """A connection to a server that has yet to start."""
    async with asyncio.timeout(TIMEOUT):
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
