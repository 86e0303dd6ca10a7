"""Our client in the place of the clients that soketi 1.6 and Reverb 1.10 were recorded with.

It does what the recorded client did, where it would do such a thing at all, hears what that one
heard, and when the recording is over it goes on with a server that does nothing wrong.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from antiphon.client import (
    Authentication,
    Authorization,
    ChannelState,
    Client,
    ConnectingIn,
    ConnectionState,
    PresenceChannel,
)
from antiphon.errors import (
    AntiphonError,
    ConnectionFailed,
    DecryptionFailed,
    InvalidName,
    MalformedFrame,
    SubscriptionFailed,
    Unreachable,
)
from antiphon.protocol.channels import needs_authorization
from antiphon.protocol.frames import Event
from tests.protocol.recordings import FROM_CLIENT, FROM_SERVER, Line, lines, names, objects
from tests.server.wire import PING, PONG, TIMEOUT, until

from .linked import soon, watch
from .peer import Dial, Peer, polite

MASTER_KEY: Final = bytes([7]) * 32
"""soketi's recordings have events that npm `pusher` encrypted with it."""

LATER: Final = 60.0
"""Seconds that the client waits where it does not come back at once: no test waits so long."""

Told = tuple[str, str | None, Any, str | None]
"""Name, channel, data and sender of an event; of one of the protocol's no data (`...`)."""


@pytest.fixture(autouse=True)
def no_pause_between_client_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorded client sends thirty at once; ten a second would take three."""
    monkeypatch.setattr("antiphon.client.outbox.EVENTS_PER_SECOND", 1000)


class Answers:
    """Signs as the recorded client's signatures were."""

    def __init__(self) -> None:
        self.channels: dict[str, Authorization] = {}
        self.user: Authentication | None = None

    async def authorize(self, channel: str, socket_id: str) -> Authorization:
        return self.channels[channel]

    async def authenticate(self, socket_id: str) -> Authentication:
        assert self.user is not None
        return self.user

    async def close(self) -> None:
        """Nothing is held."""


