"""Relayhosts by sender: the maps of ``sender_dependent_relayhost_maps`` in, where a sender's mail goes out. Pure.

As with transport maps a line that cannot be understood never disappears: mail of its senders waits, and neither
``relayhost`` nor a wider key takes its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from relay.mail.envelope import NullSender, Sender
from relay.mail.names import BadName, Domain, IpLiteral
from relay.maps.build import MapSpec, build_table
from relay.maps.notation import has_references
from relay.maps.table import Failed, Found, LookupTable, MapProblem, Missing, find
from relay.routing.transport import Malformed, Via, parse_next_hops

NULL_KEY = "<>"
"""What the null sender is looked up as (postfix ``empty_address_relayhost_maps_lookup_key``)."""
_DUNNO = "dunno"
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class AsOthers:
    """``DUNNO``: as if the sender were in no map."""


@dataclass(frozen=True, slots=True)
class SenderEntry:
    """A line of such a map.

    :param place: ``FILE:LINE``.
    """

    place: str
    action: Via | AsOthers | Malformed


@dataclass(frozen=True, slots=True)
class NoRelayhost:
    """No map has an entry for the sender."""


@dataclass(frozen=True, slots=True)
class SenderTable:
    """One map, checked.

    :param source: keys are normalised: lower case, the domain in A-labels without trailing dot.
    :param port: the TCP port of next-hops that name none.
    """

    source: LookupTable
    port: int
    problems: tuple[MapProblem, ...] = ()

    @property
    def name(self) -> str:
        """The map as reasons call it."""
        return self.source.name

    def lookup(self, key: str, *, partial: bool = False) -> SenderEntry | NoRelayhost:
        """The entry of one key; patterns are not asked for partial keys."""
        answer = find((self.source,), key, partial=partial)
        return NoRelayhost() if isinstance(answer, Missing) else self.read(answer)

    def read(self, answer: Found | Failed) -> SenderEntry:
        """What a row of the table comes to."""
        if isinstance(answer, Failed):
            return SenderEntry(answer.place, Malformed("a relayhost map that can be read", answer.reason))
        value = answer.value
        return SenderEntry(answer.place, AsOthers() if value.lower() == _DUNNO else parse_next_hops(value, self.port))


@dataclass(frozen=True, slots=True)
class SenderTables:
    """The maps of ``smtp.sender_dependent_relayhost_maps``, in order."""

    tables: tuple[SenderTable, ...] = ()

    def lookup(self, sender: Sender) -> SenderEntry | NoRelayhost:
        """Find what holds for a sender: each key in turn, and for each key the first table that has it."""
        if self.tables:
            for number, key in enumerate(lookup_keys(sender)):
                for table in self.tables:
                    # Patterns see whole addresses only (postfix mail_addr_find.c: partial keys are for fixed tables).
                    entry = table.lookup(key, partial=number > 0)
                    if isinstance(entry, SenderEntry):
                        return entry
        return NoRelayhost()

    @property
    def problems(self) -> tuple[MapProblem, ...]:
        """What is wrong with the tables, in order of file and line."""
        return tuple(problem for table in self.tables for problem in table.problems)


NO_RELAYHOSTS = SenderTables()


def lookup_keys(sender: Sender) -> Iterator[str]:
    """The keys to try, in order: the whole address, then ``@domain`` (postfix mail_addr_find.c; no extensions)."""
    if isinstance(sender, NullSender):
        yield NULL_KEY
        return
    domain = str(sender.domain).lower()
    yield f"{sender.local_part.lower()}@{domain}"
    yield f"@{domain}"


def parse_relayhosts(text: str, name: str, *, port: int, kind: str = "texthash") -> SenderTable:
    """Read a map that is a file.

    :param text: the file's content; octets that are no UTF-8 as surrogates (``errors="surrogateescape"``).
    :param name: the file as it is to be called in reasons and problems.
    :param port: the TCP port of next-hops that name none.
    :param kind: the type of the map.
    """
    return relayhost_table(build_table(MapSpec(kind, name), text, read_key=read_key), port=port)


def relayhost_table(source: LookupTable, *, port: int) -> SenderTable:
    """Check every entry of a table that was read with ``read_key``."""
    table = SenderTable(source, port)
    problems = list(source.problems)
    for row in source.rows():
        if isinstance(row.answer, Found) and (row.key or not has_references(row.answer.value)):
            action = table.read(row.answer).action
            if isinstance(action, Malformed):
                prefix = f"{row.key}: " if row.key else ""
                problems.append(MapProblem(row.answer.place, f"{prefix}{action}", is_error=True))
    return SenderTable(source, port, tuple(problems))


def read_key(written: str) -> tuple[str, str]:
    """The key as look-ups ask for it, and what is wrong with it if none ever will."""
    key = written.lower()
    if key == NULL_KEY:
        return key, ""
    local, at, domain = key.rpartition("@")
    if not at:
        return (
            key,
            f'no sender ever matches the key "{written[:_SHOWN]}": write @{written[:_SHOWN]} for all of a domain',
        )
    try:
        literal = domain.startswith("[") and domain.endswith("]")
        name = IpLiteral.parse(domain[1:-1]) if literal else Domain.parse(domain)
    except BadName as error:
        return key, f'no sender ever matches the key "{written[:_SHOWN]}": {error}'
    return f"{local}@{str(name).lower()}", ""
