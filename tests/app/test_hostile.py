"""Other pages in the same browser, and browsers that say anything."""

from __future__ import annotations

import asyncio
import html
import json
import logging
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from nicegui import Client
from playwright.async_api import Route, expect

from antiphon.app import pages
from antiphon.app import seats as seats_module
from antiphon.app.door import Door
from antiphon.app.seats import Seats
from antiphon.chat import RestClient
from antiphon.cli.main import _OneLine
from antiphon.errors import SettingsError
from tests.chat.house import PASSWORD

from .conftest import Place, public
from .people import box

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOCKET = "/_nicegui_ws/socket.io/"
ID = "x" * 43


class Tab:
    """A tab without a browser: it speaks to the app as a browser's page would, or worse."""

    def __init__(self, http: aiohttp.ClientSession, url: str, page: str) -> None:
        self._http = http
        self._url = url
        found = re.search(r'"client_id": ?"([0-9a-f-]{36})"', page.replace("'", '"'))
        assert found is not None
        self.client_id = found[1]
        source = re.search(r"String\.raw`(.*?)`", page, re.S)
        assert source is not None
        self.elements: dict[str, Any] = json.loads(html.unescape(source[1]))
        self.heard: list[str] = []

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """With the page's socket."""
        query = {
            "EIO": "4",
            "transport": "websocket",
            "client_id": self.client_id,
            "next_message_id": "0",
            "implicit_handshake": "true",
            "tab_id": str(uuid4()),
            "document_id": str(uuid4()),
        }
        async with self._http.ws_connect(self._url + SOCKET, params=query) as self._socket:
            await self._socket.send_str("40")
            listening = asyncio.create_task(self._listen())
            try:
                yield
            finally:
                await self._socket.close()
                await listening

    async def emit(self, name: str, what: object) -> None:
        """Send any event of the protocol."""
        await self._socket.send_str("42" + json.dumps([name, what]))

    async def until_closed(self) -> int | None:
        """Wait until the app has had enough; the code it closed with."""
        async with asyncio.timeout(10):
            while not self._socket.closed:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return self._socket.close_code

    async def _listen(self) -> None:
        async for message in self._socket:
            self.heard.append(str(message.data))


@asynccontextmanager
async def visitor() -> AsyncIterator[aiohttp.ClientSession]:
    """Somebody with a cookie jar."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        yield http


async def answer(url: str, **headers: str) -> tuple[int, str]:
    """Status and text of a request with these headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with visitor() as http, http.get(url, headers=named, allow_redirects=False) as got:
        return got.status, await got.text()


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:9", "null"])
async def test_another_sites_page_gets_no_socket(place: Place, origin: str) -> None:
    polling = f"{place.url}{SOCKET}?EIO=4&transport=polling"
    assert (await answer(polling, Origin=origin))[0] == 403
    assert (await answer(polling, Origin=place.url))[0] == 200
    async with visitor() as http:
        url = f"{place.url}{SOCKET}?EIO=4&transport=websocket"
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await http.ws_connect(url, headers={"Origin": origin})
        assert caught.value.status == 403
        async with http.ws_connect(url, headers={"Origin": place.url}) as socket:
            assert (await socket.receive_str()).startswith("0")


async def test_a_real_browser_on_another_sites_page_gets_nothing(place: Place) -> None:
    async def serve(route: Route) -> None:
        await route.fulfill(body="<!doctype html><title>evil</title>", content_type="text/html")

    async with place.looking(expected_errors=".") as page:
        port = place.url.rpartition(":")[2]
        evil = "http://127.0.0.1:9/"  # same site for cookies, another origin
        await page.context.route(evil, serve)
        await page.goto(evil)
        got = await page.evaluate(
            """async (app) => {
              const socket = new Promise((done) => {
                const ws = new WebSocket(
                  app.replace("http", "ws") + "/_nicegui_ws/socket.io/?EIO=4&transport=websocket");
                ws.onopen = () => done("open");
                ws.onclose = () => done("closed");
              });
              const read = await fetch(app + "/?as=ali", { credentials: "include" })
                .then((r) => r.text()).catch(() => "unread");
              return [await socket, read];
            }""",
            f"http://127.0.0.1:{port}",
        )
        assert got == ["closed", "unread"]


async def test_a_name_that_was_made_to_point_here_is_not_answered(place: Place) -> None:
    status, text = await answer(f"{place.url}/?as=ali", Host="evil.example")
    assert status == 403
    assert "--public-url" in text
    for host in ("localhost", "localhost:9000", "[::1]:80", "chat.localhost"):
        assert (await answer(f"{place.url}/login", Host=host))[0] == 200


async def test_only_a_link_leads_here_from_another_site(place: Place) -> None:
    before = len(Client.instances)
    for site in ("cross-site", "same-site"):
        for kind in ("image", "iframe", "empty", "script"):
            asked = {"Sec_Fetch_Site": site, "Sec_Fetch_Dest": kind}
            assert (await answer(f"{place.url}/?as=ali", **asked))[0] == 403
    assert len(Client.instances) <= before  # those of earlier tests may go meanwhile
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Dest": "document"}
    assert (await answer(f"{place.url}/login", **link))[0] == 200


async def test_a_path_that_steers_is_no_page(place: Place) -> None:
    assert (await answer(f"{place.url}/login%0A"))[0] == 404


