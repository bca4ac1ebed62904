"""From destinations to zones: the DNS of the lab's Internet, as data. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from relay.lab.destination import BOGUS_HOSTS, HOSTS, LAB, PLAIN_HOSTS, Destination, Host, MxSet
from relay.lab.nameserver import Fault, Trust, Zone


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a world put its hosts.

    :param addresses: IPv4 address by host name.
    :param tlsa: TLSA RDATA in presentation form by host name.
    :param nameserver: the address of the authority for all zones.
    :param decoy: TLSA RDATA that matches no host.
    """

    port: int
    addresses: Mapping[str, str]
    tlsa: Mapping[str, tuple[str, ...]]
    nameserver: str = "127.0.0.1"
    decoy: str = "3 1 1 " + "00" * 32

    def tlsa_owner(self, base: str) -> str:
        """The name at which TLSA records of a base domain are, without trailing dot (RFC 6698 section 3)."""
        return f"_{self.port}._tcp.{base}"


def build_zones(destinations: Iterable[Destination], placement: Placement) -> tuple[Zone, ...]:
    """Every zone of the lab, from the root down.

    :param placement: has an address for each host of the destinations.
    """
    building = _Zones(placement)
    for one in destinations:
        if one.mx is not MxSet.NO_DOMAIN:
            building.add(one)
    return building.zones()


class _Zones:
    """The zones while they are made; a record goes into the closest zone above its owner."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._trust = dict.fromkeys((".", "test.", f"{LAB}.", f"{HOSTS}."), Trust.SECURE)
        self._trust |= {f"{PLAIN_HOSTS}.": Trust.INSECURE, f"{BOGUS_HOSTS}.": Trust.BOGUS}
        self._records: dict[str, dict[tuple[str, str], tuple[str, ...]]] = defaultdict(dict)
        self._faults: dict[str, dict[tuple[str, str], Fault]] = defaultdict(dict)
        self._put(".", "NS", f"ns.{LAB}.")
        self._put(f"ns.{LAB}", "A", placement.nameserver)

    def zones(self) -> tuple[Zone, ...]:
        return tuple(Zone(apex, trust, self._records[apex], self._faults[apex]) for apex, trust in self._trust.items())

    def add(self, one: Destination) -> None:
        if not one.alias_of:  # a CNAME record cannot be at a zone's apex (RFC 1034 section 3.6.2)
            self._trust[f"{one.domain}."] = one.trust
        else:
            self._put(one.domain, "CNAME", f"{one.alias_of}.")
        owner = one.alias_of or one.domain
        if one.mx is MxSet.NULL:
            self._put(owner, "MX", "0 .")
        if one.mx is MxSet.RECORDS:
            self._put(owner, "MX", *(f"{host.preference} {host.shown_name}." for host in one.hosts))
        for host in one.hosts:
            self._add_host(host)

    def _add_host(self, host: Host) -> None:
        self._put(host.name, "A", self._placement.addresses[host.name])
        path = (host.alias, *host.via, host.name) if host.alias else ()
        for alias, target in pairwise(path):
            self._put(alias, "CNAME", f"{target}.")
        owner = self._placement.tlsa_owner(host.tlsa_base)
        if host.tlsa_alias:
            self._put(owner, "CNAME", f"{host.tlsa_alias}.")
        if tlsa := self._placement.tlsa[host.name]:
            self._put(host.tlsa_alias or owner, "TLSA", *tlsa)
        for base in host.decoys:
            self._put(self._placement.tlsa_owner(base), "TLSA", self._placement.decoy)
        if host.tlsa_fault is not Fault.NONE:
            self._faults[self._zone_of(owner)][f"{owner}.", "TLSA"] = host.tlsa_fault

    def _put(self, owner: str, rrtype: str, *rdata: str) -> None:
        absolute = f"{owner.rstrip('.')}."
        self._records[self._zone_of(owner)][absolute, rrtype] = rdata

    def _zone_of(self, owner: str) -> str:
        labels = owner.rstrip(".").split(".")
        above = (".".join(labels[number:]) + "." for number in range(len(labels)))
        return next((apex for apex in above if apex in self._trust), ".")
