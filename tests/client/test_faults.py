"""The table of faults, row by row: what goes wrong, and what the client must make of it.

The rows stand here in the table's order and in its words, `fault | must`, each above its tests.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import random
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from functools import partial
from typing import Any, Final, Literal, NamedTuple

import msgspec
import pytest
import pytest_asyncio
from aiohttp import web

from antiphon.client import (
    Authentication,
    Authorization,
    Channel,
    ChannelState,
    Client,
    ConnectingIn,
    ConnectionState,
    HttpAuthorizer,
    Policy,
    Reconnected,
    StateChange,
    Subscribed,
    subscriptions,
    transport,
)
from antiphon.client import client as client_module
from antiphon.client import connection as connection_module
from antiphon.errors import (
    AntiphonError,
    AuthorizationFailed,
    AuthServerError,
    AuthTimeout,
    ClientClosed,
    ConnectionFailed,
    ConnectionLost,
    EmptyAuthResponse,
    Forbidden,
    MalformedAuthResponse,
    MalformedFrame,
    PayloadInvalid,
    QueueOverflow,
    Refused,
    ServerReportedError,
    SessionExpired,
    SubscriptionFailed,
    Unauthorized,
    Unreachable,
)
from antiphon.protocol.backoff import Backoff
from antiphon.protocol.client import ClientProtocol
from antiphon.protocol.closing import Action
from antiphon.protocol.events import Closed as Ended
from antiphon.protocol.frames import Event
from antiphon.publisher import Publisher
from antiphon.settings import Settings
from tests.server.wire import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    TIMEOUT,
    Closed,
    frame_bytes,
    until,
)

from .endpoint import SIGNED, Asked, Endpoint
from .linked import Signer, impatient, join, linked, soon, states, watch
from .peer import Dial, Peer, event_text, polite, server_tls

_, CONNECTING, CONNECTED, UNAVAILABLE, FAILED, DISCONNECTED = ConnectionState


# What is left


def tasks() -> set[str]:
    """The names of the tasks that run, but for the test's own and those of other servers."""
    running = asyncio.all_tasks() - {asyncio.current_task()}
    return {task.get_name() for task in running if task.get_name().startswith("antiphon")}


def timers() -> list[str]:
    """What the loop will call later for the client, and for the library under its sockets."""
    scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    calls = [repr(timer._callback) for timer in scheduled if not timer.cancelled()]
    ours = ("Client", "Connection", "Link", "Outbox", "Subscriptions", "picows", "antiphon")
    return sorted(call.split(" ")[2] for call in calls if any(word in call for word in ours))


def open_connections(peer: Peer) -> int:
    """How many of a peer's scripts still speak with a client."""
    return len(peer._tasks)


def pooled(endpoint: Endpoint) -> int:
    """How many connections an endpoint has from anybody."""
    assert endpoint._runner.server is not None
    return len(endpoint._runner.server.connections)