async def passes(door: Door, scheme: str = "http", **headers: str) -> tuple[bool, str]:
    """Whether a request gets through a door, and the cookie it gets there."""
    cookies: list[str] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            cookies.extend(v.decode() for k, v in message["headers"] if k == b"set-cookie")
            statuses.append(message["status"])

    statuses: list[int] = []
    scope = {
        "type": "http",
        "scheme": scheme,
        "path": "/",
        "method": "GET",
        "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
    }
    await door(scope, None, send)
    return statuses == [200], "".join(cookies)


async def page_of_ours(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def test_behind_a_web_server_the_public_name_is_answered_and_its_origin_believed() -> None:
    door = Door(
        page_of_ours, address="127.0.0.1", port=8000, public_url="https://Chat.example.com/"
    )
    public = "https://chat.example.com"
    assert (await passes(door, Host="chat.example.com", Origin=public))[0]
    # A web server that does not pass the name on.
    assert (await passes(door, Host="127.0.0.1:8000", Origin=public))[0]
    assert not (await passes(door, Host="127.0.0.1:8000", Origin="https://evil.example.com"))[0]
    assert not (await passes(door, Host="evil.example.com", Origin="https://evil.example.com"))[0]


async def test_an_app_for_the_whole_network_answers_to_any_name() -> None:
    door = Door(page_of_ours, address="192.168.1.5", port=8000, public_url="")
    assert (await passes(door, Host="box.lan:8000", Origin="http://box.lan:8000"))[0]
    assert not (await passes(door, Host="box.lan:8000", Origin="http://evil.example"))[0]


async def test_with_tls_no_neighbour_can_set_the_cookie() -> None:
    door = Door(page_of_ours, address="0.0.0.0", port=8000, public_url="")
    _, cookie = await passes(door, scheme="https", Host="chat.example.com")
    assert cookie.startswith("__Host-antiphon-8000=")
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")
    # One that a neighbour has planted under the plain name is none.
    _, again = await passes(
        door, scheme="https", Host="chat.example.com", Cookie=f"antiphon-8000={ID}"
    )
    assert again


async def test_a_strange_cookie_of_another_app_hides_ours_not() -> None:
    door = Door(page_of_ours, address="127.0.0.1", port=8000, public_url="")
    cookies = f'other={{"a": 1, "b"}}; =; antiphon-8000={ID}'
    assert (await passes(door, Host="127.0.0.1:8000", Cookie=cookies)) == (True, "")


@pytest.mark.parametrize("url", ["chat.example.com", "ftp://chat", "https://", "http://[::1"])
async def test_a_public_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="no public address"):
        Door(page_of_ours, address="127.0.0.1", port=1, public_url=url)


async def test_who_only_fetches_pages_keeps_nobody_out(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MAX_ARRIVING", 3)
    monkeypatch.setattr(seats_module, "MAX_SEATS", 5)
    before = len(Client.instances)
    for _ in range(12):
        assert (await answer(f"{place.url}/login"))[0] == 200
    assert len(Client.instances) <= before + 4
    async with place.looking(place.house.eve):
        pass


async def test_a_tab_that_has_left_twice_ends_no_seat(place: Place) -> None:
    async with RestClient(place.house.api_url) as rest:
        login = await rest.login(place.house.eve.email, PASSWORD)
    seats = Seats(public(place.server, place.house), guests={"eve": login}, expires_after=0.05)
    try:
        first = await seats.view("a", "eve")
        other = await seats.view("a", "eve")
        first.leave()
        other.leave()
        first.leave()  # a page that was answered with a redirection is let go of later
        back = await seats.view("a", "eve")
        loop = asyncio.get_running_loop()
        passed = loop.create_future()
        loop.call_later(0.15, passed.set_result, None)
        await passed
        assert len(seats) == 1
        assert back.seat.chat is not None
    finally:
        await seats.close()


ANYTHING: list[Any] = [
    None, True, 7, -1, 1e308, "", "x" * 10_000, "\x00\x1b[31m", [], {}, ["ali", "x", "y"],
    [["a"] * 50], "/c/" + "9" * 10_000, "/c/%00", {"__proto__": 1}, [[[[[[]]]]]], "../../x",
]  # fmt: skip


async def test_whatever_a_browser_says_the_page_goes_on(place: Place) -> None:
    async with visitor() as http:
        async with http.get(f"{place.url}/?as=john") as got:
            tab = Tab(http, place.url, await got.text())
        async with tab.connected():
            for id_, element in tab.elements.items():
                for event in element.get("events", []):
                    for value in ANYTHING:
                        message = {
                            "id": int(id_),
                            "client_id": tab.client_id,
                            "listener_id": event["listener_id"],
                            "args": [json.dumps(value)],
                        }
                        await tab.emit("event", message)
        async with place.looking(path=f"/c/{place.house.conversation}?as=john") as page:
            await expect(box(page)).to_be_enabled()


async def test_a_frame_beyond_all_measure_ends_the_socket_and_nothing_else(place: Place) -> None:
    async with visitor() as http:
        async with http.get(f"{place.url}/login") as got:
            tab = Tab(http, place.url, await got.text())
        async with tab.connected():
            await tab.emit("log", "x" * 300_000)
            assert await tab.until_closed() == 1009
    assert (await answer(f"{place.url}/login"))[0] == 200


async def test_what_a_browser_has_logged_steers_no_terminal() -> None:
    record = logging.LogRecord("nicegui", logging.ERROR, "", 0, "\x1b[31mred\nline", None, None)
    try:
        raise ValueError("\x1b[2Jgone")
    except ValueError:
        record.exc_info = sys.exc_info()
    shown = _OneLine().format(record)
    assert "\x1b" not in shown
    assert shown.splitlines()[0] == "·[31mred line"
    assert "Traceback" in shown
