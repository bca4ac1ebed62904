"""What bad destinations cost good ones by scheduling alone: a loop whose time passes only when all wait, so rates are exact.

tests/bench/neighbours.py measures the same over sockets, with everything else that a machine does.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from relay.delivery.delivery import Delivery, Policies
from relay.log.events import Removed
from relay.mail.envelope import RecipientId
from relay.outcome.result import AttemptResult, Outcome, RecipientResult
from relay.queue.schedule import RetrySchedule
from relay.worker.options import WorkerOptions
from tests.unit.queue.samples import DEFERRED
from tests.unit.worker.test_worker import REFUSED, Hosts, Scene

GOOD = 50
EACH = 20
BACKLOG = 100
ROUND_TRIP = 0.05
"""Seconds that an attempt takes at a good destination on average, and at one that answers 450."""


class _Leap(selectors.DefaultSelector):
    """A selector that does not wait: where it would, time leaps."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class LeapingLoop(asyncio.SelectorEventLoop):
    """An event loop with a time of its own, in which sleeping takes no time."""

    def __init__(self) -> None:
        self._leap = _Leap()
        super().__init__(self._leap)

    def time(self) -> float:
        return self._leap.now


@dataclass(frozen=True, slots=True)
class Bad:
    """A bad destination: how it ends an attempt, and after how many seconds."""

    result: RecipientResult
    seconds: float


HANGS = Bad(REFUSED, 300.0)
HANGS_SHORTLY = Bad(REFUSED, 1.0)
BUSY = Bad(DEFERRED, ROUND_TRIP)


class TimedHosts(Hosts):
    """Hosts that take their time."""

    bad: Mapping[str, Bad]

    async def attempt(
        self, delivery: Delivery, policies: Policies, finished: dict[RecipientId, Outcome] | None = None
    ) -> AttemptResult:
        name = next(iter(delivery.route)).key
        # Not all alike, or all slots would come free at once and a rate would go in steps.
        uneven = ROUND_TRIP * (0.7 + 0.6 * (len(self.dials) * 0.618 % 1))
        await asyncio.sleep(self.bad[name].seconds if name in self.bad else uneven)
        return await super().attempt(delivery, policies, finished)


async def seconds_for_the_good(bad: Mapping[str, Bad], concurrency: int) -> float:
    """Seconds until all mail to the good destinations is gone, with a backlog for the bad ones queued before it."""
    loop = asyncio.get_running_loop()
    it = Scene(
        WorkerOptions(concurrency=concurrency),
        RetrySchedule(minimal_backoff_time=2, maximal_backoff_time=2),
        monotonic=loop.time,
        hosts=TimedHosts,
    )
    assert isinstance(it.hosts, TimedHosts)
    it.hosts.bad = bad
    it.hosts.answers = {name: lambda _, one=one: one.result for name, one in bad.items()}  # type: ignore[misc]
    for name in bad:
        await it.put(name, messages=BACKLOG)
    running = asyncio.create_task(it.worker.run())
    await asyncio.sleep(1.0)
    began = loop.time()
    for _ in range(EACH):
        for number in range(GOOD):
            await it.put(f"good{number}.example")
    await it.until(lambda: sum(isinstance(event, Removed) for event in it.events) == GOOD * EACH, "all good mail")
    seconds = loop.time() - began
    await it.worker.stop(0)
    await running
    return seconds


@functools.cache
def rate_alone() -> float:
    return rate({})


def rate(bad: Mapping[str, Bad], concurrency: int = 200) -> float:
    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        return GOOD * EACH / runner.run(seconds_for_the_good(bad, concurrency))


@pytest.mark.parametrize(
    "bad",
    [
        {"hangs.example": HANGS},
        {"hangs.example": HANGS_SHORTLY},
        {"busy.example": BUSY},
        {"hangs.example": HANGS, "busy.example": BUSY},
    ],
    ids=["one that hangs", "one that hangs shortly", "one that answers 450", "one of each"],
)
def test_the_good_keep_nine_tenths_of_their_rate(bad: Mapping[str, Bad]) -> None:
    assert rate(bad) >= 0.9 * rate_alone()


def test_few_slots_are_shared_all_the_same() -> None:
    """With 40 slots one that hangs holds an eighth of them, and no more."""
    assert rate({"hangs.example": HANGS, "busy.example": BUSY}, 40) >= 0.8 * rate({}, 40)
