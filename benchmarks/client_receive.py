"""Events a client receives per second of its CPU: typed, beside the bare loop and other clients.

`python -m benchmarks.client_receive`. The feeder has the other core. CPU is that of the client's
whole process, all threads and the system's share, from the first event to the last.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from antiphon import Client, Settings
from antiphon.chat import MessageSentEvent
from antiphon.protocol.frames import decode_event

from .feeder import CHANNEL, EVENT, FRAME
from .measure import in_turn, python, table
from .peers.environment import peers_python

COUNT = 200_000
NODE_CLIENT = Path(__file__).parent / "client_receive_pusher_js.cjs"
PUSHER_JS = "pusher-js 8.6"
PEERS = {
    "asyncpusher": "asyncpusher 0.2.5",
    "pysher": "pysher 1.0.8",
    "sockudo": "sockudo-python 2.2.0",
}
NODE_MODULES = Path(__file__).parent.parent / "tests" / "js" / "node_modules"


class Counter:
    """Counts events; knows the CPU time per event from the first to the last."""

    def __init__(self) -> None:
        self.left = COUNT
        self.began = 0.0
        self.done: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def __call__(self, event: object) -> None:
        if self.left == COUNT:
            self.began = time.process_time()
        self.left -= 1
        if not self.left:
            self.done.set_result(COUNT / (time.process_time() - self.began))


def client(port: int) -> Client:
    return Client(Settings(app_key="k", host="127.0.0.1", port=port, scheme="http"))


async def ours(port: int) -> float:
    async with client(port) as pusher:
        counter = Counter()
        channel = pusher.subscribe(CHANNEL)
        channel.bind(EVENT, counter, type=MessageSentEvent)
        return await counter.done


async def stream(port: int) -> float:
    async with client(port) as pusher:
        counter = Counter()
        async for message in pusher.subscribe(CHANNEL).stream(EVENT, MessageSentEvent):
            counter(message)
            if counter.done.done():
                break
        return await counter.done


async def bare(port: int) -> float:
    """picows, one decode of the frame, one of its data into the type, one call."""
    counter = Counter()
    decode = msgspec.json.Decoder(MessageSentEvent).decode

    class Listener(WSListener):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            event = decode_event(frame.get_payload_as_memoryview())
            if event.name == EVENT:
                counter(decode(event.raw))

    transport, _ = await ws_connect(Listener, f"ws://127.0.0.1:{port}/app/k")
    transport.send(WSMsgType.TEXT, b'{"event":"pusher:subscribe","data":{"channel":"room"}}')
    figure = await counter.done
    transport.disconnect()
    return figure


def main() -> None:
    feeder = subprocess.Popen(python("feeder", COUNT), stdout=subprocess.PIPE, text=True)
    assert feeder.stdout is not None
    try:
        port = int(feeder.stdout.readline())
        commands = {
            "antiphon, typed handler": python("client_receive", "ours", port),
            "antiphon, async iterator": python("client_receive", "stream", port),
            "bare loop": python("client_receive", "bare", port),
        }
        bases = ["bare loop"]
        missing: list[str] = []
        node = shutil.which("node")
        if node and NODE_MODULES.exists():
            commands[PUSHER_JS] = [node, str(NODE_CLIENT), str(port), str(COUNT)]
            bases.append(PUSHER_JS)
        else:
            missing.append(f"{PUSHER_JS}: run `npm ci` in tests/js")
        peers = peers_python(make=False)
        for client, name in PEERS.items():
            if peers:
                arguments = [client, str(port), str(COUNT), CHANNEL, EVENT]
                commands[name] = [peers, "-m", "benchmarks.client_receive_peers", *arguments]
            else:
                missing.append(f"{name}: `python -m benchmarks.peers` installs it")
        figures = in_turn(commands)
    finally:
        feeder.terminate()
        feeder.wait()
    title = f"Client: {COUNT:,} frames of {len(FRAME)} bytes received"
    table(title, "events/s of CPU", figures, *bases)
    for line in missing:
        print(f"  not measured: {line}")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        kind = {"ours": ours, "stream": stream, "bare": bare}[sys.argv[1]]
        print(asyncio.run(kind(int(sys.argv[2]))))
