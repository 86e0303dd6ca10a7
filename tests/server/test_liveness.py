"""Pinging and pruning, with a clock that is turned by hand."""

from __future__ import annotations

import time

import pytest

from antiphon.server import Server
from antiphon.server.liveness import Liveness
from antiphon.server.session import Session
from antiphon.settings import App
from tests.conftest import Connect, Serve

from .wire import PING, PONG, Wire, until

NOW = 5_000.0


class Clock:
    """Stands in for the `time` module of the server's files."""

    def __init__(self) -> None:
        self.now = NOW

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("antiphon.server.session.time", clock)
    monkeypatch.setattr("antiphon.server.liveness.time", clock)
    return clock


# The sweep alone


class Sleeper:
    """A session whose timer is due at a time that the test sets."""

    def __init__(self, timer: float) -> None:
        self.due = 0
        self.timer = timer
        self.looked_at: list[float] = []
        self.connected = True

    def next_timer(self) -> float:
        return self.timer

    def tick(self, now: float) -> bool:
        self.looked_at.append(now)
        return self.connected


def test_a_session_is_looked_at_when_it_is_due_and_not_before(clock: Clock) -> None:
    liveness, sleeper = Liveness(), Sleeper(NOW + 30)
    liveness.add(sleeper)
    liveness.sweep(NOW + 29)
    assert sleeper.looked_at == []
    liveness.sweep(NOW + 30)
    assert sleeper.looked_at == [NOW + 30]


def test_a_session_due_within_a_second_is_looked_at_once_it_is_over(clock: Clock) -> None:
    liveness, sleeper = Liveness(), Sleeper(NOW + 30.2)
    liveness.add(sleeper)
    liveness.sweep(NOW + 30.9)
    assert sleeper.looked_at == []
    liveness.sweep(NOW + 31.1)
    assert sleeper.looked_at == [NOW + 31.1]


def test_a_session_is_put_back_to_when_it_is_due_next(clock: Clock) -> None:
    liveness, sleeper = Liveness(), Sleeper(NOW + 30)
    liveness.add(sleeper)
    sleeper.timer = NOW + 50
    liveness.sweep(NOW + 31)
    liveness.sweep(NOW + 49)
    assert sleeper.looked_at == [NOW + 31]
    liveness.sweep(NOW + 50)
    assert sleeper.looked_at == [NOW + 31, NOW + 50]


def test_a_session_that_is_overdue_waits_for_the_next_sweep(clock: Clock) -> None:
    liveness, sleeper = Liveness(), Sleeper(NOW - 100)
    liveness.add(sleeper)
    liveness.sweep(NOW)
    assert sleeper.looked_at == []
    liveness.sweep(NOW + 1)
    assert sleeper.looked_at == [NOW + 1]


def test_after_a_pause_everything_due_is_looked_at_once(clock: Clock) -> None:
    liveness = Liveness()
    sleepers = [Sleeper(NOW + due) for due in (1, 30, 3_000, 3_601)]
    for sleeper in sleepers:
        liveness.add(sleeper)
        sleeper.timer = NOW + 10_000
    liveness.sweep(NOW + 3_600)
    assert [len(sleeper.looked_at) for sleeper in sleepers] == [1, 1, 1, 0]


def test_a_session_that_is_closed_is_looked_at_no_more(clock: Clock) -> None:
    liveness, sleeper = Liveness(), Sleeper(NOW + 1)
    liveness.add(sleeper)
    sleeper.connected = False
    for second in range(1, 10):
        liveness.sweep(NOW + second)
    assert sleeper.looked_at == [NOW + 1]


def test_a_session_that_is_removed_is_looked_at_no_more(clock: Clock) -> None:
    liveness, gone, here = Liveness(), Sleeper(NOW + 1), Sleeper(NOW + 1)
    liveness.add(gone)
    liveness.add(here)
    for _ in range(2):  # the second time it is not known any longer
        liveness.remove(gone)
    liveness.sweep(NOW + 1)
    assert gone.looked_at == []
    assert here.looked_at == [NOW + 1]


