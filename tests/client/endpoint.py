"""An auth endpoint that answers as a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import parse_qsl

from aiohttp import web

__all__ = ["SIGNED", "Asked", "Endpoint"]

SIGNED: Final = '{"auth":"k:sig"}'

Answer = Callable[["Asked"], Awaitable[web.StreamResponse]]


class Asked(NamedTuple):
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: str
    raw: web.Request

    @property
    def form(self) -> dict[str, str]:
        """The form's fields, each there once."""
        fields = parse_qsl(self.body, keep_blank_values=True, strict_parsing=True)
        assert len(dict(fields)) == len(fields)
        return dict(fields)


class Endpoint:
    """An HTTP server on a free port, up while its context lasts.

    Attributes:
        asked: All that it was asked, in order.
        most_at_once: How many requests it had before it at once, at the most.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.url = ""
        self.most_at_once = 0
        self._at_once = 0
        self._answer: Answer = self._plain(200, SIGNED)

    def answers(self, status: int, body: str | bytes = "", **headers: str) -> None:
        """Answer every request in this way from now on."""
        self._answer = self._plain(status, body, **headers)

    def answers_with(self, answer: Answer) -> None:
        """Let a function answer from now on."""
        self._answer = answer

    def answers_in_turn(self, *answers: tuple[int, str] | tuple[int, str, dict[str, str]]) -> None:
        """Answer one request in each way, and all further ones in the last way."""
        ways = [self._plain(way[0], way[1], **(way[2] if len(way) == 3 else {})) for way in answers]

        async def next_way(asked: Asked) -> web.StreamResponse:
            return await (ways.pop(0) if len(ways) > 1 else ways[0])(asked)

        self._answer = next_way

    def knows(self, *tokens: str, otherwise: int = 401, answer: Answer | None = None) -> None:
        """Let in who has one of these tokens, and refuse everybody else."""
        let_in = answer or self._plain(200, SIGNED)
        refuse = self._plain(otherwise)

        async def check(asked: Asked) -> web.StreamResponse:
            is_known = asked.headers.get("authorization", "").removeprefix("Bearer ") in tokens
            return await (let_in if is_known else refuse)(asked)

        self._answer = check

    def hangs(self) -> asyncio.Event:
        """Answer no request until the event is set."""
        free = asyncio.Event()

        async def later(asked: Asked) -> web.StreamResponse:
            await free.wait()
            return web.Response(text=SIGNED)

        self._answer = later
        return free

    def drops(self, times: int | None = None) -> None:
        """Hang up on every request, or on so many before signing."""
        sign = self._plain(200, SIGNED)
        left = [times]

        async def drop(asked: Asked) -> web.StreamResponse:
            if left[0] == 0:
                return await sign(asked)
            left[0] = None if left[0] is None else left[0] - 1
            assert asked.raw.transport is not None
            asked.raw.transport.abort()
            return web.Response()

        self._answer = drop

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(
            web.Server(self._serve, access_log=None), shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/broadcasting/auth"
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.text()
        headers = {name.lower(): value for name, value in request.headers.items()}
        assert len(headers) == len(request.headers), "no header is sent twice"
        asked = Asked(request.method, request.path_qs, headers, body, request)  # type: ignore[arg-type]
        self.asked.append(asked)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self._answer(asked)
        finally:
            self._at_once -= 1

    @staticmethod
    def _plain(status: int, body: str | bytes = "", **headers: str) -> Answer:
        raw = body.encode() if isinstance(body, str) else body

        async def answer(asked: Asked) -> web.StreamResponse:
            fields: dict[str, Any] = {name.replace("_", "-"): v for name, v in headers.items()}
            return web.Response(status=status, body=raw, headers=fields)

        return answer
