"""The signed-in user: signing in on every connection, its own events, and the watchlist."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from antiphon.client import (
    Authentication,
    AuthorizerByChannel,
    ChannelState,
    Client,
    ConnectionState,
    Reconnected,
    SecretAuthorizer,
    StateChange,
    User,
)
from antiphon.errors import (
    AuthorizationFailed,
    AuthServerError,
    ClientClosed,
    Forbidden,
    MalformedAuthResponse,
    PayloadInvalid,
    Refused,
    SignInFailed,
    SubscriptionFailed,
)
from antiphon.protocol.frames import Event
from antiphon.publisher import Publisher
from antiphon.server import Server
from antiphon.settings import App
from tests.server.cluster import free_port
from tests.server.wire import TIMEOUT, until

from .linked import Signer, impatient, join, linked, meet, part, soon, watch
from .peer import Dial, Peer

MINE = "#server-to-user-7"


class Order(msgspec.Struct):
    id: int


class Passport(Signer):
    """Signs users in as well, as number 7."""

    def __init__(self) -> None:
        super().__init__()
        self.signed_in: list[str] = []
        self.answer: Any = None
        self.error: BaseException | None = None

    async def authenticate(self, socket_id: str) -> Authentication:
        self.signed_in.append(socket_id)
        await self.free.wait()
        if self.error is not None:
            raise self.error
        if self.answer is not None:
            answer: Authentication = self.answer
            return answer
        return Authentication(f"k:user-{socket_id}", '{"id":"7","user_info":{"name":"Ann"}}')


async def welcome(dial: Dial) -> dict[str, Any]:
    """Let the peer accept the client's sign-in; what the client sent for it."""
    sent: dict[str, Any] = await dial.event("pusher:signin")
    dial.send("pusher:signin_success", {"user_data": sent["user_data"]})
    assert await dial.event("pusher:subscribe") == {"channel": MINE}
    dial.accept(MINE)
    return sent


async def signed_in(client: Client, dial: Dial) -> User:
    user = client.signin()
    await welcome(dial)
    await user.signed_in(TIMEOUT)
    return user


async def quiet(dial: Dial) -> None:
    """The client says nothing but what it is asked."""
    dial.send("pusher:ping")
    assert (await dial.message())["event"] == "pusher:pong"


def events(seen: list[Any]) -> list[tuple[str, Any]]:
    return [(o.name, o.data) for o in seen if isinstance(o, Event)]


def errors_of(seen: list[Any], kind: type[Exception]) -> list[Any]:
    return [o for o in seen if isinstance(o, kind)]


# Signing in


async def test_a_user_signs_in_with_what_the_authenticator_signed_and_as_it_was_signed() -> None:
    passport = Passport()
    async with linked(authorizer=passport) as (client, dial, _):
        assert not client.user
        user = client.signin()
        assert (user.id, user.data, user.channel) == (None, {}, "")
        assert repr(user) == "<User ? pending>"
        sent = await welcome(dial)
        assert sent == {
            "auth": f"k:user-{client.socket_id}",
            "user_data": '{"id":"7","user_info":{"name":"Ann"}}',
        }
        await user.signed_in(TIMEOUT)
        assert (user.id, user.channel) == ("7", MINE)
        assert user.data == {"id": "7", "user_info": {"name": "Ann"}}
        assert user.state is ChannelState.SUBSCRIBED
        assert user.error is None
        assert client.user is user
        assert repr(user) == "<User 7 subscribed>"
        await user.signed_in(0)


async def test_the_authenticator_is_asked_before_the_authorizer() -> None:
    passport, other = Passport(), Passport()
    async with linked(authorizer=other, authenticator=passport) as (client, dial, _):
        await signed_in(client, dial)
        assert passport.signed_in == [client.socket_id]
        assert other.signed_in == []
    assert passport.is_closed
    assert other.is_closed


async def test_one_who_is_both_may_be_given_as_both() -> None:
    passport = Passport()
    async with linked(authorizer=passport, authenticator=passport) as (client, dial, _):
        await signed_in(client, dial)
    assert passport.is_closed


async def test_who_signs_in_before_there_is_a_connection_is_signed_in_when_it_stands() -> None:
    passport = Passport()
    async with Peer() as peer:
        client = impatient(peer.settings(), authorizer=passport)
        user = client.signin()
        dial = await meet(client, peer)
        await welcome(dial)
        await user.signed_in(TIMEOUT)
        await part(client, peer)


