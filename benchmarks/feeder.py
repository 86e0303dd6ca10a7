"""A server that does nothing but blast frames: `python -m benchmarks.feeder COUNT`.

Prints its port. To each client it says hello, waits for a subscribe, confirms it and then writes
COUNT frames of 291 bytes, a chat event, as fast as the client takes them.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys

import msgspec

from antiphon.protocol.frames import encode
from antiphon.server.transport import text_frame

CHANNEL = "room"
EVENT = r"App\Events\MessageSent"
MESSAGE = {
    "message": {
        "id": "123",
        "chat_id": "45",
        "sender_id": "67",
        "sender_name": "John",
        "content": "Hello there, how are you today?",
        "sent_at": "2024-10-25T10:31:00Z",
        "status": "sent",
    },
    "tempId": "temp-msg-xyz",
}
FRAME = encode(EVENT, msgspec.json.encode(MESSAGE).decode(), CHANNEL)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: int) -> None:
    request = (await reader.readuntil(b"\r\n\r\n")).decode()
    key = next(
        line.split(": ")[1]
        for line in request.split("\r\n")
        if line.lower().startswith("sec-websocket-key")
    )
    digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )
    hello = encode("pusher:connection_established", '{"socket_id":"1.1","activity_timeout":120}')
    writer.write(text_frame(hello))
    await reader.read(1024)
    writer.write(text_frame(encode("pusher_internal:subscription_succeeded", "{}", CHANNEL)))
    block = text_frame(FRAME) * 100
    for _ in range(count // 100):
        writer.write(block)
        await writer.drain()
    await reader.read()
    writer.close()


async def main() -> None:
    count = int(sys.argv[1])
    server = await asyncio.start_server(lambda r, w: serve(r, w, count), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with asyncio.timeout(600):
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
