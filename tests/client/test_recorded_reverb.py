"""Our client, over a real socket, with what Reverb 1.10 and soketi 1.6 were recorded to say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from antiphon.client import (
    ChannelState,
    Client,
    ConnectingIn,
    ConnectionState,
    PresenceChannel,
    Subscribed,
)
from antiphon.errors import (
    AntiphonError,
    ConnectionFailed,
    ConnectionLost,
    Refused,
    ServerReportedError,
    SubscriptionFailed,
    Unreachable,
)
from antiphon.protocol.events import Closed as Ended
from antiphon.protocol.events import Connected
from antiphon.protocol.frames import Event
from tests.protocol.recordings import FROM_CLIENT, FROM_SERVER, Line, Replay, lines, names
from tests.server.wire import PING, PONG, TIMEOUT, Closed, until

from .linked import Signer, impatient, soon, states, watch
from .peer import Dial, Peer, polite


def spoken(name: str, conn: str, *, after: str = "", before: str = "") -> list[Line]:
    """The lines of one connection; its greeting, and what lies between two notes."""
    found: list[Line] = []
    within = not after
    for line in lines(name):
        if line.dir == "note":
            within = within or (line.text or "").startswith(after)
            if before and (line.text or "").startswith(before):
                break
        greeting = line.frame is not None and "connection_established" in line.frame
        if line.conn == conn and (within or greeting):
            found.append(line)
    assert found
    return found


async def play(dial: Dial, spoken: list[Line], *, in_step: bool = True) -> None:
    """Say what the server said, and end as it ended, or when the client leaves."""
    await dial.upgrade()
    if not await say(dial, spoken, in_step=in_step):
        await dial.closed()


async def say(dial: Dial, spoken: list[Line], *, in_step: bool) -> bool:
    """Say what the server said; whether it has ended the connection.

    In step, each thing the recorded client said is waited for.
    """
    for line in spoken:
        if line.dir == "close":
            if line.code != 1006:
                dial.send_close(line.code, line.reason)
                await dial.closed()
            return True
        if line.dir == "ping_frame_in" or (line.dir in FROM_SERVER and line.control == "ws-ping"):
            dial.send_frame(PING)
            if in_step:
                assert (await dial.frame()).opcode == PONG
        elif line.dir in FROM_SERVER and line.frame is not None:
            dial.send_text(line.frame)
        elif in_step and line.dir in FROM_CLIENT and line.json is not None:
            heard = await dial.message()
            assert heard["event"] == line.json["event"]
    return False


@contextlib.asynccontextmanager
async def hearing(
    spoken: list[Line], *, in_step: bool = True, **options: Any
) -> AsyncIterator[tuple[Client, Peer]]:
    """A client that hears a recording; later dials meet a server that does nothing wrong."""

    async def script(dial: Dial) -> None:
        if dial.number == 1:
            await play(dial, spoken, in_step=in_step)
        else:
            await polite(dial)

    async with Peer(script) as peer:
        client = impatient(peer.settings(), **{"authorizer": Signer(), **options})
        try:
            yield client, peer
        finally:
            await soon(client.close())


def errors(seen: list[Any]) -> list[AntiphonError]:
    return [o for o in seen if isinstance(o, AntiphonError)]


def events(seen: list[Any]) -> list[Event]:
    return [o for o in seen if isinstance(o, Event)]


def delays(seen: list[Any]) -> list[float]:
    return [o.seconds for o in seen if isinstance(o, ConnectingIn)]


# Connecting


@pytest.mark.parametrize(("conn", "timeout"), [("a", 30), ("noquery", 30), ("ping", 7)])
async def test_reverbs_greeting_gives_a_socket_id_and_its_activity_timeout(
    conn: str, timeout: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "antiphon.connection")
    said = spoken("reverb/connect_ok", conn)
    async with hearing(said[:4]) as (client, _):
        await soon(client.connect())
        socket_id = json.loads(said[3].json["data"])["socket_id"]
        assert client.socket_id == socket_id
        assert f"connected as {socket_id}, activity timeout {timeout} s" in caplog.text


async def test_reverbs_4001_in_band_and_an_end_without_a_close_frame_is_one_dial() -> None:
    async with hearing(spoken("reverb/connect_unknown_key", "a")) as (client, peer):
        seen = watch(client)
        with pytest.raises(Refused) as caught:
            await soon(client.connect())
        assert caught.value.code == 4001
        assert "Application does not exist" in str(caught.value)
        assert client.state is ConnectionState.FAILED
        assert delays(seen) == []
        assert len(peer.dials) == 1


async def test_reverbs_quota_leaves_the_socket_open_and_the_client_leaves() -> None:
    left: list[Closed] = []
    said = spoken("reverb/connection_limit", "c5", before="is c5 still open")

    async def script(dial: Dial) -> None:
        await dial.upgrade()
        dial.send_text(next(line.frame for line in said if line.frame) or "")
        left.append(await dial.closed())

    async with Peer(script) as peer:
        client = impatient(peer.settings())
        with pytest.raises(Refused) as caught:
            await soon(client.connect())
        assert caught.value.code == 4004
        await until(lambda: left)
        assert left[0].code == 1000
        assert len(peer.dials) == 1
        await client.close()


@pytest.mark.parametrize("conn", ["bad", "none", "prefixed", "case"])
async def test_reverbs_refusal_of_an_origin_ends_it(conn: str) -> None:
    said = [line for line in spoken("reverb/connect_origin", conn) if line.dir != "out"][:4]
    async with hearing(said) as (client, peer):
        with pytest.raises(Refused, match="Origin not allowed") as caught:
            await soon(client.connect())
        assert caught.value.code == 4009
        assert len(peer.dials) == 1


@pytest.mark.parametrize(
    ("name", "conn", "code"),
    [("soketi/unknown_app_key", "a", 4001), ("soketi/app_disabled", "a", 4003)],
)
async def test_soketi_says_it_in_band_and_with_the_close_code(
    name: str, conn: str, code: int
) -> None:
    async with hearing(spoken(name, conn)) as (client, peer):
        with pytest.raises(Refused) as caught:
            await soon(client.connect())
        assert caught.value.code == code
        assert len(peer.dials) == 1


async def test_soketis_quota_is_worth_another_attempt() -> None:
    async with hearing(spoken("soketi/connection_quota", "c")) as (client, peer):
        seen = watch(client)
        await soon(client.connect())
        assert len(peer.dials) == 2
        (error,) = errors(seen)
        assert isinstance(error, Unreachable)
        assert error.code == 4100
        assert delays(seen)[0] >= 0.01


# Channels


async def test_reverbs_4009_without_a_channel_fails_the_pending_one_and_no_other() -> None:
    said = spoken("reverb/subscribe_private", "a", before="no auth")
    async with hearing(said) as (client, peer):
        await soon(client.connect())
        good = client.subscribe("private-x")
        await good.subscribed(TIMEOUT)
        seen = watch(client)
        bad = client.subscribe("private-y")
        with pytest.raises(SubscriptionFailed, match="Connection is unauthorized") as caught:
            await bad.subscribed(TIMEOUT)
        assert (caught.value.channel, caught.value.code) == ("private-y", 4009)
        assert errors(seen) == [caught.value]
        assert bad.state is ChannelState.FAILED
        assert good.is_subscribed
        assert client.state is ConnectionState.CONNECTED
        assert len(peer.dials) == 1


async def test_soketis_refusal_names_the_channel() -> None:
    said = spoken("soketi/subscribe_private_bad_auth", "a")
    async with hearing(said) as (client, peer):
        await soon(client.connect())
        for name in ("private-x", "private-y", "private-z"):
            with pytest.raises(SubscriptionFailed, match="unauthorized") as caught:
                await client.subscribe(name).subscribed(TIMEOUT)
            assert (caught.value.channel, caught.value.code) == (name, 401)
        assert len(peer.dials) == 1


async def test_reverbs_members_may_have_numbers_for_ids_and_a_list_for_a_hash() -> None:
    said = spoken("reverb/subscribe_presence_odd", "a", before="no user_info")
    me = json.dumps({"user_id": "0", "user_info": {"name": "N0"}})
    async with hearing(said, authorizer=Signer(me)) as (client, _):
        await soon(client.connect())
        rooms: dict[str, PresenceChannel] = {}
        for name in ("presence-int", "presence-zero", "presence-seq"):
            room = client.subscribe(name)
            assert isinstance(room, PresenceChannel)
            await room.subscribed(TIMEOUT)
            rooms[name] = room
        await until(lambda: rooms["presence-seq"].members.count == 2)
        assert {name: {m.id: m.info for m in room.members} for name, room in rooms.items()} == {
            "presence-int": {"7": {"name": "N7"}, "8": {"name": "N8"}},
            "presence-zero": {"0": {"name": "N0"}},
            "presence-seq": {"0": {"name": "N0"}, "1": {"name": "N1"}},
        }
        me_there = rooms["presence-zero"].members.me
        assert me_there is not None
        assert me_there.info == {"name": "N0"}


async def test_reverbs_4200_for_a_member_without_info_fails_that_channel() -> None:
    said = spoken("reverb/subscribe_presence_odd", "a", after="no user_info", before="user_info")
    async with hearing(said) as (client, peer):
        await soon(client.connect())
        room = client.subscribe("presence-noinfo")
        with pytest.raises(SubscriptionFailed) as caught:
            await room.subscribed(TIMEOUT)
        assert caught.value.code == 4200
        assert len(peer.dials) == 1


async def test_reverbs_members_come_and_go() -> None:
    said = spoken("reverb/subscribe_presence", "a", before="a double-subscribes")
    me = json.dumps({"user_id": "10", "user_info": {"name": "N10"}})
    async with hearing(said, authorizer=Signer(me)) as (client, _):
        await soon(client.connect())
        seen = watch(client)
        room = client.subscribe("presence-room")
        assert isinstance(room, PresenceChannel)
        await until(lambda: len(events(seen)) == 6)
        assert [(e.name, e.data) for e in events(seen)] == [
            ("pusher:subscription_succeeded", {"count": 1, "ids": ["10"]}),
            ("pusher:member_added", {"id": "20", "info": {"name": "N20"}}),
            ("hello", {"n": 1}),
            ("pusher:member_removed", {"id": "20", "info": {"name": "N20"}}),
            ("pusher:member_added", {"id": "30", "info": {"name": "N30"}}),
            ("pusher:member_removed", {"id": "30", "info": {"name": "N30"}}),
        ]
        assert [member.id for member in room.members] == ["10"]


async def test_soketis_members_may_have_no_id_at_all() -> None:
    said = spoken("soketi/presence_user_id_types", "c")
    async with hearing(said) as (client, peer):
        await soon(client.connect())
        seen = watch(client)
        room = client.subscribe("presence-n", PresenceChannel)
        await until(lambda: len(events(seen)) == 3)
        assert [(e.name, e.data) for e in events(seen)] == [
            ("pusher:subscription_succeeded", {"count": 1, "ids": ["7"]}),
            ("pusher:member_removed", {"id": "7", "info": None}),
            ("pusher:member_removed", {"id": "7", "info": None}),
        ]
        assert room.members.count == 0
        assert len(peer.dials) >= 1


async def test_reverbs_cache_channels_say_what_they_miss_and_what_was_last() -> None:
    said = spoken("reverb/cache_channel", "a", before="private-cache-")
    async with hearing(said) as (client, _):
        await soon(client.connect())
        seen = watch(client)
        client.subscribe("cache-c")
        await until(lambda: len(events(seen)) == 3)
        assert [(e.name, e.data) for e in events(seen)] == [
            ("pusher:subscription_succeeded", None),
            ("pusher:cache_miss", None),
            ("last", {"v": 1}),
        ]


# Events


async def test_reverbs_client_events_have_data_as_an_object_and_their_senders_id() -> None:
    said = spoken("reverb/client_events", "b", before="presence, spoofed")
    me = json.dumps({"user_id": "b", "user_info": {"name": "Nb"}})
    async with hearing(said, authorizer=Signer(me), in_step=False) as (client, _):
        for name in ("private-p", "pub", "presence-p"):
            client.subscribe(name)
        seen = watch(client)
        await soon(client.connect())
        await until(lambda: len([e for e in events(seen) if e.name == "client-hi"]) == 2)
        assert [(e.channel, e.data, e.user_id) for e in events(seen) if e.name == "client-hi"] == [
            ("private-p", {"x": 1}, None),
            ("presence-p", {"x": 1}, "a"),
        ]


@pytest.mark.parametrize(
    ("conn", "code"), [("out", 4009), ("none1", 4301)], ids=["no member", "switched off"]
)
async def test_reverbs_refusal_of_a_client_event_is_reported_and_the_connection_stays(
    conn: str, code: int
) -> None:
    said = [line for line in spoken("reverb/client_events", conn) if line.dir == "in"]
    async with hearing(said, in_step=False) as (client, peer):
        seen = watch(client)
        await soon(client.connect())
        await until(lambda: errors(seen))
        assert isinstance(errors(seen)[0], ServerReportedError)
        assert errors(seen)[0].code == code
        assert client.state is ConnectionState.CONNECTED
        assert len(peer.dials) == 1


async def test_reverbs_4200_in_band_is_reported_each_time_and_the_connection_stays() -> None:
    said = [line for line in spoken("reverb/malformed", "a") if line.dir == "in"]
    complaints = sum('"pusher:error"' in (line.frame or "") for line in said)
    assert complaints > 10
    async with hearing(said, in_step=False) as (client, peer):
        seen = watch(client)
        await soon(client.connect())
        await until(lambda: len(errors(seen)) == complaints)
        assert {error.code for error in errors(seen)} <= {4200, 4009}
        assert {type(error) for error in errors(seen)} == {ServerReportedError}
        assert client.state is ConnectionState.CONNECTED
        assert len(peer.dials) == 1


async def test_soketis_events_have_data_of_every_kind() -> None:
    said = spoken("soketi/event_data_forms", "a")
    async with hearing(said) as (client, peer):
        await soon(client.connect())
        seen = watch(client)
        channel = client.subscribe("pub-f")
        await channel.subscribed(TIMEOUT)
        expected = {"plain": "just text", "json": {"a": 1}, "object": {"a": 1}, "array": [1, 2]}
        await until(lambda: any(e.name == "number" for e in events(seen)))
        got = {e.name: e.data for e in events(seen)}
        assert {name: got[name] for name in expected} == expected
        assert got["number"] == 5
        assert len(peer.dials) == 1


# Staying alive


async def test_reverbs_pings_are_answered() -> None:
    said = spoken("reverb/idle_ping_prune", "subscribed_pongs")
    assert sum('"pusher:ping"' in (line.frame or "") for line in said) == 3
    done: list[bool] = []

    async def script(dial: Dial) -> None:
        await dial.upgrade()
        done.append(not await say(dial, said, in_step=True))  # each ping has had its pong
        await dial.closed()

    async with Peer(script) as peer:
        client = impatient(peer.settings())
        client.subscribe("pub")
        await soon(client.connect())
        await until(lambda: done)
        assert done == [True]
        await soon(client.close())


async def test_reverbs_websocket_ping_is_answered() -> None:
    said = [
        line
        for line in spoken("reverb/idle_ping_prune", "control_frames_autopong")
        if line.dir in ("in", "out", "ping_frame_in")
    ]
    assert sum(line.dir == "ping_frame_in" for line in said) == 3
    done: list[bool] = []

    async def script(dial: Dial) -> None:
        await dial.upgrade()
        done.append(not await say(dial, said, in_step=True))  # each ping has had its pong
        await dial.closed()

    async with Peer(script) as peer:
        client = impatient(peer.settings())
        client.subscribe("pub")
        await soon(client.connect())
        await until(lambda: done)
        assert done == [True]
        await soon(client.close())


@pytest.mark.parametrize("conn", ["subscribed_silent", "control_frames_silent"])
async def test_who_was_pruned_by_reverb_comes_back_at_once(conn: str) -> None:
    said = [line for line in spoken("reverb/idle_ping_prune", conn) if line.dir != "out"]
    async with hearing(said, in_step=False) as (client, peer):
        seen = watch(client)
        channel = client.subscribe("pub")
        await soon(client.connect())
        await until(lambda: seen.count(Subscribed("pub")) == 2)
        assert channel.is_subscribed
        assert len(peer.dials) == 2
        assert delays(seen) == [0]
        lost = [error for error in errors(seen) if isinstance(error, ConnectionLost)]
        assert [error.code for error in lost] == [4201]


async def test_who_was_pruned_by_soketi_comes_back_at_once() -> None:
    said = spoken("soketi/idle_timeout", "silent")
    async with hearing(said, in_step=False) as (client, peer):
        seen = watch(client)
        await soon(client.connect())
        await until(lambda: len(peer.dials) == 2 and client.state is ConnectionState.CONNECTED)
        assert delays(seen) == [0]


@pytest.mark.parametrize(
    "name", ["shutdown_sigterm", "shutdown_sigint", "shutdown_sigkill", "shutdown_restart_command"]
)
async def test_reverbs_shutdown_is_survived(name: str) -> None:
    async with hearing(spoken(f"reverb/{name}", "subscribed")) as (client, peer):
        seen = watch(client)
        channel = client.subscribe("pub")
        await soon(client.connect())
        await until(lambda: seen.count(Subscribed("pub")) == 2)
        assert channel.is_subscribed
        assert len(peer.dials) == 2
        assert delays(seen)[0] >= 0.01, "backed off: a server that went down needs time"
        assert states(seen) == [
            ConnectionState.CONNECTING,
            ConnectionState.CONNECTED,
            ConnectionState.CONNECTING,
            ConnectionState.CONNECTED,
        ]


async def test_reverbs_rate_limit_is_reported_and_then_lost_without_a_word() -> None:
    said = [line for line in spoken("reverb/rate_limit", "a") if line.dir == "in"]
    async with hearing(said, in_step=False) as (client, _):
        seen = watch(client)
        await soon(client.connect())
        await until(lambda: len(errors(seen)) == 3)
        assert {error.code for error in errors(seen)} == {4301}
        assert client.state is ConnectionState.CONNECTED
    async with hearing(spoken("reverb/rate_limit", "b"), in_step=False) as (client, peer):
        await soon(client.connect())
        await until(lambda: len(peer.dials) == 2 and client.state is ConnectionState.CONNECTED)


async def test_soketi_ends_a_connection_that_does_not_sign_in() -> None:
    async with hearing(spoken("soketi/signin_timeout", "a")) as (client, peer):
        await soon(client.connect())
        with pytest.raises(ConnectionFailed) as caught:
            await soon(client.wait_closed())
        assert caught.value.code == 4009
        assert len(peer.dials) == 1


# All of them


@pytest.mark.parametrize("name", sorted(names("reverb", "soketi", "pusher-js")))
async def test_over_a_socket_a_recording_comes_to_what_it_comes_to_in_memory(name: str) -> None:
    replay, recorded = Replay(name), lines(name)
    for conn in list(replay.clients)[:4]:
        said = [line for line in recorded if line.conn == conn]
        if any(line.dir in FROM_SERVER for line in said):  # else refused over HTTP
            await comes_to(said, replay[conn])


async def comes_to(said: list[Line], outcomes: list[Any]) -> None:
    plain = own([outcome for outcome in outcomes if isinstance(outcome, Event)])
    async with hearing(said, in_step=False, min_delay=60, max_delay=60) as (client, _):
        seen = watch(client)
        connecting = asyncio.ensure_future(client.connect())
        if any(isinstance(outcome, Ended) for outcome in outcomes):
            await until(lambda: client.state is ConnectionState.FAILED or delays(seen))
        elif any(isinstance(outcome, Connected) for outcome in outcomes):
            await soon(connecting)
        await until(lambda: len(own(events(seen))) >= len(plain))
        assert own(events(seen)) == plain
        await client.disconnect()
        await asyncio.wait([connecting])
        connecting.exception()


def own(found: list[Event]) -> list[Event]:
    """The application's events: those of the protocol are told in other words."""
    return [event for event in found if not event.name.startswith("pusher")]
