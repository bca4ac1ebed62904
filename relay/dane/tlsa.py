"""TLSA records (RFC 6698 section 2) and the states in which a look-up for them can end (RFC 7672 section 2.2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Final

from relay.dane.der import BIT_STRING, SEQUENCE, has_outline
from relay.mail.names import Domain


class Usage(IntEnum):
    """Certificate usages; 0 and 1 are never usable for SMTP (RFC 7672 section 3.1.3)."""

    PKIX_TA = 0
    PKIX_EE = 1
    DANE_TA = 2
    DANE_EE = 3


class Selector(IntEnum):
    """Which part of the certificate is compared."""

    CERT = 0
    SPKI = 1


class MatchingType(IntEnum):
    """How it is compared."""

    FULL = 0
    SHA2_256 = 1
    SHA2_512 = 2


_DIGEST_OCTETS: Final = {MatchingType.SHA2_256: 32, MatchingType.SHA2_512: 64}
# What Full(0) data must look like. Not more: a record that only we cannot read would count as unusable, and what is left
# is then encryption without proof. One that nobody can read matches nothing, so a doubt defers (DESIGN section 2, P2).
_OUTLINES: Final = {Selector.CERT: (SEQUENCE, SEQUENCE, BIT_STRING), Selector.SPKI: (SEQUENCE, BIT_STRING)}
_SHOWN_HEX_DIGITS: Final = 64


@dataclass(frozen=True, slots=True)
class Tlsa:
    """A usable TLSA record: DANE-TA or DANE-EE, known selector and matching type, data that can match."""

    usage: Usage
    selector: Selector
    matching: MatchingType
    data: bytes

    def __str__(self) -> str:
        """Presentation form in capitals as Postfix logs it, long data cut."""
        digits = self.data.hex().upper()
        shown = digits if len(digits) <= _SHOWN_HEX_DIGITS else digits[:_SHOWN_HEX_DIGITS] + "..."
        return f"{self.usage:d} {self.selector:d} {self.matching:d} {shown}"


@dataclass(frozen=True, slots=True)
class UnusableTlsa:
    """A TLSA record that cannot authenticate an SMTP server; ``reason`` says why, in one line."""

    rdata: bytes
    reason: str


def parse_tlsa(rdata: bytes) -> Tlsa | UnusableTlsa:
    """Read the RDATA of one TLSA record.

    :param rdata: wire format, from the network: any octets.
    :returns: the record, or why it is unusable; a malformed record spoils only itself (RFC 7671 section 9).
    """
    if len(rdata) <= 3:
        return UnusableTlsa(rdata, f"truncated TLSA RR length == {len(rdata)}")
    fields = f"{rdata[0]} {rdata[1]} {rdata[2]} {rdata[3:].hex().upper()[:_SHOWN_HEX_DIGITS]}"
    if rdata[0] not in (Usage.DANE_TA, Usage.DANE_EE):
        return UnusableTlsa(rdata, f"unsupported TLSA certificate usage: {fields}")
    if rdata[1] not in (Selector.CERT, Selector.SPKI):
        return UnusableTlsa(rdata, f"unsupported TLSA selector: {fields}")
    if rdata[2] not in (MatchingType.FULL, MatchingType.SHA2_256, MatchingType.SHA2_512):
        return UnusableTlsa(rdata, f"unsupported TLSA matching type: {fields}")
    record = Tlsa(Usage(rdata[0]), Selector(rdata[1]), MatchingType(rdata[2]), rdata[3:])
    wanted = _DIGEST_OCTETS.get(record.matching)
    if wanted is not None and len(record.data) != wanted:
        return UnusableTlsa(rdata, f"TLSA digest of {len(record.data)} octets instead of {wanted}: {fields}")
    if wanted is None and not has_outline(record.data, _OUTLINES[record.selector]):
        return UnusableTlsa(rdata, f"TLSA data is no {record.selector.name} in DER: {fields}")
    return record


@dataclass(frozen=True, slots=True)
class NotLookedUp:
    """No TLSA query was made; ``why`` says what made it needless."""

    why: str


@dataclass(frozen=True, slots=True)
class Absent:
    """There are no TLSA records to go by: denial of existence (secure or not), or records without DNSSEC."""

    why: str


@dataclass(frozen=True, slots=True)
class Usable:
    """Secure records, at least one of them usable, at ``base`` (the TLSA base domain, RFC 7672 section 2.2.2)."""

    base: Domain
    records: tuple[Tlsa, ...]
    unusable: tuple[UnusableTlsa, ...] = ()


@dataclass(frozen=True, slots=True)
class Unusable:
    """Secure records at ``base``, none of them usable: TLS is required but cannot be authenticated."""

    base: Domain
    unusable: tuple[UnusableTlsa, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """The look-up failed or its answer was bogus: the host must not be used (RFC 7672 section 2.1.2)."""

    why: str


TlsaLookup = NotLookedUp | Absent | Usable | Unusable | Failed


@lru_cache(maxsize=256)
def classify(base: Domain, rdatas: tuple[bytes, ...]) -> Usable | Unusable:
    """Sort a secure, non-empty TLSA RRset into usable and unusable records.

    :param base: the TLSA base domain whose records they are.
    """
    parsed = [parse_tlsa(rdata) for rdata in rdatas]
    usable = tuple(record for record in parsed if isinstance(record, Tlsa))
    unusable = tuple(record for record in parsed if isinstance(record, UnusableTlsa))
    return Usable(base, usable, unusable) if usable else Unusable(base, unusable)
