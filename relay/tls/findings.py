"""The words of a refusal: what a certificate was expected to show, what it showed, and Postfix's line about it. Pure.

Everything of the peer's goes through ``CertFacts``, whose texts are escaped and bounded; lists are cut to a few items.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

from relay.dane.match import digest
from relay.dane.tlsa import MatchingType, Selector, Tlsa
from relay.policy.policy import LiteralName
from relay.tls.peer import CertFacts, ChainFailed

PEER: Final = "{peer}"
"""Stands in a detail line for the host that only the caller knows, ``NAME[ADDRESS]:PORT``."""

MAX_LISTED: Final = 4
MAX_SHOWN_NAME: Final = 100
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]")
_POSTFIX_WORDS: Final = {
    9: "certificate not yet valid",
    10: "certificate has expired",
    13: "certificate not yet valid",
    14: "certificate has expired",
}
_UNTRUSTED_ISSUER: Final = (2, 19, 20)
_SELF_SIGNED_LEAF: Final = 18
_INVALID_PURPOSE: Final = 26
_CHAIN_TOO_LONG: Final = 22
_NOT_TRUSTED: Final = 27
_CHAIN_LIMIT: Final = 9


def listed(items: Sequence[object], joined_by: str = " or ") -> str:
    """The first few items, and how many more there are."""
    shown = joined_by.join(str(item) for item in items[:MAX_LISTED])
    return shown if len(items) <= MAX_LISTED else f"{shown}{joined_by}{len(items) - MAX_LISTED} more"


def expected_name(names: tuple[LiteralName, ...], trusted_by: str) -> str:
    """``a certificate for mx.example or example.com from a trusted CA``."""
    return f"a certificate for {listed(names)} from {trusted_by}"


def found_names(presented: tuple[str, ...]) -> str:
    """The names that a certificate has instead of a wanted one."""
    if not presented:
        return "a certificate without names"
    return "a certificate for " + listed([_shown(name) for name in presented], ", ")


def found_leaf(leaf: CertFacts) -> str:
    """Whose certificate it is, for people: subject, else its names, else its digest."""
    if leaf.subject:
        return leaf.subject
    return f"sha256(cert) {hashlib.sha256(leaf.der).hexdigest().upper()}"


def found_instead(records: tuple[Tlsa, ...], chain: tuple[CertFacts, ...]) -> str:
    """What records of these kinds would have had to say to match the peer's leaf, and what came above it."""
    leaf, issuers = chain[0], chain[1:]
    kinds = dict.fromkeys((record.selector, record.matching) for record in records)
    shown = [_digest_of(leaf, selector, matching) for selector, matching in kinds]
    found = f"leaf {listed(list(dict.fromkeys(shown)), ', ')} of {found_leaf(leaf)}"
    if issuers:
        found += "; above it " + listed([found_leaf(each) for each in issuers], ", ")
    return found


def failure_detail(failed: ChainFailed) -> str:
    """Postfix's line about a verify error (tls_verify.c, tls_log_verify_error), with ``{peer}`` for the host."""
    role = "server" if failed.depth == 0 else "CA"
    start = f"certificate verification failed for {PEER}"
    if failed.code == _NOT_TRUSTED:
        return f"{start}: not trusted by local or TLSA policy"
    if failed.code == _SELF_SIGNED_LEAF:
        return f"{start}: self-signed certificate"
    if failed.code in _UNTRUSTED_ISSUER:
        return f"{start}: untrusted issuer {failed.issuer or '<unknown>'}"
    if failed.code == _INVALID_PURPOSE:
        return f"{start}: not designated for use as a {role} certificate"
    if failed.code == _CHAIN_TOO_LONG:
        return f"{start}: certificate chain longer than limit({_CHAIN_LIMIT})"
    words = _POSTFIX_WORDS.get(failed.code)
    if words is not None:
        return f"{role} {start}: {words}"
    return f"{role} {start}: num={failed.code}:{failed.text}"


def name_detail() -> str:
    """Postfix's line about a trusted certificate with other names."""
    return f"server certificate verification failed for {PEER}: num=62:hostname mismatch"


def no_match_detail() -> str:
    """Postfix's line about a leaf that no usage 3 record or fingerprint matches."""
    return f"server certificate verification failed for {PEER}: num=65:no matching DANE TLSA records"


def _digest_of(leaf: CertFacts, selector: Selector, matching: MatchingType) -> str:
    # Full data would not fit in a line: its digest stands for it.
    by = MatchingType.SHA2_512 if matching is MatchingType.SHA2_512 else MatchingType.SHA2_256
    what, octets = ("cert", leaf.der) if selector is Selector.CERT else ("spki", leaf.spki)
    if not octets:
        return f"{what} unreadable"
    return f"{'sha512' if by is MatchingType.SHA2_512 else 'sha256'}({what}) {digest(by, octets).hex().upper()}"


def _shown(name: str) -> str:
    clean = _UNPRINTABLE.sub("?", name[:MAX_SHOWN_NAME])
    return clean if len(name) <= MAX_SHOWN_NAME else clean + "..."
