"""A bot that answers: REVERB_… and APP_URL say where, ANTIPHON_EMAIL and ANTIPHON_PASSWORD who."""

import asyncio
import os
import sys

from antiphon import Settings
from antiphon.chat import ChatSession, Message, RestClient
from antiphon.errors import AntiphonError


async def main() -> None:
    settings = Settings.from_env()
    async with RestClient(settings.api_url) as api:
        login = await api.login(os.environ["ANTIPHON_EMAIL"], os.environ["ANTIPHON_PASSWORD"])
    async with ChatSession(settings, token=login.token, max_attempts=None) as chat:
        print(f"Listening as {login.user.name}", flush=True)

        @chat.on_message
        async def answer(message: Message) -> None:
            print(f"{message.sender_name}: {message.content}", flush=True)
            await chat.send(message.chat_id, f"You said: {message.content}")

        await chat.wait_closed()


try:
    asyncio.run(main())
except KeyboardInterrupt:
    pass
except KeyError as exc:
    sys.exit(f"{exc} is not set.")
except AntiphonError as exc:
    sys.exit(str(exc))
