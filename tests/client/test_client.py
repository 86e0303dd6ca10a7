"""The client: against the real server, and against peers that misbehave in every way known."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from aiohttp import web

from antiphon.client import (
    Channel,
    ChannelState,
    Client,
    ConnectingIn,
    ConnectionState,
    PresenceChannel,
    SecretAuthorizer,
    StateChange,
    Subscribed,
    transport,
)
from antiphon.client import client as client_module
from antiphon.client import connection as connection_module
from antiphon.errors import (
    AntiphonError,
    ClientClosed,
    ConnectionFailed,
    ConnectionLost,
    Forbidden,
    HandlerFailed,
    MalformedFrame,
    PayloadInvalid,
    Refused,
    ServerReportedError,
    SubscriptionFailed,
    Unreachable,
)
from antiphon.protocol.frames import Event
from antiphon.protocol.presence import Member
from antiphon.protocol.signing import channel_auth
from antiphon.publisher import Publisher
from antiphon.server import Server
from antiphon.settings import App, Settings
from tests.conftest import Serve
from tests.server.wire import TEXT, TIMEOUT, Closed, frame_bytes, until

from .endpoint import Asked, Endpoint
from .linked import Signer, impatient, join, linked, meet, soon, states, watch
from .peer import Dial, Peer, event_text, polite, server_tls, trusting_tls
from .test_transport import transport_timers

pytestmark = pytest.mark.asyncio(loop_scope="module")

INITIALIZED, CONNECTING, CONNECTED, UNAVAILABLE, FAILED, DISCONNECTED = ConnectionState

MakeClient = Callable[..., Awaitable[Client]]


class Message(msgspec.Struct):
    id: int
    text: str = ""


@dataclass
class Typing:
    user: str


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def nothing_is_left() -> AsyncIterator[None]:
    """After every test, no client's task runs any more: each has an owner that ended it."""
    before = asyncio.all_tasks()
    yield
    left = {
        task
        for task in asyncio.all_tasks() - before
        if task.get_name().startswith("antiphon") and task.get_name() != "antiphon http"
    }
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left)
    assert {task.get_name() for task in left} == set()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def publisher(server: Server) -> AsyncIterator[Publisher]:
    async with Publisher(server.settings()) as publisher:
        yield publisher


@pytest_asyncio.fixture(loop_scope="module")
async def connected(server: Server) -> AsyncIterator[MakeClient]:
    """Connects clients that sign for themselves; closes them when the test ends."""
    async with contextlib.AsyncExitStack() as stack:

        async def connect(
            user_id: str = "7", info: Any = None, to: Server = server, **options: Any
        ) -> Client:
            settings = to.settings()
            signer = SecretAuthorizer(settings, user_id=user_id, user_info=info)
            client = impatient(settings, **{"authorizer": signer, **options})
            stack.push_async_callback(client.close)
            await client.connect()
            return client

        yield connect


@pytest_asyncio.fixture(loop_scope="module")
async def client(connected: MakeClient) -> Client:
    return await connected()


async def joined(client: Client, name: str) -> Any:
    channel = client.subscribe(name)
    await channel.subscribed(TIMEOUT)
    return channel


async def later(work: Any) -> asyncio.Future[Any]:
    """Something that waits, once it does."""
    future: asyncio.Future[Any] = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    return future


async def failure_of(settings: Settings, **options: Any) -> tuple[ConnectionFailed, list[Any]]:
    """Why a client gives up, and all it told."""
    client = impatient(settings, **{"max_attempts": 1, **options})
    seen = watch(client)
    try:
        with pytest.raises(ConnectionFailed) as caught:
            await soon(client.connect())
        assert client.state is FAILED
    finally:
        await client.close()
    return caught.value, seen


def waits(seen: list[Any]) -> list[ConnectingIn]:
    return [o for o in seen if isinstance(o, ConnectingIn)]


def errors(seen: list[Any]) -> list[AntiphonError]:
    return [o for o in seen if isinstance(o, AntiphonError)]


# Connecting


async def test_a_client_connects_and_tells_each_state_with_the_one_before(server: Server) -> None:
    client = impatient(server.settings())
    at: list[tuple[ConnectionState, bool]] = []

    def look() -> None:
        at.append((client.state, client.socket_id is not None))

    look()
    seen = watch(client)
    await client.connect()
    look()
    await client.close()
    look()
    assert at == [(INITIALIZED, False), (CONNECTED, True), (DISCONNECTED, False)]
    assert [(o.previous, o.current, o.error) for o in seen if isinstance(o, StateChange)] == [
        (INITIALIZED, CONNECTING, None),
        (CONNECTING, CONNECTED, None),
        (CONNECTED, DISCONNECTED, None),
    ]
    assert errors(seen) == []


async def test_connecting_twice_is_connecting_once() -> None:
    async with Peer(polite) as peer:
        client = impatient(peer.settings())
        await asyncio.gather(client.connect(), client.connect())
        await client.connect()
        assert len(peer.dials) == 1
        await client.close()


async def test_a_client_is_its_own_context(server: Server) -> None:
    async with impatient(server.settings()) as client:
        assert client.state is CONNECTED
    assert client.state is DISCONNECTED


async def test_a_context_that_fails_closes_the_client_too(server: Server) -> None:
    client = impatient(server.settings())
    with pytest.raises(ZeroDivisionError):
        async with client:
            raise ZeroDivisionError
    assert client.state is DISCONNECTED


async def test_a_context_that_does_not_come_about_leaves_nothing() -> None:
    before = asyncio.all_tasks()
    signer = Signer()
    settings = Settings(app_key="k", port=1, scheme="http")
    client = impatient(settings, max_attempts=1, authorizer=signer)
    with pytest.raises(Unreachable):
        async with client:
            pass
    assert signer.is_closed
    assert asyncio.all_tasks() == before


async def test_a_client_shows_its_server_and_state_and_nothing_secret(server: Server) -> None:
    client = impatient(server.settings(), token="secret-token")
    assert repr(client) == f"<Client http://127.0.0.1:{server.port} initialized>"


async def test_a_server_under_a_path_is_reached(serve: Serve, connected: MakeClient) -> None:
    server = await serve(path="/ws")
    client = await connected(to=server)
    assert client.state is CONNECTED


async def test_a_client_connects_over_tls() -> None:
    tls = {"ssl_context": trusting_tls()}
    async with Peer(polite, tls=server_tls()) as peer, impatient(peer.settings(), **tls) as client:
        await joined(client, "news")


async def test_headers_are_sent_with_every_upgrade() -> None:
    async with linked(headers={"X-Request-ID": "7"}) as (_, dial, peer):
        assert dial.headers["x-request-id"] == "7"
        await dial.hang_up()
        again = await peer.dial()
        await again.upgrade()
        assert again.headers["x-request-id"] == "7"


# Observing


async def test_events_are_observed_in_the_order_in_which_things_happen(
    client: Client, publisher: Publisher
) -> None:
    seen = watch(client)
    channel = await joined(client, "order")
    waiter = await later(channel.wait_for("e", timeout=TIMEOUT))
    await publisher.trigger("order", "e", {"n": 1})
    event = await waiter
    assert seen == [
        Subscribed("order"),
        Event(name="pusher:subscription_succeeded", channel="order"),
        event,
    ]
    assert event.data == {"n": 1}


