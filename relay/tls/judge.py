"""``judge``: a policy and what a handshake showed in, the verdict on the session out. Pure.

Two laws:

* What is not proved is refused: at a level that requires a match, every way out of here that is not a proof is
  ``Refused``, with status 4.7.5.
* Nothing is judged by anything but the arguments: facts about the peer, the policy, the chain checker's word, the time.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Final, assert_never

from relay.dane.match import counting, in_turn, matches
from relay.dane.tlsa import MatchingType, Selector, Tlsa, Usage
from relay.mail.reply import EnhancedStatus, Reply
from relay.policy.level import Level
from relay.policy.policy import TlsPolicy
from relay.tls.certificate import cut_spki
from relay.tls.findings import (
    expected_name,
    failure_detail,
    found_instead,
    found_leaf,
    found_names,
    listed,
    name_detail,
    no_match_detail,
)
from relay.tls.names import NameMatch, match_names
from relay.tls.peer import NO_PATH, Anchors, CertFacts, ChainFailed, ChainOk, CheckChain, PeerFacts
from relay.tls.signature import weak_key
from relay.tls.verdict import Encrypted, Plaintext, Refused, Trusted, Verdict, Verified, Word

NOT_VERIFIED: Final = "Server certificate not verified"
_NOT_VERIFIED_STATUS: Final = EnhancedStatus(4, 7, 5)
_NO_TLS_STATUS: Final = EnhancedStatus(4, 7, 4)
_UNTRUSTED_CODE: Final = 27


def judge(policy: TlsPolicy, peer: PeerFacts, check_chain: CheckChain, now: datetime) -> Verdict:
    """Whether mail may leave over a TLS session.

    :param check_chain: asked for paths to the CA store, to trust anchor files and to what TLSA records name.
    :param now: aware; the time at which certificates must be in date where dates count.
    """
    leaf = peer.leaf
    if not policy.level.requires_match:
        return _opportunistic(peer, check_chain, now)
    if leaf is None:
        return _refused(policy, _expected(policy), "no certificate (anonymous cipher)", detail="", word=Word.ANONYMOUS)
    match policy.level:
        case Level.FINGERPRINT:
            return _fingerprint(policy, leaf)
        case Level.HALFDANE | Level.DANE | Level.DANE_ONLY:
            return _dane(policy, leaf, peer, check_chain, now)
        case Level.VERIFY | Level.SECURE:
            return _pkix(policy, leaf, peer, check_chain, now)
        case Level.NONE | Level.MAY | Level.ENCRYPT:
            raise AssertionError("levels without a match were dealt with above")
        case _:
            assert_never(policy.level)


def judge_plaintext(policy: TlsPolicy, host: str, reply: Reply | None) -> Plaintext | Refused:
    """Whether mail may leave in the clear because the host gives no TLS.

    :param host: for the text, ``NAME[ADDRESS]``.
    :param reply: what the host said to STARTTLS; None where it did not offer it.
    """
    if not policy.level.requires_tls:
        if not policy.level.uses_tls:
            return Plaintext(f"level {policy.level.word} does not use TLS")
        return Plaintext("STARTTLS not offered" if reply is None else f"STARTTLS refused: {reply.one_line}")
    if reply is None:
        return Refused(
            status=_NO_TLS_STATUS,
            text=f"TLS is required, but was not offered by host {host}",
            expected="STARTTLS in the reply to EHLO",
            found="none",
            rule=str(policy.rule),
        )
    return Refused(
        status=reply.status.softened(),
        text=f"TLS is required, but host {host} refused to start TLS: {reply.one_line}",
        expected="220 in reply to STARTTLS",
        found=str(reply.code),
        rule=str(policy.rule),
    )


def _opportunistic(peer: PeerFacts, check_chain: CheckChain, now: datetime) -> Encrypted | Trusted:
    """Nothing is demanded; a chain to a known CA is worth a word in the log."""
    leaf = peer.leaf
    if leaf is None:
        return Encrypted(anonymous=True)
    result = check_chain(_presented(peer), Anchors(store=True), now)
    return Trusted(matched=f"trusted CA: {found_leaf(leaf)}") if isinstance(result, ChainOk) else Encrypted()


def _fingerprint(policy: TlsPolicy, leaf: CertFacts) -> Verified | Refused:
    """The leaf's certificate or key by digest; neither dates nor names (postfix tls_fprint.c)."""
    try:
        digests = [
            (what, hashlib.new(policy.fingerprint_digest, octets, usedforsecurity=False).hexdigest())
            for what, octets in (("cert", leaf.der), ("spki", leaf.spki))
            if octets
        ]
    except (ValueError, TypeError):
        return _refused(policy, _expected(policy), f"an unknown digest algorithm {policy.fingerprint_digest}")
    for _, found in digests:
        if found in policy.fingerprints:
            return Verified(matched=f"fingerprint: {found.upper()}")
    shown = ", ".join(f"{policy.fingerprint_digest}({what}) {found.upper()}" for what, found in digests)
    return _refused(policy, _expected(policy), f"{shown} of {found_leaf(leaf)}", no_match_detail())


def _pkix(
    policy: TlsPolicy, leaf: CertFacts, peer: PeerFacts, check_chain: CheckChain, now: datetime
) -> Verified | Trusted | Refused:
    """A path to the store or to the policy's trust anchor files, and a name."""
    anchors = Anchors(files=policy.tafiles) if policy.tafiles else Anchors(store=True)
    result = check_chain(_presented(peer), anchors, now)
    if isinstance(result, ChainFailed):
        return _refused(policy, _expected(policy), _found_failure(result, leaf), failure_detail(result))
    if result.leaf_listed and policy.tafiles:
        return Verified(matched="certificate listed in a trust anchor file")
    return _named(policy, leaf, "")


