"""Requests over HTTP: aiohttp, named here and nowhere else on the client's side.

Who asks a server over HTTP (the publisher, the authorizer, the chat's REST client) holds one
`HttpClient`. aiohttp is loaded with the first request, not by who imports antiphon.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import ssl

    import aiohttp
    from yarl import URL

__all__ = ["MAX_ANSWER", "Answer", "AnswerTooLarge", "HttpClient", "NoAnswer"]

MAX_ANSWER: Final = 64 * 1024 * 1024
"""Bytes of one answer, decompressed; a few hundred thousand channels fit into it."""


class Answer(NamedTuple):
    """What a server has answered.

    Attributes:
        status: The HTTP status.
        headers: The header fields; names in any case.
        body: The body, decompressed.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoAnswer(Exception):
    """A request got no answer.

    Its text says why, in words that hold neither address nor header: both may hold a secret.

    Attributes:
        timed_out: Whether time has run out.
    """

    def __init__(self, reason: str, *, timed_out: bool) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


class AnswerTooLarge(NoAnswer):
    """An answer was longer than anybody wants to read.

    Attributes:
        status: The HTTP status it had.
    """

    def __init__(self, status: int, limit: int) -> None:
        super().__init__(f"its answer has more than {limit} bytes", timed_out=False)
        self.status = status


class HttpClient:
    """One pool of connections, opened with the first request.

    Redirects are not followed, and no cookie is kept: a request is answered by whom it was sent to.

    Args:
        timeout: Seconds one request may take, from the dial to the last byte.
        max_answer: Bytes of an answer, decompressed; a longer one is read no further.
        ssl_context: Stands in for the usual one, such as for a certificate of one's own.
    """

    def __init__(
        self,
        timeout: float,
        *,
        max_answer: int = MAX_ANSWER,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._timeout = timeout
        self._max_answer = max_answer
        self._ssl_context = ssl_context
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Send a request, and wait for the whole answer.

        Args:
            method: Such as `POST`.
            url: The address; where it is percent-encoded, it is sent as it stands.
            headers: The header fields.
            body: The body.

        Raises:
            NoAnswer: There was none, or (`AnswerTooLarge`) one that is too long.
        """
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(self._timeout), cookie_jar=aiohttp.DummyCookieJar()
            )
        try:
            async with self._session.request(
                method,
                _address(url),
                headers=headers,
                data=body,
                allow_redirects=False,
                ssl=self._ssl_context or True,
            ) as response:
                return Answer(response.status, response.headers, await self._body(response))
        # An exception's own text may hold the address, and its attributes the headers: what is
        # raised is raised outside, where there is no exception to be chained to it.
        except NoAnswer as exc:
            failure = exc
        except TimeoutError:
            failure = NoAnswer("it did not answer in time", timed_out=True)
        except aiohttp.ClientError as exc:
            failure = NoAnswer(_reason(exc), timed_out=False)
            _forget_frames(exc)
        except UnicodeError:  # of a host that IDNA refuses
            failure = NoAnswer(_NO_ADDRESS, timed_out=False)
        except ValueError:
            failure = NoAnswer("the request has a header that cannot be sent", timed_out=False)
        try:
            raise failure
        finally:
            del failure  # its traceback holds this frame

    async def close(self) -> None:
        """Close the pooled connections; a later request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._max_answer:
                raise AnswerTooLarge(response.status, self._max_answer)
        return bytes(body)


def _forget_frames(exc: BaseException | None) -> None:
    """Drop the tracebacks of a chain: aiohttp keeps exceptions in the frames they hold."""
    while exc is not None:
        exc.__traceback__ = None
        exc = exc.__cause__ or exc.__context__


def _address(text: str) -> URL:
    from yarl import URL

    # What a request line can carry goes as it stands: it may be signed. yarl encodes the rest.
    as_it_stands = text.isascii() and text.isprintable() and " " not in text
    try:
        url = URL(text, encoded=as_it_stands)
        url.port  # noqa: B018 - it is looked at late, and may be out of range
    except ValueError:
        raise NoAnswer(_NO_ADDRESS, timed_out=False) from None
    return url


def _reason(exc: BaseException) -> str:
    names = [kind.__name__ for kind in type(exc).__mro__]
    return next((_REASONS[name] for name in names if name in _REASONS), names[0])


_NO_ADDRESS: Final = "this is no address"

# By the names of aiohttp's exceptions; what is not here is told as what it is a kind of.
_REASONS: Final = {
    "ClientConnectorCertificateError": "its certificate is not trusted",
    "ClientConnectorSSLError": "it does not speak TLS; is the scheme http there?",
    "ClientConnectorDNSError": "its name cannot be found; check the host, or the network",
    "ClientConnectorError": "nothing listens; is the server running there?",
    "ServerDisconnectedError": "it hung up instead of answering",
    "ClientConnectionError": "the connection broke",
    "UploadAbortedError": "it hung up before it had the whole request",
    "ClientPayloadError": "its answer broke off, or is not encoded as it says",
    "ClientResponseError": "what it said is no HTTP",
    "InvalidURL": _NO_ADDRESS,
    "NonHttpUrlClientError": "the address does not begin with http:// or https://",
}