async def test_an_observer_gets_what_its_channel_handlers_got_first(
    client: Client, publisher: Publisher
) -> None:
    order: list[str] = []
    client.observe(lambda o: order.append("observer") if isinstance(o, Event) else None)
    channel = await joined(client, "first")
    order.clear()
    channel.bind("e", lambda e: order.append("channel"))
    await publisher.trigger("first", "e", 1)
    await until(lambda: len(order) == 2)
    assert order == ["channel", "observer"]


async def test_an_observer_that_was_taken_off_hears_nothing_more(client: Client) -> None:
    seen: list[Any] = []
    remove = client.observe(seen.append)
    remove()
    remove()
    await joined(client, "quiet")
    assert seen == []


async def test_an_observer_that_raises_is_logged_and_the_others_go_on(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    def bad(_: Any) -> None:
        raise ZeroDivisionError("in an observer")

    client.observe(bad)
    seen = watch(client)
    await joined(client, "others")
    assert Subscribed("others") in seen
    assert "in an observer" in caplog.text


async def test_taking_off_one_of_two_equal_observers_leaves_the_other(client: Client) -> None:
    seen: list[Any] = []
    remove = client.observe(seen.append)
    client.observe(seen.append)
    remove()
    await joined(client, "twice")
    assert seen.count(Subscribed("twice")) == 1


async def test_the_last_hundred_events_are_kept(client: Client, publisher: Publisher) -> None:
    channel = await joined(client, "history")
    got: list[Any] = []
    channel.bind("e", got.append)
    for n in range(0, 120, 20):
        await asyncio.gather(*(publisher.trigger("history", "e", n + i) for i in range(20)))
    await until(lambda: len(got) == 120)
    assert list(client.history) == got[-100:]
    assert client.history[-1] is got[-1], "references, not copies"


@pytest.mark.parametrize(("history", "kept"), [(0, []), (2, [3, 4])])
async def test_how_many_events_are_kept_can_be_chosen(history: int, kept: list[int]) -> None:
    async with linked(history=history) as (client, dial, _):
        channel = await join(client, dial, "news")
        waiter = await later(channel.wait_for("last"))
        for n in range(4):
            dial.send("e", n, "news")
        dial.send("last", 4, "news")
        await soon(waiter)
        assert [event.data for event in client.history] == kept


async def test_states_errors_and_events_can_be_iterated_over() -> None:
    async with linked() as (client, dial, peer):
        changes, failures, events = client.changes(), client.errors(), client.events()
        await join(client, dial, "news")
        dial.send("e", 1, "news")
        dial.send_text("no JSON")
        await dial.hang_up()
        again = await peer.dial()
        await again.greet()
        assert (await soon(events.__anext__())).name == "pusher:subscription_succeeded"
        assert (await soon(events.__anext__())).data == 1
        assert isinstance(await soon(failures.__anext__()), MalformedFrame)
        lost = await soon(failures.__anext__())
        assert isinstance(lost, ConnectionLost)
        change = await soon(changes.__anext__())
        assert (change.previous, change.current, change.error) == (CONNECTED, CONNECTING, lost)
        assert (await soon(changes.__anext__())).current is CONNECTED


async def test_every_stream_ends_when_the_client_is_closed(server: Server) -> None:
    client = impatient(server.settings())
    await client.connect()
    channel = await joined(client, "news")
    streams: list[Any] = [
        client.events(),
        client.changes(),
        client.errors(),
        channel.stream(),
        channel.stream("e", Message),
    ]

    async def read(stream: Any) -> None:
        async for _ in stream:
            pass

    readers = [asyncio.ensure_future(read(stream)) for stream in streams]
    await asyncio.sleep(0)
    await client.close()
    _, hanging = await asyncio.wait(readers, timeout=TIMEOUT)
    for reader in hanging:
        reader.cancel()
    assert [number for number, reader in enumerate(readers) if reader in hanging] == []


async def test_a_stream_of_states_tells_the_last_one_before_it_ends(server: Server) -> None:
    client = impatient(server.settings())
    changes = client.changes()
    await client.connect()
    await client.close()
    async with asyncio.timeout(TIMEOUT):
        told = [change.current async for change in changes]
    assert told == [CONNECTING, CONNECTED, DISCONNECTED]


# Events


async def test_an_event_reaches_handlers_by_name_and_by_type(
    client: Client, publisher: Publisher
) -> None:
    channel: Channel = await joined(client, "typed")
    got: list[Any] = []
    channel.bind("e", got.append, type=Message)
    channel.bind("typing", got.append, type=Typing)

    @channel.bind("e")
    def raw(event: Event) -> None:
        got.append(event.data["id"])

    await publisher.trigger("typed", "e", {"id": 1, "text": "Салом 🎵", "unknown": True})
    await publisher.trigger("typed", "typing", {"user": "ann"})
    await until(lambda: len(got) == 3)
    assert got == [Message(1, "Салом 🎵"), 1, Typing("ann")]


async def test_the_client_hears_the_events_of_all_channels(
    client: Client, publisher: Publisher
) -> None:
    await joined(client, "one")
    await joined(client, "two")
    typed: list[Any] = []
    every: list[Any] = []

    def handler(message: Message) -> None:
        typed.append(message.id)

    assert client.bind("e", type=Message)(handler) is handler
    client.bind_all(lambda e: every.append((e.channel, e.name)))
    await publisher.trigger(["one", "two"], "e", {"id": 1})
    await publisher.trigger("two", "f", {})
    await until(lambda: len(every) == 3)
    assert typed == [1, 1]
    assert sorted(every) == [("one", "e"), ("two", "e"), ("two", "f")]
    client.unbind("e", handler)
    client.unbind(handler=handler)
    await publisher.trigger("two", "e", {"id": 2})
    await until(lambda: len(every) == 4)
    assert len(typed) == 2


async def test_a_typed_stream_is_read_to_its_end(client: Client, publisher: Publisher) -> None:
    channel = await joined(client, "stream")
    got = []
    with channel.stream("e", Message) as stream:
        await publisher.trigger("stream", "e", {"id": 1})
        await publisher.trigger("stream", "e", {"id": 2})
        async for message in stream:
            got.append(message.id)
            if len(got) == 2:
                break
    assert got == [1, 2]


async def test_asynchronous_handlers_get_events_in_order(
    client: Client, publisher: Publisher
) -> None:
    channel: Channel = await joined(client, "async")
    got: list[int] = []

    @channel.bind("e", type=Message)
    async def handler(message: Message) -> None:
        await asyncio.sleep(0.002 if message.id % 2 else 0)
        got.append(message.id)

    for n in range(10):
        await publisher.trigger("async", "e", {"id": n})
    await until(lambda: len(got) == 10)
    assert got == list(range(10))


async def test_a_handler_that_raises_is_reported_and_breaks_nothing(
    client: Client, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    channel = await joined(client, "raises")
    seen = watch(client)
    got: list[Any] = []

    def bad(_: Event) -> None:
        raise ZeroDivisionError("by nothing")

    channel.bind("e", bad)
    channel.bind("e", got.append)
    channel.bind("e", got.append, type=Message)
    await publisher.trigger("raises", "e", {"id": "no number"})
    await until(lambda: len(errors(seen)) == 2)
    assert [type(error) for error in errors(seen)] == [HandlerFailed, PayloadInvalid]
    assert len(got) == 1
    assert client.state is CONNECTED
    assert "ZeroDivisionError" in caplog.text
    assert "Traceback" in caplog.text


async def test_a_handler_that_meets_something_cancelled_breaks_nothing() -> None:
    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    async with linked() as (client, dial, peer):
        channel = await join(client, dial, "news")
        got: list[Any] = []

        async def awaiting(_: Event) -> None:
            await cancelled

        channel.bind("e", lambda _: cancelled.result())
        channel.bind("e", awaiting, limit=2)
        channel.bind("e", lambda e: got.append(e.data))
        for n in range(5):
            dial.send("e", n, "news")
        await until(lambda: len(got) == 5)
        assert len(peer.dials) == 1
        assert client._host.valve.is_open


async def test_an_asynchronous_handler_that_cannot_be_called_is_reported_each_time() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        seen = watch(client)

        async def takes_nothing() -> None:
            pass

        channel.bind("e", takes_nothing, limit=2)  # type: ignore[arg-type]
        for n in range(5):
            dial.send("e", n, "news")
        await until(lambda: len([o for o in seen if isinstance(o, HandlerFailed)]) == 5)
        assert client._host.valve.is_open


async def test_a_handler_may_use_the_client_it_is_called_by() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        done: list[str] = []

        def synchronous(_: Event) -> None:
            client.subscribe("from-a-handler")
            channel.unsubscribe()
            done.append("synchronous")

        async def asynchronous(_: Event) -> None:
            other = client.subscribe("other")
            await other.subscribed(TIMEOUT)
            await client.disconnect()
            done.append("asynchronous")

        client.bind("f", asynchronous)
        channel.bind("e", synchronous)
        dial.send("e", 1, "news")
        assert (await dial.subscribe())["channel"] == "from-a-handler"
        assert (await dial.event("pusher:unsubscribe"))["channel"] == "news"
        dial.send("f", 1, "from-a-handler")
        assert (await dial.subscribe())["channel"] == "other"
        await dial.closed()
        await dial.hang_up()
        await until(lambda: len(done) == 2)
        assert client.state is DISCONNECTED


async def test_a_handler_may_close_its_own_client() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        done: list[bool] = []

        async def closing(_: Event) -> None:
            await client.close()
            done.append(True)

        channel.bind("e", closing)
        dial.send("e", 1, "news")
        await dial.closed()
        await dial.hang_up()
        await until(lambda: done)
        assert client.state is DISCONNECTED


DATA_OF_ALL_KINDS = [
    ('"plain text"', "plain text"),
    ('"5"', 5),
    ("5", 5),
    ("null", None),
    ("[1,2]", [1, 2]),
    ('{"a":1}', {"a": 1}),
    ('"{broken"', "{broken"),
    ('""', ""),
    ("true", True),
    ('"\\"quoted\\""', "quoted"),
    ("1e400", None),
    ("123456789012345678901234567890", None),
]


async def test_data_of_every_kind_is_delivered_and_the_connection_stays() -> None:
    async with linked() as (client, dial, peer):
        channel = await join(client, dial, "news")
        got: list[Any] = []
        channel.bind("e", lambda e: got.append(e.data))
        for raw, _ in DATA_OF_ALL_KINDS:
            dial.send_text(f'{{"event":"e","channel":"news","data":{raw}}}')
        dial.send_text('{"event":"e","channel":"news"}')
        dial.send_text("not json at all")
        dial.send_text("[]")
        dial.send_text('{"no":"event"}')
        dial.send_text('{"event":5}')
        dial.send_frame(TEXT, b"\xff\xfe")
        dial.send_frame(0x2, b"\x00 is no JSON")
        dial.send_text("[" * 100_000)
        waiter = await later(channel.wait_for("end"))
        dial.send("end", 1, "news")
        await soon(waiter)
        assert got[:10] == [data for _, data in DATA_OF_ALL_KINDS[:10]]
        assert got[-1] is None
        assert len(peer.dials) == 1


# Presence


async def test_members_of_a_presence_channel_see_each_other(connected: MakeClient) -> None:
    ann = await connected("ann", {"name": "Ann"})
    bob = await connected("bob", {"name": "Bob"})
    room = await joined(ann, "presence-room")
    assert isinstance(room, PresenceChannel)
    assert room.members.me == Member("ann", {"name": "Ann"})
    assert room.members.count == 1
    coming = await later(room.wait_for("pusher:member_added", timeout=TIMEOUT))
    bobs = await joined(bob, "presence-room")
    assert (await coming).data == {"id": "bob", "info": {"name": "Bob"}}
    assert {member.id for member in room.members} == {"ann", "bob"}
    assert {member.id for member in bobs.members} == {"ann", "bob"}
    assert bobs.members.me == Member("bob", {"name": "Bob"})
    leaving = await later(room.wait_for("pusher:member_removed", timeout=TIMEOUT))
    bobs.unsubscribe()
    assert (await leaving).data == {"id": "bob", "info": {"name": "Bob"}}
    assert room.members.get("bob") is None
    assert room.members.count == 1


async def test_a_second_connection_of_a_user_is_no_second_member(connected: MakeClient) -> None:
    first, second = await connected("ann"), await connected("ann")
    other = await connected("bob")
    room = await joined(other, "presence-two")
    got: list[str] = []
    room.bind_all(lambda e: got.append(e.name))
    await joined(first, "presence-two")
    await joined(second, "presence-two")
    await second.close()
    await first.close()
    await until(lambda: "pusher:member_removed" in got)
    assert got == ["pusher:member_added", "pusher:member_removed"]


# Client events


async def test_client_events_go_both_ways_and_name_their_sender(connected: MakeClient) -> None:
    ann, bob = await connected("ann"), await connected("bob")
    anns, bobs = await joined(ann, "presence-talk"), await joined(bob, "presence-talk")
    to_bob = await later(bobs.wait_for("client-typing", timeout=TIMEOUT))
    own: list[Event] = []
    anns.bind("client-typing", own.append)
    anns.trigger("client-typing", {"on": True})
    event = await to_bob
    assert (event.data, event.user_id) == ({"on": True}, "ann")
    to_ann = await later(anns.wait_for("client-answer", timeout=TIMEOUT))
    bobs.trigger("client-answer")
    event = await to_ann
    assert (event.data, event.user_id) == (None, "bob")
    assert own == [], "not to the sender"


async def test_client_events_of_private_channels_name_nobody(connected: MakeClient) -> None:
    ann, bob = await connected("ann"), await connected("bob")
    anns, bobs = await joined(ann, "private-talk"), await joined(bob, "private-talk")
    waiter = await later(bobs.wait_for("client-typing", timeout=TIMEOUT))
    anns.trigger("client-typing", "plain")
    event = await waiter
    assert (event.data, event.user_id) == ("plain", None)


async def test_too_many_client_events_are_reported_and_the_connection_stays(
    serve: Serve, connected: MakeClient
) -> None:
    client = await connected(to=await serve(client_events_per_second=2))
    channel = await joined(client, "private-many")
    seen = watch(client)
    for n in range(4):  # a server that takes fewer than others do
        assert channel.trigger("client-x", n).status == "sent"
    await until(lambda: len(errors(seen)) == 2)
    for error in errors(seen):
        assert isinstance(error, ServerReportedError)
        assert error.code == 4301
    assert client.state is CONNECTED


async def test_a_client_event_while_there_is_no_connection_waits_for_the_next() -> None:
    async with linked(authorizer=Signer()) as (client, dial, peer):
        channel = await join(client, dial, "private-x")
        await dial.hang_up()
        await until(lambda: client.state is CONNECTING)
        for n in range(2):
            assert channel.trigger("client-x", n).status == "queued"
        again = await peer.dial()
        await again.greet()
        await again.subscribe()
        assert [await again.event("client-x") for _ in range(2)] == [0, 1]


async def test_who_leaves_at_the_moment_of_connecting_says_goodbye() -> None:
    # The greeting comes with the upgrade, before the dial has returned.
    async with Peer() as peer:
        client = impatient(peer.settings())
        leaving: list[asyncio.Task[None]] = []

        def leave(observation: object) -> None:
            if isinstance(observation, StateChange) and observation.current is CONNECTED:
                leaving.append(asyncio.ensure_future(client.disconnect()))

        client.observe(leave)
        connecting = asyncio.ensure_future(client.connect())
        dial = await peer.dial()
        await dial.greet()
        assert (await dial.closed()).code == 1000
        dial.send_close(1000)
        await dial.hang_up()
        await until(lambda: connecting.done())
        assert connecting.exception() is None or isinstance(connecting.exception(), ClientClosed)
        await soon(leaving[0])


# Reconnecting


async def test_a_server_that_is_restarted_is_joined_again_with_fresh_signatures(
    server: Server,
) -> None:
    class Counting(SecretAuthorizer):
        asked: list[tuple[str, str]] = []  # noqa: RUF012

        async def authorize(self, channel: str, socket_id: str) -> Any:
            self.asked.append((channel, socket_id))
            return await super().authorize(channel, socket_id)

    app = App(id="1", key="k", secret="s")
    async with Server(app) as first:
        settings, port = first.settings(), first.port
        signer = Counting(settings, user_id="7")
        client = impatient(settings, authorizer=signer)
        seen = watch(client)
        await client.connect()
        channel = await joined(client, "private-x")
        room = await joined(client, "presence-x")
        got: list[Any] = []
        channel.bind("e", lambda e: got.append(e.data))
        before = client.socket_id
        assert len(signer.asked) == 2
    await until(lambda: not channel.is_subscribed)
    assert room.members.count == 0
    async with Server(app, port=port):
        await channel.subscribed(TIMEOUT)
        await room.subscribed(TIMEOUT)
        assert client.socket_id not in (None, before)
        assert signer.asked[2:] == [
            ("private-x", client.socket_id),
            ("presence-x", client.socket_id),
        ]
        assert room.members.count == 1
        async with Publisher(settings) as publisher:
            await publisher.trigger("private-x", "e", "after the restart")
        await until(lambda: got)
        assert got == ["after the restart"]
        assert states(seen) == [CONNECTING, CONNECTED, CONNECTING, CONNECTED]
        changes = [o for o in seen if isinstance(o, StateChange)]
        assert isinstance(changes[2].error, ConnectionLost)
        assert changes[2].error.code == 4200
        assert seen.count(Subscribed("private-x")) == 2
        await client.close()


BACK_OFF = [None, 1000, 1001, 1002, 1006, 1011, 1012, 1013, 3000, 4100, 4199]
AT_ONCE = [4200, 4201, 4202, 4299]
STOP = [4001, 4003, 4004, 4005, 4006, 4007, 4008, 4009, 4099, 4300, 4301, 4999]


async def end_with(dial: Dial, code: int | None) -> None:
    if code == 1006:
        dial.abort()
    elif code is None:
        await dial.hang_up()
    else:
        await dial.close(code, "because")


@pytest.mark.parametrize("code", BACK_OFF)
async def test_a_connection_that_ends_is_made_again_after_a_while(code: int | None) -> None:
    async with linked(min_delay=0.02) as (client, dial, peer):
        seen = watch(client)
        await end_with(dial, code)
        again = await peer.dial()
        (wait,) = waits(seen)
        assert 0.02 <= wait.seconds <= 0.05
        assert (wait.attempt, wait.max_attempts) == (2, None)
        (error,) = errors(seen)
        assert isinstance(error, ConnectionLost)
        assert error.code == (None if code == 1006 else code)
        await again.greet()
        await until(lambda: client.state is CONNECTED)
        assert states(seen) == [CONNECTING, CONNECTED]


@pytest.mark.parametrize("code", AT_ONCE)
async def test_a_server_that_says_so_is_dialled_again_at_once_but_never_in_a_hot_loop(
    code: int,
) -> None:
    async def script(dial: Dial) -> None:
        await dial.greet()
        await dial.close(code)

    async with Peer(script) as peer:
        client = impatient(peer.settings(), min_delay=0.02, max_attempts=4)
        seen = watch(client)
        await client.connect()
        with pytest.raises(ConnectionLost):
            await soon(client.wait_closed())
        delays = [wait.seconds for wait in waits(seen)]
        assert delays[0] == 0
        assert len(delays) == 3
        assert min(delays[1:]) >= 0.02
        await client.close()


@pytest.mark.parametrize("code", STOP)
async def test_a_server_that_refuses_is_dialled_once(code: int) -> None:
    async def script(dial: Dial) -> None:
        await dial.upgrade()
        await dial.close(code, "go away")

    async with Peer(script) as peer:
        error, seen = await failure_of(peer.settings(), max_attempts=None)
        assert isinstance(error, Refused)
        assert error.code == code
        assert "go away" in str(error)
        assert waits(seen) == []
        assert len(peer.dials) == 1


@pytest.mark.parametrize("code", [4001, 4009, 4301])
async def test_a_server_that_refuses_an_open_connection_is_not_dialled_again(code: int) -> None:
    async with linked() as (client, dial, peer):
        seen = watch(client)
        await dial.close(code, "go away")
        with pytest.raises(Refused) as caught:
            await soon(client.wait_closed())
        assert caught.value.code == code
        assert client.state is FAILED
        assert len(peer.dials) == 1
        assert states(seen) == [FAILED]
        assert [str(error) for error in errors(seen)] == [str(caught.value)]


@pytest.mark.parametrize("in_band", [4001, 4004, 4009, 4100, 4200])
async def test_an_error_in_place_of_the_greeting_counts_like_a_close_code(in_band: int) -> None:
    async def script(dial: Dial) -> None:
        await dial.upgrade()
        dial.error(in_band, "not now")
        await dial.closed()  # Reverb leaves the socket open: the client must leave

    async with Peer(script) as peer:
        error, _ = await failure_of(peer.settings(), max_attempts=2)
        assert error.code == in_band
        assert "not now" in str(error)
        assert isinstance(error, Refused if in_band < 4100 else Unreachable)
        assert len(peer.dials) == (1 if in_band < 4100 else 2)


async def test_a_server_on_the_usual_port_that_wants_tls_is_dialled_with_it_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    urls: list[str] = []

    async def script(dial: Dial) -> None:
        await dial.upgrade()
        await dial.close(4000, "Application only accepts SSL connections")

    async with Peer(script) as peer:
        there = peer.settings().websocket_url

        async def redirected(url: str, receiver: Any, **options: Any) -> Any:
            urls.append(url.partition("/app/")[0])
            return await transport.dial(there, receiver, **{**options, "ssl_context": None})

        monkeypatch.setattr(connection_module, "dial", redirected)
        error, _ = await failure_of(peer.settings(port=80), max_attempts=4)
        assert urls == ["ws://127.0.0.1:80", "wss://127.0.0.1:443"]
        assert isinstance(error, Refused)
        assert error.code == 4000


async def test_a_server_on_another_port_that_wants_tls_refuses_and_says_so() -> None:
    async def script(dial: Dial) -> None:
        await dial.upgrade()
        await dial.close(4000, "Application only accepts SSL connections")

    async with Peer(script) as peer:
        error, _ = await failure_of(peer.settings(), max_attempts=None)
        assert isinstance(error, Refused)
        assert error.code == 4000
        assert "set the scheme to https" in str(error)
        assert len(peer.dials) == 1


async def test_a_server_that_wants_tls_though_it_has_it_refuses() -> None:
    async def script(dial: Dial) -> None:
        await dial.upgrade()
        await dial.close(4000, "SSL only")

    async with Peer(script, tls=server_tls()) as peer:
        error, _ = await failure_of(peer.settings(), max_attempts=None, ssl_context=trusting_tls())
        assert isinstance(error, ConnectionFailed)
        assert error.code == 4000
        assert len(peer.dials) == 1


async def test_a_server_that_accepts_and_closes_for_ever_is_dialled_ever_less() -> None:
    async def script(dial: Dial) -> None:
        await dial.greet()
        await dial.close(1000)

    async with Peer(script) as peer:
        client = impatient(peer.settings(), min_delay=0.002, max_delay=0.03)
        seen = watch(client)
        await client.connect()
        await until(lambda: len(waits(seen)) == 12)
        delays = waits(seen)
        assert [wait.attempt for wait in delays] == list(range(2, 14))
        for wait in delays:
            assert 0.002 <= wait.seconds <= min(0.03, 0.002 * 2 ** (wait.attempt - 1))
        assert len({wait.seconds for wait in delays}) > 6, "with jitter"
        await client.close()


@pytest.mark.parametrize("code", [4301, 4302, 4200, 4009, 4100, None])
async def test_an_error_in_band_is_reported_and_the_connection_stays(code: int | None) -> None:
    async with linked() as (client, dial, peer):
        channel = await join(client, dial, "news")
        seen = watch(client)
        dial.send("pusher:error", {"code": code, "message": "The client is not a member"})
        dial.send("e", 1, "news")
        await until(lambda: client.history[-1].name == "e")
        (error,) = errors(seen)
        assert isinstance(error, ServerReportedError)
        assert error.code == code
        assert "The client is not a member" in str(error)
        assert channel.is_subscribed
        assert len(peer.dials) == 1


@pytest.mark.parametrize("code", [4301, 4302, 4200, 4009, 4100])
async def test_an_error_in_band_does_not_make_a_later_loss_final(code: int) -> None:
    # A network that drops right after a client event was refused is still only a network.
    async with linked() as (client, dial, peer):
        dial.error(code, "The client is not a member of the specified channel.")
        dial.abort()
        again = await peer.dial()
        await again.greet()
        await until(lambda: client.state is CONNECTED)


async def test_a_server_that_falls_silent_is_dialled_again_at_once() -> None:
    async with linked(activity_timeout=0.05, pong_timeout=2, connect_timeout=30) as (
        client,
        dial,
        peer,
    ):
        seen = watch(client)
        again = await peer.dial()
        await again.greet()
        await until(lambda: client.state is CONNECTED)
        (error,) = errors(seen)
        assert isinstance(error, ConnectionLost)
        assert error.code == 4201
        assert waits(seen)[0].seconds == 0
        assert (await dial.event("pusher:ping")) == {}, "it was asked first"
        await dial.end()


async def test_a_quiet_server_that_answers_pings_is_kept() -> None:
    async def script(dial: Dial) -> None:
        await dial.upgrade()
        await asyncio.sleep(0.01)
        dial.establish("1.1", 120)
        await dial.serve()

    async with Peer(script) as peer:
        options = {"activity_timeout": 0.1, "pong_timeout": 2.0, "connect_timeout": 2.0}
        async with impatient(peer.settings(), **options) as client:
            seen = watch(client)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2.5):
                    await client.wait_closed()
            assert errors(seen) == []
            assert len(peer.dials) == 1


async def test_retrying_now_does_not_wait() -> None:
    async with linked(min_delay=60, max_delay=60) as (client, dial, peer):
        seen = watch(client)
        await dial.hang_up()
        await until(lambda: waits(seen))
        client.retry_now()
        await (await peer.dial()).greet()
        await until(lambda: client.state is CONNECTED)


async def test_retrying_now_while_connected_does_nothing() -> None:
    async with linked(min_delay=60, max_delay=60) as (client, dial, peer):
        seen = watch(client)
        client.retry_now()
        await dial.hang_up()
        await until(lambda: waits(seen))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await peer.dial()


async def test_a_client_that_cannot_connect_for_long_is_unavailable_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "UNAVAILABLE_AFTER", 0.05)
    async with linked() as (client, dial, peer):
        seen = watch(client)
        await dial.hang_up()
        await until(lambda: client.state is UNAVAILABLE)
        again = await peer.dial()
        await again.greet()
        await until(lambda: client.state is CONNECTED)
        assert states(seen) == [CONNECTING, UNAVAILABLE, CONNECTED]