def _dane(
    policy: TlsPolicy, leaf: CertFacts, peer: PeerFacts, check_chain: CheckChain, now: datetime
) -> Verified | Trusted | Refused:
    """TLSA records (RFC 7671 section 5, RFC 7672 section 3.1): usage 3 on the leaf, usage 2 above it."""
    records = counting(policy.tlsa)
    for record in in_turn(records):
        if record.usage is Usage.DANE_EE and matches(record, der=leaf.der, spki=leaf.spki):
            weak = weak_key(leaf.spki)
            if weak is not None:
                return _refused(policy, _expected(policy), _found_failure(weak, leaf), failure_detail(weak))
            return _matched(policy, f"DANE EE certificate at depth 0: {record}")
    authorities = tuple(record for record in in_turn(records) if record.usage is Usage.DANE_TA)
    if not authorities:
        found = found_instead(records, peer.chain) if records else "none"
        return _refused(policy, _expected(policy), found, no_match_detail())
    anchors = _authority_anchors(authorities, leaf, peer)
    result: ChainOk | ChainFailed = ChainFailed(_UNTRUSTED_CODE, 0, "no TLSA record matches")
    if anchors.certificates or anchors.keys:
        result = check_chain(_presented(peer), anchors, now)
    if isinstance(result, ChainFailed):
        if result.code in NO_PATH:
            # The usual case of records that do not fit: which ones there are says more than OpenSSL's text.
            result = ChainFailed(_UNTRUSTED_CODE, result.depth, "no TLSA record covers the chain")
            found = found_instead(records, peer.chain)
        else:
            found = _found_failure(result, leaf)
        return _refused(policy, _expected(policy), found, failure_detail(result))
    proof = _authority(authorities, result)
    if not proof:
        return _refused(policy, _expected(policy), found_instead(records, peer.chain), no_match_detail())
    return _named(policy, leaf, proof)


def _authority_anchors(authorities: tuple[Tlsa, ...], leaf: CertFacts, peer: PeerFacts) -> Anchors:
    """What usage 2 records offer as anchors: presented certificates above the leaf, full certificates, bare keys."""
    above = [each for each in peer.chain[1:] if each.der != leaf.der]
    presented = [
        each.der for each in above if any(matches(record, der=each.der, spki=each.spki) for record in authorities)
    ]
    full = [record for record in authorities if record.matching is MatchingType.FULL]
    certificates = [record.data for record in full if record.selector is Selector.CERT and record.data != leaf.der]
    return Anchors(
        certificates=tuple(dict.fromkeys([*presented, *certificates])),
        keys=tuple(record.data for record in full if record.selector is Selector.SPKI),
    )


def _authority(authorities: tuple[Tlsa, ...], result: ChainOk) -> str:
    """Which record the path leads to, in Postfix's words; empty if to none, which a sound chain checker never gives."""
    depth = len(result.path) - 1
    if result.key:
        for record in authorities:
            if record.matching is MatchingType.FULL and record.data == result.key:
                return f"DANE TA public key verified certificate at depth {depth}: {record}"
        return ""
    anchor = result.path[-1]
    for record in authorities:
        if depth > 0 and matches(record, der=anchor, spki=cut_spki(anchor)):
            return f"DANE TA certificate at depth {depth}: {record}"
    return ""


def _named(policy: TlsPolicy, leaf: CertFacts, proof: str) -> Verified | Trusted | Refused:
    """The chain is sound: now one of the policy's names. ``proof`` is the record that led here, empty for PKIX."""
    match = match_names(leaf, policy.names)
    if isinstance(match, NameMatch):
        return _matched(policy, proof or f"matched peername: {match.presented}")
    return _refused(policy, _expected(policy), found_names(match.presented), name_detail(), Word.TRUSTED)


def _matched(policy: TlsPolicy, proof: str) -> Verified | Trusted:
    """A half-dane match is enforced but not called verified: insecure MX records led to the host."""
    return Trusted(matched=proof) if policy.level is Level.HALFDANE else Verified(matched=proof)


def _expected(policy: TlsPolicy) -> str:
    """What the policy demands of a certificate."""
    if policy.level is Level.FINGERPRINT:
        return f"{policy.fingerprint_digest} fingerprint {listed([print_.upper() for print_ in policy.fingerprints])}"
    if policy.level.is_pkix:
        by = f"the trust anchors in {listed(policy.tafiles)}" if policy.tafiles else "a trusted CA"
        return expected_name(policy.names, by)
    records = counting(policy.tlsa)
    if not records:
        return "usable TLSA records"
    expected = f"TLSA {listed(records)}"
    if any(record.usage is Usage.DANE_TA for record in records):
        expected += f", the certificate under usage 2 for {listed(policy.names)}"
    return expected


def _found_failure(failed: ChainFailed, leaf: CertFacts) -> str:
    issuer = f", issuer {failed.issuer}" if failed.issuer else ""
    return f"{failed.text} at depth {failed.depth}{issuer}; leaf {found_leaf(leaf)}"


def _presented(peer: PeerFacts) -> tuple[bytes, ...]:
    return tuple(each.der for each in peer.chain)


def _refused(policy: TlsPolicy, expected: str, found: str, detail: str = "", word: Word = Word.UNTRUSTED) -> Refused:
    return Refused(
        status=_NOT_VERIFIED_STATUS,
        text=NOT_VERIFIED,
        expected=expected,
        found=found,
        rule=str(policy.rule),
        detail=detail,
        word=word,
    )
