"""The faults, one function each: what the server does, and what a client must make of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

from aiohttp import web
from tests.client.endpoint import Asked
from tests.client.peer import Peer, event_text
from tests.server.wire import PING, TEXT, frame_bytes

from .case import Case, Talk, case

__all__ = ["FAULTS", "Fault", "Start", "Verdict"]

FIRST_TEN: Final = 10


class Verdict(NamedTuple):
    """A cell of the table; `passed` is None where the client lacks what the fault is about."""

    passed: bool | None
    words: str


class Start:
    """Starts one client; what `case` wants besides comes with each fault."""

    def __init__(self, client: str, python: str) -> None:
        self.client = client
        self.python = python

    def __call__(self, script: Callable[[Talk], Awaitable[None]], **options: Any) -> Any:
        return case(self.client, self.python, script, **options)


class Fault(NamedTuple):
    """A row of the table."""

    name: str
    ask: Callable[[Start], Awaitable[Verdict]]
    lacking: dict[str, str]  # by client: why it cannot be asked


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}".replace(",", " ")


def state(seen: Case) -> str:
    """How a client that does nothing more describes itself."""
    if not seen.alive:
        return "process gone"
    return f"state {seen.states[-1]}" if seen.states else "no state"


# Events


def odd_data(data: str) -> Callable[[Start], Awaitable[Verdict]]:
    """An event whose data is not JSON in a string, then a usual one."""

    async def ask(start: Start) -> Verdict:
        async def script(talk: Talk) -> None:
            await talk.greet()
            if await talk.joined():
                talk.dial.send_text(f'{{"event":"event","channel":"room","data":{data}}}')
                await asyncio.sleep(0.5)
                talk.event("after")
            await talk.stay()

        async with start(script) as seen:
            await seen.gets("after" if start.client != "pysher" else '"after"', seconds=7)
            after = any(text.strip('"') == "after" for _, text in seen.events)
            odd = len(seen.events) > after
            if odd and after and seen.dials == 1:
                return Verdict(True, "")
            if not odd and not after:
                return Verdict(False, f"reader dead, {state(seen)}")
            if seen.dials > 1:
                return Verdict(False, plural(seen.dials, "dial"))
            return Verdict(False, "not delivered" if not odd else "nothing after it")

    return ask


async def pusher_ping(start: Start) -> Verdict:
    async def script(talk: Talk) -> None:
        await talk.greet()
        await talk.joined()
        talk.dial.send("pusher:ping", {})
        await talk.stay()

    async with start(script) as seen:
        await seen.until(lambda: any(talk.pongs for talk in seen.talks), 10)
        answered = any(talk.pongs for talk in seen.talks)
        return Verdict(answered, "" if answered else "no pong")


async def websocket_ping(start: Start) -> Verdict:
    async def script(talk: Talk) -> None:
        await talk.greet()
        await talk.joined()
        talk.dial.send_frame(PING, b"hello")
        await talk.stay()

    async with start(script) as seen:
        await seen.until(lambda: any(talk.ws_pongs for talk in seen.talks), 10)
        answered = any(talk.ws_pongs for talk in seen.talks)
        return Verdict(answered, "" if answered else "no pong")


async def slow_handler(start: Start) -> Verdict:
    async def script(talk: Talk) -> None:
        await talk.greet()
        await talk.joined()
        for number in range(50):
            talk.event(number)
            talk.dial.send("pusher:ping", {})
            talk.dial.send_frame(PING, b"hello")
        await talk.stay()

    async with start(script, slow=True) as seen:
        await seen.until(lambda: bool(seen.events), 12)
        await asyncio.sleep(1)
        # Either kind counts: who answers no pusher:ping at all has failed a row for that already.
        pongs = sum(max(talk.pongs, talk.ws_pongs) for talk in seen.talks)
        return Verdict(pongs == 50, "" if pongs == 50 else f"{pongs} of 50 pongs in 1 s")


# Silence


def silence(*, websocket_pongs: bool, seconds: float) -> Callable[[Start], Awaitable[Verdict]]:
    """The server answers no ping; the client's time-outs are one second where they can be set."""

    async def ask(start: Start) -> Verdict:
        async def script(talk: Talk) -> None:
            talk.answers_pings = False
            talk.answers_ws_pings = websocket_pongs
            await talk.greet(activity_timeout=1)
            await talk.stay()

        async with start(script, timeout=1.0) as seen:
            if await seen.until(lambda: seen.dials > 1, seconds):
                gap = seen.dialled[1] - seen.dialled[0]
                return Verdict(True, f"after {gap:.0f} s")
            return Verdict(False, f"nothing in {seconds:.0f} s, {state(seen)}")

    return ask


