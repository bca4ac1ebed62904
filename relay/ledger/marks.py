"""The best level seen at each destination, in memory: bounded, and only ever rising unless somebody forgets. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Final

from relay.policy.ratchet import UNSEEN, Best, Mark

MAX_MARKS: Final = 50_000
KEPT: Final = timedelta(days=365)
"""How long a mark outlives the last session that was worth it."""


class Marks:
    """Marks by destination.

    When there is no room, what is new is not remembered: whoever can make us send to many destinations must not be able
    to push out the marks of others.
    """

    def __init__(self, marks: Mapping[str, Best], *, today: date) -> None:
        self._marks = {key: best for key, best in marks.items() if today - best.last <= KEPT}
        self.full = False

    def best(self, destination: str) -> Best:
        """The best that was seen."""
        return self._marks.get(destination, UNSEEN)

    def saw(self, destination: str, mark: Mark, host: str, today: date) -> Best | None:
        """Take note of a session; what is to be written down, None if nothing has changed."""
        before = self._marks.get(destination)
        if mark is Mark.NOTHING or (before is not None and mark < before.mark):
            return None
        if before is None and len(self._marks) >= MAX_MARKS:
            self.full = True
            return None
        if before is None or mark > before.mark:
            after = Best(mark=mark, host=host, since=today, last=today)
        elif before.last < today:
            after = replace(before, last=today)
        else:
            return None
        self._marks[destination] = after
        return after

    def forget(self, destinations: Iterable[str]) -> None:
        """Begin anew there."""
        for destination in destinations:
            self._marks.pop(destination, None)
        self.full = False
