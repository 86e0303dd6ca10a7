"""A request to an auth endpoint, and who waits for its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from antiphon.errors import AuthServerError

from .answers import Question, Result, shown

__all__ = ["CHANNELS_IN_A_BATCH", "AuthRequest"]

CHANNELS_IN_A_BATCH: Final = 100


class AuthRequest:
    """What is asked of an endpoint at once: one channel, a batch of them, or to sign in.

    Args:
        url: The endpoint.
        socket_id: For which connection.
        is_batch: Whether it may ask for several channels.

    Attributes:
        waiting: Who waits, by channel; the channel is empty for signing in. A channel leaves when
            it has its answer, or when nobody waits for it any more.
        is_open: Whether further channels may join: until it is sent.
        task: What asks; it ends with the last who waits.
    """

    def __init__(self, url: str, socket_id: str, *, is_batch: bool = False) -> None:
        self.url = url
        self.socket_id = socket_id
        self.is_batch = is_batch
        self.is_open = is_batch
        self.waiting: dict[str, list[asyncio.Future[Result]]] = {}
        self.task: asyncio.Task[None] | None = None

    def takes(self, socket_id: str) -> bool:
        """Whether a further channel may join."""
        has_room = 0 < len(self.waiting) < CHANNELS_IN_A_BATCH
        return self.is_open and has_room and socket_id == self.socket_id

    def wait_for(self, channel: str) -> asyncio.Future[Result]:
        """Wait for a channel's answer, until `leave()`."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.waiting.setdefault(channel, []).append(future)
        return future

    def leave(self, channel: str, future: asyncio.Future[Result]) -> None:
        """Wait no longer, whether or not the answer was there."""
        futures = self.waiting.get(channel, [])
        if future in futures:
            futures.remove(future)
            if not futures:
                del self.waiting[channel]
        if not self.waiting and self.task is not None:
            self.task.cancel()

    def settle(self, results: Mapping[str, Result]) -> None:
        """Give channels their answers."""
        for channel, result in results.items():
            for future in self.waiting.pop(channel, []):
                if not future.done():
                    future.set_result(result)

    def ended(self, task: asyncio.Task[None]) -> None:
        """Let go who still waits: the task was ended, or is broken."""
        self.task = None  # its traceback holds the frame that holds this
        broken = None if task.cancelled() else task.exception()
        for channel, futures in self.waiting.items():
            error = AuthServerError(  # one that passes: another client may have closed it
                f"The authorizer was closed before it had an answer for {channel or 'signing in'}.",
                channel=channel,
            )
            for future in futures:
                if not future.done():
                    future.set_exception(broken or error)

    # What is sent

    def questions(self, tries: int = 1, renewed: bool = False) -> list[Question]:
        """What is asked, channel by channel."""
        return [Question(shown(self.url), channel, tries, renewed) for channel in self.waiting]

    def form(self) -> bytes:
        """The body; a batch's is in pusher-js-auth's form."""
        fields = [("socket_id", self.socket_id)]
        for number, channel in enumerate(self.waiting):
            if channel:
                name = f"channel_name[{number}]" if self.is_batch else "channel_name"
                fields.append((name, channel))
        return urlencode(fields).encode()
