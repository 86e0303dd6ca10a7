"""`antiphon serve --workers`: several processes at one address."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from antiphon.publisher import Publisher
from antiphon.settings import Settings
from tests.server.cluster import REDIS, needs_redis, until
from tests.server.wire import Wire, http

from .command import Command, run, running
from .conftest import SECRET

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked"),
]

ENV: Final = {
    "REVERB_APP_ID": "1",
    "REVERB_APP_KEY": "k",
    "REVERB_APP_SECRET": SECRET,
    "ANTIPHON_REDIS": REDIS,
    "ANTIPHON_METRICS_TOKEN": "metrics-token",
}
METRICS: Final = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer metrics-token\r\n\r\n"


@asynccontextmanager
async def workers(count: int, *args: object) -> AsyncIterator[tuple[Command, int]]:
    """So many of them, ready; and their port."""
    await needs_redis()
    prefix = f"antiphon-test-{os.urandom(6).hex()}"
    words = ("serve", "--port", "0", "--drain", "0", "--redis-prefix", prefix, *args)
    async with running(*words, "--workers", count, env=ENV, cold=True) as command:
        *_, line = await command.err_until("listening on .*, with")
        found = re.search(r":(\d+), with", line)
        for _ in range(count):
            await command.err_until("serving$")
        yield command, int(found[1]) if found else 0


def settings(port: int) -> Settings:
    return Settings(
        app_id="1", app_key="k", app_secret=SECRET, host="127.0.0.1", port=port, scheme="http"
    )


def children(command: Command) -> set[int]:
    """The workers' process ids."""
    pid = command.pid
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return {int(child) for child in text.split()}


async def test_clients_of_all_workers_are_in_one_server() -> None:
    async with workers(2) as (command, port), contextlib.AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(await Wire.connect(port)) for _ in range(40)]
        for wire in wires:
            await wire.join("private-room", secret=SECRET)
        async with Publisher(settings(port)) as publisher:
            await publisher.trigger("private-room", "said", {"n": 1})
        for wire in wires:
            assert (await wire.event("said"))["data"] == {"n": 1}
        assert len(children(command)) == 2
        command.signal(signal.SIGTERM)
        for wire in wires:
            assert (await wire.closed()).code == 4200
        assert (await command.ended()).status == 0


async def test_metrics_are_those_of_all_workers_whoever_is_asked() -> None:
    async with workers(2) as (command, port), contextlib.AsyncExitStack() as stack:
        for _ in range(40):
            await stack.enter_async_context(await Wire.connect(port))

        async def told() -> list[int]:
            _, body = await http(port, METRICS)
            pattern = r'antiphon_connections\{worker="[12]",app="1"\} (\d+)'
            return [int(count) for count in re.findall(pattern, body.decode())]

        async with asyncio.timeout(20):
            while sum(found := await told()) != 40:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert len(found) == 2
        assert all(found), "the system spreads connections over both"
        _, body = await http(port, METRICS)
        names = re.findall(r"# TYPE (\S+)", body.decode())
        assert len(names) == len(set(names)), "each is described once"
        command.signal(signal.SIGINT)
        assert (await command.ended()).status == 0


async def test_a_worker_that_dies_is_replaced_and_the_others_serve_on() -> None:
    async with workers(2) as (command, port), contextlib.AsyncExitStack() as stack:
        before = children(command)
        wires = [await stack.enter_async_context(await Wire.connect(port)) for _ in range(20)]
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        await command.err_until(rf"worker \d \(process {victim}\) has ended by signal 9; another")
        await command.err_until("serving$")
        after = children(command)
        assert len(after) == 2
        assert len(after & before) == 1
        alive = 0
        for wire in wires:
            with contextlib.suppress(Exception):
                await wire.ping()
                alive += 1
        assert 0 < alive < 20
        for _ in range(20):
            async with await Wire.connect(port) as wire:
                await wire.ping()
        command.signal(signal.SIGTERM)
        assert (await command.ended()).status == 0


async def test_a_fork_that_fails_is_tried_again_later() -> None:
    """The system has no memory or no process left just when one has died of that."""
    program = """
import os, signal, sys
from pathlib import Path
from antiphon.cli import workers

def fork():
    global left
    left -= 1
    if left == 0:
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return real()

left, real = 2, os.fork
os.fork = fork
workers.RETRY = (0.05, 0.1)

def work(worker):
    print("up", worker.number, flush=True)
    signal.pause()
    return 0

status = workers.run_workers(2, work, host="127.0.0.1", port=0, unix="")
print("status", status)
"""
    async with running(program=("-c", program)) as command:
        lines = sorted([await command.line(), await command.line()])
        assert lines == ["up 1", "up 2"]
        assert "could not be started" in (await command.err_until("another begins"))[-1]
        command.signal(signal.SIGTERM)
        assert (await command.ended()).status == 0


