"""`antiphon listen` where it cannot: one line that says what failed, where, and what to try."""

from __future__ import annotations

import contextlib
import re
from datetime import timedelta
from typing import Final, NamedTuple

import pytest
import pytest_asyncio

from antiphon.server import Server
from tests.chat.house import PASSWORD, House, open_house

from .command import Call, Ended, lines, run_all, steers
from .strangers import answering, http_server, kept_port, saying, self_signed, tcp_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN: Final = "token-never-to-be-printed"
KEY: Final = ("listen", "--app-key", "k", "--max-attempts", "1")
PAGE: Final = "<!doctype html><html><body>Sign in</body></html>"
RUDE: Final = '{"message":"\\u001b]0;owned\\u0007\\u009b2J\\nantiphon: all is well"}'

FULL: Final = '{"event":"pusher:error","data":{"code":4004,"message":"Over connection quota"}}'


class Failure(NamedTuple):
    """What the line must say, and what kind of error JSON must tell, if any."""

    says: str
    kind: str = ""
    code: int | None = None


# `{where}` is the address that was asked.
CONNECTION: Final = {
    "nothing listens": Failure("Nothing listens on {where}", "connection"),
    "an unknown name": Failure(r"nowhere\.invalid cannot be found", "connection"),
    "TLS where none is spoken": Failure("{where} does not speak TLS.*http", "connection"),
    "an untrusted certificate": Failure("certificate of {where} is not trusted", "connection"),
    "no TLS where it is spoken": Failure("{where}.*scheme", "connection"),
    "a web server": Failure("{where} answered 404", "connection", 404),
    "a redirect": Failure("{where} answered 301.*scheme", "connection", 301),
    "a mail server": Failure("{where}.*no WebSocket|{where}.*Pusher", "connection"),
    "one that hangs up": Failure("{where} hung up", "connection"),
    "another WebSocket server": Failure("{where}.*no Pusher|no Pusher.*{where}", "connection"),
    "a wrong key": Failure("{where}.*key|key.*{where}", "connection", 4001),
    "an application over its quota": Failure("{where}.*quota|quota.*{where}", "connection", 4004),
}
LOGIN: Final = {
    "a wrong password": Failure("{where}/api/login refused the login.*wrong"),
    "an unknown user": Failure("{where}/api/login refused the login.*wrong"),
    "a wrong token": Failure("{where}.*token.*[Ll]og in again"),
    "an expired token": Failure("{where}.*token.*[Ll]og in again"),
    "an unreachable backend": Failure("backend at {where}.*running"),
    "a backend of another kind": Failure("{where}/api/login.*404.*chat backend"),
    "a backend that is a page": Failure("{where}/api/login.*chat backend"),
    "a backend that redirects": Failure("{where}/api/login.*redirect"),
    "a backend without TLS": Failure("backend at {where}.*TLS.*http"),
    "a backend nobody trusts": Failure("{where}.*certificate"),
    "a rude backend": Failure("{where}/api/login refused the login"),
}
CHANNEL: Final = {
    "somebody else's channel": Failure("{where}.*403 for private-user.2", "subscription", 403),
    "a token that expires at once": Failure(
        "{where}.*401 for private-user.1.*log in again", "subscription", 401
    ),
    "an unknown token": Failure("{where}.*401 for private-room.*", "subscription", 401),
    "an unreachable endpoint": Failure("{where}.*private-room.*running", "subscription"),
    "an endpoint that is a page": Failure("{where}.*no signature.*", "subscription", 200),
    "an endpoint without an answer": Failure("{where}.*without a body", "subscription", 200),
    "an endpoint that redirects": Failure("{where}.*302.*redirects", "subscription", 302),
    "an endpoint nobody knows": Failure("{where}.*404.*endpoint", "subscription", 404),
}
ALL: Final = {**CONNECTION, **LOGIN, **CHANNEL}


