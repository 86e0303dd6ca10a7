"""The listening socket: TCP or Unix, with or without TLS.

The event loops' own listeners are not used, because of what they do when no file descriptor is
left: asyncio's logs a traceback for each place in its backlog, uvloop's may close for good, and
neither says what to do about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

from antiphon.errors import SettingsError

__all__ = ["Listener", "listen", "listen_unix", "load_certificate"]

log = logging.getLogger("antiphon.server")

HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds for a TLS handshake."""
SHUTDOWN_TIMEOUT: Final = 2.0
"""Seconds for the peer to say that TLS has ended."""
TELL_EVERY: Final = 60.0
"""Seconds after which it is said again that no descriptor is left."""
_BACKLOG: Final = 2048
_AT_ONCE: Final = 64
_RETRY: Final = 1.0
_MODE: Final = 0o660
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Listener:
    """Accepts connections; when no descriptor is left it hangs up on who comes, and goes on.

    Args:
        listening: The socket, which is its own from now on.
        tls: The server's side of TLS, if it is spoken; it may be exchanged at any time.
        path: The file of a Unix socket, which goes with it; empty if it is somebody else's.
    """

    def __init__(
        self, listening: socket.socket, tls: ssl.SSLContext | None = None, path: str = ""
    ) -> None:
        self.tls = tls
        self._socket = listening
        self._connecting: set[asyncio.Task[None]] = set()
        self._spare = _open_spare()
        self._retry: asyncio.TimerHandle | None = None
        self._refused = 0
        self._tell_at = 0.0
        self._path = path
        self._inode = os.stat(path).st_ino if path else 0

    def start(self, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        """Accept connections from now on.

        Args:
            protocol: Makes the protocol of each.
        """
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Take no further connections; a Unix socket's file is removed."""
        if self._socket.fileno() < 0:
            return
        if self._retry is not None:
            self._retry.cancel()
        if hasattr(self, "_loop"):
            self._loop.remove_reader(self._socket)
        with contextlib.suppress(OSError):
            # Whoever has taken the place over meanwhile is to keep it.
            if self._path and os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)
        self._socket.close()
        if self._spare is not None:
            self._spare.close()

    async def finish(self) -> None:
        """After `close`: wait for connections that are being made, but for no slow handshake."""
        if not self._connecting:
            return
        _, slow = await asyncio.wait(self._connecting, timeout=0.1)
        for task in slow:
            task.cancel()
        if slow:
            await asyncio.wait(slow)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                if exc.errno not in _EXHAUSTED:
                    raise
                self._refuse(exc)
                return
            accepted.setblocking(False)
            task = self._loop.create_task(self._connect(accepted))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self, accepted: socket.socket) -> None:
        tls: dict[str, Any] = {}
        if self.tls is not None:
            tls = {
                "ssl": self.tls,
                "ssl_handshake_timeout": HANDSHAKE_TIMEOUT,
                "ssl_shutdown_timeout": SHUTDOWN_TIMEOUT,
            }
        # Who does not finish its handshake is a stranger, and not worth a line.
        with contextlib.suppress(OSError):
            await self._loop.connect_accepted_socket(self._protocol, accepted, **tls)

    def _refuse(self, why: OSError) -> None:
        """Hang up on who comes, with a descriptor that was kept for this."""
        self._refused += 1
        now = self._loop.time()
        if now >= self._tell_at:
            self._tell_at = now + TELL_EVERY
            log.error(
                "no connection can be accepted: %s; %d refused so far. Raise the limit of open"
                " files (LimitNOFILE, ulimit -n), or set max_connections",
                why.strerror,
                self._refused,
            )
        if self._spare is not None:
            self._spare.close()
            with contextlib.suppress(OSError):
                refused, _ = self._socket.accept()
                refused.close()
        self._spare = _open_spare()
        if self._spare is None:  # somebody was quicker; the socket would say so without end
            self._loop.remove_reader(self._socket)
            self._retry = self._loop.call_later(_RETRY, self._accept_again)

    def _accept_again(self) -> None:
        self._spare = _open_spare()
        self._loop.add_reader(self._socket, self._accept)


def _open_spare() -> BinaryIO | None:
    try:
        return open(os.devnull, "rb", buffering=0)
    except OSError:
        return None


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A TCP socket that listens; on `::` for IPv4 too.

    Args:
        host: Address.
        port: TCP port; 0 takes a free one.
        shared: Whether others may listen there too: the system then spreads connections evenly.

    Raises:
        SettingsError: The address cannot be listened on.
    """
    if not 0 <= port <= 65535:
        raise SettingsError(f"The port lies between 0 and 65535, {port} does not.")
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        # With its protocol named, asyncio turns Nagle's delay off on what it accepts.
        listening = socket.socket(family, kind, protocol or socket.IPPROTO_TCP)
    except OSError as exc:
        raise _cannot_listen(where, exc) from exc
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if host == "::":
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as exc:
        listening.close()
        raise _cannot_listen(where, exc) from exc
    return listening


def listen_unix(path: str) -> socket.socket:
    """A Unix socket that listens, for its owner and group.

    A socket that nobody listens on any more is replaced; any other file stays.

    Raises:
        SettingsError: There is something else, or the place cannot be written to.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        _make_room(path)
        listening.bind(path)
        os.chmod(path, _MODE)  # before anybody can connect
        listening.listen(_BACKLOG)
    except OSError as exc:
        listening.close()
        raise _cannot_listen(path, exc) from exc
    except SettingsError:
        listening.close()
        raise
    return listening


def _make_room(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise SettingsError(f"Cannot listen on {path}: there is a file that is no socket.")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)


def _cannot_listen(where: str, exc: OSError) -> SettingsError:
    if exc.errno == errno.EADDRINUSE:
        return SettingsError(f"Cannot listen on {where}: another program listens there already.")
    return SettingsError(f"Cannot listen on {where}: {exc.strerror or exc}.")


def load_certificate(certificate: str | Path, key: str | Path) -> ssl.SSLContext:
    """The server's side of TLS.

    Args:
        certificate: A PEM file with the certificate, and those between it and the root.
        key: A PEM file with its key, without a passphrase.

    Raises:
        SettingsError: A file cannot be read or used, or they do not belong together.
    """

    def no_passphrase() -> str:
        raise SettingsError(f"The key {key} has a passphrase, which nobody is there to type in.")

    for path in (certificate, key):
        try:
            Path(path).read_bytes()
        except OSError as exc:
            raise SettingsError(f"The file {path} could not be read: {exc.strerror}.") from exc
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key, no_passphrase)
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            why = f"The key {key} is not that of the certificate {certificate}."
        else:
            why = f"The certificate {certificate} or its key {key} cannot be used: no PEM is in it."
        raise SettingsError(why) from exc
    return context
