"""laravel-echo 2.5 with both of its broadcasters that speak this protocol."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.publisher import Publisher
from antiphon.server import Server
from antiphon.settings import App
from tests.conftest import Serve

from .conftest import APP, AuthEndpoint, DialEcho, Doorman, JsClient, Library, echo_options
from .node import Node

pytestmark = pytest.mark.asyncio(loop_scope="module")

broadcasters = pytest.mark.parametrize("broadcaster", ["pusher", "reverb"])


async def joined(client: JsClient, type_: str, channel: str, **words: Any) -> None:
    """Join a channel by Echo's name for it and wait until it is subscribed."""
    await client.call("join", type=type_, channel=channel, **words)
    await client.heard("subscribed", channel=channel)


# Events


@broadcasters
@pytest.mark.parametrize(
    ("type_", "prefix"),
    [
        ("public", ""),
        ("private", "private-"),
        ("presence", "presence-"),
        ("encrypted", "private-encrypted-"),
    ],
)
async def test_every_kind_of_channel_gets_events(
    dial_echo: DialEcho, library: Library, broadcaster: str, type_: str, prefix: str
) -> None:
    ali = await dial_echo("ali", broadcaster)
    await joined(ali, type_, "room.1", events=[".message.sent", "MessageSent"])
    # A dot in front means the name as it stands; otherwise Echo adds Laravel's name space.
    await library.trigger(f"{prefix}room.1", "message.sent", {"n": 1})
    await library.trigger(f"{prefix}room.1", "App\\Events\\MessageSent", {"n": "дело"})
    heard = [await ali.heard("event") for _ in range(2)]
    assert [(h["channel"], h["event"], h["data"]) for h in heard] == [
        ("room.1", ".message.sent", {"n": 1}),
        ("room.1", "MessageSent", {"n": "дело"}),
    ]


@broadcasters
async def test_the_sender_is_left_out_by_its_socket_id(
    dial_echo: DialEcho, library: Library, broadcaster: str
) -> None:
    ali, john = await dial_echo("ali", broadcaster), await dial_echo("john", broadcaster)
    for client in (ali, john):
        await joined(client, "private", "room", events=[".e", ".end"])
    await library.trigger("private-room", "e", 1, socket_id=ali.socket_id)
    await library.trigger("private-room", "end", 1)
    assert [(await john.heard("event"))["event"] for _ in range(2)] == [".e", ".end"]
    assert (await ali.heard("event"))["event"] == ".end", "and nothing before it"


@broadcasters
async def test_who_leaves_a_channel_hears_no_more_of_it(
    dial_echo: DialEcho, library: Library, broadcaster: str
) -> None:
    ali = await dial_echo("ali", broadcaster)
    await joined(ali, "private", "room", events=[".e"])
    await joined(ali, "public", "news", events=[".e"])
    await ali.call("leave", channel="room")
    while (await library.channel_info("private-room", []))["occupied"]:
        pass
    await library.trigger(["private-room", "news"], "e", 1)
    assert (await ali.heard("event"))["channel"] == "news"


# Authorization


@broadcasters
async def test_a_channel_is_authorized_with_the_bearer_token(
    dial_echo: DialEcho, endpoint: AuthEndpoint, broadcaster: str
) -> None:
    ali = await dial_echo("ali", broadcaster)
    await joined(ali, "private", "user.1")
    assert endpoint.asked == [("ali", ali.socket_id, "private-user.1")]


@broadcasters
async def test_what_the_endpoint_refuses_is_told_as_an_error(
    dial_echo: DialEcho, broadcaster: str
) -> None:
    ali = await dial_echo("ali", broadcaster)
    await ali.call("join", type="private", channel="forbidden")
    assert (await ali.heard("refused"))["error"]["status"] == 403
    assert await ali.call("status") == "connected"


@broadcasters
async def test_what_the_server_refuses_is_told_as_an_error(
    serve: Serve, dial_echo: DialEcho, broadcaster: str
) -> None:
    server = await serve(App(id="1", key="k", secret="another"))
    ali = await dial_echo("ali", broadcaster, to=server.settings())
    await ali.call("join", type="private", channel="room")
    assert (await ali.heard("refused"))["error"]["status"] == 401
    assert await ali.call("status") == "connected"


# Whispers and presence