# Before it has connected, there is no difference but for what stands on standard output.
FOR_PROGRAMS: Final = {**CONNECTION, "a wrong password": LOGIN["a wrong password"], **CHANNEL}


class Seen(NamedTuple):
    """What a failure looked like, for people and for programs, and which address was asked."""

    where: str
    people: Ended
    programs: Ended | None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seen(
    server: Server, house: House, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Seen]:
    """All failures, for people and for programs, many at once."""
    folder = tmp_path_factory.mktemp("failures")
    (folder / "brief").mkdir()
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        places = {
            "ours": server.port,
            "free": stack.enter_context(kept_port()),
            "404": await enter(http_server(answering(404, "Not Found"))),
            "301": await enter(http_server(answering(301, Location="https://127.0.0.1/"))),
            "302": await enter(http_server(answering(302, Location="/login"))),
            "page": await enter(http_server(answering(200, PAGE))),
            "empty": await enter(http_server(answering(200))),
            "rude": await enter(http_server(answering(401, RUDE))),
            "hello": await enter(http_server(saying('{"hello":"world"}', "Hello!"))),
            "full": await enter(http_server(saying(FULL, close=4004))),
            "mail": await enter(tcp_server(b"220 mail.example.com ESMTP\r\n")),
            "mute": await enter(tcp_server(b"")),
            "tls": await enter(tcp_server(b"", tls=self_signed(folder))),
        }
        lifetime = timedelta(microseconds=1)
        brief = await enter(
            open_house(server.settings(), folder / "brief", token_lifetime=lifetime)
        )
        async with brief.as_(brief.ali) as api:
            expired = api.token
        asked = _calls(places, house, brief, expired)
        calls = {(name, False): call for name, (_, call) in asked.items()}
        for name in FOR_PROGRAMS:
            args, env = calls[name, False]
            calls[name, True] = Call((*args, "--json"), env)
        ended = await run_all(calls)
    return {
        name: Seen(where, ended[name, False], ended.get((name, True)))
        for name, (where, _) in asked.items()
    }


