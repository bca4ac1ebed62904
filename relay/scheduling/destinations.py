"""The windows of all destinations, and which of them are held back. Pure; memory is bounded."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from itertools import islice

from relay.scheduling.window import Failing, Limits, Suspension, Window

# Destinations remembered, mostly dead ones; one that is forgotten begins anew.
MAX_REMEMBERED = 10_000
# How far to look for one that may be forgotten before one that is held back is.
_LOOK = 512


class Destinations:
    """Windows by destination.

    Times are seconds on one clock that never goes back.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._windows: OrderedDict[str, Window] = OrderedDict()
        self._rests: list[tuple[float, str]] = []

    def room(self, name: str, now: float) -> int:
        """How many more deliveries the destination may get now; a suspended one gets none."""
        window = self._windows.get(name)
        if window is None:
            return self._limits.first
        if window.resting_until > now or self.suspension(name, now) is not None:
            return 0
        return max(0, window.size - window.busy)

    def is_idle(self, name: str) -> bool:
        """Whether nothing is under way at the destination."""
        window = self._windows.get(name)
        return window is None or not window.busy

    def suspension(self, name: str, now: float) -> Suspension | None:
        """Why the destination is not dialled, if so; one whose pause is over is dialled again."""
        window = self._windows.get(name)
        if window is None or window.suspension is None:
            return None
        if window.suspension.until <= now:
            window.revive()
        return window.suspension

    def held_back(self, now: float) -> list[str]:
        """The destinations whose due mail has to wait: the window is full, or a rate is to be kept."""
        return [
            name
            for name, window in self._windows.items()
            if (window.busy >= window.size and window.suspension is None) or window.resting_until > now
        ]

    def begin(self, name: str) -> None:
        """A delivery begins."""
        window = self._windows.get(name)
        if window is None:
            window = self._windows[name] = Window(self._limits)
        window.busy += 1
        self._windows.move_to_end(name)

    def withdraw(self, name: str) -> None:
        """A delivery that was begun will not be made after all, which says nothing about the destination."""
        self._windows[name].busy -= 1

    def end(self, name: str, now: float, failing: Failing | None = None) -> None:
        """A delivery ended.

        :param failing: what the destination itself failed with, if it did; a refused message says nothing about it.
        """
        window = self._windows[name]
        window.ended(now, failing)
        if window.resting_until > now:
            heapq.heappush(self._rests, (window.resting_until, name))
        if len(self._windows) > MAX_REMEMBERED:
            self._forget_one(now)

    def forget(self, name: str, now: float) -> None:
        """All mail for a destination has been tried: it begins anew with the next, as at Postfix (qmgr_queue_done)."""
        window = self._windows.get(name)
        if window is not None and not (window.busy or self.suspension(name, now) or window.resting_until > now):
            del self._windows[name]

    def rested(self, now: float) -> list[str]:
        """The destinations whose rest between two deliveries has ended since this was asked last."""
        names = []
        while self._rests and self._rests[0][0] <= now:
            names.append(heapq.heappop(self._rests)[1])
        return names

    def next_rest(self) -> float | None:
        """When the next rest ends; None if nobody rests."""
        return self._rests[0][0] if self._rests else None

    def revive(self) -> None:
        """An administrator wants every destination to be tried again now; a rate to be kept is kept."""
        for window in self._windows.values():
            if window.suspension is not None:
                window.revive()

    def _forget_one(self, now: float) -> None:
        idle = [(name, window) for name, window in islice(self._windows.items(), _LOOK) if not window.busy]
        free = (name for name, window in idle if window.suspension is None and window.resting_until <= now)
        name = next(free, idle[0][0] if idle else None)
        if name is not None:
            del self._windows[name]
