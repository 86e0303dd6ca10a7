"""`antiphon chat`: the app from its first line to its end."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from antiphon.cli.chat import data_folder

from .command import Call, Command, Ended, run_all, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT: Final = ("chat", "--no-browser")
SERVER: Final = ("--app-key", "k", "--scheme", "http", "--api", "http://127.0.0.1:9")


async def address(command: Command) -> str:
    """Where the app is, as it says."""
    (line,) = await command.until("The chat is at ")
    found = re.search(r"http://\S+", line)
    assert found is not None
    return found[0]


async def page(url: str) -> str:
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        assert answer.status == 200
        return await answer.text()


async def test_it_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    async with running(*CHAT, *SERVER, "--data", str(data), cold=True) as command:
        text = await page(await address(command))
        assert "antiphon" in text
        command.signal(signal.SIGINT)
        ended = await command.ended()
    assert (ended.status, ended.err) == (0, "")
    assert data.stat().st_mode & 0o777 == 0o700


async def test_without_a_key_the_log_in_screen_asks_for_the_server(tmp_path: Path) -> None:
    async with running(*CHAT, "--data", str(tmp_path)) as command:
        url = await address(command)
        assert "App key" in await page(f"{url}/login")
        command.signal(signal.SIGTERM)
        assert (await command.ended()).status == 0


async def test_on_all_addresses_it_shows_the_one_that_can_be_opened_here(tmp_path: Path) -> None:
    everywhere = (*CHAT, *SERVER, "--data", str(tmp_path), "--listen", "0.0.0.0:0")
    async with running(*everywhere) as command:
        url = await address(command)
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        await command.until("--public-url")
        assert "antiphon" in await page(url)
        command.signal(signal.SIGTERM)
        assert (await command.ended()).status == 0


async def test_the_address_that_others_open_is_shown_if_it_was_given(tmp_path: Path) -> None:
    public = ("--public-url", "https://chat.example.com")
    async with running(*CHAT, *SERVER, "--data", str(tmp_path), *public) as command:
        await command.until("Others reach it at https://chat.example.com$")
        command.signal(signal.SIGTERM)
        assert (await command.ended()).status == 0


async def test_what_cannot_be_served_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "file").write_text("")
        ended: dict[str, Ended] = await run_all(
            {
                "taken": Call((*CHAT, *SERVER, "--listen", f"127.0.0.1:{port}")),
                "address": Call((*CHAT, *SERVER, "--listen", "127.0.0.1:http")),
                "name": Call((*CHAT, *SERVER, "--listen", "nonsense.invalid")),
                "backend": Call((*CHAT, "--app-key", "k")),
                "data": Call((*CHAT, *SERVER, "--data", str(tmp_path / "file" / "data"))),
                "native": Call((*CHAT, *SERVER, "--native")),
            }
        )
    words = {
        "taken": "another program listens",
        "address": "no address to listen on",
        "name": "host:port, such as 127.0.0.1:8000",
        "backend": "--api",
        "data": "cannot be made",
        "native": "pywebview",
    }
    for name, one in ended.items():
        assert one.status == 2, (name, one)
        assert words[name] in one.err, (name, one.err)
        assert one.err.count("\n") == 1, (name, one.err)


async def test_its_data_lie_where_programs_of_the_system_keep_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert data_folder() == Path("/data/antiphon")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert data_folder() == Path.home() / ".local/share/antiphon"
    monkeypatch.setattr("sys.platform", "darwin")
    assert data_folder().parts[-2:] == ("Application Support", "antiphon")
