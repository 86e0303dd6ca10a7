"""What soketi, Reverb, pusher-js and two HTTP libraries were recorded saying, said to our server.

`differences.txt` holds every step at which ours answers otherwise than theirs did, with the name of
the reason, which is a row in `docs/conformance.md`. Whatever is not in there is answered alike.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
from pathlib import Path
from typing import Any, Final

import pytest

import antiphon.protocol.server
from antiphon.protocol.signing import channel_auth, verify_webhook
from antiphon.publisher import Publisher
from antiphon.server import Server
from antiphon.settings import App, WebhookEndpoint
from tests.cli.command import running
from tests.client.endpoint import Endpoint
from tests.conftest import Connect, Serve
from tests.server.wire import CLOSE, PING, PONG, Closed, Wire, until

from .cluster import Clock, cluster
from .replay import Replay, files, lines

pytestmark = pytest.mark.asyncio(loop_scope="module")

HERE: Final = Path(__file__).parent
DOCS: Final = HERE.parents[1] / "docs" / "conformance.md"


def app(name: str, id: str = "", **settings: Any) -> App:
    """An application of the recorded servers: these all advertise 30 seconds."""
    names = {"id": id or f"{name}-app", "key": f"{name}-key", "secret": f"{name}-secret"}
    return App(**{**names, "activity_timeout": 30, **settings})


# As the recorded servers had them, as far as it shows. The limits that ours has by default and
# theirs have not are tried below: with them, replaying without the recorder's pauses would show
# nothing else.
REVERB: Final = (
    app("ref", max_message_size=10_000, client_events_per_second=0),
    app("limit", max_connections=2),
    app("origin", allowed_origins=("good.test", "*.good.test")),
    app("rate"),
    app("rateterm"),
    app("ping", activity_timeout=7),
    app("all"),
    app("none", client_events=False),
)
SOKETI: Final = (
    app("peer", "1001", max_message_size=200_000),
    app("peer-auth", "1002"),
    app("peer-noclient", "1003", client_events=False, max_connections=2),
    app("peer-disabled", "1004", enabled=False),
    app("peer-hook", "1005"),
)
DROPS: Final = {"reverb/subscribe_presence": ["b3"], "pusher-js/idle_soketi_pusherjs": ["c1"]}

# What depends on time, signals, raw bytes or a second node has a test of its own.
OTHERWISE: Final = {
    "reverb/handshake_raw": "test_every_raw_handshake_and_frame_is_answered_rightly",
    "reverb/idle_ping_prune": "test_who_is_silent_is_pinged_and_who_stays_silent_is_closed",
    "reverb/scaling_redis": "test_two_nodes_are_one_server",
    "reverb/shutdown_restart_command": "test_a_server_that_ends_sends_its_clients_elsewhere",
    "reverb/shutdown_sigint": "test_a_server_that_ends_sends_its_clients_elsewhere",
    "reverb/shutdown_sigkill": "test_a_server_that_is_killed_just_hangs_up",
    "reverb/shutdown_sigterm": "test_a_server_that_ends_sends_its_clients_elsewhere",
    "soketi/idle_timeout": "test_who_is_silent_is_pinged_and_who_stays_silent_is_closed",
    "soketi/presence_limit_100": "test_the_hundred_and_first_member_is_refused",
    "soketi/signin_timeout": "test_who_must_sign_in_and_does_not_is_closed",
}
SCRIPTED: Final = sorted(name for name in files() if name.startswith("pusher-js/fake_"))
PLAYED: Final = sorted(files().keys() - OTHERWISE.keys() - set(SCRIPTED))


def differences() -> dict[str, list[tuple[str, list[str]]]]:
    """By recording, the steps at which we differ, each with its reason."""
    found: dict[str, list[tuple[str, list[str]]]] = {}
    steps: list[tuple[str, list[str]]] = []
    for line in (HERE / "differences.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            steps = found.setdefault(line[3:], [])
        elif line.startswith("# "):
            steps.append((line[2:], []))
        elif line and steps:
            steps[-1][1].append(line)
    return found


DIFFERENCES: Final = differences()


# What holds for all


async def test_every_recording_is_tried() -> None:
    counts = dict.fromkeys(("reverb", "soketi", "pusher-js", "http-clients"), 0)
    for name in files():
        counts[name.split("/")[0]] += 1
    assert counts == {"reverb": 34, "soketi": 63, "pusher-js": 20, "http-clients": 2}
    assert set(PLAYED) | set(SCRIPTED) | OTHERWISE.keys() == files().keys()
    assert all(callable(globals()[test]) for test in OTHERWISE.values())
    assert DIFFERENCES.keys() <= set(PLAYED)


async def test_every_reason_to_differ_is_a_row_in_the_documentation() -> None:
    table = DOCS.read_text(encoding="utf-8").partition("## Deliberate differences")[2]
    rows = set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE))
    assert rows == {reason for steps in DIFFERENCES.values() for reason, _ in steps}


@pytest.mark.parametrize("name", PLAYED)
async def test_it_is_answered_as_theirs_did_but_where_it_is_said(name: str, clock: Clock) -> None:
    apps = REVERB if name.startswith("reverb/") else SOKETI
    async with Server(apps) as server:
        found = await Replay(name, server, apps, DROPS.get(name, ())).play()
        assert found == [step for _, step in DIFFERENCES.get(name, [])]
        # Whatever was said, the next one is served.
        async with await Wire.connect(server.port, f"/app/{apps[0].key}") as next_one:
            await next_one.ping()


@pytest.mark.parametrize("name", SCRIPTED)
async def test_whatever_pusher_js_says_to_a_server_of_tricks_is_understood(name: str) -> None:
    """Those servers are scripts: what counts is what the client sends them."""
    key = next(line["url"] for line in lines(name) if line["dir"] == "connect")
    key = key.removeprefix("/app/").partition("?")[0]
    async with Server(App(id=key, key=key, secret="s")) as server:
        for line in lines(name):
            if line["dir"] == "connect":
                path, _, query = line["url"].partition("?")
                async with await Wire.connect(server.port, path, query=query) as wire:
                    await say_all(wire, name, line["conn"])


async def say_all(wire: Wire, name: str, conn: str) -> None:
    """What one recorded connection said; each thing is granted."""
    for line in lines(name):
        if line["dir"] != "c2s" or line["conn"] != conn or "raw" not in line:
            continue
        wire.send_text(line["raw"])
        said = json.loads(line["raw"])
        match said["event"]:
            case "pusher:subscribe":
                answer = await wire.event("pusher_internal:subscription_succeeded")
                assert answer["channel"] == said["data"]["channel"]
            case "pusher:ping":
                await wire.event("pusher:pong")
            case event:
                assert event == "pusher:pong"
    await wire.ping()


# Handshakes and frames


# What Reverb answers, and what ours does. Where it refuses it greets the client all the same.
HANDSHAKES: Final = {
    "good handshake, raw bytes": (101, 101),
    "unknown key, raw bytes": (101, 101),
    "version 8": (426, 426),
    "no key": (400, 400),
    "Upgrade: WebSocket (capital)": (101, 101),
    "no Upgrade header": (500, 404),
    "no Connection header": (400, 404),
    "permessage-deflate offered": (101, 101),
    "HTTP/1.0": (505, 400),
    "upgrade on /up": (101, 404),
    "POST /app/key": (405, 400),
    "garbage": (400, 400),
    "huge header (11000 bytes)": (413, 101),  # 16 KiB are allowed
}
# The close code, of both.
FRAMES: Final = {
    "unmasked text": 1002,
    "invalid UTF-8 text": 1007,
    "RSV1 set": 1002,
    "unknown opcode 3": 1002,
    "close with no code": 1000,
    "close code 1005": 1002,
    "fragmented control": 1002,
    "continuation without start": 1002,
}


async def test_every_raw_handshake_and_frame_is_answered_rightly(connect: Connect) -> None:
    tried: dict[str, set[str]] = {"handshake": set(), "frame": set()}
    named = ""
    async with Server(app("ref")) as server:
        for line in lines("reverb/handshake_raw"):
            if line["dir"] == "http":
                request = line["request"]
                if "X-Big" in request:  # the recorder cut it
                    request = request.partition("X-Big")[0] + f"X-Big: {'x' * 11_000}\r\n\r\n"
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(request.encode())
                async with asyncio.timeout(5):
                    ours = int((await reader.readline()).split()[1])
                writer.close()
                theirs = int(line["status"].split()[1])
                assert (theirs, ours) == HANDSHAKES[named], named
                tried["handshake"].add(named)
            if line["dir"] == "note":
                named = line["text"]
            if not named.startswith("raw frame: ") or line["dir"] != "raw_in":
                continue
            if not line["hex"].startswith("88"):
                continue  # a greeting, or a pong
            what, _, frame = named.removeprefix("raw frame: ").rpartition(" ")
            async with await Wire.connect(server.port, "/app/ref-key") as wire:
                wire.send_bytes(bytes.fromhex(frame))
                opcode, payload = await wire.frame()
                assert opcode == CLOSE
                theirs_code = int.from_bytes(bytes.fromhex(line["hex"])[2:4])
                assert int.from_bytes(payload[:2]) == theirs_code == FRAMES[what], what
                tried["frame"].add(what)
        assert tried == {"handshake": set(HANDSHAKES), "frame": set(FRAMES)}
        # The last of the frames is right: it is a ping.
        async with await Wire.connect(server.port, "/app/ref-key") as wire:
            wire.send_bytes(bytes.fromhex(named.rpartition(" ")[2]))
            await wire.event("pusher:pong")


# What takes time


async def test_who_is_silent_is_pinged_and_who_stays_silent_is_closed(
    serve: Serve, connect: Connect, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reverb looks once a minute, not at who is in no channel; soketi waits two minutes."""
    monkeypatch.setattr(antiphon.protocol.server, "PONG_TIMEOUT", 2.0)
    server = await serve(activity_timeout=1)
    silent, answering, framed, nowhere = [await connect(server) for _ in range(4)]
    for wire in (silent, answering, framed):
        await wire.subscribe("pub")
    (hub,) = server._hubs.values()
    session: Any = hub.sockets[answering.socket_id]
    for second in range(1, 4):
        clock.turn(1, server)
        for wire in (silent, nowhere):
            if second == 1:
                await wire.event("pusher:ping")
            elif second == 3:
                assert (await wire.closed()).code == 4201
        await answering.event("pusher:ping")
        answering.send("pusher:pong")
        await until(lambda: session.protocol._last_heard == clock.now)
        await framed.event("pusher:ping")
        framed.send_frame(PING)
        assert (await framed.frame()).opcode == PONG
    assert set(hub.sockets) == {answering.socket_id, framed.socket_id}