# Codes


async def told_in_band(start: Start) -> Verdict:
    async def script(talk: Talk) -> None:
        await talk.upgrade()
        talk.dial.error(4001, "Application does not exist")
        talk.dial.send_close()
        await talk.hang_up()

    return await stops(start, script)


def closed_for_good(*codes: int) -> Callable[[Start], Awaitable[Verdict]]:
    async def ask(start: Start) -> Verdict:
        async def with_code(code: int) -> Verdict:
            async def script(talk: Talk) -> None:
                await talk.greet()
                await asyncio.sleep(0.3)
                talk.dial.send_close(code, "No")
                await talk.hang_up()

            verdict = await stops(start, script)
            return verdict if verdict.passed else Verdict(False, f"{code}: {verdict.words}")

        verdicts = [await with_code(code) for code in codes]
        return next((v for v in verdicts if not v.passed), verdicts[0])

    return ask


async def stops(start: Start, script: Callable[[Talk], Awaitable[None]]) -> Verdict:
    """One dial, and the program is told."""
    async with start(script) as seen:
        await seen.until(lambda: seen.dials > 0, 5)
        await asyncio.sleep(6)
        if seen.dials > 1:
            return Verdict(False, f"{plural(seen.dials, 'dial')} in 6 s")
        return Verdict(seen.told(), "" if seen.told() else f"no error, {state(seen)}")


def open_after_refusal(code: int) -> Callable[[Start], Awaitable[Verdict]]:
    async def ask(start: Start) -> Verdict:
        async def script(talk: Talk) -> None:
            await talk.upgrade()
            talk.dial.error(code, "No")
            await talk.stay()

        async with start(script) as seen:
            left = await seen.until(
                lambda: any(talk.left_after is not None for talk in seen.talks), 8
            )
            await asyncio.sleep(3)
            if not left:
                return Verdict(False, f"hangs on, {state(seen)}")
            return Verdict(seen.dials == 1, "" if seen.dials == 1 else plural(seen.dials, "dial"))

    return ask


async def subscribe_refused_without_channel(start: Start) -> Verdict:
    async def script(talk: Talk) -> None:
        talk.refuses = lambda channel: channel == "private-a"
        await talk.greet()
        await talk.joined(2)
        talk.dial.error(4009, "Connection is unauthorized")
        await asyncio.sleep(1)
        talk.event("after")
        await talk.stay()

    async with start(script, channels=("private-a", "room")) as seen:
        return await stays(seen)


def error_while_connected(*codes: int) -> Callable[[Start], Awaitable[Verdict]]:
    async def ask(start: Start) -> Verdict:
        async def script(talk: Talk) -> None:
            await talk.greet()
            await talk.joined()
            for code in codes:
                talk.dial.error(code, "Something is not right")
            await asyncio.sleep(1)
            talk.event("after")
            await talk.stay()

        async with start(script) as seen:
            verdict = await stays(seen)
            if verdict.passed and not seen.errors:
                return Verdict(False, "stays, but tells nothing")
            return verdict

    return ask


async def stays(seen: Case) -> Verdict:
    """The next event arrives, on the same connection."""
    await seen.until(lambda: any("after" in text for _, text in seen.events), 10)
    if seen.dials > 1:
        return Verdict(False, plural(seen.dials, "dial"))
    if not seen.events:
        return Verdict(False, f"nothing more, {state(seen)}")
    return Verdict(True, "")


# Coming back


