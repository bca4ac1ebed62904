"""How much memory all contents that are coming in may take together. Pure.

A content takes what has come of it, twice (the octets and a copy on their way into the store), up to ``CONTENT_OCTETS``: more
of one is never in memory, however large it is. Who would go beyond the total is told to come again later.
"""

from __future__ import annotations

# The stream's buffer (twice a block of 64 KiB) and a block in work; the spool's 256 KiB, and their copy when joined.
CONTENT_OCTETS = 704 * 1024
_LEAST = 16 * 1024


class OverBudget(Exception):  # noqa: N818 - it names the state, not the handling
    """All contents together would take more memory than they may."""


class Budget:
    """Octets that contents may have in memory.

    :param total: of all sessions; 0 for no limit.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self.held = 0

    def open(self) -> Share:
        """A share for one content, nothing of it taken yet."""
        return Share(self)

    def take(self, octets: int) -> None:
        """Set memory aside.

        :raises OverBudget: if there is not as much left.
        """
        if 0 < self._total < self.held + octets:
            raise OverBudget
        self.held += octets

    def give_back(self, octets: int) -> None:
        """Free what was taken."""
        self.held -= octets


class Share:
    """What one content has of the budget; it must be closed."""

    __slots__ = ("_budget", "_octets")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._octets = 0

    def cover(self, received: int) -> None:
        """Have enough for a content of which so many octets came.

        :raises OverBudget: if there is not as much left; what was held before stays held.
        """
        wanted = min(CONTENT_OCTETS, _LEAST + 2 * received)
        if wanted > self._octets:
            self._budget.take(wanted - self._octets)
            self._octets = wanted

    def close(self) -> None:
        """Give all of it back; once is enough, and more does nothing."""
        self._budget.give_back(self._octets)
        self._octets = 0