async def test_who_must_sign_in_and_does_not_is_closed(serve: Serve, connect: Connect) -> None:
    """soketi says so in-band first; the documents want the close code alone."""
    wire = await connect(await serve(authorization_timeout=0.2))
    with pytest.raises(Closed) as closed:
        await wire.message()
    assert closed.value.code == 4009


SERVE: Final = (
    *("serve", "--port", "0", "--drain", "0"),
    *("--app-id", "1", "--app-key", "k", "--app-secret", "never-print-this"),
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_that_ends_sends_its_clients_elsewhere(number: signal.Signals) -> None:
    """Reverb hangs up on them (1006), and also has a command for it, which comes to the same."""
    async with running(*SERVE) as command:
        *_, said = await command.err_until("listening on 127.0.0.1:")
        port = int(said.rpartition(":")[2])
        async with await Wire.connect(port) as subscribed, await Wire.connect(port) as idle:
            await subscribed.subscribe("pub")
            command.signal(number)
            assert [(await wire.closed()).code for wire in (subscribed, idle)] == [4200, 4200]
        assert (await command.ended()).status == 0


async def test_a_server_that_is_killed_just_hangs_up() -> None:
    async with running(*SERVE, cold=True) as command:
        *_, said = await command.err_until("listening on 127.0.0.1:")
        async with await Wire.connect(int(said.rpartition(":")[2])) as wire:
            await wire.subscribe("pub")
            command.signal(signal.SIGKILL)
            assert (await wire.closed()).code is None
        assert (await command.ended()).status == -signal.SIGKILL


# Limits


async def test_the_hundred_and_first_member_is_refused(connect: Connect) -> None:
    """soketi's status for it is 4100; its members have no `user_info`, and so no `hash`."""
    wires = [await connect() for _ in range(101)]
    for number, wire in enumerate(wires[:100]):
        joined = await wire.join("presence-big", f"u{number}")
        assert joined["presence"]["count"] == len(joined["presence"]["hash"]) == number + 1
    with pytest.raises(AssertionError, match="'status': 403"):
        await wires[100].join("presence-big", "u100")
    await wires[100].join("presence-other", "u100")


async def test_of_thirty_client_events_at_once_ten_are_passed_on(
    serve: Serve, connect: Connect, clock: Clock
) -> None:
    """Reverb has no such limit by default: all thirty arrive in `reverb/client_events`."""
    server = await serve()
    ali, john = await connect(server), await connect(server)
    for wire in (ali, john):
        await wire.join("private-p")
    burst = [
        line["text"]
        for line in lines("reverb/client_events")
        if line["dir"] == "out" and '"client-f"' in line["text"]
    ]
    assert len(burst) == 30
    for text in burst:
        ali.send_text(text)
    assert [await ali.error() for _ in range(20)] == [4301] * 20
    for number in range(10):
        assert (await john.event("client-f"))["data"] == {"i": number}
    await john.ping()


async def test_who_says_more_than_its_rate_is_closed(
    serve: Serve, connect: Connect, clock: Clock
) -> None:
    """Reverb's rate limit answers 4301, or hangs up; it is off by default."""
    wire = await connect(await serve(messages_per_second=1))
    for _ in range(10):
        await wire.ping()
    wire.send("pusher:ping")
    assert (await wire.closed()).code == 4100


async def test_ten_thousand_refused_subscriptions_leave_nothing_behind(
    serve: Serve, connect: Connect
) -> None:
    """In `reverb/weak` each leaves an empty channel until somebody hangs up."""
    server = await serve(messages_per_second=0)
    wire = await connect(server)
    for number in range(10_000):
        data = {"channel": f"presence-{number}", "auth": "k:no", "channel_data": "{}"}
        wire.send("pusher:subscribe", data)
    for _ in range(10_000):
        await wire.event("pusher:subscription_error")
    (hub,) = server._hubs.values()
    assert not hub.channels


# Webhooks


async def test_the_same_webhooks_are_sent_signed_and_with_documented_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """soketi sends each alone, at once, and a client event's data as an object."""
    monkeypatch.setattr("antiphon.server.webhooks.GRACE", 0.1)
    async with Endpoint() as receiver:
        hook = app("peer-hook", "1005", webhooks=(WebhookEndpoint(url=receiver.url),))
        async with Server(hook) as server:
            await Replay("soketi/webhooks", server, [hook]).play()
            theirs = [
                event
                for line in lines("soketi/webhooks")
                if line["dir"] == "webhook"
                for event in json.loads(line["body"])["events"]
            ]

            def ours() -> list[dict[str, Any]]:
                told = (json.loads(asked.body)["events"] for asked in receiver.asked)
                return [
                    event
                    for events in told
                    for event in events
                    if event["name"] != "subscription_count"
                ]

            await until(lambda: len(ours()) >= len(theirs))
            for event in ours() + theirs:
                event.pop("socket_id", None)
            assert in_order(ours()) == in_order([documented(event) for event in theirs])
            for asked in receiver.asked:
                headers = {name.lower(): value for name, value in asked.headers.items()}
                assert headers["x-pusher-key"] == hook.key
                signature = headers["x-pusher-signature"]
                assert verify_webhook(hook.secret, asked.body.encode(), signature)


def documented(event: dict[str, Any]) -> dict[str, Any]:
    """A recorded event as Pusher's documents have it: data is text."""
    data = event.get("data")
    return event if data is None else {**event, "data": json.dumps(data, separators=(",", ":"))}


def in_order(events: list[dict[str, Any]]) -> list[str]:
    return sorted(
        json.dumps({k: v for k, v in event.items() if k != "socket_id"}, sort_keys=True)
        for event in events
    )


# Two nodes


async def test_two_nodes_are_one_server() -> None:
    """What `reverb/scaling_redis` did, where presence and cache are each node's own."""
    async with cluster(app("ref")) as (a, b), Publisher(a.settings()) as to_a:
        ann = await Wire.connect(a.port, "/app/ref-key")
        bob = await Wire.connect(b.port, "/app/ref-key")
        async with ann, bob:
            for wire in (ann, bob):
                await wire.subscribe("pub")
                await join(wire, "private-room")
            await until(lambda: len(b._hubs["ref-key"].sockets) == 1)
            # Events, the sender left out on the other node, client events: these Reverb has too.
            await to_a.trigger("pub", "e", {"n": 1})
            for wire in (ann, bob):
                assert (await wire.event("e"))["data"] == {"n": 1}
            await to_a.trigger("pub", "ex", {}, socket_id=bob.socket_id)
            await ann.event("ex")
            ann.send("client-hi", {"x": 1}, "private-room")
            assert (await bob.event("client-hi"))["data"] == {"x": 1}  # and no ex before it
            # Presence: Reverb tells neither of the other.
            assert await join(ann, "presence-r", "1") == ["1"]
            assert await join(bob, "presence-r", "2") == ["1", "2"]
            assert (await ann.event("pusher_internal:member_added"))["data"]["user_id"] == "2"
            # Reverb: users 404 if only the other node has the channel; a user on two counts twice.
            async with Publisher(b.settings()) as to_b:
                for node in (to_a, to_b):
                    assert await node.users("presence-r") == ["1", "2"]
                    pub = await node.channel("pub", info=["subscription_count"])
                    assert pub == {"occupied": True, "subscription_count": 2}
            # Its cache is only where somebody subscribes; its terminate stops both nodes.
            await to_a.trigger("cache-c", "kept", {"v": 1})
            await bob.subscribe("cache-c")
            assert (await bob.event("kept"))["data"] == {"v": 1}
            await to_a.terminate_user_connections("2")
            assert (await bob.closed()).code == 4009
            await ann.event("pusher_internal:member_removed")
            await ann.ping()


async def join(wire: Wire, channel: str, user_id: str = "") -> list[str]:
    """Join a channel of the application `ref`; who is in it."""
    data = json.dumps({"user_id": user_id, "user_info": {}}) if user_id else None
    auth = channel_auth("ref-key", "ref-secret", wire.socket_id, channel, data)
    joined = await wire.subscribe(channel, auth, data)
    return list(joined["presence"]["ids"]) if user_id else []