@pytest_asyncio.fixture(autouse=True)
async def nothing_is_left(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """After every test, whatever went wrong in it: no task, no timer, no error of our own."""
    yield
    mine = asyncio.current_task()
    with contextlib.suppress(TimeoutError):  # what was cancelled may need a turn to end
        await until(lambda: asyncio.all_tasks() == {mine} and not timers())
    assert asyncio.all_tasks() - {mine} == set()
    assert timers() == []
    logged = [record.getMessage() for record in caplog.get_records("call")]
    assert [message for message in logged if "xception" in message] == []


# What every row needs


async def later(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Something that waits, once it does."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    return task


def errors(seen: list[Any]) -> list[AntiphonError]:
    return [o for o in seen if isinstance(o, AntiphonError)]


def waits(seen: list[Any]) -> list[ConnectingIn]:
    return [o for o in seen if isinstance(o, ConnectingIn)]


async def told(seen: list[Any], count: int) -> None:
    """Wait until the client has said so many times that it will dial again."""
    await until(lambda: len(waits(seen)) == count)


async def back(peer: Peer, *channels: str, greeting: str = "") -> Dial:
    """The client's next connection, on which it asks for its channels again."""
    dial = await peer.dial()
    await dial.greet(greeting)
    for channel in channels:
        assert (await dial.subscribe())["channel"] == channel
    return dial


async def hears(client: Client, dial: Dial, channel: str) -> None:
    """The proof that events arrive: one does."""
    waiting = await later(client.wait_for("proof"))
    dial.send("proof", 1, channel)
    assert (await soon(waiting)).channel == channel


def frames(*messages: Any) -> bytes:
    """Events on the channel `news` with these data, as they come over the wire."""
    texts = [event_text("e", message, "news").encode() for message in messages]
    return b"".join(frame_bytes(TEXT, text, masked=False) for text in texts)


def open_machine(now: float) -> ClientProtocol:
    """The machine of a connection whose handshake is done."""
    machine = ClientProtocol(now)
    hello = {"socket_id": "1.1", "activity_timeout": 120}
    machine.receive_message(event_text("pusher:connection_established", hello), now)
    return machine


@contextlib.asynccontextmanager
async def failing(peer: Peer, **options: Any) -> AsyncIterator[tuple[Client, list[Any]]]:
    """A client that will not get far, and all that it tells."""
    client = impatient(peer.settings(), **options)
    seen = watch(client)
    try:
        yield client, seen
    finally:
        await soon(client.close())


# event with plain-string, number, null, list, broken JSON data
# | deliver it, connection stays

DATA: Final = {
    '"plain text"': "plain text",
    '"5"': 5,
    "5": 5,
    "1.5": 1.5,
    "null": None,
    '"null"': None,
    "[1,2]": [1, 2],
    '"[1,2]"': [1, 2],
    '"{broken"': "{broken",
    '"\\"half"': '"half',
    '""': "",
    "true": True,
    '{"a":1}': {"a": 1},
    '"{\\"a\\":1}"': {"a": 1},
}


async def test_data_of_every_kind_is_delivered_to_everybody_and_the_connection_stays() -> None:
    async with linked() as (client, dial, peer):
        channel = await join(client, dial, "news")
        seen = watch(client)
        plain: list[Any] = []
        awaited: list[Any] = []

        async def handler(event: Event) -> None:
            awaited.append(event.data)

        channel.bind("e", lambda event: plain.append(event.data))
        channel.bind("e", handler)
        with channel.stream("e") as stream:
            for raw in DATA:
                dial.send_text(f'{{"event":"e","channel":"news","data":{raw}}}')
            dial.send_text('{"event":"e","channel":"news"}')
            streamed = [(await soon(anext(stream))).data for _ in range(len(DATA) + 1)]
        await until(lambda: len(awaited) == len(DATA) + 1)
        assert plain == awaited == streamed == [*DATA.values(), None]
        assert [event.data for event in client.history][-len(plain) :] == plain
        assert errors(seen) == []
        assert states(seen) == []
        await hears(client, dial, "news")
        assert len(peer.dials) == 1


async def test_data_that_does_not_fit_a_type_is_reported_and_the_next_one_arrives() -> None:
    class Message(msgspec.Struct):
        a: int

    async with linked() as (client, dial, peer):
        channel = await join(client, dial, "news")
        seen = watch(client)
        got: list[Message] = []
        channel.bind("e", got.append, type=Message)
        fits = [raw for raw, data in DATA.items() if data == {"a": 1}]
        for raw in DATA:
            dial.send_text(f'{{"event":"e","channel":"news","data":{raw}}}')
        await hears(client, dial, "news")
        assert got == [Message(1)] * len(fits)
        assert [type(error) for error in errors(seen)] == [PayloadInvalid] * (len(DATA) - len(fits))
        assert all("e on news" in str(error) for error in errors(seen))
        assert len(peer.dials) == 1


async def test_a_frame_that_is_no_event_is_reported_and_the_connection_stays() -> None:
    broken = [
        "{broken",
        "",
        "[]",
        "5",
        "null",
        '"e"',
        '{"no":"event"}',
        '{"event":5}',
        "[" * 99_999,
    ]
    async with linked() as (client, dial, peer):
        await join(client, dial, "news")
        seen = watch(client)
        for text in broken:
            dial.send_text(text)
        dial.send_frame(TEXT, b"\xff\xfe")
        dial.send_frame(BINARY, b"\x00")
        await hears(client, dial, "news")
        assert [type(error) for error in errors(seen)] == [MalformedFrame] * (len(broken) + 2)
        assert len(peer.dials) == 1


async def test_the_protocols_own_events_may_have_data_of_every_kind_too() -> None:
    names = [
        "pusher:error",
        "pusher:pong",
        "pusher:cache_miss",
        "pusher:signin_success",
        "pusher:subscription_error",
        "pusher:unheard_of",
        "pusher_internal:member_added",
        "pusher_internal:member_removed",
        "pusher_internal:subscription_count",
        "pusher_internal:watchlist_events",
    ]
    async with linked(authorizer=Signer('{"user_id":"7"}')) as (client, dial, peer):
        await join(client, dial, "presence-room")
        other = await join(client, dial, "news")
        for name, raw in itertools.product(names, DATA):
            dial.send_text(f'{{"event":"{name}","channel":"presence-room","data":{raw}}}')
            dial.send_text(f'{{"event":"{name}","data":{raw}}}')
        await hears(client, dial, "news")
        assert other.is_subscribed
        assert len(peer.dials) == 1


# `pusher:ping`, WebSocket ping
# | pong at once


async def test_both_pings_are_answered_at_once_though_a_handler_is_stuck() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        stuck = asyncio.Event()

        async def handler(_: Event) -> None:
            stuck.set()
            await asyncio.Event().wait()

        channel.bind("e", handler)
        dial.send("e", 1, "news")
        await soon(stuck.wait())
        for n in range(3):
            dial.send("pusher:ping", {})
            assert await dial.event("pusher:pong") == {}
            dial.send_frame(PING, b"payload %d" % n)
            assert await dial.frame() == (PONG, b"payload %d" % n)


async def test_a_ping_with_no_data_or_with_odd_data_is_answered_as_well() -> None:
    async with linked() as (_, dial, _):
        for data in ('""', "null", '"{}"', "{}", "5", "[]"):
            dial.send_text(f'{{"event":"pusher:ping","data":{data}}}')
            await dial.event("pusher:pong")
        dial.send_text('{"event":"pusher:ping"}')
        await dial.event("pusher:pong")


async def test_a_ping_between_the_parts_of_a_message_is_answered_before_the_message_ends() -> None:
    async with linked() as (client, dial, _):
        text = event_text("e", "whole", "news").encode()
        dial.send_frame(TEXT, text[:20], fin=False)
        dial.send_frame(PING, b"in between")
        assert await dial.frame() == (PONG, b"in between")
        dial.send_frame(CONTINUATION, text[20:])
        await until(lambda: client.history and client.history[-1].data == "whole")


# no answer to our ping
# | reconnect at once after the pong time-out


async def test_a_server_that_falls_silent_is_asked_once_and_left_after_the_pong_time_out() -> None:
    async def first(dial: Dial) -> None:
        await dial.greet()
        await dial.subscribe()
        assert await dial.event("pusher:ping") == {}
        with pytest.raises(Closed):
            await dial.text()  # nothing but that one ping

    timeouts = {"activity_timeout": 0.1, "pong_timeout": 2.0}
    async with Peer([first, polite]) as peer, impatient(peer.settings(), **timeouts) as client:
        seen = watch(client)
        channel = client.subscribe("news")
        await soon(channel.subscribed())
        with client.reconnections() as reconnections:
            assert (await soon(anext(reconnections))).channels == ("news",)
        assert channel.is_subscribed
        (error,) = errors(seen)
        assert isinstance(error, ConnectionLost)
        assert error.code == 4201
        assert re.search(r"127\.0\.0\.1:\d+ was lost: The server was silent for \d", str(error))
        assert [wait.seconds for wait in waits(seen)] == [0]
        await hears(client, peer.dials[1], "news")
        assert len(peer.dials) == 2


def test_the_pong_time_out_is_kept_to_the_moment() -> None:
    machine = open_machine(0.0)
    assert machine.next_timer() == 120.0
    assert machine.handle_timer(120.0) is None
    assert machine.data_to_send() == [b'{"event":"pusher:ping","data":{}}']
    assert machine.next_timer() == 150.0
    assert machine.handle_timer(149.9) is None
    closed = machine.handle_timer(150.0)
    assert isinstance(closed, Ended)
    assert (closed.action, closed.code) == (Action.RECONNECT, 4201)


async def test_a_server_that_never_answers_a_ping_is_no_reason_for_a_hot_loop() -> None:
    async def script(dial: Dial) -> None:
        await dial.greet()
        await dial.closed()

    timeouts = {"activity_timeout": 0.02, "pong_timeout": 0.02, "connect_timeout": 30}
    async with (
        Peer(script) as peer,
        failing(peer, min_delay=0.1, max_delay=0.1, **timeouts) as (
            client,
            seen,
        ),
    ):
        await soon(client.connect())
        await told(seen, 4)
        assert [wait.seconds for wait in waits(seen)] == [0, 0.1, 0.1, 0.1]
        assert {error.code for error in errors(seen)} == {4201}


# in-band 4001 then close without a code (Reverb); close 4001; 4000–4099
# | stop, one dial, `failed`, typed error

Refusing = Callable[[Dial, int], Awaitable[None]]


async def in_band_and_an_end_without_a_code(dial: Dial, code: int) -> None:
    await dial.upgrade()
    dial.error(code, "Go away for good")


async def a_close_instead_of_a_greeting(dial: Dial, code: int) -> None:
    await dial.upgrade()
    await dial.close(code, "Go away for good")


async def a_close_of_an_open_connection(dial: Dial, code: int) -> None:
    await dial.greet()
    await dial.close(code, "Go away for good")


async def in_band_on_an_open_connection(dial: Dial, code: int) -> None:
    await dial.greet()
    dial.error(code, "Go away for good")


@pytest.mark.parametrize(
    ("refuse", "codes"),
    [
        (in_band_and_an_end_without_a_code, range(4000, 4100)),
        (a_close_instead_of_a_greeting, range(4000, 4100)),
        (a_close_of_an_open_connection, range(4000, 4100)),
        # 4009 on an open connection is about one channel: its row is further down.
        (in_band_on_an_open_connection, [c for c in range(4000, 4100) if c != 4009]),
    ],
)
async def test_a_server_that_refuses_is_dialled_once_whatever_its_code(
    refuse: Refusing, codes: list[int]
) -> None:
    code = 0

    async def script(dial: Dial) -> None:
        await refuse(dial, code)

    async with Peer(script) as peer:
        for count, code in enumerate(codes, start=1):  # the script reads it
            async with failing(peer, authorizer=Signer()) as (client, seen):
                channel = client.subscribe("private-x")
                with contextlib.suppress(ConnectionFailed):  # it may have stood for a moment
                    await soon(client.connect())
                with pytest.raises(Refused) as caught:
                    await soon(client.wait_closed())
                assert client.state is FAILED
                assert caught.value.code == code
                assert [str(error) for error in errors(seen)] == [str(caught.value)]
                assert waits(seen) == []
                assert states(seen)[-1] is FAILED
                if code == 4000:
                    assert "only accepts TLS: set the scheme to https" in str(caught.value)
                else:
                    assert f"127.0.0.1:{peer.port} refuses this client" in str(caught.value)
                    assert f"Go away for good ({code})" in str(caught.value)
                assert ("check the app key" in str(caught.value)) == (code == 4001)
                with pytest.raises(Refused):
                    await soon(channel.subscribed())
            assert len(peer.dials) == count


# 4004 / 4009 in-band instead of the handshake, socket left open (Reverb: quota, origin)
# | leave, as the code says


@pytest.mark.parametrize(
    ("code", "dials", "kind"),
    [
        (4001, 1, Refused),
        (4004, 1, Refused),
        (4009, 1, Refused),
        (4100, 2, Unreachable),
        (4200, 2, Unreachable),
    ],
)
@pytest.mark.parametrize("after", [0.0, 0.05])
async def test_a_refusal_that_leaves_the_socket_open_is_left_by_the_client(
    code: int, dials: int, kind: type[ConnectionFailed], after: float
) -> None:
    ends: list[Closed] = []

    async def script(dial: Dial) -> None:
        await dial.upgrade()
        await asyncio.sleep(after)
        dial.error(code, "Application is over connection quota")
        ends.append(await dial.closed())
        await dial.end()  # and the socket with it, though nobody has answered the close

    async with Peer(script) as peer, failing(peer, max_attempts=2) as (client, seen):
        with pytest.raises(kind, match="over connection quota") as caught:
            await soon(client.connect())
        assert caught.value.code == code
        assert client.state is FAILED
        assert len(peer.dials) == dials
        assert len(waits(seen)) == dials - 1
        await until(lambda: not open_connections(peer))
        assert [end.code for end in ends] == [1000] * dials


# 4009 in-band after a subscribe, with no channel named (Reverb refusing a signature)
# | a subscription error of the pending private or presence channel it can only mean;
#   connection and other channels stay


@pytest.mark.parametrize("name", ["private-bad", "presence-bad"])
async def test_a_4009_without_a_channel_fails_the_pending_signed_channel_and_no_other(
    name: str,
) -> None:
    async with linked(authorizer=Signer('{"user_id":"7"}')) as (client, dial, peer):
        good = await join(client, dial, "private-good")
        public = client.subscribe("news")
        bad = client.subscribe(name)
        after = client.subscribe("private-after")
        for _ in range(3):
            await dial.subscribe(accept=False)
        seen = watch(client)
        waiting = await later(bad.subscribed())
        dial.error(4009, "Connection is unauthorized")
        with pytest.raises(SubscriptionFailed) as caught:
            await soon(waiting)
        assert (caught.value.channel, caught.value.code) == (name, 4009)
        assert str(caught.value) == f"The server refused {name}: Connection is unauthorized."
        assert [str(error) for error in errors(seen)] == [str(caught.value)]
        assert bad.state is ChannelState.FAILED
        dial.accept("news")
        dial.accept("private-after")
        await soon(after.subscribed())
        assert good.is_subscribed
        assert public.is_subscribed
        assert client.state is CONNECTED
        await hears(client, dial, "private-good")
        assert len(peer.dials) == 1
        # It can be asked for again, and the next connection does so by itself.
        assert client.subscribe(name) is bad
        assert (await dial.subscribe(accept=False))["channel"] == name
        dial.error(4009, "Connection is unauthorized")
        await until(lambda: bad.state is ChannelState.FAILED)
        await dial.hang_up()
        await back(peer, "news", "private-good", name, "private-after")
        await soon(bad.subscribed())


async def test_a_4009_that_can_mean_no_channel_is_only_reported() -> None:
    async with linked(authorizer=Signer()) as (client, dial, peer):
        good = await join(client, dial, "private-good")
        public = client.subscribe("news")
        await dial.subscribe(accept=False)
        seen = watch(client)
        dial.error(4009, "Connection is unauthorized")
        dial.accept("news")
        await soon(public.subscribed())
        (error,) = errors(seen)
        assert isinstance(error, ServerReportedError)
        assert error.code == 4009
        assert good.is_subscribed
        assert len(peer.dials) == 1


# 4200 in-band while connected (Reverb's answer to any message it dislikes)
# | an error event, stay


async def test_a_4200_while_connected_is_an_error_event_each_time_and_no_more() -> None:
    async with linked(authorizer=Signer()) as (client, dial, peer):
        channel = await join(client, dial, "private-x")
        seen = watch(client)
        with client.errors() as stream:
            for _ in range(20):
                dial.error(4200, "Invalid message format")
                error = await soon(anext(stream))
                assert isinstance(error, ServerReportedError)
                assert error.code == 4200
                assert "Invalid message format" in str(error)
        assert len(errors(seen)) == 20
        assert states(seen) == []
        assert channel.is_subscribed
        await hears(client, dial, "private-x")
        assert len(peer.dials) == 1


# close 1000, 1001, 1006, 1011, 1012, none
# | back off and reconnect


async def end(dial: Dial, how: int | str) -> None:
    match how:
        case int():
            await dial.close(how, "because")
        case "a close frame without a code":
            await dial.close()
        case "the end of TCP":
            await dial.hang_up()
        case _:
            dial.abort()


@pytest.mark.parametrize(
    "how",
    [1000, 1001, 1006, 1011, 1012, "a close frame without a code", "the end of TCP", "a reset"],
)
async def test_a_connection_that_ends_is_made_again_after_a_while(how: int | str) -> None:
    async with linked(authorizer=Signer(), min_delay=0.02, max_delay=0.05) as (client, dial, peer):
        channels = [await join(client, dial, name) for name in ("news", "private-x")]
        seen = watch(client)
        await end(dial, how)
        again = await back(peer, "news", "private-x")
        await until(lambda: all(channel.is_subscribed for channel in channels))
        (wait,) = waits(seen)
        assert 0.02 <= wait.seconds <= 0.04
        assert wait.attempt == 2
        (error,) = errors(seen)
        assert isinstance(error, ConnectionLost)
        # 1006 is nobody's to send, and no answer to it: it is an end like any other.
        assert error.code in ((how,) if isinstance(how, int) else (None, 1006))
        assert str(error).startswith(f"The connection to 127.0.0.1:{peer.port} was lost: ")
        assert states(seen) == [CONNECTING, CONNECTED]
        told = [o for o in seen if isinstance(o, Reconnected)]
        assert [set(reconnected.channels) for reconnected in told] == [{"news", "private-x"}]
        await hears(client, again, "news")
        assert len(peer.dials) == 2


# 4100–4199 / 4200–4299 / 4301, 4302 in-band
# | back off ≥ 1 s / at once, but never a hot loop / stay


def ended_with(code: int | None, *, in_band: int | None = None) -> Ended:
    """What the machine makes of an open connection's end."""
    machine = open_machine(0.0)
    if in_band is not None:
        text = event_text("pusher:error", {"code": in_band, "message": "later"})
        assert isinstance(machine.receive_message(text, 1.0), ServerReportedError)
    closed = machine.receive_close(code)
    assert closed is not None
    return closed


def least_delays(action: Action, count: int) -> list[float | None]:
    """The shortest delays that chance can give, with a client's own numbers."""
    backoff = Backoff(lambda: 0.0)
    return [backoff.next_delay(action) for _ in range(count)]


def test_every_code_from_4100_to_4199_costs_a_second_at_least() -> None:
    for code in range(4100, 4200):
        for closed in (ended_with(code), ended_with(None, in_band=code)):
            assert (closed.action, closed.code) == (Action.BACK_OFF, code)
    assert least_delays(Action.BACK_OFF, 20) == [1.0] * 20


def test_every_code_from_4200_to_4299_costs_nothing_but_only_once() -> None:
    for code in range(4200, 4300):
        for closed in (ended_with(code), ended_with(None, in_band=code)):
            assert (closed.action, closed.code) == (Action.RECONNECT, code)
    assert least_delays(Action.RECONNECT, 20) == [0.0] + [1.0] * 19


@pytest.mark.parametrize("code", [4100, 4150, 4199])
async def test_a_server_that_wants_time_gets_a_second_and_more(code: int) -> None:
    # With a client's own delays, of which none is waited for.
    async with linked(min_delay=1.0, max_delay=30.0) as (client, dial, peer):
        channel = await join(client, dial, "news")
        seen = watch(client)
        for n in range(1, 6):
            await dial.close(code, "over capacity")
            await told(seen, n)
            assert 1.0 <= waits(seen)[-1].seconds <= min(30.0, 2.0**n)
            assert len(peer.dials) == n, "nothing before that"
            client.retry_now()
            dial = await back(peer, "news")
            await until(lambda: channel.is_subscribed)
        assert {error.code for error in errors(seen)} == {code}


@pytest.mark.parametrize("code", [4200, 4201, 4299])
async def test_a_server_that_says_at_once_is_believed_once(code: int) -> None:
    async with linked(min_delay=1.0, max_delay=30.0) as (client, dial, peer):
        channel = await join(client, dial, "news")
        seen = watch(client)
        await dial.close(code, "come back")
        dial = await back(peer, "news")  # nobody has hurried it
        await until(lambda: channel.is_subscribed)
        await dial.close(code, "come back")
        await told(seen, 2)
        assert waits(seen)[0].seconds == 0
        assert waits(seen)[1].seconds >= 1
        assert len(peer.dials) == 2


@pytest.mark.parametrize("code", [4301, 4302])
async def test_an_error_about_one_event_changes_nothing(code: int) -> None:
    async with linked(authorizer=Signer()) as (client, dial, peer):
        channel = await join(client, dial, "private-x")
        seen = watch(client)
        dial.error(code, "The client is not a member of the specified channel.")
        await hears(client, dial, "private-x")
        (error,) = errors(seen)
        assert isinstance(error, ServerReportedError)
        assert error.code == code
        assert "not a member of the specified channel" in str(error)
        assert states(seen) == []
        assert channel.is_subscribed
        assert channel.trigger("client-x", 1).status == "sent"
        # And a network that breaks after it is only a network.
        dial.abort()
        await back(peer, "private-x")
        await until(lambda: channel.is_subscribed)


# a server that accepts and closes for ever, TCP refused, TLS failure, black-hole (no SYN answer),
# HTTP 200/301/403/502 instead of an upgrade, garbage, half a handshake
# | attempts with full jitter and a cap, clear error each; never more than one dial a second on
#   average after the first ten


def test_the_jitter_is_full_and_the_delay_capped() -> None:
    drawn: list[list[float]] = [[] for _ in range(12)]
    for seed in range(2_000):
        backoff = Backoff(random.Random(seed).random)
        for delays in drawn:
            delay = backoff.next_delay(Action.BACK_OFF)
            assert delay is not None
            delays.append(delay)
    for attempt, delays in enumerate(drawn, start=1):
        ceiling = min(30.0, 2.0**attempt)
        spread = ceiling - 1.0
        assert 1.0 <= min(delays) < 1.0 + 0.01 * spread
        assert ceiling - 0.01 * spread < max(delays) <= ceiling
        middle = sum(delays) / len(delays)
        assert abs(middle - (1.0 + ceiling) / 2) < 0.05 * spread, "as likely here as there"


@pytest.mark.parametrize("action", [Action.BACK_OFF, Action.RECONNECT, None])
def test_no_server_is_dialled_more_than_once_a_second_after_the_first_ten(
    action: Action | None,
) -> None:
    # The server chooses what it says, and how long it lets a connection live, as it likes.
    for seed in range(300):
        dice = random.Random(seed)
        backoff = Backoff(dice.random)
        now, dialled = 0.0, [0.0]
        for _ in range(200):
            lasted = dice.choice([0.0, 0.0, 0.0, 0.5, 9.99, 10.0])
            backoff.connection_lasted(lasted)
            delay = backoff.next_delay(action or dice.choice([Action.BACK_OFF, Action.RECONNECT]))
            assert delay is not None
            now += lasted + delay
            dialled.append(now)
        late = dialled[10:]
        for first, last in itertools.combinations(range(0, len(late), 5), 2):
            assert (last - first) <= late[last] - late[first]
        assert all(tenth - first >= 5 for first, tenth in zip(dialled, dialled[10:], strict=False))


class Fault(NamedTuple):
    """A server that is none: what it does with each dial, and how the client must put it."""

    words: str
    script: Callable[[Dial], Awaitable[None]]
    code: int | None = None
    kind: type[ConnectionFailed] = Unreachable


async def hang_up(dial: Dial) -> None:
    pass


async def greet_and_close(dial: Dial) -> None:
    await dial.greet()
    await dial.close(1000)


async def greet_and_send_back(dial: Dial) -> None:
    await dial.greet()
    await dial.close(4200, "Please reconnect")


async def greet_and_break(dial: Dial) -> None:
    await dial.greet()
    dial.send_bytes(b"\xff" * 100)
    await dial.closed()


def answer(status: int) -> Callable[[Dial], Awaitable[None]]:
    async def script(dial: Dial) -> None:
        await dial.answer(status, "<html>", Location="https://127.0.0.1:1/")

    return script


def say(raw: bytes) -> Callable[[Dial], Awaitable[None]]:
    async def script(dial: Dial) -> None:
        dial.send_bytes(raw)
        await dial.end()

    return script


async def half_a_handshake_and_the_end(dial: Dial) -> None:
    dial.send_bytes((await dial.request())[:60])


async def half_a_handshake_and_silence(dial: Dial) -> None:
    dial.send_bytes((await dial.request())[:60])
    await dial.end()


async def silence(dial: Dial) -> None:
    await dial.end()


NO_ANSWER = "did not answer in 0.25 seconds: is a firewall in between?"

FAULTS: Final = {
    "hangs up": Fault("hung up instead of answering", hang_up),
    "greets and closes": Fault("was lost: ", greet_and_close, 1000, ConnectionLost),
    "greets and says 4200": Fault("Please reconnect", greet_and_send_back, 4200, ConnectionLost),
    "greets and breaks": Fault("was lost: ", greet_and_break, None, ConnectionLost),
    "200": Fault("answered 200 instead of a WebSocket: is it a Pusher server?", answer(200), 200),
    "301": Fault("answered 301 .*: it redirects; is the scheme https there?", answer(301), 301),
    "403": Fault("answered 403 .*: a proxy or firewall forbids it", answer(403), 403),
    "502": Fault("answered 502 .*: the proxy there has no server behind it", answer(502), 502),
    "garbage": Fault("is no WebSocket server", say(b"\xff" * 4_096 + b"\r\n\r\n")),
    "SSH": Fault("is no WebSocket server|did not answer", say(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")),
    "half a handshake": Fault("hung up instead of answering", half_a_handshake_and_the_end),
    "half, and silence": Fault(NO_ANSWER, half_a_handshake_and_silence),
    "silence": Fault(NO_ANSWER, silence),
}

DIALS: Final = 13


async def attempts(settings: Settings, words: str, **options: Any) -> list[ConnectionFailed]:
    """Let a client try for a while, with its delays in hundredths; the errors of its attempts."""
    least, most = 0.005, 0.04
    client = impatient(
        settings, **{"min_delay": least, "max_delay": most, "connect_timeout": 5, **options}
    )
    seen: list[tuple[float, Any]] = []
    client.observe(lambda observation: seen.append((time.monotonic(), observation)))
    connecting = await later(client.connect())
    try:
        await until(lambda: len(waits([o for _, o in seen])) == DIALS)
    finally:
        await soon(client.close())
        await asyncio.wait([connecting])
        connecting.exception()  # it may have stood for a moment
    told = [(at, o) for at, o in seen if isinstance(o, ConnectingIn)]
    assert [wait.attempt for _, wait in told] == list(range(2, DIALS + 2))
    for n, (_, wait) in enumerate(told, start=1):
        at_once = n == 1 and wait.seconds == 0
        assert at_once or least <= wait.seconds <= min(most, least * 2**n)
    assert len({wait.seconds for _, wait in told}) > DIALS // 2, "with jitter"
    for (at, wait), (following, _) in itertools.pairwise(told):
        assert following - at >= wait.seconds, "what was said is kept to"
    found = [o for _, o in seen if isinstance(o, ConnectionFailed)]
    assert len(found) == DIALS, "one clear error for each attempt"
    for error in found:
        assert re.search(words, str(error)), error
        assert f"127.0.0.1:{settings.port}" in str(error)
        assert "\n" not in str(error)
    kinds = {change.current for _, change in seen if isinstance(change, StateChange)}
    assert FAILED not in kinds
    assert client.state is DISCONNECTED
    return found


@pytest.mark.parametrize("name", FAULTS)
async def test_a_server_that_is_none_is_dialled_ever_less_and_each_time_it_is_told_why(
    name: str,
) -> None:
    fault = FAULTS[name]
    async with Peer(fault.script) as peer:
        timeout = 0.25 if "silence" in name else 5
        found = await attempts(peer.settings(), fault.words, connect_timeout=timeout)
        assert {type(error) for error in found} == {fault.kind}
        assert {error.code for error in found} == {fault.code}
        await until(lambda: len(peer.dials) == DIALS and not open_connections(peer))


async def test_a_port_that_refuses_is_dialled_ever_less() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        settings = Settings(app_key="k", port=taken.getsockname()[1], scheme="http")
        found = await attempts(settings, "Nothing listens on .*: is the server running there?")
    assert {type(error) for error in found} == {Unreachable}


@pytest.mark.parametrize(
    ("has_tls", "words"),
    [
        (True, r"The certificate of .* is not trusted: self.signed"),
        (False, "does not speak TLS .*: is the scheme http there?"),
    ],
)
async def test_a_tls_handshake_that_fails_is_dialled_ever_less(has_tls: bool, words: str) -> None:
    script = silence if has_tls else say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    async with Peer(script, tls=server_tls() if has_tls else None) as peer:
        found = await attempts(peer.settings(scheme="https"), words)
        assert {type(error) for error in found} == {Unreachable}
        if not has_tls:  # with it, asyncio tells the peer of no dial whose handshake failed
            await until(lambda: len(peer.dials) == DIALS)


@contextlib.contextmanager
def black_hole() -> Iterator[Settings]:
    """A port that answers no SYN: nobody accepts there, and its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(listener.getsockname())
        yield Settings(app_key="k", port=listener.getsockname()[1], scheme="http")


async def test_a_black_hole_is_dialled_ever_less() -> None:
    with black_hole() as settings:
        found = await attempts(settings, NO_ANSWER, connect_timeout=0.25)
    assert {type(error) for error in found} == {Unreachable}


@pytest.mark.parametrize("name", ["502", "silence", "greets and closes"])
async def test_what_failed_for_long_is_joined_as_soon_as_it_works(name: str) -> None:
    async def script(dial: Dial) -> None:
        await (FAULTS[name].script if dial.number <= 5 else polite)(dial)

    timeout = 1.5 if name == "silence" else 5
    async with Peer(script) as peer, failing(peer, connect_timeout=timeout) as (client, seen):
        channel = client.subscribe("news")
        await soon(client.connect())
        await soon(channel.subscribed())
        await until(lambda: channel.is_subscribed and len(peer.dials) == 6)
        assert len(errors(seen)) == 5
        assert open_connections(peer) == 1


# first frame is not `connection_established`, or never comes
# | time out, back off


@pytest.mark.parametrize(
    ("first", "words"),
    [
        ("garbage", "This is no Pusher server: "),
        ("", "This is no Pusher server: "),
        ("{}", "This is no Pusher server: "),
        ('{"event":"hello"}', "This is no Pusher server: its first word was 'hello'"),
        ('{"event":"pusher:ping"}', "its first word was 'pusher:ping'"),
        ('{"event":"pusher:connection_established"}', "This is no Pusher server: "),
        ('{"event":"pusher:connection_established","data":"{}"}', "The server gave no socket_id"),
        (None, "did not say pusher:connection_established in time"),
    ],
)
async def test_a_server_that_does_not_greet_is_left_and_dialled_again_after_a_while(
    first: str | None, words: str
) -> None:
    ends: list[Closed] = []

    async def script(dial: Dial) -> None:
        await dial.upgrade()
        if first is not None:
            dial.send_text(first)
        ends.append(await dial.closed())

    timeouts = {"connect_timeout": 1.0 if first is None else 5, "max_attempts": 4}
    async with Peer(script) as peer, failing(peer, **timeouts) as (client, seen):
        channel = client.subscribe("news")
        with pytest.raises(Unreachable, match=words) as caught:
            await soon(client.connect())
        assert f"127.0.0.1:{peer.port}" in str(caught.value)
        assert CONNECTED not in states(seen)
        assert channel.state is ChannelState.PENDING
        assert all(wait.seconds >= 0.01 for wait in waits(seen))
        assert len(peer.dials) == len(errors(seen)) == 4
        await until(lambda: not open_connections(peer))
        assert len(ends) == 4


# socket_id changes
# | all private and presence channels authorized anew with it


class KeySigner(Signer):
    """Signs every kind of channel, and says who the user is."""

    def __init__(self) -> None:
        super().__init__('{"user_id":"7"}')

    async def authorize(self, channel: str, socket_id: str) -> Authorization:
        answer = await super().authorize(channel, socket_id)
        return msgspec.structs.replace(answer, shared_secret=base64.b64encode(bytes(32)).decode())

    async def authenticate(self, socket_id: str) -> Authentication:
        return Authentication(f"k:user-{socket_id}", '{"id":"7"}')


async def test_every_signed_channel_is_signed_anew_for_each_socket_id() -> None:
    signer = KeySigner()
    signed = ["private-a", "presence-b", "private-encrypted-c", "presence-cache-d"]
    names = ["news", *signed]
    async with linked(authorizer=signer) as (client, dial, peer):
        channels = [await join(client, dial, name) for name in names]
        for count, socket_id in enumerate(["77.7", "88.8", "99.9"], start=2):
            signer.asked.clear()
            await dial.hang_up()
            dial = await peer.dial()
            await dial.greet(socket_id)
            heard = {data["channel"]: data for data in [await dial.subscribe() for _ in names]}
            await until(lambda: all(channel.is_subscribed for channel in channels))
            assert client.socket_id == socket_id
            assert signer.asked == [(name, socket_id) for name in signed]
            assert list(heard) == names
            assert "auth" not in heard["news"]
            for name in signed:
                assert heard[name]["auth"] == f"k:signed-{socket_id}-{name}"
            assert len(peer.dials) == count


async def test_the_user_is_signed_in_anew_with_it_too() -> None:
    async with linked(authorizer=KeySigner()) as (client, dial, peer):
        user = client.signin()
        for socket_id in ("1.1", "77.7", "88.8"):
            if socket_id != "1.1":
                await dial.hang_up()
                dial = await peer.dial()
                await dial.greet(socket_id)
            assert (await dial.event("pusher:signin"))["auth"] == f"k:user-{socket_id}"
            dial.send("pusher:signin_success", {"user_data": '{"id":"7"}'})
            await soon(user.signed_in())
            assert (await dial.subscribe())["channel"] == "#server-to-user-7"


async def test_a_signature_for_the_old_socket_id_is_never_sent() -> None:
    signer = Signer()
    async with linked(authorizer=signer) as (client, dial, peer):
        signer.free.clear()
        names = ["private-a", "private-b"]
        channels = [client.subscribe(name) for name in names]
        await until(lambda: signer.at_once == 2)
        await dial.hang_up()
        again = await peer.dial()
        await again.greet("77.7")
        await until(lambda: len(signer.asked) == 4)
        assert signer.at_once == 2, "the old questions are not waited for"
        signer.free.set()
        for name in names:
            assert await again.subscribe() == {"channel": name, "auth": f"k:signed-77.7-{name}"}
        await until(lambda: all(channel.is_subscribed for channel in channels))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await again.text()
        assert signer.at_once == 0


# auth endpoint: slow, 401, 403, 419, 500, empty 200, HTML, redirects, drops
# | as above, other channels unaffected


class AuthFault(NamedTuple):
    """An auth endpoint that does not sign: with what, how often it is asked, what that becomes."""

    answer: Callable[[Asked], Awaitable[web.StreamResponse]]
    asked: int
    kind: type[AuthorizationFailed]
    code: int | None
    words: str


def replies(status: int, body: str = "", **headers: str) -> Callable[..., Any]:
    async def reply(asked: Asked) -> web.StreamResponse:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, text=body, headers=fields)

    return reply


async def replies_never(asked: Asked) -> web.StreamResponse:
    while asked.raw.transport is not None:  # noqa: ASYNC110 - until the client hangs up
        await asyncio.sleep(0.01)
    return web.Response()


async def drops(asked: Asked) -> web.StreamResponse:
    assert asked.raw.transport is not None
    asked.raw.transport.abort()
    return web.Response()


AUTH_FAULTS: Final = {
    "slow": AuthFault(replies_never, 4, AuthTimeout, None, "did not answer in 1 seconds"),
    "401": AuthFault(replies(401), 1, Unauthorized, 401, "log in again"),
    "403": AuthFault(replies(403), 1, Forbidden, 403, "this user may not join it"),
    "419": AuthFault(replies(419), 1, SessionExpired, 419, "session or CSRF token is stale"),
    "500": AuthFault(replies(500), 4, AuthServerError, 500, "look into the backend's log"),
    "empty 200": AuthFault(replies(200), 1, EmptyAuthResponse, 200, "BROADCAST_CONNECTION"),
    "HTML": AuthFault(
        replies(200, "<html>Log in</html>"), 1, MalformedAuthResponse, 200, "like a web page"
    ),
    "redirects": AuthFault(
        replies(302, Location="/login"), 1, AuthServerError, 302, "usually to a login page"
    ),
    "drops": AuthFault(drops, 4, AuthServerError, None, "hung up instead of answering"),
}


@pytest.mark.parametrize("name", AUTH_FAULTS)
async def test_an_auth_endpoint_that_fails_fails_its_channel_and_no_other(name: str) -> None:
    fault = AUTH_FAULTS[name]
    is_well = False

    async def sign(asked: Asked) -> web.StreamResponse:
        if asked.form["channel_name"] == "private-bad" and not is_well:
            return await fault.answer(asked)
        return web.Response(text=SIGNED)

    async with Endpoint() as endpoint:
        endpoint.answers_with(sign)
        # Slow to try again by itself: each attempt is to be seen alone.
        timeout = 1.0 if name == "slow" else 5.0
        authorizer = HttpAuthorizer(endpoint.url, timeout=timeout, min_delay=0.001, max_delay=0.002)
        async with linked(authorizer=authorizer, min_delay=1.0, max_delay=1.0) as (
            client,
            dial,
            peer,
        ):
            before = await join(client, dial, "private-before")
            endpoint.asked.clear()
            seen = watch(client)
            others = ["news", "private-after", "private-later"]
            bad, *good = [client.subscribe(name) for name in ("private-bad", *others)]
            waiting = await later(bad.subscribed())
            joined = {(await dial.subscribe())["channel"] for _ in others}
            assert joined == set(others)
            for channel in (before, *good):
                await soon(channel.subscribed())
            with pytest.raises(fault.kind) as caught:
                await soon(waiting)
            assert type(caught.value) is fault.kind
            assert (caught.value.channel, caught.value.code) == ("private-bad", fault.code)
            assert endpoint.url in str(caught.value)
            assert "private-bad" in str(caught.value)
            assert fault.words in str(caught.value)
            assert [str(error) for error in errors(seen)] == [str(caught.value)]
            asked = [a for a in endpoint.asked if a.form.get("channel_name") == "private-bad"]
            assert len(asked) == fault.asked
            assert {a.path for a in endpoint.asked} == {"/broadcasting/auth"}, "nothing followed"
            await hears(client, dial, "private-before")
            assert states(seen) == []
            # It is tried again: by itself where that may help, else at the next connection.
            is_well = True
            if caught.value.temporary:
                assert (await dial.subscribe())["channel"] == "private-bad"
            else:
                await dial.hang_up()
                dial = await back(peer, "news", "private-before", "private-bad", *others[1:])
            await soon(bad.subscribed())
            await until(lambda: all(channel.is_subscribed for channel in (before, *good)))


# 1 000 channels on reconnect
# | all back, ≤ 16 auth requests at once, order of subscribes kept


async def test_a_thousand_channels_come_back_in_their_order_sixteen_requests_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # All of it takes longer than one channel is waited for; none of them does.
    monkeypatch.setattr(subscriptions, "ORDER_PATIENCE", 3.0)
    dice = random.Random(4)
    delay = 0.0

    async def sign(asked: Asked) -> web.StreamResponse:
        await asyncio.sleep(dice.uniform(0, delay))
        data = '{"user_id":"7"}' if asked.form["channel_name"].startswith("presence-") else None
        return web.json_response({"auth": f"k:{asked.form['socket_id']}", "channel_data": data})

    heard: list[list[dict[str, Any]]] = []

    async def script(dial: Dial) -> None:
        heard.append([])
        await dial.greet()
        with contextlib.suppress(Closed):
            while True:
                heard[-1].append(await dial.subscribe())
        dial.send_close(1000)

    names = [f"{kind}-{n}" for n in range(500) for kind in ("private", "presence")]
    async with Endpoint() as endpoint, Peer(script, timeout=60) as peer:
        endpoint.answers_with(sign)
        settings = msgspec.structs.replace(peer.settings(), auth_endpoint=endpoint.url)
        async with impatient(settings) as client:
            channels = [client.subscribe(name) for name in names]
            assert [client.subscribe("news").name] == ["news"]
            async with asyncio.timeout(60):
                await asyncio.gather(*(channel.subscribed() for channel in channels))
            endpoint.asked.clear()
            endpoint.most_at_once = 0
            delay = 0.12
            with client.reconnections() as reconnections:
                seen = watch(client)
                await peer.dials[0].hang_up()
                async with asyncio.timeout(60):
                    reconnected = await anext(reconnections)
            assert set(reconnected.channels) == {*names, "news"}
            assert reconnected.failed == ()
            assert all(channel.is_subscribed for channel in channels)
            assert [data["channel"] for data in heard[1]] == ["news", *names]
            assert {data["auth"] for data in heard[1][1:]} == {"k:2.1"}
            assert len(endpoint.asked) == 1_000
            assert endpoint.most_at_once == 16
            assert [type(error) for error in errors(seen)] == [ConnectionLost]
            assert sum(isinstance(o, Subscribed) for o in seen) == 1_001
            assert client._host.tasks == set()
            assert len(peer.dials) == 2


# a burst of 200 000 events into a slow async handler
# | memory bounded, order kept, policy obeyed, pings still answered

BURST: Final = 200_000
LIMIT: Final = 500
ONE_READ: Final = 2 * transport.RECEIVE_BUFFER // 40
"""Events that one read may bring, at the most: Linux keeps twice the bytes it is asked to keep."""


def burst() -> tuple[bytes, bytes]:
    """All of it: the first event, and the others."""
    made = []
    for n in range(BURST):
        text = b'{"event":"e","channel":"news","data":"%d"}' % n
        made.append(b"\x81%c%b" % (len(text), text))
    return made[0], b"".join(made[1:])


class Slow:
    """An asynchronous handler that is stuck until it is let go, and yields at every event then."""

    def __init__(self, client: Client) -> None:
        self.handled: list[int] = []
        self.arrived = 0
        self.most_waiting = 0
        self.busy = asyncio.Event()
        self.free = asyncio.Event()
        self._client = client

    def bind(self, channel: Channel, policy: Policy) -> None:
        channel.bind("e", self.handle, limit=LIMIT, policy=policy)
        channel.bind("e", self.arrive)

    async def handle(self, event: Event) -> None:
        self.busy.set()
        await self.free.wait()
        self.handled.append(event.data)
        await asyncio.sleep(0)

    def arrive(self, _: Event) -> None:
        self.arrived += 1
        if not self.arrived % 10:
            self.most_waiting = max(self.most_waiting, self._client.stats.lag)


@contextlib.asynccontextmanager
async def flooded(policy: Policy, **options: Any) -> AsyncIterator[tuple[Client, Dial, Peer, Slow]]:
    first, rest = burst()
    async with linked(history=10, **options) as (client, dial, peer):
        dial.squeeze()
        channel = await join(client, dial, "news")
        slow = Slow(client)
        slow.bind(channel, policy)
        dial.send_bytes(first)
        await soon(slow.busy.wait())
        dial.send_bytes(rest)
        yield client, dial, peer, slow
        assert client.state is CONNECTED
        assert len(peer.dials) == 1
        assert len(client.history) <= 10


async def test_a_burst_that_pauses_waits_at_the_server_and_arrives_in_order() -> None:
    timeouts = {"activity_timeout": 0.1, "pong_timeout": 4.0}
    async with flooded("pause", **timeouts) as (client, dial, _, slow):
        await until(lambda: not client._host.valve.is_open)
        arrived = slow.arrived
        # The server's pings lie unread behind the events. It hears all the same that this end
        # lives, again and again, and this end does not take what it does not read for silence.
        began = time.monotonic()
        while time.monotonic() - began < 4.4:
            assert await dial.event("pusher:ping") == {}
        assert slow.arrived == arrived, "nothing was read meanwhile"
        assert slow.handled == []
        assert dial.unsent > BURST * 20, "most of it is still at the server"
        assert LIMIT <= arrived <= LIMIT + ONE_READ
        slow.free.set()
        dial.send_frame(PING, b"at last")
        async with asyncio.timeout(120):
            while (await dial.frame()) != (PONG, b"at last"):
                pass
            await until_slowly(lambda: len(slow.handled) == BURST)
        assert slow.handled == list(range(BURST))
        assert slow.most_waiting <= LIMIT + ONE_READ
        assert client.stats.dropped == 0
        assert client.stats.paused > 2
        assert client.stats.lag == 0
        assert client._host.valve.is_open


async def until_slowly(condition: Callable[[], bool]) -> None:
    """Like `until`, for what may take longer than it."""
    while not condition():  # noqa: ASYNC110 - nothing sets an event
        await asyncio.sleep(0.01)


async def answered(dial: Dial) -> None:
    """Ping in both ways, and wait until both are answered."""
    dial.send("pusher:ping", {})
    dial.send_frame(PING, b"now")
    async with asyncio.timeout(120):
        assert (await dial._read_frame()).payload == b'{"event":"pusher:pong","data":{}}'
        assert await dial._read_frame() == (PONG, b"now")


async def test_a_burst_of_which_the_oldest_are_dropped_is_read_on_and_leaves_the_newest() -> None:
    async with flooded("drop_oldest") as (client, dial, _, slow):
        await answered(dial)  # after all the events, and though the handler is stuck
        assert slow.arrived == BURST
        assert slow.handled == []
        assert client._host.valve.is_open
        assert slow.most_waiting <= LIMIT
        assert client.stats.lag == LIMIT
        slow.free.set()
        await until(lambda: client.stats.lag == 0 and slow.handled[-1:] == [BURST - 1])
        first, *newest = slow.handled
        assert first == 0, "it had been taken before"
        assert newest == list(range(BURST - LIMIT, BURST))
        assert client.stats.dropped == BURST - 1 - LIMIT
        assert client.stats.paused == 0


async def test_a_burst_that_is_an_error_is_told_once_and_what_comes_after_it_arrives() -> None:
    async with flooded("error") as (client, dial, _, slow):
        seen = watch(client)
        await answered(dial)
        assert slow.arrived == BURST
        assert client._host.valve.is_open
        assert slow.most_waiting <= LIMIT
        slow.free.set()
        await until(lambda: errors(seen))
        assert slow.handled == list(range(LIMIT + 1))
        (error,) = errors(seen)
        assert isinstance(error, QueueOverflow)
        lost = BURST - LIMIT - 1
        assert str(error).startswith(f"{lost} events were lost")
        assert client.stats.dropped == lost
        assert client.stats.paused == 0
        dial.send("e", BURST, "news")
        await until(lambda: slow.handled[-1] == BURST)


# clock jump, laptop sleep (no data for an hour, then data)
# | detected as dead, reconnect


class Clock:
    """The clock that goes on while the machine sleeps."""

    def __init__(self) -> None:
        self.slept = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.slept


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (client_module, connection_module, transport):
        monkeypatch.setattr(module, "monotonic", clock)
    return clock


@pytest.mark.parametrize("first", ["an event", "a ping", "an error", "the timer"])
@pytest.mark.parametrize("start", [0.0, 1e9])
def test_a_machine_that_slept_for_an_hour_takes_its_connection_for_dead(
    start: float, first: str
) -> None:
    machine = open_machine(start)
    machine.receive_message(event_text("e", 1, "news"), start + 100.0)
    text = {
        "an event": event_text("e", 2, "news"),
        "a ping": event_text("pusher:ping", {}),
        "an error": event_text("pusher:error", {"code": 4301, "message": "no"}),
    }.get(first)
    now = start + 3_700.0
    closed = machine.handle_timer(now) if text is None else machine.receive_message(text, now)
    assert isinstance(closed, Ended)
    assert (closed.action, closed.code) == (Action.RECONNECT, 4201)
    assert closed.reason == "The server was silent for 3600 seconds."
    assert machine.next_timer() is None
    assert machine.receive_message(event_text("e", 3, "news"), now) is None
    assert machine.data_to_send() == []


def test_a_nap_is_no_death() -> None:
    machine = open_machine(0.0)
    event = machine.receive_message(event_text("e", 1, "news"), 149.0)
    assert isinstance(event, Event)
    assert machine.handle_timer(298.0) is None
    assert machine.data_to_send() == [b'{"event":"pusher:ping","data":{}}']


@pytest.mark.parametrize("first", ["data", "a burst of data", "nothing"])
async def test_a_client_whose_machine_slept_for_an_hour_connects_again_at_once(
    clock: Clock, first: Literal["data", "a burst of data", "nothing"]
) -> None:
    # The timer is the only one to notice where nothing comes; else data comes before it.
    options = {"activity_timeout": 0.1, "pong_timeout": 30} if first == "nothing" else {}
    async with linked(authorizer=Signer(), min_delay=5, **options) as (client, dial, peer):
        channels = [await join(client, dial, name) for name in ("news", "private-x")]
        seen = watch(client)
        clock.slept = 3_600.0
        if first != "nothing":
            dial.send_bytes(frames(*range(1 if first == "data" else 100)))
        again = await back(peer, "news", "private-x")
        await until(lambda: all(channel.is_subscribed for channel in channels))
        (error,) = errors(seen)
        assert isinstance(error, ConnectionLost)
        assert error.code == 4201
        assert re.search(r"The server was silent for 36\d\d seconds", str(error))
        assert [wait.seconds for wait in waits(seen)] == [0]
        await dial.end()
        await hears(client, again, "news")
        assert len(peer.dials) == 2


async def test_a_client_that_was_paused_for_long_is_not_taken_for_one_that_slept(
    clock: Clock,
) -> None:
    # Longer than silence may last, step by step: the machine was awake all the time.
    async with linked(activity_timeout=10, pong_timeout=10) as (client, dial, peer):
        channel = await join(client, dial, "news")
        slow = Slow(client)
        slow.bind(channel, "pause")
        count = 20_000
        dial.squeeze()
        dial.send_bytes(frames(*range(count)))
        await until(lambda: not client._host.valve.is_open)
        for _ in range(6):
            clock.slept += 9
            connection = client._connection
            assert connection is not None
            connection._tick()
        slow.free.set()
        await until(lambda: len(slow.handled) == count)
        assert slow.handled == list(range(count))
        assert len(peer.dials) == 1


async def test_a_wall_clock_that_jumps_is_nobodys_business(monkeypatch: pytest.MonkeyPatch) -> None:
    async with linked(activity_timeout=0.05, pong_timeout=30) as (client, dial, peer):
        await join(client, dial, "news")
        real = time.time
        for jump in (86_400.0, -86_400.0):
            monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
            await dial.event("pusher:ping")
            dial.send("pusher:pong", {})
            await hears(client, dial, "news")
        assert len(peer.dials) == 1


# frames split at every byte, 1 MB frame, 10 000 frames in one read
# | same events


async def turn() -> None:
    """Let the client read what has been sent."""
    for _ in range(3):
        await asyncio.sleep(0)


SMALL: Final = [{"n": 1, "text": "äöü🎵"}, "x" * 130, None, [1, 2]]


async def test_frames_in_two_pieces_split_at_every_byte_give_the_same_events() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        got: list[Any] = []
        channel.bind("e", lambda event: got.append(event.data))
        raw = frames(*SMALL)
        for cut in range(1, len(raw)):
            dial.send_bytes(raw[:cut])
            await turn()
            dial.send_bytes(raw[cut:])
            await turn()
        await until(lambda: len(got) == len(SMALL) * (len(raw) - 1))
        assert got == SMALL * (len(raw) - 1)


async def test_frames_that_come_byte_by_byte_give_the_same_events() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        got: list[Any] = []
        channel.bind("e", lambda event: got.append(event.data))
        for byte in frames(*SMALL):
            dial.send_bytes(bytes([byte]))
            await turn()
        await until(lambda: len(got) == len(SMALL))
        assert got == SMALL


async def test_a_handshake_split_at_every_byte_is_the_same_handshake() -> None:
    cut, total = 1, 2
    hello = {"socket_id": "1.1", "activity_timeout": 120}
    greeting = event_text("pusher:connection_established", hello).encode()

    async def script(dial: Dial) -> None:
        nonlocal total
        raw = await dial.request() + frame_bytes(TEXT, greeting, masked=False) + frames("first")
        total = len(raw)
        dial.send_bytes(raw[:cut])
        await turn()
        dial.send_bytes(raw[cut:])
        await dial.closed()
        dial.send_close(1000)

    async with Peer(script) as peer:
        while cut < total:
            async with failing(peer) as (client, seen):
                await soon(client.connect())
                await until(partial(len, client.history))
                assert [event.data for event in client.history] == ["first"]
                assert errors(seen) == []
            cut += 1
        assert len(peer.dials) == total - 1


@pytest.mark.parametrize("way", ["whole", "in pieces", "in fragments", "in fragments and pings"])
async def test_a_frame_of_a_megabyte_gives_one_event(way: str) -> None:
    async with linked() as (client, dial, peer):
        await join(client, dial, "news")
        text = event_text("e", "ä" * 500_000, "news").encode()
        parts = [text[at : at + 9_999] for at in range(0, len(text), 9_999)]
        match way:
            case "whole":
                dial.send_frame(TEXT, text)
            case "in pieces":
                raw = frame_bytes(TEXT, text, masked=False)
                for at in range(0, len(raw), 99_999):
                    dial.send_bytes(raw[at : at + 99_999])
                    await turn()
            case _:
                for n, part in enumerate(parts):
                    opcode = CONTINUATION if n else TEXT
                    dial.send_frame(opcode, part, fin=n == len(parts) - 1)
                    if "pings" in way and n < len(parts) - 1:
                        dial.send_frame(PING, b"%d" % n)
        await until(lambda: client.history and client.history[-1].name == "e")
        assert client.history[-1].data == "ä" * 500_000
        if "pings" in way:
            pongs = [await dial.frame() for _ in parts[1:]]
            assert pongs == [(PONG, b"%d" % n) for n in range(len(parts) - 1)]
        await hears(client, dial, "news")
        assert len(peer.dials) == 1


@pytest.mark.parametrize("size", [0, 200])
async def test_ten_thousand_frames_in_one_read_give_ten_thousand_events(size: int) -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        got: list[Any] = []
        channel.bind("e", lambda event: got.append(event.data))
        sent = [f"{n}{'x' * size}" if size else n for n in range(10_000)]
        dial.send_bytes(frames(*sent))
        await until(lambda: len(got) == 10_000)
        assert got == sent


# cancellation of any awaited call at any await point
# | no leak, next call works


async def cancelled_after(turns: int, work: Coroutine[Any, Any, Any]) -> bool:
    """Cancel a call after so many turns of the loop; whether it had ended by itself before."""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        if task.done():
            break
        await asyncio.sleep(0)
    has_ended = task.done()
    task.cancel()
    await asyncio.wait([task], timeout=TIMEOUT)
    assert has_ended or task.cancelled(), "neither ended nor cancelled"
    if has_ended:
        task.result()
    return has_ended


MOST_TURNS: Final = 2_000


async def at_every_turn(attempt: Callable[[int], Awaitable[bool]]) -> int:
    """Cancel after 0 turns, after 1, and so on, until the call ends first."""
    for turns in range(MOST_TURNS):
        if await attempt(turns):
            assert turns > 0, "it has to wait at least once"
            return turns
    raise AssertionError(f"It has not ended in {MOST_TURNS} turns.")


async def hospitable(dial: Dial) -> None:
    """Like `polite`; it also takes sign-ins, and says `e` on a channel once it is joined."""
    await dial.greet()
    try:
        while True:
            message = await dial.message()
            data = message["data"]
            match message["event"]:
                case "pusher:subscribe":
                    dial.accept(data["channel"])
                    dial.send("e", 0, data["channel"])
                case "pusher:signin":
                    dial.send("pusher:signin_success", {"user_data": data["user_data"]})
    except Closed:
        dial.send_close(1000)


class Held(NamedTuple):
    """All that a client keeps going."""

    tasks: set[str]
    timers: list[str]
    connections: int
    waiting: int
    reads: bool


def held(client: Client, peer: Peer) -> Held:
    sources = [client, *client.channels.values(), *([client.user] if client.user else [])]
    waiting = sum(
        len(source._waiters) + len(getattr(source, "_answers", ())) + len(source._bindings._bound)
        for source in sources
    )
    return Held(tasks(), timers(), open_connections(peer), waiting, client._host.valve.is_open)


async def comes_to(client: Client, peer: Peer, expected: Held) -> None:
    """Nothing but what is expected is left, as soon as what was cancelled has ended."""
    with contextlib.suppress(TimeoutError):
        await until(lambda: held(client, peer) == expected)
    assert held(client, peer) == expected


IDLE: Final = Held(set(), [], 0, 0, True)
"""A client that is closed."""

STANDING: Final = Held({"antiphon client"}, ["Connection._tick"], 1, 0, True)
"""A client that is connected, and of which nobody wants anything."""


@contextlib.asynccontextmanager
async def hosted(**options: Any) -> AsyncIterator[tuple[Client, Peer]]:
    """A connected client, and a peer that is good to it."""
    async with Peer(hospitable, timeout=60) as peer:
        async with impatient(peer.settings(), **{"authorizer": KeySigner(), **options}) as client:
            await comes_to(client, peer, STANDING)
            yield client, peer
        await comes_to(client, peer, IDLE)


async def test_connect_may_be_cancelled_at_any_turn() -> None:
    async with Peer(hospitable, timeout=60) as peer:

        async def attempt(turns: int) -> bool:
            before = len(peer.dials)
            client = impatient(peer.settings())
            has_ended = await cancelled_after(turns, client.connect())
            await soon(client.connect())
            await comes_to(client, peer, STANDING)
            channel = client.subscribe("news")
            await soon(channel.subscribed())
            await soon(client.close())
            await comes_to(client, peer, IDLE)
            assert len(peer.dials) == before + 1
            return has_ended

        await at_every_turn(attempt)


@pytest.mark.parametrize("following", ["close", "disconnect"])
async def test_connect_may_be_cancelled_at_any_turn_and_given_up(following: str) -> None:
    async with Peer(hospitable, timeout=60) as peer:

        async def attempt(turns: int) -> bool:
            client = impatient(peer.settings())
            has_ended = await cancelled_after(turns, client.connect())
            await soon(getattr(client, following)())
            await comes_to(client, peer, IDLE)
            await soon(client.connect())
            await comes_to(client, peer, STANDING)
            await soon(client.close())
            await comes_to(client, peer, IDLE)
            return has_ended

        await at_every_turn(attempt)


async def test_an_upgrade_that_comes_just_as_the_dial_is_given_up_means_nothing() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings())
        connecting = await later(client.connect())
        dial = await peer.dial()
        agreed = await dial.request()
        leaving = await later(client.disconnect())
        dial.send_bytes(agreed)
        dial.establish()
        await soon(leaving)
        with pytest.raises(ClientClosed):
            await soon(connecting)
        await dial.end()
        assert client.state is DISCONNECTED
        assert timers() == []


async def test_disconnect_may_be_cancelled_at_any_turn() -> None:
    async with hosted() as (client, peer):
        channel = client.subscribe("private-x")
        await soon(channel.subscribed())

        async def attempt(turns: int) -> bool:
            has_ended = await cancelled_after(turns, client.disconnect())
            await soon(client.disconnect() if turns % 2 else client.connect())
            await soon(client.connect())
            await soon(channel.subscribed())
            await comes_to(client, peer, STANDING)
            return has_ended

        await at_every_turn(attempt)


async def busy(client: Client) -> Channel:
    """Give a client all that it has to let go of: handlers, a sign-in, somebody who waits."""

    async def stuck(_: Event) -> None:
        await asyncio.Event().wait()

    channel = client.subscribe("private-x")
    channel.bind("e", stuck)
    client.bind("e", stuck)
    client.signin()
    await soon(channel.subscribed())
    await until(lambda: len(client._host.tasks) == 2)
    return channel


@pytest.mark.parametrize("following", ["close", "connect"])
async def test_close_may_be_cancelled_at_any_turn_and_lets_go_all_the_same(following: str) -> None:
    async with Peer(hospitable, timeout=60) as peer:

        async def attempt(turns: int) -> bool:
            signer = KeySigner()
            client = impatient(peer.settings(), authorizer=signer)
            await soon(client.connect())
            await busy(client)
            has_ended = await cancelled_after(turns, client.close())
            if turns:  # else it has not even begun
                await comes_to(client, peer, IDLE)
                assert signer.is_closed
                assert client.state is DISCONNECTED
            if following == "connect":
                await soon(client.connect())
                channel = client.subscribe("private-y")
                await soon(channel.subscribed())
            await soon(client.close())
            await comes_to(client, peer, IDLE)
            return has_ended

        await at_every_turn(attempt)


@pytest.mark.parametrize("whose", ["client", "authorizer"])
async def test_close_may_be_cancelled_while_the_authorizer_is_at_work(whose: str) -> None:
    async with Endpoint() as endpoint, Peer(hospitable, timeout=60) as peer:
        endpoint.answers_with(Backend.answer)

        async def attempt(turns: int) -> bool:
            authorizer = HttpAuthorizer(endpoint.url)
            client = impatient(peer.settings(), authorizer=authorizer)
            await soon(client.connect())
            await soon(client.subscribe("private-x").subscribed())  # one request is pooled
            client.subscribe("private-y")  # and one is under way
            await asyncio.sleep(0)
            closing = client.close() if whose == "client" else authorizer.close()
            has_ended = await cancelled_after(turns, closing)
            if turns and whose == "client":
                await comes_to(client, peer, IDLE)
                await until(lambda: not pooled(endpoint))
            await soon(authorizer.close())
            assert (await soon(authorizer.authorize("private-z", "1.1"))).auth == "k:sig"
            await soon(client.close())
            await soon(authorizer.close())
            await comes_to(client, peer, IDLE)
            await until(lambda: not pooled(endpoint))
            return has_ended

        await at_every_turn(attempt)


async def test_wait_closed_may_be_cancelled_at_any_turn() -> None:
    async with hosted() as (client, peer):

        async def attempt(turns: int) -> bool:
            disconnecting = await later(client.disconnect()) if turns > 20 else None
            has_ended = await cancelled_after(turns, client.wait_closed())
            if disconnecting is not None:
                await soon(disconnecting)
            await soon(client.connect())
            await comes_to(client, peer, STANDING)
            return has_ended

        await at_every_turn(attempt)


@pytest.mark.parametrize("kind", ["public", "private", "presence"])
async def test_waiting_to_be_subscribed_may_be_cancelled_at_any_turn(kind: str) -> None:
    async with hosted() as (client, peer):

        async def attempt(turns: int) -> bool:
            channel = client.subscribe(f"{kind}-{turns}")
            has_ended = await cancelled_after(turns, channel.subscribed())
            await soon(channel.subscribed())
            await comes_to(client, peer, STANDING)
            await hears(client, peer.dials[-1], channel.name)
            channel.unsubscribe()
            return has_ended

        await at_every_turn(attempt)


async def test_waiting_for_an_event_may_be_cancelled_at_any_turn() -> None:
    async with hosted() as (client, peer):
        channel = client.subscribe("news")
        await soon(channel.subscribed())
        for source in (channel, client):

            async def attempt(turns: int, source: Any = source) -> bool:
                peer.dials[-1].send("e", turns, "news")
                has_ended = await cancelled_after(turns, source.wait_for("e", timeout=TIMEOUT))
                await comes_to(client, peer, STANDING)
                await hears(client, peer.dials[-1], "news")
                await comes_to(client, peer, STANDING)
                return has_ended

            await at_every_turn(attempt)


async def test_waiting_to_be_signed_in_may_be_cancelled_at_any_turn() -> None:
    async with Peer(hospitable, timeout=60) as peer:

        async def attempt(turns: int) -> bool:
            async with impatient(peer.settings(), authorizer=KeySigner()) as client:
                user = client.signin()
                has_ended = await cancelled_after(turns, user.signed_in())
                await soon(client.signin().signed_in())
                assert user.id == "7"
                await comes_to(client, peer, STANDING)
            await comes_to(client, peer, IDLE)
            return has_ended

        await at_every_turn(attempt)


async def test_reading_a_stream_may_be_cancelled_at_any_turn_and_no_event_is_lost() -> None:
    async with hosted() as (client, peer):
        channel = client.subscribe("news")
        await soon(channel.subscribed())
        got: list[int] = []
        with channel.stream("n") as stream:

            async def take() -> None:
                got.append((await anext(stream)).data)

            async def attempt(turns: int) -> bool:
                peer.dials[-1].send("n", turns, "news")
                has_ended = await cancelled_after(turns, take())
                while len(got) <= turns:
                    await soon(take())
                return has_ended

            turns = await at_every_turn(attempt)
        assert got == list(range(turns + 1))
        await comes_to(client, peer, STANDING)


class Backend:
    """An endpoint that signs after a moment, and takes events."""

    @staticmethod
    async def answer(asked: Asked) -> web.StreamResponse:
        await asyncio.sleep(0.001)
        return web.Response(text=SIGNED if "auth" in asked.path.partition("?")[0] else "{}")


@pytest.mark.parametrize("through", ["unsubscribe", "disconnect", "authorize"])
async def test_an_authorization_may_be_cancelled_at_any_turn(through: str) -> None:
    async with Endpoint() as endpoint:
        endpoint.answers_with(Backend.answer)
        authorizer = HttpAuthorizer(endpoint.url)
        async with hosted(authorizer=authorizer) as (client, peer):

            async def attempt(turns: int) -> bool:
                if through == "authorize":
                    asking = authorizer.authorize("private-x", "1.1")
                    has_ended = await cancelled_after(turns, asking)
                    await comes_to(client, peer, STANDING)
                    answer = await soon(authorizer.authorize("private-x", "1.1"))
                    assert answer.auth == "k:sig"
                    return has_ended
                channel = client.subscribe(f"private-{turns}")
                for _ in range(turns):
                    await asyncio.sleep(0)
                has_ended = channel.is_subscribed
                if through == "unsubscribe":
                    channel.unsubscribe()
                    await comes_to(client, peer, STANDING)
                    channel = client.subscribe(channel.name)
                else:
                    await soon(client.disconnect())
                    await comes_to(client, peer, Held(set(), [], 0, 0, True))
                    await soon(client.connect())
                await soon(channel.subscribed())
                await comes_to(client, peer, STANDING)
                channel.unsubscribe()
                return has_ended

            await at_every_turn(attempt)


async def test_an_authorizer_whose_own_work_is_cancelled_fails_that_channel_only() -> None:
    class Cancelling(KeySigner):
        async def authorize(self, channel: str, socket_id: str) -> Authorization:
            if not self.asked:
                self.asked.append((channel, socket_id))
                work = asyncio.ensure_future(asyncio.Event().wait())
                asyncio.get_running_loop().call_soon(work.cancel)
                await work
            return await super().authorize(channel, socket_id)

    async with hosted(authorizer=Cancelling()) as (client, peer):
        first, second = client.subscribe("private-a"), client.subscribe("private-b")
        await soon(second.subscribed())
        with pytest.raises(AuthServerError, match="failed for private-a with CancelledError"):
            await soon(first.subscribed())
        await until(lambda: first.is_subscribed)  # it is tried again
        await comes_to(client, peer, STANDING)


async def test_publishing_may_be_cancelled_at_any_turn() -> None:
    async with Endpoint() as endpoint:
        endpoint.answers_with(Backend.answer)
        port = int(endpoint.url.split(":")[2].split("/")[0])
        settings = Settings(app_id="1", app_key="k", app_secret="s", port=port, scheme="http")
        async with Publisher(settings) as publisher:

            async def attempt(turns: int) -> bool:
                has_ended = await cancelled_after(turns, publisher.trigger("news", "e", turns))
                endpoint.asked.clear()
                assert await soon(publisher.trigger("news", "next", turns)) == {}
                assert json.loads(endpoint.asked[-1].body)["name"] == "next"
                assert tasks() == set()
                return has_ended

            await at_every_turn(attempt)


async def test_a_program_within_a_client_may_be_cancelled_at_any_turn() -> None:
    async with Peer(hospitable, timeout=60) as peer:

        async def attempt(turns: int) -> bool:
            signer = KeySigner()
            client = impatient(peer.settings(), authorizer=signer)

            async def program() -> None:
                async with client:
                    await busy(client)

            has_ended = await cancelled_after(turns, program())
            if turns:  # else it has not even begun
                await comes_to(client, peer, IDLE)
                assert signer.is_closed
                assert client.channels == {}
            async with impatient(peer.settings()) as another:
                await soon(another.subscribe("news").subscribed())
            return has_ended

        await at_every_turn(attempt)
