"""`antiphon listen --json`: what programs read, from a login to a restart of the server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import unicodedata
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from antiphon.protocol.signing import channel_auth
from antiphon.publisher import BatchEvent, Publisher
from antiphon.server import Server
from antiphon.settings import Settings
from tests.chat.house import PASSWORD, House, open_house
from tests.server.wire import Wire

from .command import TIMEOUT, run, running, steers
from .conftest import SECRET
from .strangers import ESTABLISHED, Gate, answering, http_server, kept_port, saying

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALI: Final = {"ANTIPHON_PASSWORD": PASSWORD}


def listen(port: int, *more: object, key: str = "k") -> tuple[object, ...]:
    """A listener that prints JSON."""
    where = ("--host", "127.0.0.1", "--port", port, "--scheme", "http")
    return ("listen", "--json", "--app-key", key, *where, *more)


def as_ali(server: Server, house: House, *more: object) -> tuple[object, ...]:
    return listen(server.port, "--api", house.api_url, "--email", "ali@example.com", *more)


def states(objects: list[dict[str, Any]]) -> list[str]:
    """The states in their order; each must begin where the one before ended."""
    changes = [o for o in objects if o["kind"] == "state"]
    assert [o["previous"] for o in changes[1:]] == [o["current"] for o in changes[:-1]]
    return [changes[0]["previous"], *(o["current"] for o in changes)]


# What is printed


async def test_ones_own_events_arrive_after_a_login(server: Server, house: House) -> None:
    async with running(*as_ali(server, house, "--max-events", 3), env=ALI, cold=True) as command:
        await command.told(kind="subscribed", channel="private-user.1")
        async with house.as_(house.john) as john, house.as_(house.ali) as ali:
            await john.typing(house.conversation)
            sent = await john.send(house.conversation, "Hello! 👋", temp_id="t")
            await ali.read(house.conversation, sent.id)
        ended = await command.ended()
    assert (ended.status, ended.err) == (0, "")
    objects = ended.objects
    assert [o["kind"] for o in objects] == [
        *("state", "state", "subscribed", "event", "event", "event", "state")
    ]
    assert states(objects) == ["initialized", "connecting", "connected", "disconnected"]
    typing, message, read = objects[3:6]
    assert {o["channel"] for o in (typing, message, read)} == {"private-user.1"}
    assert typing["event"] == r"App\Events\UserIsTyping"
    assert typing["data"]["user"]["firstName"] == "John"
    assert message["event"] == r"App\Events\MessageSent"
    assert message["data"]["message"]["content"] == "Hello! 👋"
    assert message["data"]["tempId"] == "t"
    assert read["event"] == r"App\Events\MessagesRead"
    assert read["data"]["message_ids"] == [sent.id]


DATA: Final[dict[str, Any]] = {
    r'"{\"a\":{\"b\":[1,null,true,1.5]}}"': {"a": {"b": [1, None, True, 1.5]}},
    '"plain text"': "plain text",
    '""': "",
    '{"a":1}': {"a": 1},
    "[1,2]": [1, 2],
    "7": 7,
    "null": None,
    "": None,
    r'"\"twice \\\"encoded\\\"\""': 'twice "encoded"',
    r'"{\"big\":12345678901234567890123}"': {"big": 12345678901234567890123},
    r'"{\"cut\": "': '{"cut": ',
    r'"line\nbreak and 💬"': "line\nbreak and 💬",
}


async def test_data_is_decoded_whatever_it_is() -> None:
    frames = [
        f'{{"event":"e{n}","channel":"news"{"," if raw else ""}{raw and chr(34) + "data" + chr(34)}'
        f"{':' if raw else ''}{raw}}}"
        for n, raw in enumerate(DATA)
    ]
    async with http_server(saying(ESTABLISHED, *frames)) as port:
        ended = await run(*listen(port, "--channel", "news", "--max-events", len(DATA)))
    assert ended.status == 0
    events = [o for o in ended.objects if o["kind"] == "event"]
    assert [o["event"] for o in events] == [f"e{n}" for n in range(len(DATA))]
    assert [o["data"] for o in events] == list(DATA.values())


async def test_what_is_no_event_is_an_error_of_its_own_and_nothing_else_is_harmed() -> None:
    frames = [
        "no JSON",
        "[]",
        '{"data":1}',
        '{"event":7}',
        r'{"event":"pusher:error","data":{"code":4301,"message":"Slow\u001b[31m down\n!"}}',
        r'{"event":"pusher:subscription_error","channel":"news","data":{"status":403}}',
        '{"event":"fine","channel":"news"}',
    ]
    async with http_server(saying(ESTABLISHED, *frames)) as port:
        args = ("--channel", "news", "--channel", "more", "--max-events", 1)
        ended = await run(*listen(port, *args))
    assert ended.status == 0
    errors = [o for o in ended.objects if o["kind"] == "error"]
    types = [(o["type"], o["code"]) for o in errors]
    assert types == [*[("event", None)] * 4, ("event", 4301), ("subscription", 403)]
    assert next(o for o in ended.objects if o["kind"] == "event")["event"] == "fine"


HOSTILE: Final = "\x1b[31mred\x07\x08\r\x7f\x9b2J\x85\u2028\u202e\u200b\ufeff"


async def test_no_control_character_of_a_message_reaches_the_terminal(
    server: Server, house: House
) -> None:
    async with running(*as_ali(server, house, "--max-events", 1), env=ALI) as command:
        await command.told(kind="subscribed")
        async with house.as_(house.john) as john:
            await john.send(house.conversation, HOSTILE)
        ended = await command.ended()
    (event,) = (o for o in ended.objects if o["kind"] == "event")
    assert event["data"]["message"]["content"] == HOSTILE
    # What only turns the writing around is for whoever shows the text.
    assert [c for c in ended.out.replace("\n", "") if unicodedata.category(c) == "Cc"] == []


async def test_lines_are_cut_by_nothing_but_line_feeds(server: Server) -> None:
    # `str.splitlines` also cuts at U+2028 and U+0085, and so do some readers of JSON lines.
    async with running(*listen(server.port, "--channel", "news", "--max-events", 1)) as command:
        await command.told(kind="subscribed")
        async with Publisher(server.settings()) as publisher:
            await publisher.trigger("news", "e", "a\u2028b\u2029c\x85d\x0be")
        assert (await command.told(kind="event"))["data"] == "a\u2028b\u2029c\x85d\x0be"
        await command.told(kind="state", current="disconnected")


async def test_text_that_is_no_unicode_harms_nothing() -> None:
    frames = [
        r'{"event":"odd","channel":"news","data":"\ud800"}',
        r'{"event":"odd","channel":"news","data":"{\"a\":\"\\ud800\"}"}',
        '{"event":"fine","channel":"news"}',
    ]
    async with (
        http_server(saying(ESTABLISHED, *frames)) as port,
        running(*listen(port, "--channel", "news")) as command,
    ):
        await command.told(kind="event", event="fine")
        command.signal()
        ended = await command.ended()
    assert (ended.status, ended.err) == (0, "")


async def test_output_is_utf_8_wherever_it_goes() -> None:
    frames = ('{"event":"e","channel":"news","data":"дело 💬"}',)
    async with http_server(saying(ESTABLISHED, *frames)) as port:
        args = listen(port, "--channel", "news", "--max-events", 1)
        ended = await run(*args, env={"PYTHONIOENCODING": "ascii"}, cold=True)
    assert (ended.status, ended.err) == (0, "")
    assert [o["data"] for o in ended.objects if o["kind"] == "event"] == ["дело 💬"]


async def test_members_see_who_sent_a_client_event(server: Server, house: House) -> None:
    channel = f"presence-conversation.{house.conversation}"
    async with running(*as_ali(server, house, "--channel", channel), env=ALI) as command:
        await command.told(kind="subscribed", channel=channel)
        async with await Wire.connect(server.port) as john:
            await john.join(channel, "2", secret=SECRET)
            john.send("client-wave", {"n": 1}, channel)
            event = await command.told(kind="event")
        command.signal()
        ended = await command.ended()
    assert event["event"] == "client-wave"
    assert (event["data"], event["user_id"]) == ({"n": 1}, "2")
    assert [o["kind"] for o in ended.objects].count("event") == 1, "members are no events"


# What is listened to


async def test_channels_that_are_named_take_the_place_of_ones_own(
    server: Server, house: House
) -> None:
    room = f"private-conversation.{house.conversation}"
    args = as_ali(server, house, "--channel", room, "--channel", "news", "--channel", room)
    async with running(*args, env=ALI) as command:
        joined = {(await command.told(kind="subscribed"))["channel"] for _ in range(2)}
        assert joined == {room, "news"}
        async with Publisher(server.settings()) as publisher:
            await publisher.trigger("private-user.1", "not for us", 1)
            await publisher.trigger("news", "for us", 1)
        assert (await command.told(kind="event"))["event"] == "for us"
        command.signal(signal.SIGTERM)
        ended = await command.ended()
    assert (ended.status, ended.err) == (0, "")
    assert [o["kind"] for o in ended.objects].count("subscribed") == 2


async def test_a_laravel_env_file_and_a_token_are_enough(
    server: Server, house: House, tmp_path: Path
) -> None:
    env = tmp_path / "laravel.env"
    env.write_text(
        "APP_NAME=Chat\n"
        f"APP_URL={house.api_url}\n"
        "BROADCAST_CONNECTION=reverb\n"
        f'REVERB_APP_ID=1\nREVERB_APP_KEY=k\nREVERB_APP_SECRET="{SECRET}"\n'
        f"REVERB_HOST=127.0.0.1\nREVERB_PORT={server.port}\nREVERB_SCHEME=http\n"
        'VITE_REVERB_APP_KEY="${REVERB_APP_KEY}"\n'
    )
    async with house.as_(house.john) as john:
        token = john.token
        args = ("listen", "--json", "--env", env, "--max-events", 1)
        async with running(*args, env={"ANTIPHON_TOKEN": token}, secrets=(SECRET,)) as command:
            await command.told(kind="subscribed", channel="private-user.2")
            await john.send(house.conversation, "to my other device")
            ended = await command.ended()
    assert ended.status == 0


async def test_a_token_for_an_auth_endpoint_needs_no_chat_backend(server: Server) -> None:
    async def handle(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer token-of-the-bot"
        form = await request.post()
        auth = channel_auth("k", SECRET, str(form["socket_id"]), str(form["channel_name"]))
        return web.json_response({"auth": auth})

    async with http_server(handle) as port:
        url = f"http://127.0.0.1:{port}/pusher/auth"
        more = ("--auth-url", url, "--token", "token-of-the-bot", "--channel", "private-room")
        async with running(*listen(server.port, *more)) as command:
            await command.told(kind="subscribed", channel="private-room")
            command.signal()
            assert (await command.ended()).status == 0


async def test_the_password_is_asked_for_and_not_shown(server: Server, house: House) -> None:
    ours, theirs = pty.openpty()
    try:
        args = as_ali(server, house, "--max-events", 1)
        typed = (PASSWORD,)
        async with running(*args, secrets=typed, stdin=theirs, session=True) as command:
            await command.err_asked("Password of ali@example.com: ")
            os.write(ours, f"{PASSWORD}\n".encode())
            await command.told(kind="subscribed")
            command.signal()
            ended = await command.ended()
        assert ended.status == 0
    finally:
        os.close(ours)
        os.close(theirs)


# The end


async def test_after_as_many_events_as_asked_for_it_ends_and_prints_no_more(
    server: Server,
) -> None:
    async with running(*listen(server.port, "--channel", "news", "--max-events", 3)) as command:
        await command.told(kind="subscribed")
        async with Publisher(server.settings()) as publisher:
            batch = [BatchEvent(channel="news", name="e", data=n) for n in range(10)]
            await publisher.trigger_batch(batch)
        ended = await command.ended()
    assert (ended.status, ended.err) == (0, "")
    assert [o["data"] for o in ended.objects if o["kind"] == "event"] == [0, 1, 2]
    assert ended.objects[-1]["current"] == "disconnected"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_with_0_while_it_waits_for_the_server(
    number: signal.Signals,
) -> None:
    with kept_port() as port:
        args = listen(port, "--channel", "news", "--max-attempts", 0)
        async with running(*args) as command:
            await command.told(kind="error", type="connection")
            command.signal(number)
            ended = await command.ended()
    assert (ended.status, ended.err) == (0, "")


async def test_a_signal_ends_it_while_the_backend_does_not_answer(server: Server) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await gone.wait()
        writer.close()

    peer = await asyncio.start_server(hang, "127.0.0.1", 0)
    api = f"http://127.0.0.1:{peer.sockets[0].getsockname()[1]}"
    args = listen(server.port, "--api", api, "--email", "ali@example.com")
    async with peer, running(*args, env=ALI) as command:
        try:
            async with asyncio.timeout(TIMEOUT):
                await asked.wait()
            command.signal()
            ended = await command.ended()
        finally:
            gone.set()
    assert (ended.status, ended.out) == (0, "")


async def test_it_ends_when_nobody_reads_it_any_more(server: Server) -> None:
    async with running(*listen(server.port, "--channel", "news")) as command:
        await command.told(kind="subscribed")
        command.close_output()
        async with Publisher(server.settings()) as publisher:
            for n in range(3):
                await publisher.trigger("news", "e", n)
        ended = await command.ended()
    assert ended.err == ""


# Trouble


async def test_it_survives_a_restart_of_the_server_and_is_authorized_anew(tmp_path: Path) -> None:
    app = ("--app-id", "1", "--app-key", "k", "--app-secret", SECRET)
    async with contextlib.AsyncExitStack() as stack:
        port = stack.enter_context(kept_port())
        settings = Settings(
            app_id="1", app_key="k", app_secret=SECRET, host="127.0.0.1", port=port, scheme="http"
        )
        serve = ("serve", "--port", port, *app)
        before = await stack.enter_async_context(running(*serve))
        house = await stack.enter_async_context(open_house(settings, tmp_path))
        john = await stack.enter_async_context(house.as_(house.john))
        await before.err_until("listening on")
        args = listen(port, "--api", house.api_url, "--email", "ali@example.com")
        async with running(*args, env=ALI) as command:
            await command.told(kind="subscribed", channel="private-user.1")
            await john.send(house.conversation, "before")
            first = await command.told(kind="event")
            before.signal(signal.SIGTERM)
            assert (await before.ended()).status == 0
            lost = await command.told(kind="error", type="connection", code=4200)
            async with running(*serve) as after:
                await after.err_until("listening on")
                await command.told(kind="subscribed", channel="private-user.1")
                await john.send(house.conversation, "after")
                second = await command.told(kind="event")
                command.signal()
                ended = await command.ended()
                after.signal()
                assert (await after.ended()).status == 0
    assert (ended.status, ended.err) == (0, "")
    contents = [event["data"]["message"]["content"] for event in (first, second)]
    assert contents == ["before", "after"]
    assert "The server is going down" in lost["message"]
    # A server that takes 10 seconds to come back is `unavailable` in between.
    assert [state for state in states(ended.objects) if state != "unavailable"] == [
        *("initialized", "connecting", "connected", "connecting", "connected", "disconnected")
    ]
    assert {o["type"] for o in ended.objects if o["kind"] == "error"} == {"connection"}


async def test_a_wrong_key_ends_it_with_1_after_one_dial_and_with_one_line(server: Server) -> None:
    async with Gate(server.port) as gate:
        ended = await run(*listen(gate.port, "--channel", "news", key="nobody"))
    assert ended.status == 1
    assert gate.count == 1
    (error,) = (o for o in ended.objects if o["kind"] == "error")
    assert (error["type"], error["code"]) == ("connection", 4001)
    assert states(ended.objects) == ["initialized", "connecting", "failed"]
    assert ended.err == f"antiphon: {error['message']}\n"


async def test_one_attempt_is_one_dial() -> None:
    async with http_server(answering(503)) as port, Gate(port) as gate:
        ended = await run(*listen(gate.port, "--channel", "news", "--max-attempts", 1))
    assert ended.status == 1
    assert gate.count == 1


async def test_a_channel_of_somebody_else_is_refused_and_the_others_go_on(
    server: Server, house: House
) -> None:
    args = as_ali(server, house, "--channel", "private-user.2", "--channel", "news")
    async with running(*args, env=ALI) as command:
        # The one is refused by the backend and the other granted by the server, in any order.
        await command.told_all({"kind": "error"}, {"kind": "subscribed", "channel": "news"})
        async with Publisher(server.settings()) as publisher:
            await publisher.trigger("news", "e", 1)
        await command.told(kind="event", channel="news")
        command.signal()
        ended = await command.ended()
    (error,) = (o for o in ended.objects if o["kind"] == "error")
    assert (error["type"], error["code"]) == ("subscription", 403)
    assert re.search(rf"{house.api_url}/broadcasting/auth.*private-user\.2", error["message"])
    assert (ended.status, ended.err) == (0, "")


async def test_a_channel_that_was_refused_before_counts_as_joined_when_it_is() -> None:
    """Of two channels first the one is refused and then the other, but never both."""
    refuse, go_on, ponged = iter(["private-a", "private-b"]), asyncio.Event(), asyncio.Event()
    refused = ""

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal refused
        if request.method == "POST":
            name = (await request.post())["channel_name"]
            return web.json_response({"auth": "k:x"}, status=403 if name == refused else 200)
        refused = next(refuse)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(ESTABLISHED)
        async for message in socket:
            frame = json.loads(message.data)
            if frame["event"] != "pusher:subscribe":
                ponged.set()
                continue
            name = frame["data"]["channel"]
            joined = {"event": "pusher_internal:subscription_succeeded", "channel": name}
            await socket.send_json(joined)
            await go_on.wait()
            if refused == "private-a":
                go_on.clear()
                await socket.close(code=4200)
            else:
                await socket.send_json({"event": "pusher:ping"})
        return socket

    async with http_server(handle) as port:
        more = ("--channel", "private-a", "--channel", "private-b")
        args = listen(port, "--auth-url", f"http://127.0.0.1:{port}/auth", *more)
        async with running(*args) as command:
            await command.told_all(
                {"kind": "error", "type": "subscription", "channel": "private-a"},
                {"kind": "subscribed", "channel": "private-b"},
            )
            go_on.set()
            await command.told_all(
                {"kind": "error", "type": "subscription", "channel": "private-b"},
                {"kind": "subscribed", "channel": "private-a"},
            )
            go_on.set()
            async with asyncio.timeout(TIMEOUT):
                await ponged.wait()  # it is still there, and does not merely say goodbye
            command.signal()
            ended = await command.ended()
    assert (ended.status, ended.err) == (0, "")


async def test_it_ends_when_the_server_refuses_all_that_it_should_listen_to(
    server: Server,
) -> None:
    # The backend signs with another secret than the server's: the commonest mistake there is.
    async def handle(request: web.Request) -> web.Response:
        form = await request.post()
        auth = channel_auth("k", "another", str(form["socket_id"]), str(form["channel_name"]))
        return web.json_response({"auth": auth})

    async with http_server(handle) as port:
        url = f"http://127.0.0.1:{port}/auth"
        more = ("--auth-url", url, "--channel", "private-room", "--max-attempts", 1)
        async with running(*listen(server.port, *more)) as command:
            error = await command.told(kind="error")
            ended = await command.ended()
    assert error["type"] == "subscription"
    assert error["code"] in (401, 4009)
    assert "private-room" in error["message"]
    assert ended.status == 1
    assert ended.err == f"antiphon: {error['message']}\n"


async def test_the_log_tells_no_secret_and_does_not_steer_the_terminal(
    server: Server, house: House
) -> None:
    args = as_ali(server, house, "--log-level", "debug", "--max-events", 1)
    async with house.as_(house.ali) as ali:
        given = {"ANTIPHON_TOKEN": ali.token}
        async with running(*args, env=given, secrets=(PASSWORD, SECRET)) as command:
            await command.told(kind="subscribed")
            async with house.as_(house.john) as john:
                await john.send(house.conversation, "Hello!")
            ended = await command.ended()
    assert ended.status == 0
    assert len(ended.objects) == 5
    assert "antiphon.connection" in ended.err
    assert re.search(r"k:[0-9a-f]{64}", ended.err) is None, "a signature"


async def test_a_strangers_frames_do_not_steer_the_terminal_from_the_log() -> None:
    frames = ("\x1b]0;owned\x07 no JSON", '{"event":"fine","channel":"news"}')
    async with http_server(saying(ESTABLISHED, *frames)) as port:
        more = ("--channel", "news", "--max-events", 1, "--log-level", "debug")
        ended = await run(*listen(port, *more))
    assert "owned" in ended.err
    assert steers(ended.err.replace("\n", "")) == []
