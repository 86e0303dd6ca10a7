"""Real clients, real publishers and an authorization endpoint around a server of ours."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import pusher
import pusher.crypto
import pusher.errors
import pusher.signature
import pytest
import pytest_asyncio
from aiohttp import web
from nacl.secret import SecretBox

from antiphon.protocol.signing import channel_auth, user_auth
from antiphon.server import Server
from antiphon.settings import App, Settings
from tests.cli.strangers import kept_port
from tests.server.wire import until

from .node import Node, NodeError, require_node

APP: Final = App(id="1", key="k", secret="s")
MASTER_KEY: Final = bytes(range(32))


@pytest.fixture(scope="session", autouse=True)
def node() -> str:
    return require_node()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    async with Server(APP) as server:
        yield server


@pytest.fixture
def port() -> Iterator[int]:
    """For a server that is started again, and whose port nobody is to have meanwhile."""
    with kept_port() as port:
        yield port


# Authorization


class Asked(NamedTuple):
    """One request to the endpoint."""

    user: str
    socket_id: str
    channel: str


class AuthEndpoint:
    """What a backend has under `/broadcasting/auth` and `/broadcasting/user-auth`.

    The bearer token is the user's id. No token is answered with 401, a channel with "forbidden"
    in its name with 403, and the user "nobody" may not sign in. A channel with "nameless" in its
    name is signed without saying who joins it.

    Attributes:
        watchlists: Whom users watch, by their ids.
    """

    def __init__(self) -> None:
        self.watchlists: dict[str, list[str]] = {}
        self.asked: list[Asked] = []
        self.url = ""

    async def authorize(self, request: web.Request) -> web.Response:
        form = await request.post()
        user = request.headers.get("Authorization", "").removeprefix("Bearer ")
        socket_id, channel = str(form["socket_id"]), str(form["channel_name"])
        self.asked.append(Asked(user, socket_id, channel))
        if not user:
            return web.json_response({"message": "Unauthenticated."}, status=401)
        if "forbidden" in channel:
            return web.json_response({"message": "Forbidden."}, status=403)
        if channel.startswith("presence-") and "nameless" not in channel:
            data = json.dumps({"user_id": user, "user_info": {"name": user.title()}})
            auth = channel_auth(APP.key, APP.secret, socket_id, channel, data)
            return web.json_response({"auth": auth, "channel_data": data})
        answer = {"auth": channel_auth(APP.key, APP.secret, socket_id, channel)}
        if channel.startswith("private-encrypted-"):
            shared = hashlib.sha256(channel.encode() + MASTER_KEY).digest()
            answer["shared_secret"] = base64.b64encode(shared).decode()
        return web.json_response(answer)

    async def authenticate(self, request: web.Request) -> web.Response:
        form = await request.post()
        user = request.headers.get("Authorization", "").removeprefix("Bearer ")
        socket_id = str(form["socket_id"])
        self.asked.append(Asked(user, socket_id, ""))
        if user == "nobody":
            return web.json_response({"message": "Forbidden."}, status=403)
        watchlist = self.watchlists.get(user, [])
        info = {"name": user.title()}
        data = json.dumps({"id": user, "user_info": info, "watchlist": watchlist})
        secret = "guess" if user == "forger" else APP.secret
        auth = user_auth(APP.key, secret, socket_id, data)
        return web.json_response({"auth": auth, "user_data": data})


@pytest_asyncio.fixture(loop_scope="module")
async def endpoint() -> AsyncIterator[AuthEndpoint]:
    endpoint = AuthEndpoint()
    app = web.Application()
    app.router.add_post("/broadcasting/auth", endpoint.authorize)
    app.router.add_post("/broadcasting/user-auth", endpoint.authenticate)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}/broadcasting"
        yield endpoint
    finally:
        await runner.cleanup()


# Clients


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pusher_js() -> AsyncIterator[Node]:
    async with Node("pusher_client.js") as program:
        yield program


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def laravel_echo() -> AsyncIterator[Node]:
    async with Node("echo_client.mjs") as program:
        yield program


class JsClient:
    """One client in a JavaScript program."""

    def __init__(self, program: Node, name: str) -> None:
        self.name = name
        self.socket_id = ""
        self._program = program

    async def call(self, command: str, **words: Any) -> Any:
        return await self._program.call(command, client=self.name, **words)

    async def heard(self, kind: str, **words: Any) -> dict[str, Any]:
        return await self._program.heard(client=self.name, kind=kind, **words)

    def unheard(self, kind: str, **words: Any) -> list[dict[str, Any]]:
        return self._program.unheard(client=self.name, kind=kind, **words)

    async def connected(self) -> None:
        """Wait for a connection, after an earlier one for the next."""
        self.socket_id = (await self.heard("state", current="connected"))["socket_id"]
        assert self.socket_id


def pusher_js_options(
    settings: Settings, endpoint: AuthEndpoint, user: str, **more: Any
) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {user}"} if user else {}
    return {
        "cluster": "none",
        "wsHost": settings.host,
        "wsPort": settings.port,
        "wsPath": settings.path,
        "forceTLS": False,
        "enabledTransports": ["ws"],
        "channelAuthorization": {
            "transport": "ajax",
            "endpoint": f"{endpoint.url}/auth",
            "headers": headers,
        },
        "userAuthentication": {
            "transport": "ajax",
            "endpoint": f"{endpoint.url}/user-auth",
            "headers": headers,
        },
        **more,
    }


Dial = Callable[..., Awaitable[JsClient]]


@pytest_asyncio.fixture(loop_scope="module")
async def dial(server: Server, endpoint: AuthEndpoint, pusher_js: Node) -> AsyncIterator[Dial]:
    """Connects a pusher-js client: `await dial("ali")`."""
    names = []

    async def connect(
        user: str,
        *,
        name: str = "",
        to: Settings | None = None,
        wait: bool = True,
        build: str = "node",
        **options: Any,
    ) -> JsClient:
        settings = to or server.settings()
        client = JsClient(pusher_js, name or user)
        names.append(client.name)
        words = pusher_js_options(settings, endpoint, user, **options)
        await client.call("connect", key=settings.app_key, options=words, build=build)
        if wait:
            await client.connected()
        return client

    yield connect
    await _leave(server, pusher_js, names)


def echo_options(
    settings: Settings, endpoint: AuthEndpoint, user: str, broadcaster: str
) -> dict[str, Any]:
    return {
        "broadcaster": broadcaster,
        "key": settings.app_key,
        "wsHost": settings.host,
        "wsPort": settings.port,
        "forceTLS": False,
        "enabledTransports": ["ws"],
        "authEndpoint": f"{endpoint.url}/auth",
        "bearerToken": user,
        # Two Echos in one program share their default headers and with them the last token.
        "auth": {"headers": {}},
        "userAuthentication": {"endpoint": f"{endpoint.url}/user-auth", "headers": {}},
        # Echo itself gives an empty cluster where the broadcaster is "reverb".
        **({"cluster": "none"} if broadcaster == "pusher" else {}),
    }


DialEcho = Callable[..., Awaitable[JsClient]]


@pytest_asyncio.fixture(loop_scope="module")
async def dial_echo(
    server: Server, endpoint: AuthEndpoint, laravel_echo: Node
) -> AsyncIterator[DialEcho]:
    """Connects a laravel-echo client: `await dial_echo("ali", broadcaster="reverb")`."""
    names = []

    async def connect(
        user: str,
        broadcaster: str,
        *,
        to: Settings | None = None,
        wait: bool = True,
    ) -> JsClient:
        settings = to or server.settings()
        client = JsClient(laravel_echo, user)
        names.append(client.name)
        options = echo_options(settings, endpoint, user, broadcaster)
        await client.call("connect", options=options)
        if wait:
            await client.connected()
        return client

    yield connect
    await _leave(server, laravel_echo, names)


async def _leave(server: Server, program: Node, names: list[str]) -> None:
    """Let all clients of a test go, so that the next one finds an empty server."""
    for name in names:
        with contextlib.suppress(NodeError):
            await program.call("disconnect", client=name)
    await until(lambda: not any(hub.sockets for hub in server._hubs.values()))
    program.forget()


# Publishers


class Refused(Exception):
    """The library says that the server refused."""

    def __init__(self, status: int | None, words: str) -> None:
        super().__init__(f"{status}: {words}")
        self.status = status


class Library(Protocol):
    """A library for backends, as far as both have the same."""

    async def trigger(
        self, channels: str | list[str], event: str, data: Any, socket_id: str | None = None
    ) -> Any: ...
    async def trigger_batch(self, batch: Sequence[Mapping[str, Any]]) -> Any: ...
    async def channels_info(self, prefix: str, attributes: list[str]) -> Any: ...
    async def channel_info(self, channel: str, attributes: list[str]) -> Any: ...
    async def users_info(self, channel: str) -> Any: ...
    async def terminate(self, user: str) -> Any: ...
    async def authorize(self, socket_id: str, channel: str, presence: Any = None) -> Any: ...
    async def authenticate(self, socket_id: str, user: Any) -> Any: ...
    async def decrypt(self, channel: str, nonce: str, ciphertext: str) -> Any: ...
    async def sign_webhook(self, body: str) -> str: ...
    async def validate_webhook(self, key: str, signature: str, body: str) -> Any: ...


def npm_pusher_options(settings: Settings, master_key: bytes) -> dict[str, Any]:
    return {
        "appId": settings.app_id,
        "key": settings.app_key,
        "secret": settings.app_secret,
        "host": settings.host,
        "port": str(settings.port),
        "useTLS": False,
        "encryptionMasterKeyBase64": base64.b64encode(master_key).decode(),
    }


class NpmPusher:
    """npm `pusher`."""

    _numbers = itertools.count()

    def __init__(self, program: Node) -> None:
        self._program = program
        self._name = f"publisher {next(self._numbers)}"

    async def open(self, settings: Settings, master_key: bytes = MASTER_KEY) -> None:
        options = npm_pusher_options(settings, master_key)
        await self._program.call("open", name=self._name, options=options)

    async def trigger(
        self, channels: str | list[str], event: str, data: Any, socket_id: str | None = None
    ) -> Any:
        params = {} if socket_id is None else {"socket_id": socket_id}
        words = {"channels": channels, "event": event, "data": data, "params": params}
        return await self._ask("trigger", **words)

    async def trigger_batch(self, batch: Sequence[Mapping[str, Any]]) -> Any:
        return await self._ask("trigger_batch", batch=list(batch))

    async def channels_info(self, prefix: str, attributes: list[str]) -> Any:
        params = {"filter_by_prefix": prefix, "info": ",".join(attributes)}
        return await self._ask("get", path="/channels", params=params)

    async def channel_info(self, channel: str, attributes: list[str]) -> Any:
        params = {"info": ",".join(attributes)}
        return await self._ask("get", path=f"/channels/{channel}", params=params)

    async def users_info(self, channel: str) -> Any:
        return await self._ask("get", path=f"/channels/{channel}/users", params={})

    async def terminate(self, user: str) -> Any:
        return await self._ask("terminate", user=user)

    async def send_to_user(self, user: str, event: str, data: Any) -> Any:
        return await self._ask("send_to_user", user=user, event=event, data=data)

    async def authorize(self, socket_id: str, channel: str, presence: Any = None) -> Any:
        words = {"socket_id": socket_id, "channel": channel, "presence": presence}
        return await self._program.call("authorize", name=self._name, **words)

    async def authenticate(self, socket_id: str, user: Any) -> Any:
        words = {"socket_id": socket_id, "user": user}
        return await self._program.call("authenticate", name=self._name, **words)

    async def decrypt(self, channel: str, nonce: str, ciphertext: str) -> Any:
        words = {"channel": channel, "nonce": nonce, "ciphertext": ciphertext}
        return await self._program.call("decrypt", name=self._name, **words)

    async def sign_webhook(self, body: str) -> str:
        signature: str = await self._program.call("sign_webhook", name=self._name, body=body)
        return signature

    async def validate_webhook(self, key: str, signature: str, body: str) -> Any:
        headers = {
            "content-type": "application/json",
            "x-pusher-key": key,
            "x-pusher-signature": signature,
        }
        words = {"headers": headers, "body": body}
        return await self._program.call("validate_webhook", name=self._name, **words)

    async def _ask(self, command: str, **words: Any) -> Any:
        try:
            return (await self._program.call(command, name=self._name, **words))["body"]
        except NodeError as exc:
            raise Refused(exc.status, str(exc)) from exc


class PyPusher:
    """PyPI `pusher`, which blocks and so works in threads."""

    def __init__(self, settings: Settings) -> None:
        self._client = pusher.Pusher(
            settings.app_id,
            settings.app_key,
            settings.app_secret,
            ssl=False,
            host=settings.host,
            port=settings.port,
            timeout=60,
            encryption_master_key_base64=base64.b64encode(MASTER_KEY).decode(),
        )

    def close(self) -> None:
        self._client._pusher_client.http.session.close()

    async def trigger(
        self, channels: str | list[str], event: str, data: Any, socket_id: str | None = None
    ) -> Any:
        return await self._ask(self._client.trigger, channels, event, data, socket_id)

    async def trigger_batch(self, batch: Sequence[Mapping[str, Any]]) -> Any:
        return await self._ask(self._client.trigger_batch, [dict(event) for event in batch])

    async def channels_info(self, prefix: str, attributes: list[str]) -> Any:
        return await self._ask(self._client.channels_info, prefix, attributes)

    async def channel_info(self, channel: str, attributes: list[str]) -> Any:
        return await self._ask(self._client.channel_info, channel, attributes)

    async def users_info(self, channel: str) -> Any:
        return await self._ask(self._client.users_info, channel)

    async def terminate(self, user: str) -> Any:
        return await self._ask(self._client.terminate_user_connections, user)

    async def authorize(self, socket_id: str, channel: str, presence: Any = None) -> Any:
        return self._client.authenticate(channel, socket_id, presence)

    async def authenticate(self, socket_id: str, user: Any) -> Any:
        return self._client.authenticate_user(socket_id, user)

    async def decrypt(self, channel: str, nonce: str, ciphertext: str) -> Any:
        # The library only encrypts; this is its key and its NaCl.
        key = pusher.crypto.generate_shared_secret(channel.encode(), MASTER_KEY)
        sealed = base64.b64decode(ciphertext)
        return SecretBox(key).decrypt(sealed, base64.b64decode(nonce)).decode()

    async def sign_webhook(self, body: str) -> str:
        signature: str = pusher.signature.sign(self._client._pusher_client.secret, body)
        return signature

    async def validate_webhook(self, key: str, signature: str, body: str) -> Any:
        return self._client.validate_webhook(key, signature, body)

    async def _ask(self, function: Callable[..., Any], *words: Any) -> Any:
        try:
            return await asyncio.to_thread(function, *words)
        except pusher.errors.PusherBadRequest as exc:
            raise Refused(400, str(exc)) from exc
        except pusher.errors.PusherBadAuth as exc:
            raise Refused(401, str(exc)) from exc
        except pusher.errors.PusherBadStatus as exc:
            # Its text is "status: body".
            raise Refused(int(str(exc).partition(":")[0]), str(exc)) from exc


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def publishing() -> AsyncIterator[Node]:
    async with Node("publisher.js") as program:
        yield program


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def npm_pusher(server: Server, publishing: Node) -> NpmPusher:
    library = NpmPusher(publishing)
    await library.open(server.settings())
    return library


OpenLibrary = Callable[[Settings], Awaitable[Library]]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["npm", "PyPI"])
async def open_library(
    request: pytest.FixtureRequest, publishing: Node
) -> AsyncIterator[OpenLibrary]:
    """Opens each of the two libraries in turn, with any settings."""
    with contextlib.ExitStack() as stack:

        async def open_(settings: Settings) -> Library:
            if request.param == "npm":
                library = NpmPusher(publishing)
                await library.open(settings)
                return library
            return stack.enter_context(contextlib.closing(PyPusher(settings)))

        yield open_


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def library(server: Server, open_library: OpenLibrary) -> Library:
    """Each of the two libraries in turn, for the module's server."""
    return await open_library(server.settings())


# A look at who dials


class Doorman:
    """Passes connections on to a server, and counts them."""

    def __init__(self, port: int) -> None:
        self.count = 0
        self.port = 0
        self._to = port

    async def __aenter__(self) -> Doorman:
        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        await self._server.wait_closed()
        await self._tasks.__aexit__(None, None, None)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()
        await writer.wait_closed()
