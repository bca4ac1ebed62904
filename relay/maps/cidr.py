"""``cidr:`` tables: ordered networks, the first that has the address answers (cidr_table(5)). Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from relay.maps.notation import BadNotation
from relay.maps.rules import RuleRead, Rules, no_groups, read_rules, signs
from relay.maps.table import MISSING, Answer, MapProblem, Row

_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Network:
    """A network, or with ``negated`` all addresses of its version outside it."""

    version: int
    shift: int
    prefix: int
    negated: bool

    def has(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether the address counts as in it; one of the other version never does."""
        inside = int(address) >> self.shift == self.prefix
        return address.version == self.version and inside != self.negated


@dataclass(frozen=True, slots=True)
class CidrTable:
    """A table of networks; what is no address is in none of them."""

    name: str
    rules: Rules[Network]
    takes_partial_keys: bool = False

    @property
    def problems(self) -> tuple[MapProblem, ...]:
        """What is wrong with its rules, in order."""
        return self.rules.problems

    def lookup(self, key: str) -> Answer:
        """Find the first network that has the address."""
        try:
            address = ip_address(key)
        except ValueError:
            return MISSING
        return self.rules.first(lambda network: no_groups if network.has(address) else None)

    def rows(self) -> Iterator[Row]:
        """Every result, in order."""
        return self.rules.rows()

    def keys(self) -> Collection[str]:
        """None: it compares nothing."""
        return ()

    def may_say(self, _word: str) -> bool:
        """It is soon looked through."""
        return True

    def __len__(self) -> int:
        return len(self.rules)


def read_cidr(text: str, name: str) -> CidrTable:
    """Read a ``cidr`` table."""
    return CidrTable(name, read_rules(text, name, read_rule=_read_rule, read_condition=_read_network))


def _read_rule(line: str) -> RuleRead[Network]:
    negated, rest = signs(line)
    written, value = [*rest.split(maxsplit=1), "", ""][:2]
    network = _network(written, negated=negated)
    if not value:
        raise BadNotation("no lookup result")
    return network, (value,)


def _read_network(text: str) -> Network:
    """Read ``!192.0.2.0/24``, ``2001:db8::/32``, ``[2001:db8::]/32`` or one address.

    :raises BadNotation: in Postfix's words (cidr_match.c).
    """
    negated, pattern = signs(text)
    return _network(pattern.strip(), negated=negated)


def _network(pattern: str, *, negated: bool) -> Network:
    if not pattern:
        raise BadNotation("no address pattern")
    bracketed = re.fullmatch(r"\[([^\]]*)\](/.*)?", pattern) or re.fullmatch(r"\[([^\]]*/[^\]]*)\]()", pattern)
    plain = bracketed[1] + (bracketed[2] or "") if bracketed else pattern
    try:
        network = _parsed(plain)
    except ValueError as error:
        raise BadNotation(f'bad address pattern: "{pattern[:_SHOWN]}": {error}') from None
    shift = network.max_prefixlen - network.prefixlen
    return Network(network.version, shift, int(network.network_address) >> shift, negated=negated)


def _parsed(text: str) -> IPv4Network | IPv6Network:
    _, slash, mask = text.partition("/")
    if slash and not re.fullmatch(r"[0-9]{1,3}", mask):
        raise ValueError("bad mask value")
    if "%" in text:
        raise ValueError("no scope may stand here")
    return ip_network(text)
