"""Encrypted channels: what arrives in clear, what does not, and how a new key is come by."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antiphon.client import (
    Authorization,
    ChannelState,
    Client,
    EncryptedChannel,
    SecretAuthorizer,
    subscriptions,
)
from antiphon.errors import (
    AntiphonError,
    AuthServerError,
    DecryptionFailed,
    Forbidden,
    MalformedAuthResponse,
    SettingsError,
)
from antiphon.protocol.encryption import encrypt
from antiphon.protocol.frames import Event
from antiphon.publisher import Publisher
from antiphon.server import Server
from antiphon.settings import App
from tests.server.wire import TIMEOUT, until

from .linked import Signer, impatient, join, linked, soon, watch
from .peer import Dial, Peer

NAME = "private-encrypted-x"
KEY, NEW_KEY = bytes(range(32)), bytes(range(32, 64))


class Message(msgspec.Struct):
    id: int


class KeyGiver(Signer):
    """Gives the key of every encrypted channel, and whatever else a test wants."""

    def __init__(self, key: bytes = KEY) -> None:
        super().__init__()
        self.secret: Any = base64.b64encode(key).decode()

    def give(self, key: bytes) -> None:
        self.secret = base64.b64encode(key).decode()

    async def authorize(self, channel: str, socket_id: str) -> Authorization:
        answer = await super().authorize(channel, socket_id)
        return msgspec.structs.replace(answer, shared_secret=self.secret)


class Time:
    """Stands in for `monotonic`."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(subscriptions, "monotonic", time)
    return time


def send(dial: Dial, data: Any, *, key: bytes = KEY, event: str = "e", name: str = NAME) -> None:
    """Let the peer send an event that is encrypted."""
    dial.send(event, encrypt(key, json.dumps(data), os.urandom(24)), name)


@contextlib.asynccontextmanager
async def joined(
    giver: KeyGiver | None = None,
) -> AsyncIterator[tuple[Client, Dial, Peer, EncryptedChannel]]:
    """A client with an encrypted channel, which is joined."""
    async with linked(authorizer=giver or KeyGiver()) as (client, dial, peer):
        channel = await join(client, dial, NAME)
        assert isinstance(channel, EncryptedChannel)
        yield client, dial, peer, channel


async def answered(dial: Dial) -> None:
    """All that was sent before has arrived."""
    dial.send("pusher:ping")
    assert (await dial.message())["event"] == "pusher:pong"


def errors(seen: list[Any]) -> list[AntiphonError]:
    return [o for o in seen if isinstance(o, AntiphonError)]


def data_of(seen: list[Any], name: str = "e") -> list[Any]:
    return [o.data for o in seen if isinstance(o, Event) and o.name == name]


# In clear


async def test_the_data_is_in_clear_wherever_events_are_seen() -> None:
    async with joined() as (client, dial, _, channel):
        seen = watch(client)
        plain: list[Any] = []
        typed: list[Message] = []
        at_client: list[Any] = []
        everything: list[Event] = []
        channel.bind("e", lambda e: plain.append(e.data))
        channel.bind("e", typed.append, type=Message)
        channel.bind_all(everything.append)
        client.bind("e", at_client.append, type=Message)
        client.bind_all(everything.append)
        asynchronous: list[int] = []

        @channel.bind("e", type=Message)
        async def handler(message: Message) -> None:
            asynchronous.append(message.id)

        streams = [channel.stream("e"), client.events()]
        waiting = asyncio.ensure_future(channel.wait_for("e", Message))
        await asyncio.sleep(0)
        send(dial, {"id": 5})
        assert await soon(waiting) == Message(5)
        for stream in streams:
            event = await soon(anext(stream))
            assert (event.name, event.channel, event.data) == ("e", NAME, {"id": 5})
        await until(lambda: asynchronous == [5])
        assert plain == [{"id": 5}]
        assert typed == at_client == [Message(5)]
        assert [e.data for e in everything] == [{"id": 5}] * 2
        assert data_of(seen) == [{"id": 5}], "told once, and never sealed"
        assert data_of(list(client.history)) == [{"id": 5}]


async def test_what_the_server_itself_says_of_the_channel_is_not_encrypted() -> None:
    async with joined() as (client, dial, _, channel):
        seen = watch(client)
        dial.send("pusher_internal:subscription_count", {"subscription_count": 3}, NAME)
        await until(lambda: channel.subscription_count == 3)
        assert errors(seen) == []


