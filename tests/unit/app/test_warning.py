"""Lines that end are told of once a day, at the beginning of the day by UTC."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

import relay.app.relay as relay_module
from relay.policy.exceptions import endings
from relay.policy.level import Level
from relay.policy.policy import Defaults, Rule
from relay.policy.table import PolicyTables, parse_table

TABLES = PolicyTables((parse_table("example.com may until=2027-01-31\n", "tls_policy"),))
DEFAULTS = Defaults(level=Level.DANE, level_rule=Rule("relay.toml:3"))


class Rules:
    def endings(self, now: datetime) -> tuple[str, ...]:
        return tuple(map(str, endings(TABLES, DEFAULTS, now)))


class Building:
    def __init__(self) -> None:
        self.rules = Rules()
        self.said: list[str] = []

    def warn_of(self, problems: tuple[str, ...]) -> None:
        self.said += problems


async def test_once_a_day_until_the_line_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [datetime(2027, 1, 16, 23, 59, 30, tzinfo=UTC)]
    sleeps: list[float] = []

    async def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        times.append(times[-1] + timedelta(seconds=seconds))
        if len(sleeps) == 17:
            raise asyncio.CancelledError

    monkeypatch.setattr(relay_module, "now", lambda: times[-1])
    monkeypatch.setattr(asyncio, "sleep", sleep)
    building = Building()
    with pytest.raises(asyncio.CancelledError):
        await relay_module._keep_warning(cast(Any, building))
    assert (sleeps[0], sleeps[1]) == (31.0, 86400.0)  # the first second of each day
    # Nothing on the 16th; from the 17th to the 31st that it ends, on the 1st that it has.
    assert len(building.said) == 16
    assert "ends in 14 days" in building.said[0]
    assert "ends today" in building.said[14]
    assert "has expired" in building.said[15]
