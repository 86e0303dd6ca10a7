"""Messages on their way to the backend: in order, one at a time per conversation."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from antiphon.errors import AntiphonError, ApiError, ClientClosed, SettingsError

from .models import Draft, Message
from .problems import explain
from .store import ChatStore

__all__ = ["RETRIES", "Outbox", "retry_delay"]

RETRIES: Final = 6
"""How often a message is sent again by itself before it counts as failed."""
FIRST_DELAY: Final = 0.2
MAX_DELAY: Final = 30.0
JITTER: Final = 0.25

# Refusals that concern not the message but the moment, or who asks.
_TRY_LATER: Final = frozenset({408, 425, 429})
_LOG_IN_AGAIN: Final = frozenset({401, 419})

Post = Callable[[Draft], Awaitable[Message]]
"""Sends one message; raises `ApiError`."""
Told = Callable[[Draft, Message | None, AntiphonError | None], None]
"""Called with a draft and what became of it: nothing yet (it had failed and is being sent again),
the message the backend made of it, or why it could not be sent."""

log = logging.getLogger("antiphon.chat")


class Outbox:
    """Sends messages, keeps them until the backend has them, and never makes two of one.

    A message that gets no answer, or 3xx, 408, 425, 429 or 5xx, is sent again up to six times:
    after 200 ms, twice as long each time, give or take a quarter; later if the backend asks for it
    (`Retry-After`); 30 s at the most. Then it has failed, and with it those that wait behind it, so
    that the order is kept; `again()`, or a new message, starts over with the first. A message that
    is refused (any other 4xx) has failed for good, and the next one goes; it is sent again only by
    `retry()`. 401 and 419 stop like no answer does, but at once: without a token there is no sense
    in trying.

    Args:
        post: Sends one.
        told: Is told what becomes of each; if it raises, that is logged.
        store: Where they are kept, open for as long as this is used; None for in memory only.
        rng: Gives numbers from 0 to 1, for the jitter.
    """

    def __init__(
        self,
        post: Post,
        told: Told,
        store: ChatStore | None = None,
        *,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._post = post
        self._told = told
        self._store = store
        self._rng = rng
        self._lines: dict[str, _Line] = {}
        self._keeping = asyncio.Lock()
        self._is_closed = False

    async def load(self) -> list[Draft]:
        """What the store has kept, failed ones among them; call `again()` to send it.

        Raises:
            SettingsError: The store cannot be read.
        """
        drafts = await self._store.drafts() if self._store is not None else []
        for draft in drafts:
            self._line(draft).drafts[draft.temp_id] = draft
        return drafts

    async def put(self, draft: Draft) -> None:
        """Keep a message and send it; returns when it is kept.

        Cancelled while it is being kept, it is sent all the same.

        Raises:
            SettingsError: The store could not keep it; it is not sent.
            ValueError: It holds text that no encoding can carry (half a surrogate pair).
            ClientClosed: The outbox is closed; the message is neither kept nor sent.
        """
        # One after another, so that they are sent in the order they were put.
        async with self._keeping:
            if self._is_closed:
                raise ClientClosed("The chat is closed; the message was not kept.")
            if self._store is not None:
                try:
                    await self._store.put_draft(draft)
                except asyncio.CancelledError:
                    self._append(draft)
                    raise
            self._append(draft)

    def again(self) -> None:
        """Send all that wait or have failed for want of an answer, now: the network is back."""
        for line in list(self._lines.values()):
            self._start_over(line)

    async def retry(self, temp_id: str) -> None:
        """Send one that has failed, and what failed with it; one that is not there is left out."""
        line = self._find(temp_id)
        if line is None or not line.drafts[temp_id].failure:
            return
        draft = line.drafts[temp_id]
        if draft.refused:
            draft = msgspec.structs.replace(draft, failure="", refused=False)
            line.drafts[temp_id] = draft
            self._tell(draft, None, None)
        self._start_over(line)
        # What a person has asked for holds after a restart too.
        await self._keep(line, draft)

    async def discard(self, temp_id: str) -> bool:
        """Let go of one; False if it is not there, or is being sent at this moment."""
        line = self._find(temp_id)
        if line is None or line.posting == temp_id:
            return False
        del line.drafts[temp_id]
        if line.tried == temp_id:
            line.hurry.set()  # nobody need wait for its delay any longer
        if line.task is None:
            self._forget_if_empty(line)
        await self._drop(temp_id)
        return True

    def waiting(self, conversation_id: str | None = None) -> tuple[Draft, ...]:
        """What the backend has not confirmed yet, in order.

        Args:
            conversation_id: The conversation; None for all of them, one after the other.
        """
        if conversation_id is None:
            return tuple(draft for line in self._lines.values() for draft in line.drafts.values())
        line = self._lines.get(conversation_id)
        return tuple(line.drafts.values()) if line is not None else ()

    async def drained(self) -> None:
        """Wait until nothing is under way: everything is sent or has failed."""
        while tasks := self._tasks():
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Stop sending; what is not sent stays in the store."""
        self._is_closed = True
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _append(self, draft: Draft) -> None:
        line = self._line(draft)
        line.drafts[draft.temp_id] = draft
        # While it waits before the next attempt, another message is no reason to hurry.
        self._revive(line)
        self._start(line)

    def _start_over(self, line: _Line) -> None:
        line.retries = 0
        line.hurry.set()
        self._revive(line)
        self._start(line)

    def _revive(self, line: _Line) -> None:
        """What has failed for want of an answer waits again."""
        for draft in list(line.drafts.values()):
            if draft.failure and not draft.refused:
                waiting = msgspec.structs.replace(draft, failure="")
                line.drafts[draft.temp_id] = waiting
                self._tell(waiting, None, None)

    def _start(self, line: _Line) -> None:
        if line.task is None and line.first() is not None and not self._is_closed:
            line.task = asyncio.create_task(
                self._send_all(line), name=f"antiphon outbox {line.conversation_id}"
            )

    async def _send_all(self, line: _Line) -> None:
        try:
            while (draft := line.first()) is not None:
                if line.tried != draft.temp_id:
                    line.tried, line.retries = draft.temp_id, 0
                line.hurry.clear()
                line.posting = draft.temp_id
                try:
                    message = await self._post(draft)
                except AntiphonError as exc:
                    line.posting = None
                    await self._not_sent(line, draft, exc)
                except Exception as exc:
                    line.posting = None
                    # A fault of the program's own, and the same the next time.
                    log.exception("the message %s cannot be sent", draft.temp_id)
                    why = f"The program failed to send the message ({type(exc).__name__})."
                    await self._fail(line, [draft], ApiError(why), refused=True)
                else:
                    line.posting = None
                    line.drafts.pop(draft.temp_id, None)
                    self._tell(draft, message, None)
                    await self._drop(draft.temp_id)
        finally:
            line.posting = line.task = None
            self._forget_if_empty(line)

    async def _not_sent(self, line: _Line, draft: Draft, error: AntiphonError) -> None:
        code = error.code or 0
        if code in _LOG_IN_AGAIN or (line.retries == RETRIES and not _is_refusal(code)):
            waiting = [draft for draft in line.drafts.values() if not draft.failure]
            line.tried = None
            await self._fail(line, waiting, error, refused=False)
        elif _is_refusal(code):
            await self._fail(line, [draft], error, refused=True)
        else:
            asked = error.retry_after if isinstance(error, ApiError) else None
            delay = retry_delay(line.retries, self._rng(), asked)
            line.retries += 1
            log.info(
                "message %s: %s; sending it again in %.1f s (%d of %d)",
                draft.temp_id,
                error,
                delay,
                line.retries,
                RETRIES,
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await line.hurry.wait()

    async def _fail(
        self, line: _Line, drafts: list[Draft], error: AntiphonError, *, refused: bool
    ) -> None:
        why = explain(error).explanation
        failed = [msgspec.structs.replace(d, failure=why, refused=refused) for d in drafts]
        line.drafts.update((draft.temp_id, draft) for draft in failed)
        for draft in failed:
            # Who is told of one may send or discard the others.
            if line.drafts.get(draft.temp_id) is draft:
                self._tell(draft, None, error)
        for draft in failed:
            await self._keep(line, draft)

    async def _keep(self, line: _Line, draft: Draft) -> None:
        """Keep a draft as it is now, unless it has gone or changed meanwhile."""
        if self._store is None or line.drafts.get(draft.temp_id) is not draft:
            return
        try:
            await self._store.put_draft(draft)
        except SettingsError as exc:
            # It is kept as it was.
            log.warning("what became of message %s is not kept: %s", draft.temp_id, exc)

    async def _drop(self, temp_id: str) -> None:
        if self._store is None:
            return
        try:
            await self._store.drop_draft(temp_id)
        except SettingsError as exc:
            # The backend knows it by its temp_id, and makes no second one of it.
            log.warning("message %s stays in the store: %s", temp_id, exc)

    def _tell(self, draft: Draft, message: Message | None, error: AntiphonError | None) -> None:
        try:
            self._told(draft, message, error)
        except Exception:
            log.exception("who is told of message %s raised", draft.temp_id)

    def _line(self, draft: Draft) -> _Line:
        id_ = draft.conversation_id
        if id_ not in self._lines:
            self._lines[id_] = _Line(id_)
        return self._lines[id_]

    def _find(self, temp_id: str) -> _Line | None:
        return next((line for line in self._lines.values() if temp_id in line.drafts), None)

    def _forget_if_empty(self, line: _Line) -> None:
        if not line.drafts:
            self._lines.pop(line.conversation_id, None)

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [line.task for line in self._lines.values() if line.task is not None]


class _Line:
    """One conversation's messages, in the order they were put.

    Attributes:
        drafts: By `temp_id`; those without a failure wait.
        task: Sends what waits; None when there is nothing to send.
        posting: The `temp_id` of the one whose answer is waited for.
        tried: The `temp_id` of the one that `retries` counts for.
        hurry: Set to cut short the delay before the next attempt.
    """

    __slots__ = ("conversation_id", "drafts", "hurry", "posting", "retries", "task", "tried")

    def __init__(self, conversation_id: str) -> None:
        self.conversation_id = conversation_id
        self.drafts: dict[str, Draft] = {}
        self.task: asyncio.Task[None] | None = None
        self.posting: str | None = None
        self.tried: str | None = None
        self.retries = 0
        self.hurry = asyncio.Event()

    def first(self) -> Draft | None:
        """The one to send next."""
        return next((draft for draft in self.drafts.values() if not draft.failure), None)


def retry_delay(retries: int, number: float, retry_after: float | None = None) -> float:
    """Seconds before a message is sent again.

    Args:
        retries: How often it was sent again already.
        number: From 0 to 1, for the jitter.
        retry_after: Seconds the backend asks to wait.
    """
    delay = FIRST_DELAY * 2.0**retries * (1 + JITTER * (2 * number - 1))
    return min(max(delay, retry_after or 0.0), MAX_DELAY)


def _is_refusal(code: int) -> bool:
    return 400 <= code < 500 and code not in _TRY_LATER