async def test_a_real_server_passes_on_what_a_publisher_encrypts() -> None:
    async with Server(App(id="1", key="k", secret="s")) as server:
        master = base64.b64encode(os.urandom(32)).decode()
        plain = server.settings()
        given = msgspec.structs.replace(plain, encryption_master_key=master)
        async with (
            impatient(plain, authorizer=SecretAuthorizer(given)) as client,
            Publisher(given) as publisher,
        ):
            channel = client.subscribe(NAME)
            await channel.subscribed(TIMEOUT)
            stream = channel.stream("order", Message)
            await publisher.trigger(NAME, "order", {"id": 5})
            assert await soon(anext(stream)) == Message(5)


# The key


@pytest.mark.parametrize(
    "secret",
    [
        None,
        "",
        "not base64!",
        "ünï",
        base64.b64encode(bytes(31)).decode(),
        base64.b64encode(bytes(33)).decode(),
        7,
        ["a"],
    ],
)
async def test_a_signature_without_a_usable_key_fails_the_channel_and_says_why(
    secret: Any,
) -> None:
    giver = KeyGiver()
    giver.secret = secret
    async with linked(authorizer=giver) as (client, dial, _):
        channel = client.subscribe(NAME)
        with pytest.raises(MalformedAuthResponse, match="shared_secret") as caught:
            await channel.subscribed(TIMEOUT)
        assert caught.value.channel == NAME
        assert channel.state is ChannelState.FAILED
        assert isinstance(secret, str | None) is False or not secret or secret not in str(caught)
        await join(client, dial, "news")


async def test_a_key_that_has_changed_is_asked_for_once_and_nothing_is_lost_or_mixed_up() -> None:
    giver = KeyGiver()
    async with joined(giver) as (client, dial, _, channel):
        seen = watch(client)
        got: list[Any] = []
        channel.bind("e", lambda e: got.append(e.data))
        giver.give(NEW_KEY)
        giver.free.clear()
        send(dial, 1)
        send(dial, 2, key=NEW_KEY)
        send(dial, 3, key=NEW_KEY)
        await until(lambda: len(giver.asked) == 2)
        send(dial, 4, key=NEW_KEY)
        await answered(dial)
        assert got == [1], "the others wait for the key"
        giver.free.set()
        await until(lambda: len(got) == 4)
        assert got == [1, 2, 3, 4]
        assert data_of(seen) == data_of(list(client.history)) == [1, 2, 3, 4]
        assert errors(seen) == []
        assert giver.asked == [(NAME, client.socket_id)] * 2


async def test_an_event_that_needs_no_new_key_does_not_overtake_one_that_does() -> None:
    giver = KeyGiver()
    async with joined(giver) as (_, dial, _, channel):
        got: list[Any] = []
        channel.bind("e", lambda e: got.append(e.data))
        giver.free.clear()
        giver.give(NEW_KEY)
        send(dial, 1, key=NEW_KEY)
        send(dial, 2)
        await until(lambda: len(giver.asked) == 2)
        await answered(dial)
        assert got == []
        giver.free.set()
        await until(lambda: got == [1])


async def test_what_no_key_opens_is_reported_after_one_question() -> None:
    giver = KeyGiver()
    async with joined(giver) as (client, dial, _, channel):
        seen = watch(client)
        got: list[Any] = []
        channel.bind_all(lambda e: got.append(e.data))
        send(dial, 1, key=NEW_KEY)
        send(dial, 2)
        await until(lambda: got == [2])
        (error,) = errors(seen)
        assert isinstance(error, DecryptionFailed)
        assert (error.event, error.channel) == ("e", NAME)
        assert "master key" in str(error)
        assert len(giver.asked) == 2
        assert data_of(seen) == data_of(list(client.history)) == [2]
        assert channel.is_subscribed


async def test_no_more_than_one_new_key_is_asked_for_in_a_second(time: Time) -> None:
    giver = KeyGiver()
    async with joined(giver) as (client, dial, _, _):
        seen = watch(client)
        send(dial, 1, key=NEW_KEY)
        await until(lambda: len(errors(seen)) == 1)
        time.now += 0.99
        for n in range(3):
            send(dial, n, key=NEW_KEY)
        await until(lambda: len(errors(seen)) == 4)
        assert len(giver.asked) == 2
        time.now += 0.01
        send(dial, 5, key=NEW_KEY)
        await until(lambda: len(errors(seen)) == 5)
        assert len(giver.asked) == 3


async def test_a_new_connection_brings_a_new_key() -> None:
    giver = KeyGiver()
    async with joined(giver) as (client, dial, peer, channel):
        seen = watch(client)
        got: list[Any] = []
        channel.bind("e", lambda e: got.append(e.data))
        giver.give(NEW_KEY)
        await dial.hang_up()
        again = await peer.dial()
        await until(lambda: channel.state is ChannelState.PENDING)
        assert channel.key is None
        await again.greet()
        await again.subscribe()
        send(again, 1, key=NEW_KEY)
        await until(lambda: got == [1])
        assert len(giver.asked) == 2
        assert not any(isinstance(error, DecryptionFailed) for error in errors(seen))


