"""The applications a server serves: read from a file, found by id and by key."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from antiphon.errors import SettingsError
from antiphon.settings import App

__all__ = ["load_apps"]


def load_apps(path: str | Path) -> tuple[App, ...]:
    """Applications from a TOML file: one `[[apps]]` table each, with the fields of `App`.

    Raises:
        SettingsError: The file cannot be read, or an application in it cannot be used.
    """
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise SettingsError(f"The file {path} could not be read: {exc}.") from exc
    try:
        apps = msgspec.convert(document, _File).apps
    except msgspec.ValidationError as exc:
        raise SettingsError(f"{path}: {exc}.") from exc
    try:
        check_apps(apps)
    except SettingsError as exc:
        raise SettingsError(f"{path}: {exc}") from exc
    return apps


def check_apps(apps: Iterable[App]) -> None:
    """Refuse applications that could not be told apart.

    Raises:
        SettingsError: There is none, or two share an id or a key.
    """
    apps = list(apps)
    if not apps:
        raise SettingsError("A server needs at least one application.")
    for name in ("id", "key"):
        values = [getattr(app, name) for app in apps]
        double = next((value for value in values if values.count(value) > 1), None)
        if double is not None:
            raise SettingsError(f"Two applications have the {name} {double!r}.")


class _File(msgspec.Struct, forbid_unknown_fields=True):
    apps: tuple[App, ...]
