"""Signing with the application's own secret, and several authorizers as one."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from antiphon.client.auth import (
    Authentication,
    Authorization,
    Authorizer,
    AuthorizerByChannel,
    HttpAuthorizer,
    SecretAuthorizer,
    UserAuthenticator,
)
from antiphon.errors import AuthorizationFailed, SettingsError
from antiphon.protocol.encryption import shared_secret
from antiphon.protocol.signing import verify_channel_auth, verify_user_auth
from antiphon.settings import Settings
from tests.client.linked import Signer

MASTER_KEY = bytes(range(32))


def secret_settings(**more: Any) -> Settings:
    # Pusher documentation, "auth signatures".
    return Settings(
        **{"app_key": "278d425bdf160c739803", "app_secret": "7ad3773142a6692b25b8", **more}
    )


# The application's own secret


async def test_a_secret_signs_private_channels() -> None:
    answer = await SecretAuthorizer(secret_settings()).authorize("private-foobar", "1234.1234")
    assert answer == Authorization(
        "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
    )


async def test_a_secret_signs_presence_channels_with_the_user_as_sent() -> None:
    authorizer = SecretAuthorizer(secret_settings(), user_id="10", user_info={"name": "Ü"})
    answer = await authorizer.authorize("presence-foobar", "1234.1234")
    assert answer.channel_data is not None
    assert json.loads(answer.channel_data) == {"user_id": "10", "user_info": {"name": "Ü"}}
    settings = secret_settings()
    assert verify_channel_auth(
        answer.auth,
        settings.app_key,
        settings.app_secret,
        "1234.1234",
        "presence-foobar",
        answer.channel_data,
    )
    await authorizer.close()


async def test_a_user_is_not_named_on_private_channels() -> None:
    authorizer = SecretAuthorizer(secret_settings(), user_id="10")
    assert (await authorizer.authorize("private-foobar", "1.2")).channel_data is None


async def test_a_presence_channel_needs_a_user() -> None:
    with pytest.raises(AuthorizationFailed, match="give SecretAuthorizer a user_id") as caught:
        await SecretAuthorizer(secret_settings()).authorize("presence-foobar", "1.2")
    assert caught.value.channel == "presence-foobar"
    assert not caught.value.temporary


async def test_signing_needs_a_secret() -> None:
    with pytest.raises(SettingsError, match="app_secret"):
        SecretAuthorizer(Settings(app_key="k"))


@pytest.mark.parametrize("channel", ["private-encrypted-x", "private-encrypted-cache-x"])
async def test_an_encrypted_channel_is_given_its_own_key(channel: str) -> None:
    settings = secret_settings(encryption_master_key=base64.b64encode(MASTER_KEY).decode())
    answer = await SecretAuthorizer(settings).authorize(channel, "1.2")
    assert answer.shared_secret is not None
    assert base64.b64decode(answer.shared_secret) == shared_secret(channel, MASTER_KEY)
    assert answer.shared_secret not in repr(answer)
    assert verify_channel_auth(answer.auth, settings.app_key, settings.app_secret, "1.2", channel)


async def test_other_channels_are_given_no_key() -> None:
    settings = secret_settings(encryption_master_key=base64.b64encode(MASTER_KEY).decode())
    assert (await SecretAuthorizer(settings).authorize("private-x", "1.2")).shared_secret is None


async def test_an_encrypted_channel_needs_the_master_key() -> None:
    with pytest.raises(AuthorizationFailed, match="need an encryption_master_key") as caught:
        await SecretAuthorizer(secret_settings()).authorize("private-encrypted-x", "1.2")
    assert caught.value.channel == "private-encrypted-x"


# Signing in


async def test_a_secret_signs_its_user_in() -> None:
    authorizer = SecretAuthorizer(
        secret_settings(), user_id="10", user_info={"name": "Ü"}, watchlist=["11", "12"]
    )
    answer = await authorizer.authenticate("1234.1234")
    assert json.loads(answer.user_data) == {
        "id": "10",
        "user_info": {"name": "Ü"},
        "watchlist": ["11", "12"],
    }
    settings = secret_settings()
    assert verify_user_auth(
        answer.auth, settings.app_key, settings.app_secret, "1234.1234", answer.user_data
    )


async def test_what_is_not_known_of_a_user_is_not_said() -> None:
    # Pusher documentation, "auth signatures": the vector for a user.
    answer = await SecretAuthorizer(secret_settings(), user_id="12345").authenticate("1234.1234")
    assert answer == Authentication(
        "278d425bdf160c739803:4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba",
        '{"id":"12345"}',
    )


async def test_signing_in_needs_a_user() -> None:
    with pytest.raises(AuthorizationFailed, match="give SecretAuthorizer a user_id") as caught:
        await SecretAuthorizer(secret_settings()).authenticate("1.2")
    assert caught.value.channel == ""


def test_a_watchlist_has_a_hundred_users_at_most() -> None:
    SecretAuthorizer(secret_settings(), user_id="1", watchlist=["7"] * 100)
    with pytest.raises(SettingsError, match="at most 100 users; this one has 101"):
        SecretAuthorizer(secret_settings(), user_id="1", watchlist=["7"] * 101)


def test_an_answer_shows_no_signature() -> None:
    signed = Authorization("k:sig", '{"user_id":"1"}', "c2VjcmV0")
    assert repr(signed) == """Authorization(channel_data='{"user_id":"1"}')"""
    assert signed.__rich_repr__() == [("", repr(signed))]
    user = Authentication("k:sig", '{"id":"1"}')
    assert repr(user) == """Authentication(user_data='{"id":"1"}')"""
    assert user.__rich_repr__() == [("", repr(user))]


def test_both_authorizers_sign_channels_and_users() -> None:
    signers: list[Authorizer] = [
        HttpAuthorizer("http://127.0.0.1:1/auth"),
        SecretAuthorizer(secret_settings()),
    ]
    authenticators: list[UserAuthenticator] = [
        HttpAuthorizer("http://127.0.0.1:1/auth"),
        SecretAuthorizer(secret_settings()),
    ]
    assert all(callable(each.authorize) for each in signers)
    assert all(callable(each.authenticate) for each in authenticators)


# Several authorizers


async def test_the_first_pattern_that_fits_a_channel_has_its_say() -> None:
    orders, chat, others = Signer(), Signer(), Signer()
    authorizer = AuthorizerByChannel(
        {"private-orders-*": orders, "presence-*": chat, "private-*": others}
    )
    for channel in ("private-orders-7", "private-x", "presence-room", "private-Orders-7"):
        answer = await authorizer.authorize(channel, "1.2")
        assert answer.auth == f"k:signed-1.2-{channel}"
    assert orders.asked == [("private-orders-7", "1.2")]
    assert chat.asked == [("presence-room", "1.2")]
    assert others.asked == [("private-x", "1.2"), ("private-Orders-7", "1.2")]


async def test_a_channel_that_fits_no_pattern_is_told_with_the_patterns() -> None:
    authorizer = AuthorizerByChannel({"private-orders-*": Signer(), "presence-?": Signer()})
    with pytest.raises(AuthorizationFailed) as caught:
        await authorizer.authorize("private-x", "1.2")
    assert caught.value.channel == "private-x"
    assert str(caught.value) == (
        "No authorizer is for private-x: none of the patterns fits (private-orders-*, presence-?)."
    )
    with pytest.raises(AuthorizationFailed, match="there are none"):
        await AuthorizerByChannel({}).authorize("private-x", "1.2")


async def test_a_refusal_comes_through_as_it_is() -> None:
    signer = Signer()
    signer.refuse("private-x")
    with pytest.raises(AuthorizationFailed) as caught:
        await AuthorizerByChannel({"*": signer}).authorize("private-x", "1.2")
    assert caught.value is signer.errors["private-x"]


async def test_every_authorizer_is_closed_once() -> None:
    class Counting(Signer):
        closed = 0

        async def close(self) -> None:
            self.closed += 1

    one, two = Counting(), Counting()
    await AuthorizerByChannel({"a-*": one, "b-*": two, "c-*": one}).close()
    assert (one.closed, two.closed) == (1, 1)


async def test_an_authorizer_that_cannot_be_closed_does_not_keep_the_others_open() -> None:
    class Stuck(Signer):
        async def close(self) -> None:
            raise RuntimeError("stuck")

    other = Signer()
    with pytest.raises(RuntimeError, match="stuck"):
        await AuthorizerByChannel({"a-*": Stuck(), "b-*": other}).close()
    assert other.is_closed
