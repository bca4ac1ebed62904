"""Which TLSA records count, and whether one matches a certificate (RFC 6698 section 2.1, RFC 7671 section 9). Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import assert_never

from relay.dane.tlsa import MatchingType, Selector, Tlsa, Usage


def counting(records: Iterable[Tlsa]) -> tuple[Tlsa, ...]:
    """The records that remain after digest agility, in their order.

    Of the digests that a usage and selector publish, only the strongest counts (SHA2-512 before SHA2-256), so that a
    broken digest cannot help once a better one is there; Full(0) data needs no digest and always counts.
    """
    given = tuple(dict.fromkeys(records))
    strongest: dict[tuple[Usage, Selector], MatchingType] = {}
    for record in given:
        kind = (record.usage, record.selector)
        strongest[kind] = max(record.matching, strongest.get(kind, MatchingType.FULL))
    return tuple(
        record for record in given if record.matching in (MatchingType.FULL, strongest[record.usage, record.selector])
    )


def in_turn(records: Iterable[Tlsa]) -> tuple[Tlsa, ...]:
    """The records in the order in which OpenSSL tries them (dane_tlsa_add): so a log names the one that Postfix's names.

    Usage 3 before 2, keys before certificates, the strongest digest first and Full(0) data last; else as given.
    """
    return tuple(sorted(records, key=lambda record: (-record.usage, -record.selector, -record.matching)))


def matches(record: Tlsa, *, der: bytes, spki: bytes) -> bool:
    """Whether a record describes a certificate; says nothing about usage, place in the chain or dates.

    :param der: the whole certificate as sent.
    :param spki: its SubjectPublicKeyInfo as sent; empty (it could not be cut out) never matches.
    """
    match record.selector:
        case Selector.CERT:
            selected = der
        case Selector.SPKI:
            selected = spki
        case _:
            assert_never(record.selector)
    return bool(selected) and digest(record.matching, selected) == record.data


def digest(matching: MatchingType, selected: bytes) -> bytes:
    """The selected octets as a record of this matching type publishes them."""
    match matching:
        case MatchingType.FULL:
            return selected
        case MatchingType.SHA2_256:
            return hashlib.sha256(selected).digest()
        case MatchingType.SHA2_512:
            return hashlib.sha512(selected).digest()
        case _:
            assert_never(matching)