async def test_a_first_connection_that_takes_long_is_unavailable_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "UNAVAILABLE_AFTER", 0.05)
    async with Peer() as peer:
        client = impatient(peer.settings())
        connecting = await later(client.connect())
        dial = await peer.dial()
        await until(lambda: client.state is UNAVAILABLE)
        await dial.greet()
        await soon(connecting)
        assert client.state is CONNECTED
        closing = await later(client.close())
        await dial.hang_up()
        await soon(closing)


@pytest.mark.parametrize("attempts", [1, 2, 4])
async def test_a_client_gives_up_after_as_many_attempts_as_it_may_make(attempts: int) -> None:
    async def script(dial: Dial) -> None:
        await dial.answer(502)

    async with Peer(script) as peer:
        error, seen = await failure_of(peer.settings(), max_attempts=attempts)
        assert isinstance(error, Unreachable)
        assert error.code == 502
        assert f"Given up after {attempts} attempt" in str(error)
        assert len(peer.dials) == attempts
        assert [(w.attempt, w.max_attempts) for w in waits(seen)] == [
            (n, attempts) for n in range(2, attempts + 1)
        ]
        assert states(seen) == [CONNECTING, FAILED]
        assert len(errors(seen)) == attempts, "each attempt says why"
        assert str(errors(seen)[-1]) == str(error)


