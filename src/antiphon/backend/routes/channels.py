"""Which channels a user may join, and the signatures that let them, and that sign them in.

`private-user.{id}` is one's own; `private-conversation.{id}` and `presence-conversation.{id}`
belong to the conversation's members. Every other channel is nobody's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeVar

import msgspec
from litestar import Request, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.enums import RequestEncodingType
from litestar.exceptions import (
    ClientException,
    PermissionDeniedException,
    ValidationException,
)
from litestar.openapi.spec import (
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    RequestBody,
    Schema,
)

from antiphon.backend.answers import refusals
from antiphon.backend.models import MAX_ID, User
from antiphon.backend.store import Store
from antiphon.protocol import signing
from antiphon.settings import Settings

__all__ = ["authenticate_user", "authorize_channel", "is_socket_id"]

T = TypeVar("T")

_CHANNEL: Final = re.compile(
    r"(private-user|private-conversation|presence-conversation)\.([1-9][0-9]{0,18})"
)
_SOCKET_ID: Final = re.compile(r"[0-9]+\.[0-9]+")


class UserRequest(msgspec.Struct, frozen=True):
    """What `POST /broadcasting/user-auth` takes, as a form or as JSON."""

    socket_id: str

    def __post_init__(self) -> None:
        if not is_socket_id(self.socket_id):
            raise ValueError("The socket_id is malformed.")


class ChannelRequest(UserRequest, frozen=True):
    """What `POST /broadcasting/auth` takes, as a form or as JSON."""

    channel_name: str


class ChannelSignature(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the client sends with `pusher:subscribe`."""

    auth: str
    channel_data: str | None = None


class UserSignature(msgspec.Struct, frozen=True):
    """What the client sends with `pusher:signin`."""

    auth: str
    user_data: str


@dataclass
class ChannelOperation(Operation):
    """A route in the OpenAPI document, which cannot see a body that is a form or JSON."""

    request_type: ClassVar[type[msgspec.Struct]] = ChannelRequest

    def __post_init__(self) -> None:
        fields = self.request_type.__struct_fields__
        texts = {name: Schema(type=OpenAPIType.STRING) for name in fields}
        schema = Schema(type=OpenAPIType.OBJECT, properties=dict(texts), required=list(texts))
        body = OpenAPIMediaType(schema=schema)
        encodings = (RequestEncodingType.URL_ENCODED, RequestEncodingType.JSON)
        self.request_body = RequestBody(dict.fromkeys(encodings, body), required=True)


@dataclass
class UserOperation(ChannelOperation):
    """The other one."""

    request_type = UserRequest


@post(
    "/broadcasting/auth",
    status_code=200,
    tags=["channels"],
    operation_class=ChannelOperation,
    responses=refusals(400, 401, 403, 413, 422),
)
async def authorize_channel(
    request: Request[User, str, State],
    me: NamedDependency[User],
    store: NamedDependency[Store],
    settings: NamedDependency[Settings],
) -> ChannelSignature:
    """Sign a subscription to a channel of one's own or of one's conversations."""
    asked = await _read(request, ChannelRequest)
    if not await _may_join(asked.channel_name, me, store):
        raise PermissionDeniedException("This channel is not yours.")
    data = _channel_data(me) if asked.channel_name.startswith("presence-") else None
    auth = signing.channel_auth(
        settings.app_key, settings.app_secret, asked.socket_id, asked.channel_name, data
    )
    return ChannelSignature(auth=auth, channel_data=data)


@post(
    "/broadcasting/user-auth",
    status_code=200,
    tags=["channels"],
    operation_class=UserOperation,
    responses=refusals(400, 401, 413, 422),
)
async def authenticate_user(
    request: Request[User, str, State],
    me: NamedDependency[User],
    settings: NamedDependency[Settings],
) -> UserSignature:
    """Sign the token's user in at the Pusher server."""
    asked = await _read(request, UserRequest)
    data = _json({"id": str(me.id), "user_info": _user_info(me)})
    auth = signing.user_auth(settings.app_key, settings.app_secret, asked.socket_id, data)
    return UserSignature(auth=auth, user_data=data)


def is_socket_id(text: str) -> bool:
    """Whether this is what Pusher servers call a connection: two numbers and a point."""
    return _SOCKET_ID.fullmatch(text) is not None


async def _read(request: Request[User, str, State], type_: type[T]) -> T:
    try:
        if request.content_type[0] == RequestEncodingType.JSON:
            return msgspec.json.decode(await request.body(), type=type_)
        return msgspec.convert(dict(await request.form()), type_)
    except msgspec.ValidationError as exc:
        raise ValidationException(str(exc)) from exc
    except msgspec.DecodeError as exc:
        raise ClientException(str(exc)) from exc


async def _may_join(channel: str, me: User, store: Store) -> bool:
    match = _CHANNEL.fullmatch(channel)
    if match is None:
        return False
    number = int(match[2])
    if match[1] == "private-user":
        return number == me.id
    return number <= MAX_ID and me.id in await store.conversations.member_ids(number)


def _channel_data(me: User) -> str:
    return _json({"user_id": str(me.id), "user_info": _user_info(me)})


def _user_info(me: User) -> dict[str, str]:
    return {"firstName": me.first_name, "lastName": me.last_name, "email": me.email}


def _json(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode()
