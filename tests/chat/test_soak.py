"""Two people write to each other while everything around them breaks."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from antiphon.chat import ChatSession, ChatState, Message, Room, Status, inbox
from antiphon.server import Server
from antiphon.settings import App

from .house import House, open_house
from .line import open_line

EACH = 2_000
CUTS = 20
RESTARTS = 2


async def until(condition: object, timeout: float = 120.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def talking(
    house: House, port: int, user_index: int, path: Path
) -> AsyncIterator[ChatSession]:
    user = (house.ali, house.john)[user_index]
    async with house.as_(user) as api:
        token = api.token
    settings = msgspec.structs.replace(house.settings, port=port, api_url=house.api_url)
    async with ChatSession(
        settings, token=token, user_id=user.id, path=path, max_attempts=None
    ) as session:
        yield session


@pytest.mark.timeout(280)
async def test_two_timelines_are_the_database_whatever_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine that stands still must not pass for a backend that stays away.
    monkeypatch.setattr(inbox, "HOLD", 60.0)
    chance = random.Random(7)
    async with (
        Server(App(id="1", key="k", secret="s", client_events_per_second=0)) as server,
        open_house(server.settings(), tmp_path) as house,
        open_line(server.settings().port) as line,
        talking(house, line.port, 0, tmp_path / "ali.sqlite3") as ali,
        talking(house, line.port, 1, tmp_path / "john.sqlite3") as john,
    ):
        sessions = {"ali": ali, "john": john}
        rooms = {name: session.room(house.conversation) for name, session in sessions.items()}
        heard: dict[str, list[Message]] = {name: [] for name in sessions}
        for name, session in sessions.items():
            session.on_message(heard[name].append)
            await rooms[name].open()
        written = 0

        async def write(name: str) -> None:
            nonlocal written
            for number in range(EACH):
                await rooms[name].send(f"{name} {number}")
                written += 1
                if len(ali.outbox.waiting()) + len(john.outbox.waiting()) > 200:
                    await until(
                        lambda: len(ali.outbox.waiting()) + len(john.outbox.waiting()) < 100
                    )

        async def break_things() -> None:
            steps = CUTS + RESTARTS
            for step in range(1, steps + 1):
                await until(lambda step=step: written >= step * 2 * EACH // (steps + 2))
                if step in (7, 15):
                    await house.restart()
                    continue
                line.down()
                before = written
                # Something is missed for certain: they write over HTTP, which goes on.
                missed = min(before + chance.randrange(20, 60), 2 * EACH)
                await until(lambda missed=missed: written >= missed)
                line.up()
                for session in sessions.values():
                    session.retry()
                await until(
                    lambda: all(s.state is ChatState.CONNECTED for s in sessions.values()), 60
                )

        await asyncio.gather(write("ali"), write("john"), break_things())
        for session in sessions.values():
            await session.outbox.drained()
        stored = await house.everything()
        assert len(stored) == 2 * EACH
        for name, room in rooms.items():
            await until(lambda room=room: len(room.timeline) == 2 * EACH, 30)
            assert shown(room) == stored, name
            assert {entry.status for entry in room.timeline.entries} <= {
                Status.SENT,
                Status.DELIVERED,
                Status.READ,
            }
            assert [m.content for m in heard[name]] == [
                content for content in stored if not content.startswith(name)
            ]
        assert line.cuts >= 2 * CUTS
        assert house.restarts == RESTARTS


def shown(room: Room) -> list[str]:
    return [entry.content for entry in room.timeline.entries]
