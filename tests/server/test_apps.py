from __future__ import annotations

from pathlib import Path

import pytest

from antiphon.errors import SettingsError
from antiphon.server import Server, load_apps
from antiphon.settings import App

SECRET = "never-print-this"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "apps.toml"


def test_applications_are_read_from_a_toml_file(file: Path) -> None:
    file.write_text(
        """
        [[apps]]
        id = "1"
        key = "chat"
        secret = "a"
        allowed_origins = ["*.example.com", "localhost"]
        max_connections = 500
        client_events = false

        [[apps]]
        id = "2"
        key = "дело"
        secret = "b"
        """,
        encoding="utf-8",
    )
    first, second = load_apps(file)
    assert first == App(
        id="1",
        key="chat",
        secret="a",
        allowed_origins=("*.example.com", "localhost"),
        max_connections=500,
        client_events=False,
    )
    assert second == App(id="2", key="дело", secret="b"), "what is not said has its default"


def test_a_path_may_be_text(file: Path) -> None:
    file.write_text('apps = [{id = "1", key = "k", secret = "s"}]')
    assert load_apps(str(file)) == (App(id="1", key="k", secret="s"),)


LIST = '[{"id": "1", "key": "k", "secret": "s", "allowed_origins": ["*.example.com"]}]'
LISTED = App(id="1", key="k", secret="s", allowed_origins=("*.example.com",))


@pytest.mark.parametrize("name", ["apps.json", "APPS.JSON"])
def test_a_json_file_holds_the_list_itself(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(LIST)
    assert load_apps(tmp_path / name) == (LISTED,)


def test_without_a_file_the_list_stands_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTIPHON_APPS", LIST)
    assert load_apps() == (LISTED,)
    with pytest.raises(SettingsError, match="ANTIPHON_APPS: A server needs at least one"):
        load_apps(environ={})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "could not be read"),
        ("[", "could not be read"),
        ('["\ud800"]', "could not be read"),
        ("{}", "Expected `array`"),
        ('{"apps": []}', "Expected `array`"),
        ("[]", "at least one"),
        ("[1]", "Expected `object`"),
        (f'[{{"id": 1, "key": "k", "secret": "{SECRET}"}}]', r"apps\[0\]\.id"),
        (f'[{{"id": "", "key": "k", "secret": "{SECRET}"}}]', "needs an id"),
        (f'[{{"id": "1", "key": "k", "secret": "{SECRET}"', "could not be read"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_in_words(
    tmp_path: Path, text: str, complaint: str
) -> None:
    file = tmp_path / "apps.json"
    file.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(SettingsError, match=complaint) as caught:
        load_apps(file)
    assert str(file) in str(caught.value)
    assert SECRET not in str(caught.value)
    if text:
        with pytest.raises(SettingsError, match="ANTIPHON_APPS") as caught:
            load_apps(environ={"ANTIPHON_APPS": text})
        assert SECRET not in str(caught.value)


def test_a_field_that_nobody_knows_is_answered_with_those_that_there_are() -> None:
    start = '[{"id": "1", "key": "k", "secret": "s", '
    for rest, known in {
        '"max_conections": 5}]': "known are id, key, secret, .*max_connections, ",
        '"webhooks": [{"url": "http://x", "event": []}]}]': "known are url, events, channels, ",
    }.items():
        with pytest.raises(SettingsError, match=known):
            load_apps(environ={"ANTIPHON_APPS": start + rest})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "apps"),
        ("apps = []", "at least one application"),
        ("apps = 3", "apps"),
        ("[[apps]]\nid = '1'\nkey = 'k'", "secret"),
        (f"[[apps]]\nid = '1'\nkey = 'k'\nsecret = '{SECRET}'\ncolour = 'red'", "colour"),
        (f"[[apps]]\nid = 1\nkey = 'k'\nsecret = '{SECRET}'", "id"),
        (f"[[apps]]\nid = ''\nkey = 'k'\nsecret = '{SECRET}'", "id"),
        (f"[[apps]]\nid = '1'\nkey = ''\nsecret = '{SECRET}'", "key"),
        ("[[apps]]\nid = '1'\nkey = 'k'\nsecret = ''", "secret"),
        (f"[[apps]]\nid = '1'\nkey = 'k'\nsecret = '{SECRET}'\nactivity_timeout = 0", "activity"),
        (f"[[apps]]\nid = '1'\nkey = 'k'\nsecret = '{SECRET}'\nmax_connections = 'many'", "max_"),
        (f"[[apps]]\nid = '1'\nkey = 'k'\nsecret = '{SECRET}'\n[extra]", "extra"),
        (f"[[apps]]\nid = '1'\nkey = 'k'\nsecret = {SECRET}", "could not be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_words(
    file: Path, text: str, complaint: str
) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError, match=complaint) as caught:
        load_apps(file)
    assert SECRET not in str(caught.value)


def test_a_table_of_another_name_is_answered_with_the_one_that_there_is(file: Path) -> None:
    file.write_text("[[app]]\nid = '1'\nkey = 'k'\nsecret = 's'")
    with pytest.raises(SettingsError, match=r"`app`.*; known are apps\."):
        load_apps(file)


@pytest.mark.parametrize("name", ["id", "key"])
def test_two_applications_that_cannot_be_told_apart_are_refused(file: Path, name: str) -> None:
    fields = {"id": ("1", "2"), "key": ("a", "b"), "secret": (SECRET, SECRET)}
    fields[name] = ("same", "same")
    file.write_text(
        "".join(
            "[[apps]]\n" + "".join(f"{field} = '{values[n]}'\n" for field, values in fields.items())
            for n in (0, 1)
        )
    )
    with pytest.raises(SettingsError, match=rf"Two applications have the {name} 'same'") as caught:
        load_apps(file)
    assert SECRET not in str(caught.value)


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"apps\.toml could not be read"):
        load_apps(file)


def test_a_folder_and_a_file_that_is_no_text_are_refused_too(file: Path, tmp_path: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="could not be read"):
        load_apps(file)
    with pytest.raises(SettingsError, match="could not be read"):
        load_apps(tmp_path)


def test_a_server_refuses_the_same() -> None:
    with pytest.raises(SettingsError, match="at least one application"):
        Server([])
    app = App(id="1", key="k", secret="s")
    with pytest.raises(SettingsError, match="the id '1'"):
        Server([app, App(id="1", key="other", secret="s")])
    with pytest.raises(SettingsError, match="the key 'k'"):
        Server([app, App(id="2", key="k", secret="s")])


def test_an_application_shows_no_secret() -> None:
    app = App(id="1", key="k", secret=SECRET)
    assert SECRET not in repr(app)
    assert SECRET not in str(app)


@pytest.mark.parametrize(
    "origin",
    [
        "https://shop.example.com",
        "shop.example.com/",
        "shop.example.com:3000",
        "//shop.example.com",
    ],
)
def test_an_origin_is_a_host_and_no_address(origin: str) -> None:
    with pytest.raises(SettingsError, match="without scheme, port and path"):
        App(id="1", key="k", secret="s", allowed_origins=(origin,))


@pytest.mark.parametrize(
    "origin", ["*", "*.example.com", "localhost", "192.0.2.1", "::1", "2001:db8::5:1"]
)
def test_a_host_may_be_a_glob_or_an_address(origin: str) -> None:
    App(id="1", key="k", secret="s", allowed_origins=(origin,))
