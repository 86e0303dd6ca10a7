"""A chat backend over REST: log in, and do what a chat does."""

from __future__ import annotations

import asyncio
import inspect
import logging
import ssl
from collections.abc import Awaitable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from antiphon.client.auth.credentials import Credentials, NothingToSend, Refresh, TokenSource
from antiphon.errors import ApiError, LoginFailed, sentence
from antiphon.http import Answer, HttpClient, NoAnswer

from .dialect import Dialect
from .models import Conversation, Id, Message, Page, User
from .spelling import fitted, received, sent

__all__ = ["Login", "RestClient"]

T = TypeVar("T")

MAX_RETRY_AFTER: Final = 3600.0
_MAX_NUMBER: Final = 2**63 - 1
_MISFITS: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)

log = logging.getLogger("antiphon.chat")


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

    A request that is answered 401 or 419 is sent once more after the token was renewed; one renewal
    serves all requests that need it. What a backend answers is read as Laravel writes it: lists and
    objects bare or under `data`, pages in either order, ids as numbers or text.

    Args:
        api_url: The backend's base address.
        token: Bearer token, or a function that is asked for it at every request. Without
            `refresh`, a function that has another token than the refused one has renewed it.
        refresh: Renews the token; the one it gives, if it gives one, stands in for `token`.
        dialect: How the backend spells the chat.
        timeout: Seconds one request may take, and as many the token.
        ssl_context: Stands in for the usual one, such as for a certificate of one's own.
    """

    def __init__(
        self,
        api_url: str,
        *,
        token: TokenSource | None = None,
        refresh: Refresh | None = None,
        dialect: Dialect = Dialect(),  # noqa: B008 - it is frozen
        timeout: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.api_url = api_url.rstrip("/")
        self.dialect = dialect
        self._shown = _without_credentials(api_url) or "(nothing)"
        self._source = token
        self._given = ""
        self._refresh = refresh
        self._credentials = Credentials(
            self._current, None if refresh is None else self._refreshed, None
        )
        self._timeout = timeout
        self._http = HttpClient(timeout, ssl_context=ssl_context)

    # The token

    @property
    def token(self) -> str:
        """The bearer token: as it was given, or as its function has given it last; or empty."""
        return self._source if isinstance(self._source, str) else self._given

    @token.setter
    def token(self, token: str) -> None:
        self._source = token

    async def _current(self) -> str | None:
        source = self._source
        if callable(source):
            given = source()
            given = await given if inspect.isawaitable(given) else given
            self._given = given or ""
            return given or None
        return source or None

    async def _refreshed(self) -> None:
        assert self._refresh is not None
        before = self._source
        token = self._refresh()
        token = await token if inspect.isawaitable(token) else token
        if token is not None and self._source is before:  # nobody has logged in meanwhile
            self._source = token

    # What a chat does

    async def login(self, email: str, password: str) -> Login:
        """Log in; further requests carry the token.

        Raises:
            LoginFailed: E-mail or password are wrong.
            ApiError: The backend could not be asked.
        """
        dialect = self.dialect
        path = self._path("login", dialect.login)
        # Sanctum names tokens after devices.
        body = {"email": email, "password": password, "device_name": "antiphon"}
        answer = await self._exchange("POST", path, sent(body, dialect.fields), {})
        if answer.status in (401, 422):  # Laravel's own log-ins say 422
            # Not with "…" in the password's place: it may be a word of theirs, such as "wrong".
            instead = "the e-mail address or the password is wrong"
            words = _words(answer.body, password, instead=instead)
            raise LoginFailed(
                f"{self._where(path)} refused the login: {words}.", code=answer.status
            )
        self._check(path, answer, password)
        try:
            token = self._token_in(answer.body)
            user = self._user_in(answer.body)
        except _MISFITS as exc:
            raise self._misfit(path, exc) from exc
        if user is None:
            user = await self._me(token)
        self.token = token
        return Login(token=token, user=user)

    async def logout(self) -> None:
        """End the token's life.

        Raises:
            LoginFailed: The token is not accepted.
            ApiError: The backend refused or could not be asked.
        """
        await self._send("POST", self._path("logout", self.dialect.logout))
        self.token = ""

    async def me(self) -> User:
        """The user the token belongs to.

        Raises:
            LoginFailed: The token is not accepted.
            ApiError: The backend could not be asked.
        """
        path = self._path("me", self.dialect.me)
        return self._one(path, await self._send("GET", path), "user", User)

    async def users(self, search: str = "") -> list[User]:
        """Other users, as far as the backend tells.

        Args:
            search: What their names or e-mail addresses contain; empty for any.

        Raises:
            LoginFailed: The token is not accepted.
            ApiError: The backend refused or could not be asked, or the dialect has no path for it.
        """
        path = self._path("users", self.dialect.users, query={"search": search or None})
        _, items = self._many(path, await self._send("GET", path), "users")
        return self._fitting(path, items, User)

    async def conversations(self) -> list[Conversation]:
        """The user's conversations, in the backend's order.

        Raises:
            LoginFailed: The token is not accepted.
            ApiError: The backend refused or could not be asked, or the dialect has no path for it.
        """
        path = self._path("conversations", self.dialect.conversations)
        _, items = self._many(path, await self._send("GET", path), "conversations")
        return self._fitting(path, [_with_last_message(item) for item in items], Conversation)

    async def start_conversation(
        self, member_ids: Iterable[Id], title: str | None = None
    ) -> Conversation:
        """Start a conversation; with one other user, the backend may give the one there is.

        Args:
            member_ids: The others.
            title: Its name, if it is to have one.

        Raises:
            LoginFailed: The token is not accepted.
            ApiError: The backend refused or could not be asked, or the dialect has no path for it.
        """
        path = self._path("conversations", self.dialect.conversations)
        body = {"member_ids": [self._id(id_) for id_ in member_ids], "title": title}
        answer = await self._send("POST", path, body)
        return self._one(path, answer, "conversation", Conversation)

    async def messages(
        self,
        conversation_id: Id,
        *,
        limit: int = 50,
        before_id: Id | None = None,
        after_id: Id | None = None,
    ) -> Page:
        """Messages of a conversation, oldest first.

        One that does not fit is left out, with a warning in the log; but where none of the newest
        fits, that is an error: the backend spells them otherwise than the dialect says.

        Args:
            conversation_id: The conversation.
            limit: How many at the most.
            before_id: Only older ones, the newest of them.
            after_id: Only newer ones, the oldest of them.

        Raises:
            LoginFailed: The token is not accepted.
            ApiError: The backend refused or could not be asked.
        """
        query = {"limit": limit, "before_id": before_id, "after_id": after_id}
        path = self._path("messages", self.dialect.messages, conversation_id, query)
        envelopes, items = self._many(path, await self._send("GET", path), "messages")
        is_first = before_id is None and after_id is None
        items = [_in(conversation_id, item) for item in items]
        found = self._fitting(path, items, Message, may_be_none=not is_first)
        return Page(
            messages=tuple(reversed(found) if _is_descending(found) else found),
            has_more=_has_more(envelopes, is_full=len(items) >= limit),
        )

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
            LoginFailed: The token is not accepted.
            ApiError: The backend refused or could not be asked.
        """
        path = self._path("messages", self.dialect.messages, conversation_id)
        body = {"content": content, "tempId": temp_id}
        answer = await self._send("POST", path, body, socket_id)
        return self._one(path, answer, "message", Message, in_=conversation_id)

    async def typing(self, conversation_id: Id, *, socket_id: str | None = None) -> None:
        """Say that the user is typing; does nothing if the dialect has no path for it.

        Raises:
            LoginFailed: The token is not accepted.
            ApiError: The backend refused or could not be asked.
        """
        if self.dialect.typing:
            path = self._path("typing", self.dialect.typing, conversation_id)
            await self._send("POST", path, {}, socket_id)

    async def read(
        self, conversation_id: Id, message_id: Id, *, socket_id: str | None = None
    ) -> None:
        """Say that the user has read up to a message; does nothing without a path for it.

        Raises:
            LoginFailed: The token is not accepted.
            ApiError: The backend refused or could not be asked.
        """
        if self.dialect.read:
            path = self._path("read", self.dialect.read, conversation_id)
            await self._send("POST", path, {"message_id": self._id(message_id)}, socket_id)

    async def close(self) -> None:
        """Close the pooled connections; a later call opens new ones."""
        await self._credentials.close()
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

    # What is asked

    def _path(
        self,
        name: str,
        template: str,
        conversation_id: Id = "",
        query: Mapping[str, Any] | None = None,
    ) -> str:
        """A path of the dialect's, with the ids in their places."""
        if not template:
            raise ApiError(f"This backend has no path for this: Dialect.{name} is empty.")
        # Ids are a stranger's text: they are quoted, and stay so.
        quoted = quote(str(conversation_id), safe="")
        path = "/" + template.lstrip("/").replace("{conversation_id}", quoted)
        given = urlencode(sent(query or {}, self.dialect.fields))
        return f"{path}{'&' if '?' in path else '?'}{given}" if given else path

    def _id(self, id_: Id) -> Id:
        """An id as the backend wants it in a body."""
        text = str(id_)
        if self.dialect.ids == "text":
            return text
        if len(text) < 20 and text.isascii() and text.isdecimal():
            number = int(text)
            return number if str(number) == text and number <= _MAX_NUMBER else text
        return id_

    async def _send(
        self, method: str, path: str, body: Any = None, socket_id: str | None = None
    ) -> bytes:
        """Send a request with the token; the body of an answer that is no refusal."""
        headers = {"X-Socket-ID": socket_id} if socket_id else {}
        body = None if body is None else sent(body, self.dialect.fields)
        credentials = self._credentials
        refused: Answer | None = None
        token: str | None = None
        while True:
            await self._in_time(credentials.settled())
            if refused is not None and not credentials.changed:
                raise self._unaccepted(path, refused, token, credentials.failure)
            renewals = credentials.renewals
            fields, token = await self._in_time(credentials.headers())
            answer = await self._exchange(method, path, body, headers | fields)
            if answer.status not in (401, 419):
                self._check(path, answer, token)
                return answer.body
            if refused is not None or not (self._refresh or callable(self._source)):
                raise self._unaccepted(path, answer, token)
            refused = answer
            credentials.renew(token, renewals, answer.status)

    async def _in_time(self, token: Awaitable[T]) -> T:
        """Wait for the token no longer than for an answer."""
        try:
            async with asyncio.timeout(self._timeout):
                return await token
        except TimeoutError:
            reason = f"none came within {self._timeout:g} seconds"
        except NothingToSend as exc:
            reason = str(exc)
        raise ApiError(sentence(f"There is no token to ask {self._shown} with: {reason}"))

    async def _exchange(
        self, method: str, path: str, body: Any, headers: Mapping[str, str]
    ) -> Answer:
        fields = {"Accept": "application/json", "Content-Type": "application/json", **headers}
        data = None if body is None else msgspec.json.encode(body)
        try:
            return await self._http.request(method, self.api_url + path, headers=fields, body=data)
        except NoAnswer as exc:
            reason = f"No answer from the backend at {self._shown}: {exc}"
        raise ApiError(sentence(reason))

    # What is answered

    def _check(self, path: str, answer: Answer, secret: str | None) -> None:
        """Raise if an answer is a refusal."""
        status, where = answer.status, self._where(path)
        if status < 300:
            return
        if status < 400:
            raise ApiError(
                f"{where} answered {status}, a redirect; is this the API's address?", code=status
            )
        words = _words(answer.body, secret)
        if status == 404:
            words += "; is a chat backend there?"
        raise ApiError(
            sentence(f"{where} answered {status}: {words}"),
            code=status,
            retry_after=_seconds(answer.headers.get("Retry-After", "")),
        )

    def _unaccepted(
        self, path: str, answer: Answer, token: str | None, failure: BaseException | None = None
    ) -> LoginFailed:
        words = _words(answer.body, token)
        if failure is not None:
            words += f", and the refresh failed with {type(failure).__name__}"
        return LoginFailed(
            f"{self._where(path)} does not accept the token: {words}. Log in again.",
            code=answer.status,
        )

    def _misfit(self, path: str, exc: Exception) -> ApiError:
        reason = "it is nested too deep" if isinstance(exc, RecursionError) else str(exc)
        return ApiError(
            f"{self._where(path)} answered with something else than expected ({reason});"
            " is it a chat backend?"
        )

    def _where(self, path: str) -> str:
        return f"{_without_credentials(self.api_url)}{path.partition('?')[0]}"

    def _body(self, raw: bytes) -> Any:
        return received(msgspec.json.decode(raw), self.dialect.fields)

    def _one(self, path: str, raw: bytes, name: str, type_: type[T], *, in_: Id | None = None) -> T:
        """The object of an answer: bare, or under its name or `data`."""
        try:
            value = self._body(raw)
            while True:
                try:
                    return fitted(value if in_ is None else _in(in_, value), type_)
                except msgspec.ValidationError:
                    value = _inside(value, (name, "data"), dict)
                    if value is None:
                        raise
        except _MISFITS as exc:
            raise self._misfit(path, exc) from exc

    def _many(self, path: str, raw: bytes, name: str) -> tuple[list[Any], list[Any]]:
        """The list of an answer, bare or under its name or `data`, and what it stands in."""
        envelopes = []
        try:
            value = self._body(raw)
            while not isinstance(value, list):
                envelopes.append(value)
                value = _inside(value, (name, "data"), (dict, list))
                if value is None:
                    raise msgspec.ValidationError(f"Expected a list of {name}")
        except _MISFITS as exc:
            raise self._misfit(path, exc) from exc
        return envelopes, value

    def _fitting(
        self, path: str, items: list[Any], type_: type[T], *, may_be_none: bool = False
    ) -> list[T]:
        """Those that fit; the others are left out and logged, without what they hold.

        Where none fits, they are spelled otherwise: that is said, and not shown as emptiness.
        """
        found, misfits, reason = [], [], ""
        for item in items:
            try:
                found.append(fitted(item, type_))
            except (msgspec.ValidationError, RecursionError) as exc:
                misfits.append(_named(item))
                reason = reason or str(exc)
        if misfits:
            kind = f"{type_.__name__.lower()}s"
            count = f"{len(misfits)} of {len(items)} {kind} ({', '.join(misfits[:3])}"
            count += ", …)" if len(misfits) > 3 else ")"
            if not found and not may_be_none:
                raise ApiError(
                    f"{self._where(path)}: {count} do not fit ({reason});"
                    " if the backend calls things otherwise, say so in Dialect.fields."
                )
            log.warning("%s: %s do not fit, left out: %s", self._where(path), count, reason)
        return found

    def _token_in(self, raw: bytes) -> str:
        """The token in the answer to a login."""
        field = self.dialect.token_field
        if not field and not raw.lstrip().startswith((b'"', b"{", b"[", b"<")):
            token: Any = raw.decode("ascii").strip()
        else:
            token = _at(self._body(raw), field)
        if not isinstance(token, str) or not token or not token.isprintable():
            raise msgspec.ValidationError(f"There is no token in `{field}`")
        return token

    def _user_in(self, raw: bytes) -> User | None:
        """The user in the answer to a login, if it is to hold one."""
        field = self.dialect.user_field
        return fitted(_at(self._body(raw), field), User) if field else None

    async def _me(self, token: str) -> User:
        """Whose token it is, one that is not in use yet."""
        path = self._path("me", self.dialect.me)
        answer = await self._exchange("GET", path, None, {"Authorization": f"Bearer {token}"})
        if answer.status in (401, 419):
            raise self._unaccepted(path, answer, token)
        self._check(path, answer, token)
        return self._one(path, answer.body, "user", User)


