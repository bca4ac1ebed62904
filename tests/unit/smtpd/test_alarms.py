from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from relay.smtpd.alarms import TICK, Alarms


class Timers:
    """Counts the loop's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = 0
        loop = asyncio.get_running_loop()
        call_at = loop.call_at

        def counting(when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
            self.made += 1
            return call_at(when, callback)

        monkeypatch.setattr(loop, "call_at", counting)


async def test_it_rings_in_time_and_never_early() -> None:
    alarms, loop = Alarms(), asyncio.get_running_loop()
    rung: list[tuple[str, float]] = []
    begin = loop.time()
    for name, after in (("late", 3 * TICK), ("soon", TICK), ("at once", -1.0)):
        alarms.set(begin + after, lambda name=name: rung.append((name, loop.time())))  # type: ignore[misc]
    while len(rung) < 3:
        await asyncio.sleep(0.01)
    assert [name for name, _ in rung] == ["at once", "soon", "late"]
    assert rung[1][1] >= begin + TICK - 0.001
    assert rung[2][1] >= begin + 3 * TICK - 0.001


async def test_what_is_unset_does_not_ring() -> None:
    alarms, loop = Alarms(), asyncio.get_running_loop()
    rung: list[str] = []
    done = asyncio.Event()

    def ring() -> None:
        rung.append("no")

    tick = alarms.set(loop.time() + 0.01, ring)
    alarms.set(loop.time() + 2 * TICK, done.set)
    alarms.unset(tick, ring)
    alarms.unset(tick, ring)
    await done.wait()
    assert not rung


async def test_many_have_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    alarms, loop = Alarms(), asyncio.get_running_loop()
    timers = Timers(monkeypatch)
    for number in range(100):
        alarms.set(loop.time() + 300.0 + number, lambda: None)
    assert timers.made == 1
    alarms.set(loop.time() + 10.0, lambda: None)
    assert timers.made == 2


async def test_what_rings_may_set_another() -> None:
    alarms, loop = Alarms(), asyncio.get_running_loop()
    done = asyncio.Event()

    def ring() -> None:
        alarms.set(loop.time() + TICK, done.set)

    alarms.set(loop.time(), ring)
    async with asyncio.timeout(20):
        await done.wait()


async def test_nothing_is_kept_of_what_is_unset() -> None:
    alarms, loop = Alarms(), asyncio.get_running_loop()
    for number in range(1000):

        def ring() -> None:
            pass

        alarms.unset(alarms.set(loop.time() + 300.0 + number * TICK, ring), ring)
    assert not any(alarms._due.values())


async def test_a_tick_is_kept_once() -> None:
    alarms, loop = Alarms(), asyncio.get_running_loop()
    at = loop.time() + 300.0
    for _ in range(1000):
        alarms.unset(alarms.set(at, print), print)
    assert len(alarms._ticks) == 1
