"""The windows of all destinations, and which of them are held back. Pure; memory is bounded."""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from itertools import islice

from relay.scheduling.places import ALONE, Places, Taken
from relay.scheduling.window import Failing, Limits, Suspension, Window

# Destinations remembered, mostly dead ones; one that is forgotten begins anew.
MAX_REMEMBERED = 10_000
# A place that others have is asked for again after so many seconds.
PLACE_SECONDS = 0.02
# How far to look for one that may be forgotten before one that is held back is.
_LOOK = 512


class Destinations:
    """Windows by destination.

    Times are seconds on one clock that never goes back.

    :param places: which other processes want too: each delivery that begins has claimed one.
    """

    def __init__(self, limits: Limits, places: Places = ALONE) -> None:
        self._limits = limits
        self._places = places
        self._alone = places is ALONE
        self._claims: Counter[str] = Counter()
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

    def claim(self, name: str, wanted: int, now: float) -> int:
        """Have places for deliveries that are to begin: each then begins, or is no more claimed.

        :returns: for how many; whoever gets less is held back until one of its own ends, or for a moment.
        """
        if self._alone:
            return wanted
        got = 0
        while got < wanted:
            taken = self._places.take(name, now)
            if taken is Taken.FULL:
                self._rest(name, now + PLACE_SECONDS)
            if taken is not Taken.YES:
                break
            got += 1
        self._claims[name] += got
        return got

    def unclaim(self, name: str, number: int, now: float) -> None:
        """Give up claims: so many deliveries will not begin."""
        if not self._alone:
            self._claims[name] -= number
            self._settle_places(name, now)

    def _settle_places(self, name: str, now: float) -> None:
        """Give back what is not needed; a rest after a delivery needs its place."""
        window = self._windows.get(name)
        kept = self._claims[name]
        if not kept:
            del self._claims[name]
        if window is not None:
            kept += window.busy + (window.resting_until > now)
        for _ in range(self._places.held(name) - kept):
            self._places.leave(name, now)

    def _rest(self, name: str, until: float) -> None:
        window = self._windows.get(name)
        if window is None:
            window = self._windows[name] = Window(self._limits)
        if window.resting_until < until:
            window.resting_until = until
            heapq.heappush(self._rests, (until, name))

    def begin(self, name: str) -> None:
        """A delivery begins."""
        window = self._windows.get(name)
        if window is None:
            window = self._windows[name] = Window(self._limits)
        window.busy += 1
        if not self._alone:
            self._claims[name] -= 1
        self._windows.move_to_end(name)

    def withdraw(self, name: str) -> None:
        """A delivery that was begun will not be made after all, which says nothing about the destination; it is claimed again."""
        self._windows[name].busy -= 1
        if not self._alone:
            self._claims[name] += 1

    def end(self, name: str, now: float, failing: Failing | None = None) -> None:
        """A delivery ended.

        :param failing: what the destination itself failed with, if it did; a refused message says nothing about it.
        """
        window = self._windows[name]
        window.ended(now, failing)
        if self._limits.rate_delay:
            heapq.heappush(self._rests, (window.resting_until, name))
        if not self._alone:
            self._settle_places(name, now)
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
        if not self._alone:
            for name in names:
                self._settle_places(name, now)
                self._places.waive(name)
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
