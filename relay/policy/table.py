"""Policy maps: Postfix ``tls_policy`` entries by key, and the order in which keys are tried. Pure.

The laws:

* A line that cannot be understood never disappears: mail for what it would have decided is deferred, where Postfix drops
  lines that are no entries at all, and a weaker parent or default could apply.
* What is wrong with a table is told when it is loaded, line by line; an entry itself is made when it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from relay.mail.names import MAX_NAME_OCTETS, BadName, Domain, NextHop
from relay.maps.build import MapSpec, build_table
from relay.maps.cidr import CidrTable
from relay.maps.comments import Comment
from relay.maps.notation import has_references
from relay.maps.table import Failed, Found, LookupTable, MapProblem, Missing
from relay.policy.attributes import ParsedPolicy, parse_policy
from relay.policy.level import Level
from relay.policy.policy import NO_END, Entry, MalformedEntry, MapEntry, NoEntry, Rule

_SHOWN = 200
_REMEMBERED = 10_000
_PLAIN = re.compile(
    r"\.?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII
)
_SAMPLE = "example.com"  # stands for what a pattern matched (RFC 2606 section 3)

AnchorFault = Callable[[str], str]
"""What is wrong with a trust anchor file; empty if nothing is."""


@dataclass(frozen=True, slots=True)
class PolicyTable:
    """One policy map, checked.

    :param source: keys are normalised: lower case, A-labels, no trailing dot.
    :param base: the directory that relative ``tafile`` names start from.
    :param anchors: every trust anchor file that was looked at, and what is wrong with it.
    """

    source: LookupTable
    base: str = ""
    anchors: Mapping[str, str] | None = None
    problems: tuple[MapProblem, ...] = ()

    @property
    def name(self) -> str:
        """The map as rules call it."""
        return self.source.name

    def lookup(self, key: str) -> MapEntry | MalformedEntry | None:
        """The entry of one key; None if the table has none."""
        match self.source.lookup(key):
            case Missing():
                return None
            case Failed() | Found() as answer:
                return self.read(key, answer).entry

    def read(self, key: str, answer: Found | Failed) -> ParsedPolicy:
        """The entry that a row of the table comes to for a key."""
        if isinstance(answer, Failed):
            rule = Rule(answer.place, key)
            return ParsedPolicy(
                MalformedEntry(key=key, rule=rule, warning=f"policy table lookup error: {answer.reason}")
            )
        rule = Rule(answer.place, f"{key} {answer.value}"[:_SHOWN])
        parsed = parse_policy(answer.value, key=key, rule=rule, base=self.base, comment=answer.note)
        fault = self._anchor_fault(parsed.entry) if isinstance(parsed.entry, MapEntry) else ""
        return replace(parsed, entry=MalformedEntry(key=key, rule=rule, warning=fault)) if fault else parsed

    def _anchor_fault(self, entry: MapEntry) -> str:
        if self.anchors is None:
            return ""
        for name in entry.tafiles:
            fault = self.anchors.get(name, f"error opening trust anchor file: {name}: not read with the map")
            if fault:
                return fault
        return ""

    @property
    def entries(self) -> Mapping[str, MapEntry | MalformedEntry]:
        """The entries of keys that are compared as they stand, made as they are asked for."""
        return _Entries(self)

    def unkeyed(self) -> Iterator[MapEntry | MalformedEntry]:
        """The entries of patterns and of ``static:``, but for those whose text depends on what a pattern matches."""
        for row in self.source.rows():
            if not row.key and not (isinstance(row.answer, Found) and has_references(row.answer.value)):
                yield self.read(_SAMPLE, row.answer).entry

    def that_end(self) -> Iterator[tuple[str, MapEntry]]:
        """The entries with ``until=``, with their keys; empty for a pattern, whose key is only known in a look-up."""
        for row in self.source.rows() if self.source.may_say("until") else ():
            # An entry is made when it is asked for; in a large map few have the word in them.
            if isinstance(row.answer, Found) and "until" in f"{row.answer.value} {row.answer.note.text}".lower():
                entry = self.read(row.key or _SAMPLE, row.answer).entry
                if isinstance(entry, MapEntry) and entry.until != NO_END:
                    yield row.key, entry

    @property
    def tafiles(self) -> tuple[str, ...]:
        """The trust anchor files that can be used."""
        return tuple(name for name, fault in (self.anchors or {}).items() if not fault)


class _Entries(Mapping[str, MapEntry | MalformedEntry]):
    """A table of literal keys, seen as a mapping."""

    def __init__(self, table: PolicyTable) -> None:
        self._table = table
        self._keys = table.source.keys()

    def __getitem__(self, key: str) -> MapEntry | MalformedEntry:
        entry = self._table.lookup(key) if key in self._keys else None
        if entry is None:
            raise KeyError(key)
        return entry

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


@dataclass(frozen=True, slots=True)
class PolicyTables:
    """The policy maps of ``smtp.tls_policy_maps``, in order."""

    tables: tuple[PolicyTable, ...] = ()

    def lookup(self, next_hop: NextHop) -> Entry:
        """Find the entry of a next-hop, whatever the day (``relay.policy.exceptions`` knows which lines have ended)."""
        return next(self.candidates(next_hop), NoEntry())

    def candidates(self, next_hop: NextHop) -> Iterator[MapEntry | MalformedEntry]:
        """Every entry that a next-hop leads to, that of ``lookup`` first, then what would hold without it."""
        for key in lookup_keys(next_hop):
            for table in self.tables:
                entry = table.lookup(key)
                if entry is not None:
                    yield entry

    def written_for(self, next_hop: NextHop) -> Iterator[MapEntry | MalformedEntry]:
        """The lines whose key is the next-hop itself, neither a parent of it nor a pattern."""
        return (table.entries[next_hop.key] for table in self.tables if next_hop.key in table.entries)

    @property
    def problems(self) -> tuple[MapProblem, ...]:
        """What is wrong with the tables, in order of file and line."""
        return tuple(problem for table in self.tables for problem in table.problems)

    @property
    def tafiles(self) -> tuple[str, ...]:
        """Every trust anchor file that an entry names and that can be used, once."""
        return tuple(dict.fromkeys(name for table in self.tables for name in table.tafiles))


def lookup_keys(next_hop: NextHop) -> Iterator[str]:
    """The keys to try, in order (postfix smtp_tls_policy.c, tls_policy_lookup).

    A bare domain is followed by each parent with a leading dot; brackets or a port allow only the text itself. Every key
    is asked of every kind of table: patterns see ``.example.com`` too.
    """
    yield next_hop.key
    if next_hop.use_mx and isinstance(next_hop.host, Domain) and next_hop.key == str(next_hop.host):
        yield from ("." + parent for parent in next_hop.host.parents())


def parse_table(
    text: str, name: str, *, base: str = "", kind: str = "texthash", anchor_fault: AnchorFault = lambda _name: ""
) -> PolicyTable:
    """Read a policy map that is a file.

    :param text: the file's content; octets that are no UTF-8 as surrogates (``errors="surrogateescape"``).
    :param name: the file as it is to be called in rules and problems.
    :param base: the directory that relative ``tafile`` names start from.
    :param kind: the type of the map.
    """
    source = build_table(MapSpec(kind, name), text, read_key=read_key)
    return policy_table(source, base=base, anchor_fault=anchor_fault)


def policy_table(source: LookupTable, *, base: str = "", anchor_fault: AnchorFault = lambda _name: "") -> PolicyTable:
    """Check every entry of a table that was read with ``read_key``."""
    anchors: dict[str, str] = {}
    table = PolicyTable(source, base)
    problems = list(source.problems)
    faultless: set[tuple[str, Comment]] = set()  # what has been read without a word to be said of it
    if isinstance(source, CidrTable) and len(source):
        text = "no next-hop is ever found in a cidr: map: addresses stand in brackets there"
        problems.append(MapProblem(f"{source.name}:1", text, is_error=True))
    for row in source.rows():
        if isinstance(row.answer, Failed) or (row.answer.value, row.answer.note) in faultless:
            continue  # a problem of the source already, or none
        sampled = has_references(row.answer.value) and not row.key
        answer = replace(row.answer, value=_with_sample(row.answer.value)) if sampled else row.answer
        parsed = table.read(row.key or _SAMPLE, answer)
        if isinstance(parsed.entry, MapEntry) and parsed.entry.tafiles and not sampled:
            anchors.update({one: anchor_fault(one) for one in parsed.entry.tafiles if one not in anchors})
            parsed = replace(table, anchors=anchors).read(row.key or _SAMPLE, answer)
        found = tuple(_problems(row.key, row.answer.place, parsed, sampled=sampled))
        if not found and len(faultless) < _REMEMBERED:
            faultless.add((row.answer.value, row.answer.note))
        problems += found
    return PolicyTable(source, base, anchors, tuple(problems))


def _with_sample(value: str) -> str:
    head, *parts = value.split("${")
    return head + "".join(_SAMPLE + part.partition("}")[2] for part in parts)


def _problems(key: str, place: str, parsed: ParsedPolicy, *, sampled: bool) -> Iterator[MapProblem]:
    prefix = f"{key}: " if key else ""
    if sampled:
        prefix = f"if {_SAMPLE} is what the pattern matched: "
    for text in parsed.warnings:
        yield MapProblem(place, prefix + text, is_error=_matches_nobody(parsed.entry) and not sampled)
    if isinstance(parsed.entry, MalformedEntry):
        yield MapProblem(place, prefix + parsed.entry.warning, is_error=not sampled)


def _matches_nobody(entry: MapEntry | MalformedEntry) -> bool:
    """Whether an entry can be satisfied by no host at all."""
    return isinstance(entry, MalformedEntry) or (entry.level is Level.FINGERPRINT and not entry.fingerprints)


def read_key(written: str) -> tuple[str, str]:
    """The key as look-ups ask for it, and what is wrong with it if none ever will."""
    if len(written) <= MAX_NAME_OCTETS and _PLAIN.fullmatch(written):
        return written, ""  # what reading it as a name would come to, only sooner
    key = written.lower()
    below = key.startswith(".")
    try:
        if below:
            return f".{Domain.parse(key[1:])}", ""
        next_hop = NextHop.parse(key, default_port=25)
    except BadName as error:
        return key, f'no next-hop ever matches the key "{written[:_SHOWN]}": {error}'
    return next_hop.key, ""
