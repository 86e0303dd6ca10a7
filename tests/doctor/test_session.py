"""Key, activity and subscription: what servers say, in words."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from antiphon.client import Authorization
from antiphon.doctor.case import Case
from antiphon.doctor.session import check_activity, check_key, check_subscription
from antiphon.doctor.steps import Finding
from antiphon.doctor.upgrade import check_upgrade
from antiphon.server import Server
from antiphon.settings import App, Settings
from tests.client.peer import Dial, Peer, Script, polite

from .examined import a_case, examined, outcomes


@contextlib.asynccontextmanager
async def upgraded(script: Script, **options: Any) -> AsyncIterator[Case]:
    """A case whose upgrade is done, with a scripted server."""
    async with Peer(script) as peer:
        settings = peer.settings(**options.pop("settings", {}))
        case = a_case(settings, **options)
        try:
            assert (await check_upgrade(case)).outcome == "ok"
            yield case
        finally:
            if case.session is not None:
                case.session.close()


async def key(script: Script, **options: Any) -> Finding:
    async with upgraded(script, **options) as case:
        return await check_key(case)


async def subscription(script: Script, channel: str, **options: Any) -> Finding:
    facts = {name: options.pop(name) for name in ("authorization", "suspicion") if name in options}
    async with upgraded(script, channel=channel, **options) as case:
        for name, value in facts.items():
            setattr(case, name, value)
        assert (await check_key(case)).outcome == "ok"
        return await check_subscription(case)


# The key


async def test_a_key_the_server_knows_is_well() -> None:
    found = await key(polite)
    assert (found.outcome, found.detail) == ("ok", "the application exists; socket_id 1.1")


async def test_an_unknown_key_is_told_with_where_to_compare_it() -> None:
    async with Server(App(id="1", key="other", secret="s")) as server:
        steps = await examined(Settings(app_key="typo", port=server.port, scheme="http"))
    assert outcomes(steps)["key"] == "failed"
    assert "4001" in steps["key"].detail
    assert "has the key 'typo'" in steps["key"].cause
    assert "config:clear" in steps["key"].fix
    assert "reverb:restart" in steps["key"].fix


CODES = {
    4000: "TLS only",
    4001: "has the key 'k'",
    4003: "disabled",
    4004: "as many connections as it may",
    4005: "at this path",
    4006: "version of the protocol",
    4007: "version of the protocol",
    4008: "cuts the query string off",
    4009: "certain origins only",
    4050: "refuses this client for good",
    4100: "no room",
    4150: "cannot take the connection now",
    4200: "being restarted",
    4201: "being restarted",
    4300: "refuses this client for good",
}


@pytest.mark.parametrize("code", CODES)
async def test_a_code_in_band_has_its_cause(code: int) -> None:
    async def refuse(dial: Dial) -> None:
        await dial.upgrade()
        dial.error(code, "The server's own words")
        await dial.end()  # as Reverb, which leaves the socket open

    found = await key(refuse)
    assert found.outcome == "failed"
    assert found.detail == f"{code}: The server's own words"
    assert CODES[code] in found.advice.cause


CLOSES = {
    **CODES,
    1000: "without saying why",
    1002: "without saying why",
    1009: "no message as large",
    1011: "error of its own",
    1012: "being restarted",
    1013: "overloaded",
}


@pytest.mark.parametrize("code", CLOSES)
async def test_a_close_code_has_its_cause(code: int) -> None:
    async def refuse(dial: Dial) -> None:
        await dial.upgrade()
        await dial.close(code, "Own words")

    found = await key(refuse)
    assert found.outcome == "failed"
    assert found.detail == f"{code}: Own words"
    assert CLOSES[code] in found.advice.cause


async def test_the_origin_that_was_refused_is_told() -> None:
    async def refuse(dial: Dial) -> None:
        await dial.upgrade()
        dial.error(4009, "Origin not allowed")
        await dial.end()

    found = await key(refuse, origin="https://shop.example.com")
    assert "(https://shop.example.com)" in found.advice.cause
    assert "allowed_origins" in found.advice.fix
    assert "(none)" in (await key(refuse)).advice.cause


async def test_our_own_server_refuses_origins_in_the_same_words() -> None:
    app = App(id="1", key="k", secret="s", allowed_origins=("shop.example.com",))
    async with Server(app) as server:
        refused = await examined(server.settings(), origin="https://evil.example.com")
        taken = await examined(server.settings(), origin="https://shop.example.com")
    assert "certain origins only" in refused["key"].cause
    assert taken["key"].outcome == "ok"


async def test_an_end_without_a_word_is_told_so() -> None:
    async def hang_up(dial: Dial) -> None:
        await dial.upgrade()

    found = await key(hang_up)
    assert found.outcome == "failed"
    assert "without saying why" in found.advice.cause
    assert "--debug" in found.advice.fix


@pytest.mark.parametrize("first", ['0{"sid":"x"}', '{"type":"connected"}', '{"event":"hello"}'])
async def test_another_protocol_over_websocket_is_told_so(first: str) -> None:
    async def vite(dial: Dial) -> None:
        await dial.upgrade()
        dial.send_text(first)
        await dial.end()

    found = await key(vite)
    assert found.outcome == "failed"
    assert "This is no Pusher server" in found.detail
    assert "Vite" in found.advice.cause


async def test_a_server_that_says_nothing_is_none_of_pushers() -> None:
    async def mute(dial: Dial) -> None:
        await dial.upgrade()
        await dial.end()

    found = await key(mute, timeout=1)
    assert found.outcome == "failed"
    assert found.detail == "no pusher:connection_established in 1 s"
    assert "Something else speaks WebSocket" in found.advice.cause


# The activity


async def activity(script: Script, **options: Any) -> Finding:
    async with upgraded(script, **options) as case:
        assert (await check_key(case)).outcome == "ok"
        return await check_activity(case)


async def test_a_ping_that_comes_back_is_told_with_its_time() -> None:
    found = await activity(polite)
    assert found.outcome == "ok"
    assert found.detail.startswith("activity_timeout 120 s; pusher:ping and back in ")
    assert found.detail.endswith(" ms")


@pytest.mark.parametrize("number", [None, 0, "30"])
async def test_a_server_without_an_activity_timeout_is_warned_of(number: Any) -> None:
    async def forgetful(dial: Dial) -> None:
        await dial.upgrade()
        dial.send("pusher:connection_established", {"socket_id": "1.1", "activity_timeout": number})
        await dial.serve()

    found = await activity(forgetful)
    assert found.outcome == "warning"
    assert "no activity_timeout" in found.detail
    assert "pusher-js" in found.advice.fix


async def test_a_ping_that_does_not_come_back_is_told_so() -> None:
    async def deaf(dial: Dial) -> None:
        await dial.greet()
        await dial.end()

    found = await activity(deaf, timeout=1)
    assert found.outcome == "failed"
    assert found.detail == "no pusher:pong in 1 s"
    assert "proxy" in found.advice.cause


async def test_what_comes_before_the_pong_is_passed_over() -> None:
    async def chatty(dial: Dial) -> None:
        await dial.greet()
        await dial.event("pusher:ping")
        dial.send("pusher:ping", {})
        dial.send("news", {}, "somewhere")
        dial.send_text("no frame")
        await dial.event("pusher:pong")
        dial.send("pusher:pong", {})
        await dial.end()

    assert (await activity(chatty)).outcome == "ok"


async def test_a_server_that_ends_instead_of_answering_is_told_so() -> None:
    async def leave(dial: Dial) -> None:
        await dial.greet()
        await dial.event("pusher:ping")
        await dial.close(4200, "Restarting")

    found = await activity(leave)
    assert (found.outcome, found.detail) == ("failed", "4200: Restarting")
    assert "being restarted" in found.advice.cause


async def test_an_open_connection_that_is_refused_must_sign_in() -> None:
    async def refuse(dial: Dial) -> None:
        await dial.greet()
        await dial.event("pusher:ping")
        await dial.close(4009, "Sign in")

    assert "sign in" in (await activity(refuse)).advice.cause


# The subscription

SIGNED = Authorization("k:signature", None)


def refusing(code: int, message: str) -> Script:
    """Refuse subscriptions as Reverb does: in-band, and without the channel's name."""

    async def script(dial: Dial) -> None:
        await dial.greet()
        await dial.subscribe(accept=False)
        dial.error(code, message)
        await dial.end()

    return script


