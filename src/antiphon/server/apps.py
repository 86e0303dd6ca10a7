"""The applications a server serves: read from a file or the environment, and checked."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from antiphon.errors import SettingsError
from antiphon.settings import App, WebhookEndpoint

__all__ = ["load_apps"]

VARIABLE: Final = "ANTIPHON_APPS"


def load_apps(
    path: str | Path | None = None, *, environ: Mapping[str, str] | None = None
) -> tuple[App, ...]:
    """Applications from a file or the environment, with the fields of `App`.

    Args:
        path: A TOML file with one `[[apps]]` table each, or, if its name ends in `.json`, a JSON
            list of objects; without one, the same list stands in the variable `ANTIPHON_APPS`.
        environ: Stands in for the process's environment.

    Raises:
        SettingsError: There is no list, or an application in it cannot be used.
    """
    source = VARIABLE if path is None else str(path)
    try:
        if path is None:
            text = (os.environ if environ is None else environ).get(VARIABLE, "")
            document = {"apps": msgspec.json.decode(text)} if text else {"apps": []}
        elif Path(path).suffix.lower() == ".json":
            document = {"apps": msgspec.json.decode(Path(path).read_bytes())}
        else:
            document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeError, tomllib.TOMLDecodeError, msgspec.DecodeError) as exc:
        what = source if path is None else f"The file {source}"
        raise SettingsError(f"{what} could not be read: {exc}.") from exc
    try:
        apps = msgspec.convert(document, _File).apps
        check_apps(apps)
    except msgspec.ValidationError as exc:
        raise SettingsError(f"{source}: {exc}{_known_fields(str(exc))}.") from exc
    except SettingsError as exc:
        raise SettingsError(f"{source}: {exc}") from exc
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


def _known_fields(complaint: str) -> str:
    """What could have been meant, if the complaint is about a field that nobody knows."""
    if "unknown field" not in complaint:
        return ""
    place = complaint.rpartition(" - at ")[2]
    struct: Any = _File
    if ".webhooks[" in place:
        struct = WebhookEndpoint
    elif ".apps[" in place:
        struct = App
    return f"; known are {', '.join(struct.__struct_fields__)}"
