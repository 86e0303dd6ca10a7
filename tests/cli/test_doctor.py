"""`antiphon doctor`: what it prints, and how it ends."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from antiphon.server import Server
from tests.chat.house import PASSWORD, House
from tests.client.endpoint import Endpoint
from tests.client.peer import Peer

from .command import Ended, lines, run, running, steers
from .conftest import SECRET

pytestmark = pytest.mark.asyncio(loop_scope="module")

STEPS: Final = (
    *("dns", "tcp", "tls", "upgrade", "key", "activity", "login", "auth", "signature"),
    *("subscription", "api", "event"),
)
LINE: Final = re.compile(r"([✓!✗-]) (\w+) +(?:(\d+\.\d) ms)?  (.+)")
FIELDS: Final = {"time", "kind", "name", "outcome", "seconds", "detail", "cause", "fix"}


def at(server: Server | Peer) -> tuple[object, ...]:
    where = ("--scheme", "http", "--host", "127.0.0.1", "--port", server.port, "--timeout", "60")
    return ("doctor", "--app-key", "k", *where)


def marks(ended: Ended) -> dict[str, str]:
    """The mark of each step's line."""
    found = [LINE.fullmatch(line) for line in lines(ended.out)]
    return {match[2]: match[1] for match in found if match is not None}


def told(ended: Ended) -> dict[str, dict[str, Any]]:
    """Each step as JSON, and the verdict."""
    objects = [json.loads(line) for line in lines(ended.out)]
    for step in objects[:-1]:
        assert (step["kind"], set(step)) == ("step", FIELDS)
    assert set(objects[-1]) == {"time", "kind", "ok", "message"}
    return {found.get("name", found["kind"]): found for found in objects}


# Lines


async def test_a_good_connection_is_a_line_for_each_step_and_a_verdict(server: Server) -> None:
    ended = await run(*at(server), "--app-id", "1", env={"REVERB_APP_SECRET": SECRET})
    assert (ended.status, ended.err) == (0, "")
    *steps, empty, last = lines(ended.out)
    assert [LINE.fullmatch(line)[2] for line in steps] == list(STEPS)  # type: ignore[index]
    assert marks(ended)["event"] == "✓"
    assert marks(ended)["tls"] == "-"
    assert empty == ""
    assert last.startswith("All is well. ")
    assert steers(ended.out) == ["U+000A"] * ended.out.count("\n")


async def test_a_step_that_is_left_out_has_no_time(server: Server) -> None:
    ended = await run(*at(server))
    found = [match for line in lines(ended.out) if (match := LINE.fullmatch(line))]
    left_out = [match[2] for match in found if match[1] == "-"]
    assert left_out == ["tls", "login", "auth", "signature", "api", "event"]
    assert [match[2] for match in found if match[3] is None] == left_out


async def test_a_failure_has_its_cause_and_its_fix_below_it(server: Server) -> None:
    ended = await run(*at(server)[:2], "typo", *at(server)[3:])
    assert (ended.status, ended.err) == (1, "")
    assert marks(ended)["key"] == "✗"
    said = lines(ended.out)
    number = next(n for n, line in enumerate(said) if line.startswith("✗ key"))
    assert said[number + 1] == "  cause: No application of this server has the key 'typo'."
    assert said[number + 2].startswith("  fix:   Compare REVERB_APP_KEY")
    assert said[-1] == ("Not well: key failed. No application of this server has the key 'typo'.")


