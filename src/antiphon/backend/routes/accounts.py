"""Logging in and out, and who there is to talk to."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.exceptions import NotAuthorizedException, TooManyRequestsException
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.params import JSONBody, QueryParameter
from litestar.types import ASGIApp

from antiphon.backend.accounts import Accounts, Guesses, Session
from antiphon.backend.answers import refusals
from antiphon.backend.models import User
from antiphon.backend.store import Store

__all__ = ["BearerAuthentication", "account_routes", "log_in"]

SEARCH_LIMIT = 50
NO_NUL = r"^[^\x00]*$"
"""PostgreSQL keeps no NUL in a text, and nobody types one."""


class Credentials(msgspec.Struct, frozen=True):
    """What `POST /api/login` takes."""

    email: Annotated[str, msgspec.Meta(min_length=1, max_length=254, pattern=NO_NUL)]
    password: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class BearerAuthentication(AbstractAuthenticationMiddleware):
    """Lets through who has a token; `request.user` is the user and `request.auth` the token."""

    def __init__(self, app: ASGIApp, accounts: Accounts, exclude: str) -> None:
        super().__init__(app, exclude=exclude)
        self._accounts = accounts

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        """The user whose token the `Authorization` header bears.

        Raises:
            NotAuthorizedException: It bears none, or one that is unknown or has expired.
        """
        scheme, _, token = connection.headers.get("Authorization", "").partition(" ")
        user = await self._accounts.user_of(token) if scheme.lower() == "bearer" else None
        if user is None:
            raise NotAuthorizedException("Unauthenticated.", headers={"WWW-Authenticate": "Bearer"})
        return AuthenticationResult(user=user, auth=token)


@post(
    "/api/login",
    status_code=200,
    tags=["accounts"],
    exclude_from_auth=True,
    responses=refusals(400, 401, 413, 422, 429),
)
async def log_in(
    data: JSONBody[Credentials],
    accounts: NamedDependency[Accounts],
    guesses: NamedDependency[Guesses],
) -> Session:
    """Exchange an e-mail address and a password for a bearer token."""
    wait = guesses.attempt(data.email)
    if wait:
        raise TooManyRequestsException(
            f"Too many attempts. Try again in {wait} seconds.", headers={"Retry-After": str(wait)}
        )
    session = await accounts.log_in(data.email, data.password)
    if session is None:
        raise NotAuthorizedException("The e-mail address or the password is wrong.")
    guesses.succeeded(data.email)
    return session


@post("/api/logout", status_code=204, tags=["accounts"], responses=refusals(401))
async def log_out(request: Request[User, str, State], accounts: NamedDependency[Accounts]) -> None:
    """Make the token of this request worthless."""
    await accounts.log_out(request.auth)


@get("/api/me", tags=["accounts"], responses=refusals(401))
async def show_me(me: NamedDependency[User]) -> User:
    """Oneself."""
    return me


@get("/api/users", tags=["accounts"], responses=refusals(400, 401, 422))
async def search_users(
    me: NamedDependency[User],
    store: NamedDependency[Store],
    search: Annotated[str, QueryParameter(max_length=200, pattern=NO_NUL)] = "",
) -> list[User]:
    """Up to 50 other users in whose name or e-mail address the text occurs."""
    return await store.users.search(search, but=me.id, limit=SEARCH_LIMIT)


account_routes = [log_out, show_me, search_users]
