"""Tables that stand in place of a file: ``inline:`` and ``static:``. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from relay.maps.file import problems_of, twice
from relay.maps.notation import BadNotation, outer_braces, pairs
from relay.maps.table import MISSING, Answer, Failed, Found, KeyReader, MapProblem, Row


@dataclass(frozen=True, slots=True)
class KeyedTable:
    """Entries by key; a look-up is one dictionary access."""

    name: str
    entries: dict[str, Found | Failed]
    problems: tuple[MapProblem, ...] = ()
    takes_partial_keys: bool = True

    def lookup(self, key: str) -> Answer:
        """Find a key."""
        return self.entries.get(key, MISSING)

    def rows(self) -> Iterator[Row]:
        """Every entry in order."""
        return (Row(key, answer) for key, answer in self.entries.items())

    def keys(self) -> Collection[str]:
        """Every key."""
        return self.entries.keys()

    def may_say(self, _word: str) -> bool:
        """It is soon looked through."""
        return True

    def __len__(self) -> int:
        return len(self.entries)


@dataclass(frozen=True, slots=True)
class StaticTable:
    """``static:VALUE``: the same for every key."""

    name: str
    answer: Found | Failed
    takes_partial_keys: bool = True

    @property
    def problems(self) -> tuple[MapProblem, ...]:
        """Why it has no value, if it has none."""
        if isinstance(self.answer, Failed):
            return (MapProblem(self.answer.place, self.answer.reason, is_error=True),)
        return ()

    def lookup(self, _key: str) -> Answer:
        """The value."""
        return self.answer

    def rows(self) -> Iterator[Row]:
        """The one entry."""
        yield Row("", self.answer)

    def keys(self) -> Collection[str]:
        """None: it compares nothing."""
        return ()

    def may_say(self, _word: str) -> bool:
        """It is soon looked through."""
        return True

    def __len__(self) -> int:
        return 1


def read_inline(argument: str, name: str, read_key: KeyReader) -> KeyedTable:
    """Read ``{ key=value, { key = value with blanks } }``; places count the pairs.

    :raises BadNotation: if that is not what it is; Postfix refuses the whole table then, too.
    """
    entries = []
    for number, (written, value) in enumerate(pairs(argument), 1):
        key, never = read_key(written)
        place = f"{name}:{number}"
        entries.append((key, Found(value, place) if value else Failed("a key without a value", place), never))
    if not entries:
        raise BadNotation("empty table")
    return _keyed(name, entries)


def read_static(argument: str, name: str) -> StaticTable:
    """Read ``VALUE`` or ``{ VALUE with blanks }``.

    :raises BadNotation: if a brace has no other.
    """
    value = outer_braces(argument).strip() if argument.startswith("{") else argument.strip()
    place = f"{name}:1"
    return StaticTable(name, Found(value, place) if value else Failed("static: without a value", place))


def _keyed(name: str, read: Iterable[tuple[str, Found | Failed, str]]) -> KeyedTable:
    entries: dict[str, Found | Failed] = {}
    problems: list[MapProblem] = []
    for key, entry, never in read:
        problems += problems_of(key, entry, never)
        earlier = entries.setdefault(key, entry)
        if earlier is not entry:
            entries[key], problem = twice(key, earlier, entry)
            problems.append(problem)
    return KeyedTable(name, entries, tuple(problems))
