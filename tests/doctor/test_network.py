"""DNS, TCP and TLS, in all the ways in which they fail."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from antiphon.doctor.network import check_dns, check_tcp, check_tls
from antiphon.doctor.steps import Finding
from antiphon.settings import Settings
from tests.cli.strangers import answering, http_server, tcp_server
from tests.client.peer import Dial, Peer, polite, server_tls, trusting_tls

from .certificates import make_certificate, serving, trusting
from .examined import a_case, examined, outcomes

GetAddrInfo = Callable[..., Any]


def settings(**fields: Any) -> Settings:
    return Settings(**{"app_key": "k", "scheme": "http", **fields})


def resolving(monkeypatch: pytest.MonkeyPatch, answer: list[str] | BaseException) -> None:
    """Let names stand for these addresses from now on, or for nothing."""

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        if isinstance(answer, BaseException):
            raise answer
        family = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(family[":" in a], socket.SOCK_STREAM, 6, "", (a, port)) for a in answer]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


async def dns(host: str) -> Finding:
    return await check_dns(a_case(settings(host=host, port=80)))


# DNS


async def test_an_address_needs_no_name_server() -> None:
    found = await dns("127.0.0.1")
    assert (found.outcome, found.detail) == (
        "ok",
        "127.0.0.1 is an address, there is nothing to look up",
    )


async def test_a_name_is_told_with_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["::1", "192.0.2.7", "192.0.2.7"])
    found = await dns("chat.example.com")
    assert (found.outcome, found.detail) == ("ok", "chat.example.com is ::1, 192.0.2.7")


async def test_an_unknown_name_fails() -> None:
    found = await dns("nowhere.invalid")
    assert found.outcome == "failed"
    assert found.detail == "nowhere.invalid cannot be found"
    assert "REVERB_HOST" in found.advice.fix


@pytest.mark.parametrize(
    ("host", "says"),
    [("shop.test", "Herd or Valet"), ("reverb", "container"), ("a..b", "No name server")],
)
async def test_an_unknown_name_of_a_known_kind_says_who_knows_it(
    monkeypatch: pytest.MonkeyPatch, host: str, says: str
) -> None:
    failure = UnicodeError() if ".." in host else socket.gaierror(socket.EAI_NONAME, "x")
    resolving(monkeypatch, failure)
    found = await dns(host)
    assert found.outcome == "failed"
    assert says in found.advice.cause


async def test_no_name_server_is_another_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, socket.gaierror(socket.EAI_AGAIN, "x"))
    found = await dns("chat.example.com")
    assert found.outcome == "failed"
    assert "No name server answers" in found.advice.cause


async def test_a_name_server_that_is_silent_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def getaddrinfo(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    found = await check_dns(a_case(settings(host="chat.example.com"), timeout=0.01))
    assert found.outcome == "failed"
    assert "No name server answers" in found.advice.cause


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_an_address_to_listen_on_is_warned_of(host: str) -> None:
    found = await dns(host)
    assert found.outcome == "warning"
    assert "REVERB_SERVER_HOST" in found.advice.cause


# TCP


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that answers no SYN: its queue is full, and nobody accepts."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def tcp(
    port: int, *addresses: str, host: str = "127.0.0.1", timeout: float = 5
) -> tuple[Finding, str]:
    case = a_case(settings(host=host, port=port), timeout=timeout)
    case.addresses, case.address = list(addresses or [host]), ""
    return await check_tcp(case), case.address


async def test_a_port_that_listens_is_well() -> None:
    async with Peer(polite) as peer:
        found, address = await tcp(peer.port)
        assert found.outcome == "ok"
        assert f"127.0.0.1:{peer.port} connects in" in found.detail
        assert address == "127.0.0.1"


async def test_a_port_where_nothing_listens_is_told_with_what_starts_a_server(
    closed_port: int,
) -> None:
    found, _ = await tcp(closed_port)
    assert found.outcome == "failed"
    assert f"127.0.0.1:{closed_port} refused" in found.detail
    assert f"Nothing listens on port {closed_port}" in found.advice.cause
    assert "In a container" in found.advice.cause
    assert "reverb:start" in found.advice.fix
    assert "REVERB_SERVER_PORT" in found.advice.fix


async def test_another_machines_port_has_nothing_to_do_with_containers(closed_port: int) -> None:
    found, _ = await tcp(closed_port, "127.0.0.1", host="chat.example.com")
    assert found.outcome == "failed"
    assert "container" not in found.advice.cause


async def test_silence_is_a_firewall(black_hole: int) -> None:
    found, _ = await tcp(black_hole, timeout=0.2)
    assert found.outcome == "failed"
    assert "did not answer" in found.detail
    assert "firewall" in found.advice.cause


async def test_an_address_without_a_way_to_it_is_no_firewall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def unreachable(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(asyncio, "open_connection", unreachable)
    found, _ = await tcp(80)
    assert found.outcome == "failed"
    assert "has no route" in found.detail
    assert "no way" in found.advice.cause


@pytest.mark.parametrize(
    ("reason", "says"),
    [(OSError(errno.EPERM, "x"), "failed (EPERM)"), (OSError("x"), "failed (OSError)")],
)
async def test_other_failures_are_told_by_their_names(
    monkeypatch: pytest.MonkeyPatch, reason: OSError, says: str
) -> None:
    async def fails(*_: Any, **__: Any) -> None:
        raise reason

    monkeypatch.setattr(asyncio, "open_connection", fails)
    found, _ = await tcp(80)
    assert (found.outcome, found.detail) == ("failed", f"127.0.0.1:80 {says}")


async def test_one_refused_address_of_two_costs_nothing() -> None:
    async with Peer(polite) as peer:
        found, address = await tcp(peer.port, "127.0.0.2", "127.0.0.1", host="localhost")
        assert found.outcome == "ok"
        assert f"localhost:{peer.port}: 127.0.0.2 refused, 127.0.0.1 connects in" in found.detail
        assert address == "127.0.0.1"


async def test_one_silent_address_of_two_is_warned_of(black_hole: int) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.2", black_hole):
        found, address = await tcp(black_hole, "127.0.0.1", "127.0.0.2", timeout=0.3)
    assert found.outcome == "warning"
    assert "AAAA" in found.advice.fix
    assert address == "127.0.0.2"


# TLS


async def tls(
    peer: Peer, trust: ssl.SSLContext | None = None, *, timeout: float = 5, **fields: Any
) -> Finding:
    case = a_case(peer.settings(scheme="https", **fields), ssl_context=trust, timeout=timeout)
    case.address = "127.0.0.1"
    return await check_tls(case)


async def test_without_tls_there_is_nothing_to_examine() -> None:
    found = await check_tls(a_case(settings()))
    assert (found.outcome, found.detail) == ("skipped", "the scheme is http")


async def test_a_good_certificate_is_told_with_its_names_and_its_end() -> None:
    async with Peer(polite, tls=server_tls()) as peer:
        found = await tls(peer, trusting_tls())
        assert found.outcome == "ok"
        assert found.detail == (
            "TLSv1.3; certificate for localhost, 127.0.0.1 from antiphon tests, until 2120-01-01"
        )


async def test_a_certificate_that_is_not_checked_is_told_so() -> None:
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    async with Peer(polite, tls=server_tls()) as peer:
        found = await tls(peer, trust)
        assert (found.outcome, found.detail) == ("ok", "TLSv1.3; the certificate is not checked")


async def test_a_certificate_that_expires_soon_is_warned_of(tmp_path: Path) -> None:
    file = make_certificate(tmp_path / "soon.pem", to_days=13.5)
    async with Peer(polite, tls=serving(file)) as peer:
        found = await tls(peer, trusting(file))
    assert found.outcome == "warning"
    assert found.detail.endswith(": 13 days")
    assert "certbot" in found.advice.fix


async def test_a_certificate_that_has_two_weeks_left_is_not(tmp_path: Path) -> None:
    file = make_certificate(tmp_path / "later.pem", to_days=14.5)
    async with Peer(polite, tls=serving(file)) as peer:
        assert (await tls(peer, trusting(file))).outcome == "ok"


async def test_an_expired_certificate_is_told_with_its_end(tmp_path: Path) -> None:
    file = make_certificate(tmp_path / "old.pem", from_days=-9, to_days=-3)
    async with Peer(polite, tls=serving(file)) as peer:
        found = await tls(peer, trusting(file))
    assert found.outcome == "failed"
    assert "has expired (on 20" in found.detail
    assert "renew" in found.advice.cause


async def test_a_certificate_of_tomorrow_points_at_the_clock(tmp_path: Path) -> None:
    file = make_certificate(tmp_path / "tomorrow.pem", from_days=1)
    async with Peer(polite, tls=serving(file)) as peer:
        found = await tls(peer, trusting(file))
    assert found.outcome == "failed"
    assert "clock" in found.advice.cause


@pytest.mark.parametrize("name", ["chat.example.com", "192.0.2.7"])
async def test_a_certificate_for_another_name_is_told_with_that_name(
    tmp_path: Path, name: str
) -> None:
    file = make_certificate(tmp_path / "other.pem", name=name)
    async with Peer(polite, tls=serving(file)) as peer:
        found = await tls(peer, trusting(file), host="localhost")
        assert found.outcome == "failed"
        assert f"is for {name}, not for localhost" in found.detail
        assert "REVERB_HOST" in found.advice.fix
        found = await tls(peer, trusting(file))
        assert f"is for {name}, not for 127.0.0.1" in found.detail


async def test_a_self_signed_certificate_is_told_so() -> None:
    async with Peer(polite, tls=server_tls()) as peer:
        found = await tls(peer)
    assert found.outcome == "failed"
    assert "self-signed" in found.detail
    assert "SSL_CERT_FILE" in found.advice.fix


async def test_a_certificate_of_an_unknown_signer_asks_for_the_whole_chain(tmp_path: Path) -> None:
    file = make_certificate(tmp_path / "lonely.pem", by="Nobody's CA")
    async with Peer(polite, tls=serving(file)) as peer:
        found = await tls(peer)
    assert found.outcome == "failed"
    assert "nobody here knows who signed" in found.detail
    assert "fullchain.pem" in found.advice.fix


async def test_a_certificate_that_openssl_refuses_otherwise_is_told_in_its_words(
    tmp_path: Path,
) -> None:
    file = make_certificate(tmp_path / "short.pem")
    trust = trusting(file)
    trust.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    async with Peer(polite, tls=serving(file)) as peer:
        found = await tls(peer, trust)
    assert found.outcome == "failed"
    assert "is not trusted: unable to get certificate CRL" in found.detail


async def test_plain_http_where_tls_is_expected_is_told_so() -> None:
    async with http_server(answering(404)) as port:
        found = await check_tls(a_case(settings(host="127.0.0.1", port=port, scheme="https")))
    assert found.outcome == "failed"
    assert "speaks plain HTTP, not TLS" in found.detail
    assert "REVERB_SCHEME=http" in found.advice.fix


async def test_an_http_server_that_waits_for_the_end_of_a_line_is_found_out_too() -> None:
    async def not_found(dial: Dial) -> None:
        await dial.answer(404)

    async with Peer(not_found) as peer:
        found = await tls(peer, timeout=1)
    assert found.outcome == "failed"
    assert "speaks plain HTTP, not TLS" in found.detail


async def test_another_protocol_where_tls_is_expected_is_told_so() -> None:
    async with tcp_server(b"SSH-2.0-OpenSSH_9.6\r\n") as port:
        case = a_case(settings(host="127.0.0.1", port=port, scheme="https"))
        found = await check_tls(case)
    assert found.outcome == "failed"
    assert "does not speak TLS" in found.detail
    assert "Something else listens" in found.advice.cause


async def test_one_who_hangs_up_where_tls_is_expected_is_told_so() -> None:
    async with tcp_server(b"") as port:
        found = await check_tls(a_case(settings(host="127.0.0.1", port=port, scheme="https")))
    assert found.outcome == "failed"
    assert "does not speak TLS" in found.detail


async def test_silence_where_tls_is_expected_is_told_so() -> None:
    async with Peer() as peer:
        found = await tls(peer, timeout=0.2)
    assert found.outcome == "failed"
    assert "did not answer in 0.2 s" in found.detail
    assert "REVERB_SCHEME" in found.advice.fix


# Alerts: what OpenSSL says of them (RFC 8446, 6).
HANDSHAKE_FAILURE, PROTOCOL_VERSION, INTERNAL_ERROR, UNRECOGNIZED_NAME = 40, 70, 80, 112


@pytest.mark.parametrize(
    ("alert", "says"),
    [
        (UNRECOGNIZED_NAME, "no certificate for 127.0.0.1"),
        (INTERNAL_ERROR, "no certificate for 127.0.0.1"),
        (HANDSHAKE_FAILURE, "no certificate for 127.0.0.1"),
        (PROTOCOL_VERSION, "too old"),
    ],
)
async def test_an_alert_is_told_in_words(alert: int, says: str) -> None:
    async with tcp_server(bytes([0x15, 3, 3, 0, 2, 2, alert])) as port:
        found = await check_tls(a_case(settings(host="127.0.0.1", port=port, scheme="https")))
    assert found.outcome == "failed"
    assert says in found.advice.cause


async def test_tls_goes_all_the_way() -> None:
    async with Peer(polite, tls=server_tls()) as peer:
        steps = await examined(peer.settings(app_secret=""), ssl_context=trusting_tls())
    tried = ("dns", "tcp", "tls", "upgrade", "key", "activity", "subscription")
    assert outcomes(steps) == dict.fromkeys(tried, "ok")
