"""Relayhosts by sender: the maps of ``sender_dependent_relayhost_maps`` in, where a sender's mail goes out. Pure.

As with transport maps a line that cannot be understood never disappears: mail of its senders waits, and neither
``relayhost`` nor a wider key takes its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from relay.mail.envelope import NullSender, Sender
from relay.mail.names import BadName, Domain, IpLiteral
from relay.maptext import LogicalLine, logical_lines
from relay.routing.transport import Malformed, TransportProblem, Via, parse_next_hops

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
    """One map, parsed.

    :param entries: by normalised key: lower case, the domain in A-labels without trailing dot.
    """

    name: str
    entries: Mapping[str, SenderEntry]
    problems: tuple[TransportProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class SenderTables:
    """The maps of ``smtp.sender_dependent_relayhost_maps``, in order."""

    tables: tuple[SenderTable, ...] = ()

    def lookup(self, sender: Sender) -> SenderEntry | NoRelayhost:
        """Find what holds for a sender: each key in turn, and for each key the first table that has it."""
        if self.tables:
            for key in lookup_keys(sender):
                for table in self.tables:
                    if key in table.entries:
                        return table.entries[key]
        return NoRelayhost()

    @property
    def problems(self) -> tuple[TransportProblem, ...]:
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


def parse_relayhosts(text: str, name: str, *, port: int) -> SenderTable:
    """Read a map.

    :param text: the file's content; octets that are no UTF-8 as surrogates (``errors="surrogateescape"``).
    :param name: the file as it is to be called in reasons and problems.
    :param port: the TCP port of next-hops that name none.
    """
    entries: dict[str, SenderEntry] = {}
    problems: list[TransportProblem] = []
    for line in logical_lines(text):
        place = f"{name}:{line.number}"
        written, value = [*line.text.split(maxsplit=1), ""][:2]
        key, fault = _normal_key(written)
        if fault:
            problems.append(TransportProblem(place, fault, is_error=True))
        entry = SenderEntry(place, _action(line, value.strip(), port))
        if isinstance(entry.action, Malformed):
            problems.append(TransportProblem(place, f"{key}: {entry.action}", is_error=True))
        earlier = entries.setdefault(key, entry)
        if earlier is not entry:
            same = earlier.action == entry.action
            text_of_it = f'duplicate entry: "{key}" (first at {earlier.place})'
            if not same:
                entries[key] = SenderEntry(place, Malformed("one entry for a key", text_of_it))
            problems.append(TransportProblem(place, text_of_it, is_error=not same))
    return SenderTable(name, entries, tuple(problems))


def _action(line: LogicalLine, value: str, port: int) -> Via | AsOthers | Malformed:
    expected = "an address or @domain, white space and a next-hop"
    if any("\ud800" <= character <= "\udfff" for character in line.text):
        return Malformed("UTF-8", f"{line.text[:_SHOWN]!a}")
    if line.text[0].isspace():
        return Malformed(expected, "white space at the beginning of the first line of an entry")
    if not value:
        return Malformed(expected, "nothing behind the key")
    return AsOthers() if value.lower() == _DUNNO else parse_next_hops(value, port)


def _normal_key(written: str) -> tuple[str, str]:
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
