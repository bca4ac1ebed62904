"""A handful of destinations of the signed tree, gathered as a delivery does: hosts, addresses and TLSA records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, assert_never

from relay.dane.tlsa import Absent, Failed, NotLookedUp, TlsaLookup, Unusable, Usable
from relay.delivery.gather import Destination, Gatherer, LookupTrouble
from relay.dns.answer import Mx
from relay.dns.resolver import Resolver
from relay.mail.names import NextHop
from tests.interop.signed_tree_zones import VARIANTS

SMTP_PORT: Final = 25


@dataclass(frozen=True, slots=True)
class Case:
    """A next-hop and what must come of it.

    :param destination: ``MX secure``, ``MX insecure``, ``no MX``, with the expanded next-hop behind an arrow; or trouble.
    :param hosts: what is found for each host: the status of its addresses, and its TLSA records.
    """

    next_hop: str
    destination: str
    hosts: Mapping[str, str]


def cases(top: str) -> tuple[Case, ...]:
    """The destinations below one top-level domain."""
    good, plain, alias, sick = (f"{zone}.{top}" for zone in ("good", "plain", "alias", "sick"))
    at_mx1 = f"secure, 2 usable at mx1.{good}"
    both = {f"mx1.{good}": at_mx1, f"mx2.{good}": "secure, absent"}
    return (
        Case(good, "MX secure", both),
        Case(
            plain,
            "MX insecure",
            {f"mx1.{plain}": "insecure, not looked up", f"mx2.{plain}": "insecure, not looked up"},
        ),
        Case(f"outsourced.{plain}", "MX insecure", {f"mx1.{good}": at_mx1}),
        Case(f"domain.{alias}", f"MX secure -> {good}", both),
        Case(f"[alias.{good}]", "no MX", {f"alias.{good}": at_mx1}),
        Case(f"[fallback.{good}]", "no MX", {f"fallback.{good}": f"secure, 1 usable at fallback.{good}"}),
        Case(f"[hosted.{alias}]", "no MX", {f"hosted.{alias}": f"insecure, 1 usable at hosted.{alias}"}),
        Case(f"[to-plain.{alias}]", "no MX", {f"to-plain.{alias}": "insecure, absent"}),
        Case(f"[alias.{plain}]", "no MX", {f"alias.{plain}": "insecure, not looked up"}),
        Case(f"[big.{good}]", "no MX", {f"big.{good}": f"secure, 60 usable at big.{good}"}),
        Case(f"[host.tampered.{sick}]", "no MX", {f"host.tampered.{sick}": "secure, failed"}),
        Case(f"[missing.{sick}]", "no MX", {f"missing.{sick}": "trouble 4.4.3"}),
        Case(
            sick, "MX secure", {f"fine.{sick}": f"secure, 1 usable at fine.{sick}", f"missing.{sick}": "trouble 4.4.3"}
        ),
        Case(f"implicit.{good}", "no MX", {f"implicit.{good}": f"secure, 1 usable at implicit.{good}"}),
        Case(f"null.{good}", "trouble 5.1.0", {}),
        Case(f"nope.{good}", "no MX", {f"nope.{good}": "trouble 5.4.4"}),
        Case(f"expired.{top}", "trouble 4.4.3", {}),
        Case(f"refused.{top}", "trouble 4.4.3", {}),
    )


async def gather(resolver: Resolver) -> dict[str, list[object]]:
    """What comes of every case below every top-level domain, by next-hop: destination and hosts."""
    gatherer = Gatherer(resolver, shuffle=_backwards)
    hops = (case.next_hop for variant in VARIANTS for case in cases(variant.name))
    return {next_hop: await _one(gatherer, next_hop) for next_hop in hops}


def _backwards(records: list[Mx]) -> None:
    records.reverse()


async def _one(gatherer: Gatherer, text: str) -> list[object]:
    destination = await gatherer.destination(NextHop.parse(text, default_port=SMTP_PORT))
    if isinstance(destination, LookupTrouble):
        return [f"trouble {destination.status}", {}]
    hosts: dict[str, str] = {}
    for host in destination.hosts:
        addresses = await gatherer.addresses(host)
        if isinstance(addresses, LookupTrouble):
            hosts[str(host)] = f"trouble {addresses.status}"
            continue
        found = {
            f"{'secure' if address.secure else 'insecure'}, {_tlsa(await gatherer.tlsa(host, SMTP_PORT, address))}"
            for address in addresses
        }
        hosts[str(host)] = "; ".join(sorted(found))
    return [_destination(destination), hosts]


def _destination(destination: Destination) -> str:
    expanded = f" -> {destination.expanded}" if destination.expanded else ""
    return ("MX secure" if destination.mx_secure else "MX insecure") + expanded if destination.had_mx else "no MX"


def _tlsa(lookup: TlsaLookup) -> str:
    match lookup:
        case Usable(base, records):
            return f"{len(records)} usable at {base}"
        case Unusable(base):
            return f"unusable at {base}"
        case Absent():
            return "absent"
        case NotLookedUp():
            return "not looked up"
        case Failed():
            return "failed"
        case _:
            assert_never(lookup)