async def test_signing_in_again_gives_the_same_user_and_asks_nothing() -> None:
    passport = Passport()
    async with linked(authorizer=passport) as (client, dial, _):
        user = await signed_in(client, dial)
        assert client.signin() is user
        await quiet(dial)
        assert len(passport.signed_in) == 1


async def test_who_signs_in_at_the_moment_of_connecting_signs_in_once() -> None:
    passport = Passport()
    async with Peer() as peer:
        client = impatient(peer.settings(), authorizer=passport)

        def look(o: Any) -> None:
            if isinstance(o, StateChange) and o.current is ConnectionState.CONNECTED:
                client.signin()

        client.observe(look)
        dial = await meet(client, peer)
        await welcome(dial)
        await quiet(dial)
        await part(client, peer)


@pytest.mark.parametrize("options", [{}, {"authorizer": Signer()}], ids=["nobody", "a signer"])
async def test_a_sign_in_without_anyone_to_say_who_it_is_says_what_is_missing(
    options: dict[str, Any],
) -> None:
    async with linked(**options) as (client, dial, _):
        with pytest.raises(SignInFailed, match="give the client an authenticator"):
            client.signin()
        assert client.user is None
        await quiet(dial)


async def test_authorizers_by_channel_are_no_authenticator() -> None:
    async with linked(authorizer=AuthorizerByChannel({"*": Passport()})) as (client, _, _):
        with pytest.raises(SignInFailed):
            client.signin()


async def test_the_user_is_told_of_signing_in_and_so_is_everybody() -> None:
    async with linked(authorizer=Passport()) as (client, dial, _):
        seen = watch(client)
        everything: list[Event] = []
        client.bind_all(everything.append)
        user = client.signin()
        waiting = asyncio.ensure_future(user.wait_for("pusher:signin_success"))
        await welcome(dial)
        event = await soon(waiting)
        assert event.data == {"id": "7", "user_info": {"name": "Ann"}}
        assert event in seen
        assert event in everything


async def test_each_new_connection_signs_in_anew_with_its_own_socket_id() -> None:
    passport = Passport()
    async with linked(authorizer=passport) as (client, dial, peer):
        user = await signed_in(client, dial)
        await dial.hang_up()
        again = await peer.dial()
        await until(lambda: user.state is ChannelState.PENDING)
        second = await again.greet()
        assert (await welcome(again))["auth"] == f"k:user-{second}"
        await user.signed_in(TIMEOUT)
        assert passport.signed_in == ["1.1", second]
        assert second != "1.1"


async def test_a_signature_of_the_old_connection_is_not_used_on_the_new_one() -> None:
    passport = Passport()
    passport.free.clear()
    async with linked(authorizer=passport) as (client, dial, peer):
        user = client.signin()
        await until(lambda: passport.signed_in)
        await dial.hang_up()
        again = await peer.dial()
        second = await again.greet()
        await until(lambda: len(passport.signed_in) == 2)
        passport.free.set()
        assert (await welcome(again))["auth"] == f"k:user-{second}"
        await user.signed_in(TIMEOUT)
        await quiet(again)


# Refusals


async def test_an_authenticator_that_refuses_is_told_to_who_waits_and_who_watches() -> None:
    passport = Passport()
    passport.error = Forbidden("This user may not sign in.", channel="", code=403)
    async with linked(authorizer=passport) as (client, dial, _):
        seen = watch(client)
        user = client.signin()
        told: list[Any] = []
        user.bind("pusher:signin_error", lambda e: told.append(e.data))
        with pytest.raises(Forbidden) as caught:
            await user.signed_in(TIMEOUT)
        assert caught.value is passport.error
        assert user.error is caught.value
        assert user.state is ChannelState.FAILED
        assert told == [{"type": "Forbidden", "error": "This user may not sign in.", "status": 403}]
        assert errors_of(seen, Forbidden) == [caught.value], "told once"
        await join(client, dial, "news")


async def test_an_authenticator_that_breaks_is_a_failed_sign_in_and_keeps_its_secret() -> None:
    passport = Passport()
    passport.error = ZeroDivisionError("https://u:s3cret@x/")
    async with linked(authorizer=passport) as (client, dial, _):
        user = client.signin()
        with pytest.raises(AuthServerError, match="ZeroDivisionError") as caught:
            await user.signed_in(TIMEOUT)
        assert "s3cret" not in str(caught.value)
        assert caught.value.__cause__ is passport.error
        assert caught.value.channel == ""
        await join(client, dial, "news")


