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
