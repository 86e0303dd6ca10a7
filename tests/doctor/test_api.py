"""The HTTP API, clocks, and an event's way."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from antiphon.doctor.api import check_api, check_event
from antiphon.doctor.session import check_key
from antiphon.doctor.steps import Finding
from antiphon.doctor.upgrade import check_upgrade
from antiphon.protocol.signing import channel_auth
from antiphon.server import Server
from antiphon.settings import App, Settings
from tests.cli.strangers import ESTABLISHED, answering, http_server, tcp_server
from tests.client.peer import event_text

from .examined import a_case, examined

SECRET = "secret-never-to-be-printed"
NO_CHANNELS = '{"channels":{}}'


def at(port: int, **fields: Any) -> Settings:
    base = {"app_id": "1", "app_key": "k", "app_secret": SECRET, "scheme": "http", "port": port}
    return Settings(**{**base, **fields})


async def api(status: int, body: str = "", *, suspicion: str = "", **headers: str) -> Finding:
    async with http_server(answering(status, body, **headers)) as port:
        case = a_case(at(port))
        case.suspicion = suspicion
        return await check_api(case)


def date(ahead: float) -> str:
    """The date that a server sends, if this machine's clock is ahead of it."""
    return formatdate(time.time() - ahead, usegmt=True)


# The HTTP API


async def test_the_right_secret_is_accepted() -> None:
    async with Server(App(id="1", key="k", secret=SECRET)) as server:
        found = await check_api(a_case(server.settings()))
    assert (found.outcome, found.detail) == (
        "ok",
        "the signature is accepted; 0 occupied channels",
    )


@pytest.mark.parametrize("missing", ["app_id", "app_secret"])
async def test_without_id_or_secret_it_is_not_asked(missing: str) -> None:
    found = await check_api(a_case(at(1, **{missing: ""})))
    assert found.outcome == "skipped"
    assert "REVERB_APP_SECRET" in found.detail


async def test_reverb_says_no_channels_with_a_list() -> None:
    assert (await api(200, '{"channels":[]}')).outcome == "ok"


async def test_a_wrong_secret_is_told_with_clocks_that_agree() -> None:
    async with Server(App(id="1", key="k", secret="another")) as server:
        found = await check_api(a_case(at(server.port)))
    assert found.outcome == "failed"
    assert "answered 401" in found.detail
    assert "REVERB_APP_SECRET here is not the server's" in found.advice.cause
    assert "the clocks agree" in found.advice.cause
    assert "reverb:restart" in found.advice.fix


async def test_who_agrees_and_who_differs_is_told_if_it_is_known() -> None:
    async with http_server(answering(401)) as port:
        case = a_case(at(port), channel="private-a")
        case.suspicion = "secret"
        assert "REVERB_APP_SECRET here" in (await check_api(case)).advice.cause

    async with Server(App(id="1", key="k", secret="theirs")) as server:
        settings = server.settings()
        mine = at(server.port, auth_endpoint="")

        async def sign(request: web.Request) -> web.Response:
            form = await request.post()
            socket_id, name = str(form["socket_id"]), str(form["channel_name"])
            return web.json_response({"auth": channel_auth("k", "theirs", socket_id, name)})

        async with http_server(sign) as port:
            url = f"http://127.0.0.1:{port}/broadcasting/auth"
            steps = await examined(
                at(settings.port, app_secret=mine.app_secret, auth_endpoint=url),
                channel="private-a",
            )
    assert steps["signature"].outcome == "failed"
    assert steps["subscription"].outcome == "ok"
    assert "The endpoint and this server agree" in steps["api"].cause


@pytest.mark.parametrize(
    ("ahead", "says"),
    [(3700, r"clock is 3,(699|70\d) s ahead of"), (-3700, r"clock is 3,(69\d|70\d) s behind")],
)
async def test_clocks_that_differ_are_the_cause_of_a_refusal(ahead: float, says: str) -> None:
    found = await api(401, "Unauthorized", Date=date(ahead))
    assert found.outcome == "failed"
    assert re.search(says, found.advice.cause)
    assert "timedatectl" in found.advice.fix


async def test_clocks_that_differ_a_little_are_not() -> None:
    assert "too old" not in (await api(401, "No", Date=date(300))).advice.cause


async def test_clocks_that_differ_are_warned_of_where_nobody_minds() -> None:
    found = await api(200, NO_CHANNELS, Date=date(3700))
    assert found.outcome == "warning"
    assert "ahead of the server's" in found.detail
    assert (await api(200, NO_CHANNELS, Date=date(30))).outcome == "ok"


@pytest.mark.parametrize("nonsense", ["yesterday", "Mon, 99 Foo"])
async def test_a_date_that_is_none_says_nothing(nonsense: str) -> None:
    assert (await api(200, NO_CHANNELS, Date=nonsense)).outcome == "ok"
    assert "clocks agree" not in (await api(401, Date=nonsense)).advice.cause