async def test_an_authenticator_that_is_cancelled_from_within_is_a_failed_sign_in() -> None:
    passport = Passport()
    passport.error = asyncio.CancelledError()
    async with linked(authorizer=passport) as (client, _, _):
        with pytest.raises(AuthServerError):
            await client.signin().signed_in(TIMEOUT)


@pytest.mark.parametrize("answer", [{"auth": "k:x", "user_data": "{}"}, "k:x", 1, [None]])
async def test_an_authenticator_that_answers_something_else_is_a_failed_sign_in(
    answer: Any,
) -> None:
    passport = Passport()
    passport.answer = answer
    async with linked(authorizer=passport) as (client, dial, _):
        with pytest.raises(MalformedAuthResponse, match="Authentication") as caught:
            await client.signin().signed_in(TIMEOUT)
        assert "k:x" not in str(caught.value)
        await join(client, dial, "news")


async def test_a_server_that_does_not_know_signing_in_fails_it_and_nothing_else() -> None:
    async with linked(authorizer=Passport()) as (client, dial, _):
        seen = watch(client)
        user = client.signin()
        told = asyncio.ensure_future(user.wait_for("pusher:signin_error"))
        await dial.event("pusher:signin")
        dial.error(4200, "Invalid message format")  # Reverb's answer
        with pytest.raises(SignInFailed, match="Invalid message format") as caught:
            await user.signed_in(TIMEOUT)
        assert caught.value.code == 4200
        assert (await soon(told)).data["status"] == 4200
        assert errors_of(seen, SignInFailed) == [caught.value]
        await join(client, dial, "news")


async def test_a_server_that_closes_upon_a_sign_in_refuses_the_client_and_says_so() -> None:
    async with linked(authorizer=Passport()) as (client, dial, _):
        user = client.signin()
        waiting = asyncio.ensure_future(user.signed_in())
        await dial.event("pusher:signin")
        await dial.close(4009, "Connection not authorized")
        with pytest.raises(Refused, match="Connection not authorized"):
            await soon(waiting)
        assert client.state is ConnectionState.FAILED
        with pytest.raises(Refused):
            await user.signed_in(TIMEOUT)


async def test_a_sign_in_that_failed_is_tried_again_when_it_is_asked_for_again() -> None:
    passport = Passport()
    passport.error = AuthorizationFailed("Not now.", channel="")
    async with linked(authorizer=passport) as (client, dial, _):
        user = client.signin()
        with pytest.raises(AuthorizationFailed):
            await user.signed_in(TIMEOUT)
        passport.error = None
        assert client.signin() is user
        assert user.state is ChannelState.PENDING
        assert user.error is None
        await welcome(dial)
        await user.signed_in(TIMEOUT)


async def test_a_handler_of_the_failure_may_try_again() -> None:
    passport = Passport()
    passport.error = AuthorizationFailed("Not now.", channel="")
    async with linked(authorizer=passport) as (client, dial, _):
        user = client.signin()

        def retry(_: Event) -> None:
            passport.error = None
            client.signin()

        user.bind("pusher:signin_error", retry)
        await welcome(dial)
        await user.signed_in(TIMEOUT)


async def test_a_sign_in_that_failed_is_tried_again_on_the_next_connection() -> None:
    passport = Passport()
    passport.error = AuthorizationFailed("Not now.", channel="")
    async with linked(authorizer=passport) as (client, dial, peer):
        user = client.signin()
        with pytest.raises(AuthorizationFailed):
            await user.signed_in(TIMEOUT)
        passport.error = None
        await dial.hang_up()
        again = await peer.dial()
        await again.greet()
        await welcome(again)
        await user.signed_in(TIMEOUT)


async def test_who_waits_for_a_sign_in_waits_no_longer_than_asked() -> None:
    async with linked(authorizer=Passport()) as (client, dial, _):
        user = client.signin()
        await dial.event("pusher:signin")
        with pytest.raises(TimeoutError):
            await user.signed_in(0.01)
        assert user.state is ChannelState.PENDING


