"""What stands before a backend, and can lose, delay, refuse or count what goes through."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web

__all__ = ["Gate", "Rule", "open_gate"]


class Asked(NamedTuple):
    """A request that came."""

    line: str
    headers: dict[str, str]


class Rule:
    """What happens to requests that match.

    Attributes:
        met: How many have.
    """

    def __init__(
        self, status: int, body: Any, held: asyncio.Event | None, times: int | None, late: bool
    ) -> None:
        self.status = status
        self.body = body
        self.held = held
        self.times = times
        self.late = late
        self.met = 0


class Gate:
    """Passes requests on to a backend.

    Attributes:
        api_url: Its address.
        asked: Every request that came, as `METHOD /path?query`.
    """

    def __init__(self, target: Callable[[], str], http: aiohttp.ClientSession) -> None:
        self.api_url = ""
        self.asked: list[Asked] = []
        self._target = target
        self._http = http
        self._rules: dict[str, Rule] = {}

    def count(self, pattern: str) -> int:
        """How many requests match."""
        return sum(re.match(pattern, asked.line) is not None for asked in self.asked)

    def refuse(self, pattern: str, status: int, *, times: int | None = None) -> Rule:
        """Answer with a status; 0 hangs up without a word."""
        rule = self._rules[pattern] = Rule(status, {"message": "No."}, None, times, False)
        return rule

    def answer(self, pattern: str, body: Any) -> Rule:
        """Answer with 200 and a body of one's own."""
        rule = self._rules[pattern] = Rule(200, body, None, None, False)
        return rule

    def hold(self, pattern: str, *, late: bool = False, times: int | None = None) -> asyncio.Event:
        """Let requests wait until the event is set; `late`: after the backend has answered."""
        held = asyncio.Event()
        self._rules[pattern] = Rule(0, None, held, times, late)
        return held

    def lose(self, pattern: str, *, times: int | None = None) -> Rule:
        """Let requests through, and lose the answers."""
        rule = self._rules[pattern] = Rule(0, None, None, times, True)
        return rule

    def open(self) -> None:
        """Let everything through again."""
        for rule in self._rules.values():
            if rule.held is not None:
                rule.held.set()
        self._rules.clear()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        line = f"{request.method} {request.path_qs}"
        self.asked.append(Asked(line, dict(request.headers)))
        rule = next((rule for p, rule in self._rules.items() if re.match(p, line)), None)
        if rule is not None and rule.times is not None and rule.met >= rule.times:
            rule = None
        if rule is not None:
            rule.met += 1
            if not rule.late and rule.held is not None:
                await rule.held.wait()
            elif not rule.late and rule.status:
                return web.json_response(rule.body, status=rule.status)
            elif not rule.late:
                return _hang_up(request)
        body = await request.read()
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _OURS}
        try:
            async with self._http.request(
                request.method, self._target() + request.path_qs, headers=headers, data=body
            ) as answer:
                raw, kind = await answer.read(), answer.content_type
        except aiohttp.ClientError:
            return _hang_up(request)
        if rule is not None and rule.late:
            if rule.held is None:
                return _hang_up(request)
            await rule.held.wait()
        return web.Response(body=raw, status=answer.status, content_type=kind)


_OURS = {"host", "content-length", "transfer-encoding", "connection", "accept-encoding"}


def _hang_up(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


@contextlib.asynccontextmanager
async def open_gate(target: Callable[[], str]) -> AsyncIterator[Gate]:
    """A gate before a backend, whose address is asked for at each request."""
    async with aiohttp.ClientSession() as http:
        gate = Gate(target, http)
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", gate.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        gate.api_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield gate
        finally:
            gate.open()
            await runner.cleanup()
