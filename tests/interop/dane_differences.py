"""judge() beside OpenSSL: what each says of a case, and the classes of difference that are known and meant."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509.oid import NameOID

from relay.dane.der import BadDer, certificate_parts
from relay.dane.match import matches
from relay.dane.tlsa import MatchingType, Tlsa, Usable, Usage, classify, parse_tlsa
from relay.mail.names import Domain
from relay.policy.level import Level
from relay.policy.policy import LiteralName, Rule, TlsPolicy
from relay.tls.certificate import cert_facts
from relay.tls.chain import ChainChecker
from relay.tls.judge import judge
from relay.tls.peer import Anchors, CertFacts, ChainOk, ChainResult, PeerFacts
from relay.tls.signature import signed_by
from relay.tls.verdict import Refused, Verified
from tests.interop.dane_cases import Case, Cell
from tests.interop.openssl_dane import Accepted, NoHandshake, NoneUsable, OpensslDane, Outcome, Rejected
from tests.pki import NOW

_facts = functools.lru_cache(maxsize=50_000)(cert_facts)
_CHECKER: Final = ChainChecker()
WHEN: Final = NOW + timedelta(seconds=33)
"""No date of a generated certificate, even with a bit flipped: whether the last second counts depends on OpenSSL's version."""

_FULL_AUTHORITY: Final = bytes((2, 0, 0))


