"""What several files here need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.dns import probe
from tests.interop.servers import require_libunbound
from tests.resolved_world import World, open_world


@pytest.fixture
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """The tree, served at the address that is the parameter, else at one of its own."""
    require_libunbound()
    async with open_world(tmp_path, getattr(request, "param", "")) as opened:
        yield opened


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at a resolver that failed again soon."""
    monkeypatch.setattr(probe, "_BETWEEN_FAILURES", 0.2)
