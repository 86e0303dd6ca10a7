"""`antiphon demo`: server, backend and two users on this machine, and what they say."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shlex
import shutil
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import msgspec

from antiphon.backend import BackendConfig, Store, create_app, hash_password
from antiphon.chat import (
    ChatEvent,
    ChatEvents,
    Login,
    MessageSentEvent,
    MessagesReadEvent,
    RestClient,
    UserIsTypingEvent,
)
from antiphon.client import Client, Observation
from antiphon.errors import EventFailed, PayloadInvalid
from antiphon.protocol.frames import Event
from antiphon.server import HttpServer, Server
from antiphon.settings import App, Settings

from .browser import show_in_browser
from .output import LinePrinter

__all__ = ["demo"]

PASSWORD: Final = "antiphon"  # noqa: S105 - of two users who live as long as the demo
ALI: Final = ("Ali", "Qo'chqorov", "ali@example.com")
JOHN: Final = ("John", "Doe", "john@example.com")
_PATIENCE: Final = 15.0
_INTERRUPTED: Final = "Ended before all of the conversation was received."


async def demo(printer: LinePrinter, *, once: bool, browser: bool, stop: asyncio.Event) -> None:
    """Run the scripted conversation, then stay up until told to stop.

    Args:
        printer: Where to.
        once: End after the conversation.
        browser: Open the chat app, with both users side by side, in the browser.
        stop: Ends it when set.

    Raises:
        EventFailed: Not all of the conversation was received.
        AntiphonError: Something else did not work.
    """
    app = App(id="demo", key="demo-key", secret=secrets.token_hex(16))
    with tempfile.TemporaryDirectory(prefix="antiphon-demo-") as folder:
        database = f"sqlite:///{Path(folder) / 'chat.sqlite3'}"
        conversation = await _seed(database)
        async with Server(app) as server:
            config = BackendConfig(settings=server.settings(), database_url=database)
            async with HttpServer(create_app(config), host="127.0.0.1") as backend:
                stage = _Stage(printer, server.settings(), backend.url, conversation, browser)
                await stage.play(once=once, stop=stop)


async def _seed(database: str) -> int:
    """Ali, John and their conversation; its id."""
    password_hash = await hash_password(PASSWORD)
    async with Store(database) as store:
        ids = []
        for first_name, last_name, email in (ALI, JOHN):
            user = await store.users.create(
                first_name=first_name,
                last_name=last_name,
                email=email,
                password_hash=password_hash,
            )
            assert user is not None, "the database is new"
            ids.append(user.id)
        conversation, _ = await store.conversations.create(ids)
    return conversation


class _Stage:
    """The two users and their conversation."""

    def __init__(
        self,
        printer: LinePrinter,
        settings: Settings,
        api_url: str,
        conversation: int,
        browser: bool,
    ) -> None:
        self._printer = printer
        # As a client has them: without the secret.
        self._settings = msgspec.structs.replace(
            settings, api_url=api_url, app_id="", app_secret=""
        )
        self._secret = settings.app_secret
        self._browser = browser
        self._api_url = api_url
        self._conversation = conversation
        self._chat = ChatEvents()
        self._heard: asyncio.Queue[ChatEvent] = asyncio.Queue()

    async def play(self, *, once: bool, stop: asyncio.Event) -> None:
        """Ali listens, John types and writes, Ali reads; then whoever comes."""
        async with RestClient(self._api_url) as ali, RestClient(self._api_url) as john:
            login = await ali.login(ALI[2], PASSWORD)
            self._printer.logged_in()
            client = Client(self._settings, token=login.token)
            client.observe(lambda observation: self._observe(client, observation))
            try:
                async with client:
                    await client.subscribe(login.user.channel).subscribed(_PATIENCE)
                    johns = await john.login(JOHN[2], PASSWORD)
                    await self._until(stop, self._converse(ali, john), once=once)
                    if not once and not stop.is_set():
                        await self._stay(login, johns, stop)
            except asyncio.CancelledError:
                if not once:
                    raise
                raise EventFailed(_INTERRUPTED) from None

    async def _until(
        self, stop: asyncio.Event, conversation: Coroutine[Any, Any, None], *, once: bool
    ) -> None:
        """Hold the conversation, unless told to stop."""
        talking, stopped = asyncio.create_task(conversation), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([talking, stopped], return_when=asyncio.FIRST_COMPLETED)
            if talking.done():
                talking.result()
            elif once:
                raise EventFailed(_INTERRUPTED)
        finally:
            talking.cancel()
            stopped.cancel()
            await asyncio.wait([talking, stopped])

    async def _converse(self, ali: RestClient, john: RestClient) -> None:
        await john.typing(self._conversation)
        await self._hear(UserIsTypingEvent)
        message = await john.send(self._conversation, "Hello!", temp_id="temp-demo-1")
        await self._hear(MessageSentEvent)
        await ali.read(self._conversation, message.id)
        await self._hear(MessagesReadEvent)

    async def _hear(self, kind: type[ChatEvent]) -> None:
        """Wait until Ali has received an event of a kind over the WebSocket."""
        try:
            async with asyncio.timeout(_PATIENCE):
                while not isinstance(await self._heard.get(), kind):
                    pass
        except TimeoutError:
            raise EventFailed(
                f"{kind.__name__} was not received within {_PATIENCE:g} seconds."
            ) from None

    def _observe(self, client: Client, observation: Observation) -> None:
        self._printer.observe(observation, client.socket_id)
        if isinstance(observation, Event):
            try:
                event = self._chat.decode(observation)
            except PayloadInvalid:
                return  # printed already
            if event is not None:
                self._heard.put_nowait(event)

    async def _stay(self, alis: Login, johns: Login, stop: asyncio.Event) -> None:
        """Serve the chat app, say what else can be tried, and wait."""
        async with contextlib.AsyncExitStack() as stack:
            pages = ""
            with contextlib.suppress(ModuleNotFoundError):  # the app's packages are an extra
                from antiphon.app import ChatApp

                guests = {"ali": alis, "john": johns}
                app = ChatApp(self._settings, guests=guests, title="antiphon demo")
                pages = (await stack.enter_async_context(app.serve())).url
            self._invite(pages, alis, johns)
            if pages and self._browser:
                show_in_browser(f"{pages}/demo")
            await stop.wait()

    def _invite(self, pages: str, alis: Login, johns: Login) -> None:
        """Say what else can be tried; the secret is good for this demo, on this machine, only."""
        settings, plain = self._settings, self._printer.plain
        antiphon, python = _command(), shlex.quote(sys.executable)
        plain()
        if pages:
            plain(f"  Chat      {pages}/demo  (Ali and John side by side; {pages} to log in)")
        else:
            plain("  Chat      not installed: pip install 'antiphon[app]'")
        plain(f"  Server    {settings.http_url}  (app key {settings.app_key})")
        plain(f"  Backend   {self._api_url}  (API: {self._api_url}/schema)")
        plain(f"  Accounts  {ALI[2]} and {JOHN[2]}, password {PASSWORD}")
        plain(f"  Token     {alis.token}  (Ali's)")
        plain()
        plain("Send Ali one more message as John, from another terminal:")
        plain(
            f"  curl -X POST {self._api_url}/api/conversations/{self._conversation}/messages"
            f" -H 'Authorization: Bearer {johns.token}'"
            " -H 'Content-Type: application/json' -d '{\"content\": \"Hello from curl!\"}'"
        )
        plain(
            "For all that follows, say in that terminal where the demo is, and that you are John:"
        )
        plain(
            f"  export REVERB_APP_ID=demo REVERB_APP_KEY={settings.app_key}"
            f" REVERB_APP_SECRET={self._secret} REVERB_HOST={settings.host}"
            f" REVERB_PORT={settings.port} REVERB_SCHEME={settings.scheme}"
            f" APP_URL={self._api_url} ANTIPHON_EMAIL={JOHN[2]} ANTIPHON_PASSWORD={PASSWORD}"
        )
        plain("Listen, publish an event to Ali, or start a chat app of its own:")
        plain(f"  {antiphon} listen --email {JOHN[2]}")
        plain(f'  {antiphon} publish {alis.user.channel} Hello \'{{"from": "John"}}\'')
        plain(f"  {antiphon} chat")
        plain("Run a bot, or chat in the terminal (in a clone):")
        plain(f"  {python} examples/bot.py")
        plain(f"  {python} examples/console.py")
        plain("Ctrl-C ends the demo.")
        plain()


def _command() -> str:
    """What starts antiphon from a terminal, installed or in a clone."""
    if shutil.which("antiphon"):
        return "antiphon"
    return f"{shlex.quote(sys.executable)} -m antiphon"