async def test_a_new_connection_may_ask_for_a_key_though_the_old_one_just_has(time: Time) -> None:
    giver = KeyGiver()
    async with joined(giver) as (client, dial, peer, channel):
        seen = watch(client)
        send(dial, 1, key=NEW_KEY)
        await until(lambda: errors(seen))
        await dial.hang_up()
        again = await peer.dial()
        await again.greet()
        await again.subscribe()
        await channel.subscribed(TIMEOUT)
        giver.give(NEW_KEY)
        stream = channel.stream("e")
        send(again, 2, key=NEW_KEY)
        assert (await soon(anext(stream))).data == 2


# What happens while a key is asked for


async def test_a_question_for_a_key_that_fails_is_reported_and_so_is_what_waited(
    time: Time,
) -> None:
    giver = KeyGiver()
    async with joined(giver) as (client, dial, _, channel):
        seen = watch(client)
        got: list[Any] = []
        channel.bind("e", lambda e: got.append(e.data))
        giver.errors[NAME] = Forbidden("No longer yours.", channel=NAME, code=403)
        send(dial, 1, key=NEW_KEY)
        send(dial, 2)
        await until(lambda: got == [2])
        assert [type(error) for error in errors(seen)] == [Forbidden, DecryptionFailed]
        assert channel.is_subscribed, "what the old key opens still comes"
        del giver.errors[NAME]
        giver.give(NEW_KEY)
        time.now += 1.0
        send(dial, 3, key=NEW_KEY)
        await until(lambda: got == [2, 3])


@pytest.mark.parametrize("secret", [None, "short", 7])
async def test_a_question_for_a_key_that_brings_none_is_reported(secret: Any) -> None:
    giver = KeyGiver()
    async with joined(giver) as (client, dial, _, channel):
        seen = watch(client)
        giver.secret = secret
        send(dial, 1, key=NEW_KEY)
        await until(lambda: len(errors(seen)) == 2)
        assert [type(e) for e in errors(seen)] == [MalformedAuthResponse, DecryptionFailed]
        assert channel.is_subscribed


async def test_an_authorizer_that_breaks_while_a_key_is_asked_for_is_reported() -> None:
    giver = KeyGiver()
    async with joined(giver) as (client, dial, _, channel):
        seen = watch(client)
        giver.errors[NAME] = ZeroDivisionError("in the authorizer")
        send(dial, 1, key=NEW_KEY)
        await until(lambda: len(errors(seen)) == 2)
        assert [type(e) for e in errors(seen)] == [AuthServerError, DecryptionFailed]
        assert channel.is_subscribed


async def test_leaving_while_a_key_is_asked_for_lets_go_of_what_waits() -> None:
    giver = KeyGiver()
    async with joined(giver) as (client, dial, _, channel):
        seen = watch(client)
        giver.free.clear()
        for n in range(1_100):  # more than may wait: the socket is read no further
            send(dial, n, key=NEW_KEY)
        await until(lambda: not client._host.valve.is_open)
        channel.unsubscribe()
        assert await dial.event("pusher:unsubscribe") == {"channel": NAME}
        await join(client, dial, "news")
        assert client._host.valve.is_open
        assert giver.at_once == 0
        assert client.stats.lag == 0
        assert errors(seen) == []


async def test_closing_while_a_key_is_asked_for_leaves_nothing() -> None:
    giver = KeyGiver()
    async with joined(giver) as (_, dial, _, _):
        giver.free.clear()
        send(dial, 1, key=NEW_KEY)
        await until(lambda: giver.at_once)
    assert giver.at_once == 0


async def test_what_waits_for_a_key_when_the_connection_is_lost_is_opened_with_the_next() -> None:
    giver = KeyGiver()
    async with joined(giver) as (client, dial, peer, channel):
        seen = watch(client)
        got: list[Any] = []
        channel.bind("e", lambda e: got.append(e.data))
        giver.free.clear()
        send(dial, 1, key=NEW_KEY)
        await until(lambda: giver.at_once)
        await dial.hang_up()
        again = await peer.dial()
        await again.greet()
        giver.give(NEW_KEY)
        giver.free.set()
        await again.subscribe()
        send(again, 2, key=NEW_KEY)
        await until(lambda: len(got) == 2)
        assert got == [1, 2]
        assert not any(isinstance(error, DecryptionFailed) for error in errors(seen))