async def test_an_unknown_id_is_told_so() -> None:
    async with Server(App(id="1", key="k", secret=SECRET)) as server:
        found = await check_api(a_case(at(server.port, app_id="2")))
    assert found.outcome == "failed"
    assert "no application with the id '2'" in found.advice.cause
    assert "REVERB_APP_ID" in found.advice.fix


async def test_an_unknown_id_is_told_so_by_reverb_too() -> None:
    found = await api(404, "No matching application for ID [1].")
    assert "no application with the id '1'" in found.advice.cause


async def test_a_path_that_the_proxy_does_not_pass_on_is_told_so() -> None:
    found = await api(404, "<title>404 Not Found</title>")
    assert "not /apps" in found.advice.cause
    assert "^/apps?/" in found.advice.fix


ODD = {
    200: "no answer of a Pusher server's HTTP API",
    301: "redirects",
    308: "redirects",
    403: "disabled, or a proxy forbids",
    405: "no answer of a Pusher server's HTTP API",
    429: "limits requests",
    500: "failed",
    502: "failed",
}


@pytest.mark.parametrize("status", ODD)
async def test_another_status_has_its_cause(status: int) -> None:
    found = await api(status, "<title>Shop</title>")
    assert found.outcome == "failed"
    assert f'/apps/1/channels answered {status}: "Shop"' in found.detail
    assert ODD[status] in found.advice.cause


async def test_soketis_200_that_means_401_is_read_as_such() -> None:
    found = await api(200, '{"error":"The secret authentication failed","code":401}')
    assert 'answered 401: "The secret authentication failed"' in found.detail
    assert "REVERB_APP_SECRET" in found.advice.cause


async def test_a_server_that_repeats_secrets_is_not_repeated() -> None:
    found = await api(401, f"{'a1' * 32} is wrong for {SECRET}")
    assert "… is wrong for …" in found.detail
    assert SECRET not in str(found)


async def test_no_answer_is_told_so() -> None:
    async with tcp_server(b"") as port:
        found = await check_api(a_case(at(port)))
    assert found.outcome == "failed"
    assert "gave no answer" in found.detail
    assert "proxy" in found.advice.fix


# The round trip


async def test_an_event_is_timed() -> None:
    async with Server(App(id="1", key="k", secret=SECRET)) as server:
        steps = await examined(server.settings())
        assert server.settings().app_secret == SECRET
    assert steps["event"].outcome == "ok"
    assert steps["event"].detail.startswith("published, and received in ")


async def test_the_event_has_a_channel_of_its_own() -> None:
    async with Server(App(id="1", key="k", secret=SECRET)) as server:
        steps = await examined(server.settings(), channel="private-a")
    assert steps["subscription"].detail == "joined private-a (signed here)"
    assert steps["event"].outcome == "ok"


Publish = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def event(
    publish: Publish, *, joins: bool = True, close: int | None = None, **options: Any
) -> Finding:
    """The finding with a server that greets, lets join, and publishes as it is told."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            if close is not None:
                await sockets[0].close(code=close)
            return await publish(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        sockets.append(socket)
        await socket.send_str(ESTABLISHED)
        async for message in socket:
            if message.type is WSMsgType.TEXT and joins:
                channel = json.loads(message.data)["data"]["channel"]
                joined = event_text("pusher_internal:subscription_succeeded", {}, channel)
                await socket.send_str(joined)
            elif close is not None:
                await socket.close(code=close)
        return socket

    sockets: list[web.WebSocketResponse] = []
    async with http_server(handle) as port:
        case = a_case(at(port), **options)
        try:
            assert (await check_upgrade(case)).outcome == "ok"
            assert (await check_key(case)).outcome == "ok"
            return await check_event(case)
        finally:
            assert case.session is not None
            case.session.close()


async def test_an_event_that_is_lost_between_servers_is_told_so() -> None:
    found = await event(answering(200, "{}"), timeout=1)
    assert found.outcome == "failed"
    assert "not received in 1 s" in found.detail
    assert "REVERB_SCALING_ENABLED=true" in found.advice.fix


async def test_a_publication_that_is_refused_is_told_so() -> None:
    found = await event(answering(500, "Oops"))
    assert found.outcome == "failed"
    assert "answered 500" in found.detail
    assert "no publications" in found.advice.cause


async def test_a_publication_too_many_is_a_limit() -> None:
    assert "limits requests" in (await event(answering(429))).advice.cause


async def test_a_connection_that_ends_meanwhile_is_told_so() -> None:
    found = await event(answering(200, "{}"), close=1012)
    assert found.outcome == "failed"
    assert "being restarted" in found.advice.cause


async def test_a_channel_that_cannot_be_joined_is_no_lost_event() -> None:
    found = await event(answering(200, "{}"), joins=False, timeout=1)
    assert found.outcome == "failed"
    assert "published" not in found.detail


async def test_without_a_secret_nothing_is_published() -> None:
    found = await check_event(a_case(Settings(app_key="k")))
    assert found.outcome == "skipped"