async def test_it_sweeps_by_itself_until_it_is_stopped(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.server.liveness._TICK", 0.001)
    liveness, sleeper = Liveness(), Sleeper(NOW + 1)
    liveness.add(sleeper)
    liveness.start()
    clock.now = sleeper.timer = NOW + 1
    await until(lambda: sleeper.looked_at)
    liveness.stop()
    liveness.stop()
    assert liveness._timer is None


# A server's connections


def pass_time(server: Server, clock: Clock, seconds: float) -> None:
    clock.now += seconds
    server._liveness.sweep(clock.now)


def session_of(server: Server, wire: Wire) -> Session | None:
    (hub,) = server._hubs.values()
    found = hub.sockets.get(wire.socket_id)
    assert found is None or isinstance(found, Session)
    return found


async def heard(server: Server, wire: Wire, clock: Clock) -> None:
    """Wait until what the client has sent has reached its session, as of now."""
    session = session_of(server, wire)
    assert session is not None
    await until(lambda: session.protocol._last_heard == clock.now)


pinging = pytest.mark.asyncio(loop_scope="module")


@pinging
async def test_a_silent_client_is_pinged_and_then_closed_with_4201(
    clock: Clock, serve: Serve, connect: Connect
) -> None:
    server = await serve(activity_timeout=30)
    wire = await connect(server)
    pass_time(server, clock, 29)
    pass_time(server, clock, 1)
    assert (await wire.event("pusher:ping"))["data"] == {}
    pass_time(server, clock, 29)
    pass_time(server, clock, 1)
    closed = await wire.closed()
    assert (closed.code, closed.reason) == (4201, "Pong reply not received in time")
    assert session_of(server, wire) is None


@pinging
async def test_a_client_is_pinged_no_earlier_than_its_activity_timeout(
    clock: Clock, serve: Serve, connect: Connect
) -> None:
    server = await serve(activity_timeout=30)
    wire = await connect(server)
    pass_time(server, clock, 29)
    await wire.ping()  # nothing was in front of the pong


@pytest.mark.parametrize(
    "sign_of_life",
    [
        lambda wire: wire.send("pusher:pong", {}),
        lambda wire: wire.send_frame(PONG),
        lambda wire: wire.send_frame(PING),
        lambda wire: wire.send_text("no frame at all"),
    ],
    ids=["a pusher:pong", "a WebSocket pong", "a WebSocket ping", "anything"],
)
@pinging
async def test_a_client_that_shows_a_sign_of_life_stays(
    clock: Clock, serve: Serve, connect: Connect, sign_of_life: object
) -> None:
    assert callable(sign_of_life)
    server = await serve(activity_timeout=30)
    wire = await connect(server)
    pass_time(server, clock, 30)
    await wire.event("pusher:ping")
    clock.now += 10
    sign_of_life(wire)
    await heard(server, wire, clock)
    pass_time(server, clock, 29)
    assert session_of(server, wire) is not None
    pass_time(server, clock, 1)
    while (await wire.message())["event"] != "pusher:ping":
        pass  # the answer to what was sent
    # Who fell silent only then is closed after all.
    pass_time(server, clock, 30)
    assert (await wire.closed()).code == 4201


@pinging
async def test_who_answers_is_pinged_again_after_its_activity_timeout(
    clock: Clock, serve: Serve, connect: Connect
) -> None:
    server = await serve(activity_timeout=3)
    wire = await connect(server)
    for _ in range(5):
        pass_time(server, clock, 3)
        await wire.event("pusher:ping")
        wire.send("pusher:pong", {})
        await heard(server, wire, clock)


@pinging
async def test_a_limit_of_time_that_comes_is_kept(
    clock: Clock, serve: Serve, connect: Connect
) -> None:
    server = await serve()
    wire = await connect(server)
    await server.change_apps([App(id="1", key="k", secret="s", subscription_timeout=5)])
    pass_time(server, clock, 4)
    assert session_of(server, wire) is not None
    pass_time(server, clock, 2)
    assert (await wire.closed()).code == 4202


@pinging
async def test_a_busy_client_is_never_pinged(clock: Clock, serve: Serve, connect: Connect) -> None:
    server = await serve(activity_timeout=30)
    wire = await connect(server)
    for _ in range(10):
        pass_time(server, clock, 20)
        await wire.ping()


@pinging
async def test_a_client_that_is_closed_for_silence_leaves_its_channels(
    clock: Clock, serve: Serve, connect: Connect
) -> None:
    server = await serve(activity_timeout=30)
    silent, john = await connect(server), await connect(server)
    await silent.join("presence-room", "ali")
    await john.join("presence-room", "john")
    pass_time(server, clock, 30)
    await john.event("pusher:ping")
    clock.now += 10
    await john.ping()
    pass_time(server, clock, 20)
    removed = await john.event("pusher_internal:member_removed")
    assert removed["data"] == {"user_id": "ali"}
    assert (await silent.closed()).code == 4201


@pinging
async def test_a_client_that_has_gone_is_forgotten(
    clock: Clock, serve: Serve, connect: Connect
) -> None:
    server = await serve(activity_timeout=30)
    wire = await connect(server)
    await wire.hang_up()
    await until(lambda: session_of(server, wire) is None)
    assert server._liveness._buckets == {}


async def test_a_loop_that_was_busy_shows_as_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.server.liveness._TICK", 0.01)
    liveness = Liveness()
    liveness.start()
    time.sleep(0.06)  # noqa: ASYNC251 - this is what it is to notice
    assert liveness._timer is not None
    liveness._timer.cancel()
    liveness._tick()  # what the loop does now; a later one may come in time again
    liveness.stop()
    assert 0.04 < liveness.lag < 60
