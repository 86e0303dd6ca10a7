"""The README's client: `python examples/client.py` beside a running `antiphon serve`."""

import asyncio
import contextlib

from antiphon import Client, Settings


async def main() -> None:
    settings = Settings(app_key="local-key", host="127.0.0.1", port=8080, scheme="http")
    async with Client(settings) as client:
        orders = client.subscribe("orders")
        async for event in orders.stream("OrderShipped"):
            print(event.data["id"])


with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main())
