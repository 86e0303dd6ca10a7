from __future__ import annotations

import base64
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from antiphon import __version__
from antiphon.errors import SettingsError
from antiphon.settings import App, Settings, WebhookEndpoint

REVERB_MASTER_KEY = base64.b64encode(b"r" * 32).decode()
PUSHER_MASTER_KEY = base64.b64encode(b"p" * 32).decode()
REVERB = {
    "REVERB_APP_ID": "reverb-id",
    "REVERB_APP_KEY": "reverb-key",
    "REVERB_APP_SECRET": "reverb-secret",
    "REVERB_HOST": "reverb.example.com",
    "REVERB_PORT": "8080",
    "REVERB_SCHEME": "http",
    "REVERB_ENCRYPTION_MASTER_KEY_BASE64": REVERB_MASTER_KEY,
}
PUSHER = {
    "PUSHER_APP_ID": "pusher-id",
    "PUSHER_APP_KEY": "pusher-key",
    "PUSHER_APP_SECRET": "pusher-secret",
    "PUSHER_HOST": "pusher.example.com",
    "PUSHER_PORT": "6001",
    "PUSHER_SCHEME": "http",
    "PUSHER_ENCRYPTION_MASTER_KEY_BASE64": PUSHER_MASTER_KEY,
}


def from_env(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    return Settings.from_env(environ=environ or {}, **overrides)


def env_file(folder: Path, text: str) -> Path:
    path = folder / ".env"
    path.write_text(text, encoding="utf-8")
    return path


# Settings


def test_a_key_is_enough() -> None:
    settings = Settings(app_key="key")
    assert (settings.host, settings.port, settings.scheme) == ("127.0.0.1", 443, "https")
    assert (settings.path, settings.app_id, settings.app_secret) == ("", "", "")
    assert settings.secure
    assert settings.http_url == "https://127.0.0.1:443"


@pytest.mark.parametrize(("scheme", "port", "secure"), [("https", 443, True), ("http", 80, False)])
def test_the_port_follows_from_the_scheme(scheme: str, port: int, secure: bool) -> None:
    settings = Settings(app_key="key", scheme=scheme)
    assert (settings.port, settings.secure) == (port, secure)
    assert Settings(app_key="key", scheme=scheme, port=0).port == port


@pytest.mark.parametrize("port", [1, 8080, 65535])
def test_a_port_that_is_given_is_used(port: int) -> None:
    assert Settings(app_key="key", port=port).port == port


def test_the_address_to_dial_carries_what_every_client_sends() -> None:
    settings = Settings(app_key="key", host="example.com", scheme="https")
    assert settings.websocket_url == (
        f"wss://example.com:443/app/key?protocol=7&client=antiphon-python&version={__version__}"
    )
    insecure = Settings(app_key="key", host="example.com", scheme="http", port=8080)
    assert insecure.websocket_url.startswith("ws://example.com:8080/app/key?")


def test_a_key_is_escaped_in_the_address() -> None:
    assert "/app/a%2Fb%3Fc%20d?" in Settings(app_key="a/b?c d").websocket_url


@pytest.mark.parametrize("host", ["::1", "2001:db8::7"])
def test_an_ipv6_address_gets_its_brackets(host: str) -> None:
    settings = Settings(app_key="key", host=host, scheme="http", port=8080)
    assert settings.http_url == f"http://[{host}]:8080"
    assert settings.websocket_url.startswith(f"ws://[{host}]:8080/app/key?")


def test_an_ipv6_address_in_brackets_is_the_same_address() -> None:
    settings = Settings(app_key="key", host="[::1]", scheme="http", port=8080)
    assert settings.http_url == "http://[::1]:8080"


@pytest.mark.parametrize(
    ("path", "prefix"),
    [("", ""), ("/", ""), ("//", ""), ("ws", "/ws"), ("/ws", "/ws"), ("/a/b/", "/a/b")],
)
def test_a_path_goes_in_front_of_everything(path: str, prefix: str) -> None:
    settings = Settings(app_key="key", host="example.com", path=path)
    assert settings.path == prefix
    assert settings.http_url == f"https://example.com:443{prefix}"
    assert f"example.com:443{prefix}/app/key?" in settings.websocket_url


@pytest.mark.parametrize(
    ("api_url", "endpoint", "auth_url"),
    [
        ("", "/broadcasting/auth", ""),
        ("https://a.example", "/broadcasting/auth", "https://a.example/broadcasting/auth"),
        ("https://a.example/", "/auth", "https://a.example/auth"),
        ("https://a.example/api/", "/auth", "https://a.example/api/auth"),
        ("", "https://b.example/auth", "https://b.example/auth"),
        ("https://a.example", "http://b.example/auth", "http://b.example/auth"),
    ],
)
def test_channels_are_signed_under_the_api_or_at_a_full_address(
    api_url: str, endpoint: str, auth_url: str
) -> None:
    settings = Settings(app_key="key", api_url=api_url, auth_endpoint=endpoint)
    assert settings.auth_url == auth_url
    settings = Settings(app_key="key", api_url=api_url, user_auth_endpoint=endpoint)
    assert settings.user_auth_url == auth_url


def test_signing_in_has_laravels_path_unless_another_is_given() -> None:
    settings = Settings(app_key="key", api_url="https://a.example")
    assert settings.user_auth_url == "https://a.example/broadcasting/user-auth"
    assert Settings(app_key="key").user_auth_url == ""


def test_an_endpoint_without_a_slash_stays_on_the_apis_host() -> None:
    # Else the user's token goes to a host named "a.examplebroadcasting".
    settings = Settings(
        app_key="key",
        api_url="https://a.example",
        auth_endpoint="broadcasting/auth",
        user_auth_endpoint="broadcasting/user-auth",
    )
    assert settings.auth_url == "https://a.example/broadcasting/auth"
    assert settings.user_auth_url == "https://a.example/broadcasting/user-auth"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"app_key": ""}, "REVERB_APP_KEY"),
        ({"scheme": "wss"}, "http or https, not 'wss'"),
        ({"scheme": "HTTPS"}, "http or https"),
        ({"host": ""}, "no host name"),
        ({"host": "https://example.com"}, "no host name"),
        ({"host": "example.com/path"}, "no host name"),
        ({"host": "user@example.com"}, "no host name"),
        ({"host": "two hosts"}, "no host name"),
        ({"host": "example.com\n"}, "no host name"),
        ({"host": "a\r\nX-Header: b"}, "no host name"),
        ({"host": "[example.com]"}, "no host name"),
        ({"host": "[::1"}, "no host name"),
        ({"http_host": "https://example.com"}, "no host name"),
        ({"http_host": "example.com:443"}, "no host name"),
        ({"auth_endpoint": "ftp://example.com/auth"}, "neither a path nor an address"),
        ({"user_auth_endpoint": "ftp://example.com/auth"}, "neither a path nor an address"),
        ({"host": "example.com?x"}, "no host name"),
        ({"host": "example.com#x"}, "no host name"),
        ({"port": "8080"}, "a number, not '8080'"),
        ({"port": -1}, "between 1 and 65535, -1 does not"),
        ({"port": 65536}, "between 1 and 65535, 65536 does not"),
        ({"api_url": "example.com"}, "starts with http"),
        ({"api_url": "ftp://example.com"}, "starts with http"),
        ({"api_url": "//example.com"}, "starts with http"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(**{"app_key": "key", **fields})
    assert words in str(caught.value)


@pytest.mark.parametrize("host", ["localhost:8080", "example.com:443", "127.0.0.1:80"])
def test_a_port_does_not_belong_to_the_host(host: str) -> None:
    # Taken for an IPv6 address, it would be dialled as "[localhost:8080]:443".
    with pytest.raises(SettingsError, match="no host name"):
        Settings(app_key="key", host=host)


@pytest.mark.parametrize("field", ["api_url", "auth_endpoint", "user_auth_endpoint"])
def test_an_address_that_is_none_is_a_settings_error(field: str) -> None:
    fields: dict[str, Any] = {"app_key": "key", field: "http://[oops"}
    with pytest.raises(SettingsError):
        Settings(**fields)


@pytest.mark.parametrize(
    "key",
    [
        "never-print-this",
        "bmV2ZXItcHJpbnQtdGhpcw==",
        base64.b64encode(b"x" * 31).decode(),
        base64.b64encode(b"x" * 33).decode(),
        base64.b64encode(b"x" * 32).decode() + "\n",
        base64.b64encode(b"x" * 32).decode().rstrip("="),
        base64.urlsafe_b64encode(b"\xff" * 32).decode(),
        "ü" * 32,
        "\ud800",
        " ",
    ],
    ids=ascii,
)
def test_an_encryption_master_key_that_is_none_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(SettingsError, match="base64 of 32 bytes") as caught:
        Settings(app_key="key", encryption_master_key=key)
    assert key == " " or key not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(SettingsError, match="encryption master key"):
        from_env({**REVERB, "REVERB_ENCRYPTION_MASTER_KEY_BASE64": key})


def test_an_encryption_master_key_is_kept_as_it_was_given() -> None:
    assert Settings(app_key="key").encryption_master_key == ""
    settings = Settings(app_key="key", encryption_master_key=REVERB_MASTER_KEY)
    assert settings.encryption_master_key == REVERB_MASTER_KEY


def test_an_application_without_a_key_is_told_where_to_put_it() -> None:
    with pytest.raises(SettingsError, match="REVERB_APP_KEY"):
        from_env({})


SECRET = "very-much-a-secret"


def test_the_secret_is_in_no_representation_of_the_settings() -> None:
    settings = Settings(app_key="key", app_id="1", app_secret=SECRET, host="example.com")
    for text in (repr(settings), str(settings), f"{settings}", repr([settings])):
        assert SECRET not in text
        assert "key" in text
        assert "example.com" in text


def test_the_encryption_master_key_is_in_no_representation_of_the_settings() -> None:
    settings = Settings(app_key="key", encryption_master_key=REVERB_MASTER_KEY)
    for text in (repr(settings), str(settings), repr(settings.__rich_repr__())):
        assert REVERB_MASTER_KEY not in text


def test_the_secret_is_in_no_representation_of_an_application() -> None:
    app = App(id="1", key="key", secret=SECRET)
    assert repr(app) == str(app) == "App(id='1', key='key')"


@pytest.mark.parametrize(
    "value", [Settings(app_key="key", app_secret=SECRET), App(id="1", key="key", secret=SECRET)]
)
def test_the_secret_is_not_told_to_rich_either(value: Any) -> None:
    # msgspec gives its structs a `__rich_repr__`: Rich's tracebacks print locals through it.
    told = value.__rich_repr__() if hasattr(value, "__rich_repr__") else ()
    assert SECRET not in repr(list(told))


def test_no_refusal_tells_the_secret() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(app_key="key", app_secret=SECRET, host="no host")
    assert SECRET not in str(caught.value)


def test_settings_do_not_change() -> None:
    settings = Settings(app_key="key")
    with pytest.raises(AttributeError):
        settings.port = 5  # type: ignore[misc]
    assert settings == Settings(app_key="key", port=443)
    assert len({settings, Settings(app_key="key")}) == 1


# From the environment


def test_the_names_of_reverb_are_read_as_they_stand() -> None:
    assert from_env(REVERB) == Settings(
        app_id="reverb-id",
        app_key="reverb-key",
        app_secret="reverb-secret",
        host="reverb.example.com",
        port=8080,
        scheme="http",
        encryption_master_key=REVERB_MASTER_KEY,
    )


def test_the_names_of_pusher_are_read_as_they_stand() -> None:
    assert from_env(PUSHER) == Settings(
        app_id="pusher-id",
        app_key="pusher-key",
        app_secret="pusher-secret",
        host="pusher.example.com",
        port=6001,
        scheme="http",
        encryption_master_key=PUSHER_MASTER_KEY,
    )


def test_reverb_goes_before_pusher() -> None:
    assert from_env({**PUSHER, **REVERB}) == from_env(REVERB)
    assert from_env({**REVERB, **PUSHER}) == from_env(REVERB)


def test_a_key_of_reverb_takes_nothing_from_pusher() -> None:
    settings = from_env({**PUSHER, "REVERB_APP_KEY": "reverb-key"})
    assert settings == Settings(app_key="reverb-key")


def test_a_host_of_reverb_without_a_key_is_where_pushers_key_is_used() -> None:
    settings = from_env({**PUSHER, "REVERB_HOST": "reverb.example.com"})
    assert (settings.app_key, settings.host) == ("pusher-key", "reverb.example.com")


def test_a_cluster_names_the_hosted_service() -> None:
    settings = from_env({"PUSHER_APP_KEY": "key", "PUSHER_APP_CLUSTER": "eu"})
    assert settings.websocket_url.startswith("wss://ws-eu.pusher.com:443/app/key?")
    assert settings.http_url == "https://api-eu.pusher.com:443"


@pytest.mark.parametrize("source", ["argument", "environment", "file"])
def test_a_host_from_elsewhere_leaves_nothing_to_the_cluster(source: str, tmp_path: Path) -> None:
    # Else what is meant for this machine is published at Pusher's.
    hosted = {"PUSHER_APP_KEY": "key", "PUSHER_APP_CLUSTER": "mt1"}
    if source == "argument":
        settings = from_env(hosted, host="localhost")
    elif source == "environment":
        path = env_file(tmp_path, "PUSHER_APP_KEY=key\nPUSHER_APP_CLUSTER=mt1\n")
        settings = from_env({"PUSHER_HOST": "localhost"}, env_file=path)
    else:
        settings = from_env({**hosted, "REVERB_HOST": "localhost"})
    assert settings.http_url == "https://localhost:443"
    assert settings.websocket_url.startswith("wss://localhost:443/app/key?")


def test_the_http_api_may_have_a_host_of_its_own() -> None:
    settings = Settings(app_key="key", host="ws.example.com", http_host="api.example.com", path="x")
    assert settings.http_url == "https://api.example.com:443/x"
    assert settings.websocket_url.startswith("wss://ws.example.com:443/x/app/key?")


def test_a_host_goes_before_the_cluster() -> None:
    # Laravel's own .env names the cluster mt1 even where a host is given.
    assert from_env({**PUSHER, "PUSHER_APP_CLUSTER": "mt1"}).host == "pusher.example.com"


def test_a_cluster_is_not_for_a_key_of_reverb() -> None:
    settings = from_env({"REVERB_APP_KEY": "key", "PUSHER_APP_CLUSTER": "mt1"})
    assert settings.host == "127.0.0.1"


def test_empty_names_count_as_absent() -> None:
    # Laravel's .env lists `PUSHER_HOST=` without a value.
    environ = {"PUSHER_HOST": "", "PUSHER_PORT": "", "PUSHER_APP_CLUSTER": "eu"}
    settings = from_env({"PUSHER_APP_KEY": "key", **environ})
    assert (settings.host, settings.port) == ("ws-eu.pusher.com", 443)


def test_the_applications_address_is_the_apis() -> None:
    settings = from_env({**REVERB, "APP_URL": "https://chat.example.com"})
    assert settings.auth_url == "https://chat.example.com/broadcasting/auth"


@pytest.mark.parametrize("name", ["REVERB_PORT"])
@pytest.mark.parametrize("port", ["eighty", "80.5", "0x50", "8080/tcp"])
def test_a_port_that_is_no_number_is_named_with_its_source(name: str, port: str) -> None:
    with pytest.raises(SettingsError) as caught:
        from_env({**REVERB, name: port})
    assert str(caught.value) == f"{name} in the environment is no number: {port!r}."


def test_a_port_out_of_range_is_refused() -> None:
    with pytest.raises(SettingsError, match="70000"):
        from_env({**REVERB, "REVERB_PORT": "70000"})


def test_the_process_environment_is_read_where_no_other_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in REVERB.items():
        monkeypatch.setenv(name, value)
    assert Settings.from_env() == from_env(REVERB)
    assert from_env({"REVERB_APP_KEY": "other"}).host == "127.0.0.1"


# From a file


def test_a_file_is_read(tmp_path: Path) -> None:
    path = env_file(
        tmp_path,
        "# Laravel\nAPP_NAME='My chat'\n\n"
        + "".join(f'{name}="{value}"\n' for name, value in REVERB.items()),
    )
    assert from_env({}, env_file=path) == from_env(REVERB)
    assert from_env({}, env_file=str(path)) == from_env(REVERB)


def test_a_file_refers_to_its_own_names(tmp_path: Path) -> None:
    path = env_file(
        tmp_path,
        "NAME=chat\nREVERB_APP_KEY=key-${NAME}\n"
        'REVERB_HOST="${NAME}.example.com"\nVITE_REVERB_HOST="${REVERB_HOST}"\n',
    )
    settings = from_env({}, env_file=path)
    assert (settings.app_key, settings.host) == ("key-chat", "chat.example.com")


def test_a_reference_to_nothing_is_empty(tmp_path: Path) -> None:
    path = env_file(tmp_path, "REVERB_APP_KEY=key${NOBODY_KNOWS}\nREVERB_PORT=${NOTHING}\n")
    settings = from_env({}, env_file=path)
    assert (settings.app_key, settings.port) == ("key", 443)


def test_a_file_refers_to_the_environment_that_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTIPHON_TEST_NAME", "process")
    path = env_file(tmp_path, "REVERB_APP_KEY=key\nREVERB_HOST=${ANTIPHON_TEST_NAME}.example.com\n")
    assert Settings.from_env(path).host == "process.example.com"
    assert from_env({"ANTIPHON_TEST_NAME": "given"}, env_file=path).host == "given.example.com"


def test_arguments_go_before_the_environment_before_the_file_before_defaults(
    tmp_path: Path,
) -> None:
    path = env_file(
        tmp_path,
        "REVERB_APP_KEY=file\nREVERB_HOST=file.example.com\n"
        "REVERB_PORT=1001\nREVERB_APP_ID=file-id\n",
    )
    settings = from_env(
        {"REVERB_HOST": "env.example.com", "REVERB_PORT": "1002"}, env_file=path, port=1003
    )
    assert settings == Settings(
        app_key="file", app_id="file-id", host="env.example.com", port=1003, scheme="https"
    )


@pytest.mark.parametrize("nothing", [None, ""])
def test_an_argument_that_is_nothing_counts_as_not_given(nothing: Any) -> None:
    assert from_env(REVERB, host=nothing, port=nothing, app_key=nothing) == from_env(REVERB)


def test_an_argument_may_set_what_no_name_does() -> None:
    settings = from_env(REVERB, path="ws", auth_endpoint="/auth", api_url="https://a.example")
    assert settings.path == "/ws"
    assert settings.auth_url == "https://a.example/auth"


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="hots"):
        from_env(REVERB, hots="example.com")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        from_env({}, env_file=tmp_path / "absent.env")
    assert "absent.env could not be read" in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="could not be read"):
        from_env({}, env_file=tmp_path)


