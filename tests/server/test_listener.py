"""Where a server listens, and what it does when no descriptor is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from antiphon.errors import SettingsError
from antiphon.server.listener import Listener, listen, listen_unix, load_certificate
from tests.client.peer import CERTIFICATE

from .wire import TIMEOUT, Wire

SECOND = Path(__file__).with_name("certificate.pem")
ENCRYPTED_KEY = """-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,A17D119DC5DF5342B6BFE3E359B62F4F

8oj8uFdmKPUSKjdGC5FRVpy86PYar1siRbSxwR8QHIGFu+eYvS49Uf8GBmyLOLTB
AYJGA3TWJi7gVXii40fsNxCMJh56qIn6HNLTPfeoXcFPcs9bxeB7ilfoqcAeAWQc
HHTx87QB4ICp3irAi2LE0eVTBU/XnTWGJStP51Vjuq0=
-----END EC PRIVATE KEY-----
"""


class Greeter(asyncio.Protocol):
    """Says one word, and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")
        transport.close()


# Addresses


async def test_all_of_ipv6_is_all_of_ipv4_too() -> None:
    try:
        listener = Listener(listening := listen("::", 0))
    except SettingsError as exc:
        pytest.skip(f"this machine has no IPv6: {exc}")
    listener.start(Greeter)
    try:
        for host in ("127.0.0.1", "::1"):
            reader, writer = await asyncio.open_connection(host, listening.getsockname()[1])
            assert await reader.read() == b"hello"
            writer.close()
            await writer.wait_closed()
    finally:
        listener.close()
        await listener.finish()


def test_an_ipv6_address_is_named_in_brackets() -> None:
    with pytest.raises(SettingsError, match=r"on \[2001:db8::1\]:8080: "):
        listen("2001:db8::1", 8080)


# Unix sockets


def test_a_unix_socket_is_for_its_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = Listener(listen_unix(str(path)), path=str(path))
    assert stat.filemode(path.stat().st_mode) == "srw-rw----"
    listener.close()
    assert not path.exists()
    listener.close()  # again, and nothing happens


def test_a_socket_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    listen_unix(path).close()
    Listener(listen_unix(path), path=path).close()
    assert not os.path.exists(path)


