"""What a client counts, and the frames it shows to who asks."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from antiphon.client import Authentication, Client, Frame
from antiphon.protocol.frames import Event
from tests.server.wire import PONG, until

from .linked import Signer, impatient, join, linked, meet, part, soon
from .peer import Dial, Peer, event_text


class Passport(Signer):
    """Signs users in as well."""

    async def authenticate(self, socket_id: str) -> Authentication:
        return Authentication("k:s3cret-user", '{"id":"7"}')


async def answered(dial: Dial) -> None:
    """All that was sent before has arrived."""
    dial.send("pusher:ping")
    while (await dial.message())["event"] != "pusher:pong":
        pass


# Traffic


def test_a_new_client_has_counted_nothing() -> None:
    stats = impatient(Peer().settings(port=1)).stats
    assert (stats.frames_received, stats.bytes_received) == (0, 0)
    assert (stats.frames_sent, stats.bytes_sent) == (0, 0)
    assert (stats.connections, stats.reconnects) == (0, 0)
    assert (stats.lag, stats.dropped, stats.paused, stats.round_trip) == (0, 0, 0.0, None)


async def test_text_messages_and_their_bytes_are_counted_in_both_directions() -> None:
    async with linked() as (client, dial, _):
        before = client.stats
        client.subscribe("news")
        asked = await dial.text()
        after = client.stats
        assert after.frames_sent - before.frames_sent == 1
        assert after.bytes_sent - before.bytes_sent == len(asked.encode())
        short, long = event_text("e", "ü", "news"), event_text("e", "ü" * 200, "news")
        for text in (short, long):
            dial.send_text(text)
        await until(lambda: client.stats.frames_received == before.frames_received + 2)
        received = client.stats.bytes_received - before.bytes_received
        assert received == len(short.encode()) + len(long.encode())


async def test_a_message_in_parts_is_one_frame_and_pings_are_none() -> None:
    async with linked() as (client, dial, _):
        before = client.stats
        text = event_text("e", 1, "news").encode()
        dial.send_frame(0x1, text[:10], fin=False)
        dial.send_frame(0x9, b"ping")
        dial.send_frame(0x0, text[10:])
        assert (await dial.frame()).opcode == PONG
        await until(lambda: client.stats.frames_received == before.frames_received + 1)
        assert client.stats.bytes_received - before.bytes_received == len(text)
        assert client.stats.frames_sent == before.frames_sent


async def test_connections_are_counted_and_what_was_counted_stays() -> None:
    async with linked() as (client, dial, peer):
        assert (client.stats.connections, client.stats.reconnects) == (1, 0)
        before = client.stats.frames_received
        await dial.hang_up()
        await (await peer.dial()).hang_up()  # no handshake, no connection
        again = await peer.dial()
        await again.greet()
        await until(lambda: client.stats.connections == 2)
        assert client.stats.reconnects == 1
        assert client.stats.frames_received == before + 1


# Slow readers


async def test_what_waits_for_slow_readers_is_the_lag() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        one, other = channel.stream("e"), client.events()
        for n in range(3):
            dial.send("e", n, "news")
        await answered(dial)
        await until(lambda: client.stats.lag == 6)
        await soon(anext(one))
        assert client.stats.lag == 5
        for _ in range(3):
            await soon(anext(other))
        assert client.stats.lag == 2
        del one
        await until(lambda: client.stats.lag == 0)


async def test_what_waits_for_an_asynchronous_handler_is_lag_too() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        free = asyncio.Event()

        @channel.bind("e")
        async def handler(_: Event) -> None:
            await free.wait()

        for n in range(3):
            dial.send("e", n, "news")
        await until(lambda: client.stats.lag == 2)
        free.set()
        await until(lambda: client.stats.lag == 0)


@pytest.mark.parametrize("policy", ["drop_oldest", "error"])
async def test_what_was_dropped_is_counted_and_stays_so(policy: Any) -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        stream = channel.stream("e", limit=2, policy=policy)
        for n in range(5):
            dial.send("e", n, "news")
        await until(lambda: client.stats.dropped == 3)
        assert stream.dropped == 3
        stream.close()
        del stream
        assert client.stats.dropped == 3


async def test_the_time_in_which_the_socket_is_not_read_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("antiphon.client.flow.monotonic", lambda: now[0])
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        stream = channel.stream("e", limit=1)
        assert client.stats.paused == 0.0
        dial.send("e", 1, "news")
        await until(lambda: not client._host.valve.is_open)
        now[0] += 2.0
        assert client.stats.paused == 2.0, "while it lasts"
        now[0] += 1.0
        await soon(anext(stream))
        now[0] += 10.0
        assert client.stats.paused == 3.0
        dial.send("e", 2, "news")
        await until(lambda: not client._host.valve.is_open)
        now[0] += 1.0
        stream.close()
        assert client.stats.paused == 4.0, "added up"


async def test_the_round_trip_is_that_of_the_last_ping_and_outlives_the_connection() -> None:
    async with linked(activity_timeout=0.02, pong_timeout=30.0) as (client, dial, peer):
        assert not client.stats.round_trip
        await dial.event("pusher:ping")
        await asyncio.sleep(0.05)
        dial.send("pusher:pong")
        await until(lambda: client.stats.round_trip)
        first = client.stats.round_trip or 0.0
        assert 0.04 <= first < 30.0
        await dial.hang_up()
        await peer.dial()
        await until(lambda: client.socket_id is None)
        assert client.stats.round_trip == first


# Frames


def seen_by(stream: Any) -> list[Frame]:
    """What a stream has so far."""
    return list(stream._inbox._items)


async def test_frames_are_shown_in_both_directions_and_in_order() -> None:
    async with linked() as (client, dial, _):
        stream = client.frames()
        client.subscribe("news")
        asked = await dial.text()
        dial.accept("news")
        dial.send("e", "ü" * 300, "news")
        frames = [await soon(anext(stream)) for _ in range(3)]
        assert [frame.direction for frame in frames] == ["out", "in", "in"]
        assert frames[0].text == asked
        assert json.loads(frames[1].text)["event"] == "pusher_internal:subscription_succeeded"
        assert frames[2].text == event_text("e", "ü" * 300, "news"), "whole"


async def test_a_signature_is_not_shown_and_all_else_is() -> None:
    signer = Passport('{"user_id":"7"}')
    async with linked(authorizer=signer) as (client, dial, _):
        stream = client.frames()
        client.subscribe("presence-x")
        sent = await dial.event("pusher:subscribe")
        client.signin()
        signed_in = await dial.event("pusher:signin")
        frames = [await soon(anext(stream)) for _ in range(2)]
        assert json.loads(frames[0].text)["data"] == {**sent, "auth": "…"}
        assert json.loads(frames[1].text)["data"] == {**signed_in, "auth": "…"}
        assert sent["auth"] not in frames[0].text
        assert "s3cret" not in frames[1].text
        assert sent["auth"] == "k:signed-1.1-presence-x", "on the wire it is"
        assert signed_in["auth"] == "k:s3cret-user"


@pytest.mark.parametrize("data", [["auth"], "auth", {"auth": "mine"}, {"a": {"auth": 1}}, None, 1])
async def test_a_client_event_that_speaks_of_auth_is_sent_and_shown_as_it_is(data: Any) -> None:
    async with linked(authorizer=Passport()) as (client, dial, _):
        channel = await join(client, dial, "private-x")
        stream = client.frames()
        assert channel.trigger("client-x", data).status == "sent"
        text = await dial.text()
        assert json.loads(text).get("data") == data
        assert (await soon(anext(stream))).text == text


async def test_a_public_channel_named_auth_is_shown_as_it_is() -> None:
    async with linked() as (client, dial, _):
        stream = client.frames()
        client.subscribe("auth")
        text = await dial.text()
        assert (await soon(anext(stream))).text == text


async def test_frames_are_shown_through_reconnections() -> None:
    async with linked() as (client, dial, peer):
        stream = client.frames()
        await dial.hang_up()
        again = await peer.dial()
        await again.greet()
        frame = await soon(anext(stream))
        assert json.loads(frame.text)["event"] == "pusher:connection_established"


async def test_who_asks_for_frames_while_a_dial_is_under_way_sees_its_first() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings())
        connecting = asyncio.ensure_future(client.connect())
        dial = await peer.dial()
        head = await dial.request()
        stream = client.frames()
        dial.send_bytes(head)
        await asyncio.sleep(0.05)  # the socket is up, and nothing said yet
        dial.establish()
        frame = await soon(anext(stream))
        assert json.loads(frame.text)["event"] == "pusher:connection_established"
        await soon(connecting)
        await part(client, peer)


async def test_a_stream_of_frames_that_is_closed_costs_nothing_more() -> None:
    async with linked() as (client, dial, _):
        one, other = client.frames(), client.frames()
        one.close()
        client.subscribe("news")
        await dial.subscribe()
        await until(lambda: len(seen_by(other)) == 2)
        assert seen_by(one) == []
        other.close()
        await answered(dial)
        assert len(seen_by(other)) == 2
        assert client._connection is not None
        assert client._connection._tap is None


async def test_frames_that_nobody_reads_never_stop_the_socket() -> None:
    async with linked() as (client, dial, _):
        stream = client.frames()
        channel = await join(client, dial, "news")
        got: list[Any] = []
        channel.bind("e", lambda e: got.append(e.data))
        for n in range(1_200):
            dial.send("e", n, "news")
        await until(lambda: len(got) == 1_200)
        assert stream.dropped == 202, "of 1,202, a thousand are kept"
        assert client.stats.dropped == 202


async def test_frames_that_are_no_text_at_all_are_shown_all_the_same() -> None:
    async with linked() as (client, dial, _):
        stream = client.frames()
        dial.send_frame(0x2, b"\xff\xfe")
        assert (await soon(anext(stream))).text == "\ufffd\ufffd"
        await answered(dial)


async def test_a_stream_of_frames_ends_with_the_client() -> None:
    async with Peer() as peer:
        client: Client = impatient(peer.settings())
        await meet(client, peer)
        stream = client.frames()
        await part(client, peer)
        assert [frame async for frame in stream] == []


# The log


async def test_the_log_has_an_excerpt_of_every_frame_and_no_signature(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="antiphon.frames")
    async with linked(authorizer=Passport()) as (client, dial, _):
        channel = await join(client, dial, "private-x")
        client.signin()
        await dial.event("pusher:signin")
        dial.send("e", "x" * 5_000, "private-x")
        channel.trigger("client-x", "y" * 5_000)
        await answered(dial)
    lines = [r.getMessage() for r in caplog.records if r.name == "antiphon.frames"]
    assert max(map(len, lines)) <= 300
    assert {line[0] for line in lines} == {"<", ">"}
    text = "\n".join(lines)
    assert "xxxxx" in text
    assert "yyyyy" in text
    assert "pusher:signin" in text
    assert "k:signed" not in text
    assert "s3cret" not in text


async def test_the_log_of_frames_is_silent_unless_it_is_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, logger="antiphon.frames")
    async with linked() as (client, dial, _):
        await join(client, dial, "news")
        assert client._connection is not None
        assert client._connection._tap is None
    assert [r for r in caplog.records if r.name == "antiphon.frames"] == []
