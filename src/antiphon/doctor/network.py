"""Name, address, TLS: what must stand before anybody speaks HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import re
import socket
import ssl
import time
from datetime import UTC, datetime
from typing import Any, Final

from .case import Case
from .steps import Advice, Finding, failed, ok, skipped, warning

__all__ = ["check_dns", "check_tcp", "check_tls", "speaks_tls"]

EXPIRES_SOON: Final = 14
_DAY: Final = 86_400

# What OpenSSL calls them: X509_V_ERR_… in x509_vfy.h.
_NOT_YET_VALID, _EXPIRED = 9, 10
_SELF_SIGNED, _SELF_SIGNED_ROOT, _NO_ISSUER, _NO_LEAF_ISSUER = 18, 19, 20, 21
_WRONG_NAME, _WRONG_ADDRESS = 62, 64

# A certificate's Validity: two times in a row, UTCTime or GeneralizedTime (RFC 5280, 4.1.2.5).
_VALIDITY: Final = re.compile(
    rb"\x30.(?:\x17\x0d\d{12}Z|\x18\x0f\d{14}Z)(?:\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z)", re.DOTALL
)


# DNS


async def check_dns(case: Case) -> Finding:
    """Which addresses the host's name has."""
    host = case.settings.host
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(case.timeout):
            found = await loop.getaddrinfo(host, case.settings.port, type=socket.SOCK_STREAM)
    except TimeoutError:
        return failed(f"no answer for {host} in {case.timeout:g} s", _NO_RESOLVER)
    except (socket.gaierror, UnicodeError) as exc:
        again = isinstance(exc, socket.gaierror) and exc.errno == socket.EAI_AGAIN
        return failed(f"{host} cannot be found", _NO_RESOLVER if again else _unknown_name(host))
    case.addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    if host in ("0.0.0.0", "::"):  # noqa: S104 - what people write where they should not
        return warning(
            f"{host} is no address to connect to",
            Advice(
                f"{host} means every address of a machine: it is for listening"
                " (REVERB_SERVER_HOST), and not every system connects to it.",
                "Set REVERB_HOST to the name or address that clients see, such as localhost.",
            ),
        )
    if _is_address(host):
        return ok(f"{host} is an address, there is nothing to look up")
    return ok(f"{host} is {', '.join(case.addresses)}")


_NO_RESOLVER: Final = Advice(
    "No name server answers: this machine has no network, or a wrong one is configured.",
    "Check the network and /etc/resolv.conf; in a container, the container's network.",
)