def test_a_file_that_is_no_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(b"REVERB_APP_KEY=\xff\xfe\n")
    with pytest.raises(SettingsError, match="could not be read"):
        from_env({}, env_file=path)


def test_a_port_in_a_file_that_is_no_number_is_named_with_the_file(tmp_path: Path) -> None:
    path = env_file(tmp_path, "REVERB_APP_KEY=key\nREVERB_PORT=eighty\n")
    with pytest.raises(SettingsError) as caught:
        from_env({}, env_file=path)
    assert str(caught.value) == f"REVERB_PORT in {path} is no number: 'eighty'."


# Applications


def test_an_application_has_limits_that_strangers_meet() -> None:
    app = App(id="1", key="key", secret="secret")
    assert app.client_events
    assert app.allowed_origins == ()
    assert msgspec.structs.asdict(app) == {
        "id": "1",
        "key": "key",
        "secret": "secret",
        "client_events": True,
        "allowed_origins": (),
        "max_connections": 0,
        "activity_timeout": 120,
        "max_message_size": 65_536,
        "max_event_size": 10_240,
        "max_channel_name": 200,
        "max_channels": 1_000,
        "max_presence_members": 100,
        "max_member_size": 2_048,
        "client_events_per_second": 10,
        "max_watchlist": 100,
        "subscription_counts": False,
        "authorization_timeout": 0,
        "subscription_timeout": 0,
        "messages_per_second": 200,
        "cache_ttl": 1_800,
        "webhooks": (),
        "enabled": True,
    }


