"""How many deliveries a destination gets at a time: grows while it copes, shrinks while it fails (qmgr_feedback.c). Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

# Destinations remembered while nothing is under way at them; one that is forgotten begins anew.
MAX_REMEMBERED = 10_000


@dataclass(slots=True)
class _Window:
    size: int
    busy: int = 0


class Concurrency:
    """Windows by destination.

    :param initial: deliveries at a time to begin with.
    :param limit: deliveries at a time at most.
    """

    def __init__(self, *, initial: int, limit: int) -> None:
        self._initial = min(initial, limit)
        self._limit = limit
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def full(self) -> list[str]:
        """The destinations that may not get another delivery now."""
        return [name for name, window in self._windows.items() if window.busy >= window.size]

    def room(self, destination: str) -> int:
        """How many more deliveries the destination may get now."""
        window = self._windows.get(destination)
        return self._initial if window is None else max(0, window.size - window.busy)

    @property
    def initial(self) -> int:
        """What a destination that nothing is known of may get."""
        return self._initial

    def begin(self, destination: str) -> None:
        """A delivery begins."""
        self._windows.setdefault(destination, _Window(self._initial)).busy += 1
        self._windows.move_to_end(destination)

    def end(self, destination: str, *, throttled: bool) -> None:
        """A delivery ended.

        :param throttled: whether the destination itself failed; a refused message says nothing about it.
        """
        window = self._windows[destination]
        if throttled:
            window.size = max(1, window.size - 1)
        elif window.size < min(self._limit, window.busy + self._initial):
            # Postfix's brake: a window grows only as far beyond what is under way as it began.
            window.size += 1
        window.busy -= 1
        if len(self._windows) > MAX_REMEMBERED:
            idle = next((name for name, each in self._windows.items() if not each.busy), None)
            if idle is not None:
                del self._windows[idle]