async def test_a_client_that_gave_up_can_be_told_to_connect_again() -> None:
    async def script(dial: Dial) -> None:
        if dial.number == 1:
            await dial.answer(502)
        else:
            await polite(dial)

    async with Peer(script) as peer:
        client = impatient(peer.settings(), max_attempts=1)
        channel = client.subscribe("news")
        with pytest.raises(Unreachable):
            await soon(client.connect())
        with pytest.raises(Unreachable):
            await soon(client.wait_closed())
        with pytest.raises(Unreachable):
            await soon(channel.subscribed())
        await soon(client.connect())
        await channel.subscribed(TIMEOUT)
        await client.close()


async def test_who_waits_for_anything_is_told_that_the_client_has_given_up() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        pending = client.subscribe("pending")
        waiters = [
            await later(pending.subscribed()),
            await later(client.wait_closed()),
            await later(channel.wait_for("e")),
        ]
        await dial.subscribe(accept=False)
        await dial.close(4001)
        _, hanging = await asyncio.wait(waiters, timeout=TIMEOUT)
        for waiter in hanging:
            waiter.cancel()
        assert [n for n, waiter in enumerate(waiters) if waiter in hanging] == []
        assert all(isinstance(waiter.exception(), ConnectionFailed) for waiter in waiters)


