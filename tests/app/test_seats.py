"""Seats: who has which, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from antiphon.app import seats as seats_module
from antiphon.app.seats import NoSeatFree, Seats
from antiphon.chat import RestClient
from antiphon.chat.observations import ChatState
from antiphon.chat.problems import explain
from antiphon.errors import ApiError, LoginFailed, SettingsError
from antiphon.server import Server
from antiphon.settings import Settings
from tests.chat.house import PASSWORD, House, open_house

from .conftest import public

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(server: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(server.settings(), tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture
def settings(server: Server, house: House) -> Settings:
    return public(server, house)


@contextlib.asynccontextmanager
async def seats_of(settings: Settings | None, **options: Any) -> AsyncIterator[Seats]:
    seats = Seats(settings, **options)
    try:
        yield seats
    finally:
        await seats.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_browser_finds_its_seat_again_and_another_does_not(settings: Settings) -> None:
    async with seats_of(settings) as seats:
        first, again, other = await seats.view("a"), await seats.view("a"), await seats.view("b")
        assert first.seat is again.seat
        assert other.seat is not first.seat


async def test_who_only_looks_at_the_log_in_leaves_nothing(settings: Settings) -> None:
    async with seats_of(settings) as seats:
        (await seats.view("a")).leave()
        await until(lambda: len(seats) == 0)


async def test_a_seat_outlives_its_last_tab_for_a_while_and_then_closes_its_chat(
    settings: Settings, house: House
) -> None:
    async with seats_of(settings, expires_after=0.05) as seats:
        view = await seats.view("a")
        await view.seat.log_in(house.ali.email, PASSWORD)
        chat = view.seat.chat
        assert chat is not None
        view.leave()
        assert len(seats) == 1
        await until(lambda: len(seats) == 0)
        await until(lambda: chat.state is ChatState.CLOSED)
        assert view.seat.chat is None


async def test_a_tab_that_comes_back_keeps_the_seat(settings: Settings, house: House) -> None:
    async with seats_of(settings, expires_after=0.05) as seats:
        view = await seats.view("a")
        await view.seat.log_in(house.ali.email, PASSWORD)
        view.leave()
        assert view.seat.expires_at is not None
        back = await seats.view("a")
        assert back.seat is view.seat
        assert back.seat.expires_at is None
        assert back.seat.chat is not None


async def test_a_seat_that_expires_during_the_log_in_starts_no_chat(
    settings: Settings, house: House
) -> None:
    async with seats_of(settings) as seats:
        view = await seats.view("a")
        logging_in = asyncio.ensure_future(view.seat.log_in(house.ali.email, PASSWORD))
        view.leave()
        await until(lambda: len(seats) == 0)
        await logging_in
        assert view.seat.chat is None


async def test_a_wrong_password_is_told_and_starts_nothing(
    settings: Settings, house: House
) -> None:
    async with seats_of(settings) as seats:
        seat = (await seats.view("a")).seat
        with pytest.raises(LoginFailed):
            await seat.log_in(house.ali.email, "wrong")
        assert seat.chat is None


async def test_without_a_server_the_log_in_has_to_bring_one(
    settings: Settings, house: House
) -> None:
    async with seats_of(None) as seats:
        seat = (await seats.view("a")).seat
        assert seat.asks_for_server
        with pytest.raises(SettingsError, match="server"):
            await seat.log_in(house.ali.email, PASSWORD)
        await seat.log_in(house.ali.email, PASSWORD, settings)
        assert seat.settings == settings


async def test_the_same_user_goes_on_after_a_new_log_in(settings: Settings, house: House) -> None:
    async with seats_of(settings) as seats:
        seat = (await seats.view("a")).seat
        await seat.log_in(house.ali.email, PASSWORD)
        chat = seat.chat
        assert chat is not None
        chat._core.tell(explain(LoginFailed("The token is not accepted.", code=401)))
        assert seat.needs_login
        await seat.log_in(house.ali.email, PASSWORD)
        assert seat.chat is chat
        assert not seat.needs_login


async def test_another_user_gets_a_chat_of_their_own_and_the_tabs_begin_anew(
    settings: Settings, house: House
) -> None:
    async with seats_of(settings) as seats:
        seat = (await seats.view("a")).seat
        await seat.log_in(house.ali.email, PASSWORD)
        alis = seat.chat
        assert alis is not None
        ended: list[str] = []
        seat.on_end(lambda: ended.append("ended"))
        await seat.log_in(house.john.email, PASSWORD)
        assert alis.state is ChatState.CLOSED
        assert seat.chat is not alis
        assert seat.user is not None
        assert seat.user.id == house.john.id
        assert ended == ["ended"]


async def test_logging_out_ends_the_token_and_tells_every_tab(
    settings: Settings, house: House
) -> None:
    async with seats_of(settings) as seats:
        seat = (await seats.view("a")).seat
        await seat.log_in(house.ali.email, PASSWORD)
        chat = seat.chat
        assert chat is not None
        async with RestClient(house.api_url, token=await chat._bearer()) as rest:
            await rest.me()
            ended: list[str] = []
            seat.on_end(lambda: ended.append("one"))
            forget = seat.on_end(lambda: ended.append("other"))
            forget()
            await seat.log_out()
            assert ended == ["one"]
            assert seat.chat is None
            with pytest.raises(LoginFailed):
                await rest.me()


async def test_a_guest_comes_in_by_name_and_a_stranger_does_not(
    settings: Settings, house: House
) -> None:
    async with RestClient(house.api_url) as rest:
        login = await rest.login(house.ali.email, PASSWORD)
    async with seats_of(settings, guests={"ali": login}) as seats:
        guest = (await seats.view("a", "ali")).seat
        assert guest.chat is not None
        assert guest.query == "?as=ali"
        stranger = (await seats.view("a", "eve")).seat
        assert stranger.chat is None
        assert stranger.query == ""


async def test_two_tabs_of_a_conversation_keep_it_open_until_both_have_gone(
    settings: Settings, house: House
) -> None:
    async with seats_of(settings) as seats:
        one, other = await seats.view("a"), await seats.view("a")
        await one.seat.log_in(house.ali.email, PASSWORD)
        assert one.seat.chat is not None
        await one.seat.chat.ready()
        id_ = str(house.conversation)
        room = one.seat.chat.room(id_)
        await one.show(id_)
        await other.show(id_)
        one.leave()
        assert room.is_open
        await other.show(None)
        assert not room.is_open


async def test_what_happens_on_the_wire_is_remembered_and_told(
    settings: Settings, house: House
) -> None:
    async with seats_of(settings) as seats:
        seat = (await seats.view("a")).seat
        told: list[object] = []
        forget = seat.on_happening(told.append)
        await seat.log_in(house.ali.email, PASSWORD)
        assert seat.chat is not None
        await seat.chat.ready()
        forget()
        count = len(told)
        assert count == len(seat.happenings) > 0
        assert list(seat.happenings)[:count] == told


async def test_an_account_has_a_file_whose_name_says_nothing(
    settings: Settings, house: House, tmp_path: Path
) -> None:
    async with seats_of(settings, data_folder=tmp_path) as seats:
        for browser, user in (("a", house.ali), ("b", house.john), ("c", house.ali)):
            await (await seats.view(browser)).seat.log_in(user.email, PASSWORD)
        names = sorted(name for name in os.listdir(tmp_path) if name.endswith(".sqlite3"))
    assert len(names) == 2
    assert all(len(name) == 32 + len(".sqlite3") for name in names)


async def test_what_is_not_sent_waits_for_the_next_log_in(
    settings: Settings, house: House, tmp_path: Path
) -> None:
    async with seats_of(settings, data_folder=tmp_path) as seats:
        seat = (await seats.view("a")).seat
        await seat.log_in(house.ali.email, PASSWORD)
        assert seat.chat is not None
        await seat.chat.ready()
        await house.stop()
        try:
            await seat.chat.send(house.conversation, "Kept")
            assert seat.unsent == 1
            await seat.log_out()
        finally:
            await house.start()
        await seat.log_in(house.ali.email, PASSWORD)
        assert seat.chat is not None
        await until(lambda: seat.unsent == 0)
        async with house.as_(house.john) as rest:
            page = await rest.messages(house.conversation)
        assert [message.content for message in page.messages].count("Kept") == 1


async def test_only_so_many_people_log_in_and_who_only_looks_keeps_nobody_out(
    settings: Settings, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats_module, "MAX_SEATS", 1)
    async with seats_of(settings) as seats:
        first, second, third = [(await seats.view(id_)).seat for id_ in "abc"]
        await first.log_in(house.ali.email, PASSWORD)
        with pytest.raises(NoSeatFree):
            await second.log_in(house.john.email, PASSWORD)
        await first.log_in(house.ali.email, PASSWORD)  # who sits, sits
        await first.log_out()
        await third.log_in(house.john.email, PASSWORD)


async def test_a_backend_that_is_down_is_told(settings: Settings, house: House) -> None:
    async with seats_of(settings) as seats:
        seat = (await seats.view("a")).seat
        await house.stop()
        try:
            with pytest.raises(ApiError, match="No answer"):
                await seat.log_in(house.ali.email, PASSWORD)
        finally:
            await house.start()