async def test_a_server_that_refuses_the_users_own_channel_is_reported() -> None:
    async with linked(authorizer=Passport()) as (client, dial, _):
        seen = watch(client)
        user = client.signin()
        sent = await dial.event("pusher:signin")
        dial.send("pusher:signin_success", {"user_data": sent["user_data"]})
        await dial.event("pusher:subscribe")
        dial.send("pusher:subscription_error", {"error": "no such channel", "status": 404}, MINE)
        await until(lambda: errors_of(seen, SubscriptionFailed))
        (error,) = errors_of(seen, SubscriptionFailed)
        assert error.channel == MINE
        await user.signed_in(TIMEOUT)


# Events for this user


async def test_an_event_for_the_user_reaches_handlers_streams_and_who_waits() -> None:
    async with linked(authorizer=Passport()) as (client, dial, _):
        user = await signed_in(client, dial)
        got: list[Any] = []
        user.bind("order", lambda e: got.append(("plain", e.data)))

        @user.bind("order", type=Order)
        def typed(order: Order) -> None:
            got.append(("typed", order.id))

        @user.bind("order")
        async def asynchronous(event: Event) -> None:
            got.append(("async", event.data))

        stream = user.stream("order", Order)
        everything = aiter(user)
        waiting = asyncio.ensure_future(user.wait_for("order", Order))
        await asyncio.sleep(0)
        dial.send("order", {"id": 5}, MINE)
        assert (await soon(waiting)).id == 5
        assert (await soon(anext(stream))).id == 5
        assert (await soon(anext(everything))).channel == MINE
        await until(lambda: len(got) == 3)
        assert got == [("plain", {"id": 5}), ("typed", 5), ("async", {"id": 5})]


async def test_an_event_for_the_user_is_seen_wherever_all_events_are() -> None:
    async with linked(authorizer=Passport()) as (client, dial, _):
        await signed_in(client, dial)
        seen = watch(client)
        everything: list[Event] = []
        orders: list[Order] = []
        client.bind_all(everything.append)
        client.bind("order", orders.append, type=Order)
        stream = client.events()
        dial.send("order", {"id": 5}, MINE)
        event = await soon(anext(stream))
        assert (event.name, event.channel, event.data) == ("order", MINE, {"id": 5})
        assert everything == [event]
        assert orders == [Order(5)]
        assert events(seen) == [("order", {"id": 5})]
        assert client.history[-1] == event


async def test_data_that_does_not_fit_is_reported_and_the_next_event_comes() -> None:
    async with linked(authorizer=Passport()) as (client, dial, _):
        user = await signed_in(client, dial)
        seen = watch(client)
        got: list[Order] = []
        user.bind("order", got.append, type=Order)
        dial.send("order", {"id": "five"}, MINE)
        dial.send("order", {"id": 6}, MINE)
        await until(lambda: got)
        assert got == [Order(6)]
        assert len(errors_of(seen, PayloadInvalid)) == 1


@pytest.mark.parametrize("channel", ["#server-to-user-8", "#server-to-user-", "news", "", None])
async def test_an_event_for_somebody_else_is_not_the_users(channel: str | None) -> None:
    async with linked(authorizer=Passport()) as (client, dial, _):
        user = await signed_in(client, dial)
        got: list[Any] = []
        user.bind_all(got.append)
        dial.send("order", 1, channel)
        dial.send("order", 2, MINE)
        await until(lambda: got)
        assert [event.data for event in got] == [2]


async def test_events_for_nobody_before_the_sign_in_are_not_the_users() -> None:
    passport = Passport()
    passport.free.clear()
    async with linked(authorizer=passport) as (client, dial, _):
        user = client.signin()
        got: list[Any] = []
        user.bind_all(got.append)
        dial.send("order", 1, "")
        dial.send("order", 1, MINE)
        await quiet(dial)
        assert got == []


async def test_handlers_of_the_user_outlive_the_connection() -> None:
    async with linked(authorizer=Passport()) as (client, dial, peer):
        user = await signed_in(client, dial)
        got: list[Any] = []
        user.bind("order", lambda e: got.append(e.data))
        await dial.hang_up()
        again = await peer.dial()
        await again.greet()
        await welcome(again)
        again.send("order", 2, MINE)
        await until(lambda: got == [2])


async def test_a_sign_in_the_server_answers_without_a_user_is_no_sign_in() -> None:
    async with linked(authorizer=Passport()) as (client, dial, _):
        user = client.signin()
        await dial.event("pusher:signin")
        dial.send("pusher:signin_success", {"user_data": "{}"})
        await quiet(dial)
        assert user.id is None
        assert user.state is not ChannelState.SUBSCRIBED


# The watchlist