def lost(how: str, code: int | None = None) -> Callable[[Start], Awaitable[Verdict]]:
    """The connection ends in some way; the client must come back and have its channels again."""

    async def ask(start: Start) -> Verdict:
        ended: list[float] = []

        async def script(talk: Talk) -> None:
            await talk.greet()
            if not await talk.joined(2):
                await talk.stay()
            if talk.number > 1:
                talk.event("again")
                await talk.stay()
            ended.append(asyncio.get_running_loop().time())
            if how == "abort":
                talk.dial.abort()
                return
            talk.dial.send_close(code)
            await talk.hang_up()

        async with start(script, channels=("room", "private-a")) as seen:
            if await seen.until(lambda: any("again" in text for _, text in seen.events), 18):
                gap = seen.dialled[1] - ended[0]
                if code is not None and 4100 <= code < 4200 and gap < 0.95:
                    return Verdict(False, f"after {gap:.1f} s")
                return Verdict(True, f"after {gap:.1f} s")
            if not ended:
                return Verdict(False, "never subscribed")
            if seen.dials > 1:
                return Verdict(False, "comes back without its channels")
            return Verdict(False, f"never comes back, {state(seen)}")

    return ask


async def told_to_reconnect_for_ever(start: Start) -> Verdict:
    """Each connection is closed with 4200: the first time at once, then not in a hot loop."""

    async def script(talk: Talk) -> None:
        await talk.greet()
        talk.dial.send_close(4200, "Please come back")
        await talk.hang_up()

    async with start(script) as seen:
        await seen.until(lambda: seen.dials > 1, 6)
        first = seen.dialled[1] - seen.dialled[0] if seen.dials > 1 else 99
        await asyncio.sleep(10)
        if first > 2:
            return Verdict(False, "does not come back" if first == 99 else f"after {first:.1f} s")
        if seen.dials > FIRST_TEN + 10:
            return Verdict(False, f"{plural(seen.dials, 'dial')} in 10 s")
        return Verdict(True, plural(seen.dials, "dial"))


async def new_socket_id(start: Start) -> Verdict:
    async def script(talk: Talk) -> None:
        await talk.greet()
        await talk.joined()
        if talk.number == 1:
            talk.dial.abort()
        else:
            await talk.stay()

    async with start(script, channels=("private-a",)) as seen:
        await seen.until(lambda: seen.dials > 1 and bool(seen.talks[1].subscribes), 15)
        again = [s for talk in seen.talks[1:] for s in talk.subscribes]
        if not again:
            return Verdict(False, "not subscribed again")
        fresh = f"k:{seen.talks[1].socket_id}:private-a"
        right = again[0].get("auth") == fresh
        return Verdict(right, "" if right else "an old signature")


async def away(start: Start) -> Verdict:
    """The server goes away for five seconds, and is there again."""

    async def script(talk: Talk) -> None:
        await talk.greet()
        await talk.stay()

    async with start(script) as seen:
        if not await seen.until(lambda: any(t.subscribes for t in seen.talks), 10):
            return Verdict(False, "never subscribed")
        port = seen.peer.port
        for talk in seen.talks:
            talk.dial.abort()
        await seen.peer.__aexit__(None, None, None)
        await asyncio.sleep(5)
        before = seen.dials

        async def again(dial: Any) -> None:
            seen.dialled.append(asyncio.get_running_loop().time())
            talk = Talk(dial)
            seen.talks.append(talk)
            await script(talk)

        async with Peer(again, port=port):
            came = await seen.until(lambda: bool(seen.talks[before:]), 20)
            if came:
                await seen.until(lambda: any(t.subscribes for t in seen.talks[before:]), 8)
            joined = any(t.subscribes for t in seen.talks[before:])
        if not came:
            return Verdict(False, f"never comes back, {state(seen)}")
        return Verdict(joined, "" if joined else "comes back without its channel")


async def refused_at_first(start: Start) -> Verdict:
    """Nothing listens for five seconds: the client says so, or comes when something does."""

    async def script(talk: Talk) -> None:
        await talk.greet()
        await talk.stay()

    async with start(script, is_up=False) as seen:
        await asyncio.sleep(5)
        if seen.alive and seen.errors and seen.states[-1:] == ["failed"]:
            return Verdict(True, "says so")
        port = seen.peer.port
        came = asyncio.Event()

        async def listen(dial: Any) -> None:
            came.set()
            await script(Talk(dial))

        async with Peer(listen, port=port):
            await seen.until(came.is_set, 20)
            if came.is_set():
                return Verdict(True, "comes when it is there")
        if seen.errors and seen.alive:
            return Verdict(True, "connect() raises")
        return Verdict(False, f"neither error nor dial, {state(seen)}")


# Servers that are none


