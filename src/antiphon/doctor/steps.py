"""What an examination gives."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

__all__ = ["Advice", "Finding", "Outcome", "Step", "failed", "ok", "skipped", "warning"]

Outcome = Literal["ok", "warning", "failed", "skipped"]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of an examination, done.

    Every text is one printable line, and holds no secret, token or signature.

    Attributes:
        name: Which step: `dns`, `tcp`, `tls`, `upgrade`, `key`, `activity`, `login`, `auth`,
            `signature`, `subscription`, `api` or `event`.
        outcome: How it ended; a `warning` works, but will not always.
        seconds: How long it took; for `activity` and `event` the detail has the round trip alone.
        detail: What was seen.
        cause: Why it failed, most likely.
        fix: What to do next.
    """

    name: str
    outcome: Outcome
    seconds: float
    detail: str
    cause: str = ""
    fix: str = ""


class Advice(NamedTuple):
    """The likely cause of what was seen, and what to do about it."""

    cause: str
    fix: str


class Finding(NamedTuple):
    """What a check has found: a step without its name and its time."""

    outcome: Outcome
    detail: str
    advice: Advice = Advice("", "")


def ok(detail: str) -> Finding:
    """It works."""
    return Finding("ok", detail)


def skipped(detail: str) -> Finding:
    """It does not apply here."""
    return Finding("skipped", detail)


def warning(detail: str, advice: Advice) -> Finding:
    """It works, but will not always."""
    return Finding("warning", detail, advice)


def failed(detail: str, advice: Advice) -> Finding:
    """It does not work."""
    return Finding("failed", detail, advice)