@pytest.mark.parametrize("field", ["max_connections", "max_channels", "cache_ttl"])
def test_no_limit_is_below_zero(field: str) -> None:
    limit: dict[str, Any] = {field: -1}
    with pytest.raises(SettingsError, match=f"{field} is -1; a limit is not below 0"):
        App(id="1", key="key", secret="secret", **limit)


def test_a_webhook_has_an_address_and_known_kinds() -> None:
    hook = WebhookEndpoint(url="https://example.com/hook", events=("channel_occupied",))
    assert App(id="1", key="key", secret="secret", webhooks=(hook,)).webhooks == (hook,)
    for url in ("", "example.com", "ftp://example.com"):
        with pytest.raises(SettingsError, match="begins with http"):
            WebhookEndpoint(url=url)
    with pytest.raises(SettingsError, match="'member_add' is no kind of webhook event; there are"):
        WebhookEndpoint(url="http://h", events=("member_add",))


@pytest.mark.parametrize(("field", "article"), [("id", "an"), ("key", "a"), ("secret", "a")])
def test_an_application_needs_id_key_and_secret(field: str, article: str) -> None:
    fields: dict[str, Any] = {"id": "1", "key": "key", "secret": "secret", field: ""}
    with pytest.raises(SettingsError) as caught:
        App(**fields)
    assert str(caught.value) == f"An application needs {article} {field}."


@pytest.mark.parametrize("timeout", [0, -1])
def test_an_activity_timeout_is_at_least_a_second(timeout: int) -> None:
    # pusher-js refuses a handshake whose activity_timeout is 0.
    with pytest.raises(SettingsError, match="at least 1 second"):
        App(id="1", key="key", secret="secret", activity_timeout=timeout)
    assert App(id="1", key="key", secret="secret", activity_timeout=1).activity_timeout == 1


def test_an_application_is_read_from_json() -> None:
    text = b'{"id":"1","key":"k","secret":"s","allowed_origins":["*.example.com"]}'
    app = msgspec.json.decode(text, type=App)
    assert app.allowed_origins == ("*.example.com",)


@pytest.mark.parametrize(
    "text", [b'{"id":"1","key":"k"}', b'{"id":"1","key":"k","secret":"s","max_chanels":5}']
)
def test_a_setting_that_is_missing_or_misspelt_is_refused(text: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=App)
