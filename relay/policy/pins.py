"""Fingerprints as they are written in policy maps, and maps rewritten with other fingerprints. Pure.

A pin is the digest of a public key (which outlives its certificates) or of a certificate. What is rewritten is one
entry's ``match=`` and nothing else; where that cannot be done in place, nothing is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from relay.maps.lines import logical_lines
from relay.policy.level import Level
from relay.policy.policy import MalformedEntry, MapEntry, Rule
from relay.policy.table import PolicyTable, parse_table, read_key

_MATCH = re.compile(r"(?:(?<=[\s,])|^)match\s*=\s*[^\s,{}]+", re.IGNORECASE)


class CannotPin(ValueError):  # noqa: N818 - it names what happened, not the handling
    """A map cannot be rewritten; the message says why, with file and line, and what to do by hand."""


@dataclass(frozen=True, slots=True)
class PinnedLine:
    """A line at level fingerprint.

    :param pins: lower-case digits without colons, as ``MapEntry.fingerprints``.
    """

    key: str
    entry: MapEntry

    @property
    def pins(self) -> tuple[str, ...]:
        """The digests of which a host must show one."""
        return self.entry.fingerprints


def written(pin: str) -> str:
    """A digest as people compare it: upper case, a colon between octets."""
    return ":".join(pin[i : i + 2] for i in range(0, len(pin), 2)).upper()


def match_of(pins: Sequence[str]) -> str:
    """The attribute that asks for one of these."""
    return f"match={'|'.join(map(written, pins))}"


def line_of(key: str, pins: Sequence[str]) -> str:
    """A line of a policy map."""
    return f"{key}\tfingerprint {match_of(pins)}"


def pinned_lines(table: PolicyTable) -> tuple[PinnedLine, ...]:
    """The lines of a map that ask for fingerprints, in order."""
    return tuple(
        PinnedLine(key, entry)
        for key, entry in table.entries.items()
        if isinstance(entry, MapEntry) and entry.level is Level.FINGERPRINT
    )


def find_pinned(table: PolicyTable, written_key: str) -> PinnedLine:
    """The line of one key.

    :raises CannotPin: if there is none, or it does not ask for fingerprints.
    """
    key, _ = read_key(written_key)
    entry = table.entries.get(key)
    if entry is None:
        raise CannotPin(f"{table.name}: no line has the key {written_key}: `pin capture` makes one")
    if isinstance(entry, MalformedEntry):
        raise CannotPin(f"{entry.rule.place}: {entry.warning}")
    if entry.level is not Level.FINGERPRINT:
        raise CannotPin(f"{entry.rule.place}: expected level fingerprint; found {entry.level.word}")
    return PinnedLine(key, entry)


def with_pins(text: str, name: str, line: PinnedLine, pins: Sequence[str]) -> str:
    """The text of a map file with other fingerprints in one line.

    :param name: the file as it was called when it was parsed.
    :raises CannotPin: if the line is not written so that this can be done in place.
    """
    number = int(line.entry.rule.place.rpartition(":")[2])
    lines = text.split("\n")
    starts = [each.number for each in logical_lines(text)]
    end = next((start for start in starts if start > number), len(lines) + 1) - 1
    found = 0
    for position in range(number - 1, end):
        if not lines[position].lstrip().startswith("#"):
            lines[position], count = _replaced(lines[position], match_of(pins), first=not found)
            found += count
    changed = "\n".join(lines)
    if not found or not _only_pins_differ(text, changed, name, line, pins):
        raise CannotPin(
            f"{line.entry.rule.place}: the line is written in a way that is not changed here; write {match_of(pins)} there"
        )
    return changed


def _replaced(line: str, match: str, *, first: bool) -> tuple[str, int]:
    count = 0

    def put(_found: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return match if first and count == 1 else ""

    return _MATCH.sub(put, line), count


def _only_pins_differ(before: str, after: str, name: str, line: PinnedLine, pins: Sequence[str]) -> bool:
    old, new = _entries(before, name), _entries(after, name)
    wanted = replace(line.entry, fingerprints=tuple(pins), rule=Rule(line.entry.rule.place))
    return new == {**old, line.key: wanted}


def _entries(text: str, name: str) -> Mapping[str, MapEntry | MalformedEntry]:
    """Entries without the text that they were read from."""
    table = parse_table(text, name)
    return {key: replace(entry, rule=Rule(entry.rule.place)) for key, entry in table.entries.items()}
