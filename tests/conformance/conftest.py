"""A server's clock that is turned by hand."""

from __future__ import annotations

import pytest

from .cluster import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Stands in for the time of the servers that a test starts."""
    clock = Clock()
    for module in ("hub", "liveness", "session"):
        monkeypatch.setattr(f"antiphon.server.{module}.time", clock)
    return clock