class Scene:
    """One recorded connection, played with our client.

    Attributes:
        client: Our client.
        dial: The server's end of its connection.
        seen: All that it told.
        expected: The events that it should have told.
        codes: The codes of the errors that it should have told.
        members: Who should be in its presence channels.
        sealed: Events that it cannot have decrypted.
        unsaid: What the recorded client said, and ours would not.
    """

    def __init__(self, client: Client, answers: Answers, dial: Dial) -> None:
        self.client = client
        self.dial = dial
        self.seen = watch(client)
        self.expected: list[Told] = []
        self.codes: list[int | None] = []
        self.members: dict[str, set[str]] = {}
        self.sealed = 0
        self.unsaid: list[str] = []
        self._answers = answers
        self._frames = 0
        self._last_code: int | None = None

    async def play(self, recorded: list[Line]) -> int | None:
        """Play until the server ends the connection, with which code; None if it does not."""
        by_client = any(line.control == "ws-close" or line.dir == "close_out" for line in recorded)
        for line in recorded:
            if line.dir == "close":
                return None if by_client else await self._end(line)
            if line.dir == "ping_frame_in" or (line.dir, line.control) == ("recv", "ws-ping"):
                self.dial.send_frame(PING)
                assert (await self.dial.frame()).opcode == PONG
            elif line.dir in FROM_SERVER and line.frame is not None and not line.cut:
                await self._hear(line.frame)
                if self._frames == 1 and self._last_code is not None:
                    return self._last_code  # refused: a good client is gone, whatever follows
            elif line.dir in FROM_CLIENT and line.frame is not None:
                await self._say(line.json)
        return None

    async def caught_up(self) -> None:
        """Wait until the client has all that was said to it."""
        async with asyncio.timeout(TIMEOUT):
            while self.client.stats.frames_received < self._frames:  # noqa: ASYNC110
                await asyncio.sleep(0)

    async def _end(self, line: Line) -> int | None:
        await self.caught_up()
        if line.code == 1006:
            await self.dial.hang_up()
            return self._last_code or line.code
        self.dial.send_close(line.code, line.reason)
        await self.dial.closed()
        await self.dial.hang_up()
        return line.code

    # The server's part

    async def _hear(self, text: str) -> None:
        self.dial.send_text(text)
        self._frames += 1
        frame = json.loads(text)
        event, channel, data = frame["event"], frame.get("channel"), decoded(frame.get("data"))
        is_held = channel is not None and self.client.channel(channel) is not None
        self._last_code = None
        match event:
            case "pusher:connection_established" if self._frames == 1:
                pass
            case "pusher:pong":
                pass
            case "pusher:ping":
                assert (await self.dial.message())["event"] == "pusher:pong"
            case "pusher:error":
                self._expect_error(data["code"])
            case "pusher:subscription_error":
                if is_held:
                    self.codes.append(data.get("status"))
                    self._expect(event, channel)
            case "pusher_internal:subscription_succeeded":
                if is_held:
                    self._expect("pusher:subscription_succeeded", channel)
                    presence = data.get("presence", {}) if isinstance(data, dict) else {}
                    self.members[channel] = {
                        str(i) for i in presence.get("ids", ()) if i is not None
                    }
                elif channel is None:  # Reverb, of a channel without a name
                    self._expect(event, channel)
            case "pusher_internal:member_added" if "user_id" in data:
                self._expect("pusher:member_added", channel)
                self.members.setdefault(channel, set()).add(str(data["user_id"]))
            case "pusher_internal:member_removed":
                self._expect("pusher:member_removed", channel)
                self.members.setdefault(channel, set()).discard(str(data["user_id"]))
            case "pusher:signin_success":
                self._expect(event, channel)
                user_id = json.loads(data["user_data"])["id"]
                heard = await self.dial.message()
                assert heard["data"] == {"channel": f"#server-to-user-{user_id}"}
            case _ if not str(channel).startswith("private-encrypted-"):
                self._expect(event, channel, data, frame.get("user_id"))
            case _ if set(data) == {"nonce", "ciphertext"} and len(data["nonce"]) == 32:
                self._expect(event, channel, {"hush": True})
            case _:
                self.sealed += 1

    def _expect(
        self, event: str, channel: str | None, data: Any = ..., user_id: str | None = None
    ) -> None:
        self.expected.append(told(Event(name=event, channel=channel, raw=data, user_id=user_id)))

    def _expect_error(self, code: int) -> None:
        """An error in-band; alone it says when to come back, if the connection then ends."""
        if self._frames > 1:
            self.codes.append(code)
        if self._frames == 1 or 4100 <= code < 4300:
            self._last_code = code
        for name, channel in self.client.channels.items():
            refusable = name.startswith("presence-") or (
                code == 4009 and name.startswith("private-")
            )
            if code in (4009, 4200) and refusable and channel.state is ChannelState.PENDING:
                self._expect("pusher:subscription_error", name)
                return
        user = self.client.user
        if code == 4200 and user is not None and user.state is ChannelState.PENDING:
            self._expect("pusher:signin_error", None)

    # The client's part

    async def _say(self, frame: Any) -> None:
        await self.caught_up()
        event = frame.get("event") if isinstance(frame, dict) else None
        if event == "pusher:pong":
            return  # it went out with the ping, unasked
        if not isinstance(event, str) or not self._do(event, frame):
            self.unsaid.append(str(event))
            return
        heard = await self.dial.message()
        assert (heard["event"], heard.get("channel")) == (event, frame.get("channel"))
        if event.startswith("client-"):
            assert heard["data"] == frame["data"]
        else:
            theirs = {k: v for k, v in decoded(frame["data"]).items() if isinstance(v, str)}
            if event == "pusher:subscribe" and not needs_authorization(theirs["channel"]):
                theirs = {"channel": theirs["channel"]}  # nothing there is to be signed
            assert heard["data"].items() >= theirs.items()

    def _do(self, event: str, frame: dict[str, Any]) -> bool:
        """Let our client do what makes it say this; whether it does."""
        data = decoded(frame.get("data"))
        with contextlib.suppress(InvalidName, SubscriptionFailed):
            if event.startswith("client-"):
                return self._trigger(event, frame)
            if isinstance(data, dict):
                match event:
                    case "pusher:subscribe":
                        return self._subscribe(data)
                    case "pusher:unsubscribe":
                        return self._unsubscribe(data)
                    case "pusher:signin":
                        return self._sign_in(data)
        return False

    def _subscribe(self, data: dict[str, Any]) -> bool:
        name, user = data.get("channel"), self.client.user
        if not isinstance(name, str) or (user is not None and user.channel == name):
            return False
        held = self.client.channel(name)
        if held is not None and held.state is not ChannelState.FAILED:
            return False
        auth, channel_data = data.get("auth"), data.get("channel_data")
        key = hashlib.sha256(name.encode() + MASTER_KEY).digest()
        self._answers.channels[name] = Authorization(
            auth if isinstance(auth, str) else "",
            channel_data if isinstance(channel_data, str) else None,
            base64.b64encode(key).decode(),
        )
        self.client.subscribe(name)
        return True

    def _unsubscribe(self, data: dict[str, Any]) -> bool:
        held = self.client.channel(str(data.get("channel")))
        if held is None or held.state is ChannelState.FAILED:
            return False
        while self.client.channel(held.name) is held:
            held.unsubscribe()
        self.members.pop(held.name, None)
        return True

    def _sign_in(self, data: dict[str, Any]) -> bool:
        user = self.client.user
        if user is not None and user.state is not ChannelState.FAILED:
            return False
        self._answers.user = Authentication(str(data.get("auth")), str(data.get("user_data")))
        self.client.signin()
        return True

    def _trigger(self, event: str, frame: dict[str, Any]) -> bool:
        channel = self.client.channel(str(frame.get("channel")))
        if channel is None or not channel.is_subscribed or "data" not in frame:
            return False
        return channel.trigger(event, frame["data"]).status == "sent"


