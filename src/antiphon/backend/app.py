"""The backend as one ASGI application: everything it is made of is put together here."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Litestar, Request, Router, get
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.di import Provide
from litestar.events import BaseEventEmitterBackend
from litestar.middleware import DefineMiddleware
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.params import HeaderParameter

from antiphon._version import __version__
from antiphon.publisher import Publisher

from .accounts import Accounts, Guesses
from .answers import EXCEPTION_HANDLERS
from .broadcasts import Broadcasts
from .config import BackendConfig
from .models import User
from .routes import (
    BearerAuthentication,
    account_routes,
    authenticate_user,
    authorize_channel,
    conversation_routes,
    is_socket_id,
    log_in,
)
from .store import Store

__all__ = ["create_app"]

MAX_BODY = 64 * 1024


def create_app(config: BackendConfig) -> Litestar:
    """The chat backend; it opens its database when it is started and closes it when stopped.

    Args:
        config: Everything it has to know.

    Raises:
        SettingsError: The database's URL cannot be used; on start, that it cannot be opened.
    """
    store = Store(config.database_url)
    publisher = Publisher(config.settings)
    accounts = Accounts(store, config.token_lifetime)
    private = Router(
        "/",
        route_handlers=[
            *account_routes,
            *conversation_routes,
            authorize_channel,
            authenticate_user,
        ],
        dependencies={
            "me": Provide(_me, sync_to_thread=False),
            "socket_id": Provide(_socket_id, sync_to_thread=False),
        },
        security=[{"token": []}],
    )
    return Litestar(
        route_handlers=[health, log_in, private],
        lifespan=[store, publisher],
        dependencies={
            "store": _always(store),
            "accounts": _always(accounts),
            "guesses": _always(Guesses()),
            "broadcasts": _always(Broadcasts(publisher, timeout=config.publish_timeout)),
            "settings": _always(config.settings),
        },
        # Whatever does not say `exclude_from_auth` needs a token.
        middleware=[DefineMiddleware(BearerAuthentication, accounts=accounts, exclude="^/schema")],
        exception_handlers=EXCEPTION_HANDLERS,
        event_emitter_backend=_NoEvents,
        request_max_body_size=MAX_BODY,
        cors_config=_cors(config),
        openapi_config=_openapi(),
        logging_config=None,  # logging is the program's business
    )


@get("/up", tags=["health"], exclude_from_auth=True)
async def health() -> dict[str, str]:
    """Whether the backend is there."""
    return {"health": "OK"}


class _NoEvents(BaseEventEmitterBackend):
    # Litestar's own runs a task group around the lifespan, for events nobody emits here: what
    # goes wrong on start would come out of it as an exception group.

    def emit(self, event_id: str, *args: Any, **kwargs: Any) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass


def _me(request: Request[User, str, State]) -> User:
    return request.user


def _socket_id(
    x_socket_id: Annotated[str | None, HeaderParameter(name="X-Socket-ID")] = None,
) -> str | None:
    """The caller's own connection, which needs no event about what its user has done."""
    return x_socket_id if x_socket_id and is_socket_id(x_socket_id) else None


def _always(value: Any) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)


def _cors(config: BackendConfig) -> CORSConfig | None:
    if not config.allowed_origins:
        return None
    return CORSConfig(
        allow_origins=list(config.allowed_origins),
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "X-Socket-ID"],
    )


def _openapi() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="antiphon chat backend",
        version=__version__,
        path="/schema",
        use_handler_docstrings=True,
        # The document alone: pages that show it load scripts from elsewhere.
        render_plugins=[JsonRenderPlugin()],
        components=Components(
            security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}
        ),
    )