async def test_what_waited_for_a_key_that_is_refused_afterwards_is_reported() -> None:
    giver = KeyGiver()
    async with joined(giver) as (client, dial, peer, channel):
        seen = watch(client)
        giver.free.clear()
        send(dial, 1, key=NEW_KEY)
        await until(lambda: giver.at_once)
        await dial.hang_up()
        again = await peer.dial()
        await again.greet()
        giver.errors[NAME] = Forbidden("No longer yours.", channel=NAME, code=403)
        giver.free.set()
        with pytest.raises(Forbidden):
            await channel.subscribed(TIMEOUT)
        await until(lambda: isinstance(errors(seen)[-1], DecryptionFailed))
        assert len([e for e in errors(seen) if isinstance(e, DecryptionFailed)]) == 1
        assert client.stats.lag == 0


async def test_a_handler_may_leave_the_channel_while_what_waited_is_delivered() -> None:
    giver = KeyGiver()
    async with joined(giver) as (client, dial, _, channel):
        seen = watch(client)
        got: list[Any] = []

        def once(event: Event) -> None:
            got.append(event.data)
            channel.unsubscribe()

        channel.bind("e", once)
        giver.free.clear()
        giver.give(NEW_KEY)
        for n in range(3):
            send(dial, n, key=NEW_KEY)
        await until(lambda: giver.at_once)
        await answered(dial)
        giver.free.set()
        await dial.event("pusher:unsubscribe")
        assert got == [0]
        assert data_of(seen) == [0], "a channel that was left tells nothing more"
        assert errors(seen) == []


# Strangers


async def test_what_is_not_encrypted_on_an_encrypted_channel_is_not_believed(time: Time) -> None:
    async with joined() as (client, dial, _, channel):
        seen = watch(client)
        got: list[Any] = []
        channel.bind_all(got.append)
        strange: list[Any] = [{"id": 1}, "text", None, [], {"nonce": "", "ciphertext": ""}]
        for data in strange:
            dial.send("e", data, NAME)
        await until(lambda: len(errors(seen)) == 5)
        assert {type(error) for error in errors(seen)} == {DecryptionFailed}
        assert got == []
        assert data_of(seen) == []


async def test_an_event_before_the_channel_is_joined_breaks_nothing() -> None:
    giver = KeyGiver()
    giver.free.clear()
    async with linked(authorizer=giver) as (client, dial, _):
        channel = client.subscribe(NAME)
        got: list[Any] = []
        channel.bind("e", lambda e: got.append(e.data))
        await until(lambda: giver.at_once)
        send(dial, 1)
        await answered(dial)
        giver.free.set()
        await dial.subscribe()
        await channel.subscribed(TIMEOUT)
        send(dial, 2)
        await until(lambda: got and got[-1] == 2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
SEALED = st.fixed_dictionaries(
    {
        "nonce": JSON | st.binary(max_size=40).map(lambda raw: base64.b64encode(raw).decode()),
        "ciphertext": JSON | st.binary(max_size=40).map(lambda raw: base64.b64encode(raw).decode()),
    }
)


def sealed_badly(raw: bytes) -> dict[str, str]:
    """Something that opens, and is no text inside."""
    from nacl.secret import SecretBox

    nonce = bytes(24)
    sealed = SecretBox(KEY).encrypt(raw, nonce).ciphertext
    return {
        "nonce": base64.b64encode(nonce).decode(),
        "ciphertext": base64.b64encode(sealed).decode(),
    }


@given(st.lists(JSON | SEALED | st.binary(max_size=9).map(sealed_badly), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_hostile_payloads_cost_an_error_at_most_and_never_the_connection(data: list[Any]) -> None:
    async def receive() -> None:
        async with joined() as (client, dial, _, channel):
            channel.bind("e", lambda m: None, type=Message)
            for item in data:
                dial.send("e", item, NAME)
                dial.send_text(json.dumps({"event": "e", "channel": NAME, "data": item}))
            stream = channel.stream("last")
            send(dial, "end", event="last")
            assert (await soon(anext(stream))).data == "end"
            assert client.stats.connections == 1

    asyncio.run(receive())


async def test_without_pynacl_the_channel_is_refused_at_once_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "nacl.secret", None)
    async with linked(authorizer=KeyGiver()) as (client, dial, _):
        with pytest.raises(SettingsError, match=r"antiphon\[encryption\]"):
            client.subscribe(NAME)
        assert client.channels == {}
        dial.send("e", {"nonce": "", "ciphertext": ""}, NAME)
        await join(client, dial, "news")
        assert client.stats.connections == 1
