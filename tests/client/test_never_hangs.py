"""What a hostile reader found: ways to hang, spin, leak or lie, and that they are closed."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from antiphon.client import (
    Authorization,
    ChannelState,
    Client,
    ConnectionState,
    SecretAuthorizer,
    StateChange,
)
from antiphon.client.bindings import Bindings
from antiphon.errors import (
    AuthServerError,
    ClientClosed,
    InvalidName,
    MalformedAuthResponse,
    MalformedFrame,
    PayloadInvalid,
    Refused,
    SettingsError,
    SignInFailed,
    Unreachable,
)
from antiphon.protocol.frames import Event
from tests.server.wire import CONTINUATION, PING, TEXT, TIMEOUT, until

from .linked import FakeHost, Signer, impatient, join, linked, soon, watch
from .peer import Peer, polite

CONNECTED, CONNECTING = ConnectionState.CONNECTED, ConnectionState.CONNECTING


# Hanging


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_a_client_closed_just_after_it_was_hurried_ends(turns: int) -> None:
    async with Peer() as peer:
        settings = peer.settings()
    client = Client(settings, min_delay=30.0, max_delay=30.0)
    connecting = asyncio.ensure_future(client.connect())
    await until(lambda: client._backoff.attempts)
    await asyncio.sleep(0.01)
    client.retry_now()
    for _ in range(turns):
        await asyncio.sleep(0)
    await soon(client.close())
    with pytest.raises(ClientClosed):
        await soon(connecting)


async def test_an_observer_that_raises_what_ends_tasks_ends_none() -> None:
    async with Peer(polite) as peer, impatient(peer.settings()) as client:

        def bad(observation: object) -> None:
            raise asyncio.CancelledError

        client.observe(bad)
        await peer.dials[0].hang_up()
        await until(lambda: len(peer.dials) == 2 and client.state is CONNECTED)


class Misfit:
    """An authorizer whose call itself raises, or that answers what no message can carry."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer

    def authorize(self, channel: str, socket_id: str) -> Any:
        if self.answer is None:
            raise RuntimeError("at once")
        return self._later()

    async def _later(self) -> Any:
        return self.answer

    def authenticate(self, socket_id: str) -> Any:
        raise RuntimeError("at once")

    async def close(self) -> None:
        pass


async def test_an_authorizer_whose_call_raises_is_an_error_of_the_channel_and_of_the_user() -> None:
    async with linked(authorizer=Misfit()) as (client, _, _):
        with pytest.raises(AuthServerError, match="RuntimeError"):
            await client.subscribe("private-x").subscribed(TIMEOUT)
        with pytest.raises(AuthServerError, match="RuntimeError"):
            await client.signin().signed_in(TIMEOUT)


async def test_a_signature_that_no_message_can_carry_is_an_error_of_the_channel() -> None:
    async with linked(authorizer=Misfit(Authorization("k:\ud800"))) as (client, _, _):
        with pytest.raises(MalformedAuthResponse, match="no message can carry"):
            await client.subscribe("private-x").subscribed(TIMEOUT)


async def test_a_stream_read_in_a_handler_whose_inbox_is_full_does_not_wait_for_itself() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        got: list[Any] = []
        replies = channel.stream("reply")

        async def handler(_: Event) -> None:
            got.append((await anext(replies)).data)

        channel.bind("e", handler, limit=2)
        for number in range(5):
            dial.send("e", number, "news")
        await until(lambda: not client._host.valve.is_open or len(got) == 0)
        await asyncio.sleep(0.05)
        for number in range(5):
            dial.send("reply", number, "news")
        await until(lambda: got == [0, 1, 2, 3, 4])


async def test_a_stream_opened_after_the_client_has_given_up_says_so() -> None:
    async def refuse(dial: Any) -> None:
        await dial.upgrade()
        dial.error(4001, "no such app")
        await dial.end()

    async with Peer(refuse) as peer:
        client = impatient(peer.settings())
        channel = client.subscribe("news")
        for _ in range(2):
            with pytest.raises(Refused):
                await soon(client.connect())
        with pytest.raises(Refused):
            await soon(anext(channel.stream()))
        await client.close()


async def test_a_sign_in_accepted_of_nobody_is_refused() -> None:
    async with linked(authorizer=SecretAuthorizer(_settings(), user_id="7")) as (client, dial, _):
        user = client.signin()
        await dial.event("pusher:signin")
        dial.send("pusher:signin_success", {"user_data": "{}"})
        with pytest.raises(SignInFailed, match="no user"):
            await user.signed_in(TIMEOUT)