def _inside(value: Any, names: tuple[str, ...], kinds: type | tuple[type, ...]) -> Any:
    """What stands under the first of these names that holds such a thing."""
    if not isinstance(value, dict):
        return None
    return next((value[name] for name in names if isinstance(value.get(name), kinds)), None)


def _at(value: Any, field: str) -> Any:
    """What stands in a field; dots go deeper."""
    for name in field.split(".") if field else ():
        if not isinstance(value, dict) or value.get(name) is None:
            raise msgspec.ValidationError(f"There is no `{field}`")
        value = value[name]
    return value


def _named(item: Any) -> str:
    """An object by its id."""
    id_ = item.get("id") if isinstance(item, dict) else None
    return f"id {id_!r}"[:50] if isinstance(id_, int | str) else "no id"


def _in(conversation_id: Id, item: Any) -> Any:
    """A message that need not say which conversation it belongs to."""
    return {"chat_id": conversation_id, **item} if isinstance(item, dict) else item


def _with_last_message(item: Any) -> Any:
    """A conversation without its last message, if that does not fit: the rest is worth more."""
    if not isinstance(item, dict) or item.get("last_message") is None:
        return item
    try:
        last = fitted(_in(item.get("id", ""), item["last_message"]), Message)
    except (msgspec.ValidationError, RecursionError):
        last = None
    return {**item, "last_message": last}