def decoded(data: Any) -> Any:
    """A frame's data, which may be JSON in a string."""
    try:
        return json.loads(data) if isinstance(data, str) else data
    except ValueError:
        return data


def told(event: Event) -> Told:
    is_own = not event.name.startswith("pusher")
    return (event.name, event.channel, decoded(event.raw) if is_own else ..., event.user_id)


@contextlib.asynccontextmanager
async def scene() -> AsyncIterator[tuple[Scene, asyncio.Future[None]]]:
    """A client on its way to connect: its first dial is played, later ones meet a good server."""
    met: asyncio.Future[Dial] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def first(dial: Dial) -> None:
        met.set_result(dial)
        await over.wait()

    async with Peer([first, polite]) as peer:
        answers = Answers()
        client = Client(peer.settings(), authorizer=answers, min_delay=LATER, max_delay=LATER)
        connecting = asyncio.ensure_future(client.connect())
        try:
            yield Scene(client, answers, await soon(met)), connecting
        finally:
            over.set()
            await soon(client.close())
            await asyncio.wait([connecting])
            connecting.exception()


def errors(seen: list[Any]) -> list[AntiphonError]:
    return [o for o in seen if isinstance(o, AntiphonError)]


def delays(seen: list[Any]) -> list[float]:
    return [o.seconds for o in seen if isinstance(o, ConnectingIn)]


# What was told, and what became of the connection


async def check(played: Scene, code: int | None, connecting: asyncio.Future[None]) -> None:
    """The client has told what it heard, and stays, comes back or gives up as the code says."""
    client = played.client
    if code is None:
        await soon(connecting)
        await played.caught_up()
    else:
        await until(lambda: delays(played.seen) or client.state is ConnectionState.FAILED)
    await until(lambda: len(unreadable(played.seen)) >= played.sealed)
    # What is told later belongs to the next connection.
    seen = list(itertools.takewhile(lambda o: not isinstance(o, ConnectingIn), played.seen))
    check_told(played, seen)
    if code is None:
        assert client.state is ConnectionState.CONNECTED
        assert delays(played.seen) == []
    elif 4000 <= code < 4100:
        assert client.state is ConnectionState.FAILED
        assert errors(seen)[-1].code == code
    else:
        at_once = 4200 <= code < 4300
        assert delays(played.seen) == [0 if at_once else LATER]


def check_told(played: Scene, seen: list[Any]) -> None:
    assert [told(o) for o in seen if isinstance(o, Event)] == played.expected
    assert len(unreadable(seen)) == played.sealed
    assert not any(isinstance(o, MalformedFrame) for o in seen)
    others = (ConnectionFailed, DecryptionFailed)
    assert [e.code for e in errors(seen) if not isinstance(e, others)] == played.codes
    for channel in played.client.channels.values():
        if isinstance(channel, PresenceChannel) and channel.is_subscribed:
            assert {member.id for member in channel.members} == played.members[channel.name]


def unreadable(seen: list[Any]) -> list[DecryptionFailed]:
    return [o for o in seen if isinstance(o, DecryptionFailed)]


