"""Asks a backend for signatures, as Laravel's `/broadcasting/auth` and its like expect."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from antiphon.errors import AuthorizationFailed, SessionExpired, SettingsError, Unauthorized
from antiphon.http import AnswerTooLarge, HttpClient, NoAnswer
from antiphon.protocol.backoff import Backoff
from antiphon.protocol.closing import Action

from .answers import MAX_ANSWER, Result, read_batch, read_one, shown
from .authorizer import Authentication, Authorization
from .credentials import Credentials, HeadersSource, NothingToSend, Refresh, TokenSource
from .request import AuthRequest

__all__ = ["HttpAuthorizer"]

REQUESTS_AT_ONCE: Final = 16
RETRIES: Final = 3
MAX_RETRY_AFTER: Final = 30.0

log = logging.getLogger("antiphon.auth")


class HttpAuthorizer:
    """Asks a backend to sign channels, and the user of a connection.

    Sends `POST` with the form fields `socket_id` and `channel_name`, at most 16 requests at once.

    A request that finds no connection, runs out of time or is answered 429 or 5xx is sent again up
    to three times, with growing delays; a `Retry-After` in seconds is kept to, up to 30. A request
    that is answered 401 or 419 is sent once more after the token was renewed. One renewal serves
    all requests that need it, and while it is under way nothing is sent.

    Args:
        url: The endpoint that signs channels.
        user_auth_url: The endpoint that signs users in, if there is one.
        token: Bearer token, or a function that is asked for it at every request. Without
            `refresh`, a function that has another token than the refused one has renewed it.
        refresh: Renews the token; the one it gives, if it gives one, stands in for `token`.
        headers: Further headers, such as `Accept-Language`, or a function that is asked for them
            at every request.
        timeout: Seconds one request may take.
        batch: Ask for up to 100 channels in one request, in pusher-js-auth's form
            (`channel_name[0]`, …): for channels asked for at the same moment, and while 16
            requests are under way. The endpoint has to understand it; Laravel's own does not.
        min_delay: Seconds before a request is sent again, at the least.
        max_delay: Seconds before a request is sent again, at the most, unless the endpoint says
            otherwise.
        ssl_context: Stands in for the usual one, such as for a certificate of one's own.

    Raises:
        SettingsError: `url` or `user_auth_url` is no http address, or holds a user and a password
            while there is a token: a request has room for one of them.
    """

    def __init__(
        self,
        url: str,
        *,
        user_auth_url: str = "",
        token: TokenSource | None = None,
        refresh: Refresh | None = None,
        headers: HeadersSource | None = None,
        timeout: float = 10.0,
        batch: bool = False,
        min_delay: float = 0.5,
        max_delay: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        for address in (url, user_auth_url or url):
            _check(address, has_token=token is not None or refresh is not None)
        self.url = url
        self.user_auth_url = user_auth_url
        self._credentials = Credentials(token, refresh, headers)
        self._timeout = timeout
        self._batch = batch
        self._min_delay = min_delay
        self._max_delay = max_delay
        self._http = HttpClient(timeout, max_answer=MAX_ANSWER, ssl_context=ssl_context)
        self._slots = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        # The batch that further channels may join.
        self._latest: AuthRequest | None = None

    async def authorize(self, channel: str, socket_id: str) -> Authorization:
        """The signature for a channel.

        Raises:
            Unauthorized: 401, also with a renewed token, or with none because the refresh failed.
            SessionExpired: 419, likewise.
            Forbidden: 403.
            EmptyAuthResponse: 200 without a body.
            MalformedAuthResponse: 200 with something else than a signature, or without what this
                kind of channel needs.
            AuthServerError: Any other status, or no connection. Where it is `temporary`, the
                endpoint was asked four times.
            AuthTimeout: No answer in time, four times.
            AuthorizationFailed: The token or the headers could not be had, or `close()` was called.
        """
        request = self._latest
        if request is None or not request.takes(socket_id):
            request = AuthRequest(self.url, socket_id, is_batch=self._batch)
            self._latest = request if self._batch else None
        answer = await self._answer(request, channel)
        assert isinstance(answer, Authorization)
        return answer

    async def authenticate(self, socket_id: str) -> Authentication:
        """The signature for signing in.

        Raises:
            AuthorizationFailed: There is no `user_auth_url`; or any error that `authorize` raises,
                with an empty `channel`.
        """
        if not self.user_auth_url:
            raise AuthorizationFailed(
                "Signing in needs an endpoint: give HttpAuthorizer a user_auth_url.", channel=""
            )
        answer = await self._answer(AuthRequest(self.user_auth_url, socket_id), "")
        assert isinstance(answer, Authentication)
        return answer

    async def close(self) -> None:
        """End what is under way, and close the connections; a later call opens new ones."""
        tasks = self._tasks - {asyncio.current_task()}  # a token's function may close us
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._credentials.close()
        await self._http.close()
        self._slots = asyncio.Semaphore(REQUESTS_AT_ONCE)  # the next event loop's

    async def _answer(self, request: AuthRequest, channel: str) -> Authorization | Authentication:
        """Wait for a channel's answer; the first who waits begins the request."""
        future = request.wait_for(channel)
        if request.task is None:
            request.task = asyncio.create_task(self._ask(request), name="antiphon-auth")
            self._tasks.add(request.task)
            request.task.add_done_callback(self._tasks.discard)
            request.task.add_done_callback(request.ended)
        try:
            result = await future
        finally:
            request.leave(channel, future)
            del future
        try:
            if isinstance(result, AuthorizationFailed):
                raise result
            return result
        finally:
            del result  # its traceback holds this frame, which held the future that held it

    # The life of a request

    async def _ask(self, request: AuthRequest) -> None:
        """Ask until every channel has its answer."""
        credentials = self._credentials
        began = credentials.renewals
        backoff = Backoff(
            random.random, minimum=self._min_delay, maximum=self._max_delay, max_attempts=RETRIES
        )
        refused: dict[str, Result] = {}
        while request.waiting:
            async with self._turn():
                if credentials.renewals > began:
                    self._heed_renewal(request, refused)
                if not request.waiting:
                    return
                renewals = credentials.renewals
                said = await self._send(request, backoff.attempts + 1, renewed=renewals > began)
            # What is said to a token that was renewed since this began is the last word.
            may_renew = credentials.can_be_renewed and renewals == began
            refused = said.only(_is_refusal) if may_renew else {}
            temporary = said.only(_is_temporary)
            delay = backoff.next_delay(Action.BACK_OFF) if temporary else None
            again = refused if delay is None else refused | temporary
            request.settle({c: r for c, r in said.results.items() if c not in again})
            if refused:
                credentials.renew(said.token, renewals, _code_of(refused))
            if delay is not None:
                # Added up, so that those who were told the same do not come back together.
                await _pause(delay + said.retry_after, backoff.attempts, temporary)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One of the requests at once; none is sent with a token that is being renewed."""
        while True:
            await self._credentials.settled()
            async with self._slots:
                if not self._credentials.is_being_renewed:
                    yield
                    return

    def _heed_renewal(self, request: AuthRequest, refused: dict[str, Result]) -> None:
        """Give up what the last renewal has not helped."""
        credentials = self._credentials
        if credentials.failure is not None:
            # The token is no good, whether or not this request was sent with it.
            for question in request.questions():
                error = question.not_renewed(credentials.status, credentials.failure)
                request.settle({question.channel: error})
        elif not credentials.changed:
            request.settle(refused)

    async def _send(self, request: AuthRequest, tries: int, *, renewed: bool) -> _Said:
        """Ask once."""
        try:
            async with asyncio.timeout(self._timeout):
                headers, token = await self._credentials.headers()
        except TimeoutError:
            nothing = NothingToSend(f"no token or headers came within {self._timeout:g} seconds")
            return _Said({q.channel: q.not_sent(nothing) for q in request.questions()})
        except NothingToSend as exc:
            return _Said({q.channel: q.not_sent(exc) for q in request.questions()})
        request.is_open = False
        questions = request.questions(tries, renewed)
        fields = {"accept": "application/json", **headers, **_FORM}
        try:
            answer = await self._http.request(
                "POST", request.url, headers=fields, body=request.form()
            )
        except AnswerTooLarge as exc:
            return _Said({q.channel: q.too_large(exc.status) for q in questions}, token)
        except NoAnswer as exc:
            late = self._timeout if exc.timed_out else None
            return _Said({q.channel: q.unanswered(str(exc), late) for q in questions}, token)
        read = read_batch if request.is_batch else read_one
        results = read(questions, answer.status, answer.body)
        return _Said(results, token, _seconds(answer.headers.get("Retry-After", "")))


class _Said(NamedTuple):
    """What came of asking once."""

    results: dict[str, Result]
    token: str | None = None
    retry_after: float = 0.0

    def only(self, condition: Callable[[Result], bool]) -> dict[str, Result]:
        """Those results that meet a condition."""
        return {channel: result for channel, result in self.results.items() if condition(result)}


async def _pause(delay: float, tries: int, results: dict[str, Result]) -> None:
    """Wait before asking again."""
    why = next(iter(results.values()))
    log.info("asking again in %.1f s (%d of %d tries): %s", delay, tries, RETRIES + 1, why)
    await asyncio.sleep(delay)


def _is_refusal(result: Result) -> bool:
    return isinstance(result, Unauthorized | SessionExpired)


def _is_temporary(result: Result) -> bool:
    return isinstance(result, AuthorizationFailed) and result.temporary


def _code_of(refused: dict[str, Result]) -> int:
    return 419 if isinstance(next(iter(refused.values())), SessionExpired) else 401


def _seconds(retry_after: str) -> float:
    """What a `Retry-After` asks for, within reason; a date is not heeded."""
    is_number = retry_after.isascii() and retry_after.isdecimal()
    return min(float(retry_after), MAX_RETRY_AFTER) if is_number else 0.0


def _check(url: str, *, has_token: bool) -> None:
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # an impossible host or port
        raise SettingsError("The address of an auth endpoint has no usable host or port.") from None
    if not is_address:
        raise SettingsError(
            f"The address of an auth endpoint starts with http:// or https:// and a host,"
            f" not so {shown(url)!r}."
        )
    if has_token and "@" in parts.netloc:
        raise SettingsError(
            f"The address {shown(url)} has a user in it, and there is a token:"
            " a request has room for one of them."
        )


_FORM: Final = {"content-type": "application/x-www-form-urlencoded"}