def _is_descending(messages: list[Message]) -> bool:
    if not messages:
        return False
    first, last = messages[0], messages[-1]
    a, b = str(first.id), str(last.id)
    if a.isascii() and b.isascii() and a.isdecimal() and b.isdecimal():
        return (len(a), a) > (len(b), b)
    return bool(first.sent_at and last.sent_at and first.sent_at > last.sent_at)


def _has_more(envelopes: list[Any], *, is_full: bool) -> bool:
    """What a page says of the next one: in so many words, or by where it is."""
    places = [place for place in envelopes if isinstance(place, dict)]
    places += [p["meta"] for p in places if isinstance(p.get("meta"), dict)]
    for place in places:
        if isinstance(place.get("has_more"), bool):
            return bool(place["has_more"])
    links = [place["links"] for place in places if isinstance(place.get("links"), dict)]
    nexts = [link["next"] for link in links if "next" in link]
    nexts += [p[name] for p in places for name in ("next_page_url", "next_cursor") if name in p]
    return any(nexts) if nexts else is_full


def _words(raw: bytes, secret: str | None, *, instead: str = "") -> str:
    """A refusal's own words; a backend may repeat in them what it refuses."""
    try:
        words = msgspec.json.decode(raw, type=_Refusal).message
    except _MISFITS:
        return "no reason given"
    if secret and secret in words:
        words = instead or words.replace(secret, "…")
    return words[:200].rstrip(".")


class _Refusal(msgspec.Struct):
    message: str


def _seconds(retry_after: str) -> float | None:
    """What a `Retry-After` asks for, within reason; a date is not heeded."""
    is_number = retry_after.isascii() and retry_after.isdecimal()
    return min(float(retry_after), MAX_RETRY_AFTER) if is_number else None


def _without_credentials(url: str) -> str:
    scheme, colon, rest = url.partition("://")
    return f"{scheme}{colon}{rest.rpartition('@')[2]}"
