"""What changes for whom between two sets of policy maps. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import assert_never

from relay.mail.names import BadName, NextHop
from relay.policy.compare import lesser_guarantees, sample_next_hop, wider
from relay.policy.exceptions import find, in_force
from relay.policy.level import Level
from relay.policy.policy import (
    NO_END,
    Defaults,
    Entry,
    MalformedEntry,
    MapEntry,
    MatchName,
    MatchRule,
    NoEntry,
    Rule,
    rule_of,
)
from relay.policy.table import PolicyTables, lookup_keys

MALFORMED = "malformed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What holds for a destination.

    :param level: the level's word, or ``malformed``.
    :param key: the key that was found; empty for the default.
    :param match: names as written, at levels with names those of the default where the line has none.
    :param until: the last day of a line that ends, as YYYY-MM-DD.
    :param audit: the level that is tried beside.
    :param warning: of a malformed line, what is wrong with it.
    """

    level: str
    key: str
    rule: Rule
    match: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    tafiles: tuple[str, ...] = ()
    protocols: str = ""
    ciphers: str = ""
    exclude: str = ""
    servername: str = ""
    policy_failure: str = ""
    mx_host_pattern: tuple[str, ...] = ()
    until: str = ""
    audit: str = ""
    warning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One destination for which something changes.

    :param destination: a key of one of the maps, or a next-hop that mail is queued for.
    :param aspects: what changes: names of fields of ``Applied``, ``key`` as ``rule``.
    :param weaker: how the new rule accepts what the old one did not; empty if it does not.
    :param queued: how many deliveries wait for it, as far as that was asked.
    """

    destination: str
    before: Applied
    after: Applied
    aspects: tuple[str, ...]
    weaker: tuple[str, ...] = ()
    queued: int = 0

    @property
    def becomes_malformed(self) -> bool:
        """Whether mail that could be sent is deferred from now on for a line that cannot be understood."""
        return self.after.level == MALFORMED != self.before.level


def diff(
    old: PolicyTables, new: PolicyTables, defaults: Defaults, queued: Iterable[NextHop] = (), *, now: datetime
) -> tuple[Change, ...]:
    """Compare what holds for every key of both, and for every queued destination; in alphabetical order.

    :param defaults: the options beside the maps, the same before and after.
    :param queued: where queued deliveries go, each as often as there are deliveries.
    :param now: aware; lines that have ended by then count for nothing.
    """
    waiting = Counter(queued)
    before, after = _Side(old, defaults, now), _Side(new, defaults, now)
    changes: list[Change] = []
    for name, next_hop in sorted(_destinations(old, new, waiting).items()):
        was, becomes = before.applied(next_hop), after.applied(next_hop)
        aspects = tuple(_aspects(was, becomes))
        if aspects:
            entries = before.entry(next_hop), after.entry(next_hop)
            weaker = (
                *lesser_guarantees(*entries, next_hop, defaults),
                *wider(*entries, next_hop, defaults),
                *_longer(*entries),
            )
            queued_here = 0 if name.startswith(".") else waiting[next_hop]
            changes.append(
                Change(destination=name, before=was, after=becomes, aspects=aspects, weaker=weaker, queued=queued_here)
            )
    return tuple(changes)


def _destinations(old: PolicyTables, new: PolicyTables, queued: Iterable[NextHop]) -> Mapping[str, NextHop]:
    """What to look up, by what it is to be called."""
    taken = frozenset(key for tables in (old, new) for table in tables.tables for key in table.entries)
    found = {next_hop.key: next_hop for next_hop in queued}
    for key in taken - found.keys():
        try:
            found[key] = sample_next_hop(key, taken)
        except BadName:
            continue  # nothing is ever looked up there
    return found


def _longer(before: Entry, after: Entry) -> Iterator[str]:
    """An exception that lasts longer than it did."""
    if isinstance(before, MapEntry) and isinstance(after, MapEntry) and before.until < after.until:
        yield f"does not end on {before.until}" + ("" if after.until == NO_END else f" but on {after.until}")


def _aspects(before: Applied, after: Applied) -> Iterator[str]:
    for one in fields(Applied):
        if one.name != "rule" and getattr(before, one.name) != getattr(after, one.name):
            yield "rule" if one.name == "key" else one.name


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two sets, with the options beside it."""

    tables: PolicyTables
    defaults: Defaults
    now: datetime

    def entry(self, next_hop: NextHop) -> Entry:
        return in_force(find(self.tables, next_hop, self.defaults), self.now)

    def applied(self, next_hop: NextHop) -> Applied:
        entry = self.entry(next_hop)
        rule = rule_of(entry, self.defaults)
        match entry:
            case MalformedEntry():
                return Applied(level=MALFORMED, key=entry.key, rule=rule, warning=entry.warning)
            case NoEntry():
                level = self.defaults.level
                return Applied(level=level.word, key="", rule=rule, match=_match(level, (), self.defaults))
            case MapEntry():
                parameters = entry.parameters
                return Applied(
                    level=entry.level.word,
                    key=self._key_of(entry, next_hop),
                    rule=rule,
                    match=_match(entry.level, entry.match, self.defaults),
                    fingerprints=tuple(sorted(entry.fingerprints)),
                    tafiles=entry.tafiles,
                    protocols=parameters.protocols,
                    ciphers=parameters.ciphers,
                    exclude=parameters.exclude or "",
                    servername=parameters.servername,
                    policy_failure=entry.policy_failure,
                    mx_host_pattern=entry.mx_patterns,
                    until="" if entry.until == NO_END else str(entry.until),
                    audit=entry.audit.word if entry.audit.uses_tls else "",
                )
            case _:
                assert_never(entry)

    def _key_of(self, entry: MapEntry, next_hop: NextHop) -> str:
        tables = self.tables.tables
        return next(
            key
            for key in lookup_keys(next_hop)
            for table in tables
            if (found := table.lookup(key)) is not None and found.rule == entry.rule
        )


def _match(level: Level, written: tuple[MatchRule, ...], defaults: Defaults) -> tuple[str, ...]:
    if not level.is_pkix:
        return ()
    rules = written or (defaults.verify_match if level is Level.VERIFY else defaults.secure_match)
    return tuple(rule.value if isinstance(rule, MatchName) else str(rule) for rule in rules)
