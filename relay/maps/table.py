"""What every lookup table answers: a value and its place, nothing, or that nobody can tell. Pure.

The laws, for whoever looks something up:

* ``Missing`` alone means that the next table, the next key or the default may be tried.
* ``Failed`` ends the search: mail waits. A line that cannot be understood, two lines that contradict each other and a
  pattern that takes too long are answers of this kind, so that nothing weaker takes their place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from relay.maps.comments import NO_COMMENT, Comment


@dataclass(frozen=True, slots=True)
class Found:
    """A table has an entry for the key.

    :param value: the right-hand side as it stands, outer white space removed; never empty.
    :param place: ``FILE:LINE``.
    :param note: what ``#:`` comments above the line say; options that have no use for them read over them.
    """

    value: str
    place: str
    note: Comment = NO_COMMENT


@dataclass(frozen=True, slots=True)
class Missing:
    """No entry."""


@dataclass(frozen=True, slots=True)
class Failed:
    """There is an answer and nobody can tell which: mail waits.

    :param reason: what is wrong, for people.
    :param place: ``FILE:LINE``.
    """

    reason: str
    place: str


Answer = Found | Missing | Failed
MISSING = Missing()


@dataclass(frozen=True, slots=True)
class MapProblem:
    """Something wrong with a line.

    :param place: ``FILE:LINE``.
    :param text: what is wrong and what follows from it.
    :param is_error: whether the line does not do what its author wanted: it defers mail or never matches; else this
        is a warning only.
    """

    place: str
    text: str
    is_error: bool

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


@dataclass(frozen=True, slots=True)
class Row:
    """One entry, for whoever looks through a whole table.

    :param key: as look-ups ask for it; empty in tables that do not compare keys (patterns, networks, ``static:``).
    :param answer: what the key gets. In a pattern table ``value`` may still have its ``$1``.
    """

    key: str
    answer: Found | Failed


class LookupTable(Protocol):
    """A table, read and checked."""

    @property
    def name(self) -> str:
        """The table as reasons call it: the file as written, or the specification."""

    @property
    def takes_partial_keys(self) -> bool:
        """Whether a part of the address or name may be asked for (Postfix's DICT_FLAG_FIXED).

        Patterns and networks see whole keys only where the option's search order says "partial"; each option's own
        manual page says where (transport(5): regular expressions see the full address alone).
        """

    @property
    def problems(self) -> tuple[MapProblem, ...]:
        """What is wrong with its lines, in order."""

    def lookup(self, key: str) -> Answer:
        """Find a key, normalised as the table's keys were."""

    def rows(self) -> Iterator[Row]:
        """Every entry in order."""

    def keys(self) -> Collection[str]:
        """Every key that is compared as it stands; none in tables that do not compare keys."""

    def may_say(self, word: str) -> bool:
        """Whether a row could have a word (lower case) in it; if not, nobody needs to look for it."""

    def __len__(self) -> int:
        """How many entries it has."""


KeyReader = Callable[[str], tuple[str, str]]
"""A key as written, in; out, as look-ups ask for it, and why none ever will (empty if one may)."""


def fold(written: str) -> tuple[str, str]:
    """The plain reader of keys: lower case (postmap(1)), nothing else."""
    return written.lower(), ""


def find(tables: Iterable[LookupTable], key: str, *, partial: bool = False) -> Answer:
    """The first answer that is not ``Missing`` (postfix maps.c, maps_find).

    :param partial: whether the key is only a part of what is looked up, which patterns and networks are not asked for.
    """
    for table in tables:
        if not partial or table.takes_partial_keys:
            answer = table.lookup(key)
            if not isinstance(answer, Missing):
                return answer
    return MISSING
