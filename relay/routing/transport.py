"""Transport maps: Postfix ``transport(5)`` text in, what to do with a recipient's mail out. Pure.

The laws:

* A line that cannot be understood never disappears: its key is known, so mail for that key waits; nothing is guessed, and
  no wider key or default takes its place.
* Next-hops keep the text they were written with: it is the key of ``smtp.tls_policy_maps``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from relay.mail.envelope import Address
from relay.mail.names import BadName, Domain, IpLiteral, NextHop
from relay.mail.reply import EnhancedStatus
from relay.maps.build import MapSpec, build_table
from relay.maps.notation import has_references
from relay.maps.table import Failed, Found, LookupTable, MapProblem, Missing, find

EVERYBODY = "*"
TRANSPORTS = ("smtp", "relay", "error", "retry", "discard")
_SHOWN = 200
_STATUS_THEN_TEXT = re.compile(r"(\d\.\d{1,3}\.\d{1,3})(?:\s+|$)", re.ASCII)
_CLASS = {"error": 5, "retry": 4}


@dataclass(frozen=True, slots=True)
class Via:
    """``smtp:[host]:port`` or ``:[host]:port``: to these next-hops, tried in order."""

    next_hops: tuple[NextHop, ...]


@dataclass(frozen=True, slots=True)
class ByDomain:
    """``smtp:``: to the recipient's domain, past a ``relayhost``."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """``:``: as if there were no transport map."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """``error:`` (class 5: bounced) or ``retry:`` (class 4: deferred).

    :param text: the reason; empty where the line gives none.
    """

    status: EnhancedStatus
    text: str


@dataclass(frozen=True, slots=True)
class Discard:
    """``discard:``: taken and thrown away; ``text`` is for the log, empty where the line gives none."""

    text: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """Nobody knows what was meant: mail waits.

    :param expected: what the line should say.
    :param found: what is wrong with it.
    """

    expected: str
    found: str

    def __str__(self) -> str:
        return f"expected {self.expected}; found {self.found}"


Action = Via | ByDomain | Unchanged | Refuse | Discard | Malformed


@dataclass(frozen=True, slots=True)
class TransportEntry:
    """A line of a transport map.

    :param place: ``FILE:LINE``.
    """

    place: str
    action: Action


@dataclass(frozen=True, slots=True)
class NoTransport:
    """No map has an entry."""


@dataclass(frozen=True, slots=True)
class TransportTable:
    """One transport map, checked.

    :param source: keys are normalised: lower case, A-labels, no trailing dot.
    :param port: the TCP port of next-hops that name none.
    """

    source: LookupTable
    port: int
    problems: tuple[MapProblem, ...] = ()

    @property
    def name(self) -> str:
        """The map as reasons call it."""
        return self.source.name

    def lookup(self, key: str, *, partial: bool = False) -> TransportEntry | NoTransport:
        """The entry of one key; patterns are not asked for partial keys."""
        answer = find((self.source,), key, partial=partial)
        return NoTransport() if isinstance(answer, Missing) else self.read(answer)

    def read(self, answer: Found | Failed) -> TransportEntry:
        """What a row of the table comes to."""
        if isinstance(answer, Failed):
            return TransportEntry(answer.place, Malformed("a transport map that can be read", answer.reason))
        return TransportEntry(answer.place, _action(answer.value, self.port))


@dataclass(frozen=True, slots=True)
class TransportTables:
    """The maps of ``smtp.transport_maps``, in order."""

    tables: tuple[TransportTable, ...] = ()

    def lookup(self, address: Address) -> TransportEntry | NoTransport:
        """Find what holds for a recipient: each key in turn, and for each key the first table that has it."""
        if self.tables:
            for number, key in enumerate(lookup_keys(address)):
                for table in self.tables:
                    # Patterns see the whole address, or domains could be matched by what was meant for addresses.
                    entry = table.lookup(key, partial=number > 0 and key != EVERYBODY)
                    if isinstance(entry, TransportEntry):
                        return entry
        return NoTransport()

    @property
    def problems(self) -> tuple[MapProblem, ...]:
        """What is wrong with the tables, in order of file and line."""
        return tuple(problem for table in self.tables for problem in table.problems)


NO_TRANSPORTS = TransportTables()


def lookup_keys(address: Address) -> Iterator[str]:
    """The keys to try, in order (transport(5), TABLE SEARCH ORDER, with Postfix's default that parents take a dot)."""
    domain = address.domain
    name = str(domain).lower()
    yield f"{address.local_part.lower()}@{name}"
    yield name
    if isinstance(domain, Domain):
        yield from ("." + parent for parent in domain.parents())
    yield EVERYBODY


def parse_transport(text: str, name: str, *, port: int, kind: str = "texthash") -> TransportTable:
    """Read a transport map that is a file.

    :param text: the file's content; octets that are no UTF-8 as surrogates (``errors="surrogateescape"``).
    :param name: the file as it is to be called in reasons and problems.
    :param port: the TCP port of next-hops that name none.
    :param kind: the type of the map.
    """
    return transport_table(build_table(MapSpec(kind, name), text, read_key=read_key), port=port)


def transport_table(source: LookupTable, *, port: int) -> TransportTable:
    """Check every entry of a table that was read with ``read_key``."""
    table = TransportTable(source, port)
    problems = list(source.problems)
    for row in source.rows():
        if isinstance(row.answer, Found) and (row.key or not has_references(row.answer.value)):
            action = table.read(row.answer).action
            if isinstance(action, Malformed):
                prefix = f"{row.key}: " if row.key else ""
                problems.append(MapProblem(row.answer.place, f"{prefix}{action}", is_error=True))
    return TransportTable(source, port, tuple(problems))


def _action(value: str, port: int) -> Action:
    transport, _, rest = value.partition(":")
    rest = rest.strip()
    match transport:
        case "":
            return parse_next_hops(rest, port) if rest else Unchanged()
        case "smtp" | "relay":
            return parse_next_hops(rest, port) if rest else ByDomain()
        case "error" | "retry":
            return _refuse(rest, _CLASS[transport])
        case "discard":
            return Discard(rest)
        case _:
            return Malformed(f"one of the transports {', '.join(TRANSPORTS)}", f'"{value[:_SHOWN]}"')


def parse_next_hops(text: str, port: int) -> Via | Malformed:
    """Read next-hops between commas or white space (Postfix 3.5 and later).

    :param port: the TCP port of next-hops that name none.
    """
    next_hops: list[NextHop] = []
    for word in filter(None, re.split(r"[,\s]+", text)):
        try:
            next_hop = NextHop.parse(word, default_port=port)
        except BadName as error:
            return Malformed("domain, domain:port, [host] or [host]:port", str(error))
        if next_hop.use_mx and _is_address(str(next_hop.host)):
            return Malformed(f"an address in brackets, [{next_hop.host}]", f'"{word}"')
        next_hops.append(next_hop)
    if not next_hops:
        return Malformed("a next-hop", f'"{text[:_SHOWN]}"')
    return Via(tuple(dict.fromkeys(next_hops)))


def _is_address(text: str) -> bool:
    try:
        IpLiteral.parse(text)
    except BadName:
        return False
    return True


def _refuse(text: str, klass: int) -> Refuse | Malformed:
    match = _STATUS_THEN_TEXT.match(text)
    if match is None:
        return Refuse(EnhancedStatus(klass, 0, 0), text)
    if not match[1].startswith(str(klass)):
        return Malformed(f"a status code {klass}.x.x", match[1])
    return Refuse(EnhancedStatus.parse(match[1]), text[match.end() :])


def read_key(written: str) -> tuple[str, str]:
    """The key as look-ups ask for it, and what is wrong with it if none ever will."""
    key = written.lower()
    if key == EVERYBODY:
        return key, ""
    local, at, domain = key.rpartition("@")
    dot = "." if not at and domain.startswith(".") else ""
    try:
        if at and not local:
            raise BadName(f"not an address: {written[:80]!r}: nothing before the @; write the domain alone")
        return f"{local}{at}{dot}{_domain(domain.removeprefix(dot))}", ""
    except BadName as error:
        return key, f'no recipient ever matches the key "{written[:_SHOWN]}": {error}'


def _domain(text: str) -> str:
    literal = text.startswith("[") and text.endswith("]")
    return str(IpLiteral.parse(text[1:-1]) if literal else Domain.parse(text)).lower()
