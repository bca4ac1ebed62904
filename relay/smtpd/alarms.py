"""The time limits of many sessions on one timer of the loop.

A timer is a handle of libuv's: to open, start, stop and close one takes as long as it takes to answer two commands, and of a
session's none ever rings. So limits are kept here by the tick in which they end, and the loop has a timer for the next one.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from heapq import heappop, heappush

TICK = 0.1
"""Seconds that an alarm may come late."""
# A timer of uvloop may ring half a millisecond early.
_EARLY = 0.001


class Alarms:
    """What is to be called when. What is unset is kept no longer; the ticks of the longest limit are, until they are over."""

    def __init__(self) -> None:
        self._due: dict[int, set[Callable[[], None]]] = {}
        self._ticks: list[int] = []  # a heap; in some of them nothing is due any more
        self._timer: asyncio.TimerHandle | None = None
        self._timer_tick = 0

    def set(self, at: float, ring: Callable[[], None]) -> int:
        """Have something called at a time of the loop's clock; what is given is for ``unset``."""
        tick = math.ceil(at / TICK)
        if tick not in self._due:
            self._due[tick] = set()
            heappush(self._ticks, tick)
            self._arm()
        self._due[tick].add(ring)
        return tick

    def unset(self, tick: int, ring: Callable[[], None]) -> None:
        """Have it not called."""
        self._due.get(tick, set()).discard(ring)

    def _arm(self) -> None:
        if not self._ticks or (self._timer is not None and self._timer_tick <= self._ticks[0]):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_tick = self._ticks[0]
        self._timer = asyncio.get_running_loop().call_at(self._timer_tick * TICK, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time() + _EARLY
        while self._ticks and self._ticks[0] * TICK <= now:
            for ring in self._due.pop(heappop(self._ticks)):
                ring()
        self._arm()
