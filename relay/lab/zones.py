"""From destinations to zones: the DNS of the lab's Internet, as data. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from relay.lab.destination import HOSTS, LAB, Destination, Host, MxSet
from relay.lab.nameserver import Fault, Trust, Zone


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a world put its hosts.

    :param addresses: IPv4 address by host name.
    :param tlsa: TLSA RDATA in presentation form by host name.
    """

    port: int
    addresses: Mapping[str, str]
    tlsa: Mapping[str, tuple[str, ...]]

    def tlsa_owner(self, host: str) -> str:
        """The name at which TLSA records of a host are, without trailing dot (RFC 6698 section 3)."""
        return f"_{self.port}._tcp.{host}"


def build_zones(destinations: Iterable[Destination], placement: Placement) -> tuple[Zone, ...]:
    """Every zone of the lab, from the root down.

    :param placement: has an address for each host of the destinations.
    """
    trust = {".": Trust.SECURE, "test.": Trust.SECURE, f"{LAB}.": Trust.SECURE, f"{HOSTS}.": Trust.SECURE}
    records: dict[str, dict[tuple[str, str], tuple[str, ...]]] = defaultdict(dict)
    faults: dict[str, dict[tuple[str, str], Fault]] = defaultdict(dict)
    records["."] = {(".", "NS"): (f"ns.{LAB}.",)}
    records[f"{LAB}."] = {(f"ns.{LAB}.", "A"): ("127.0.0.1",)}
    for one in destinations:
        if one.mx is MxSet.NO_DOMAIN:
            continue
        apex = f"{one.domain}."
        trust[apex] = one.trust
        records[apex].update(_mx(one))
        for host in one.hosts:
            zone = apex if f".{host.name}.".endswith(f".{apex}") else f"{HOSTS}."
            records[zone].update(_host(host, placement))
            if host.alias:
                records[apex][f"{host.alias}.", "CNAME"] = (f"{host.name}.",)
            if host.tlsa_fault is not Fault.NONE:
                faults[zone][f"{placement.tlsa_owner(host.name)}.", "TLSA"] = host.tlsa_fault
    return tuple(Zone(apex, state, records[apex], faults[apex]) for apex, state in trust.items())


def _mx(one: Destination) -> dict[tuple[str, str], tuple[str, ...]]:
    owner = (f"{one.domain}.", "MX")
    if one.mx is MxSet.NULL:
        return {owner: ("0 .",)}
    if one.mx is MxSet.RECORDS:
        return {owner: tuple(f"{host.preference} {host.shown_name}." for host in one.hosts)}
    return {}


def _host(host: Host, placement: Placement) -> dict[tuple[str, str], tuple[str, ...]]:
    found: dict[tuple[str, str], tuple[str, ...]] = {(f"{host.name}.", "A"): (placement.addresses[host.name],)}
    if tlsa := placement.tlsa[host.name]:
        found[f"{placement.tlsa_owner(host.name)}.", "TLSA"] = tlsa
    return found
