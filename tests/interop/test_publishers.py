"""npm `pusher` 5.3 and PyPI `pusher` 3.3 against the HTTP API, and as signers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from antiphon.server import Server
from tests.conftest import Connect
from tests.server.wire import Wire

from .conftest import Library, OpenLibrary, Refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_both_are_told_what_they_ask(connect: Connect, library: Library) -> None:
    ali, phone, john = await connect(), await connect(), await connect()
    await ali.subscribe("news")
    await john.subscribe("news")
    for wire, user in ((ali, "ali"), (phone, "ali"), (john, "john")):
        await wire.join("presence-room", user)
    assert await library.channels_info("presence-", ["user_count"]) == {
        "channels": {"presence-room": {"user_count": 2}}
    }
    assert await library.channels_info("ne", []) == {"channels": {"news": {}}}
    assert await library.channels_info("nothing", []) == {"channels": {}}
    assert await library.channel_info("presence-room", ["user_count"]) == {
        "occupied": True,
        "user_count": 2,
    }
    assert await library.channel_info("news", ["subscription_count"]) == {
        "occupied": True,
        "subscription_count": 2,
    }
    assert await library.channel_info("empty", []) == {"occupied": False}
    assert await library.users_info("presence-room") == {"users": [{"id": "ali"}, {"id": "john"}]}


async def test_both_may_ask_about_a_name_with_every_allowed_character(
    connect: Connect, library: Library
) -> None:
    wire = await connect()
    name = "presence-A_z=@,.;9"
    await wire.join(name, "ali")
    assert (await library.channel_info(name, ["user_count"]))["user_count"] == 1
    assert await library.users_info(name) == {"users": [{"id": "ali"}]}


@pytest.mark.parametrize(
    "data",
    [{"a": "дело 🎉"}, [1, 2], "plain text", "", 'a "quoted" \\ text', None],
    ids=repr,
)
async def test_what_both_publish_arrives(connect: Connect, library: Library, data: Any) -> None:
    wire = await connect()
    await wire.subscribe("news")
    await library.trigger("news", "e", data)
    assert (await wire.event("e"))["data"] == data


async def test_both_publish_to_a_hundred_channels_and_in_tens(
    connect: Connect, library: Library
) -> None:
    wire = await connect()
    await wire.subscribe("c99")
    await library.trigger([f"c{n}" for n in range(100)], "e", 1)
    await wire.event("e")
    await library.trigger_batch(
        [{"channel": "c99", "name": f"b{n}", "data": {"n": n}} for n in range(10)]
    )
    for n in range(10):
        assert (await wire.event(f"b{n}"))["data"] == {"n": n}


@pytest.mark.parametrize(
    ("ask", "status", "words"),
    [
        (lambda library: library.trigger("news", "pusher:e", 1), 400, "pusher:e"),
        (lambda library: library.channels_info("ne", ["user_count"]), 400, "filter_by_prefix"),
        (lambda library: library.users_info("news"), 400, "presence"),
        (lambda library: library.trigger("news", "e", "x" * 10_300), 413, "10240"),
    ],
    ids=["an event of the protocol", "users everywhere", "users of all", "too large"],
)
async def test_both_are_told_why_they_are_refused(
    library: Library, ask: Callable[[Library], Awaitable[Any]], status: int, words: str
) -> None:
    with pytest.raises(Refused, match=words) as refused:
        await ask(library)
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("change", "status"),
    [({"app_secret": "guess"}, 401), ({"app_key": "other"}, 401), ({"app_id": "9"}, 404)],
)
async def test_both_are_refused_with_wrong_credentials(
    server: Server, open_library: OpenLibrary, change: dict[str, str], status: int
) -> None:
    library = await open_library(msgspec.structs.replace(server.settings(), **change))
    with pytest.raises(Refused) as refused:
        await library.trigger("news", "e", 1)
    assert refused.value.status == status
    with pytest.raises(Refused) as refused:
        await library.channel_info("news", [])
    assert refused.value.status == status


async def test_what_both_sign_is_accepted(connect: Connect, library: Library) -> None:
    wire = await connect()
    signed = await library.authorize(wire.socket_id, "private-room")
    await wire.subscribe("private-room", signed["auth"])
    who = {"user_id": "ali", "user_info": {"name": "Қўчқоров"}}
    signed = await library.authorize(wire.socket_id, "presence-room", who)
    presence = (await wire.subscribe("presence-room", signed["auth"], signed["channel_data"]))[
        "presence"
    ]
    assert presence["hash"] == {"ali": {"name": "Қўчқоров"}}
    signed = await library.authorize(wire.socket_id, "private-encrypted-room")
    await wire.subscribe("private-encrypted-room", signed["auth"])
    await sign_in(wire, await library.authenticate(wire.socket_id, {"id": "7"}))


async def sign_in(wire: Wire, signed: dict[str, str]) -> None:
    wire.send("pusher:signin", {"auth": signed["auth"], "user_data": signed["user_data"]})
    await wire.event("pusher:signin_success")
    await wire.subscribe("#server-to-user-7")