async def test_a_dial_that_fails_at_once_is_told_to_who_connects() -> None:
    async with Peer(polite) as peer:
        client = impatient(peer.settings(), max_attempts=1, headers={"X-A": "line\nbreak"})
        with pytest.raises(Unreachable, match="line break"):
            await soon(client.connect())
        await client.close()


# Spinning


async def test_a_flood_of_refusals_leaves_one_attempt_on_its_way() -> None:
    async with linked(authorizer=Signer(), min_delay=60.0, max_delay=60.0) as (client, dial, _):
        channel = await join(client, dial, "private-x")
        seen = watch(client)
        for _ in range(50):
            dial.send("pusher:subscription_error", {"status": 4100, "error": "full"}, "private-x")
        await until(lambda: len([o for o in seen if isinstance(o, Event)]) == 50)
        handles = [h for h in asyncio.get_running_loop()._scheduled if not h.cancelled()]  # type: ignore[attr-defined]
        assert len([h for h in handles if "again" in repr(h)]) == 1
        channel.unsubscribe()
        assert client._subscriptions._ends == {}


async def test_binding_a_name_does_not_work_out_all_others() -> None:
    bindings = Bindings(FakeHost())
    first = bindings.add("one", print, None, limit=1, policy="pause")
    before = bindings._sinks["one"]
    for number in range(3):
        bindings.add(f"other-{number}", print, None, limit=1, policy="pause")
    assert bindings._sinks["one"] is before
    everywhere = bindings.add(None, print, None, limit=1, policy="pause")
    assert len(bindings._sinks["one"]) == 2
    everywhere.unbind()
    first.unbind()
    assert "one" not in bindings._sinks


@pytest.mark.parametrize(
    "options",
    [
        {"activity_timeout": 0.0},
        {"activity_timeout": float("nan")},
        {"pong_timeout": -1.0},
        {"connect_timeout": float("inf")},
        {"min_delay": -0.1},
        {"max_delay": float("inf")},
    ],
    ids=str,
)
def test_numbers_that_no_client_can_work_with_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        Client(_settings(), **options)  # type: ignore[arg-type]


def test_a_limit_below_one_is_refused() -> None:
    client = Client(_settings())
    with pytest.raises(ValueError, match="at least 1"):
        client.stream("e", limit=0)


async def test_hurrying_from_an_observer_does_not_dial_without_end() -> None:
    async with Peer() as peer:
        settings = peer.settings()
    client = impatient(settings)
    client.observe(lambda _: client.retry_now())
    connecting = asyncio.ensure_future(client.connect())
    await asyncio.sleep(0.5)
    assert client._backoff.attempts <= 12
    await soon(client.close())
    with pytest.raises(ClientClosed):
        await connecting


# Leaking


async def test_what_comes_after_this_end_has_left_is_not_kept() -> None:
    async with linked() as (client, dial, _):
        connection = client._connection
        assert connection is not None
        link = connection._link
        assert link is not None
        dial.send_frame(TEXT, b"x" * 1000, fin=False)
        await until(lambda: link._fragments)
        link.close(1009, "too much")
        dial.send_frame(CONTINUATION, b"x" * 1000, fin=False)
        dial.send_frame(PING, b"end")
        await asyncio.sleep(0.05)
        assert link._fragments is None


async def test_errors_that_wait_to_be_read_keep_no_payload() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        channel.bind("e", print, type=int)
        with client.errors() as errors:
            dial.send_text('{"no event": "' + "x" * 1000 + '"}')
            dial.send("e", "x" * 1000, "news")
            malformed, unfit = await soon(anext(errors)), await soon(anext(errors))
    assert isinstance(malformed, MalformedFrame)
    assert malformed.__traceback__ is None
    assert (malformed.__cause__, malformed.__context__) == (None, None)
    assert isinstance(unfit, PayloadInvalid)
    assert unfit.__cause__ is not None
    assert unfit.__cause__.__traceback__ is None


async def test_asking_again_and_again_about_a_refused_channel_gathers_nothing() -> None:
    signer = Signer()
    signer.refuse("private-x")
    async with linked(authorizer=signer) as (client, _, _):
        channel = client.subscribe("private-x")
        depths = set()
        for _ in range(3):
            with pytest.raises(Exception, match="not yours") as caught:
                await channel.subscribed(TIMEOUT)
            depths.add(len(caught.traceback))
        assert len(depths) == 1