async def check_life(played: Scene) -> None:
    """Whatever has happened, the client connects again, and joins all its channels again."""
    client = played.client
    if client.state is ConnectionState.CONNECTED and delays(played.seen) == []:
        await leave(client, played.dial)
    if client.state in (ConnectionState.DISCONNECTED, ConnectionState.FAILED):
        await soon(client.connect())
    if delays(played.seen) == [LATER]:
        client.retry_now()
    await until(lambda: client.state is ConnectionState.CONNECTED)
    for channel in client.channels.values():
        await channel.subscribed(TIMEOUT)


async def leave(client: Client, dial: Dial) -> None:
    """Let the client go as a client should."""
    leaving = asyncio.ensure_future(client.disconnect())
    assert (await dial.closed()).code == 1000
    dial.send_close(1000)
    await dial.hang_up()
    await soon(leaving)


# All of them


def spoken(name: str) -> list[list[Line]]:
    """The connections on which the server said something."""
    found: dict[str, list[Line]] = {}
    for line in lines(name):
        if line.conn:
            found.setdefault(line.conn, []).append(line)
    return [
        said
        for said in found.values()
        if any(line.dir in FROM_SERVER and line.frame is not None for line in said)
    ]


# How much of what a recorded client said ours would not: pings of its own other than by the
# clock, what is no frame of the protocol's or holds no data, channels with impossible names or
# subscribed already, and client events where the protocol has none.
UNSAID: Final = {
    "reverb/client_events": 9,
    "reverb/double_subscribe": 3,
    "reverb/malformed": 25,
    "reverb/oversize": 4,
    "reverb/ping": 4,
    "reverb/private_encrypted": 1,
    "reverb/rate_limit": 15,
    "reverb/scaling_redis": 1,
    "reverb/subscribe_names": 18,
    "reverb/subscribe_presence": 2,
    "reverb/subscribe_presence_odd": 1,
    "reverb/unknown_event": 9,
    "reverb/unsubscribe": 4,
    "soketi/bad_channel_names": 8,
    "soketi/cache_channel_hit": 1,
    "soketi/client_event_not_subscribed": 2,
    "soketi/client_event_oversize": 3,
    "soketi/client_event_private": 2,
    "soketi/client_event_public": 1,
    "soketi/danger_event_is_object": 2,
    "soketi/danger_signin_no_data": 1,
    "soketi/danger_signin_twice_then_send_to_user": 1,
    "soketi/danger_subscribe_channel_number": 1,
    "soketi/danger_subscribe_no_channel": 1,
    "soketi/danger_subscribe_no_data": 1,
    "soketi/danger_unsubscribe_no_data": 1,
    "soketi/double_subscribe": 4,
    "soketi/idle_timeout": 3,
    "soketi/malformed_json": 13,
    "soketi/ping_pong": 4,
    "soketi/private_encrypted": 1,
    "soketi/server_to_user": 1,
    "soketi/unknown_event": 4,
    "soketi/unsubscribe": 1,
}


@pytest.mark.parametrize("name", [n for n in sorted(names("reverb", "soketi")) if spoken(n)])
async def test_in_the_place_of_a_recorded_client_ours_hears_the_same_and_lives_on(
    name: str,
) -> None:
    unsaid: list[str] = []
    for recorded in spoken(name):
        async with scene() as (played, connecting):
            await played.dial.upgrade()
            await check(played, await played.play(recorded), connecting)
            await check_life(played)
            unsaid += played.unsaid
    assert len(unsaid) == UNSAID.get(name, 0), unsaid


def refusals() -> list[tuple[str, int]]:
    """Every upgrade that was answered with plain HTTP: where, and the status."""
    return [
        (f"{name} {line['conn']}", int(str(line["status"]).split(" ")[0]))
        for name in sorted(names("reverb", "soketi"))
        for line in objects(name)
        if line["dir"] in ("http_res", "http_refusal") and "conn" in line
    ]


@pytest.mark.parametrize(("where", "status"), refusals())
async def test_a_refusal_over_http_is_told_and_worth_another_attempt(
    where: str, status: int
) -> None:
    async with scene() as (played, _):
        await played.dial.answer(status)
        await until(lambda: delays(played.seen))
        (error,) = errors(played.seen)
        assert isinstance(error, Unreachable)
        assert error.code == status
        assert delays(played.seen) == [LATER]
        await check_life(played)
