"""The documentation: its examples run as they stand, its tables are true, its pages build.

Every block of Python in the README and in `docs/` runs against a real server and a real chat
backend on this machine. A block of text right below one is what it prints: a block that would go
on for ever is ended when it has printed that. `docs/index.md` says what stands around a block;
here its addresses are exchanged for those of the servers.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import hmac
import io
import itertools
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from starlette.applications import Starlette
from starlette.routing import Route

from antiphon import (
    App,
    Client,
    HttpAuthorizer,
    Publisher,
    SecretAuthorizer,
    Settings,
)
from antiphon.backend import BackendConfig, Store, create_app, hash_password
from antiphon.chat import RestClient
from antiphon.errors import AntiphonError, Forbidden
from antiphon.server import HttpServer
from antiphon.testing import ConnectionEnded, Dial, FaultServer, PusherServer, polite

from .client.endpoint import Asked, Endpoint
from .client.peer import CERTIFICATE, server_tls

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
PAGES: Final = [
    ROOT / "README.md",
    *sorted(path for path in DOCS.rglob("*.md") if path.name not in ("design.md", "testing.md")),
]
"""Not those of design.md, which shows no code, nor those of testing.md, whose blocks are whole test
files: tests/testing/test_plugin.py runs them."""

LANGUAGES: Final = {"caddy", "ini", "json", "nginx", "php", "python", "sh", "text", "toml"}
PATIENCE: Final = 90.0
EVENTS_EVERY: Final = 0.02
MASTER_KEY: Final = "a" * 42 + "A="
GIVEN: Final = {"client", "publisher", "settings", "token"}
"""What `docs/index.md` promises to every block."""

in_one_loop = pytest.mark.asyncio(loop_scope="module")


# The blocks


class Block(NamedTuple):
    """A fenced block of Python, and the text below it."""

    page: Path
    heading: str
    line: int
    code: str
    output: str | None

    @property
    def is_program(self) -> bool:
        return "asyncio.run(" in self.code

    @property
    def asks_for(self) -> set[str]:
        """Which of the promised names it uses and does not make itself."""
        names = [node for node in ast.walk(ast.parse(self.code)) if isinstance(node, ast.Name)]
        made = {name.id for name in names if isinstance(name.ctx, ast.Store)}
        return GIVEN & {name.id for name in names} - made

    @property
    def place(self) -> str:
        return f"{self.page.name}#{self.heading}"

    def __str__(self) -> str:
        return f"{self.place}:{self.line}"


class Fence(NamedTuple):
    language: str
    heading: str
    line: int
    end: int
    text: str


def fences(page: Path) -> list[Fence]:
    """All fenced blocks of a page, in order."""
    found: list[Fence] = []
    heading, start, language = "", 0, ""
    lines = page.read_text("utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if start and line == "```":
            text = "\n".join(lines[start : number - 1]) + "\n"
            found.append(Fence(language, heading, start, number, text))
            start = 0
        elif not start and line.startswith("```"):
            start, language = number, line[3:]
        elif not start and (title := re.match(r"#+ (.+)", line)):
            heading = re.sub(r"[^a-z0-9 -]", "", title[1].lower()).strip().replace(" ", "-")
    assert not start, f"{page.name}:{start}: a block without an end"
    return found


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of Python of a page."""
    found = fences(page)
    lines = page.read_text("utf-8").splitlines()
    for fence, after in itertools.pairwise([*found, None]):
        if fence is None or fence.language != "python":
            continue
        output = None
        if after and after.language == "text" and not any(lines[fence.end : after.line - 1]):
            output = after.text
        yield Block(page, fence.heading, fence.line, fence.text, output)


