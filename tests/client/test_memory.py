"""Nothing is left of a client that was closed, and a client that runs for long does not grow."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest

from antiphon.chat import MessageSentEvent
from antiphon.client import Client, HttpAuthorizer
from antiphon.errors import AntiphonError
from antiphon.settings import Settings
from tests.server.wire import TIMEOUT, until

from .linked import impatient, soon
from .peer import Dial, Peer, event_text, polite

OURS = ("antiphon.client", "antiphon.protocol", "antiphon.errors", "antiphon.http")
CYCLES = 500
DATA = {
    "message": {
        "id": "123",
        "chat_id": "45",
        "sender_id": "67",
        "sender_name": "John",
        "content": "Hello there",
        "sent_at": "2024-10-25T10:31:00Z",
        "status": "sent",
    },
    "tempId": "temp-msg-xyz",
}
EVENT = event_text("event", DATA, "room")


def ours() -> Counter[str]:
    """How many objects of our classes live, by class."""
    found: Counter[str] = Counter()
    for thing in gc.get_objects():
        module = getattr(type(thing), "__module__", None)
        if isinstance(module, str) and f"{module}.".startswith(tuple(f"{m}." for m in OURS)):
            found[f"{module}.{type(thing).__qualname__}"] += 1
    return found


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Let objects go by their reference counts alone, as if there were no garbage collector."""
    logging.disable()  # pytest keeps the records, and with them the errors
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    logging.disable(logging.NOTSET)


async def plain(peer: Peer) -> None:
    async with Client(peer.settings()):
        pass


async def in_use(peer: Peer) -> None:
    """All that a program may hold on to: handlers of either kind, streams, observers."""
    async with Client(peer.settings()) as client:
        channel = client.subscribe("room")
        arrived = asyncio.Event()

        def handle(value: object) -> None:
            assert client.channel("room") is channel

        async def handle_later(event: object) -> None:
            assert client.channel("room") is channel
            arrived.set()

        channel.bind("event", handle, type=MessageSentEvent)
        channel.bind("event", handle_later)
        client.bind("event", handle)
        client.observe(lambda told: handle(client))
        with channel.stream("event", MessageSentEvent) as stream:
            await channel.subscribed(TIMEOUT)
            peer.dials[-1].send_text(EVENT)
            await soon(arrived.wait())
            await soon(anext(stream))
        # Streams that the program has not closed itself.
        kept = (client.errors(), client.changes(), client.events())
    assert all(not unread.dropped for unread in kept)


async def lost(peer: Peer) -> None:
    async with impatient(peer.settings()) as client:
        channel = client.subscribe("room")
        await channel.subscribed(TIMEOUT)
        before = len(peer.dials)
        peer.dials[-1].abort()
        await until(lambda: len(peer.dials) > before and channel.is_subscribed)


async def raising(peer: Peer) -> None:
    async with Client(peer.settings()) as client:
        channel = client.subscribe("room")

        def handle(event: object) -> None:
            raise ValueError("no")

        async def handle_later(event: object) -> None:
            raise ValueError("no")

        channel.bind("event", handle)
        channel.bind("event", handle_later)
        errors = client.errors()
        await channel.subscribed(TIMEOUT)
        peer.dials[-1].send_text(EVENT)
        await soon(anext(errors))
        await soon(anext(errors))


def nowhere() -> int:
    """A port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


async def refused(peer: Peer) -> None:
    settings = Settings(app_key="k", host="127.0.0.1", port=nowhere(), scheme="http")
    client = Client(settings, max_attempts=1)
    with contextlib.suppress(AntiphonError):
        await client.connect()
    await client.close()


async def unsigned(peer: Peer) -> None:
    """The auth endpoint is not there, and the client is closed while it is asked again."""
    authorizer = HttpAuthorizer(f"http://127.0.0.1:{nowhere()}/auth")
    async with Client(peer.settings(), authorizer=authorizer) as client:
        channel = client.subscribe("private-room")
        with contextlib.suppress(AntiphonError, TimeoutError):
            await channel.subscribed(0.01)


Use = Callable[[Peer], Awaitable[None]]


@pytest.mark.parametrize(
    ("use", "times"),
    [(plain, CYCLES), (in_use, CYCLES), (lost, 20), (raising, 20), (refused, 20), (unsigned, 20)],
)
@pytest.mark.usefixtures("uncollected")
@pytest.mark.timeout(60)
async def test_nothing_of_a_closed_client_is_left_without_the_garbage_collector(
    use: Use, times: int
) -> None:
    async with Peer(polite) as peer:
        await use(peer)  # what is made once and kept
        await asyncio.sleep(0.02)
        gc.collect()
        before = ours()
        for _ in range(times):
            await use(peer)
        # The last of the loop's callbacks and of the sockets' farewells.
        with contextlib.suppress(TimeoutError):
            await until(lambda: not ours() - before)
        assert dict(ours() - before) == {}


@pytest.mark.parametrize("how", ["handler", "stream"])
@pytest.mark.timeout(60)
async def test_a_client_does_not_grow_with_the_events_it_has_received(how: str) -> None:
    async def blast(dial: Dial, count: int) -> None:
        for _ in range(count // 100):
            for _ in range(100):
                dial.send_text(EVENT)
            await dial.drained()
            await asyncio.sleep(0)

    # asyncio keeps a cancelled timer while another, such as the client's next look at the clock, is
    # due before it.
    async with Peer(polite, timeout=10) as peer, Client(peer.settings()) as client:
        received = 0
        channel = client.subscribe("room")

        def handle(value: object) -> None:
            nonlocal received
            received += 1

        async def iterate() -> None:
            async for value in channel.stream("event", MessageSentEvent):
                handle(value)

        iterating = asyncio.ensure_future(iterate()) if how == "stream" else None
        if iterating is None:
            channel.bind("event", handle, type=MessageSentEvent)
        await channel.subscribed(TIMEOUT)

        async def more(count: int) -> tuple[int, int]:
            """Receive so many more; the objects and bytes in use then."""
            due = received + count
            await blast(peer.dials[-1], count)
            await until(lambda: received >= due)
            gc.collect()
            return len(gc.get_objects()), tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            await more(1_000)
            objects, size = await more(1_000)
            objects_later, size_later = await more(5_000)
        finally:
            tracemalloc.stop()
        # 5 000 events that stayed would be as many objects and a megabyte and a half.
        assert objects_later - objects < 100
        assert size_later - size < 100_000
    if iterating is not None:
        await soon(iterating)
