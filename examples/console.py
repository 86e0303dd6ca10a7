"""A chat in the terminal; the environment says where and who, as for bot.py. /quit ends it."""

import asyncio
import os
import sys
import threading

from antiphon import Settings
from antiphon.chat import ChatSession, Entry, Message, RestClient, Typing
from antiphon.errors import AntiphonError


def show(entry: Entry | Message) -> None:
    print(f"{entry.sender_name or entry.sender_id}: {entry.content}", flush=True)


def show_typing(typing: Typing) -> None:
    if typing.users:
        print(f"({typing.users[0].name} is typing)", flush=True)


def read(typed: asyncio.Queue[str], loop: asyncio.AbstractEventLoop) -> None:
    # Not sys.stdin: Python could not end while a thread waits in it.
    with open(0, closefd=False) as terminal:
        for line in terminal:
            loop.call_soon_threadsafe(typed.put_nowait, line.strip())
    loop.call_soon_threadsafe(typed.put_nowait, "/quit")


async def main() -> None:
    settings = Settings.from_env()
    async with RestClient(settings.api_url) as api:
        login = await api.login(os.environ["ANTIPHON_EMAIL"], os.environ["ANTIPHON_PASSWORD"])
    # The file keeps what is not sent yet, and the last of what was said.
    async with ChatSession(settings, token=login.token, path="console.sqlite3") as chat:
        chat.on_message(show)
        chat.on_typing(show_typing)
        chat.on_error(lambda problem: print(f"! {problem.title}: {problem.advice}", flush=True))
        if not chat.conversations:
            sys.exit("This user has no conversation yet.")
        room = chat.conversations[0]
        await room.open()
        print(f"— {room.title} —", flush=True)
        for entry in room.timeline.entries:
            show(entry)
        room.attended = True  # what is shown here has been read
        typed: asyncio.Queue[str] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        threading.Thread(target=read, args=(typed, loop), daemon=True).start()
        while (line := await typed.get()) != "/quit":
            if line:
                await room.send(line)


try:
    asyncio.run(main())
except KeyboardInterrupt:
    pass
except KeyError as exc:
    sys.exit(f"{exc} is not set.")
except AntiphonError as exc:
    sys.exit(str(exc))
