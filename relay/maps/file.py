"""Map files of ``key whitespace value``, as postmap(1) reads them; large ones too. Pure.

What is kept is the file's text and where each key stands in it; an entry is read when it is asked for. A line that cannot
be understood keeps its key, and looking that up fails; Postfix would drop the line, and a wider key or the default would
apply.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator

from relay.maps.comments import NO_COMMENT, Comment, attribute_comments
from relay.maps.index import NOTHING, KeyIndex
from relay.maps.lines import fault_of, spans
from relay.maps.table import MISSING, Answer, Failed, Found, KeyReader, MapProblem, Row


class FileTable:
    """A map file; a look-up takes as long in a large one as in a small one.

    :param text: the content; octets that are no UTF-8 as surrogates (``errors="surrogateescape"``).
    :param read_key: how keys are normalised.
    """

    takes_partial_keys = True

    def __init__(self, text: str, name: str, read_key: KeyReader) -> None:
        self.name = name
        self._text = text
        self._read_key = read_key
        self._notes = attribute_comments(text)
        self._starts = array("Q")
        self._numbers = array("I")
        self._contradicting: dict[str, Failed] = {}
        self._index = KeyIndex(self._key_at)
        self.problems = tuple(self._load())

    def _load(self) -> Iterator[MapProblem]:
        for number, start, line in spans(self._text):
            written = line.split(maxsplit=1)[0]
            key, never = self._read_key(written)
            first = self._index.add(key)
            if first == NOTHING:
                self._starts.append(start)
                self._numbers.append(number)
            if never or first != NOTHING or fault_of(line) or not _value(line):
                entry = self._read(number, line)
                yield from problems_of(key, entry, never)
                if first != NOTHING:
                    kept, problem = twice(key, self._contradicting.get(key) or self._at(first), entry)
                    if isinstance(kept, Failed):
                        self._contradicting[key] = kept
                    yield problem

    def _read(self, number: int, line: str) -> Found | Failed:
        value, place = _value(line), f"{self.name}:{number}"
        fault = fault_of(line) or ("" if value else "expected format: key whitespace value")
        return Failed(fault, place) if fault else Found(value, place, self._notes.get(number, NO_COMMENT))

    def _line_at(self, position: int) -> tuple[int, str]:
        number, _, line = next(spans(self._text, self._starts[position], self._numbers[position]))
        return number, line

    def _at(self, position: int) -> Found | Failed:
        return self._read(*self._line_at(position))

    def _key_at(self, position: int) -> str:
        return self._read_key(self._line_at(position)[1].split(maxsplit=1)[0])[0]

    def lookup(self, key: str) -> Answer:
        """Find a key."""
        position = self._index.find(key)
        if position == NOTHING:
            return MISSING
        return self._contradicting.get(key) or self._at(position)

    def rows(self) -> Iterator[Row]:
        """Every entry in order."""
        for position in range(len(self._index)):
            number, line = self._line_at(position)
            key = self._read_key(line.split(maxsplit=1)[0])[0]
            yield Row(key, self._contradicting.get(key) or self._read(number, line))

    def keys(self) -> Collection[str]:
        """Every key."""
        return _Keys(self)

    def may_say(self, word: str) -> bool:
        """Whether the word is in the text."""
        return word in self._text or word in self._text.lower()

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._index.find(key) != NOTHING

    def __iter__(self) -> Iterator[str]:
        return map(self._key_at, range(len(self._index)))

    def __len__(self) -> int:
        return len(self._index)


class _Keys(Collection[str]):
    """The keys of a file, none of them kept."""

    def __init__(self, table: FileTable) -> None:
        self._table = table

    def __contains__(self, key: object) -> bool:
        return key in self._table

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


def _value(line: str) -> str:
    parts = line.split(maxsplit=1)
    return parts[1].rstrip() if len(parts) > 1 else ""


def problems_of(key: str, entry: Found | Failed, never: str) -> Iterator[MapProblem]:
    """What is wrong with one entry by itself.

    :param never: why no look-up asks for the key; empty if one may.
    """
    if never:
        yield MapProblem(entry.place, never, is_error=True)
    if isinstance(entry, Failed):
        yield MapProblem(entry.place, f"{key}: {entry.reason}", is_error=True)


def twice(key: str, earlier: Found | Failed, later: Found | Failed) -> tuple[Found | Failed, MapProblem]:
    """The same key twice: harmless if both lines say the same, else nobody knows which was meant.

    Postfix's texthash refuses the whole table then and every look-up fails; here only this key is deferred.
    """
    text = f'duplicate entry: "{key}" (first at {earlier.place})'
    if isinstance(earlier, Found) and isinstance(later, Found) and _said(earlier) == _said(later):
        return earlier, MapProblem(later.place, text, is_error=False)
    return Failed(text, later.place), MapProblem(later.place, text, is_error=True)


def _said(entry: Found) -> tuple[list[str], Comment]:
    return entry.value.split(), entry.note
