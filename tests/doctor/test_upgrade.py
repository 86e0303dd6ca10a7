"""The upgrade, and whoever answers in its place."""

from __future__ import annotations

import pytest

from antiphon.doctor import Step
from antiphon.doctor.steps import Finding
from antiphon.doctor.upgrade import check_upgrade
from antiphon.server import Server
from antiphon.settings import App, Settings
from tests.cli.strangers import answering, http_server, saying, tcp_server
from tests.client.peer import Dial, Peer, polite, server_tls

from .examined import a_case, examined, outcomes


def at(port: int, **fields: str) -> Settings:
    return Settings(**{"app_key": "k", "scheme": "http", "port": port, **fields})  # type: ignore[arg-type]


async def upgrade(settings: Settings, **options: object) -> Finding:
    case = a_case(settings, **options)
    try:
        return await check_upgrade(case)
    finally:
        if case.session is not None:
            case.session.close()


async def answered(status: int, body: str = "", **headers: str) -> Finding:
    async with http_server(answering(status, body, **headers)) as port:
        found = await upgrade(at(port))
    assert found.outcome == "failed"
    assert f"127.0.0.1:{port} answered {status}" in found.detail
    return found


async def test_a_server_that_agrees_is_told_with_its_address() -> None:
    async with Peer(polite) as peer:
        found = await upgrade(peer.settings())
    assert (found.outcome, found.detail) == ("ok", f"101 from ws://127.0.0.1:{peer.port}/app/k")


async def test_the_origin_asked_for_is_sent() -> None:
    async with Peer(polite) as peer:
        await upgrade(peer.settings(), origin="https://shop.example.com")
        assert peer.dials[0].headers["origin"] == "https://shop.example.com"


# Statuses

STATUSES = {
    200: "does not pass /app on to Reverb",
    400: "dropped the Upgrade header",
    401: "password",
    403: "forbids it",
    405: "dropped the Upgrade header",
    418: "does not speak WebSocket",
    426: "dropped the Upgrade header",
    429: "limits how often",
    500: "Upgrade header is missing",
    502: "no server behind it",
    503: "maintenance mode",
    504: "does not answer",
    520: "Cloudflare does not reach",
    521: "Cloudflare does not reach",
    522: "Cloudflare does not reach",
    523: "Cloudflare does not reach",
    525: "do not agree on TLS",
    526: "do not agree on TLS",
}


@pytest.mark.parametrize("status", STATUSES)
async def test_a_status_in_place_of_101_has_its_cause(status: int) -> None:
    assert STATUSES[status] in (await answered(status)).advice.cause


@pytest.mark.parametrize("status", [200, 400, 426, 500])
async def test_a_proxy_that_drops_the_upgrade_is_mended_with_three_lines(status: int) -> None:
    fix = (await answered(status)).advice.fix
    assert "proxy_http_version 1.1" in fix
    assert "proxy_set_header Upgrade $http_upgrade" in fix
    assert 'proxy_set_header Connection "Upgrade"' in fix


async def test_who_answers_and_what_is_told_as_well() -> None:
    page = "<html><head><title>Welcome to\n  nginx!</title></head><body>Much more</body></html>"
    found = await answered(200, page, Server="nginx/1.24.0")
    assert 'answered 200 OK (nginx/1.24.0): "Welcome to nginx!"' in found.detail


async def test_a_redirect_to_https_is_a_wrong_scheme() -> None:
    found = await answered(301, Location="https://chat.example.com/app/k?secret=1")
    assert "sends plain HTTP on to https://chat.example.com/app/k." in found.advice.cause
    assert "REVERB_SCHEME=https" in found.advice.fix


@pytest.mark.parametrize("location", ["/login?next=secret", "http://[", ""])
async def test_another_redirect_is_told_with_where_it_leads(location: str) -> None:
    found = await answered(302, Location=location)
    assert f"redirects to {location.partition('?')[0] or 'nowhere'}" in found.advice.cause
    assert "login page" in found.advice.fix
    assert "secret" not in str(found)