async def test_a_peer_that_reads_nothing_is_answered_no_more() -> None:
    async with linked() as (client, dial, _):
        connection = client._connection
        assert connection is not None
        link = connection._link
        assert link is not None
        link.pause_writing()
        for _ in range(100):
            dial.send("pusher:ping", {})
        await asyncio.sleep(0.05)
        received = client.stats.frames_received
        link.resume_writing()
        await until(lambda: client.stats.frames_received >= received + 100)
        for _ in range(100):
            await dial.event("pusher:pong")


async def test_connecting_while_the_client_closes_is_refused() -> None:
    async with Peer(polite) as peer:
        client = impatient(peer.settings())
        await soon(client.connect())
        coming: list[asyncio.Task[None]] = []

        def come_back(observation: object) -> None:
            if isinstance(observation, StateChange) and observation.current == "disconnected":
                coming.append(asyncio.ensure_future(client.connect()))

        client.observe(come_back)
        await soon(client.close())
        with pytest.raises(ClientClosed):
            await soon(coming[0])
        assert client._running is None


async def test_two_clients_may_share_an_authorizer_of_which_one_closes_it() -> None:
    signer = Signer()
    async with linked(authorizer=signer) as (client, dial, peer):
        other = impatient(peer.settings(), authorizer=signer)
        await soon(other.close())
        await join(client, dial, "private-x")


# Lying


async def test_an_answer_to_what_was_given_up_is_not_that_to_what_is_asked_anew() -> None:
    signer = Signer()
    async with linked(authorizer=signer) as (client, dial, _):
        client.subscribe("private-x").unsubscribe()
        first = client.subscribe("private-x")
        await dial.subscribe(accept=False)
        first.unsubscribe()
        signer.free.clear()
        second = client.subscribe("private-x")
        await dial.event("pusher:unsubscribe")
        dial.accept("private-x")
        dial.send("pusher:ping", {})
        await dial.event("pusher:pong")
        assert second.state is ChannelState.PENDING
        assert second.trigger("client-x", 1).status == "queued"
        signer.free.set()
        await dial.subscribe()
        await second.subscribed(TIMEOUT)


async def test_who_waits_for_a_channel_is_told_why_though_a_handler_asks_again() -> None:
    signer = Signer()
    signer.refuse("private-x")
    async with linked(authorizer=signer) as (client, _, _):
        channel = client.subscribe("private-x")

        def again(_: Event) -> None:
            channel.unbind()
            client.subscribe("private-x")

        channel.bind("pusher:subscription_error", again)
        with pytest.raises(Exception, match="not yours"):
            await channel.subscribed(TIMEOUT)


async def test_a_client_event_while_the_client_leaves_is_not_told_as_sent() -> None:
    async with linked(authorizer=Signer()) as (client, dial, _):
        channel = await join(client, dial, "private-x")
        leaving = asyncio.ensure_future(client.disconnect())
        await dial.closed()
        assert channel.trigger("client-x", 1).status == "queued"
        await dial.hang_up()
        await soon(leaving)


async def test_a_name_that_no_message_can_carry_is_the_callers_error() -> None:
    async with linked(authorizer=Signer()) as (client, dial, _):
        channel = await join(client, dial, "private-x")
        with pytest.raises(InvalidName):
            channel.trigger("client-\ud800", 1)


async def test_an_observer_put_on_twice_and_taken_off_once_is_on_once() -> None:
    seen: list[Any] = []
    client = Client(_settings())
    remove = client.observe(seen.append)
    client.observe(seen.append)
    remove()
    client._host.tell(StateChange(CONNECTING, CONNECTED))
    assert len(seen) == 1


async def test_a_time_out_says_what_did_not_come() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        with pytest.raises(TimeoutError, match=r"Nothing came in 0.01 s for <Channel news"):
            await channel.wait_for("e", timeout=0.01)


async def test_a_lost_client_event_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with linked() as (client, dial, _):
        seen = watch(client)
        dial.error(4301, "More than 10 client events in a second")
        await until(lambda: seen)
    assert "More than 10 client events" in caplog.text


def _settings() -> Any:
    from antiphon.settings import Settings

    return Settings(app_key="k", app_secret="s", scheme="http", port=1)