def test_a_socket_that_somebody_listens_on_stays(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with listen_unix(path):
        with pytest.raises(SettingsError, match="another program listens"):
            listen_unix(path)
        assert os.path.exists(path)


def test_a_file_that_is_no_socket_is_never_replaced(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("precious")
    link.symlink_to(file)
    for path in (file, link, tmp_path):
        with pytest.raises(SettingsError, match=f"{path}: there is a file that is no socket"):
            listen_unix(str(path))
    assert file.read_text() == "precious"


@pytest.mark.parametrize("name", ["no/such/folder/s", "s" * 200])
def test_a_place_that_cannot_be_listened_on_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=f"Cannot listen on {tmp_path}"):
        listen_unix(str(tmp_path / name))


def test_a_socket_that_another_server_has_put_there_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = Listener(listen_unix(str(path)), path=str(path))
    path.unlink()
    with listen_unix(str(path)):
        first.close()
        assert path.exists()


# TLS


@pytest.mark.parametrize(
    ("certificate", "key", "complaint"),
    [
        ("nowhere.pem", "", "nowhere.pem could not be read: No such file"),
        ("", "nowhere.pem", "nowhere.pem could not be read: No such file"),
        ("empty.pem", "", "empty.pem or its key .* cannot be used"),
        ("", "empty.pem", "empty.pem cannot be used"),
        ("", "other.pem", "other.pem is not that of the certificate"),
        ("", "encrypted.pem", "encrypted.pem has a passphrase"),
        (".", "", "could not be read: Is a directory"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    tmp_path: Path, certificate: str, key: str, complaint: str
) -> None:
    (tmp_path / "empty.pem").write_text("")
    (tmp_path / "other.pem").write_bytes(SECOND.read_bytes())
    (tmp_path / "encrypted.pem").write_text(ENCRYPTED_KEY)
    files = [tmp_path / name if name else CERTIFICATE for name in (certificate, key)]
    with pytest.raises(SettingsError, match=complaint):
        load_certificate(*files)


async def test_who_does_not_shake_hands_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("antiphon.server.listener.HANDSHAKE_TIMEOUT", 0.05)
    listener = Listener(listening := listen("127.0.0.1", 0), load_certificate(SECOND, SECOND))
    port = listening.getsockname()[1]
    listener.start(Greeter)
    try:
        silent, writer = await asyncio.open_connection("127.0.0.1", port)
        plain, plain_writer = await asyncio.open_connection("127.0.0.1", port)
        plain_writer.write(b"GET / HTTP/1.1\r\n\r\n")
        for reader in (silent, plain):
            with contextlib.suppress(ConnectionError):
                await asyncio.wait_for(reader.read(), TIMEOUT)
        for each in (writer, plain_writer):
            each.close()
    finally:
        listener.close()
        await listener.finish()


async def test_a_handshake_is_not_waited_for_at_the_end() -> None:
    listener = Listener(listening := listen("127.0.0.1", 0), load_certificate(SECOND, SECOND))
    listener.start(Greeter)
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    await asyncio.sleep(0.01)
    listener.close()
    async with asyncio.timeout(TIMEOUT):
        await listener.finish()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


# Descriptors


CHILD = """
import asyncio, logging, resource, sys
from antiphon.server import Server
from antiphon.settings import App

logging.basicConfig(format="%(name)s %(levelname)s %(message)s")

async def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with Server(App(id="1", key="k", secret="s")) as server:
        print(server.port, flush=True)
        # The thread's own descriptors come first.
        await asyncio.to_thread(sys.stdin.readline)
        resource.setrlimit(resource.RLIMIT_NOFILE, (60, hard))
        print("limited", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

LOOP
"""
LOOPS = {
    "asyncio": "asyncio.run(main())",
    "uvloop": "import uvloop; uvloop.run(main())",
}


def ended(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        child.kill()


@pytest.mark.parametrize("loop", LOOPS)
async def test_without_a_descriptor_left_it_refuses_says_so_once_and_serves_on(loop: str) -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CHILD.replace("LOOP", LOOPS[loop])),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(ended, child)
        port = int(await child.stdout.readline())
        child.stdin.write(b"go\n")
        assert await child.stdout.readline() == b"limited\n"

        async def dial() -> Wire | None:
            try:
                return await stack.enter_async_context(await Wire.connect(port))
            except (ConnectionError, EOFError, asyncio.IncompleteReadError):
                return None

        dialled = await asyncio.gather(*(dial() for _ in range(200)))
        connected = [wire for wire in dialled if wire is not None]
        assert 20 < len(connected) < 60, "the others were hung up on, and did not have to wait"
        for wire in connected:
            await wire.ping()
        assert await dial() is None
        for wire in connected[:10]:
            await wire.hang_up()
        async with asyncio.timeout(TIMEOUT):
            while (late := await dial()) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await late.ping()
        await connected[-1].ping()
        _, errors = await child.communicate(b"go\n")
    (line,) = errors.decode().splitlines()
    assert line.startswith("antiphon.server ERROR no connection can be accepted: Too many open")
    assert "LimitNOFILE" in line
    assert child.returncode == 0


async def test_somebody_who_takes_the_spare_descriptor_only_delays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("antiphon.server.listener._RETRY", 0.05)
    listener = Listener(listening := listen("127.0.0.1", 0))
    real = listener._socket.accept
    failing = True

    class Exhausted:
        """A listening socket for which there is no descriptor."""

        def accept(self) -> tuple[socket.socket, object]:
            if failing:
                raise OSError(24, "Too many open files")
            return real()

        def __getattr__(self, name: str) -> object:
            return getattr(listening, name)

    listener._socket = Exhausted()  # type: ignore[assignment]
    monkeypatch.setattr("antiphon.server.listener._open_spare", lambda: None)
    listener.start(Greeter)
    reader, writer = await asyncio.open_connection("127.0.0.1", listening.getsockname()[1])
    await asyncio.sleep(0.02)
    failing = False
    assert await asyncio.wait_for(reader.read(), TIMEOUT) == b"hello"
    writer.close()
    listener.close()
    await listener.finish()