@pytest.mark.parametrize(
    ("mounted", "asked", "fix"),
    [
        ("/ws", "", "Set the path to /ws:"),
        ("/app", "", "Set the path to /app:"),
        ("", "/app", "Leave the path out:"),
        ("/ws", "/ws/app", "Set the path to /ws:"),
        ("/reverb", "/wrong", "Set the path to /reverb:"),
    ],
)
async def test_a_wrong_path_is_told_with_the_right_one(mounted: str, asked: str, fix: str) -> None:
    async with Server(App(id="1", key="k", secret="s"), path=mounted) as server:
        found = await upgrade(at(server.port, path=asked))
    assert found.outcome == "failed"
    assert "answered 404" in found.detail
    assert f"answers at {mounted}/app/…, not at {asked}/app/…" in found.advice.cause
    assert found.advice.fix.startswith(fix)


async def test_a_path_that_nobody_finds_is_the_proxys_matter() -> None:
    found = await answered(404, "Not found.")
    assert '"Not found."' in found.detail
    assert "no Pusher server is at this path" in found.advice.cause
    assert "location /app {" in found.advice.fix


# No HTTP


async def test_tls_where_plain_text_is_expected_is_told_so() -> None:
    async with Peer(polite, tls=server_tls()) as peer:
        found = await upgrade(at(peer.port))
    assert found.outcome == "failed"
    assert "speaks TLS, not plain HTTP" in found.detail
    assert "REVERB_SCHEME=https" in found.advice.fix


@pytest.mark.parametrize(
    "body",
    [
        "<title>400 The plain HTTP request was sent to HTTPS port</title>",
        "Client sent an HTTP request to an HTTPS server.",
    ],
)
async def test_a_web_server_that_wanted_tls_says_so_itself(body: str) -> None:
    async with http_server(answering(400, body)) as port:
        found = await upgrade(at(port))
    assert "speaks TLS, not plain HTTP" in found.detail


async def test_an_alert_in_plain_text_is_tls_too() -> None:
    async with tcp_server(bytes([0x15, 3, 1, 0, 2, 2, 70])) as port:
        found = await upgrade(at(port))
    assert "speaks TLS, not plain HTTP" in found.detail


async def test_another_protocol_is_told_with_its_first_words() -> None:
    async with tcp_server(b"SSH-2.0-OpenSSH_9.6\r\n") as port:
        found = await upgrade(at(port))
    assert found.outcome == "failed"
    assert 'is no web server, it says "SSH-2.0-OpenSSH_9.6"' in found.detail
    assert "REVERB_PORT" in found.advice.fix


async def test_one_who_hangs_up_is_told_so() -> None:
    async with tcp_server(b"") as port:
        found = await upgrade(at(port))
    assert found.outcome == "failed"
    assert found.detail == f"127.0.0.1:{port} hung up instead of answering"
    assert "--host=0.0.0.0" in found.advice.fix


async def test_one_who_is_gone_when_asked_again_is_told_so() -> None:
    async def once(dial: Dial) -> None:
        assert peer._server is not None
        peer._server.close()
        await dial.request()

    async with Peer(once) as peer:
        found = await upgrade(peer.settings())
    assert found.outcome == "failed"
    assert "hung up" in found.detail


async def test_one_who_is_silent_is_told_so() -> None:
    async with Peer() as peer:
        found = await upgrade(peer.settings(), timeout=0.2)
    assert found.outcome == "failed"
    assert "did not answer in 0.2 s" in found.detail
    assert "hangs" in found.advice.cause


async def test_an_upgrade_that_is_done_wrongly_is_told_so() -> None:
    async def wrong(dial: Dial) -> None:
        await dial.request()
        dial.send_bytes(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: wrong\r\n\r\n"
        )
        await dial.end()

    async with Peer(wrong) as peer:
        found = await upgrade(peer.settings())
    assert found.outcome == "failed"
    assert "no WebSocket server" in found.detail
    assert "Something else" in found.advice.cause


# The whole


async def test_what_needs_the_upgrade_is_not_tried_without_it() -> None:
    async with http_server(answering(502)) as port:
        steps: dict[str, Step] = await examined(at(port))
    assert outcomes(steps) == {"dns": "ok", "tcp": "ok", "upgrade": "failed"}
    assert steps["key"].detail == "not tried, because upgrade failed"
    assert steps["subscription"].detail == "not tried, because upgrade failed"


async def test_another_websocket_server_passes_the_upgrade_and_no_further() -> None:
    async with http_server(saying('0{"sid":"socket.io"}')) as port:
        steps = await examined(at(port))
    assert outcomes(steps) == {"dns": "ok", "tcp": "ok", "upgrade": "ok", "key": "failed"}
