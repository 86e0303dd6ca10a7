"""The console over HTTP: who is let in, what is told, and what a flood costs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import html
import json
import os
import re
import secrets
import subprocess
import sys
import time
import weakref
import zipfile
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio

import antiphon.server.console
from antiphon.errors import SettingsError
from antiphon.protocol.signing import channel_auth, sign_request
from antiphon.publisher import Publisher
from antiphon.server import Server
from antiphon.server.console.door import IDLE, MAX_SEATS, Door, TooManyTries
from antiphon.server.console.tables import channel_page, connection_page
from antiphon.server.console.watch import KEPT, MAX_ROWS, MAX_SIZE, Watch
from antiphon.server.hub import Hub
from antiphon.settings import App
from tests.conftest import Connect

from .cluster import REDIS, needs_redis
from .wire import TIMEOUT, Wire, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD: Final = "correct horse battery"
SECRET: Final = "the-secret-of-the-shop"
SHOP: Final = App(id="shop", key="k", secret=SECRET)
HERE: Final = Path(antiphon.server.console.__file__).parent
HOSTILE: Final = '<img src=x onerror="document.title=1">'


class Visitor:
    """Somebody with a browser's cookies, and none of its protection."""

    def __init__(self, server: Server, http: aiohttp.ClientSession) -> None:
        self.url = f"{server.url}/console"
        self.http = http
        self.token = ""

    async def log_in(self, password: str = PASSWORD, **headers: str) -> aiohttp.ClientResponse:
        """Send the form; the answer, before any redirection."""
        return await self.http.post(
            f"{self.url}/login",
            data={"password": password},
            headers=headers,
            allow_redirects=False,
        )

    async def enter(self) -> None:
        """Be in, with the token of the page."""
        assert (await self.log_in()).status == 303
        page = await (await self.http.get(self.url)).text()
        found = re.search(r'name="console-token" content="([^"]+)"', page)
        assert found is not None
        self.token = html.unescape(found[1])

    async def get(self, path: str, **query: str) -> Any:
        """The answer to a question, which must be given."""
        async with self.http.get(f"{self.url}/{path}", params=query) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def post(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Have something done: status and answer."""
        headers = {"X-Console-Token": self.token, **headers}
        async with self.http.post(f"{self.url}/{path}", json=body, headers=headers) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None

    @contextlib.asynccontextmanager
    async def stream(self, app: str = "shop") -> AsyncIterator[Stream]:
        """What happens, from now on."""
        async with self.http.get(f"{self.url}/apps/{app}/stream") as answer:
            assert answer.status == 200
            stream = Stream(answer)
            await stream.news()  # the first says that it has begun
            yield stream


class Stream:
    """Server-sent events, read one at a time."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.rows: list[dict[str, Any]] = []
        self.samples: list[list[Any]] = []
        self.dropped = 0

    async def news(self) -> None:
        """Wait for the next.

        Raises:
            EOFError: There is none.
        """
        async with asyncio.timeout(TIMEOUT):
            line = await self.answer.content.readline()
            assert not line or await self.answer.content.readline() == b"\n"
        if not line:
            raise EOFError
        news = json.loads(line.removeprefix(b"data: "))
        self.rows += news.get("rows", [])
        self.samples += news.get("samples", [])
        self.dropped += news.get("dropped", 0)

    async def next_second(self) -> None:
        """Wait for one more sample."""
        seen = len(self.samples)
        while len(self.samples) == seen:
            await self.news()

    async def end(self) -> None:
        """Wait until nothing more comes."""
        with contextlib.suppress(EOFError):
            while True:
                await self.news()

    async def row(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The first row like this; those before it are passed over."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                while self.rows:
                    row = self.rows.pop(0)
                    if row["kind"] == kind and fields.items() <= row.items():
                        return row
                await self.news()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop() -> AsyncIterator[Server]:
    """A server with a console and two applications."""
    apps = (SHOP, App(id="other", key="k2", secret="s2"))
    async with Server(apps, console_password=PASSWORD) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def stranger(shop: Server) -> AsyncIterator[Visitor]:
    """Somebody who has not logged in."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        yield Visitor(shop, http)


@pytest_asyncio.fixture(loop_scope="module")
async def admin(stranger: Visitor) -> Visitor:
    """Somebody who has."""
    await stranger.enter()
    return stranger


@pytest_asyncio.fixture(loop_scope="module")
async def ali(shop: Server, connect: Connect) -> Wire:
    """A client, of a page."""
    return await connect(shop, headers={"Origin": "https://shop.example.com"})


# Off


@pytest.mark.parametrize("path", ["", "/", "/login", "/logout", "/files/console.js", "/apps"])
async def test_without_a_password_there_is_nothing(server: Server, path: str) -> None:
    async with aiohttp.ClientSession() as http:
        for method in ("GET", "POST"):
            async with http.request(method, f"{server.url}/console{path}") as answer:
                assert answer.status == 404


async def test_a_short_password_is_refused_and_not_told() -> None:
    with pytest.raises(SettingsError, match="has 11 characters; it needs 12") as caught:
        Server(SHOP, console_password="only-eleven")
    assert "only-eleven" not in str(caught.value)
    Server(SHOP, console_password="twelve-chars")


async def test_it_stands_under_the_servers_prefix() -> None:
    async with (
        Server(SHOP, path="/ws", console_password=PASSWORD) as server,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http,
    ):
        visitor = Visitor(server, http)
        assert visitor.url.endswith("/ws/console")
        await visitor.enter()
        page = await (await http.get(visitor.url)).text()
        files = re.findall(r'(?:href|src)="(/[^"]+)"', page)
        assert len(files) >= 4
        for file in files:
            assert file.startswith("/ws/console/files/")
            async with http.get(server.url.removesuffix("/ws") + file) as answer:
                assert answer.status == 200


# The door


async def test_a_cookie_is_for_the_console_alone_and_for_no_script(stranger: Visitor) -> None:
    answer = await stranger.log_in()
    assert answer.status == 303
    assert answer.headers["Location"] == "/console"
    (cookie,) = answer.headers.getall("Set-Cookie")
    words = cookie.lower().split("; ")
    assert {"httponly", "path=/console", "samesite=strict"} <= set(words)
    assert "secure" not in words  # plain HTTP: the browser would not send it back
    assert len(cookie.split("=", 1)[1].split(";")[0]) == 43


async def test_behind_tls_the_cookie_is_secure(stranger: Visitor) -> None:
    answer = await stranger.log_in(**{"X-Forwarded-Proto": "https"})  # from a proxy here
    assert "secure" in answer.headers["Set-Cookie"].lower().split("; ")


async def test_through_a_unix_socket_its_proxy_is_believed(tmp_path: Path) -> None:
    names = set()
    for path in (tmp_path / "one.sock", tmp_path / "two.sock"):
        async with (
            Server(SHOP, unix=path, console_password=PASSWORD),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as http,
        ):
            for scheme, is_secure in (("https", True), ("http", False), ("", False)):
                answer = await http.post(
                    "http://shop.example/console/login",
                    data={"password": PASSWORD},
                    headers={"X-Forwarded-Proto": scheme} if scheme else {},
                    allow_redirects=False,
                )
                assert answer.status == 303
                name, words = answer.headers["Set-Cookie"].lower().split("=", 1)
                assert ("secure" in words.split("; ")) is is_secure
                assert re.fullmatch(r"antiphon-console-unix-[0-9a-f]{8}", name)
                cookie = {"Cookie": f"{name}={answer.cookies[name].value}"}
                async with http.get("http://shop.example/console/apps", headers=cookie) as apps:
                    assert apps.status == 200
                names.add(name)
    assert len(names) == 2  # cookies of one host know no ports, and no sockets


async def test_no_two_cookies_are_the_same(stranger: Visitor) -> None:
    cookies = {(await stranger.log_in()).headers["Set-Cookie"] for _ in range(5)}
    assert len(cookies) == 5


@pytest.mark.parametrize(
    "path",
    [
        "apps",
        "apps/shop/stream",
        "apps/shop/cluster",
        "apps/shop/connections",
        "apps/shop/connections/1.1",
        "apps/shop/channels",
        "apps/shop/channel?name=a",
    ],
)
async def test_who_has_not_logged_in_is_told_nothing(stranger: Visitor, path: str) -> None:
    forged = {"Cookie": f"antiphon-console-{stranger.url.split(':')[2].split('/')[0]}=x"}
    for headers in ({}, forged):
        async with stranger.http.get(f"{stranger.url}/{path}", headers=headers) as answer:
            assert answer.status == 401
            assert await answer.json() == {"error": "Log in first"}


async def test_who_has_not_logged_in_can_do_nothing(stranger: Visitor, ali: Wire) -> None:
    for path in ("logout", "apps/shop/kick", "apps/shop/publish"):
        assert (await stranger.post(path, {}))[0] == 401
    path = f"apps/shop/connections/{ali.socket_id}/terminate"
    assert (await stranger.post(path))[0] == 401
    await ali.ping()


FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize("is_announced", [True, False], ids=["announced", "in chunks"])
async def test_a_form_too_large_is_refused_before_it_has_come(
    stranger: Visitor, is_announced: bool
) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"a=%41&" * (1 if is_announced else 1_000)
        await begun.wait()

    headers = FORM | ({"Content-Length": "1000000"} if is_announced else {})
    async with asyncio.timeout(TIMEOUT):
        answer = await stranger.http.post(
            f"{stranger.url}/login", data=endless(), headers=headers, allow_redirects=False
        )
    assert answer.status == 413
    assert "4096 bytes" in await answer.text()
    answer.close()
    begun.set()
    password = "x" * 4_000
    assert (await stranger.log_in(password)).status == 401
    assert (await stranger.log_in(password * 2)).status == 413
    assert (await stranger.log_in()).status == 303


async def test_a_form_of_many_fields_is_refused_and_not_taken_apart(stranger: Visitor) -> None:
    for fields, status in ((3, 303), (4, 400), (600, 400)):
        body = f"{'a=%41&' * fields}password={PASSWORD}"
        answer = await stranger.http.post(
            f"{stranger.url}/login", data=body, headers=FORM, allow_redirects=False
        )
        assert answer.status == status


async def test_the_sixth_wrong_password_in_a_minute_locks_the_door(connect: Connect) -> None:
    async with (
        Server(SHOP, console_password=PASSWORD) as server,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http,
    ):
        inside = Visitor(server, http)
        await inside.enter()
        async with aiohttp.ClientSession() as other:
            stranger = Visitor(server, other)
            for wrong in ("", "x", PASSWORD[:-1], PASSWORD + "x", PASSWORD.upper()):
                answer = await stranger.log_in(wrong)
                assert answer.status == 401
                assert "The password is wrong." in await answer.text()
                assert "Set-Cookie" not in answer.headers
            for password in ("x", PASSWORD):
                answer = await stranger.log_in(password)
                assert answer.status == 429
                assert 0 < int(answer.headers["Retry-After"]) <= 60
        assert len(await inside.get("apps")) == 1  # who is in stays in


async def test_a_minute_after_the_first_wrong_one_there_is_another_try() -> None:
    door = Door(PASSWORD)
    for second in range(5):
        assert door.enter("wrong", 100.0 + second) is None
    with pytest.raises(TooManyTries) as caught:
        door.enter(PASSWORD, 159.9)
    assert caught.value.retry_after == 1
    assert door.enter(PASSWORD, 160.0) is not None


async def test_a_session_ends_after_twelve_idle_hours() -> None:
    door = Door(PASSWORD)
    cookie = door.enter(PASSWORD, 0.0)
    assert cookie is not None
    seat = door.find(cookie, IDLE)
    assert seat is not None
    seat.seen = IDLE  # what a request does
    assert door.find(cookie, 2 * IDLE) is seat
    assert door.find(cookie, 2 * IDLE + 1) is None
    assert door.find(cookie, IDLE) is None  # and does not come back


async def test_sessions_are_bounded() -> None:
    door = Door(PASSWORD)
    cookies = [door.enter(PASSWORD, float(number)) or "" for number in range(MAX_SEATS + 1)]
    assert door.find(cookies[0], 200.0) is None
    assert all(door.find(cookie, 200.0) for cookie in cookies[1:])


async def test_who_logs_out_is_out_and_their_stream_ends(admin: Visitor) -> None:
    async with admin.stream() as stream:
        assert await admin.post("logout") == (204, None)
        await stream.end()
    async with admin.http.get(f"{admin.url}/apps") as answer:
        assert answer.status == 401
    assert 'name="password"' in await (await admin.http.get(admin.url)).text()


# Other sites


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://[x"},
    ],
)
async def test_another_site_can_neither_log_in_nor_use_up_the_tries(
    stranger: Visitor, headers: dict[str, str]
) -> None:
    for _ in range(6):
        answer = await stranger.log_in("wrong", **headers)
        assert answer.status == 403
    assert (await stranger.log_in(PASSWORD, **headers)).status == 403
    assert (await stranger.log_in()).status == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Console-Token": ""},
        {"X-Console-Token": "x" * 43},
        {"X-Console-Token": "ÿ"},
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_what_changes_something_needs_the_pages_token_and_origin(
    admin: Visitor, ali: Wire, headers: dict[str, str]
) -> None:
    path = f"apps/shop/connections/{ali.socket_id}/terminate"
    assert (await admin.post(path, {}, **headers))[0] == 403
    await ali.ping()
    assert (await admin.post("logout", {}, **headers))[0] == 403
    assert await admin.get("apps")
    assert (await admin.post(path, {}, Origin=admin.url.removesuffix("/console")))[0] == 204


async def test_another_sessions_token_does_not_do(shop: Server, admin: Visitor, ali: Wire) -> None:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        other = Visitor(shop, http)
        await other.enter()
        other.token = admin.token
        assert (await other.post(f"apps/shop/connections/{ali.socket_id}/terminate"))[0] == 403


@pytest.mark.parametrize("path", ["", "/files/console.js", "/apps", "/apps/nobody/channels"])
async def test_nothing_is_cached_framed_or_loaded_from_elsewhere(admin: Visitor, path: str) -> None:
    async with admin.http.get(admin.url + path) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        policy = dict(
            part.strip().split(" ", 1)
            for part in answer.headers["Content-Security-Policy"].split(";")
        )
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"


async def test_the_files_name_no_other_host_and_hold_no_inline_script() -> None:
    for file in HERE.iterdir():
        if file.suffix in (".html", ".js", ".css", ".svg"):
            text = file.read_text(encoding="utf-8")
            hosts = set(re.findall(r"(?:https?:)?//([\w.-]+\.\w+)", text))
            assert hosts <= {"www.w3.org"}, f"{file.name}: {hosts}"
            assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", text)
            assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|<style|\sstyle=", text)


@pytest.mark.parametrize("name", ["page.html", "console.py", "..%2Fdoor.py", "%2e%2e/door.py"])
async def test_only_the_pages_files_are_given(stranger: Visitor, name: str) -> None:
    async with stranger.http.get(f"{stranger.url}/files/{name}") as answer:
        assert answer.status == 404


async def test_the_wheel_holds_the_page(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    built = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = os.listdir(tmp_path)
    with zipfile.ZipFile(tmp_path / wheel) as archive:
        names = set(archive.namelist())
    for name in os.listdir(HERE):
        if name != "__pycache__":
            assert f"antiphon/server/console/{name}" in names


# What is told


async def test_what_happens_is_told(
    shop: Server, admin: Visitor, connect: Connect, ali: Wire
) -> None:
    async with admin.stream() as stream, Publisher(shop.settings()) as publisher:
        john = await connect(shop, headers={"Origin": "https://john.example"})
        come = await stream.row("connected", socket_id=john.socket_id)
        assert json.loads(come["data"]) == {
            "address": "127.0.0.1",
            "origin": "https://john.example",
        }
        await ali.join("presence-room", 7, {"name": "Ali"}, secret=SECRET)
        added = await stream.row("member_added", channel="presence-room", user_id="7")
        assert json.loads(added["data"]) == {"name": "Ali"}
        await stream.row("subscribed", socket_id=ali.socket_id, user_id="7")
        await john.join("presence-room", 8, secret=SECRET)
        await ali.event("pusher_internal:member_added")
        await publisher.trigger(
            "presence-room", "Said", {"text": "hello"}, socket_id=john.socket_id
        )
        said = await stream.row("published", event="Said", socket_id=john.socket_id)
        assert (said["channel"], said["receivers"]) == ("presence-room", 1)
        assert json.loads(said["data"]) == {"text": "hello"}
        ali.send("client-typing", {"typing": True}, "presence-room")
        typing = await stream.row("client_event", event="client-typing", user_id="7")
        assert json.loads(typing["data"]) == {"typing": True}
        john.send("pusher:unsubscribe", {"channel": "presence-room"})
        await stream.row("unsubscribed", socket_id=john.socket_id, channel="presence-room")
        await stream.row("member_removed", user_id="8")
        john.send("pusher:subscribe", {"channel": "private-x", "auth": "k:00"})
        refused = await stream.row("subscription_refused", channel="private-x")
        assert "signature" in refused["data"]
        john.send("no-such-event", {})
        error = await stream.row("error", socket_id=john.socket_id)
        assert json.loads(error["data"])["message"] == "Unknown event 'no-such-event'"
        john.send("pusher:subscribe", {"channel": "news"})
        await stream.row("subscribed", socket_id=john.socket_id, channel="news")
        await john.hang_up()
        await stream.row("unsubscribed", socket_id=john.socket_id, channel="news")
        assert "data" not in await stream.row("disconnected", socket_id=john.socket_id)


async def test_who_is_not_let_in_is_told_with_the_reason() -> None:
    only_here = App(id="shop", key="k", secret="s", allowed_origins=("shop.example.com",))
    async with (
        Server(only_here, console_password=PASSWORD) as server,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http,
    ):
        visitor = Visitor(server, http)
        await visitor.enter()
        async with (
            visitor.stream() as stream,
            await Wire.open(server.port, headers={"Origin": "https://x.example"}),
        ):
            refused = json.loads((await stream.row("refused"))["data"])
    assert refused == {"code": 4009, "reason": "Origin not allowed", "origin": "https://x.example"}


async def test_each_application_is_told_alone(
    shop: Server, admin: Visitor, connect: Connect
) -> None:
    async with admin.stream("other") as stream:
        await connect(shop)
        other = await connect(shop, "/app/k2")
        first = await stream.row("connected")
        assert first["socket_id"] == other.socket_id
    assert [app["id"] for app in await admin.get("apps")] == ["shop", "other"]
    async with admin.http.get(f"{admin.url}/apps/none/stream") as answer:
        assert answer.status == 404


async def test_neither_secrets_nor_signatures_are_told(
    shop: Server, admin: Visitor, ali: Wire
) -> None:
    auth = channel_auth("k", SECRET, ali.socket_id, "private-a")
    user_auth = "k:" + "0" * 64
    async with admin.stream() as stream, Publisher(shop.settings()) as publisher:
        await ali.subscribe("private-a", auth)
        ali.send("pusher:subscribe", {"channel": "private-b", "auth": auth})
        ali.send("pusher:signin", {"auth": user_auth, "user_data": '{"id":"1"}'})
        ali.send("pusher:subscribe", {"auth": auth})
        await publisher.trigger("private-a", "done", {})
        told: list[Any] = []
        while "published" not in [row["kind"] for row in told]:
            await stream.news()
            told, stream.rows = told + stream.rows, []
    answers = [
        told,
        await admin.get("apps"),
        await admin.get("apps/shop/connections"),
        await admin.get(f"apps/shop/connections/{ali.socket_id}"),
        await admin.get("apps/shop/channels"),
        await admin.get("apps/shop/channel", name="private-a"),
        await (await admin.http.get(admin.url)).text(),
    ]
    text = json.dumps(answers)
    assert "private-a" in text
    for secret in (SECRET, PASSWORD, auth.split(":")[1], user_auth):
        assert secret not in text


async def test_a_closed_console_leaves_the_hub_alone(shop: Server, admin: Visitor) -> None:
    hub = shop._hubs["k"]
    await until(lambda: hub.tap is None)
    async with admin.stream():
        assert hub.tap is not None
        async with admin.stream():
            pass
        assert hub.tap is not None
    await until(lambda: hub.tap is None)


async def test_of_an_application_that_is_gone_nothing_is_told_or_kept() -> None:
    other = App(id="other", key="k2", secret="s2")
    async with (
        Server((SHOP, other), console_password=PASSWORD) as server,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http,
    ):
        visitor = Visitor(server, http)
        await visitor.enter()
        for is_open in (False, True):
            hub = weakref.ref(server._by_id["other"])
            async with visitor.stream("other") as stream:
                if is_open:
                    await server.change_apps([SHOP])
                    await stream.end()
            if not is_open:
                await until(lambda: server._by_id["other"].tap is None)
                await server.change_apps([SHOP])
            async with http.get(f"{visitor.url}/apps/other/stream") as answer:
                assert answer.status == 404

            def is_forgotten(hub: weakref.ref[Hub] = hub) -> bool:
                gc.collect()
                return hub() is None

            await until(is_forgotten)
            await server.change_apps([SHOP, other])
            async with visitor.stream("other"):
                pass


async def test_samples_count_a_second_and_are_kept_for_who_comes_next(
    shop: Server, admin: Visitor, ali: Wire
) -> None:
    async with admin.stream() as stream, Publisher(shop.settings()) as publisher:
        await until(lambda: len(shop._hubs["k"].sockets) == 1)  # other tests' have gone
        await ali.subscribe("news")
        await stream.next_second()  # it may have begun before
        stream.samples.clear()
        # What is published as a second ends is sent in the next.
        while not any(sample[5] and sample[6] for sample in stream.samples):
            await publisher.trigger("news", "tick", {})
            await stream.news()
        sample = next(sample for sample in stream.samples if sample[5] and sample[6])
        at, connections, channels, subscriptions, received, _, _, latency, lag = sample
    assert (connections, channels, subscriptions) == (1, 1, 1)
    assert received >= 0
    assert latency > 0
    assert lag >= 0
    async with admin.http.get(f"{admin.url}/apps/shop/stream") as answer:
        again = Stream(answer)
        await again.news()
    assert at in [sample[0] for sample in again.samples]


async def test_a_server_that_stops_waits_for_no_console(
    admin: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.server.http._GRACE", 600)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        server = Server(SHOP, console_password=PASSWORD)
        await server.start()
        visitor = Visitor(server, http)
        await visitor.enter()
        async with visitor.stream() as stream:
            async with asyncio.timeout(TIMEOUT):
                await server.stop()
            await stream.end()


# A flood


async def test_a_queue_has_an_end_and_what_is_missing_is_counted() -> None:
    watch = Watch(Hub(SHOP), lambda: 0.0, deque())
    view = watch.open()
    await view.news()
    for number in range(10_000):
        watch.note("published", channel="a", event=str(number), data="{}")
    news = await view.news()
    assert [row.event for row in news.rows] == [str(n) for n in range(10_000 - MAX_ROWS, 10_000)]
    assert news.dropped == 10_000 - MAX_ROWS
    watch.note("published", event="next")
    news = await view.news()
    assert ([row.event for row in news.rows], news.dropped) == (["next"], 0)
    watch.close(view)


async def test_a_queue_of_large_events_is_bounded_in_bytes() -> None:
    watch = Watch(Hub(SHOP), lambda: 0.0, deque())
    view = watch.open()
    await view.news()
    for _ in range(1_000):
        watch.note("published", event="large", data="x" * 1_000_000)
    news = await view.news()
    assert sum(len(row.data) for row in news.rows) <= MAX_SIZE
    assert news.dropped + len(news.rows) == 1_000
    assert news.rows[-1].size == 1_000_000
    watch.close(view)


@pytest.mark.parametrize("field", ["channel", "event", "data", "socket_id", "user_id"])
async def test_all_that_a_row_says_counts(field: str) -> None:
    watch = Watch(Hub(SHOP), lambda: 0.0, deque())
    view = watch.open()
    await view.news()
    text: dict[str, Any] = {field: "x" * 10_000}
    for _ in range(100):
        watch.note("published", **text)
    news = await view.news()
    assert len(news.rows) == MAX_SIZE // 10_009  # and its kind
    assert news.dropped + len(news.rows) == 100
    watch.note("published", channel="a", event="b")  # what was told is not counted any more
    assert len((await view.news()).rows) == 1
    watch.close(view)


@pytest.mark.parametrize(
    "socket_id", ["nobody", "1", "1.", ".1", "1.1\n", "١.١", f"{'1' * 39}.1", "1" * 100_000]
)
async def test_what_is_no_socket_id_is_neither_published_nor_told(
    shop: Server, admin: Visitor, socket_id: str
) -> None:
    event = {"name": "e", "channel": "news", "data": "{}", "socket_id": socket_id}
    async with admin.stream() as stream, Publisher(shop.settings()) as publisher:
        for path, body in (("events", event), ("batch_events", {"batch": [event]})):
            raw = json.dumps(body).encode()
            request = f"/apps/shop/{path}"
            query = sign_request("k", SECRET, "POST", request, timestamp=int(time.time()), body=raw)
            async with admin.http.post(
                shop.url + request, params=query, data=raw, headers={"Content-Type": "text/plain"}
            ) as answer:
                assert answer.status == 400
                assert "123.456" in (await answer.json())["error"]
        body = {"channel": "news", "event": "e", "data": "{}", "socket_id": socket_id}
        status, refused = await admin.post("apps/shop/publish", body)
        assert status == 400
        assert "123.456" in refused["error"]
        await publisher.trigger("news", "next", {}, socket_id=f"{'1' * 38}.1")  # nobody's
        told = await stream.row("published")
        assert told["event"] == "next"


async def test_a_console_that_reads_nothing_holds_no_more_than_five_minutes() -> None:
    watch = Watch(Hub(SHOP), lambda: 0.0, deque())
    view = watch.open()
    for _ in range(KEPT + 50):
        watch._tick()
    news = await view.news()
    assert len(news.samples) == KEPT
    watch.close(view)
    assert watch._timer is None


async def test_ten_thousand_events_reach_subscribers_whole_while_the_console_drops(
    shop: Server, admin: Visitor, connect: Connect
) -> None:
    hub = shop._hubs["k"]
    listener = await connect(shop)
    await listener.subscribe("flood")
    count = 10_000
    async with admin.stream() as stream:
        for number in range(count):
            hub.trigger("flood", "drop", str(number))
            if number % 1_000 == 999:  # more than a queue holds: however slow a turn is
                await asyncio.sleep(0)
        heard = [(await listener.event("drop"))["data"] for _ in range(count)]
        assert heard == list(range(count))
        flood = 0
        while flood + stream.dropped < count:
            await stream.news()
            flood = sum(row.get("channel") == "flood" for row in stream.rows)
        assert stream.dropped > 0
        assert stream.rows[-1]["data"] == str(count - 1)


# Tables


async def test_connections_are_searched_and_paged(
    shop: Server, admin: Visitor, connect: Connect
) -> None:
    wires = [
        await connect(shop, headers={"Origin": f"https://page{number}.example"})
        for number in range(53)
    ]
    await wires[7].join("presence-room", "user-seven", secret=SECRET)
    first = await admin.get("apps/shop/connections", search="page")
    assert (first["total"], len(first["rows"])) == (53, 50)
    assert [row["socket_id"] for row in first["rows"][:2]] == [
        wires[52].socket_id,
        wires[51].socket_id,
    ]
    second = await admin.get("apps/shop/connections", search="page", page="1")
    assert len(second["rows"]) == 3
    assert len({row["socket_id"] for row in first["rows"] + second["rows"]}) == 53
    for search in ("USER-SEVEN", "page7.example", wires[7].socket_id):
        (found,) = (await admin.get("apps/shop/connections", search=search))["rows"]
        assert found["socket_id"] == wires[7].socket_id
    assert (found["user_id"], found["channels"]) == ("user-seven", 1)
    assert (found["origin"], found["address"]) == ("https://page7.example", "127.0.0.1")
    assert (await admin.get("apps/shop/connections", page="99"))["rows"] == []
    assert (await admin.get("apps/shop/connections", page="-1"))["rows"] != []
    await until(lambda: len(shop._hubs["k"].sockets) == 53)  # other tests' have gone
    assert (await admin.get("apps/shop/connections"))["total"] == 53


async def test_channels_are_searched_paged_and_the_largest_come_first(
    shop: Server, admin: Visitor, connect: Connect
) -> None:
    one, two = await connect(shop), await connect(shop)
    for number in range(55):
        await one.subscribe(f"room-{number:02}")
    await two.subscribe("room-33")
    await two.join("presence-room-1", 7, secret=SECRET)
    page = await admin.get("apps/shop/channels", search="ROOM-")
    assert (page["total"], len(page["rows"])) == (56, 50)
    assert page["rows"][0] == {
        "name": "room-33",
        "kind": "public",
        "cache": False,
        "subscribers": 2,
        "members": None,
    }
    rest = await admin.get("apps/shop/channels", search="room-", page="1")
    assert len(rest["rows"]) == 6
    (presence,) = (await admin.get("apps/shop/channels", search="presence-room-1"))["rows"]
    assert (presence["kind"], presence["members"]) == ("presence", 1)


@pytest.mark.parametrize("table", ["connections", "channels"])
async def test_a_page_that_cannot_be_is_refused(admin: Visitor, table: str) -> None:
    url = f"{admin.url}/apps/shop/{table}"
    for page, status in (("9" * 9, 200), ("1" + "0" * 9, 400), ("9" * 5_000, 400)):
        async with admin.http.get(url, params={"page": page}) as answer:
            assert answer.status == status
            if status == 400:
                assert "page" in (await answer.json())["error"]


async def test_many_thousands_are_looked_through_without_holding_up_the_loop(
    shop: Server, ali: Wire
) -> None:
    hub = Hub(SHOP)
    (session,) = [s for i, s in shop._hubs["k"].sockets.items() if i == ali.socket_id]
    hub.sockets = {str(number): session for number in range(20_000)}
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    page = await connection_page(hub, "shop.example", 399)
    for number in range(20_000):
        hub.join(session, f"c{number}", None)
    channels = await channel_page(hub, "C", 0)
    task.cancel()
    assert (page["total"], len(page["rows"])) == (20_000, 50)
    assert channels["total"] == 20_000
    assert turns >= 40
    hub.disconnect(session, "0")
    hub.close()


async def test_a_connection_and_its_channels(shop: Server, admin: Visitor, ali: Wire) -> None:
    await ali.join("presence-room", 7, {"name": HOSTILE}, secret=SECRET)
    await ali.subscribe("news")
    found = await admin.get(f"apps/shop/connections/{ali.socket_id}")
    assert found["in"] == [
        {"name": "news", "kind": "public", "user_id": ""},
        {"name": "presence-room", "kind": "presence", "user_id": "7"},
    ]
    channel = await admin.get("apps/shop/channel", name="presence-room")
    assert channel["users"] == [{"id": "7", "info": {"name": HOSTILE}, "here": 1}]
    assert channel["in"] == [{"socket_id": ali.socket_id, "user_id": "7"}]
    async with admin.http.get(f"{admin.url}/apps/shop/connections/1.1") as answer:
        assert answer.status == 404
    async with admin.http.get(f"{admin.url}/apps/shop/channel?name=nobody") as answer:
        assert answer.status == 404


async def test_what_a_cache_channel_keeps_is_shown(shop: Server, admin: Visitor, ali: Wire) -> None:
    await ali.subscribe("cache-rates")
    async with Publisher(shop.settings()) as publisher:
        await publisher.trigger("cache-rates", "rate", {"usd": 1.1})
    channel = await admin.get("apps/shop/channel", name="cache-rates")
    assert json.loads(channel["kept"]) == {"usd": 1.1}


async def test_alone_the_counts_of_all_nodes_are_this_ones(
    shop: Server, admin: Visitor, ali: Wire
) -> None:
    await until(lambda: len(shop._hubs["k"].sockets) == 1)
    await ali.subscribe("news")
    counts = await admin.get("apps/shop/cluster")
    assert counts == {"connections": 1, "channels": 1, "subscriptions": 1}


async def test_over_redis_the_counts_are_those_of_all_nodes() -> None:
    await needs_redis()
    options: dict[str, Any] = {"redis": REDIS, "redis_prefix": f"console-{secrets.token_hex(8)}"}
    async with (
        Server(SHOP, console_password=PASSWORD, **options) as one,
        Server(SHOP, **options) as two,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http,
        await Wire.connect(one.port) as here,
        await Wire.connect(two.port) as there,
    ):
        visitor = Visitor(one, http)
        await visitor.enter()
        for wire in (here, there):
            await wire.subscribe("news")
        (app,) = await visitor.get("apps")
        assert app["cluster"]
        assert (await visitor.get("apps/shop/connections"))["total"] == 1
        counts: dict[str, int] = {}
        everything = {"connections": 2, "channels": 1, "subscriptions": 2}
        async with asyncio.timeout(TIMEOUT):
            while counts != everything:  # nodes tell each other a moment later
                counts = await visitor.get("apps/shop/cluster")


# The command


async def test_the_command_takes_the_password_from_the_environment_alone() -> None:
    environment = {**os.environ, "ANTIPHON_CONSOLE_PASSWORD": PASSWORD}
    command = ["-m", "antiphon", "serve", "--app-id=1", "--app-key=k", "--app-secret=s"]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        "--port=0",
        "--drain=0",
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    said = b""
    try:
        async with asyncio.timeout(60):
            while (found := re.search(rb"http://127.0.0.1:(\d+)", said)) is None:
                line = await process.stderr.readline()
                assert line, said
                said += line
        async with aiohttp.ClientSession() as http:
            url = f"{found[0].decode()}/console"
            async with http.get(url) as answer:
                assert answer.status == 200
        process.terminate()
        said += (await process.communicate())[1]
        assert PASSWORD.encode() not in said
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


# What it does


async def test_a_terminated_connection_is_closed_and_stays_away(admin: Visitor, ali: Wire) -> None:
    path = f"apps/shop/connections/{ali.socket_id}/terminate"
    async with admin.stream() as stream:
        assert await admin.post(path) == (204, None)
        closed = await ali.closed()
        assert (closed.code, closed.reason) == (4009, "The connection was terminated")
        gone = await stream.row("disconnected", socket_id=ali.socket_id)
    assert json.loads(gone["data"])["code"] == 4009
    assert (await admin.post(path))[0] == 404


async def test_a_user_or_a_connection_is_taken_out_of_a_channel(
    shop: Server, admin: Visitor, ali: Wire, connect: Connect
) -> None:
    john = await connect(shop)
    await ali.join("presence-room", 7, secret=SECRET)
    await john.join("presence-room", 8, secret=SECRET)
    await ali.event("pusher_internal:member_added")
    who = {"channel": "presence-room", "user_id": "8"}
    assert (await admin.post("apps/shop/kick", who))[0] == 204
    assert (await john.event("pusher:subscription_error"))["data"]["status"] == 403
    await ali.event("pusher_internal:member_removed")
    who = {"channel": "presence-room", "socket_id": ali.socket_id}
    assert (await admin.post("apps/shop/kick", who))[0] == 204
    assert (await ali.event("pusher:subscription_error"))["data"]["status"] == 403
    assert (await admin.post("apps/shop/kick", {"channel": "presence-room"}))[0] == 400
    assert (await admin.post("apps/shop/kick", {}))[0] == 400


async def test_an_event_is_published_to_all_but_one(
    shop: Server, admin: Visitor, ali: Wire, connect: Connect
) -> None:
    john = await connect(shop)
    for wire in (ali, john):
        await wire.subscribe("news")
    event = {"channel": "news", "event": "Said", "data": '{"a": 1}', "socket_id": john.socket_id}
    assert await admin.post("apps/shop/publish", event) == (200, {"subscribers": 2})
    assert (await ali.event("Said"))["data"] == {"a": 1}
    await john.ping()  # and nothing before


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"data": "{"}, 400, "no JSON"),
        ({"data": "[" * 100_000}, 400, "no JSON"),
        ({"channel": "no good"}, 400, "no channel name"),
        ({"channel": ""}, 400, "no channel name"),
        ({"event": "pusher:x"}, 400, "belongs to the protocol"),
        ({"event": ""}, 400, "1 to 200"),
        ({"channel": "private-encrypted-x"}, 400, "Only your backend has the key"),
        ({"data": '"' + "x" * 10_240 + '"'}, 413, "10240 are allowed"),
        ({"data": 1}, 400, "cannot be used"),
    ],
)
async def test_what_cannot_be_published_is_refused_with_the_reason(
    admin: Visitor, change: dict[str, Any], status: int, words: str
) -> None:
    event = {"channel": "news", "event": "Said", "data": "{}", **change}
    got, answer = await admin.post("apps/shop/publish", event)
    assert got == status
    assert words in answer["error"]