def _unknown_name(host: str) -> Advice:
    cause = "No name server knows this name."
    if host.endswith(".test"):
        cause += " Names under .test are known only to the machine on which Herd or Valet runs."
    elif "." not in host:
        cause += " A name without a dot is usually a container's, known only inside its network."
    return Advice(
        cause, "Check REVERB_HOST for a typing error, or add the name to DNS or to /etc/hosts."
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


# TCP


async def check_tcp(case: Case) -> Finding:
    """Which of the addresses take a connection."""
    outcomes = await asyncio.gather(*(_connect(case, address) for address in case.addresses))
    tried = list(zip(case.addresses, outcomes, strict=True))
    good = [address for address, outcome in tried if not isinstance(outcome, Exception)]
    bad = {address: outcome for address, outcome in tried if isinstance(outcome, Exception)}
    told = f"{case.where}: " + ", ".join(f"{address} {_word(o)}" for address, o in tried)
    if case.addresses == [case.settings.host]:
        told = f"{case.where} {_word(outcomes[0])}"
    if not good:
        return failed(told, _no_connection(case, list(bad.values())))
    case.address = good[0]
    if any(isinstance(outcome, TimeoutError) for outcome in bad.values()):
        return warning(
            told,
            Advice(
                "Not every address answers, so some clients wait before they try the next.",
                "Remove the silent address from DNS (often a stale AAAA record), or open its"
                " firewall.",
            ),
        )
    return ok(told)


async def _connect(case: Case, address: str) -> float | Exception:
    """Seconds that a connection takes, or why there is none."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(case.timeout):
            _, writer = await asyncio.open_connection(address, case.settings.port)
    except OSError as exc:  # a TimeoutError is one too
        return exc
    took = time.monotonic() - started
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return took


def _word(outcome: float | Exception) -> str:
    match outcome:
        case ConnectionRefusedError():
            return "refused"
        case TimeoutError():
            return "did not answer"
        case OSError(errno=errno.ENETUNREACH | errno.EHOSTUNREACH | errno.EADDRNOTAVAIL):
            return "has no route"
        case OSError(errno=number) if number is not None:
            return f"failed ({errno.errorcode.get(number, number)})"
        case Exception():
            return f"failed ({type(outcome).__name__})"
    return f"connects in {outcome * 1000:.1f} ms"


def _no_connection(case: Case, reasons: list[Exception]) -> Advice:
    port = case.settings.port
    if any(isinstance(reason, ConnectionRefusedError) for reason in reasons):
        local = case.settings.host in ("localhost", "127.0.0.1", "::1")
        inside = " In a container, localhost is the container itself." if local else ""
        return Advice(
            f"Nothing listens on port {port} there.{inside}",
            "Start the server (php artisan reverb:start, or antiphon serve). REVERB_PORT is where"
            " clients connect, REVERB_SERVER_PORT where Reverb listens: a proxy or a published"
            " container port must join the two.",
        )
    if any(isinstance(reason, TimeoutError) for reason in reasons):
        return Advice(
            f"A firewall drops what is sent to port {port}, or nothing has this address.",
            f"Open port {port} in the machine's firewall and the provider's security group, or"
            " use the proxy's port (443).",
        )
    return Advice(
        "There is no way from this machine to that address.",
        "Check REVERB_HOST, the VPN, and whether this machine has IPv6 if the address is one.",
    )


# TLS


async def check_tls(case: Case) -> Finding:
    """Whether the port speaks TLS, and with which certificate."""
    if not case.settings.secure:
        return skipped("the scheme is http")
    try:
        async with case.connected(case.usual_tls()) as (_, writer):
            tls = writer.get_extra_info("ssl_object")
            return _spoken(tls.version(), tls.getpeercert() or {})
    except ssl.SSLCertVerificationError as exc:
        return await _untrusted(case, exc)
    except OSError as exc:  # a TimeoutError is one too
        return await _no_tls(case, exc)


_SILENT: Final = Advice(
    "The port takes connections and says nothing: it waits for another protocol, or hangs.",
    "Check REVERB_PORT and REVERB_SCHEME, and restart what listens there.",
)


def _spoken(version: str, certificate: dict[str, Any]) -> Finding:
    if not certificate:
        return ok(f"{version}; the certificate is not checked")
    expires = ssl.cert_time_to_seconds(certificate["notAfter"])
    days = int((expires - time.time()) // _DAY)
    day = datetime.fromtimestamp(expires, UTC).date()
    names = ", ".join(_names(certificate)[:3])
    detail = f"{version}; certificate for {names} from {_issuer(certificate)}, until {day}"
    if days >= EXPIRES_SOON:
        return ok(detail)
    return warning(
        f"{detail}: {days} days",
        Advice(
            "The certificate expires soon, so its renewal does not seem to work.",
            "Renew it (certbot renew, or what made it), and let the server load it.",
        ),
    )


async def _untrusted(case: Case, exc: ssl.SSLCertVerificationError) -> Finding:
    code, host = exc.verify_code, case.settings.host
    if code == _EXPIRED:
        return failed(
            f"the certificate of {case.where} has expired{_expiry(await _certificate(case))}",
            Advice(
                "The certificate was not renewed, or the server was not restarted afterwards.",
                "Renew it (certbot renew, or what made it), and let the server load it.",
            ),
        )
    if code == _NOT_YET_VALID:
        return failed(
            f"the certificate of {case.where} is not valid yet",
            Advice(
                "This machine's clock is wrong, or the certificate's time is.", "Set the clock."
            ),
        )
    if code in (_WRONG_NAME, _WRONG_ADDRESS):
        names = ", ".join(await _names_in(case, await _certificate(case))) or "another name"
        return failed(
            f"the certificate of {case.where} is for {names}, not for {host}",
            Advice(
                "REVERB_HOST is not the name that the certificate was made for.",
                f"Set REVERB_HOST to one of the certificate's names, or get one for {host}.",
            ),
        )
    if code in (_SELF_SIGNED, _SELF_SIGNED_ROOT):
        return failed(
            f"the certificate of {case.where} is self-signed",
            Advice(
                "The certificate was made by hand, or by Herd, Valet or mkcert: other machines, and"
                " Python, do not know who signed it.",
                "Set SSL_CERT_FILE to the CA's file (.pem) here; for the public, use Let's"
                " Encrypt.",
            ),
        )
    if code in (_NO_ISSUER, _NO_LEAF_ISSUER):
        return failed(
            f"nobody here knows who signed the certificate of {case.where}",
            Advice(
                "The server leaves out the intermediate certificate (browsers often have it"
                " already), or the CA is a private one.",
                "Let the server send the whole chain (fullchain.pem and not cert.pem), or set"
                " SSL_CERT_FILE to the private CA's file here.",
            ),
        )
    return failed(
        f"the certificate of {case.where} is not trusted: {exc.verify_message}",
        Advice("OpenSSL does not accept the certificate.", "Replace the certificate."),
    )


async def _no_tls(case: Case, exc: OSError) -> Finding:
    told = getattr(exc, "reason", None) or type(exc).__name__
    if any(word in told for word in ("UNRECOGNIZED_NAME", "INTERNAL_ERROR", "HANDSHAKE_FAILURE")):
        return failed(
            f"{case.where} refuses TLS for this name ({told})",
            Advice(
                f"The server has no certificate for {case.settings.host}"
                " (Caddy and Cloudflare say so in this way).",
                "Add the name to the proxy's configuration, and wait until it has a certificate.",
            ),
        )
    if "PROTOCOL_VERSION" in told or "UNSUPPORTED_PROTOCOL" in told:
        return failed(
            f"{case.where} speaks another version of TLS ({told})",
            Advice("The server's TLS is too old, or too new.", "Let it speak TLS 1.2 and 1.3."),
        )
    if await _speaks_http(case):
        return failed(
            f"{case.where} speaks plain HTTP, not TLS",
            Advice(
                "The scheme is https, but this port has no TLS: Reverb itself (8080) has none"
                " by default, the proxy in front of it has.",
                "Set REVERB_SCHEME=http, or REVERB_PORT to the proxy's TLS port (443).",
            ),
        )
    if isinstance(exc, TimeoutError):
        return failed(f"{case.where} did not answer in {case.timeout:g} s", _SILENT)
    return failed(
        f"{case.where} does not speak TLS ({told})",
        Advice(
            "Something else listens on this port, or it ends connections from here.",
            "Check REVERB_HOST, REVERB_PORT and REVERB_SCHEME.",
        ),
    )


async def _speaks_http(case: Case) -> bool:
    try:
        return bool((await case.ask()).status)
    except OSError:
        return False


async def speaks_tls(case: Case) -> bool:
    """Whether the port speaks TLS, whoever it says it is."""
    try:
        async with case.connected(_any_certificate()):
            return True
    except OSError:
        return False


# Certificates that nobody trusts


async def _certificate(case: Case) -> bytes:
    """The server's certificate, unread; empty if it gives none a second time."""
    try:
        async with case.connected(_any_certificate()) as (_, writer):
            return writer.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
    except OSError:
        return b""


async def _names_in(case: Case, der: bytes) -> list[str]:
    """The names in a certificate: Python reads only what it trusts, so here it is trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(der))
        async with case.connected(context) as (_, writer):
            return _names(writer.get_extra_info("ssl_object").getpeercert() or {})[:3]
    except OSError:
        return []


def _any_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _names(certificate: dict[str, Any]) -> list[str]:
    names = [str(value) for _, value in certificate.get("subjectAltName", ())]
    return names or [_field(certificate.get("subject", ()), "commonName") or "no name"]


def _issuer(certificate: dict[str, Any]) -> str:
    issuer = certificate.get("issuer", ())
    return _field(issuer, "organizationName") or _field(issuer, "commonName") or "nobody"


def _field(name: Any, field: str) -> str:
    return next((str(v) for part in name for k, v in part if k == field), "")


def _expiry(der: bytes) -> str:
    found = _VALIDITY.search(der)
    if found is None:
        return ""
    text = (found[1] or found[2])[-12:].decode()
    return f" (on 20{text[:2]}-{text[2:4]}-{text[4:6]})"
