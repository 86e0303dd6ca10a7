"""An examination at once, and a case for one check."""

from __future__ import annotations

from typing import Any

from antiphon.doctor import Step, examine
from antiphon.doctor.case import Case
from antiphon.settings import Settings

__all__ = ["a_case", "examined", "outcomes", "told"]


async def examined(settings: Settings, **options: Any) -> dict[str, Step]:
    """Every step of an examination, by name."""
    steps = {step.name: step async for step in examine(settings, **options)}
    for step in steps.values():
        assert step.detail, step
        assert told(step).isprintable(), step
        assert bool(step.cause) == bool(step.fix) == (step.outcome in ("failed", "warning")), step
        assert step.seconds >= 0, step
    return steps


def outcomes(steps: dict[str, Step]) -> dict[str, str]:
    """How each step that was tried has ended."""
    return {name: step.outcome for name, step in steps.items() if step.outcome != "skipped"}


def told(step: Step) -> str:
    """All that a step says."""
    return f"{step.detail} / {step.cause} / {step.fix}"


def a_case(settings: Settings, **options: Any) -> Case:
    """What a check is given."""
    usual: dict[str, Any] = {
        "channel": "",
        "token": "",
        "log_in": None,
        "origin": "",
        "timeout": 5.0,
        "ssl_context": None,
    }
    case = Case(settings, **{**usual, **options})
    case.address = settings.host
    return case
