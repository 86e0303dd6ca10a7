"""100 000 connections that come and go in every way, and what they leave behind.

`python -m benchmarks.server_churn [--connections 100000]`. A seventh each hangs up with not a byte
said, within the upgrade, after a refusal, after the greeting with a reset and without, with a
channel joined, and as one should. Exit code 1: a descriptor, a task or objects were left, or memory
grew with their number.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import socket
import struct
import sys
import time

import uvloop

from .loader import subscribe
from .measure import python
from .server_soak import APP

WAYS = (
    "with not a byte said",
    "within the upgrade",
    "after a refusal",
    "after the greeting, with a reset",
    "after the greeting",
    "in a channel",
    "in a channel, with a close frame",
)
AT_ONCE = 32
WARM_UP = 2_000
SETTLED = 30
MAX_OBJECTS = 500
MAX_GROWTH = 8 * 1024 * 1024
_RESET = struct.pack("ii", 1, 0)
_UPGRADE = (
    "GET /app/{}?protocol=7 HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_KNOWN = _UPGRADE.format(APP.key).encode()
_UNKNOWN = _UPGRADE.format("unknown").encode()


async def visit(port: int, number: int) -> None:
    """Connect and leave."""
    way = number % len(WAYS)
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        # An address has 28 000 ports, and each rests for a minute.
        sock.bind((f"127.0.0.{2 + number % 100}", 0))
        await loop.sock_connect(sock, ("127.0.0.1", port))
        if way == 0:
            return
        if way == 1:
            await loop.sock_sendall(sock, _KNOWN[:60])
            return
        await loop.sock_sendall(sock, _UNKNOWN if way == 2 else _KNOWN)
        await _heard(sock, b"pusher:")
        if way == 3:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        elif way >= 5:
            await loop.sock_sendall(sock, subscribe("room"))
            await _heard(sock, b"succeeded")
        if way == 6:
            await loop.sock_sendall(sock, b"\x88\x82\0\0\0\0\x03\xe8")
            with contextlib.suppress(ConnectionError):
                while await loop.sock_recv(sock, 4096):
                    pass


async def _heard(sock: socket.socket, word: bytes) -> None:
    said = b""
    while word not in said:
        read = await asyncio.get_running_loop().sock_recv(sock, 4096)
        if not read:
            raise ConnectionError(f"hung up on before {word!r}")
        said += read


async def come_and_go(port: int, count: int) -> None:
    numbers = iter(range(count))

    async def visitor() -> None:
        for number in numbers:
            async with asyncio.timeout(30):
                await visit(port, number)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(visitor())


async def churn(count: int) -> int:
    process = await asyncio.create_subprocess_exec(
        *python("server_soak", "--serve", 1), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    stdout = process.stdout
    samples: list[dict[str, float]] = []

    async def listen() -> None:
        while line := await stdout.readline():
            samples.append(json.loads(line))

    async def sample() -> dict[str, float]:
        """What it uses when its garbage is collected."""
        process.send_signal(signal.SIGUSR1)
        seen = len(samples)
        while len(samples) < seen + 2:  # the next one may have been on its way  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        return samples[-1]

    try:
        port = int(await stdout.readline())
        listening = asyncio.create_task(listen())
        await come_and_go(port, WARM_UP)
        before = await sample()
        began = time.perf_counter()
        await come_and_go(port, count)
        took = time.perf_counter() - began
        most = max(one["fds"] for one in samples)
        for _ in range(SETTLED):
            after = await sample()
            if after["fds"] <= before["fds"] and after["tasks"] <= before["tasks"]:
                break
        cpu = (after["cpu"] - before["cpu"]) / count
    finally:
        process.kill()
        await process.wait()
    await listening
    print(f"\nServer: {count:,} connections come and go in {len(WAYS)} ways, {AT_ONCE} at once")
    print(f"{count / took:,.0f} a second, {cpu * 1e6:,.0f} µs of the server's CPU each,")
    print(f"at most {most:,.0f} descriptors seen open")
    print(f"{'':<14}{'before':>14}{'after':>14}{'left':>14}")
    for name in ("rss", "fds", "tasks", "objects"):
        left = after[name] - before[name]
        print(f"{name:<14}{before[name]:>14,.0f}{after[name]:>14,.0f}{left:>14,.0f}")
    allowed = {"fds": 0, "tasks": 0, "objects": MAX_OBJECTS, "rss": MAX_GROWTH}
    return int(any(after[name] - before[name] > most for name, most in allowed.items()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--connections", type=int, default=100_000)
    sys.exit(uvloop.run(churn(parser.parse_args().connections)))


if __name__ == "__main__":
    main()