async def test_one_that_hangs_is_killed_when_asked_for_the_third_time() -> None:
    async with workers(2) as (command, _):
        hung = min(children(command))
        os.kill(hung, signal.SIGSTOP)
        command.signal(signal.SIGTERM)
        await until(lambda: children(command) == {hung})
        ending = asyncio.create_task(command.ended())
        while not ending.done():  # two signals at once may count as one
            with contextlib.suppress(ProcessLookupError):  # it has ended, and is still read from
                command.signal(signal.SIGTERM)
            await asyncio.wait([ending], timeout=0.5)
        assert (await ending).status == 0
        await until(lambda: not Path(f"/proc/{hung}").exists())


# The real command, but that one which could not be replaced twice is not tried again: while it is,
# it has a socket, and hangs up on who comes there.
NO_THIRD: Final = """
from antiphon.cli import run, workers

def try_later(parent, worker, why):
    whole(parent, worker, why)
    if worker.delay > workers.RETRY[0]:
        worker.starts_at += 3600

whole, workers._Parent._try_later = workers._Parent._try_later, try_later
run()
"""


async def test_nobody_waits_for_one_that_cannot_be_replaced(tmp_path: Path) -> None:
    apps = tmp_path / "apps.toml"
    apps.write_text(f'apps = [{{id = "1", key = "k", secret = "{SECRET}"}}]')
    prefix = f"antiphon-test-{os.urandom(6).hex()}"
    words = ("serve", "--port", "0", "--drain", "0", "--redis-prefix", prefix, "--workers", 2)
    await needs_redis()
    env = {"ANTIPHON_REDIS": REDIS}
    given: dict[str, Any] = {"env": env, "secrets": (SECRET,), "program": ("-c", NO_THIRD)}
    async with running(*words, "--config", apps, **given) as command:
        *_, line = await command.err_until("listening on .*, with")
        port = int(line.partition(", with")[0].rpartition(":")[2])
        for _ in range(2):
            await command.err_until("serving$")
        apps.write_text("broken")
        os.kill(min(children(command)), signal.SIGKILL)
        for _ in range(2):
            await command.err_until("another begins in")
        for _ in range(20):
            async with await Wire.connect(port) as wire:
                await wire.ping()
        command.signal(signal.SIGTERM)
        assert (await command.ended()).status == 0


async def test_sighup_while_it_starts_ends_nobody() -> None:
    async with workers(2) as (command, port):
        before = children(command)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: len(children(command)) == 2 and not children(command) & before)
        for _ in range(50):
            command.signal(signal.SIGHUP)
            await asyncio.sleep(0.01)
        for _ in range(2):
            await command.err_until("serving$")
        async with await Wire.connect(port) as wire:
            await wire.ping()
        command.signal(signal.SIGTERM)
        assert "by signal 1" not in (await command.ended()).err


async def test_no_worker_outlives_its_parent() -> None:
    async with workers(2) as (command, _):
        left = children(command)
        command.signal(signal.SIGKILL)
        await command.ended()
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left))


async def test_they_share_a_unix_socket_too(tmp_path: Path) -> None:
    path = tmp_path / "antiphon.sock"
    await needs_redis()
    prefix = f"antiphon-test-{os.urandom(6).hex()}"
    words = ("serve", "--unix", path, "--drain", "0", "--redis-prefix", prefix, "--workers", 2)
    async with running(*words, env=ENV, cold=True) as command:
        for _ in range(2):
            await command.err_until("serving$")
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in await asyncio.wait_for(reader.readline(), 15)
        writer.close()
        command.signal(signal.SIGTERM)
        assert (await command.ended()).status == 0
    assert not path.exists()


async def test_workers_that_cannot_start_end_with_the_first_ones_words() -> None:
    env = {**ENV, "ANTIPHON_REDIS": "redis://127.0.0.1:1/0"}
    ended = await run("serve", "--port", "0", "--workers", 2, env=env, cold=True)
    assert ended.status == 2
    assert "The Redis at 127.0.0.1:1 cannot be used" in ended.err
    assert "another begins" not in ended.err


async def test_a_port_that_is_taken_is_not_shared_with_strangers() -> None:
    async with workers(2) as (command, port):
        words = ("serve", "--port", port, "--workers", 2)
        ended = await run(*words, env=ENV, cold=True)
        assert ended.status == 2
        assert "another program listens there already" in ended.err
        command.signal(signal.SIGTERM)
        assert (await command.ended()).status == 0


async def test_workers_without_redis_are_a_mistake() -> None:
    ended = await run("serve", "--workers", 2, env={**ENV, "ANTIPHON_REDIS": ""})
    assert ended.status == 2
    assert "Workers know of each other over Redis" in ended.err
