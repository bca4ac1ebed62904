"""A ``Resolver`` over a dict, for tests of what is made of answers; it records what was asked."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

import dns.name

from relay.dns.answer import Answer, Found, NxDomain, RRType
from relay.mail.names import Domain

Zone = Mapping[tuple[str, RRType], Answer]


class ZoneResolver:
    """Answers from a zone; what is not in it does not exist, securely."""

    def __init__(self, zone: Zone) -> None:
        self.zone = dict(zone)
        self.asked: list[tuple[str, RRType]] = []

    async def query(self, name: Domain, rrtype: RRType) -> Answer:
        self.asked.append((name.name, rrtype))
        return self.zone.get((name.name, rrtype), NxDomain(canonical=name, secure=True, ttl=0))


def found(name: str, *rdata: bytes, secure: bool = True, canonical: str = "") -> Found:
    return Found(canonical=Domain(canonical or name), rdata=rdata, secure=secure, ttl=300)


def mx_rdata(preference: int, exchange: str) -> bytes:
    return preference.to_bytes(2, "big") + name_rdata(exchange)


def name_rdata(name: str) -> bytes:
    wire = dns.name.from_text(name, dns.name.root).to_wire()
    assert wire is not None
    return wire


def a(address: str) -> bytes:
    return ip_address(address).packed


def tlsa_rdata(usage: int, selector: int, matching: int, data: bytes) -> bytes:
    return bytes((usage, selector, matching)) + data
