"""Policy maps: Postfix ``tls_policy`` text in, entries by key out, and the order in which keys are tried. Pure.

The laws:

* A line that cannot be understood never disappears: its key is known, so mail for that key is deferred, where
  Postfix's texthash would drop the line and a weaker parent or default could apply.
* Entries are parsed once, when the table is loaded; a look-up is one dictionary access for each key and table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from relay.mail.names import BadName, Domain, NextHop
from relay.maptext import LogicalLine, logical_lines
from relay.policy.attributes import parse_policy
from relay.policy.level import Level
from relay.policy.policy import MalformedEntry, MapEntry, NoEntry, Rule

__all__ = [
    "PolicyTable",
    "PolicyTables",
    "TableProblem",
    "logical_lines",
    "lookup_keys",
    "parse_table",
]

_SHOWN = 200


@dataclass(frozen=True, slots=True)
class TableProblem:
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
class PolicyTable:
    """One policy map, parsed.

    :param entries: by normalised key: lower case, A-labels, no trailing dot.
    """

    name: str
    entries: Mapping[str, MapEntry | MalformedEntry]
    problems: tuple[TableProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyTables:
    """The policy maps of ``smtp.tls_policy_maps``, in order."""

    tables: tuple[PolicyTable, ...] = ()

    def lookup(self, next_hop: NextHop) -> MapEntry | MalformedEntry | NoEntry:
        """Find the entry of a next-hop: each key in turn, and for each key the first table that has it."""
        for key in lookup_keys(next_hop):
            for table in self.tables:
                entry = table.entries.get(key)
                if entry is not None:
                    return entry
        return NoEntry()

    def written_for(self, next_hop: NextHop) -> Iterator[MapEntry | MalformedEntry]:
        """The lines whose key is the next-hop itself, neither a parent of it nor a pattern."""
        return (table.entries[next_hop.key] for table in self.tables if next_hop.key in table.entries)

    @property
    def problems(self) -> tuple[TableProblem, ...]:
        """What is wrong with the tables, in order of file and line."""
        return tuple(problem for table in self.tables for problem in table.problems)

    @property
    def tafiles(self) -> tuple[str, ...]:
        """Every trust anchor file that an entry names, once."""
        entries = (entry for table in self.tables for entry in table.entries.values())
        return tuple(dict.fromkeys(name for e in entries if isinstance(e, MapEntry) for name in e.tafiles))


def lookup_keys(next_hop: NextHop) -> Iterator[str]:
    """The keys to try, in order (postfix smtp_tls_policy.c, tls_policy_lookup).

    A bare domain is followed by each parent with a leading dot; brackets or a port allow only the text itself.
    """
    yield next_hop.key
    if next_hop.use_mx and isinstance(next_hop.host, Domain) and next_hop.key == str(next_hop.host):
        yield from ("." + parent for parent in next_hop.host.parents())


def parse_table(text: str, name: str, *, base: str = "") -> PolicyTable:
    """Read a policy map.

    :param text: the file's content; octets that are no UTF-8 as surrogates (``errors="surrogateescape"``).
    :param name: the file as it is to be called in rules and problems.
    :param base: the directory that relative ``tafile`` names start from.
    """
    entries: dict[str, MapEntry | MalformedEntry] = {}
    problems: list[TableProblem] = []
    for line in logical_lines(text):
        key, entry, found = _parse_line(line, name, base)
        problems += found
        earlier = entries.get(key)
        if earlier is None:
            entries[key] = entry
        else:
            entries[key], problem = _duplicate(key, earlier, entry)
            problems.append(problem)
    return PolicyTable(name, entries, tuple(problems))


def _parse_line(
    line: LogicalLine, name: str, base: str
) -> tuple[str, MapEntry | MalformedEntry, tuple[TableProblem, ...]]:
    written, value = [*line.text.split(maxsplit=1), ""][:2]
    value = value.rstrip()
    rule = Rule(f"{name}:{line.number}", f"{written} {value}".rstrip()[:_SHOWN])
    key, fault = _normal_key(written)

    def broken(warning: str) -> tuple[str, MapEntry | MalformedEntry, tuple[TableProblem, ...]]:
        entry = MalformedEntry(key=key, rule=rule, warning=warning)
        return key, entry, (TableProblem(rule.place, warning, is_error=True),)

    if any("\ud800" <= character <= "\udfff" for character in line.text):
        return broken(f"non-UTF-8 input {line.text[:_SHOWN]!a}")
    if line.text[0].isspace():
        return broken("logical line must not start with whitespace")
    if not value:
        return broken("invalid empty policy: expected format: key whitespace value")
    parsed = parse_policy(value, key=key, rule=rule, base=base)
    problems = [
        TableProblem(rule.place, f"{key}: {text}", is_error=_matches_nobody(parsed.entry)) for text in parsed.warnings
    ]
    if isinstance(parsed.entry, MalformedEntry):
        problems.append(TableProblem(rule.place, f"{key}: {parsed.entry.warning}", is_error=True))
    if fault:
        problems.append(TableProblem(rule.place, fault, is_error=True))
    return key, parsed.entry, tuple(problems)


def _matches_nobody(entry: MapEntry | MalformedEntry) -> bool:
    """Whether an entry can be satisfied by no host at all."""
    return isinstance(entry, MalformedEntry) or (entry.level is Level.FINGERPRINT and not entry.fingerprints)


def _normal_key(written: str) -> tuple[str, str]:
    """The key as look-ups ask for it, and what is wrong with it if none ever will."""
    key = written.lower()
    below = key.startswith(".")
    try:
        if below:
            return f".{Domain.parse(key[1:])}", ""
        next_hop = NextHop.parse(key, default_port=25)
    except BadName as error:
        return key, f'no next-hop ever matches the key "{written[:_SHOWN]}": {error}'
    return next_hop.key, ""


def _duplicate(
    key: str, earlier: MapEntry | MalformedEntry, later: MapEntry | MalformedEntry
) -> tuple[MapEntry | MalformedEntry, TableProblem]:
    """The same key twice: harmless if both lines say the same, else nobody knows which was meant.

    Postfix's texthash refuses the whole table then and every look-up fails; here only this key is deferred.
    """
    text = f'duplicate entry: "{key}" (first at {earlier.rule.place})'
    if _meaning(earlier) == _meaning(later):
        return earlier, TableProblem(later.rule.place, text, is_error=False)
    warning = f"policy table lookup error: {text}"
    return MalformedEntry(key=key, rule=later.rule, warning=warning), TableProblem(
        later.rule.place, text, is_error=True
    )


def _meaning(entry: MapEntry | MalformedEntry) -> MapEntry | MalformedEntry:
    return replace(entry, rule=Rule(""))