async def test_streams_of_events_end_with_the_reason_for_giving_up() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        streams = [client.events(), channel.stream(), channel.stream("e")]
        changes, failures = client.changes(), client.errors()
        dial.send("e", 1, "news")
        await dial.close(4001, "gone")
        for stream in streams:
            assert (await soon(stream.__anext__())).data == 1, "what had arrived comes first"
            with pytest.raises(Refused, match="gone"):
                await soon(stream.__anext__())
        assert (await soon(changes.__anext__())).current is FAILED
        assert isinstance(await soon(failures.__anext__()), Refused)


# Servers that are none


async def test_a_wrong_key_is_refused_at_the_first_attempt(server: Server) -> None:
    settings = msgspec.structs.replace(server.settings(), app_key="wrong")
    error, seen = await failure_of(settings, max_attempts=None)
    assert isinstance(error, Refused)
    assert error.code == 4001
    assert "Application does not exist" in str(error)
    assert waits(seen) == []
    assert states(seen) == [CONNECTING, FAILED]


async def test_a_server_that_is_full_refuses(serve: Serve) -> None:
    server = await serve(max_connections=1)
    async with impatient(server.settings()):
        error, _ = await failure_of(server.settings(), max_attempts=None)
        assert isinstance(error, Refused)
        assert error.code == 4004