@dataclass(frozen=True, slots=True)
class Question:
    """A presented chain, RDATA of TLSA records, reference identifiers."""

    presented: tuple[bytes, ...]
    rdatas: tuple[bytes, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ours:
    """What judge() says.

    :param verdict: None if no record is usable, so that there is nothing to judge by.
    :param path: that the chain checker found, empty if it was not asked or found none.
    """

    verdict: Verified | Refused | None
    path: tuple[bytes, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether mail would leave as verified."""
        return isinstance(self.verdict, Verified)


def ask_ours(question: Question, now: datetime = WHEN) -> Ours:
    """Our verdict at level ``dane``."""
    lookup = classify(Domain(question.names[0]), question.rdatas)
    if not isinstance(lookup, Usable):
        return Ours(None)
    policy = TlsPolicy(
        level=Level.DANE,
        asked=Level.DANE,
        rule=Rule("tls_policy:1"),
        names=tuple(LiteralName(Domain(name)) for name in question.names),
        tlsa=lookup.records,
    )
    peer = PeerFacts(
        chain=tuple(_facts(der) for der in question.presented),
        protocol="TLSv1.3",
        cipher="TLS_AES_256_GCM_SHA384",
        bits=256,
        algorithm_bits=256,
    )
    paths: list[tuple[bytes, ...]] = []

    def check(presented: tuple[bytes, ...], anchors: Anchors, at: datetime) -> ChainResult:
        result = _CHECKER(presented, anchors, at)
        if isinstance(result, ChainOk):
            paths.append(result.path)
        return result

    verdict = judge(policy, peer, check, now)
    assert isinstance(verdict, Verified | Refused), verdict
    return Ours(verdict, paths[0] if paths else ())


def ask_openssl(oracle: OpensslDane, question: Question, now: datetime = WHEN) -> Outcome:
    """OpenSSL's verdict."""
    return oracle.verify(question.presented, question.rdatas, question.names, now)


def agree(ours: Ours, theirs: Outcome) -> bool:
    """Whether both say the same: accepted by the same record at the same depth, refused, or nothing to go by."""
    match theirs:
        case Accepted():
            return isinstance(ours.verdict, Verified) and ours.verdict.matched == in_words(theirs)
        case Rejected():
            return isinstance(ours.verdict, Refused)
        case NoneUsable():
            return ours.verdict is None
        case NoHandshake():
            raise AssertionError("a certificate that OpenSSL cannot read: nothing to compare")


def in_words(accepted: Accepted) -> str:
    """What OpenSSL found, in the words of our verdict (which are Postfix's, tls_verify.c)."""
    record = parse_tlsa(accepted.rdata)
    if accepted.bare_key:
        return f"DANE TA public key verified certificate at depth {accepted.depth}: {record}"
    kind = "EE" if accepted.rdata[0] == Usage.DANE_EE else "TA"
    return f"DANE {kind} certificate at depth {accepted.depth}: {record}"


# Classes of difference ------------------------------------------------------------------------------------------------


def is_second_path(oracle: OpensslDane, question: Question, ours: Ours, theirs: Outcome) -> bool:
    """Ours takes a path that OpenSSL does not try, because it follows only the first issuer that fits by name.

    It must be a path that OpenSSL accepts as soon as there is no choice, and there must have been one: a certificate
    that is not in our path and has the name of an issuer that is.
    """
    if not (ours.accepted and isinstance(theirs, Rejected) and ours.path):
        return False
    supplied = [rdata[3:] for rdata in question.rdatas if rdata.startswith(_FULL_AUTHORITY)]
    rivals = {*question.presented, *supplied} - set(ours.path)
    issuers = {_name(der, "issuer") for der in ours.path} - {b""}
    if not any(_name(rival, "subject") in issuers for rival in rivals):
        return False
    # Certificates that come with records are rivals too; their records have no say where OpenSSL has no choice.
    rdatas = [r for r in question.rdatas if not (r.startswith(_FULL_AUTHORITY) and r[3:] in rivals)]
    return isinstance(oracle.verify(ours.path, rdatas, question.names, WHEN), Accepted)


def is_another_match(oracle: OpensslDane, question: Question, ours: Ours, theirs: Outcome) -> bool:
    """Both accept, where several certificates match or lead to a match; a log names another one than Postfix's."""
    return ours.accepted and isinstance(theirs, Accepted)


def is_one_of_several_common_names(oracle: OpensslDane, question: Question, ours: Ours, theirs: Outcome) -> bool:
    """Of several common names ours takes the last (RFC 6125 section 6.4.4), OpenSSL any; ours is the stricter one."""
    if not (isinstance(ours.verdict, Refused) and isinstance(theirs, Accepted)):
        return False
    subject = x509.load_der_x509_certificate(question.presented[0]).subject
    return (
        "hostname mismatch" in ours.verdict.detail
        and not _facts(question.presented[0]).dns_names
        and len(subject.get_attributes_for_oid(NameOID.COMMON_NAME)) > 1
    )


def is_date_of_an_anchor(oracle: OpensslDane, question: Question, ours: Ours, theirs: Outcome) -> bool:
    """An anchor whose issuer has its own name counts as self-issued for us, so that its dates count.

    For OpenSSL only if it may also have signed itself, by its algorithms and key identifiers. Ours is the stricter one.
    """
    if not (isinstance(ours.verdict, Refused) and isinstance(theirs, Accepted)) or theirs.bare_key:
        return False
    certificates = {*question.presented, *(rdata[3:] for rdata in question.rdatas if rdata[:3] == _FULL_AUTHORITY)}
    anchors = [_facts(der) for der in certificates if _matches(theirs.rdata, _facts(der))]
    return any(
        anchor.self_issued
        and not anchor.not_before <= WHEN <= anchor.not_after
        and not signed_by(anchor.der, anchor.spki)
        for anchor in anchors
    )


def is_key_beyond_us(oracle: OpensslDane, question: Question, ours: Ours, theirs: Outcome) -> bool:
    """A bare key that OpenSSL can read and our library cannot (BER, unused bits); ours is the stricter one."""
    if not (isinstance(ours.verdict, Refused) and isinstance(theirs, Accepted) and theirs.bare_key):
        return False
    try:
        load_der_public_key(theirs.rdata[3:])
    except (UnsupportedAlgorithm, ValueError):
        return True
    return False


def is_full_data_beyond_openssl(oracle: OpensslDane, question: Question, ours: Ours, theirs: Outcome) -> bool:
    """Full(0) data with the outline of a certificate or key counts for us, even if OpenSSL finds no sound key in it.

    OpenSSL ignores such a record (and encrypts without proof if there is no other); ours refuses: the stricter one.
    """
    if not (isinstance(ours.verdict, Refused) and isinstance(theirs, NoneUsable)):
        return False
    records = [parsed for rdata in question.rdatas if isinstance(parsed := parse_tlsa(rdata), Tlsa)]
    return all(record.matching is MatchingType.FULL for record in records)


_Predicate = Callable[[OpensslDane, Question, Ours, Outcome], bool]

CLASSES: Final[dict[str, tuple[_Predicate, float]]] = {
    "ours accepts a second path": (is_second_path, 0.01),
    "both accept, by another match": (is_another_match, 0.001),
    "ours counts dates of an anchor of its issuer's name": (is_date_of_an_anchor, 0.001),
    "ours cannot read a bare key": (is_key_beyond_us, 0.001),
    "ours takes only the last common name": (is_one_of_several_common_names, 0.01),
    "ours counts full data with an unsound key": (is_full_data_beyond_openssl, 0.03),
}
"""Known and meant differences: a predicate, and the share of all cases that it may explain at most."""


@dataclass(slots=True)
class Tally:
    """What became of many cases.

    :param accepted: by OpenSSL, for a certificate that matched: by record and depth.
    :param by_key: accepted by OpenSSL for a key in a record: by the depth of the certificate that it signed.
    :param refused: by OpenSSL with usable records, by the cell that the case was about.
    """

    cases: int = 0
    accepted: Counter[Cell] = field(default_factory=Counter)
    by_key: Counter[int] = field(default_factory=Counter)
    refused: Counter[Cell] = field(default_factory=Counter)
    none_usable: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)


def compare(oracle: OpensslDane, some: Iterable[Case], *, stop_at_first: bool = False) -> Tally:
    """Ask both about each case."""
    tally = Tally()
    for case in some:
        tally.cases += 1
        question = Question(case.presented, case.rdatas, case.chain.names)
        theirs, ours = ask_openssl(oracle, question), ask_ours(question)
        match theirs:
            case Accepted(rdata, depth, bare_key):
                if bare_key:
                    tally.by_key[depth] += 1
                else:
                    tally.accepted[Cell(rdata[0], rdata[1], rdata[2], depth)] += 1
            case Rejected():
                tally.refused[case.cell] += 1
            case NoneUsable():
                tally.none_usable += 1
            case NoHandshake():
                raise AssertionError(f"{case}: a certificate that OpenSSL cannot read")
        if agree(ours, theirs):
            continue
        name = next((name for name, (fits, _) in CLASSES.items() if fits(oracle, question, ours, theirs)), "")
        if name:
            tally.classes[name] += 1
        else:
            tally.unexplained.append(f"{case}\n  OpenSSL: {theirs}\n  ours: {ours.verdict}")
            if stop_at_first:
                break
    return tally


def _matches(rdata: bytes, facts: CertFacts) -> bool:
    record = parse_tlsa(rdata)
    return isinstance(record, Tlsa) and matches(record, der=facts.der, spki=facts.spki)


def _name(der: bytes, which: str) -> bytes:
    """The issuer or subject of a certificate, as sent; empty if it has none that can be read."""
    try:
        parts = certificate_parts(der)
    except BadDer:
        return b""
    return parts.issuer if which == "issuer" else parts.subject