def online(*ids: Any, name: str = "online") -> dict[str, Any]:
    return {"events": [{"name": name, "user_ids": list(ids)}]}


async def test_who_is_watched_comes_and_goes() -> None:
    async with linked(authorizer=Passport()) as (client, dial, _):
        user = await signed_in(client, dial)
        got: list[tuple[str, Any]] = []
        user.watchlist.bind_all(lambda e: got.append((e.name, e.data)))
        stream = user.watchlist.stream("offline")
        dial.send("pusher_internal:watchlist_events", online("8", 9))
        dial.send("pusher_internal:watchlist_events", online("8", name="offline"))
        assert (await soon(anext(stream))).data == {"user_ids": ["8"]}
        assert user.watchlist.online == {"9"}
        assert got == [("online", {"user_ids": ["8", "9"]}), ("offline", {"user_ids": ["8"]})]


async def test_nobody_is_known_to_be_online_once_the_connection_is_lost() -> None:
    async with linked(authorizer=Passport()) as (client, dial, peer):
        user = await signed_in(client, dial)
        dial.send("pusher_internal:watchlist_events", online("8"))
        await until(lambda: user.watchlist.online == {"8"})
        await dial.hang_up()
        again = await peer.dial()
        await until(lambda: not user.watchlist.online)
        await again.greet()
        await welcome(again)
        again.send("pusher_internal:watchlist_events", online("9"))
        await until(lambda: user.watchlist.online == {"9"})


@pytest.mark.parametrize(
    "data", [None, 1, [], {"events": 1}, {"events": [1, {"name": "online"}]}, {"events": [None]}]
)
async def test_a_watchlist_that_makes_no_sense_breaks_nothing(data: Any) -> None:
    async with linked(authorizer=Passport()) as (client, dial, _):
        user = await signed_in(client, dial)
        dial.send("pusher_internal:watchlist_events", data)
        dial.send("pusher_internal:watchlist_events", online("8"))
        await until(lambda: user.watchlist.online == {"8"})


async def test_a_watchlist_without_a_sign_in_breaks_nothing() -> None:
    async with linked() as (client, dial, _):
        dial.send("pusher_internal:watchlist_events", online("8"))
        dial.send("pusher:signin_success", {"user_data": '{"id":"7"}'})
        await quiet(dial)
        assert client.user is None


# The end


async def test_closing_the_client_ends_all_that_waits_for_the_user() -> None:
    passport = Passport()
    async with Peer() as peer:
        client = impatient(peer.settings(), authorizer=passport)
        dial = await meet(client, peer)
        user = client.signin()
        await dial.event("pusher:signin")
        waiting = [
            asyncio.ensure_future(work)
            for work in (
                user.signed_in(),
                user.wait_for("order"),
                user.watchlist.wait_for("online"),
            )
        ]
        streams = [user.stream(), user.watchlist.stream()]
        await asyncio.sleep(0)
        await part(client, peer)
        for work in waiting:
            with pytest.raises(ClientClosed):
                await soon(work)
        for stream in streams:
            assert [item async for item in stream] == []
        with pytest.raises(ClientClosed):
            await user.signed_in()
        with pytest.raises(ClientClosed):
            await user.wait_for("order")
        assert user.state is ChannelState.UNSUBSCRIBED


async def test_streams_of_the_user_end_with_the_reason_for_giving_up() -> None:
    async with linked(authorizer=Passport()) as (client, dial, _):
        user = await signed_in(client, dial)
        streams = [user.stream(), user.watchlist.stream()]
        await dial.close(4001, "No such app")
        with pytest.raises(Refused):
            await soon(client.wait_closed())
        for stream in streams:
            with pytest.raises(Refused):
                await soon(anext(stream))


async def test_a_client_that_was_disconnected_signs_in_again_when_it_connects() -> None:
    passport = Passport()
    async with Peer() as peer:
        client = impatient(peer.settings(), authorizer=passport)
        dial = await meet(client, peer)
        user = await signed_in(client, dial)
        leaving = asyncio.ensure_future(client.disconnect())
        await dial.close(1000)
        await soon(leaving)
        assert user.state is ChannelState.PENDING
        again = await meet(client, peer)
        await welcome(again)
        await user.signed_in(TIMEOUT)
        await part(client, peer)


# Reconnected