async def test_a_path_where_no_server_is_is_told(server: Server) -> None:
    settings = msgspec.structs.replace(server.settings(), path="/elsewhere")
    error, _ = await failure_of(settings)
    assert isinstance(error, Unreachable)
    assert error.code == 404


async def test_a_port_where_nobody_listens_is_told_and_dialled_again() -> None:
    error, seen = await failure_of(Settings(app_key="k", port=1, scheme="http"), max_attempts=3)
    assert isinstance(error, Unreachable)
    assert "Nothing listens on 127.0.0.1:1" in str(error)
    assert len(waits(seen)) == 2


@pytest.mark.parametrize("status", [200, 301, 403, 404, 502])
async def test_http_in_place_of_an_upgrade_is_told_and_dialled_again(status: int) -> None:
    async def script(dial: Dial) -> None:
        await dial.answer(status, Location="https://127.0.0.1:1/")

    async with Peer(script) as peer:
        error, _ = await failure_of(peer.settings(), max_attempts=2)
        assert isinstance(error, Unreachable)
        assert error.code == status
        assert len(peer.dials) == 2


async def test_a_certificate_nobody_trusts_is_told_and_dialled_again() -> None:
    async with Peer(polite, tls=server_tls()) as peer:
        error, seen = await failure_of(peer.settings(), max_attempts=2)
        assert isinstance(error, Unreachable)
        assert "not trusted" in str(error)
        assert len(waits(seen)) == 1


@pytest.mark.parametrize("greeting", ["garbage", "{}", '{"event":"hello"}', "silence"])
async def test_a_server_that_does_not_greet_is_left(greeting: str) -> None:
    async def script(dial: Dial) -> None:
        await dial.upgrade()
        if greeting != "silence":
            dial.send_text(greeting)
        await dial.closed()

    async with Peer(script) as peer:
        error, _ = await failure_of(peer.settings(), connect_timeout=0.5, max_attempts=2)
        assert isinstance(error, Unreachable)
        assert len(peer.dials) == 2


async def test_a_server_that_does_not_even_answer_is_left() -> None:
    async with Peer() as peer:
        error, _ = await failure_of(peer.settings(), connect_timeout=0.05)
        assert "did not answer in 0.05 seconds" in str(error)


async def test_garbage_in_the_middle_of_a_connection_costs_that_connection_only() -> None:
    async with linked() as (client, dial, peer):
        await join(client, dial, "news")
        dial.send_bytes(b"\xff" * 100)
        await dial.closed()
        await dial.hang_up()
        again = await peer.dial()
        await again.greet()
        await again.subscribe()
        await until(lambda: client.state is CONNECTED)


# Disconnecting and closing


async def test_a_closed_client_leaves_no_task_no_timer_and_no_socket() -> None:
    before = asyncio.all_tasks()
    timers = transport_timers()

    class Greedy(Signer):
        pass

    signer = Greedy()
    async with Peer() as peer:
        client = impatient(peer.settings(), authorizer=signer)
        dial = await meet(client, peer)
        channel = await join(client, dial, "news")

        async def handler(_: Event) -> None:
            await asyncio.Event().wait()

        channel.bind("e", handler)
        client.bind_all(handler)
        streams = [client.events(), client.changes(), channel.stream()]
        signer.free.clear()
        client.subscribe("private-x")
        dial.send("e", 1, "news")
        await until(lambda: signer.at_once)
        closing = await later(client.close())
        assert (await dial.closed()).code == 1000
        dial.send_close(1000)
        await soon(closing)
        assert asyncio.all_tasks() == before
        async with asyncio.timeout(TIMEOUT):
            await dial.end()
        assert signer.is_closed
        assert client.channels == {}
        assert channel.state is ChannelState.UNSUBSCRIBED
        assert transport_timers() == timers
        del streams


class Screen:
    """Holds on to a client, its channel and their handlers, as programs do."""

    def __init__(self, client: Client, channel: Channel) -> None:
        self.client, self.channel = client, channel
        channel.bind("e", self.show)
        client.bind("e", self.show)
        client.observe(self.tell)

    def show(self, event: Event) -> None:
        pass

    def tell(self, observation: Any) -> None:
        pass


async def test_a_closed_client_is_freed() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings())
        dial = await meet(client, peer)
        screen = Screen(client, await join(client, dial, "news"))
        closing = await later(client.close())
        await dial.closed()
        dial.send_close(1000)
        await soon(closing)
        await dial.hang_up()
        references = [weakref.ref(thing) for thing in (client, screen, screen.channel)]
        del client, closing, screen
        await asyncio.sleep(0)
        gc.collect()
        assert [reference() for reference in references] == [None, None, None]


async def test_closing_twice_or_before_connecting_is_no_error(server: Server) -> None:
    client = impatient(server.settings())
    await client.close()
    assert client.state is INITIALIZED
    await client.connect()
    await client.close()
    await client.close()


async def test_a_peer_that_does_not_part_is_left_within_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert transport.CLOSE_TIMEOUT <= 1
    monkeypatch.setattr(transport, "CLOSE_TIMEOUT", 0.1)
    async with Peer() as peer:
        client = impatient(peer.settings())
        dial = await meet(client, peer)
        await soon(client.close())
        await dial.end()
        assert client.state is DISCONNECTED


async def test_closing_ends_an_attempt_to_connect_and_its_socket() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings())
        connecting = await later(client.connect())
        dial = await peer.dial()
        await dial.request()
        await soon(client.close())
        with pytest.raises(ClientClosed):
            await soon(connecting)
        async with asyncio.timeout(TIMEOUT):
            await dial.end()


async def test_disconnecting_ends_the_wait_for_the_next_attempt() -> None:
    async with linked(min_delay=60, max_delay=60) as (client, dial, _):
        seen = watch(client)
        await dial.hang_up()
        await until(lambda: waits(seen))
        connecting = await later(client.connect())
        await soon(client.disconnect())
        with pytest.raises(ClientClosed):
            await soon(connecting)
        assert client.state is DISCONNECTED
        await soon(client.wait_closed())


