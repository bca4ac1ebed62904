"""Exceptions that end: ``until=`` on a line, what holds after it, and what there is to say about it. Pure.

Three laws:

* A line with ``until=`` must be weaker somewhere than what applies without it; elsewhere the end of a line would make
  something weaker by itself one day, so such a line is malformed and defers its mail.
* The last day counts whole, in UTC: ``until=2027-01-31`` holds until 2027-02-01T00:00Z.
* Afterwards the line is as if it were not there, for whoever asks: what it covered up holds, with a word of the line in
  its rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Final

from relay.mail.names import BadName, NextHop
from relay.maps.table import MapProblem
from relay.policy.compare import lesser_guarantees, sample_next_hop, wider
from relay.policy.policy import NO_END, Defaults, Entry, MalformedEntry, MapEntry, NoEntry, rule_of
from relay.policy.table import PolicyTables

NOTICE: Final = timedelta(days=14)
"""How long before its end a line is warned of."""


def find(tables: PolicyTables, next_hop: NextHop, defaults: Defaults) -> Entry:
    """The entry of a next-hop, with what applies without it where it ends; the same on every day.

    A line with an end that weakens nothing comes back malformed.
    """
    ending: list[MapEntry] = []
    found: Entry = NoEntry()
    for entry in tables.candidates(next_hop):
        if any(entry.rule.place == each.rule.place for each in ending):
            continue  # a pattern that has the parent's key too
        if not isinstance(entry, MapEntry) or entry.until == NO_END:
            found = entry
            break
        ending.append(entry)
    for entry in reversed(ending):
        found = _above(entry, found, next_hop, defaults)
    return found


def in_force(entry: Entry, at: datetime) -> Entry:
    """What holds of an entry at a time (aware): itself, or once it has ended what applies without it."""
    if not isinstance(entry, MapEntry) or entry.until == NO_END:
        return entry
    today = at.astimezone(UTC).date()
    ended: list[str] = []
    while isinstance(entry, MapEntry) and entry.until < today:
        ended.append(f"{entry.rule.place} expired on {entry.until}")
        entry = entry.otherwise
    if not ended:
        return entry
    return replace(entry, since=" and ".join(ended))


def _above(entry: MapEntry, otherwise: Entry, next_hop: NextHop, defaults: Defaults) -> Entry:
    if weaker_by(entry, otherwise, next_hop, defaults):
        return replace(entry, otherwise=otherwise)
    warning = (
        f'attribute "until" allowed only on a line that is weaker than what applies without it '
        f"({rule_of(otherwise, defaults)})"
    )
    return MalformedEntry(key=entry.rule.text.split(maxsplit=1)[0], rule=entry.rule, warning=warning)


def weaker_by(entry: Entry, otherwise: Entry, next_hop: NextHop, defaults: Defaults) -> tuple[str, ...]:
    """How a line is weaker than what applies without it, one text for each way; empty if it is not."""
    return (
        *lesser_guarantees(otherwise, entry, next_hop, defaults),
        *wider(otherwise, entry, next_hop, defaults),
    )


@dataclass(frozen=True, slots=True)
class Ending:
    """A line that ends, as it stands in a table.

    :param entry: with what applies without it; malformed where it may have no end.
    :param sample: a next-hop that finds it.
    """

    key: str
    entry: MapEntry | MalformedEntry
    sample: NextHop

    @property
    def place(self) -> str:
        """``FILE:LINE``."""
        return self.entry.rule.place


def ending_lines(tables: PolicyTables, defaults: Defaults) -> Iterator[Ending]:
    """Every line with ``until=`` that is found by its key, in order of file and line; those of patterns only look-ups see."""
    found = [(key, entry) for table in tables.tables for key, entry in table.that_end() if key]
    taken = frozenset[str]().union(*(table.source.keys() for table in tables.tables)) if found else frozenset[str]()
    for key, entry in found:
        try:
            sample = sample_next_hop(key, taken)
        except BadName:
            continue  # nothing is ever looked up there, which is a problem of its own
        seen = _found_at(tables, sample, entry, defaults)
        if seen is not None:
            yield Ending(key, seen, sample)


def _found_at(
    tables: PolicyTables, sample: NextHop, wanted: MapEntry, defaults: Defaults
) -> MapEntry | MalformedEntry | None:
    """What a look-up makes of one line, on whatever day it has its turn; None where it never has one."""
    entry: Entry = find(tables, sample, defaults)
    while isinstance(entry, MapEntry) and entry.rule != wanted.rule:
        entry = entry.otherwise
    return None if isinstance(entry, NoEntry) or entry.rule != wanted.rule else entry


def misplaced(tables: PolicyTables, defaults: Defaults) -> Iterator[MapProblem]:
    """The lines whose ``until=`` makes them malformed."""
    for each in ending_lines(tables, defaults):
        if isinstance(each.entry, MalformedEntry):
            yield MapProblem(each.place, f"{each.key}: {each.entry.warning}", is_error=True)


def endings(tables: PolicyTables, defaults: Defaults, now: datetime) -> Iterator[MapProblem]:
    """The lines that have ended, and those that will within two weeks: what to log once a day."""
    today = now.astimezone(UTC).date()
    for each in ending_lines(tables, defaults):
        if isinstance(each.entry, MapEntry) and each.entry.until - today <= NOTICE:
            otherwise = each.entry.otherwise
            then = f"{rule_of(otherwise, defaults)} ({_word(otherwise, defaults)})"
            yield MapProblem(each.place, f"{each.key}: {_ending(each.entry, today, then)}", is_error=False)
    for key, entry in (pair for table in tables.tables for pair in table.that_end()):
        if not key and entry.until - today <= NOTICE:
            yield MapProblem(entry.rule.place, _ending(entry, today, "what applies without it"), is_error=False)


def _ending(entry: MapEntry, today: date, then: str) -> str:
    line = f'the exception "{entry.level.word} until={entry.until}"'
    days = (entry.until - today).days
    if days < 0:
        return f"{line} has expired; {then} applies: remove the line"
    when = "today" if days == 0 else "tomorrow" if days == 1 else f"in {days} days"
    return f"{line} ends {when} (at the end of that day, UTC); then {then} applies"


def _word(entry: Entry, defaults: Defaults) -> str:
    if isinstance(entry, MalformedEntry):
        return "malformed"
    return defaults.level.word if isinstance(entry, NoEntry) else entry.level.word