BLOCKS: Final = [block for page in PAGES for block in blocks(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_its_language(page: Path) -> None:
    text = page.read_text("utf-8")
    assert re.findall(r"^[ \t>]+```|^~~~", text, re.MULTILINE) == [], "blocks stand at the margin"
    languages = {fence.language for fence in fences(page)}
    assert languages <= LANGUAGES


def test_prose_has_one_sentence_a_line() -> None:
    for page in PAGES:
        prose = re.sub(r"```.*?\n```", "", page.read_text("utf-8"), flags=re.DOTALL)
        lines = [line for line in prose.splitlines() if not line.startswith("|")]
        assert [line for line in lines if re.search(r"[a-z)`]\. [A-Z][a-z]+ ", line)] == [], page


# What they run against


class World:
    """A Pusher server, a chat backend with two users, and all that examples name."""

    def __init__(self, server: PusherServer, backend: str, login: SimpleNamespace) -> None:
        self.server = server
        self.token: str = login.ali
        self.environ = {
            **server.environ,
            "REVERB_ENCRYPTION_MASTER_KEY_BASE64": MASTER_KEY,
            "APP_URL": backend,
        }
        self.settings = Settings.from_env(environ=self.environ)
        # What stands in the pages, and what it is here.
        self.addresses = {
            "8080": str(server.port),
            "https://chat.example.com": backend,
            '"local"': f'"{server.app.id}"',
        }

    def here(self, text: str) -> str:
        """A page's text with the addresses of this machine."""
        for there, here in self.addresses.items():
            text = text.replace(there, here)
        return text

    def john(self) -> Client:
        """The other user, who is everywhere that he may be."""
        info = {"firstName": "John"}
        return Client(
            self.settings,
            authorizer=SecretAuthorizer(self.settings, user_id="2", user_info=info),
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """What stays up for all blocks."""
    database = f"sqlite:///{tmp_path_factory.mktemp('docs') / 'chat.sqlite3'}"
    password = await hash_password("antiphon")
    async with Store(database) as store:
        for first, last in (("Ali", "Qo'chqorov"), ("John", "Doe")):
            user = await store.users.create(
                first_name=first,
                last_name=last,
                email=f"{first.lower()}@example.com",
                password_hash=password,
            )
            assert user is not None
        await store.conversations.create([1, 2])
    app = App(id="local", key="local-key", secret="local-secret")
    async with PusherServer(app) as server:
        config = BackendConfig(settings=server.settings, database_url=database)
        async with HttpServer(create_app(config), host="127.0.0.1") as backend:
            async with RestClient(backend.url) as ali:
                login = await ali.login("ali@example.com", "antiphon")
                for content in ("Hello!", "Is anybody there?"):
                    await ali.send(1, content)
            yield World(server, backend.url, SimpleNamespace(ali=login.token))


@pytest_asyncio.fixture(loop_scope="module")
async def world(
    servers: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    """The servers, with the environment and the folder in which a block runs."""
    world = World(servers.server, servers.environ["APP_URL"], SimpleNamespace(ali=servers.token))
    for name in [name for name in os.environ if name.startswith(("REVERB_", "PUSHER_", "APP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CHAT_TOKEN", world.token)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.pem").write_bytes(CERTIFICATE.read_bytes())
    yield world


# What is done with what they make


async def asked_by_a_client(names: dict[str, Any], world: World) -> None:
    """The application of a block signs channels and users for a client."""
    async with HttpServer(names["app"], host="127.0.0.1") as backend:
        url = f"{backend.url}/broadcasting/auth"
        user_url = f"{backend.url}/broadcasting/user-auth"
        authorizer = HttpAuthorizer(url, user_auth_url=user_url, token="any")
        async with Client(world.settings, authorizer=authorizer) as client:
            await client.subscribe("presence-lobby").subscribed(PATIENCE)
            await client.signin().signed_in(PATIENCE)
            with pytest.raises(Forbidden):
                await client.subscribe("private-user.2").subscribed(PATIENCE)
    await names["publisher"].close()


async def told_by_a_server(names: dict[str, Any], world: World) -> None:
    """The route of a block takes a webhook, and refuses one that is not signed."""
    body = msgspec.json.encode(
        {
            "time_ms": int(time.time() * 1000),
            "events": [{"name": "channel_occupied", "channel": "orders"}],
        }
    )
    signature = hmac.new(b"local-secret", body, "sha256").hexdigest()
    route = Route("/webhook", names["webhook"], methods=["POST"])
    async with (
        HttpServer(Starlette(routes=[route]), host="127.0.0.1") as backend,
        ClientSession() as session,
    ):
        for signed, status in ((signature, 204), ("0" * 64, 401)):
            headers = {"X-Pusher-Key": "local-key", "X-Pusher-Signature": signed}
            url = f"{backend.url}/webhook"
            async with session.post(url, data=body, headers=headers) as answer:
                assert answer.status == status


Use = Callable[[dict[str, Any], World], Awaitable[None]]

USES: Final[dict[str, Use]] = {
    "publishing.md#sign-for-clients": asked_by_a_client,
    "publishing.md#webhooks": told_by_a_server,
}


# What happens while they run


Happen = Callable[[World], Awaitable[None]]

SHIPPED: Final = {"id": 5, "to": "Ann"}
SENT: Final = {
    "message": {
        "id": "123",
        "chat_id": "1",
        "sender_id": "2",
        "sender_name": "John",
        "content": "Hello!",
        "sent_at": "2026-11-23T10:31:00Z",
        "status": "sent",
    }
}


async def orders_are_shipped(world: World) -> None:
    world.server.trigger("orders", "OrderShipped", SHIPPED)
    world.server.trigger("private-user.1", r"App\Events\MessageSent", SENT)


async def john_comes_and_goes(world: World) -> None:
    if "1" not in world.server.members("presence-conversation.1"):
        return
    async with world.john() as john:
        room = john.subscribe("presence-conversation.1")
        await room.subscribed()
        room.trigger("client-wave", {"to": "all"})
        await asyncio.sleep(0.05)


async def secrets_are_shipped(world: World) -> None:
    async with Publisher(world.settings) as publisher:
        await publisher.trigger("private-encrypted-orders", "OrderShipped", SHIPPED)


async def ali_is_told(world: World) -> None:
    async with Publisher(world.settings) as publisher:
        await publisher.send_to_user("1", "Invoice", {"id": 7})


async def nonsense_is_shipped(world: World) -> None:
    world.server.trigger("orders", "OrderShipped", {"id": "none"})


async def the_server_restarts(world: World) -> None:
    await asyncio.sleep(0.1)
    world.server.disconnect_all(4200)
    await asyncio.sleep(0.5)


async def john_writes(world: World) -> None:
    await asyncio.sleep(1)
    async with RestClient(world.environ["APP_URL"]) as john:
        await john.login("john@example.com", "antiphon")
        await john.send(1, "Hello, bot!")


async def nothing_happens(world: World) -> None:
    pass


CHAT: Final = [
    f"chat.md#{heading}"
    for heading in ("conversations", "sending", "a-screen", "when-something-goes-wrong")
]

HAPPENS: Final[dict[str, Happen]] = {
    "chat.md#a-bot": john_writes,
    **dict.fromkeys(CHAT, nothing_happens),
    "channels.md#presence-channels": john_comes_and_goes,
    "channels.md#encrypted-channels": secrets_are_shipped,
    "connect.md#states": the_server_restarts,
    "events.md#what-goes-wrong": nonsense_is_shipped,
    "events.md#client-events": john_comes_and_goes,
    "authorization.md#events-to-one-user": ali_is_told,
    "reconnecting.md#fetch-what-was-missed": the_server_restarts,
    "reconnecting.md#watch-it": the_server_restarts,
}


async def as_hosted(dial: Dial) -> None:
    """What antiphon's own server does not send yet: counts, cache misses, watchlists."""
    await dial.greet()
    with contextlib.suppress(ConnectionEnded, TimeoutError):
        while True:
            message = await dial.message()
            if message["event"] == "pusher:signin":
                dial.send("pusher:signin_success", {"user_data": message["data"]["user_data"]})
                online = {"name": "online", "user_ids": ["2"]}
                dial.send("pusher_internal:watchlist_events", {"events": [online]})
            elif message["event"] == "pusher:subscribe":
                channel = message["data"]["channel"]
                dial.accept(channel)
                if channel.startswith("cache-"):
                    dial.send("pusher:cache_miss", None, channel)
                count = {"subscription_count": 3}
                dial.send("pusher_internal:subscription_count", count, channel)
    await dial.serve()


HOSTED: Final = {
    "channels.md#cache-channels",
    "channels.md#how-many-are-subscribed",
    "authorization.md#the-watchlist",
}


@contextlib.asynccontextmanager
async def servers_for(block: Block, world: World) -> AsyncIterator[None]:
    """The servers that only some blocks need."""
    async with contextlib.AsyncExitStack() as stack:
        if block.place in HOSTED:
            hosted = await stack.enter_async_context(FaultServer(as_hosted))
            world.environ["REVERB_PORT"] = str(hosted.port)
        if block.place == "publishing.md#users":
            # antiphon's own server cannot cut users off yet.
            hosted_api = await stack.enter_async_context(Endpoint())
            hosted_api.answers(200, "{}")
            world.environ["REVERB_PORT"] = str(urlsplit(hosted_api.url).port)
        if "8443" in block.code:
            tls = await stack.enter_async_context(FaultServer(polite, tls=server_tls()))
            world.addresses["8443"] = str(tls.port)
        if "proxy.example.com:3128" in block.code:
            proxy = await stack.enter_async_context(
                await asyncio.start_server(proxied, "127.0.0.1", 0)
            )
            port = proxy.sockets[0].getsockname()[1]
            world.addresses["proxy.example.com:3128"] = f"127.0.0.1:{port}"
        if "/broadcasting/auth/batch" in block.code:
            endpoint = await stack.enter_async_context(Endpoint())
            endpoint.answers_with(lambda asked: signs_a_batch(asked, world.settings))
            url = "https://chat.example.com/broadcasting/auth/batch"
            world.addresses = {url: endpoint.url, **world.addresses}
        yield


async def signs_a_batch(asked: Asked, settings: Settings) -> web.StreamResponse:
    fields = asked.form
    publisher = Publisher(settings)
    answers = {
        channel: {"status": 200, "data": publisher.authorize_channel(fields["socket_id"], channel)}
        for name, channel in fields.items()
        if name.startswith("channel_name[")
    }
    return web.json_response(answers)


async def proxied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A proxy that knows CONNECT."""
    head = await reader.readuntil(b"\r\n\r\n")
    host, port = head.split()[1].decode().split(":")
    there, back = await asyncio.open_connection(host, int(port))
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await asyncio.gather(passed_on(reader, back), passed_on(there, writer))


async def passed_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(65_536):
            target.write(data)
    target.close()


# Running them


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@in_one_loop
async def test_the_block_does_what_the_page_says(
    block: Block,
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with servers_for(block, world):
        for name, value in world.environ.items():
            monkeypatch.setenv(name, value)
        lines = "".join(f"{name}={value}\n" for name, value in world.environ.items())
        (tmp_path / ".env").write_text(lines)
        code = world.here(block.code)
        expected = None if block.output is None else world.here(block.output)
        happen = HAPPENS.get(block.place, orders_are_shipped)
        happening = asyncio.create_task(again_and_again(happen, world))
        try:
            if block.is_program:
                await run_program(code, expected)
            else:
                await run_fragment(block, code, expected, world)
        finally:
            happening.cancel()
            await asyncio.wait([happening])
    assert [line for line in caplog.messages if line.startswith("HandlerFailed")] == []


async def again_and_again(happen: Happen, world: World) -> None:
    while True:
        await happen(world)
        await asyncio.sleep(EVENTS_EVERY)


async def run_program(code: str, expected: str | None) -> None:
    """Run a whole program in a process of its own, and end it as a reader would: by Ctrl-C."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-c", code, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    printed = ""
    try:
        async with asyncio.timeout(PATIENCE):
            while expected is None or not printed.startswith(expected):
                line = await process.stdout.readline()
                if not line:
                    break
                printed += line.decode()
            if expected is not None:
                with contextlib.suppress(ProcessLookupError):
                    # send_signal() may take the exit code away from asyncio, which then says 255.
                    os.kill(process.pid, signal.SIGINT)
            _, errors = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    if process.returncode not in (0, -signal.SIGINT, 130):
        raise AssertionError(f"ended with {process.returncode}\n{errors.decode()}")
    if expected is not None:
        assert printed.startswith(expected), f"printed {printed!r}\n{errors.decode()}"


async def run_fragment(block: Block, code: str, expected: str | None, world: World) -> None:
    """Run a block in what the guide promises to stand around it."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        task = asyncio.create_task(played(block, code, world, lambda: is_told(out, expected)))
        await asyncio.wait([task], timeout=PATIENCE)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
            printed = out.getvalue()[:2000]
            raise AssertionError(f"within {PATIENCE:g} s it has printed only {printed!r}")
    await task
    if expected is not None:
        assert out.getvalue().startswith(expected), f"printed {out.getvalue()[:2000]!r}"


def is_told(out: io.StringIO, expected: str | None) -> bool:
    return expected is None or out.getvalue().startswith(expected)


async def played(block: Block, code: str, world: World, told: Callable[[], bool]) -> None:
    settings = Settings.from_env(".env")
    given: dict[str, Any] = {"settings": settings, "token": world.token}
    async with contextlib.AsyncExitStack() as stack:
        if "client" in block.asks_for:
            given["client"] = await stack.enter_async_context(Client(settings, token=world.token))
        if "publisher" in block.asks_for:
            given["publisher"] = await stack.enter_async_context(Publisher(settings))
        program = compile(
            "\n" * block.line + code,
            str(block.page),
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
        names = {"__name__": "__main__", **given}
        result = eval(program, names)
        running = asyncio.ensure_future(result if result is not None else asyncio.sleep(0))
        try:
            while not told() and not (running.done() and running.exception()):
                await asyncio.wait([running], timeout=0.01)
                await asyncio.sleep(0.01)
            # One that ends by itself must end well.
            await asyncio.wait([running], timeout=PATIENCE if block.output is None else 0.1)
            if block.output is None and not running.done():
                raise AssertionError("it goes on, and the page does not say what it prints")
            if running.done() and (use := USES.get(block.place)) is not None:
                await use(names, world)
        finally:
            if not running.done():
                running.cancel()
            await asyncio.wait([running])
        if not running.cancelled():
            running.result()


# What they say to a type checker


def test_the_blocks_have_the_types_they_should(tmp_path: Path) -> None:
    for page in PAGES:
        parts = [_AROUND, *(typed(block) for block in BLOCKS if block.page == page)]
        (tmp_path / f"{page.stem}.py").write_text("\n".join(parts))
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    options = ["--cache-dir", str(ROOT / ".mypy_cache"), "--no-error-summary", "--no-pretty"]
    options += ["--disable-error-code=no-untyped-def", "--disable-error-code=unreachable"]
    done = subprocess.run(
        [*command, *options, *map(str, sorted(tmp_path.glob("*.py")))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout + done.stderr == ""


_AROUND: Final = "from antiphon import Client, Publisher, Settings\n"


def typed(block: Block) -> str:
    name = f"{block.heading.replace('-', '_')}_{block.line}"
    arguments = {
        "client": "client: Client",
        "publisher": "publisher: Publisher",
        "settings": "settings: Settings",
        "token": "token: str",
    }
    given = ", ".join(arguments[name] for name in sorted(block.asks_for))
    body = textwrap.indent(block.code, "    ")
    return f"async def block_{name}({given}) -> None:\n{body}\n"


# The tables


REFUSALS: Final[list[tuple[int, str, dict[str, str], str]]] = [
    (401, "", {}, "Unauthorized"),
    (403, "", {}, "Forbidden"),
    (419, "", {}, "SessionExpired"),
    (200, "", {}, "EmptyAuthResponse"),
    (200, "<html>", {}, "MalformedAuthResponse"),
    (200, "null", {}, "MalformedAuthResponse"),
    (302, "", {"Location": "/login"}, "AuthServerError"),
    (404, "", {}, "AuthServerError"),
    (429, "", {}, "AuthServerError"),
    (500, "", {}, "AuthServerError"),
]


@pytest.mark.parametrize(("status", "body", "headers", "name"), REFUSALS)
@in_one_loop
async def test_the_table_of_refusals_says_what_the_error_says(
    status: int, body: str, headers: dict[str, str], name: str
) -> None:
    async with Endpoint() as endpoint:
        endpoint.answers(status, body, **headers)
        authorizer = HttpAuthorizer(endpoint.url, token="t", min_delay=0.001, max_delay=0.002)
        with pytest.raises(AntiphonError) as caught:
            await authorizer.authorize("private-user.1", "1.1")
        await authorizer.close()
    advice = str(caught.value).partition("; ")[2].rstrip(".")
    rows = (DOCS / "authorization.md").read_text("utf-8").splitlines()
    assert [row for row in rows if row.startswith("|") and f"`{name}`" in row and advice in row]


def test_every_setting_has_its_line() -> None:
    text = (DOCS / "connect.md").read_text("utf-8")
    fields = [field.name for field in msgspec.structs.fields(Settings)]
    assert [name for name in fields if f"`{name}`" not in text] == []


# The pages


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built as `make docs` builds them."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_no_page_asks_another_host(site: Path) -> None:
    asking = re.compile(
        r"""(?:src|srcset|data|poster)=["']?(https?:)?//[^"' >]+"""
        r"""|<link(?![^>]*rel=["']?canonical)[^>]+href=["']?(https?:)?//[^"' >]+"""
        r"""|url\(["']?(https?:)?//|@import["' (]+(https?:)?//""",
        re.IGNORECASE,
    )
    files = [path for path in site.rglob("*") if path.suffix in (".html", ".css")]
    assert len(files) > 10
    found = {path.name: asking.search(path.read_text("utf-8")) for path in files}
    assert {name: match[0] for name, match in found.items() if match} == {}


def test_every_public_name_stands_in_the_reference(site: Path) -> None:
    import antiphon
    from antiphon import chat, errors, testing

    text = "".join(path.read_text("utf-8") for path in (site / "reference").rglob("*.html"))
    for module in (antiphon, errors, chat, testing):
        for name in module.__all__:
            if name.startswith("__") or name in ("sentence",):
                continue
            assert re.search(rf'id="antiphon\.[a-z.]*{name}"', text), f"{module.__name__}.{name}"
