"""A stage for the tests of sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from antiphon.chat import session

from .stage import Stage, open_stage


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Server, line, gate and backend, for one test."""
    async with open_stage(tmp_path) as stage:
        yield stage


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that closes waits for what is being sent, also while the machine stands still."""
    monkeypatch.setattr(session, "LINGER", 60.0)
