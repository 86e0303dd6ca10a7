"""A chat backend over REST: log in, and do what a chat does."""

from __future__ import annotations

import ssl
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from antiphon.errors import ApiError, LoginFailed, sentence
from antiphon.http import HttpClient, NoAnswer

from .events import Id, Message

__all__ = ["Login", "RestClient", "User"]

T = TypeVar("T")


class User(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A user of the chat."""

    id: Id
    first_name: str = ""
    last_name: str = ""
    email: str = ""

    @property
    def name(self) -> str:
        """First and last name."""
        return f"{self.first_name} {self.last_name}".strip()

    @property
    def channel(self) -> str:
        """The private channel on which this user is told of everything."""
        return f"private-user.{self.id}"


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """What a login gives; its `repr` does not show the token."""

    token: str
    user: User

    def __repr__(self) -> str:
        """The user only."""
        return f"Login(user={self.user!r})"


class RestClient:
    """Talks to a chat backend, antiphon's own or a Laravel application with the same routes.

    Use it as an async context manager, or call `close()`.

    Args:
        api_url: The backend's base address.
        token: Bearer token; `login` sets it.
        timeout: Seconds one request may take.
        ssl_context: Stands in for the usual one, such as for a certificate of one's own.
    """

    def __init__(
        self,
        api_url: str,
        *,
        token: str = "",
        timeout: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.api_url = api_url.rstrip("/")
        self._shown = _without_credentials(api_url) or "(nothing)"
        self.token = token
        self._http = HttpClient(timeout, ssl_context=ssl_context)

    async def login(self, email: str, password: str) -> Login:
        """Log in; further requests carry the token.

        Raises:
            LoginFailed: E-mail or password are wrong.
            ApiError: The backend could not be asked.
        """
        body = {"email": email, "password": password}
        login = await self._request("POST", "/api/login", Login, body)
        self.token = login.token
        return login

    async def logout(self) -> None:
        """End the token's life.

        Raises:
            ApiError: The backend refused or could not be asked.
        """
        await self._send("POST", "/api/logout")
        self.token = ""

    async def me(self) -> User:
        """The user the token belongs to.

        Raises:
            LoginFailed: The token is not accepted.
            ApiError: The backend could not be asked.
        """
        return await self._request("GET", "/api/me", User)

    async def messages(
        self,
        conversation_id: Id,
        *,
        limit: int = 50,
        before_id: Id | None = None,
        after_id: Id | None = None,
    ) -> list[Message]:
        """Messages of a conversation, oldest first.

        Args:
            conversation_id: The conversation.
            limit: How many at the most.
            before_id: Only older ones.
            after_id: Only newer ones.

        Raises:
            ApiError: The backend refused or could not be asked.
        """
        query = {"limit": limit, "before_id": before_id, "after_id": after_id}
        given = {name: value for name, value in query.items() if value is not None}
        path = f"{_conversation(conversation_id)}/messages?{urlencode(given)}"
        return (await self._request("GET", path, _Messages)).messages

    async def send(
        self,
        conversation_id: Id,
        content: str,
        *,
        temp_id: str | None = None,
        socket_id: str | None = None,
    ) -> Message:
        """Send a message; the same `temp_id` twice makes one message.

        Args:
            conversation_id: The conversation.
            content: The text.
            temp_id: An id of the sender's own, to find the message again.
            socket_id: The sender's connection, which is then not told of it.

        Raises:
            ApiError: The backend refused or could not be asked.
        """
        body = {"content": content, "tempId": temp_id}
        path = f"{_conversation(conversation_id)}/messages"
        return (await self._request("POST", path, _Sent, body, socket_id)).message

    async def typing(self, conversation_id: Id, *, socket_id: str | None = None) -> None:
        """Say that the user is typing.

        Raises:
            ApiError: The backend refused or could not be asked.
        """
        path = f"{_conversation(conversation_id)}/typing"
        await self._send("POST", path, {}, socket_id)

    async def read(
        self, conversation_id: Id, message_id: Id, *, socket_id: str | None = None
    ) -> None:
        """Say that the user has read up to a message.

        Raises:
            ApiError: The backend refused or could not be asked.
        """
        path = f"{_conversation(conversation_id)}/read"
        await self._send("POST", path, {"message_id": message_id}, socket_id)

    async def close(self) -> None:
        """Close the pooled connections; a later call opens new ones."""
        await self._http.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _request(
        self,
        method: str,
        path: str,
        answer: type[T],
        body: Any = None,
        socket_id: str | None = None,
    ) -> T:
        """Send a request and read its answer."""
        raw = await self._send(method, path, body, socket_id)
        try:
            return msgspec.json.decode(raw, type=answer)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
            raise ApiError(
                f"{_without_credentials(self.api_url)}{path.partition('?')[0]} answered with"
                f" something else than expected ({exc}); is it a chat backend?"
            ) from exc

    async def _send(
        self, method: str, path: str, body: Any = None, socket_id: str | None = None
    ) -> bytes:
        """Send a request; the body of an answer that is no refusal."""
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self.token:
            if not self.token.isprintable():
                raise ApiError("The token holds characters that no header can carry.")
            headers["Authorization"] = f"Bearer {self.token}"
        if socket_id:
            headers["X-Socket-ID"] = socket_id
        data = None if body is None else msgspec.json.encode(body)
        where = f"{_without_credentials(self.api_url)}{path.partition('?')[0]}"
        try:
            # Ids are a stranger's text: they were quoted, and stay so.
            answer = await self._http.request(
                method, self.api_url + path, headers=headers, body=data
            )
        except NoAnswer as exc:
            raise ApiError(
                sentence(f"No answer from the backend at {self._shown}: {exc}")
            ) from None
        if answer.status >= 300:
            raise _refusal(where, answer.status, answer.body, self.token)
        return answer.body


class _Messages(msgspec.Struct):
    messages: list[Message]


class _Sent(msgspec.Struct):
    message: Message


def _refusal(where: str, status: int, raw: bytes, token: str) -> ApiError:
    if status < 400:
        return ApiError(
            f"{where} answered {status}, a redirect; is this the API's address?", code=status
        )
    try:
        message = msgspec.json.decode(raw, type=_Refusal).message
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        message = "no reason given"
    # A backend may repeat what it refuses.
    message = message.replace(token, "…")[:200].rstrip(".") if token else message[:200].rstrip(".")
    if status == 401 and where.endswith("/api/login"):
        return LoginFailed(f"{where} refused the login: {message}.", code=status)
    if status == 401:
        return LoginFailed(
            f"{where} does not accept the token: {message}. Log in again.", code=status
        )
    if status == 404:
        message += "; is a chat backend there?"
    return ApiError(sentence(f"{where} answered {status}: {message}"), code=status)


class _Refusal(msgspec.Struct):
    message: str


def _conversation(id_: Id) -> str:
    return f"/api/conversations/{quote(str(id_), safe='')}"


def _without_credentials(url: str) -> str:
    scheme, colon, rest = url.partition("://")
    return f"{scheme}{colon}{rest.rpartition('@')[2]}"
