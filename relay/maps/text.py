"""Tables of literal keys: map files of ``key whitespace value``, ``inline:`` and ``static:``. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from relay.maps.comments import Comment
from relay.maps.lines import LogicalLine, fault_of, logical_lines
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

    def __len__(self) -> int:
        return 1


def read_text(text: str, name: str, read_key: KeyReader) -> KeyedTable:
    """Read a map file.

    A line that cannot be understood keeps its key, and looking that up fails; Postfix would drop the line, and a wider
    key or the default would apply.

    :param text: the content; octets that are no UTF-8 as surrogates (``errors="surrogateescape"``).
    """
    return _keyed(name, (_entry(line, name, read_key) for line in logical_lines(text)))


def _entry(line: LogicalLine, name: str, read_key: KeyReader) -> tuple[str, Found | Failed, str]:
    written, value = [*line.text.split(maxsplit=1), ""][:2]
    value = value.rstrip()
    key, never = read_key(written)
    place = f"{name}:{line.number}"
    fault = fault_of(line) or ("" if value else "expected format: key whitespace value")
    return key, Failed(fault, place) if fault else Found(value, place, line.note), never


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
        if never:
            problems.append(MapProblem(entry.place, never, is_error=True))
        if isinstance(entry, Failed):
            problems.append(MapProblem(entry.place, f"{key}: {entry.reason}", is_error=True))
        earlier = entries.setdefault(key, entry)
        if earlier is not entry:
            entries[key], problem = _duplicate(key, earlier, entry)
            problems.append(problem)
    return KeyedTable(name, entries, tuple(problems))


def _duplicate(key: str, earlier: Found | Failed, later: Found | Failed) -> tuple[Found | Failed, MapProblem]:
    """The same key twice: harmless if both lines say the same, else nobody knows which was meant.

    Postfix's texthash refuses the whole table then and every look-up fails; here only this key is deferred.
    """
    text = f'duplicate entry: "{key}" (first at {earlier.place})'
    if isinstance(earlier, Found) and isinstance(later, Found) and _said(earlier) == _said(later):
        return earlier, MapProblem(later.place, text, is_error=False)
    return Failed(text, later.place), MapProblem(later.place, text, is_error=True)


def _said(entry: Found) -> tuple[list[str], Comment]:
    return entry.value.split(), entry.note
