"""A program that writes messages into a kept outbox, to be killed at any moment.

    python -m tests.chat.outbox_program FILE URL CONVERSATIONS MESSAGES PUT

It writes MESSAGES messages in each conversation in turn, those after the first PUT of them all,
and is never more than AHEAD ahead of what is sent. It says on standard output what a user would
have seen: `kept` with what the file still had, and `put` with a message that is safe. It ends when
the backend has everything.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from typing import Final

import aiohttp

from antiphon.chat import outbox
from antiphon.chat.models import Draft, Message
from antiphon.chat.outbox import Outbox
from antiphon.chat.store import ChatStore
from antiphon.errors import AntiphonError, ApiError

AHEAD: Final = 20


def say(*words: object) -> None:
    print(*words, flush=True)


async def main(path: str, url: str, conversations: int, messages: int, put: int) -> None:
    async with aiohttp.ClientSession(base_url=url) as http, ChatStore(path, "me") as store:

        async def post(draft: Draft) -> Message:
            body = {"temp_id": draft.temp_id, "content": draft.content}
            try:
                async with http.post(f"/{draft.conversation_id}", json=body) as answer:
                    id_ = await answer.json()
            except aiohttp.ClientError as exc:
                raise ApiError(f"No answer ({type(exc).__name__}).") from None
            return Message(
                id=id_, chat_id=draft.conversation_id, sender_id=1, content=draft.content
            )

        def told(draft: Draft, message: Message | None, error: AntiphonError | None) -> None:
            assert error is None, error
            room.set()

        room = asyncio.Event()
        box = Outbox(post, told, store)
        say("kept", *(draft.temp_id for draft in await box.load()))
        box.again()
        for number in range(put, conversations * messages):
            while len(box.waiting()) >= AHEAD:
                room.clear()
                await room.wait()
            turn, conversation = divmod(number, conversations)
            draft = Draft(
                temp_id=f"{conversation}-{turn}",
                conversation_id=str(conversation),
                content=f"message {turn} of {conversation}",
                created_at=datetime.now(UTC),
            )
            await box.put(draft)
            say("put", draft.temp_id)
        await box.drained()
        assert not box.waiting()
        assert not await store.drafts()
        await box.close()


if __name__ == "__main__":
    outbox.FIRST_DELAY = 0.001  # type: ignore[misc]
    file, address, *numbers = sys.argv[1:]
    asyncio.run(main(file, address, *map(int, numbers)))
