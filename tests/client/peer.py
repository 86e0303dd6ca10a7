"""The public `FaultServer` as the client's tests use it: with TLS and a short name.

Each connection is a `Dial`. A test either gives a script, which every dial runs through, or takes
the dials as they come with `await peer.dial()`. Every wait here ends after `TIMEOUT` seconds.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from antiphon.settings import Settings
from antiphon.testing import Dial, FaultServer, Script, event_text, polite
from tests.server.wire import TIMEOUT

__all__ = [
    "CERTIFICATE",
    "Dial",
    "Peer",
    "Script",
    "event_text",
    "polite",
    "server_tls",
    "trusting_tls",
]

CERTIFICATE: Final = Path(__file__).with_name("certificate.pem")
"""Self-signed, for 127.0.0.1 and localhost, with its key."""


class Peer(FaultServer):
    """A server on a free port, up while its context lasts."""

    def __init__(
        self,
        script: Script | Sequence[Script] | None = None,
        *,
        timeout: float = TIMEOUT,
        **options: Any,
    ) -> None:
        super().__init__(script, timeout=timeout, **options)

    def settings(self, **fields: Any) -> Settings:  # type: ignore[override]
        """What a client needs to dial."""
        return msgspec.structs.replace(
            super().settings, **{"app_key": "k", "app_secret": "s", "app_id": "", **fields}
        )


def server_tls() -> ssl.SSLContext:
    """The server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def trusting_tls() -> ssl.SSLContext:
    """A client's side of TLS that trusts the certificate."""
    return ssl.create_default_context(cafile=str(CERTIFICATE))
