"""`antiphon publish`: through the HTTP API to whoever listens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from antiphon.server import Server
from tests.server.wire import Wire

from .command import TIMEOUT, Call, Ended, run, run_all, running, steers
from .conftest import SECRET
from .strangers import answering, http_server, kept_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

APP: Final = ("--app-id", "1", "--app-key", "k", "--scheme", "http")
DATA: Final[dict[str, Any]] = {
    '{"a": [1, null]}': {"a": [1, None]},
    "7": 7,
    "plain text, with a comma": "plain text, with a comma",
    "": "",
    "дело 🎉": "дело 🎉",
    '"a string"': "a string",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def published(server: Server) -> dict[str, dict[str, Any]]:
    """What a listener got of each publication, by the data that was given."""
    calls = {
        data: Call(
            ("publish", "news", f"e{n}", data, *APP, "--port", server.port),
            {"REVERB_APP_SECRET": SECRET},
        )
        for n, data in enumerate(DATA)
    }
    async with await Wire.connect(server.port) as wire:
        await wire.subscribe("news")
        for data, ended in (await run_all(calls)).items():
            name = calls[data].args[2]
            assert ended == Ended(0, f"Published {name} on news.\n", "")
        got = {(message := await wire.message())["event"]: message for _ in calls}
    return {data: got[f"e{n}"] for n, data in enumerate(DATA)}


@pytest.mark.parametrize("data", DATA)
async def test_data_is_json_or_text_and_arrives(
    published: dict[str, dict[str, Any]], data: str
) -> None:
    assert published[data]["channel"] == "news"
    assert published[data]["data"] == DATA[data]


async def test_an_env_file_says_where_and_one_connection_can_be_left_out(
    server: Server, tmp_path: Path
) -> None:
    env = tmp_path / "laravel.env"
    env.write_text(
        f"REVERB_APP_ID=1\nREVERB_APP_KEY=k\nREVERB_APP_SECRET={SECRET}\n"
        f'REVERB_HOST="127.0.0.1"\nREVERB_PORT={server.port}\nREVERB_SCHEME=http\n'
    )
    async with await Wire.connect(server.port) as here, await Wire.connect(server.port) as there:
        for wire in (here, there):
            await wire.subscribe("news")
        ended = await run(
            *("publish", "news", "e", json.dumps({"n": 1})),
            *("--env", env, "--socket-id", here.socket_id),
            secrets=(SECRET,),
            cold=True,
        )
        assert ended == Ended(0, "Published e on news.\n", "")
        assert (await there.event("e"))["data"] == {"n": 1}
        await here.ping()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def refused(server: Server) -> dict[str, tuple[Ended, int]]:
    """How publications ended that nobody takes, and at which port."""
    hostile = answering(
        400, '{"error":"\\u001b]0;owned\\u0007\\u009b2J\x1b[31m\r\nantiphon: fine"}'
    )
    async with (
        contextlib.AsyncExitStack() as stack,
        http_server(answering(200, "<html>Hello!</html>")) as page,
        http_server(answering(302, Location="http://127.0.0.1/login")) as redirect,
        http_server(hostile) as rude,
    ):
        free = stack.enter_context(kept_port())
        ports = {
            "a wrong secret": server.port,
            "an unknown key": server.port,
            "an unknown id": server.port,
            "too much data": server.port,
            "nobody there": free,
            "TLS where none is spoken": server.port,
            "a web page": page,
            "a redirect": redirect,
            "rude words": rude,
        }
        more: dict[str, tuple[object, ...]] = {
            "a wrong secret": ("--app-secret", "a-wrong-secret"),
            "an unknown key": ("--app-key", "nobody"),
            "an unknown id": ("--app-id", "4711"),
            "TLS where none is spoken": ("--scheme", "https"),
        }
        calls = {
            name: Call(
                (
                    *("publish", "news", "e", "x" * 10_241 if name == "too much data" else "x"),
                    *(*APP, "--host", "127.0.0.1", "--port", port, *more.get(name, ())),
                ),
                {"REVERB_APP_SECRET": SECRET},
            )
            for name, port in ports.items()
        }
        ended = await run_all(calls)
    return {name: (ended[name], ports[name]) for name in ended}


REFUSALS: Final = {
    "a wrong secret": "401.*app_secret|401.*--app-secret",
    "an unknown key": "401.*app_key|401.*--app-key",
    "an unknown id": "404.*4711",
    "too much data": "413.*10240",
    "nobody there": "HTTP API at .*running",
    "TLS where none is spoken": "HTTP API at .*TLS.*http",
    "a web page": "no JSON.*is this a Pusher server",
    "a redirect": "302",
    "rude words": "400",
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_publication_nobody_takes_ends_with_1_and_one_line(
    refused: dict[str, tuple[Ended, int]], name: str
) -> None:
    (status, out, err), port = refused[name]
    assert (status, out) == (1, "")
    assert re.fullmatch(r"antiphon: [^\n]+\n", err), err
    assert f"://127.0.0.1:{port}" in err
    assert re.search(REFUSALS[name], err), err


async def test_the_words_of_a_stranger_do_not_steer_the_terminal(
    refused: dict[str, tuple[Ended, int]],
) -> None:
    (_, _, err), _ = refused["rude words"]
    assert steers(err.removesuffix("\n")) == []


async def test_ctrl_c_ends_a_publication_that_gets_no_answer() -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await gone.wait()
        writer.close()

    peer = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = peer.sockets[0].getsockname()[1]
    args = ("publish", "news", "e", "x", *APP, "--host", "127.0.0.1", "--port", port)
    async with peer, running(*args, env={"REVERB_APP_SECRET": SECRET}) as command:
        try:
            async with asyncio.timeout(TIMEOUT):
                await asked.wait()
            command.signal(signal.SIGINT)
            ended = await command.ended()
        finally:
            gone.set()
    assert ended.status == 130, "it was not published, and nobody waited for the answer"
    assert "Published" not in ended.out