async def test_a_public_channel_is_joined_where_none_is_asked_for() -> None:
    found = await subscription(polite, "")
    assert found.outcome == "ok"
    assert found.detail.startswith("joined antiphon-doctor-")
    assert found.detail.endswith("(public)")


async def test_a_channel_that_the_endpoint_has_signed_is_joined_with_that_signature() -> None:
    async def script(dial: Dial) -> None:
        await dial.greet()
        data = await dial.subscribe()
        assert (data["auth"], data["channel_data"]) == ("k:signature", "{}")
        await dial.serve()

    found = await subscription(
        script, "presence-a", authorization=Authorization("k:signature", "{}")
    )
    assert (found.outcome, found.detail) == (
        "ok",
        "joined presence-a (signed by the auth endpoint)",
    )


@pytest.mark.parametrize("channel", ["private-a", "presence-a"])
async def test_with_the_secret_a_channel_is_signed_here(channel: str) -> None:
    async with Server(App(id="1", key="k", secret="s")) as server:
        steps = await examined(server.settings(), channel=channel)
    assert steps["subscription"].detail == f"joined {channel} (signed here)"


WHO: dict[str, tuple[dict[str, Any], str]] = {
    "the endpoint's key or secret": (
        {"authorization": SIGNED, "settings": {"app_secret": ""}},
        "The auth endpoint signs with another key or secret than the server has.",
    ),
    "the secret here": ({}, "another secret than REVERB_APP_SECRET here."),
    "both": ({"authorization": SIGNED}, "than REVERB_APP_SECRET here and at the endpoint."),
    "the endpoint's secret": (
        {"authorization": SIGNED, "suspicion": "secret"},
        "The auth endpoint signs with another secret than the server has.",
    ),
}


