"""A backend's names of fields, into antiphon's and back, and values that may be null."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

__all__ = ["Fields", "fitted", "received", "sent"]

T = TypeVar("T")

Fields = Mapping[str, str | tuple[str, ...]]
"""The backend's names with antiphon's; with several, where one of the backend's stands for them."""


def received(value: Any, fields: Fields) -> Any:
    """What came from the backend, with antiphon's names beside the backend's own.

    Beside and not instead: `conversation_id` may be antiphon's `chat_id` in a message, and itself
    in an event.

    Raises:
        RecursionError: It is nested too deep.
    """
    if not fields:
        return value
    if isinstance(value, list):
        return [received(item, fields) for item in value]
    if not isinstance(value, dict):
        return value
    found = {name: received(item, fields) for name, item in value.items()}
    ours: dict[str, Any] = {}
    for theirs, names in fields.items():
        if theirs in found:
            for name in (names,) if isinstance(names, str) else names:
                ours.setdefault(name, found[theirs])
    return found | ours


def sent(values: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
    """What goes to the backend, under its names; what is None is left out."""
    theirs: dict[str, str] = {}
    for name, names in fields.items():
        for ours in (names,) if isinstance(names, str) else names:
            theirs.setdefault(ours, name)
    return {theirs.get(name, name): value for name, value in values.items() if value is not None}


def fitted(value: Any, type_: type[T]) -> T:
    """JSON values as a type; null stands for what is not there.

    Raises:
        msgspec.ValidationError: They do not fit.
        RecursionError: They are nested too deep.
    """
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as exc:
        reason = exc
    try:
        return msgspec.convert(_without_nulls(value), type_)
    except msgspec.ValidationError:
        raise reason from None  # says better what is wrong


def _without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return value
