"""What is common to all commands: help, version, and what is answered to wrong usage."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final, NamedTuple

import pytest
import pytest_asyncio

from antiphon import __version__
from antiphon.server import Server

from .command import Call, Ended, run, run_all
from .conftest import SECRET

pytestmark = pytest.mark.asyncio(loop_scope="module")

COMMANDS: Final = ("demo", "doctor", "listen", "publish", "serve")
APP: Final = ("--app-id", "1", "--app-key", "k", "--app-secret", SECRET)
WIDE: Final = {"COLUMNS": "200"}


# Version and help


async def test_the_version_is_printed() -> None:
    assert await run("--version", cold=True) == Ended(0, f"antiphon {__version__}\n", "")


async def test_without_a_command_the_commands_are_listed() -> None:
    bare, helped = await asyncio.gather(run(env=WIDE), run("--help", env=WIDE))
    assert (helped.status, helped.err) == (0, "")
    assert all(re.search(rf"\b{command} +[A-Z]", helped.out) for command in COMMANDS)
    assert (bare.out or bare.err).split() == helped.out.split()


HELP: Final = {
    "demo": ("--once",),
    "doctor": (
        *(
            "--env",
            "--app-key",
            "--app-id",
            "--app-secret",
            "--host",
            "--port",
            "--scheme",
            "--path",
        ),
        *(
            "--origin",
            "--api",
            "--email",
            "--token",
            "--auth-url",
            "--channel",
            "--timeout",
            "--json",
        ),
        *("ANTIPHON_PASSWORD", "ANTIPHON_TOKEN", "REVERB_APP_KEY", "REVERB_HOST", "APP_URL"),
    ),
    "listen": (
        *("--env", "--app-key", "--host", "--port", "--scheme", "--api", "--email", "--token"),
        *("--auth-url", "--channel", "--max-attempts", "--max-events", "--log-level", "--json"),
        *("ANTIPHON_PASSWORD", "ANTIPHON_TOKEN", "REVERB_APP_KEY", "REVERB_HOST", "APP_URL"),
    ),
    "publish": (
        *("channel", "event", "data", "--app-id", "--app-key", "--app-secret", "--host", "--port"),
        *("REVERB_APP_ID", "REVERB_APP_KEY", "REVERB_APP_SECRET"),
    ),
    "serve": (
        *("--host", "--port", "--app-id", "--app-key", "--app-secret", "--config", "[[apps]]"),
        *("REVERB_APP_ID", "REVERB_APP_KEY", "REVERB_APP_SECRET"),
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def helped() -> dict[str, Ended]:
    env = {**WIDE, "ANTIPHON_TOKEN": "token-in-the-environment", "REVERB_APP_SECRET": SECRET}
    calls = {command: Call((command, "--help"), env) for command in COMMANDS}
    return await run_all(calls)


@pytest.mark.parametrize("command", COMMANDS)
async def test_every_command_explains_its_options(helped: dict[str, Ended], command: str) -> None:
    status, out, err = helped[command]
    assert (status, err) == (0, "")
    assert [word for word in HELP[command] if word.startswith("--") and word not in out] == []


@pytest.mark.parametrize("command", COMMANDS)
async def test_no_word_of_the_help_is_lost_on_its_way_to_the_terminal(
    helped: dict[str, Ended], command: str
) -> None:
    # "[env: …]" and "[[apps]]" look like markup to what lays out the page.
    assert [word for word in HELP[command] if word not in helped[command].out] == []


# Wrong usage


class Wrong(NamedTuple):
    """A call that cannot be meant, and what the answer must name."""

    args: tuple[object, ...]
    names: str
    env: dict[str, str] = {}  # noqa: RUF012 - nobody writes to it
    # Whether it is answered by what reads the command line, in its own frame.
    framed: bool = False


LISTEN: Final = (
    *("listen", "--app-key", "k", "--scheme", "http", "--port", "1", "--max-attempts", "1"),
)
NEWS: Final = ("--channel", "news")
SERVE: Final = ("serve", "--port", "0")

WRONG: Final = {
    "a command nobody knows": Wrong(("sing",), "sing", framed=True),
    "an option nobody knows": Wrong((*LISTEN, "--nonsense"), "--nonsense", framed=True),
    "an option without its value": Wrong((*LISTEN, "--channel"), "--channel", framed=True),
    "a port out of range": Wrong((*LISTEN, "--port", "65536"), "--port", framed=True),
    "a port that is no number": Wrong((*LISTEN, "--port", "https"), "--port", framed=True),
    "fewer than no events": Wrong((*LISTEN, "--max-events", "-1"), "--max-events", framed=True),
    "fewer than no attempts": Wrong(
        (*LISTEN, "--max-attempts", "-1"), "--max-attempts", framed=True
    ),
    "an argument too many": Wrong((*LISTEN, *NEWS, "more"), "more", framed=True),
    "a log level nobody knows": Wrong((*LISTEN, *NEWS, "--log-level", "loud"), "loud"),
    "a scheme nobody knows": Wrong(("listen", "--app-key", "k", *NEWS, "--scheme", "ftp"), "ftp"),
    "a host with its scheme": Wrong(
        (*LISTEN, *NEWS, "--host", "http://127.0.0.1"), "http://127.0.0.1"
    ),
    "an address without its scheme": Wrong(
        (*LISTEN, "--api", "chat.example.com", "--token", "the-token"), "chat.example.com"
    ),
    "nothing to listen to": Wrong(LISTEN, "--channel"),
    "a user's channel without a user": Wrong((*LISTEN, "--api", "http://127.0.0.1"), "--email"),
    "an e-mail address without a backend": Wrong(
        (*LISTEN, *NEWS, "--email", "ali@example.com"), "--api", {"ANTIPHON_PASSWORD": "the-pass"}
    ),
    "a private channel that nobody signs": Wrong(
        (*LISTEN, "--channel", "private-room"), "private-room"
    ),
    "a name no channel can have": Wrong((*LISTEN, "--channel", "no channel"), "no channel"),
    "a password and nobody to ask": Wrong(
        (*LISTEN, "--api", "http://127.0.0.1", "--email", "ali@example.com"), "ANTIPHON_PASSWORD"
    ),
    "no key": Wrong(("listen", *NEWS), "--app-key"),
    "an .env file that is not there": Wrong(("listen", *NEWS, "--env", "gone.env"), "gone.env"),
    "an .env file that is a folder": Wrong(("listen", *NEWS, "--env", "."), "."),
    "a port in the environment that is no number": Wrong(
        ("listen", "--app-key", "k", *NEWS), "REVERB_PORT", {"REVERB_PORT": "https"}
    ),
    "an event without data": Wrong(("publish", *APP, "news", "e"), "data", framed=True),
    "a publisher without a secret": Wrong(
        ("publish", "news", "e", "1", "--app-id", "1", "--app-key", "k"), "--app-secret"
    ),
    "a publisher without a key": Wrong(("publish", "news", "e", "1"), "--app-key"),
    "a name no channel to publish on can have": Wrong(
        ("publish", *APP, "--scheme", "http", "--port", "1", "no channel", "e", "1"), "no channel"
    ),
    "a server without an application": Wrong(SERVE, "--app-key"),
    "a server without a secret": Wrong((*SERVE, "--app-key", "k", "--app-id", "1"), "--app-secret"),
    "a server without an id": Wrong((*SERVE, "--app-key", "k", "--app-secret", SECRET), "--app-id"),
    "a server with a log level nobody knows": Wrong((*SERVE, *APP, "--log-level", "9"), "9"),
    "a server on an address of another machine": Wrong(
        (*SERVE, *APP, "--host", "192.0.2.1"), "192.0.2.1"
    ),
    "a server on a name nobody knows": Wrong(
        (*SERVE, *APP, "--host", "nowhere.invalid"), "nowhere.invalid"
    ),
    "a demo with an option nobody knows": Wrong(("demo", "--twice"), "--twice", framed=True),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def answers() -> dict[str, Ended]:
    """What each wrong call led to."""
    calls = {name: Call(wrong.args, wrong.env) for name, wrong in WRONG.items()}
    return await run_all(calls)


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_usage_ends_with_2_and_names_what_is_wrong(
    answers: dict[str, Ended], name: str
) -> None:
    status, out, err = answers[name]
    assert status == 2, out + err
    assert out == ""
    assert WRONG[name].names in err


@pytest.mark.parametrize("name", [name for name in WRONG if not WRONG[name].framed])
async def test_wrong_usage_is_answered_with_one_line(answers: dict[str, Ended], name: str) -> None:
    assert re.fullmatch(r"antiphon: [^\n]+\.\n", answers[name].err)


async def test_the_reason_for_a_name_nobody_knows_is_that_nobody_knows_it(
    answers: dict[str, Ended],
) -> None:
    err = answers["a server on a name nobody knows"].err
    assert "Unknown error" not in err
    assert "is another server running" not in err


async def test_a_setting_in_the_environment_is_not_read_where_an_option_stands_in(
    server: Server,
) -> None:
    ended = await run(
        *("publish", "news", "e", "1", *APP, "--scheme", "http", "--port", server.port),
        env={"REVERB_PORT": "https"},
    )
    assert (ended.status, ended.err) == (0, "")


# A lean installation

WITHOUT: Final = """
import sys

class Gone:
    def find_spec(self, name, *_):
        if name in {missing!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Gone())
from antiphon.cli import run
run()
"""


@pytest.mark.parametrize(
    ("module", "args", "extra"),
    [
        ("typer", ("--version",), "all"),
        ("rich", ("listen",), "all"),
        ("uvicorn", SERVE, "server"),
        ("sqlalchemy", ("demo", "--once"), "backend"),
        ("argon2", ("demo", "--once"), "backend"),
    ],
)
async def test_a_package_that_is_missing_is_one_line_that_says_what_to_install(
    module: str, args: tuple[Any, ...], extra: str
) -> None:
    ended = await run(*args, program=("-c", WITHOUT.format(missing=[module])))
    assert (ended.status, ended.out) == (1, "")
    assert re.fullmatch(rf".*pip install 'antiphon\[{extra}\]'\n", ended.err)


async def test_publishing_needs_nothing_of_the_server(server: Server) -> None:
    missing = ["uvicorn", "litestar", "sqlalchemy", "argon2", "uvloop"]
    ended = await run(
        *("publish", "news", "e", "1", *APP, "--scheme", "http", "--port", server.port),
        program=("-c", WITHOUT.format(missing=missing)),
    )
    assert (ended.status, ended.err) == (0, "")