def _calls(
    places: dict[str, int], house: House, brief: House, expired: str
) -> dict[str, tuple[str, Call]]:
    """The address asked and the call, for each failure."""

    def dial(place: str, *more: str, scheme: str = "http") -> tuple[str, Call]:
        port = places[place]
        where = ("--host", "127.0.0.1", "--port", port, "--scheme", scheme)
        return f"127.0.0.1:{port}", Call((*KEY, *where, "--channel", "news", *more))

    ours = ("--host", "127.0.0.1", "--port", places["ours"], "--scheme", "http")

    def login(
        url: str, email: str = "ali@example.com", password: str = PASSWORD, token: str = ""
    ) -> tuple[str, Call]:
        who = ("--token", token) if token else ("--email", email)
        return url, Call((*KEY, *ours, "--api", url, *who), {"ANTIPHON_PASSWORD": password})

    def join(url: str, channel: str = "private-room") -> tuple[str, Call]:
        more = ("--auth-url", url, "--token", TOKEN, "--channel", channel)
        return url, Call((*KEY, *ours, *more))

    def at(place: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{places[place]}"

    ali = ("--api", house.api_url, "--email", "ali@example.com")
    others = Call(
        (*KEY, *ours, *ali, "--channel", "private-user.2"), {"ANTIPHON_PASSWORD": PASSWORD}
    )
    unknown = (*KEY, "--scheme", "http", "--host", "nowhere.invalid", "--channel", "news")
    return {
        "nothing listens": dial("free"),
        "an unknown name": ("nowhere.invalid", Call(unknown)),
        "TLS where none is spoken": dial("ours", scheme="https"),
        "an untrusted certificate": dial("tls", scheme="https"),
        "no TLS where it is spoken": dial("tls"),
        "a web server": dial("404"),
        "a redirect": dial("301"),
        "a mail server": dial("mail"),
        "one that hangs up": dial("mute"),
        "another WebSocket server": dial("hello"),
        "a wrong key": dial("ours", "--app-key", "nobody"),
        "an application over its quota": dial("full"),
        "a wrong password": login(house.api_url, password="a-wrong-password"),
        "an unknown user": login(house.api_url, "nobody@example.com"),
        "a wrong token": login(house.api_url, token=TOKEN),
        "an expired token": login(brief.api_url, token=expired),
        "an unreachable backend": login(at("free")),
        "a backend of another kind": login(at("404")),
        "a backend that is a page": login(at("page")),
        "a backend that redirects": login(at("302")),
        "a backend without TLS": login(at("404", "https")),
        "a backend nobody trusts": login(at("tls", "https")),
        "a rude backend": login(at("rude")),
        "somebody else's channel": (house.api_url, others),
        "a token that expires at once": login(brief.api_url),
        "an unknown token": join(f"{house.api_url}/broadcasting/auth"),
        "an unreachable endpoint": join(at("free")),
        "an endpoint that is a page": join(at("page")),
        "an endpoint without an answer": join(at("empty")),
        "an endpoint that redirects": join(at("302")),
        "an endpoint nobody knows": join(at("404")),
    }


@pytest.mark.parametrize("name", ALL)
async def test_it_gives_up_with_1(seen: dict[str, Seen], name: str) -> None:
    _, people, programs = seen[name]
    assert people.status == 1
    assert programs is None or programs.status == 1


@pytest.mark.parametrize("name", ALL)
async def test_people_read_what_failed_and_where(seen: dict[str, Seen], name: str) -> None:
    where, (_, out, err), _ = seen[name]
    reasons = [line for line in lines(out) if "[ERROR]" in line] + lines(err)
    says = ALL[name].says.format(where=re.escape(where))
    assert re.search(says, reasons[-1]), reasons


@pytest.mark.parametrize("name", [*LOGIN, *CHANNEL, "a wrong key", "an application over its quota"])
async def test_people_read_it_in_one_line(seen: dict[str, Seen], name: str) -> None:
    _, (_, out, err), _ = seen[name]
    reasons = [line for line in lines(out) if "[ERROR]" in line] + lines(err)
    assert len(reasons) == 1, reasons


@pytest.mark.parametrize("name", FOR_PROGRAMS)
async def test_programs_read_it_on_standard_error_in_one_line(
    seen: dict[str, Seen], name: str
) -> None:
    where, _, programs = seen[name]
    assert programs is not None
    says, err = ALL[name].says.format(where=re.escape(where)), programs.err
    assert re.fullmatch(r"antiphon: [^\n]+\n", err), err
    assert re.search(says, err), err


@pytest.mark.parametrize("name", [*CONNECTION, *CHANNEL])
async def test_programs_read_kind_and_code_on_standard_output(
    seen: dict[str, Seen], name: str
) -> None:
    programs = seen[name].programs
    assert programs is not None
    errors = [o for o in programs.objects if o["kind"] == "error"]
    assert errors, programs.out
    assert {(o["type"], o["code"]) for o in errors} == {(ALL[name].kind, ALL[name].code)}
    last = "failed" if name in CONNECTION else "disconnected"
    assert programs.objects[-1]["current"] == last


async def test_before_it_has_connected_programs_read_nothing_on_standard_output(
    seen: dict[str, Seen],
) -> None:
    programs = seen["a wrong password"].programs
    assert programs is not None
    assert programs.out == ""


@pytest.mark.parametrize("name", ALL)
async def test_sentences_end_with_one_mark(seen: dict[str, Seen], name: str) -> None:
    _, (_, out, err), _ = seen[name]
    for line in [line for line in lines(out) if "[ERROR]" in line] + lines(err):
        assert re.search(r"[^.?!][.?!]$", line), line


async def test_the_words_of_a_stranger_do_not_steer_the_terminal(seen: dict[str, Seen]) -> None:
    people = seen["a rude backend"].people
    for line in lines(people.out) + lines(people.err):
        assert steers(line) == []