@pytest.mark.parametrize("turns", range(5))
async def test_disconnecting_at_the_moment_of_the_next_attempt_prevents_it(turns: int) -> None:
    loop = asyncio.get_running_loop()
    leaving: asyncio.Future[asyncio.Task[None]] = loop.create_future()
    async with linked() as (client, dial, _):

        def leave(turns: int) -> None:
            if turns:
                loop.call_soon(leave, turns - 1)
            else:
                leaving.set_result(loop.create_task(client.disconnect()))

        def told(observation: object) -> None:
            if isinstance(observation, ConnectingIn) and not leaving.done():
                leave(turns)

        client.observe(told)
        dial.send_close(4200, "try again at once")
        disconnecting = await soon(leaving)
        await soon(disconnecting)
        assert client.state is DISCONNECTED


async def test_a_disconnected_client_keeps_its_channels_and_handlers_for_the_next_time(
    client: Client, publisher: Publisher
) -> None:
    channel = await joined(client, "private-kept")
    room = await joined(client, "presence-kept")
    got: list[Any] = []
    channel.bind("e", lambda e: got.append(e.data))
    client.bind("e", lambda e: got.append(e.data))
    seen = watch(client)
    await client.disconnect()
    await client.disconnect()
    assert client.state is DISCONNECTED
    assert channel.state is ChannelState.PENDING
    assert room.members.count == 0
    assert channel.trigger("client-x", {}).status == "queued"
    with pytest.raises(ClientClosed):
        await channel.subscribed(1)
    await client.connect()
    await channel.subscribed(TIMEOUT)
    await publisher.trigger("private-kept", "e", 1)
    await until(lambda: got == [1, 1])
    assert states(seen) == [DISCONNECTED, CONNECTING, CONNECTED]


async def test_connecting_while_disconnecting_connects_again() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings())
        dial = await meet(client, peer)
        channel = await join(client, dial, "news")
        leaving = await later(client.disconnect())
        coming = await later(client.connect())
        await dial.closed()
        await dial.hang_up()
        again = await peer.dial()
        await again.greet()
        await soon(leaving)
        try:
            async with asyncio.timeout(TIMEOUT):
                await coming
                assert client.state is CONNECTED
                assert (await again.subscribe())["channel"] == "news"
                await channel.subscribed()
        finally:
            closing = await later(client.close())
            await again.hang_up()
            await soon(closing)


async def test_a_disconnect_that_is_cancelled_leaves_a_client_that_can_connect() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings())
        dial = await meet(client, peer)
        leaving = await later(client.disconnect())
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        coming = await later(client.connect())
        await dial.closed()
        await dial.hang_up()
        again = await peer.dial()
        await again.greet()
        try:
            await soon(coming)
            assert client.state is CONNECTED
            assert client.socket_id == "2.1"
        finally:
            closing = await later(client.close())
            await again.hang_up()
            await soon(closing)


async def test_who_waits_is_told_though_the_disconnect_was_cancelled() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings(), connect_timeout=60)
        channel = client.subscribe("news")
        waiters = [await later(client.connect()), await later(channel.subscribed())]
        dial = await peer.dial()
        await dial.request()
        leaving = await later(client.disconnect())
        leaving.cancel()
        await asyncio.wait([leaving])
        _, hanging = await asyncio.wait(waiters, timeout=TIMEOUT)
        await soon(client.close())
        assert [n for n, waiter in enumerate(waiters) if waiter in hanging] == []


async def test_a_close_that_is_cancelled_can_be_repeated() -> None:
    before = asyncio.all_tasks()
    async with Peer() as peer:
        client = impatient(peer.settings())
        dial = await meet(client, peer)
        channel = await join(client, dial, "news")

        async def handler(_: Event) -> None:
            pass

        channel.bind("e", handler)
        closing = await later(client.close())
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        again = await later(client.close())
        await dial.closed()
        await dial.hang_up()
        await soon(again)
        assert client.state is DISCONNECTED
        await until(lambda: asyncio.all_tasks() == before)


async def test_who_stops_waiting_to_connect_can_wait_again_or_close() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await client.connect()
        connecting = await later(client.connect())
        dial = await peer.dial()
        await dial.greet()
        await soon(connecting)
        assert len(peer.dials) == 1
        closing = await later(client.close())
        await dial.hang_up()
        await soon(closing)


async def test_a_connect_cancelled_at_any_moment_leaves_nothing() -> None:
    before = asyncio.all_tasks()
    async with Peer(polite) as peer:
        for steps in range(30):
            client = impatient(peer.settings(), authorizer=Signer())
            client.subscribe("private-x")
            connecting = asyncio.ensure_future(client.connect())
            for _ in range(steps):
                await asyncio.sleep(0)
            connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await connecting
            await soon(client.close())
        assert len(peer.dials) > 5
        # Each dial's script has its task, and ends with the connection.
        await until(lambda: asyncio.all_tasks() == before)


async def test_a_cancelled_wait_for_a_channel_leaves_nothing(client: Client) -> None:
    for steps in range(10):
        channel = client.subscribe(f"cancelled-{steps}")
        waiting = asyncio.ensure_future(channel.subscribed())
        for _ in range(steps):
            await asyncio.sleep(0)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        await channel.subscribed(TIMEOUT)
    assert client._host.valve.is_open


async def test_what_a_handler_gave_to_await_and_was_not_begun_ends_without_a_warning() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        begun: list[int] = []

        async def stuck(n: int) -> None:
            begun.append(n)
            await asyncio.Event().wait()

        channel.bind("e", lambda e: stuck(e.data))
        waiter = await later(channel.wait_for("end"))
        for n in range(3):
            dial.send("e", n, "news")
        dial.send("end", 1, "news")
        await soon(waiter)
        await until(lambda: begun)
    assert begun == [0]
    del client, channel, waiter
    gc.collect()  # a coroutine that nobody awaited says so now


async def test_nothing_is_delivered_once_a_client_is_closed() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings())
        dial = await meet(client, peer)
        channel = await join(client, dial, "news")
        got: list[Any] = []
        channel.bind("e", got.append)
        seen = watch(client)
        closing = await later(client.close())
        await dial.closed()
        dial.send_close(1000)
        await soon(closing)
        seen.clear()
        with contextlib.suppress(ConnectionError):
            dial.send("e", 1, "news")
            await dial.end()
        assert got == []
        assert seen == []


# Flow


def burst(count: int, *, size: int = 200) -> bytes:
    padding = "x" * size
    return b"".join(
        frame_bytes(TEXT, event_text("e", {"n": n, "x": padding}, "news").encode(), masked=False)
        for n in range(count)
    )


async def test_a_burst_into_a_slow_handler_waits_at_the_server_and_keeps_its_order() -> None:
    count = 20_000
    async with linked() as (client, dial, _):
        dial.squeeze()
        channel = await join(client, dial, "news")
        free = asyncio.Event()
        handled: list[int] = []
        arrived: list[None] = []

        async def slow(event: Event) -> None:
            await free.wait()
            handled.append(event.data["n"])

        channel.bind("e", slow, limit=100)
        channel.bind("e", lambda _: arrived.append(None))
        dial.send_bytes(burst(count))
        await until(lambda: not client._host.valve.is_open)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await dial.drained()
        assert 100 <= len(arrived) < 2_000, "the limit, and the rest of one read"
        assert dial.unsent > 0
        free.set()
        await until(lambda: len(handled) == count)
        assert handled == list(range(count))
        assert client._host.valve.is_open
        assert client.state is CONNECTED


