"""Sending webhooks to one endpoint: batched, signed, in order, and again where it fails.

Who tells waits for nothing, as the queue is bounded. An event may arrive twice (the first answer
was lost), but never out of order. PROTOCOL §1.7.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from antiphon.http import AnswerTooLarge, NoAnswer
from antiphon.protocol.backoff import Backoff
from antiphon.protocol.closing import Action
from antiphon.protocol.signing import sign_webhook

if TYPE_CHECKING:
    from antiphon.http import HttpClient
    from antiphon.settings import App, WebhookEndpoint

__all__ = ["BATCH_DELAY", "MAX_BATCH", "Endpoint"]

log = logging.getLogger("antiphon.server")

BATCH_DELAY: Final = 0.05
"""Seconds in which events are collected for one request."""
MAX_BATCH: Final = 1_000
MAX_BATCH_BYTES: Final = 256 * 1024
MAX_QUEUE: Final = 10_000
MAX_QUEUE_BYTES: Final = 16 * 1024 * 1024
REQUEST_TIMEOUT: Final = 10.0
MIN_RETRY: Final = 1.0
MAX_RETRY: Final = 60.0
PATIENCE: Final = 300.0
"""Seconds for which a batch is tried; receivers refuse what is older (PROTOCOL §1.7 row 66)."""


class Endpoint:
    """Sends to one endpoint, one request after the other.

    Args:
        name: What the log calls it: its address may hold secrets.
        endpoint: Where to, and what it wants.
        app: The application, which signs.
        http: Sends the requests.
        rng: Gives numbers from 0 up to 1.

    Attributes:
        dropped: Events that found the queue full.
        sent: Events that were taken.
        failed: Events that were not.
    """

    def __init__(
        self,
        name: str,
        endpoint: WebhookEndpoint,
        app: App,
        http: HttpClient,
        rng: Callable[[], float],
    ) -> None:
        self.dropped = self.sent = self.failed = 0
        self._name = f"{name} ({urlsplit(endpoint.url).hostname})"
        self._endpoint = endpoint
        self._secret = app.secret
        self._http = http
        self._rng = rng
        ours = {"X-Pusher-Key": app.key, "Content-Type": "application/json"}
        taken = {"x-pusher-signature", *map(str.lower, ours)}
        own = {name: text for name, text in endpoint.headers.items() if name.lower() not in taken}
        self._headers = own | ours
        # What is being sent stays at the head until that is over.
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._dropped_now = 0
        self._sending: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    @property
    def queued(self) -> int:
        """Events that wait, or are on their way."""
        return len(self._queue)

    def wants(self, kind: str) -> bool:
        """Whether it is to be told events of a kind."""
        return not self._endpoint.events or kind in self._endpoint.events

    def wants_channel(self, channel: str) -> bool:
        """Whether it is to be told of a channel."""
        globs = self._endpoint.channels
        return not globs or any(fnmatchcase(channel, glob) for glob in globs)

    def put(self, event: bytes) -> None:
        """Send an event with the next request that has room for it."""
        if len(self._queue) >= MAX_QUEUE or self._size + len(event) > MAX_QUEUE_BYTES:
            if not self._dropped_now:
                log.warning("webhook %s: its queue is full; events are dropped", self._name)
            self._dropped_now += 1
            self.dropped += 1
            return
        self._queue.append(event)
        self._size += len(event)
        if self._sending is None or self._sending.done():
            loop = asyncio.get_running_loop()
            self._sending = loop.create_task(self._send(), name="antiphon webhooks")

    async def close(self) -> None:
        """Send what waits, trying each once more; ends at once when it is cancelled."""
        self._closing.set()
        try:
            if self._sending is not None:
                await self._sending
        finally:
            if self._queue:
                self._give_up(len(self._queue), "there was no time left")

    async def _send(self) -> None:
        while self._queue:
            if len(self._queue) < MAX_BATCH and self._size < MAX_BATCH_BYTES:
                await self._pause(BATCH_DELAY)
            batch = self._next_batch()
            events = b",".join(batch)
            body = b'{"time_ms":%d,"events":[%b]}' % (time.time() * 1000, events)
            refusal = await self._deliver(body)
            if refusal is None:
                self.sent += len(batch)
                self._take_off(len(batch))
            else:
                # Who closes has no time to hear the same of every batch.
                lost = len(self._queue) if self._closing.is_set() else len(batch)
                self._give_up(lost, refusal)

    def _next_batch(self) -> list[bytes]:
        batch: list[bytes] = []
        size = 0
        for event in self._queue:
            size += len(event)
            if batch and (len(batch) == MAX_BATCH or size > MAX_BATCH_BYTES):
                break
            batch.append(event)
        return batch

    async def _deliver(self, body: bytes) -> str | None:
        """Send a batch until it is taken, or time has run out; then why it was not."""
        headers = self._headers | {"X-Pusher-Signature": sign_webhook(self._secret, body)}
        backoff = Backoff(self._rng, minimum=MIN_RETRY, maximum=MAX_RETRY)
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + PATIENCE
        while True:
            refusal = await self._post(headers, body)
            if refusal is None or self._closing.is_set():
                return refusal
            delay = backoff.next_delay(Action.BACK_OFF)
            if delay is None or loop.time() + delay > give_up_at:
                return refusal
            await self._pause(delay)

    async def _post(self, headers: dict[str, str], body: bytes) -> str | None:
        """Send a request; why it was refused, or None."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                answer = await self._http.request(
                    "POST", self._endpoint.url, headers=headers, body=body
                )
            status = answer.status
        except AnswerTooLarge as exc:
            status = exc.status  # that it is long does not matter
        except NoAnswer as exc:
            return str(exc)
        except TimeoutError:
            return "it did not answer in time"
        return None if 200 <= status < 300 else f"it answered {status}"

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until it closes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    def _give_up(self, count: int, why: str) -> None:
        self.failed += count
        log.warning("webhook %s: events given up: %d; %s", self._name, count, why)
        self._take_off(count)

    def _take_off(self, count: int) -> None:
        for _ in range(count):
            self._size -= len(self._queue.popleft())
        # Half empty, not just less than full: where more comes than goes, it would be told forever.
        has_room = len(self._queue) <= MAX_QUEUE // 2 and self._size <= MAX_QUEUE_BYTES // 2
        if self._dropped_now and has_room:
            log.warning(
                "webhook %s: its queue has room again; events dropped: %d",
                self._name,
                self._dropped_now,
            )
            self._dropped_now = 0