async def test_a_reconnection_is_complete_only_with_the_sign_in() -> None:
    async with linked(authorizer=Passport()) as (client, dial, peer):
        await signed_in(client, dial)
        await join(client, dial, "news")
        seen = watch(client)
        await dial.hang_up()
        again = await peer.dial()
        await again.greet()
        asked = [await again.message() for _ in range(2)]
        again.accept("news")
        await quiet(again)
        assert errors_of(seen, Reconnected) == []  # type: ignore[arg-type]
        (sent,) = [m["data"] for m in asked if m["event"] == "pusher:signin"]
        again.send("pusher:signin_success", {"user_data": sent["user_data"]})
        await until(lambda: errors_of(seen, Reconnected))  # type: ignore[arg-type]
        (told,) = errors_of(seen, Reconnected)  # type: ignore[arg-type]
        assert told.channels == ("news",), "a sign-in is no channel"
        assert told.failed == ()


async def test_a_sign_in_that_is_refused_after_a_reconnection_is_named() -> None:
    passport = Passport()
    async with linked(authorizer=passport) as (client, dial, peer):
        await signed_in(client, dial)
        seen = watch(client)
        passport.error = Forbidden("No longer.", channel="")
        await dial.hang_up()
        again = await peer.dial()
        await again.greet()
        await until(lambda: errors_of(seen, Reconnected))  # type: ignore[arg-type]
        (told,) = errors_of(seen, Reconnected)  # type: ignore[arg-type]
        assert (told.channels, told.failed) == ((), ("pusher:signin",))


# The real server


async def test_a_real_server_signs_users_in_and_sends_each_what_is_for_it() -> None:
    async with Server(App(id="1", key="k", secret="s")) as server:
        settings = server.settings()
        signer = SecretAuthorizer(settings, user_id="7", user_info="Ann")
        other_signer = SecretAuthorizer(settings, user_id="8")
        async with (
            impatient(settings, authorizer=signer) as client,
            impatient(settings, authorizer=other_signer) as other,
            Publisher(settings) as publisher,
        ):
            user, eight = client.signin(), other.signin()
            got: list[Any] = []
            user.bind("order", lambda o: got.append(o.id), type=Order)
            others: list[Any] = []
            eight.bind_all(others.append)
            await user.signed_in(TIMEOUT)
            assert user.id == "7"
            assert user.data["user_info"] == "Ann"
            await eight.signed_in(TIMEOUT)
            for both in (client, other):  # joined after the users' own channels
                await both.subscribe("news").subscribed(TIMEOUT)
            await publisher.send_to_user("7", "order", {"id": 5})
            await until(lambda: got == [5])
            assert [e.name for e in others] == ["pusher:signin_success"]
            assert client.history[-1].channel == user.channel


async def test_a_real_server_that_is_restarted_has_the_user_sign_in_again() -> None:
    app = App(id="1", key="k", secret="s")
    server = Server(app, port=free_port())
    await server.start()
    settings = server.settings()
    async with impatient(settings, authorizer=SecretAuthorizer(settings, user_id="7")) as client:
        user = client.signin()
        await user.signed_in(TIMEOUT)
        orders = user.stream("order", Order)
        await server.stop()
        await until(lambda: user.state is ChannelState.PENDING)
        async with Server(app, port=settings.port), Publisher(settings) as publisher:
            await user.signed_in(TIMEOUT)
            # Joined after the user's own channel.
            await client.subscribe("news").subscribed(TIMEOUT)
            await publisher.send_to_user("7", "order", {"id": 6})
            assert (await soon(anext(orders))).id == 6


# Trying again


async def test_a_sign_in_that_failed_for_the_moment_is_tried_again_by_itself() -> None:
    passport = Passport()
    passport.error = AuthServerError("The backend is down.", channel="")
    async with linked(authorizer=passport) as (client, dial, _):
        user = client.signin()
        await until(lambda: len(passport.signed_in) >= 3)
        passport.error = None
        await welcome(dial)
        await until(lambda: user.state is ChannelState.SUBSCRIBED)


async def test_a_sign_in_that_is_forbidden_is_not_tried_again_by_itself() -> None:
    passport = Passport()
    passport.error = Forbidden("Not you.", channel="", code=403)
    async with linked(authorizer=passport) as (client, dial, _):
        user = client.signin()
        await until(lambda: user.state is ChannelState.FAILED)
        assert user._end is not None
        await asyncio.sleep(0.1)  # the delays are hundredths of a second
        assert len(passport.signed_in) == 1
        await quiet(dial)