@broadcasters
async def test_a_whisper_reaches_the_others_and_not_its_sender(
    dial_echo: DialEcho, library: Library, broadcaster: str
) -> None:
    ali, john = await dial_echo("ali", broadcaster), await dial_echo("john", broadcaster)
    for client in (ali, john):
        await joined(client, "private", "room", events=[".end"], whispers=["typing"])
    await ali.call("whisper", type="private", channel="room", event="typing", data={"n": 1})
    heard = await john.heard("whisper")
    assert (heard["event"], heard["data"], heard["user_id"]) == ("typing", {"n": 1}, None)
    await library.trigger("private-room", "end", 1)
    await ali.heard("event", event=".end")
    assert ali.unheard("whisper") == []


@broadcasters
async def test_a_whisper_on_a_presence_channel_tells_who_whispers(
    dial_echo: DialEcho, broadcaster: str
) -> None:
    ali, john = await dial_echo("ali", broadcaster), await dial_echo("john", broadcaster)
    for client in (ali, john):
        await joined(client, "presence", "room", whispers=["typing"])
    await ali.call("whisper", type="presence", channel="room", event="typing", data={})
    assert (await john.heard("whisper"))["user_id"] == "ali"
    assert ali.unheard("whisper") == []


@broadcasters
async def test_members_are_here_joining_and_leaving(dial_echo: DialEcho, broadcaster: str) -> None:
    ali, john = await dial_echo("ali", broadcaster), await dial_echo("john", broadcaster)
    await joined(ali, "presence", "room")
    assert (await ali.heard("here"))["users"] == [{"name": "Ali"}]
    await joined(john, "presence", "room")
    assert (await john.heard("here"))["users"] == [{"name": "Ali"}, {"name": "John"}]
    assert (await ali.heard("joining"))["user"] == {"name": "John"}
    await john.call("leave", channel="room")
    assert (await ali.heard("leaving"))["user"] == {"name": "John"}
    await joined(john, "presence", "room")
    assert (await ali.heard("joining"))["user"] == {"name": "John"}
    await john.call("disconnect")
    assert (await ali.heard("leaving"))["user"] == {"name": "John"}


@broadcasters
async def test_both_broadcasters_meet_on_one_server(dial_echo: DialEcho, broadcaster: str) -> None:
    other = {"pusher": "reverb", "reverb": "pusher"}[broadcaster]
    ali, john = await dial_echo("ali", broadcaster), await dial_echo("john", other)
    for client in (ali, john):
        await joined(client, "private", "room", whispers=["typing"])
    await ali.call("whisper", type="private", channel="room", event="typing", data=1)
    await john.heard("whisper")


# Reconnecting and giving up


@broadcasters
async def test_after_a_restart_it_comes_back_and_is_authorized_anew(
    endpoint: AuthEndpoint, broadcaster: str, port: int
) -> None:
    server = Server(APP, port=port)
    await server.start()
    async with Node("echo_client.mjs", speed=20) as program:
        try:
            ali = JsClient(program, "ali")
            options = echo_options(server.settings(), endpoint, "ali", broadcaster)
            await ali.call("connect", options=options)
            await ali.connected()
            await joined(ali, "private", "room", events=[".e"])
            await joined(ali, "presence", "room")
            await ali.heard("here")
            before = ali.socket_id
            program.forget()
            endpoint.asked.clear()
            await server.stop()
            await ali.heard("state", current="connecting")
            await server.start()
            await ali.connected()
            assert ali.socket_id != before
            assert (await ali.heard("here"))["users"] == [{"name": "Ali"}]
            await ali.heard("subscribed")
            await ali.heard("subscribed")
            assert sorted(endpoint.asked) == [
                ("ali", ali.socket_id, "presence-room"),
                ("ali", ali.socket_id, "private-room"),
            ]
            async with Publisher(server.settings()) as publisher:
                await publisher.trigger("private-room", "e", 1)
            await ali.heard("event", event=".e")
        finally:
            await server.stop()


@broadcasters
async def test_at_a_wrong_key_it_gives_up_after_one_dial(
    server: Server, endpoint: AuthEndpoint, broadcaster: str
) -> None:
    async with Doorman(server.port) as doorman, Node("echo_client.mjs") as program:
        ali = JsClient(program, "ali")
        options = echo_options(server.settings(), endpoint, "ali", broadcaster)
        options |= {"key": "nobody", "wsPort": doorman.port}
        await ali.call("connect", options=options)
        error = (await ali.heard("error"))["error"]["error"]
        assert error["data"] == {"code": 4001, "message": "Application does not exist"}
        await ali.heard("state", current="disconnected")
        assert await program.ended() == 0
        assert doorman.count == 1