def never_right(
    script: Callable[[Talk], Awaitable[None]], seconds: float = 15
) -> Callable[[Start], Awaitable[Verdict]]:
    """Whatever the client tries fails: no more than a dial a second after the first ten."""

    async def ask(start: Start) -> Verdict:
        async with start(script) as seen:
            await seen.until(lambda: seen.dials > 0, 5)
            await asyncio.sleep(seconds)
            dials = plural(seen.dials, "dial")
            if not seen.alive:
                return Verdict(False, f"process gone after {dials}")
            if seen.dials > FIRST_TEN + seconds:
                return Verdict(False, f"{dials} in {seconds:.0f} s")
            if seen.dials < 2 and not seen.told():
                return Verdict(False, f"{dials}, no error, {state(seen)}")
            return Verdict(True, "1 dial, says so" if seen.dials == 1 else dials)

    return ask


async def accept_and_close(talk: Talk) -> None:
    await talk.dial.hang_up()


async def garbage(talk: Talk) -> None:
    await talk.dial.request()
    talk.dial.send_bytes(b"SSH-2.0-OpenSSH_9.6\r\n" + bytes(range(256)) * 4)
    await talk.dial.hang_up()


async def half_a_handshake(talk: Talk) -> None:
    head = await talk.dial.request()
    talk.dial.send_bytes(head[: len(head) // 2])
    await talk.dial.hang_up()


async def upgrade_and_close(talk: Talk) -> None:
    await talk.upgrade()
    await talk.dial.hang_up()


def http(status: int) -> Callable[[Talk], Awaitable[None]]:
    async def script(talk: Talk) -> None:
        where = {"Location": "http://127.0.0.1:9/app/k"} if status == 301 else {}
        await talk.dial.answer(status, "<html>no</html>", Connection="close", **where)
        await talk.dial.hang_up()

    return script


def not_established(event: str | None) -> Callable[[Start], Awaitable[Verdict]]:
    """The first frame is another, or never comes; time-outs are two seconds where they can be."""

    async def ask(start: Start) -> Verdict:
        async def script(talk: Talk) -> None:
            await talk.upgrade()
            if event is not None:
                talk.dial.send_text(event_text(event, {"a": 1}))
            await talk.stay()

        async with start(script, timeout=2.0) as seen:
            left = await seen.until(
                lambda: any(talk.left_after is not None for talk in seen.talks), 20
            )
            if left:
                return Verdict(True, f"leaves after {seen.talks[0].left_after or 0:.0f} s")
            return Verdict(False, f"waits for ever, {state(seen)}")

    return ask


# The auth endpoint


def bad_answer(status: int, body: str, kind: str) -> Callable[[Start], Awaitable[Verdict]]:
    """One channel gets no signature at all, and one none after a reconnect; two others do."""

    async def ask(start: Start) -> Verdict:
        async def sign(asked: Asked) -> web.Response:
            channel, socket_id = asked.form["channel_name"], asked.form["socket_id"]
            is_late = channel == "private-later" and socket_id != "1.1"
            if channel == "private-bad" or is_late:
                return web.Response(status=status, text=body, content_type=kind)
            return web.json_response({"auth": f"k:{socket_id}:{channel}"})

        async def script(talk: Talk) -> None:
            await talk.greet()
            await talk.joined(3)
            if talk.number == 1:
                await asyncio.sleep(0.5)
                talk.dial.abort()
            else:
                await talk.stay()

        others = {"private-a", "room"}
        channels = ("private-a", "private-bad", "private-later", "room")
        async with start(script, channels=channels) as seen:
            seen.endpoint.answers_with(sign)

            def joined(number: int) -> set[str]:
                talks = seen.talks[number:]
                return {s["channel"] for talk in talks[:1] for s in talk.subscribes}

            await seen.until(lambda: others <= joined(1), 18)
            first, second = joined(0), joined(1)
            if others <= first and others <= second:
                return Verdict(True, "")
            missing = ", ".join(sorted(others - (second if others <= first else first)))
            when = "after reconnecting" if others <= first else "at first"
            return Verdict(False, f"{when} without {missing}")

    return ask


# Frames


def framed(kind: str) -> Callable[[Start], Awaitable[Verdict]]:
    async def ask(start: Start) -> Verdict:
        count = 10_000 if kind == "many" else 1
        big = "x" * 1_000_000 if kind == "big" else "small"

        async def script(talk: Talk) -> None:
            await talk.greet()
            await talk.joined()
            frames = [
                frame_bytes(TEXT, event_text("event", {"n": n, "x": big}, "room").encode(),
                            masked=False)
                for n in range(count)
            ]  # fmt: skip
            if kind == "split":
                for byte in frames[0]:
                    talk.dial.send_bytes(bytes([byte]))
                    await asyncio.sleep(0.001)
            else:
                talk.dial.send_bytes(b"".join(frames))
            await talk.stay()

        async with start(script) as seen:
            await seen.until(lambda: len(seen.events) >= count, 15)
            if len(seen.events) != count:
                return Verdict(False, f"{len(seen.events):,} of {count:,} events, {state(seen)}")
            if kind == "many":
                numbers = [json.loads(text)["n"] for _, text in seen.events]
                return Verdict(numbers == list(range(count)), "")
            return Verdict(seen.dials == 1, "" if seen.dials == 1 else plural(seen.dials, "dial"))

    return ask


def fault(name: str, ask: Callable[[Start], Awaitable[Verdict]], **lacking: str) -> Fault:
    return Fault(name, ask, lacking)


FAULTS: Final[Sequence[Fault]] = (
    fault("event: a plain string as data", odd_data('"hello"')),
    fault("event: a number as data", odd_data("42")),
    fault("event: null as data", odd_data("null")),
    fault("event: a list as data", odd_data("[1,2]")),
    fault("event: broken JSON as data", odd_data('"{\\"a\\":"')),
    fault("pusher:ping is answered", pusher_ping),
    fault("WebSocket ping is answered", websocket_ping),
    fault(
        "pings answered while a handler takes 0.2 s",
        slow_handler,
        sockudo="no async handlers",
    ),
    fault(
        "our pusher:ping gets no answer",
        silence(websocket_pongs=True, seconds=12),
        asyncpusher="pings by WebSocket only",
    ),
    fault("the server falls silent", silence(websocket_pongs=False, seconds=50)),
    fault("4001 in-band, close without a code", told_in_band),
    fault("close 4001", closed_for_good(4001)),
    fault("close 4003, 4009, 4099", closed_for_good(4003, 4009, 4099)),
    fault("4004 in-band as the first word, left open", open_after_refusal(4004)),
    fault("4009 in-band as the first word, left open", open_after_refusal(4009)),
    fault("4009 in-band answers one subscribe", subscribe_refused_without_channel),
    fault("4200 in-band while connected", error_while_connected(4200)),
    fault("4301, 4302 in-band", error_while_connected(4301, 4302)),
    fault("close 1000", lost("close", 1000)),
    fault("close 1001", lost("close", 1001)),
    fault("TCP reset (1006)", lost("abort")),
    fault("close 1011", lost("close", 1011)),
    fault("close 1012", lost("close", 1012)),
    fault("close frame without a code", lost("close")),
    fault("close 4100: back off", lost("close", 4100)),
    fault("close 4200, again and again", told_to_reconnect_for_ever),
    fault("server away for 5 s", away),
    fault("nothing listens at first", refused_at_first),
    fault("accepts and hangs up, for ever", never_right(accept_and_close)),
    fault("upgrades and hangs up, for ever", never_right(upgrade_and_close)),
    fault("HTTP 200 instead of an upgrade", never_right(http(200))),
    fault("HTTP 301", never_right(http(301))),
    fault("HTTP 403", never_right(http(403))),
    fault("HTTP 502", never_right(http(502))),
    fault("garbage instead of an upgrade", never_right(garbage)),
    fault("half an upgrade", never_right(half_a_handshake)),
    fault("first frame is another", not_established("hello")),
    fault("first frame never comes", not_established(None)),
    fault("a new socket_id: signed anew", new_socket_id),
    fault("auth endpoint: 500 for two of four", bad_answer(500, "", "text/plain")),
    fault("auth endpoint: 403", bad_answer(403, "{}", "application/json")),
    fault("auth endpoint: an empty 200", bad_answer(200, "", "text/plain")),
    fault("auth endpoint: HTML", bad_answer(200, "<html>", "text/html")),
    fault("frame in single bytes", framed("split")),
    fault("frame of 1 MB", framed("big")),
    fault("10 000 frames in one write", framed("many")),
)
