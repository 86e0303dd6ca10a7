"""The steps as a whole: their order, what is left out, and what it comes to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from antiphon.chat import RestClient
from antiphon.doctor import Step, examine, verdict
from antiphon.errors import InvalidName, LoginFailed, SettingsError
from antiphon.server import Server
from antiphon.settings import App, Settings
from tests.chat.house import PASSWORD, open_house
from tests.client.endpoint import Endpoint
from tests.client.linked import soon
from tests.client.peer import Dial, Peer, polite

from .examined import examined, outcomes, told

SECRET = "secret-never-to-be-printed"
APP = App(id="1", key="k", secret=SECRET)
NAMES = [
    *("dns", "tcp", "tls", "upgrade", "key", "activity", "login", "auth", "signature"),
    *("subscription", "api", "event"),
]


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def test_every_step_is_told_in_its_order() -> None:
    async with Server(APP) as server:
        assert list(await examined(server.settings())) == NAMES


async def test_with_everything_given_everything_is_examined(tmp_path: Path) -> None:
    async with Server(APP) as server, open_house(server.settings(), tmp_path) as house:

        async def log_in() -> tuple[str, str]:
            async with RestClient(house.api_url) as api:
                user = (await api.login(house.ali.email, PASSWORD)).user
                return api.token, user.channel

        settings = Settings(
            app_id="1",
            app_key="k",
            app_secret=SECRET,
            port=server.port,
            scheme="http",
            api_url=house.api_url,
        )
        steps = await examined(settings, log_in=log_in)
        assert outcomes(steps) == {name: "ok" for name in NAMES if name != "tls"}
        assert steps["subscription"].detail.startswith("joined private-user.1 (signed by the auth")

        steps = await examined(settings, log_in=log_in, channel="presence-conversation.1")
        assert steps["subscription"].outcome == "ok"
        steps = await examined(settings, log_in=log_in, channel="private-user.2")
        assert outcomes(steps)["auth"] == "failed"
        assert "may not join" in steps["auth"].cause
        assert steps["subscription"].detail == "not tried, because auth failed"
        assert steps["event"].outcome == "ok", "it has a channel of its own"


async def test_what_follows_from_a_failure_names_the_failure_and_not_what_lies_between(
    closed_port: int,
) -> None:
    settings = Settings(app_id="1", app_key="k", app_secret=SECRET, scheme="http", port=closed_port)
    steps = await examined(settings)
    assert outcomes(steps) == {"dns": "ok", "tcp": "failed"}
    for name in ("tls", "upgrade", "key", "activity", "subscription", "api", "event"):
        assert steps[name].detail == "not tried, because tcp failed"
        assert steps[name].cause == ""


async def test_the_endpoint_is_examined_where_there_is_no_connection(closed_port: int) -> None:
    async with Endpoint() as endpoint:
        settings = Settings(
            app_key="k", scheme="http", port=closed_port, auth_endpoint=endpoint.url
        )
        steps = await examined(settings, channel="private-a")
        assert steps["auth"].outcome == "ok"
        assert endpoint.asked[0].form["socket_id"] == "1.1"


async def test_a_login_that_fails_leaves_the_endpoint_alone() -> None:
    async def log_in() -> tuple[str, str]:
        raise LoginFailed("No.", code=401)

    async with Peer(polite) as peer, Endpoint() as endpoint:
        settings = peer.settings(auth_endpoint=endpoint.url)
        steps = await examined(settings, channel="private-a", log_in=log_in)
        assert outcomes(steps)["login"] == "failed"
        assert endpoint.asked == []
    for name in ("auth", "signature", "subscription"):
        assert steps[name].detail == "not tried, because login failed"


async def test_nothing_secret_is_told() -> None:
    token = "token-never-to-be-printed"
    theirs = App(id="1", key="k", secret="another-secret")
    async with Server(theirs) as server, Endpoint() as endpoint:
        endpoint.answers(200, '{"auth":"other:' + "ab" * 32 + '"}')
        settings = Settings(
            app_id="1",
            app_key="k",
            app_secret=SECRET,
            scheme="http",
            port=server.port,
            auth_endpoint=endpoint.url,
        )
        steps = await examined(settings, channel="private-a", token=token)
    assert {name for name, end in outcomes(steps).items() if end == "failed"} == {
        "signature",
        "subscription",
        "api",
    }
    everything = " ".join(told(step) for step in steps.values())
    assert SECRET not in everything
    assert token not in everything
    assert "abab" not in everything


async def test_the_connection_is_closed_when_the_examination_ends_early() -> None:
    ended = asyncio.Event()

    async def watch(dial: Dial) -> None:
        await dial.greet()
        await dial.closed()
        ended.set()

    async with Peer(watch) as peer:
        async with contextlib.aclosing(examine(peer.settings())) as examination:
            async for step in examination:
                if step.name == "key":
                    break
        await soon(ended.wait())


# What cannot be meant


async def first(settings: Settings, **options: str) -> None:
    async with contextlib.aclosing(examine(settings, **options)) as examination:  # type: ignore[arg-type]
        await anext(examination)


async def test_a_name_that_no_channel_can_have_is_refused() -> None:
    with pytest.raises(InvalidName):
        await first(Settings(app_key="k"), channel="no channel")


async def test_a_private_channel_that_nobody_signs_is_refused() -> None:
    with pytest.raises(SettingsError, match="private-a needs a signature"):
        await first(Settings(app_key="k"), channel="private-a")


@pytest.mark.parametrize("option", ["token", "origin"])
async def test_what_no_header_can_carry_is_refused(option: str) -> None:
    with pytest.raises(SettingsError, match="no header can carry"):
        await first(Settings(app_key="k"), **{option: "a\r\nb"})


# The verdict


def step(name: str, outcome: str, cause: str = "") -> Step:
    return Step(name=name, outcome=outcome, seconds=0, detail="d", cause=cause)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([step("dns", "ok")], "All is well, as far as it could be examined."),
        ([step("event", "ok")], "BROADCAST_CONNECTION (reverb)"),
        (
            [step("tls", "warning", "Soon."), step("event", "ok")],
            "It works, with a warning for tls. Soon.",
        ),
        (
            [step("tls", "warning", "Soon."), step("key", "failed", "Unknown.")],
            "Not well: key failed. Unknown.",
        ),
        (
            [step("key", "failed", "Unknown."), step("api", "failed", "No.")],
            "Not well: key failed (2 steps in all). Unknown.",
        ),
    ],
)
def test_the_verdict_is_the_first_failure_or_a_warning_or_that_all_is_well(
    steps: list[Step], says: str
) -> None:
    assert says in verdict(steps)
