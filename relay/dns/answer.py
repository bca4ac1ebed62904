"""The ways in which a DNS query can end, kept apart all the way to the policy decision. Pure.

Secure, insecure, bogus, NODATA, NXDOMAIN, SERVFAIL and timeout mean different things to RFC 7672 section 2.1, so each has
a type of its own here. RDATA travels as uncompressed wire octets: every resolver can give them, and a malformed record
then spoils only itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from relay.mail.names import BadName, Domain, IpAddress


class RRType(IntEnum):
    """The record types that a relay asks for."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    MX = 15
    TXT = 16
    AAAA = 28
    TLSA = 52


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Records of the type asked for.

    :param canonical: the owner of the records after following CNAMEs (the name asked for if there were none).
    :param secure: whether the records and every CNAME that led to them were validated.
    :param ttl: seconds that the whole answer may be kept, the smallest of the chain.
    """

    canonical: Domain
    rdata: tuple[bytes, ...]
    secure: bool
    ttl: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NoData:
    """The name exists and has no records of that type."""

    canonical: Domain
    secure: bool
    ttl: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NxDomain:
    """The name, or what its CNAMEs lead to, does not exist."""

    canonical: Domain
    secure: bool
    ttl: int


@dataclass(frozen=True, slots=True)
class Bogus:
    """Validation failed; the validator's reason, one line."""

    why: str


class LookupFault(Enum):
    """Why no answer could be had."""

    SERVFAIL = "SERVFAIL"
    REFUSED = "REFUSED"
    TIMEOUT = "timeout"
    MALFORMED = "malformed answer"
    LIMIT = "limit exceeded"
    NO_VALIDATION = "resolver does not validate"


@dataclass(frozen=True, slots=True)
class LookupFailed:
    """No answer; always temporary, and never proof of absence."""

    fault: LookupFault
    why: str


Answer = Found | NoData | NxDomain | Bogus | LookupFailed


@dataclass(frozen=True, slots=True, order=True)
class Mx:
    """One MX record; ``exchange`` is None for the root name of a null MX (RFC 7505)."""

    preference: int
    exchange: Domain | None


@lru_cache(maxsize=4096)
def parse_mx(rdata: bytes) -> Mx | None:
    """Read the RDATA of an MX record; None if it is malformed or names no possible host."""
    if len(rdata) < 3:
        return None
    preference = int.from_bytes(rdata[:2], "big")
    if rdata[2:] == b"\0":
        return Mx(preference, None)
    name = parse_name(rdata[2:])
    return None if name is None else Mx(preference, name)


@lru_cache(maxsize=4096)
def parse_address(rdata: bytes) -> IpAddress | None:
    """Read the RDATA of an A or AAAA record; None if it has another length."""
    match len(rdata):
        case 4:
            return IPv4Address(rdata)
        case 16:
            return IPv6Address(rdata)
        case _:
            return None


def parse_name(wire: bytes) -> Domain | None:
    """Read one uncompressed domain name that fills ``wire``; None if it is the root, malformed or no host name."""
    labels: list[str] = []
    at = 0
    while at < len(wire) and wire[at]:
        length = wire[at]
        label = wire[at + 1 : at + 1 + length]
        if length > 63 or len(label) < length or b"." in label:
            return None
        labels.append(label.decode("latin-1"))
        at += 1 + length
    if at != len(wire) - 1:
        return None
    text = ".".join(labels)
    try:
        return Domain.parse(text) if text.isascii() else None
    except BadName:
        return None