async def test_a_burst_into_a_handler_that_drops_leaves_it_the_newest() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        free = asyncio.Event()
        handled: list[int] = []

        async def slow(event: Event) -> None:
            await free.wait()
            handled.append(event.data["n"])

        channel.bind("e", slow, limit=10, policy="drop_oldest")
        waiter = await later(channel.wait_for("end"))
        dial.send_bytes(burst(1_000))
        dial.send("end", 1, "news")
        await soon(waiter)
        assert client._host.valve.is_open
        free.set()
        await until(lambda: handled[-1:] == [999])
        assert handled[-10:] == list(range(990, 1_000))
        assert len(handled) <= 11


async def test_a_stream_that_is_not_read_stops_the_socket_and_a_dropped_one_does_not() -> None:
    async with linked() as (client, dial, _):
        await join(client, dial, "news")
        stream = client.events(limit=10)
        dial.send_bytes(burst(20))
        await until(lambda: not client._host.valve.is_open)
        del stream
        gc.collect()
        assert client._host.valve.is_open
        dial.send("end", 1, "news")
        await until(lambda: client.history[-1].name == "end")


async def test_a_client_that_waits_for_an_answer_reads_on_though_a_handler_is_behind() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        free = asyncio.Event()

        async def slow(_: Event) -> None:
            await free.wait()

        channel.bind("e", slow, limit=10)
        dial.send_bytes(burst(20))
        await until(lambda: not client._host.valve.is_open)
        other = client.subscribe("other")
        waiting = await later(other.subscribed())
        await dial.subscribe()
        await soon(waiting)
        assert not client._host.valve.is_open, "and no longer than that"
        free.set()
        await until(lambda: client._host.valve.is_open)


@pytest.mark.parametrize("way", ["directly", "gather", "wait_for", "task"])
async def test_a_handler_that_is_behind_may_wait_for_an_event_in_any_way(way: str) -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        got: list[Any] = []

        async def handler(_: Event) -> None:
            if got:
                return
            match way:
                case "directly":
                    got.append(await channel.wait_for("answer"))
                case "gather":
                    got.extend(await asyncio.gather(channel.wait_for("answer")))
                case "wait_for":
                    got.append(await asyncio.wait_for(channel.wait_for("answer"), 60))
                case _:
                    got.append(await asyncio.create_task(channel.wait_for("answer")))

        channel.bind("e", handler, limit=1)
        for n in range(3):
            dial.send("e", n, "news")
        await until(lambda: channel._waiters)
        for n in range(3):
            dial.send("e", n, "news")
        dial.send("answer", 42, "news")
        async with asyncio.timeout(TIMEOUT):
            await until(lambda: got)
        assert got[0].data == 42


async def test_a_channel_that_is_joined_and_left_for_days_leaves_nothing_behind() -> None:
    async with Peer(polite) as peer, impatient(peer.settings(), authorizer=Signer()) as client:
        for _ in range(50):
            channel = client.subscribe("private-x")
            await channel.subscribed(TIMEOUT)
            channel.unsubscribe()
        gc.collect()
        left = [
            thing
            for thing in gc.get_objects()
            if isinstance(thing, asyncio.Task)
            and thing.get_name() == "antiphon authorize private-x"
        ]
        assert len(left) < 10


async def test_memory_stays_bounded_though_somebody_waits_for_an_event_that_never_comes() -> None:
    async with linked() as (client, dial, _):
        dial.squeeze()
        channel = await join(client, dial, "news")
        waiter = await later(channel.wait_for("never"))
        arrived: list[None] = []

        async def slow(_: Event) -> None:
            await asyncio.Event().wait()

        channel.bind("e", slow, limit=100)
        channel.bind("e", lambda _: arrived.append(None))
        dial.send_bytes(burst(20_000))
        await until(lambda: not client._host.valve.is_open or len(arrived) == 20_000)
        assert len(arrived) < 2_000
        assert dial.unsent > 0
        waiter.cancel()


async def test_a_slow_handler_outlives_the_connection_and_loses_nothing() -> None:
    async with linked() as (client, dial, peer):
        channel = await join(client, dial, "news")
        free = asyncio.Event()
        handled: list[int] = []

        async def slow(event: Event) -> None:
            await free.wait()
            handled.append(event.data["n"])

        channel.bind("e", slow, limit=10)
        dial.send_bytes(burst(10))
        await until(lambda: not client._host.valve.is_open)
        await dial.hang_up()
        free.set()
        again = await peer.dial()
        await again.greet()
        await again.subscribe()
        again.send("e", {"n": 10}, "news")
        await until(lambda: len(handled) == 11)
        assert handled == list(range(11))


# Authorization over HTTP, from end to end


async def test_a_backend_signs_channels_for_the_server(
    server: Server, publisher: Publisher
) -> None:
    async def sign(asked: Asked) -> web.StreamResponse:
        if asked.headers.get("authorization") != "Bearer t":
            return web.Response(status=401)
        channel, socket_id = asked.form["channel_name"], asked.form["socket_id"]
        if channel == "private-hers":
            return web.Response(status=403)
        data = json.dumps({"user_id": "7"}) if channel.startswith("presence-") else None
        auth = channel_auth("k", "s", socket_id, channel, data)
        fields = {"auth": auth} | ({} if data is None else {"channel_data": data})
        return web.json_response(fields)

    async with Endpoint() as endpoint:
        endpoint.answers_with(sign)
        settings = msgspec.structs.replace(server.settings(), auth_endpoint=endpoint.url)
        async with impatient(settings, token="t") as client:
            mine = client.subscribe("private-mine")
            hers = client.subscribe("private-hers")
            room = client.subscribe("presence-http")
            await mine.subscribed(TIMEOUT)
            await room.subscribed(TIMEOUT)
            with pytest.raises(Forbidden) as caught:
                await hers.subscribed(TIMEOUT)
            assert caught.value.channel == "private-hers"
            waiter = await later(mine.wait_for("e", timeout=TIMEOUT))
            await publisher.trigger("private-mine", "e", 1)
            await waiter
        async with impatient(settings, token="wrong") as client:
            with pytest.raises(SubscriptionFailed) as failed:
                await client.subscribe("private-mine").subscribed(TIMEOUT)
            assert failed.value.code == 401


# The log


async def test_the_log_tells_what_happens_without_secrets(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "antiphon")
    secret = "a-very-secret-secret"
    settings = msgspec.structs.replace(server.settings(), app_secret=secret)
    client = impatient(settings, authorizer=SecretAuthorizer(settings))
    await client.connect()
    with pytest.raises(SubscriptionFailed):
        await client.subscribe("private-x").subscribed(TIMEOUT)
    await joined(client, "news")
    await client.close()
    assert secret not in caplog.text
    names = {record.name for record in caplog.records}
    assert {"antiphon.connection", "antiphon.channel", "antiphon.frames"} <= names
    assert "initialized -> connecting" in caplog.text
    assert "subscribed to news" in caplog.text


async def test_a_connection_that_is_refused_while_it_is_closed_is_no_error() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings())
        dial = await meet(client, peer)
        closing = await later(client.close())
        with contextlib.suppress(Closed):
            await dial.text()
        dial.error(4001, "too late")
        dial.send_close(4001)
        await soon(closing)
        assert client.state is DISCONNECTED
