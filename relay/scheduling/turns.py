"""Whose turn it is: destinations with due mail stand in line, and free slots go round, one a turn.

So a destination with a million messages gets as many slots as one with two while both have mail, and one whose deliveries
take long holds only those that its window allows. The last slots are kept for destinations that have none: however many
are slow, a newcomer gets his first.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping

MAX_IN_LINE = 10_000


class Turns:
    """The line.

    :param reserve: so many slots go only to destinations with nothing under way.
    """

    def __init__(self, reserve: int) -> None:
        self._reserve = reserve
        self._line: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._line)

    def __iter__(self) -> Iterator[str]:
        return iter(self._line)

    def join(self, name: str) -> bool:
        """A destination has due mail; one that stands in line keeps its place.

        :returns: whether it stands in line: False where the line is too long, and somebody must look again later.
        """
        if name not in self._line and len(self._line) >= MAX_IN_LINE:
            return False
        self._line[name] = None
        return True

    def leave(self, name: str) -> None:
        """A destination has no due mail any more."""
        self._line.pop(name, None)

    def deal(
        self, free: int, *, room: Callable[[str], int], is_idle: Callable[[str], bool], leaves: Callable[[str], None]
    ) -> Mapping[str, int]:
        """Deal free slots; who got one goes to the end of the line.

        :param room: how many more deliveries a destination may have.
        :param is_idle: whether it has none under way.
        :param leaves: told who leaves the line, having no room (any more): the end of a delivery or of a rest is to bring it
            back.
        :returns: slots by destination, at least one each, ``free`` in all at most.
        """
        dealt: Counter[str] = Counter()
        passed_over = 0
        while free > 0 and passed_over < len(self._line):
            name = next(iter(self._line))
            if dealt[name] >= room(name):
                del self._line[name]
                leaves(name)
                continue
            self._line.move_to_end(name)
            if free <= self._reserve and (dealt[name] or not is_idle(name)):
                passed_over += 1
                continue
            passed_over = 0
            dealt[name] += 1
            free -= 1
        return dict(dealt)
