"""The payloads of a Laravel application, exactly as they stand, drive the screen."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from antiphon.app import ChatApp
from antiphon.chat import (
    DEFAULT_EVENT_NAMES,
    Login,
    MessageSentEvent,
    MessagesReadEvent,
    User,
    UserIsTypingEvent,
)
from antiphon.publisher import Publisher
from antiphon.server import Server
from antiphon.settings import App
from tests.chat.laravel import Laravel, open_laravel

from .browser import tab
from .people import bubble, header_line, row, texts, tick

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGE = (
    '{"message":{"id":"123","chat_id":"45","sender_id":"67","sender_name":"John",'
    '"content":"Hello!","sent_at":"2024-10-25T10:31:00Z","status":"sent"},"tempId":"temp-msg-xyz"}'
)
TYPING = (
    '{"conversation_id":123,"user":{"id":45,"firstName":"Ali","lastName":"Qo\'chqorov",'
    '"email":"ali@example.com"}}'
)
READ = '{"conversation_id":123,"reader_id":45,"message_ids":["101","102","103"]}'

NAMES = {
    kind: [name for name, type_ in DEFAULT_EVENT_NAMES.items() if type_ is kind]
    for kind in (MessageSentEvent, UserIsTypingEvent, MessagesReadEvent)
}
CHANNEL = "private-user.1"


class Stand:
    """The app on a Laravel application's side, and a page that looks at it."""

    def __init__(self, url: str, publisher: Publisher, page: Page) -> None:
        self.url = url
        self.page = page
        self._publisher = publisher
        self._sessions = 0

    async def begin(self) -> None:
        """A session that knows nothing yet, in the conversation of the payloads."""
        await self.page.context.clear_cookies()
        await self.page.goto(f"{self.url}/c/123?as=me")
        await expect(bubble(self.page, "Mine 103")).to_be_visible()
        self._sessions += 1
        async with asyncio.timeout(10):  # earlier ones are still there
            while True:
                answer = await self._publisher.channel(CHANNEL, info=["subscription_count"])
                if answer.get("subscription_count", 0) >= self._sessions:
                    return

    async def publish(self, name: str, payload: str) -> None:
        """Send data as it stands, character by character."""
        await self._publisher.trigger([CHANNEL], name, payload)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand(browser: Browser) -> AsyncIterator[Stand]:
    server = Server(App(id="1", key="k", secret="s"))
    async with server, open_laravel(server.settings(), own_words=False) as laravel:
        login = await seed(laravel)
        app = ChatApp(laravel.settings, dialect=laravel.dialect, guests={"me": login})
        async with (
            app.serve() as served,
            Publisher(server.settings()) as publisher,
            tab(browser) as page,
        ):
            yield Stand(served.url, publisher, page)


async def seed(laravel: Laravel) -> Login:
    """Conversations up to number 123, and my messages 101, 102 and 103 in it."""
    me, john, _ = laravel.users
    while laravel.start(me, john) != 123:
        pass
    for number in range(1, 104):
        conversation = 123 if number > 100 else 1
        await laravel.say(me, f"Mine {number}", conversation=conversation, told=False)
    await laravel.say(john, "Earlier", conversation=45, told=False)
    user = User(id=me.number, first_name="Me", last_name="Myself", email=me.email)
    return Login(token=laravel.token(me), user=user)


def as_sent(payload: str, wrapped: str) -> Any:
    return f'{{"type":"{wrapped}","data":{payload}}}' if wrapped else payload


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
async def test_each_payload_under_each_name_drives_the_screen(stand: Stand, wrapped: bool) -> None:
    page = stand.page
    assert {len(names) for names in NAMES.values()} == {5}
    for message, typing, read in zip(*NAMES.values(), strict=True):
        await stand.begin()
        mine = [f"Mine {number}" for number in (101, 102, 103)]
        for text in mine:
            await expect(tick(page, text)).to_have_attribute("aria-label", "Sent")

        await stand.publish(typing, as_sent(TYPING, "typing" if wrapped else ""))
        await expect(header_line(page)).to_contain_text("typing")

        await stand.publish(read, as_sent(READ, "read" if wrapped else ""))
        for text in mine:
            await expect(tick(page, text)).to_have_attribute("aria-label", "Read")

        await stand.publish(message, as_sent(MESSAGE, "message" if wrapped else ""))
        await expect(page.get_by_role("option").filter(has_text="Hello!")).to_be_attached()
        await page.get_by_placeholder("Search").fill("hello!")
        await row(page, "Hello!").click()
        await expect(bubble(page, "Hello!")).to_be_visible()
        assert (await texts(page)).count("Hello!") == 1
        await expect(bubble(page, "Hello!")).not_to_have_class(re.compile(r"\bown\b"))