async def test_a_laravel_env_file_is_enough(server: Server, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(
        f"REVERB_APP_ID=1\nREVERB_APP_KEY=k\nREVERB_APP_SECRET={SECRET}\n"
        f"REVERB_HOST=127.0.0.1\nREVERB_PORT={server.port}\nREVERB_SCHEME=http\n"
    )
    ended = await run("doctor", "--env", file, secrets=(SECRET,))
    assert (ended.status, marks(ended)["event"]) == (0, "✓")


# JSON


async def test_programs_get_an_object_for_each_step_and_one_for_the_verdict(
    server: Server,
) -> None:
    ended = await run(*at(server), "--json")
    assert (ended.status, ended.err) == (0, "")
    found = told(ended)
    assert list(found) == [*STEPS, "verdict"]
    assert found["key"]["outcome"] == "ok"
    assert 0 <= found["upgrade"]["seconds"] < 30
    assert found["verdict"]["ok"] is True


async def test_programs_get_cause_and_fix_too(server: Server) -> None:
    ended = await run(*at(server), "--json", "--path", "/wrong")
    assert ended.status == 1
    found = told(ended)
    assert found["upgrade"]["outcome"] == "failed"
    assert "/app/…" in found["upgrade"]["cause"]
    assert "--path" in found["upgrade"]["fix"]
    assert found["verdict"]["ok"] is False


# Users


async def test_a_user_who_logs_in_joins_the_own_channel(server: Server, house: House) -> None:
    ended = await run(
        *(*at(server), "--api", house.api_url, "--email", house.john.email),
        env={"ANTIPHON_PASSWORD": PASSWORD},
    )
    assert ended.status == 0
    assert "joined private-user.2 (signed by the auth endpoint)" in ended.out


async def test_a_wrong_password_is_a_failed_step_and_no_end(server: Server, house: House) -> None:
    ended = await run(
        *(*at(server), "--api", house.api_url, "--email", house.john.email),
        env={"ANTIPHON_PASSWORD": "wrong-password"},
    )
    assert (ended.status, ended.err) == (1, "")
    assert marks(ended)["login"] == "✗"
    assert marks(ended)["activity"] == "✓"


async def test_a_token_is_enough(server: Server, house: House) -> None:
    async with house.as_(house.ali) as api:
        token = api.token
    ended = await run(*at(server), "--api", house.api_url, env={"ANTIPHON_TOKEN": token})
    assert ended.status == 0
    assert "joined private-user.1" in ended.out


async def test_a_token_of_a_backend_of_another_kind_is_sent_to_its_endpoint(
    server: Server,
) -> None:
    async with Endpoint() as endpoint:
        endpoint.answers(404)
        api = endpoint.url.removesuffix("/broadcasting/auth")
        env = {"ANTIPHON_TOKEN": "token-of-another-kind"}
        ended = await run(*at(server), "--api", api, env=env)
        assert (ended.status, marks(ended)["login"], marks(ended)["auth"]) == (0, "✓", "-")
        ended = await run(*at(server), "--api", api, "--channel", "private-a", env=env)
        assert (ended.status, marks(ended)["auth"]) == (1, "✗")
        assert endpoint.asked[-1].headers["authorization"] == "Bearer token-of-another-kind"


async def test_a_backend_that_fails_on_a_token_is_told(server: Server) -> None:
    async with Endpoint() as endpoint:
        endpoint.answers(500)
        api = endpoint.url.removesuffix("/broadcasting/auth")
        ended = await run(*at(server), "--api", api, "--token", "the-token-of-the-user")
    assert (ended.status, marks(ended)["login"]) == (1, "✗")


# Wrong usage, and the end


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (("doctor",), "--app-key"),
        (("doctor", "--app-key", "k", "--channel", "no channel"), "no channel"),
        (("doctor", "--app-key", "k", "--channel", "private-a"), "--auth-url"),
        (("doctor", "--app-key", "k", "--email", "ali@example.com"), "ANTIPHON_PASSWORD"),
        (("doctor", "--app-key", "k", "--timeout", "0"), "--timeout"),
    ],
)
async def test_wrong_usage_ends_with_2(args: tuple[str, ...], names: str) -> None:
    ended = await run(*args)
    assert (ended.status, ended.out) == (2, "")
    assert names in ended.err


async def test_a_user_needs_a_backend() -> None:
    ended = await run(
        *("doctor", "--app-key", "k", "--email", "ali@example.com"),
        env={"ANTIPHON_PASSWORD": "the-password"},
    )
    assert (ended.status, ended.out) == (2, "")
    assert "--api" in ended.err


async def test_ctrl_c_ends_it_at_once() -> None:
    async with Peer() as peer, running(*at(peer), "--timeout", "60") as command:
        await command.until("tls")
        command.signal()
        ended = await command.ended()
    assert ended.status == 130
    assert "Not well" not in ended.out


@pytest.mark.parametrize("more", [(), ("--json",)])
async def test_a_reader_who_leaves_is_no_error(server: Server, more: tuple[str, ...]) -> None:
    async with Peer() as peer, running(*at(peer), *more, "--timeout", "0.3") as command:
        await command.line()
        command.close_output()
        ended = await command.ended()
    assert ended.err == ""