@pytest.mark.parametrize("name", WHO)
async def test_a_refused_signature_says_whose_it_is(name: str) -> None:
    options, says = WHO[name]
    script = refusing(4009, "Connection is unauthorized")
    found = await subscription(script, "private-a", **options)
    assert found.outcome == "failed"
    assert says in found.advice.cause
    assert "REVERB_APP_SECRET" in found.advice.fix
    assert "signature" not in found.detail


async def test_a_presence_channel_that_reverb_dislikes_misses_the_user() -> None:
    found = await subscription(refusing(4200, "Invalid message format"), "presence-a")
    assert found.outcome == "failed"
    assert "user_info" in found.advice.cause
    assert "routes/channels.php" in found.advice.fix


@pytest.mark.parametrize("code", [4004, 4100])
async def test_a_limit_is_told_so(code: int) -> None:
    async def full(dial: Dial) -> None:
        await dial.greet()
        await dial.subscribe(accept=False)
        dial.send("pusher:subscription_error", {"status": code, "error": "No"}, "presence-a")
        await dial.end()

    found = await subscription(full, "presence-a")
    assert found.outcome == "failed"
    assert "limit of the server" in found.advice.cause


async def test_a_rate_limit_is_a_limit() -> None:
    found = await subscription(refusing(4301, "Rate limit exceeded"), "public")
    assert "limit of the server" in found.advice.cause


async def test_a_name_that_the_server_dislikes_is_told_so() -> None:
    found = await subscription(refusing(4301, "Bad name"), "public")
    assert found.outcome == "failed"
    assert "Bad name" in found.detail
    assert "does not take this channel" in found.advice.cause


async def test_no_answer_to_a_subscription_is_told_so() -> None:
    async def mute(dial: Dial) -> None:
        await dial.greet()
        await dial.end()

    found = await subscription(mute, "public", timeout=1)
    assert (found.outcome, found.detail) == ("failed", "no answer for public in 1 s")
    assert "--debug" in found.advice.fix


async def test_a_connection_that_ends_over_a_subscription_is_told_so() -> None:
    async def leave(dial: Dial) -> None:
        await dial.greet()
        await dial.subscribe(accept=False)
        await dial.close(1009, "Too large")

    found = await subscription(leave, "public")
    assert (found.outcome, found.detail) == ("failed", "1009: Too large")
    assert "max_message_size" in found.advice.fix


async def test_what_has_ended_stays_ended() -> None:
    async def leave(dial: Dial) -> None:
        await dial.greet()
        await dial.close(4200, "Restarting")

    async with upgraded(leave, channel="public") as case:
        assert (await check_key(case)).outcome == "ok"
        assert (await check_activity(case)).detail == "4200: Restarting"
        assert (await check_subscription(case)).detail == "4200: Restarting"
