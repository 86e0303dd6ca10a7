"""Bounded inboxes, the valve they shut, and the streams that read them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from threading import Thread, get_ident

import pytest

from antiphon.client.flow import Inbox, Stream, Valve
from antiphon.errors import ConnectionLost, QueueOverflow
from antiphon.protocol.frames import Event
from tests.server.wire import TIMEOUT, until

from .linked import join, linked, soon, watch


class Socket:
    """What a valve turns."""

    def __init__(self) -> None:
        self.turns: list[bool] = []

    def read(self, on: bool) -> None:
        self.turns.append(on)


@pytest.fixture
def valve() -> Valve:
    return Valve()


@pytest.fixture
def socket(valve: Valve) -> Socket:
    socket = Socket()
    valve.connect(socket.read)
    return socket


def reads(valve: Valve) -> bool:
    return valve.is_open


def _nothing() -> None:
    pass


def filled(inbox: Inbox[int], *items: int) -> Inbox[int]:
    for item in items:
        inbox.put(item)
    return inbox


def stream_of(inbox: Inbox[int], detach: Callable[[], None] = _nothing) -> Stream[int]:
    return Stream(inbox, detach)


# The valve


def test_a_new_valve_is_open_and_turns_nothing(valve: Valve, socket: Socket) -> None:
    assert reads(valve)
    assert socket.turns == []


def test_a_full_inbox_shuts_the_valve_and_room_in_it_opens_it(valve: Valve, socket: Socket) -> None:
    inbox: Inbox[int] = Inbox(valve)
    valve.mark(inbox, full=True)
    assert not reads(valve)
    valve.mark(inbox, full=False)
    assert reads(valve)
    assert socket.turns == [False, True]


def test_one_of_two_full_inboxes_keeps_the_valve_shut(valve: Valve, socket: Socket) -> None:
    one: Inbox[int] = Inbox(valve)
    other: Inbox[int] = Inbox(valve)
    valve.mark(one, full=True)
    valve.mark(other, full=True)
    valve.mark(one, full=False)
    assert not reads(valve)
    valve.mark(other, full=False)
    assert reads(valve)
    assert socket.turns == [False, True], "turned once, not once per inbox"


def test_marking_an_inbox_twice_turns_once(valve: Valve, socket: Socket) -> None:
    inbox: Inbox[int] = Inbox(valve)
    for _ in range(2):
        valve.mark(inbox, full=True)
    valve.mark(inbox, full=False)
    assert socket.turns == [False, True]


def test_who_waits_for_an_answer_keeps_a_valve_open_that_would_be_shut(
    valve: Valve, socket: Socket
) -> None:
    inbox: Inbox[int] = Inbox(valve)
    valve.mark(inbox, full=True)
    with valve.held_open():
        assert reads(valve)
        with valve.held_open():
            assert reads(valve)
        assert reads(valve), "the outer one still waits"
    assert not reads(valve)
    assert socket.turns == [False, True, False]


def test_a_valve_held_open_is_not_shut_by_an_inbox_that_fills_up(
    valve: Valve, socket: Socket
) -> None:
    inbox: Inbox[int] = Inbox(valve)
    with valve.held_open():
        valve.mark(inbox, full=True)
        assert reads(valve)
    assert not reads(valve)
    assert socket.turns == [False]


def test_a_valve_is_let_go_when_waiting_fails(valve: Valve, socket: Socket) -> None:
    inbox: Inbox[int] = Inbox(valve)
    valve.mark(inbox, full=True)

    def waiting() -> None:
        with valve.held_open():
            raise TimeoutError

    with pytest.raises(TimeoutError):
        waiting()
    assert not reads(valve)


def test_a_socket_is_told_not_to_read_if_the_valve_is_shut_when_it_comes(valve: Valve) -> None:
    inbox: Inbox[int] = Inbox(valve)
    valve.mark(inbox, full=True)
    socket = Socket()
    valve.connect(socket.read)
    assert socket.turns == [False]
    valve.mark(inbox, full=False)
    assert socket.turns == [False, True]


def test_a_socket_that_is_gone_is_turned_no_more(valve: Valve, socket: Socket) -> None:
    valve.connect(None)
    valve.mark(Inbox(valve), full=True)
    assert not reads(valve)
    assert socket.turns == []


# Inboxes


async def test_items_come_out_in_the_order_in_which_they_went_in(valve: Valve) -> None:
    inbox = filled(Inbox(valve), 1, 2, 3)
    assert [await inbox.get() for _ in range(3)] == [1, 2, 3]


async def test_an_empty_inbox_is_waited_for(valve: Valve) -> None:
    inbox: Inbox[int] = Inbox(valve)
    getting = asyncio.ensure_future(inbox.get())
    await asyncio.sleep(0)
    assert not getting.done()
    inbox.put(1)
    assert await soon(getting) == 1


async def test_an_inbox_shuts_the_valve_at_its_limit_and_opens_it_at_half_of_it(
    valve: Valve, socket: Socket
) -> None:
    inbox: Inbox[int] = Inbox(valve, limit=4)
    filled(inbox, 1, 2, 3)
    assert socket.turns == []
    inbox.put(4)
    assert socket.turns == [False]
    assert await inbox.get() == 1
    assert socket.turns == [False], "not at the first item taken: that would flutter"
    assert await inbox.get() == 2
    assert socket.turns == [False, True]


async def test_an_inbox_of_one_opens_the_valve_when_it_is_empty(
    valve: Valve, socket: Socket
) -> None:
    inbox = filled(Inbox(valve, limit=1), 1)
    assert socket.turns == [False]
    await inbox.get()
    assert socket.turns == [False, True]


async def test_the_rest_of_a_read_goes_into_a_full_inbox_and_nothing_is_lost(
    valve: Valve, socket: Socket
) -> None:
    inbox = filled(Inbox(valve, limit=2), *range(10))
    assert [await inbox.get() for _ in range(10)] == list(range(10))
    assert socket.turns == [False, True]
    assert inbox.dropped == 0


async def test_an_inbox_that_drops_keeps_the_newest_counts_the_others_and_shuts_nothing(
    valve: Valve, socket: Socket
) -> None:
    inbox = filled(Inbox(valve, limit=3, policy="drop_oldest"), *range(10))
    assert inbox.dropped == 7
    assert [await inbox.get() for _ in range(3)] == [7, 8, 9]
    assert socket.turns == []


async def test_a_closed_inbox_gives_what_is_left_and_ends(valve: Valve) -> None:
    inbox = filled(Inbox(valve), 1)
    inbox.close()
    inbox.put(2)
    assert await inbox.get() == 1
    with pytest.raises(StopAsyncIteration):
        await inbox.get()


async def test_closing_an_inbox_lets_go_who_waits_for_it(valve: Valve) -> None:
    inbox: Inbox[int] = Inbox(valve)

    async def reading() -> list[int]:
        return [item async for item in stream_of(inbox)]

    reader = asyncio.ensure_future(reading())
    await asyncio.sleep(0)
    inbox.close()
    assert await soon(reader) == []


def test_closing_a_full_inbox_opens_the_valve(valve: Valve, socket: Socket) -> None:
    inbox = filled(Inbox(valve, limit=1), 1)
    inbox.close()
    inbox.close()
    assert socket.turns == [False, True]


async def test_who_is_cancelled_while_an_item_is_on_its_way_loses_it_not(valve: Valve) -> None:
    inbox: Inbox[int] = Inbox(valve)
    getting = asyncio.ensure_future(inbox.get())
    await asyncio.sleep(0)
    inbox.put(1)
    getting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await getting
    assert await soon(inbox.get()) == 1


# Streams


async def test_a_stream_gives_items_until_it_is_closed(valve: Valve) -> None:
    inbox = filled(Inbox(valve), 1, 2)
    detached: list[None] = []
    stream = stream_of(inbox, lambda: detached.append(None))
    assert await anext(stream) == 1
    stream.close()
    assert detached
    assert await anext(stream) == 2, "what had arrived is not lost"
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_stream_is_closed_by_its_context(valve: Valve, socket: Socket) -> None:
    detached: list[None] = []
    with stream_of(filled(Inbox(valve, limit=1), 1), lambda: detached.append(None)):
        assert not reads(valve)
    assert detached
    assert reads(valve)


def test_a_stream_tells_how_many_items_were_lost(valve: Valve) -> None:
    stream = stream_of(filled(Inbox(valve, limit=1, policy="drop_oldest"), 1, 2, 3))
    assert stream.dropped == 2


def test_a_stream_that_is_dropped_opens_the_valve_and_is_detached(
    valve: Valve, socket: Socket
) -> None:
    detached: list[None] = []
    stream = stream_of(filled(Inbox(valve, limit=1), 1), lambda: detached.append(None))
    assert not reads(valve)
    del stream
    gc.collect()
    assert detached
    assert reads(valve)


async def test_a_stream_dropped_in_another_thread_is_detached_in_its_own(valve: Valve) -> None:
    threads: list[int] = []
    held = [stream_of(filled(Inbox(valve, limit=1), 1), lambda: threads.append(get_ident()))]
    thread = Thread(target=held.clear)
    thread.start()
    thread.join()
    await until(lambda: threads)
    assert threads == [get_ident()]
    assert reads(valve)


def test_a_stream_dropped_in_another_thread_after_its_loop_has_ended_harms_nobody(
    valve: Valve,
) -> None:
    held: list[Stream[int]] = []

    async def main() -> None:
        held.append(stream_of(Inbox(valve)))

    asyncio.run(main())
    thread = Thread(target=held.clear)
    thread.start()
    thread.join()
    assert held == []


async def test_leaving_the_loop_over_a_stream_frees_it(valve: Valve) -> None:
    inbox = filled(Inbox(valve, limit=1), 1, 2)

    async def first() -> int:
        async for item in stream_of(inbox):
            return item
        raise AssertionError

    assert await first() == 1
    gc.collect()
    assert reads(valve)


async def test_cancelling_who_reads_a_stream_leaves_the_stream_usable(valve: Valve) -> None:
    inbox: Inbox[int] = Inbox(valve)
    stream = stream_of(inbox)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(stream)
    inbox.put(1)
    assert await soon(stream.__anext__()) == 1


async def test_a_second_reader_of_one_stream_is_served_or_refused_but_not_left_hanging(
    valve: Valve,
) -> None:
    inbox: Inbox[int] = Inbox(valve)
    stream = stream_of(inbox)

    async def reading() -> int | None:
        try:
            return await anext(stream)
        except (RuntimeError, StopAsyncIteration):
            return None

    readers = [asyncio.ensure_future(reading()) for _ in range(2)]
    await asyncio.sleep(0)
    inbox.put(1)
    inbox.put(2)
    await asyncio.sleep(0)
    stream.close()
    done, hanging = await asyncio.wait(readers, timeout=TIMEOUT)
    for reader in hanging:
        reader.cancel()
    assert not hanging
    assert {reader.result() for reader in done} <= {1, 2, None}


# The policy `error`


async def test_an_inbox_that_tells_of_loss_keeps_the_oldest_and_tells_once_in_its_place(
    valve: Valve, socket: Socket
) -> None:
    inbox = filled(Inbox(valve, limit=3, policy="error"), *range(10))
    assert inbox.dropped == valve.dropped == 7
    assert [await inbox.get() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(QueueOverflow, match="7 events were lost: 3 were waiting"):
        await inbox.get()
    filled(inbox, 10, 11)
    assert [await inbox.get() for _ in range(2)] == [10, 11]
    assert socket.turns == [], "the socket is read all the while"


async def test_what_comes_before_the_loss_was_told_is_lost_too_though_there_is_room(
    valve: Valve,
) -> None:
    inbox = filled(Inbox(valve, limit=2, policy="error"), 0, 1, 2)
    assert await inbox.get() == 0
    inbox.put(3)
    assert await inbox.get() == 1
    inbox.put(4)
    with pytest.raises(QueueOverflow, match="3 events were lost"):
        await inbox.get()
    inbox.put(5)
    assert await inbox.get() == 5


async def test_each_overflow_is_told_of_by_itself(valve: Valve) -> None:
    inbox: Inbox[int] = Inbox(valve, limit=1, policy="error")
    for _ in range(2):
        filled(inbox, 1, 2)
        assert await inbox.get() == 1
        with pytest.raises(QueueOverflow, match="1 events"):
            await inbox.get()


async def test_a_loss_is_told_before_the_end(valve: Valve) -> None:
    inbox = filled(Inbox(valve, limit=1, policy="error"), 1, 2)
    inbox.close()
    assert await inbox.get() == 1
    with pytest.raises(QueueOverflow):
        await inbox.get()
    with pytest.raises(StopAsyncIteration):
        await inbox.get()


async def test_who_waits_at_an_inbox_that_tells_of_loss_gets_the_next_item(valve: Valve) -> None:
    inbox: Inbox[int] = Inbox(valve, limit=1, policy="error")
    getting = asyncio.ensure_future(inbox.get())
    await asyncio.sleep(0)
    filled(inbox, 1, 2)
    assert await soon(getting) == 1
    with pytest.raises(QueueOverflow):
        await soon(inbox.get())


async def test_a_stream_goes_on_after_it_has_told_of_a_loss(valve: Valve) -> None:
    inbox: Inbox[int] = Inbox(valve, limit=2, policy="error")
    stream = stream_of(inbox)
    filled(inbox, 1, 2, 3)
    got: list[int] = []
    for _ in range(3):
        try:
            async for item in stream:
                got.append(item)
                if item == 2:
                    continue
                if item == 9:
                    break
        except QueueOverflow:
            inbox.put(9)
            continue
        break
    assert got == [1, 2, 9]
    assert stream.dropped == 1


async def test_an_inbox_without_items_that_fails_raises_why(valve: Valve) -> None:
    inbox = filled(Inbox(valve), 1)
    inbox.fail(ConnectionLost("Gone."))
    assert await inbox.get() == 1
    with pytest.raises(ConnectionLost):
        await inbox.get()


# Policies over a socket


async def test_a_handler_that_is_to_be_told_of_loss_gets_the_rest_and_the_loss_is_reported() -> (
    None
):
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        seen = watch(client)
        got: list[int] = []
        free = asyncio.Event()

        async def slow(event: Event) -> None:
            got.append(event.data)
            await free.wait()

        channel.bind("e", slow, limit=2, policy="error")
        everything: list[int] = []
        channel.bind("e", lambda e: everything.append(e.data))
        dial.send("e", 0, "news")
        await until(lambda: got == [0])
        for n in range(1, 6):
            dial.send("e", n, "news")
        await until(lambda: len(everything) == 6)
        assert client._host.valve.is_open
        free.set()
        await until(lambda: any(isinstance(o, QueueOverflow) for o in seen))
        assert got == [0, 1, 2]
        dial.send("e", 6, "news")
        await until(lambda: got == [0, 1, 2, 6])
        (error,) = [o for o in seen if isinstance(o, QueueOverflow)]
        assert "3 events were lost" in str(error)


async def test_policies_of_streams_do_not_touch_each_other() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        oldest = channel.stream("e", limit=2, policy="drop_oldest")
        told = channel.stream("e", limit=2, policy="error")
        patient = channel.stream("e", limit=100)
        last = channel.stream("last")
        for n in range(5):
            dial.send("e", n, "news")
        dial.send("last", 0, "news")
        await soon(last.__anext__())
        assert [(await soon(oldest.__anext__())).data for _ in range(2)] == [3, 4]
        assert [(await soon(told.__anext__())).data for _ in range(2)] == [0, 1]
        with pytest.raises(QueueOverflow, match="3 events"):
            await soon(told.__anext__())
        assert [(await soon(patient.__anext__())).data for _ in range(5)] == list(range(5))


# Waiting in one's own loop


async def test_a_valve_is_held_open_only_for_who_reads_the_inbox_that_is_full(
    valve: Valve, socket: Socket
) -> None:
    inbox = filled(Inbox(valve, limit=2), 1, 2)
    with valve.held_open_for_reader():
        assert not reads(valve), "nobody has read there yet"
    await inbox.get()
    with valve.held_open_for_reader():
        filled(inbox, 3, 4)
        assert reads(valve)
    assert not reads(valve)

    async def another() -> None:
        with valve.held_open_for_reader():
            assert not reads(valve)

    await asyncio.create_task(another())
    assert socket.turns == [False, True, False]


async def test_a_task_that_is_gone_holds_nothing_open(valve: Valve) -> None:
    inbox: Inbox[int] = Inbox(valve, limit=2)

    async def read() -> None:
        inbox.put(1)
        await inbox.get()

    await asyncio.create_task(read())
    gc.collect()
    filled(inbox, 1, 2)
    with valve.held_open_for_reader():
        assert not reads(valve)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_who_waits_in_a_loop_over_a_stream_does_not_wait_for_itself(when: str) -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        got: list[int] = []
        waits = asyncio.Event()

        async def loop() -> None:
            async for event in channel.stream("e", limit=4):
                got.append(event.data)
                if event.data == 0:
                    if when == "before":
                        await until(lambda: not client._host.valve.is_open)
                    waits.set()
                    answer = await channel.wait_for("answer")
                    got.append(answer.data)
                if event.data == 9:
                    return

        looping = asyncio.create_task(loop())
        await asyncio.sleep(0)
        dial.send("e", 0, "news")
        await until(lambda: got)
        for n in range(1, 10):
            dial.send("e", n, "news")
        await until(lambda: client.stats.lag >= 4)  # a read of its own
        await soon(waits.wait())
        dial.send("answer", -1, "news")
        await soon(looping)
        assert got == [0, -1, *range(1, 10)]
        assert client._host.valve.is_open


async def test_who_subscribes_in_a_loop_over_a_stream_does_not_wait_for_itself() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")

        async def loop() -> str:
            async for _ in channel.stream("e", limit=1):
                other = client.subscribe("other")
                await other.subscribed(TIMEOUT)
                return other.name
            raise AssertionError

        looping = asyncio.create_task(loop())
        await asyncio.sleep(0)
        for n in range(100):
            dial.send("e", n, "news")
        assert (await dial.subscribe())["channel"] == "other"
        assert await soon(looping) == "other"


async def test_a_loop_that_waits_does_not_hold_the_valve_open_for_what_others_do_not_read() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        begun = asyncio.Event()

        async def loop() -> None:
            async for _ in channel.stream("mine"):
                begun.set()
                await channel.wait_for("never")

        looping = asyncio.create_task(loop())
        await asyncio.sleep(0)
        dial.send("mine", 0, "news")
        await soon(begun.wait())
        stream = channel.stream("e", limit=2)
        for n in range(3):
            dial.send("e", n, "news")
        await until(lambda: not client._host.valve.is_open)
        stream.close()
        looping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looping
