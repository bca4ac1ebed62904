"""Verdicts, with the real chain checker: every level, and the rules of RFC 7671 and 7672 one by one."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from relay.dane.tlsa import MatchingType, Selector, Tlsa, Usage
from relay.mail.names import Domain
from relay.mail.reply import EnhancedStatus, Reply
from relay.policy.level import Level
from relay.policy.policy import LiteralName, Rule, TlsPolicy
from relay.tls.certificate import cert_facts
from relay.tls.chain import ChainChecker
from relay.tls.judge import judge, judge_plaintext
from relay.tls.peer import Anchors, ChainFailed, ChainOk, ChainResult, CheckChain, PeerFacts
from relay.tls.verdict import Encrypted, Plaintext, Refused, Trusted, Verdict, Verified, Word
from tests import pki
from tests.pki import NOW, Cert

MX, DOMAIN = Domain("mx.example"), Domain("example.com")
ROOT = pki.authority("Root")
INTER = ROOT.issue("Inter", ca=True)
LEAF = INTER.issue("leaf", dns=["mx.example"])
EXPIRED = INTER.issue("leaf", dns=["mx.example"], dates=pki.EXPIRED)
WRONG_NAME = INTER.issue("leaf", dns=["other.example"])
SELF_SIGNED = pki.make("mx.example", dns=["mx.example"])
STRANGER = pki.authority("Stranger")
NO_STORE = ChainChecker()
DANE_LEVELS = [Level.HALFDANE, Level.DANE, Level.DANE_ONLY]
PKIX_LEVELS = [Level.VERIFY, Level.SECURE]


def peer(*chain: Cert) -> PeerFacts:
    return PeerFacts(
        chain=tuple(cert_facts(cert.der) for cert in chain),
        protocol="TLSv1.3",
        cipher="TLS_AES_256_GCM_SHA384",
        bits=256,
        algorithm_bits=256,
    )


def policy(level: Level, *tlsa: Tlsa, names: tuple[str, ...] = ("mx.example", "example.com")) -> TlsPolicy:
    return TlsPolicy(
        level=level,
        asked=level,
        rule=Rule("/etc/relay/tls_policy:3"),
        names=tuple(LiteralName(Domain(name.removeprefix(".")), name.startswith(".")) for name in names),
        tlsa=tlsa,
    )


def dane(*tlsa: Tlsa, chain: tuple[Cert, ...]) -> Verdict:
    return judge(policy(Level.DANE, *tlsa), peer(*chain), NO_STORE, NOW)


def spoilt(record: Tlsa) -> Tlsa:
    """A record of the same kind that matches nothing."""
    return replace(record, data=bytes(len(record.data)))


def refused(verdict: Verdict) -> Refused:
    assert isinstance(verdict, Refused), verdict
    assert verdict.status == EnhancedStatus(4, 7, 5)
    assert verdict.text == "Server certificate not verified"
    assert verdict.rule == "/etc/relay/tls_policy:3"
    return verdict


@pytest.fixture
def store(tmp_path: Path) -> ChainChecker:
    (tmp_path / "ca.pem").write_bytes(ROOT.pem)
    return ChainChecker.load(cafile=str(tmp_path / "ca.pem"))


class TestDaneEe:
    @pytest.mark.parametrize("selector", [0, 1])
    @pytest.mark.parametrize("matching", [0, 1, 2])
    def test_a_match_is_all_it_takes(self, selector: int, matching: int) -> None:
        record = LEAF.tlsa(3, selector, matching)
        assert dane(record, chain=(LEAF,)) == Verified(matched=f"DANE EE certificate at depth 0: {record}")

    @pytest.mark.parametrize("leaf", [EXPIRED, WRONG_NAME, SELF_SIGNED, pki.make("x", eku=[pki.CLIENT_AUTH])])
    def test_dates_names_issuers_and_purpose_do_not_count(self, leaf: Cert) -> None:
        assert isinstance(dane(leaf.tlsa(3, 1, 1), chain=(leaf,)), Verified)

    def test_only_the_leaf_is_compared(self) -> None:
        assert isinstance(dane(INTER.tlsa(3, 1, 1), chain=(LEAF, INTER)), Refused)

    def test_a_mismatch_says_what_would_have_matched(self) -> None:
        record = STRANGER.tlsa(3, 1, 1)
        verdict = refused(dane(record, chain=(LEAF, INTER)))
        spki = hashlib.sha256(LEAF.spki).hexdigest().upper()
        assert verdict.expected == f"TLSA {record}"
        assert verdict.found == f"leaf sha256(spki) {spki} of CN=leaf; above it CN=Inter"
        assert verdict.detail == (
            "server certificate verification failed for {peer}: num=65:no matching DANE TLSA records"
        )
        assert verdict.word is Word.UNTRUSTED

    def test_any_of_several_records_suffices(self) -> None:
        for record in (LEAF.tlsa(3, 1, 1), LEAF.tlsa(3, 0, 1), INTER.tlsa(2, 1, 1)):
            records = (STRANGER.tlsa(3, 1, 1), STRANGER.tlsa(2, 0, 2), record)
            assert isinstance(dane(*records, chain=(LEAF, INTER)), Verified)

    def test_a_certificate_that_does_not_parse_may_match_by_its_octets_only(self) -> None:
        odd = LEAF.der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x03", 1)  # version 4, which OpenSSL reads
        facts = replace(peer(), chain=(cert_facts(odd),))
        by_octets = Tlsa(Usage.DANE_EE, Selector.CERT, MatchingType.SHA2_256, hashlib.sha256(odd).digest())
        for record in (by_octets, LEAF.tlsa(3, 1, 1)):
            assert isinstance(judge(policy(Level.DANE, record), facts, NO_STORE, NOW), Verified)
        for level in PKIX_LEVELS:
            assert isinstance(judge(policy(level), facts, NO_STORE, NOW), Refused)

    def test_what_has_no_readable_key_never_matches(self) -> None:
        junk = b"\x30\x03\x02\x01\x01"
        facts = replace(peer(), chain=(cert_facts(junk),))
        by_octets = Tlsa(Usage.DANE_EE, Selector.CERT, MatchingType.SHA2_256, hashlib.sha256(junk).digest())
        by_key = Tlsa(Usage.DANE_EE, Selector.SPKI, MatchingType.SHA2_256, hashlib.sha256(b"").digest())
        assert "too weak" in refused(judge(policy(Level.DANE, by_octets), facts, NO_STORE, NOW)).found
        assert "spki unreadable" in refused(judge(policy(Level.DANE, by_key), facts, NO_STORE, NOW)).found

    def test_a_small_key_proves_nothing(self) -> None:
        small = pki.make("mx.example", key=pki.small_rsa_key())
        for record in (small.tlsa(3, 1, 1), small.tlsa(3, 0, 0)):
            verdict = refused(dane(record, chain=(small,)))
            assert verdict.found == "EE certificate key too weak at depth 0; leaf CN=mx.example"
            assert verdict.detail == (
                "server certificate verification failed for {peer}: num=66:EE certificate key too weak"
            )
        enough = pki.make("mx.example", key=pki.rsa_key(1024))
        assert isinstance(dane(enough.tlsa(3, 1, 1), chain=(enough,)), Verified)

    def test_of_several_matches_the_one_is_named_that_postfix_names(self) -> None:
        records = [LEAF.tlsa(3, selector, matching) for selector in (0, 1) for matching in (0, 1, 2)]
        for given in (records, records[::-1]):
            assert dane(*given, chain=(LEAF,)) == Verified(
                matched=f"DANE EE certificate at depth 0: {LEAF.tlsa(3, 1, 2)}"
            )


class TestDigestAgility:
    def test_a_wrong_stronger_digest_beats_a_right_weaker_one(self) -> None:
        assert isinstance(dane(LEAF.tlsa(3, 1, 1), spoilt(LEAF.tlsa(3, 1, 2)), chain=(LEAF,)), Refused)

    @pytest.mark.parametrize("beside", [LEAF.tlsa(3, 0, 2), LEAF.tlsa(3, 1, 0), LEAF.tlsa(2, 1, 2)])
    def test_wrong_records_of_other_kinds_do_not(self, beside: Tlsa) -> None:
        assert isinstance(dane(LEAF.tlsa(3, 1, 1), spoilt(beside), chain=(LEAF,)), Verified)

    def test_full_data_counts_beside_a_wrong_digest(self) -> None:
        assert isinstance(dane(LEAF.tlsa(3, 1, 0), spoilt(LEAF.tlsa(3, 1, 2)), chain=(LEAF,)), Verified)

    def test_it_holds_above_the_leaf(self) -> None:
        records = (INTER.tlsa(2, 1, 1), spoilt(INTER.tlsa(2, 1, 2)))
        assert isinstance(dane(*records, chain=(LEAF, INTER)), Refused)

    def test_only_records_that_count_are_expected(self) -> None:
        weak, strong = STRANGER.tlsa(3, 1, 1), STRANGER.tlsa(3, 1, 2)
        assert refused(dane(weak, strong, chain=(LEAF,))).expected == f"TLSA {strong}"


class TestDaneTa:
    @pytest.mark.parametrize("selector", [0, 1])
    @pytest.mark.parametrize("matching", [0, 1, 2])
    def test_a_presented_anchor_that_signed_the_leaf(self, selector: int, matching: int) -> None:
        for depth, anchor in ((1, INTER), (2, ROOT)):
            record = anchor.tlsa(2, selector, matching)
            verdict = dane(record, chain=(LEAF, INTER, ROOT))
            assert verdict == Verified(matched=f"DANE TA certificate at depth {depth}: {record}")

    def test_order_and_junk_do_not_matter(self) -> None:
        junk = (STRANGER, pki.authority("Junk"), LEAF)
        record = ROOT.tlsa(2, 1, 1)
        assert dane(record, chain=(LEAF, *junk, ROOT, INTER)) == Verified(
            matched=f"DANE TA certificate at depth 2: {record}"
        )

    def test_an_anchor_that_was_not_presented(self) -> None:
        assert isinstance(dane(ROOT.tlsa(2, 0, 1), chain=(LEAF, INTER)), Refused)
        assert isinstance(dane(ROOT.tlsa(2, 1, 2), chain=(LEAF, INTER)), Refused)
        full = ROOT.tlsa(2, 0, 0)
        assert dane(full, chain=(LEAF, INTER)) == Verified(matched=f"DANE TA certificate at depth 2: {full}")
        key = ROOT.tlsa(2, 1, 0)
        assert dane(key, chain=(LEAF, INTER)) == Verified(
            matched=f"DANE TA public key verified certificate at depth 1: {key}"
        )
        key = INTER.tlsa(2, 1, 0)
        assert dane(key, chain=(LEAF,)) == Verified(
            matched=f"DANE TA public key verified certificate at depth 0: {key}"
        )

    def test_an_anchor_that_signed_nothing(self) -> None:
        for matching in (0, 1):
            for selector in (0, 1):
                record = STRANGER.tlsa(2, selector, matching)
                verdict = refused(dane(record, chain=(LEAF, INTER, STRANGER)))
                assert verdict.detail == (
                    "certificate verification failed for {peer}: not trusted by local or TLSA policy"
                )

    @pytest.mark.parametrize("leaf", [SELF_SIGNED, LEAF, pki.make("mx.example", dns=["mx.example"], ca=True)])
    @pytest.mark.parametrize(("selector", "matching"), [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2)])
    def test_the_leaf_is_never_its_own_anchor(self, leaf: Cert, selector: int, matching: int) -> None:
        assert isinstance(dane(leaf.tlsa(2, selector, matching), chain=(leaf,)), Refused)
        assert isinstance(dane(leaf.tlsa(2, selector, matching), chain=(leaf, leaf)), Refused)

    def test_a_bare_key_that_signed_the_leaf_may_be_the_leafs(self) -> None:
        """OpenSSL asks only whether the key signed the top of the chain (check_dane_pkeys); names and dates count."""
        assert isinstance(dane(SELF_SIGNED.tlsa(2, 1, 0), chain=(SELF_SIGNED,)), Verified)
        other = pki.make("other.example")
        assert isinstance(dane(other.tlsa(2, 1, 0), chain=(other,)), Refused)

    def test_dates_count_below_the_anchor(self) -> None:
        verdict = refused(dane(INTER.tlsa(2, 1, 1), chain=(EXPIRED, INTER)))
        assert verdict.found == "certificate has expired at depth 0, issuer /CN=Inter; leaf CN=leaf"
        assert verdict.detail == "server certificate verification failed for {peer}: certificate has expired"
        assert verdict.word is Word.UNTRUSTED
        future = INTER.issue("leaf", dns=["mx.example"], dates=pki.FUTURE)
        verdict = refused(dane(INTER.tlsa(2, 1, 1), chain=(future, INTER)))
        assert verdict.detail == "server certificate verification failed for {peer}: certificate not yet valid"
        inter = ROOT.issue("Old", ca=True, dates=pki.EXPIRED)
        leaf = inter.issue("leaf", dns=["mx.example"])
        verdict = refused(dane(ROOT.tlsa(2, 1, 1), chain=(leaf, inter, ROOT)))
        assert verdict.detail == "CA certificate verification failed for {peer}: certificate has expired"

    def test_dates_of_the_anchor_count_only_if_it_is_self_issued(self) -> None:
        inter = ROOT.issue("Old", ca=True, dates=pki.EXPIRED)
        leaf = inter.issue("leaf", dns=["mx.example"])
        assert isinstance(dane(inter.tlsa(2, 1, 1), chain=(leaf, inter)), Verified)
        root = pki.authority("Old root", dates=pki.EXPIRED)
        leaf = root.issue("leaf", dns=["mx.example"])
        assert isinstance(dane(root.tlsa(2, 1, 1), chain=(leaf, root)), Refused)

    def test_the_purpose_counts(self) -> None:
        leaf = INTER.issue("leaf", dns=["mx.example"], eku=[pki.CLIENT_AUTH])
        verdict = refused(dane(INTER.tlsa(2, 1, 1), chain=(leaf, INTER)))
        assert verdict.detail == (
            "certificate verification failed for {peer}: not designated for use as a server certificate"
        )

    def test_a_wrong_name_is_trusted_and_refused(self) -> None:
        record = INTER.tlsa(2, 1, 1)
        verdict = refused(dane(record, chain=(WRONG_NAME, INTER)))
        assert verdict.expected == f"TLSA {record}, the certificate under usage 2 for mx.example or example.com"
        assert verdict.found == "a certificate for other.example"
        assert verdict.detail == "server certificate verification failed for {peer}: num=62:hostname mismatch"
        assert verdict.word is Word.TRUSTED

    @pytest.mark.parametrize(
        "leaf",
        [
            INTER.issue("leaf", dns=["example.com"]),
            INTER.issue("leaf", dns=["*.example", "*.example.com", "example.com"]),
            INTER.issue("mx.example"),
        ],
    )
    def test_any_reference_name_suffices(self, leaf: Cert) -> None:
        assert isinstance(dane(INTER.tlsa(2, 1, 1), chain=(leaf, INTER)), Verified)

    def test_a_common_name_beside_dns_names_does_not_count(self) -> None:
        leaf = INTER.issue("mx.example", dns=["other.example"])
        assert isinstance(dane(INTER.tlsa(2, 1, 1), chain=(leaf, INTER)), Refused)

    def test_a_mismatch_names_all_records_but_not_without_end(self) -> None:
        records = tuple(pki.make(f"ca{number}", ca=True).tlsa(2, 1, 1) for number in range(40))
        verdict = refused(dane(*records, chain=(LEAF, *(STRANGER,) * 20)))
        assert str(records[0]) in verdict.expected
        assert "or 36 more" in verdict.expected
        assert "16 more" in verdict.found
        assert len(verdict.expected) < 500
        assert len(verdict.found) < 500


class TestDaneLevels:
    @pytest.mark.parametrize("level", DANE_LEVELS)
    def test_halfdane_is_enforced_and_called_trusted(self, level: Level) -> None:
        for record in (LEAF.tlsa(3, 1, 1), INTER.tlsa(2, 1, 1)):
            verdict = judge(policy(level, record), peer(LEAF, INTER), NO_STORE, NOW)
            assert isinstance(verdict, Trusted if level is Level.HALFDANE else Verified)
            assert str(record) in verdict.matched
        refused(judge(policy(level, STRANGER.tlsa(3, 1, 1)), peer(LEAF, INTER), NO_STORE, NOW))

    @pytest.mark.parametrize("level", DANE_LEVELS)
    def test_without_records_nothing_is_proved(self, level: Level, store: ChainChecker) -> None:
        verdict = refused(judge(policy(level), peer(LEAF, INTER), store, NOW))
        assert verdict.expected == "usable TLSA records"

    def test_the_ca_store_is_no_way_round_the_records(self, store: ChainChecker) -> None:
        for record in (STRANGER.tlsa(3, 1, 1), STRANGER.tlsa(2, 1, 1), STRANGER.tlsa(2, 0, 0)):
            refused(judge(policy(Level.DANE, record), peer(LEAF, INTER), store, NOW))

    @pytest.mark.parametrize(
        "claim",
        [
            ChainOk((LEAF.der,)),
            ChainOk((LEAF.der, STRANGER.der)),
            ChainOk((LEAF.der,), key=STRANGER.spki),
            ChainOk((LEAF.der,), key=INTER.der),
            ChainOk((LEAF.der,), leaf_listed=True),
        ],
    )
    def test_a_path_that_ends_at_no_record_is_not_believed(self, claim: ChainOk) -> None:
        def lying(presented: tuple[bytes, ...], anchors: Anchors, now: object) -> ChainResult:
            return claim

        # A record of the leaf, too: a path that is the leaf alone ends at no usage 2 certificate.
        records = (INTER.tlsa(2, 1, 1), INTER.tlsa(2, 1, 0), LEAF.tlsa(2, 0, 1))
        refused(judge(policy(Level.DANE, *records), peer(LEAF, INTER), lying, NOW))

    def test_what_the_chain_checker_is_asked(self) -> None:
        asked: list[tuple[tuple[bytes, ...], Anchors]] = []

        def recording(presented: tuple[bytes, ...], anchors: Anchors, now: object) -> ChainResult:
            asked.append((presented, anchors))
            return ChainFailed(20, 0, "no path")

        records = (
            INTER.tlsa(2, 0, 1),
            LEAF.tlsa(2, 0, 0),
            LEAF.tlsa(2, 1, 2),
            STRANGER.tlsa(2, 0, 0),
            ROOT.tlsa(2, 1, 0),
            ROOT.tlsa(3, 1, 0),
        )
        refused(judge(policy(Level.DANE, *records), peer(LEAF, INTER, LEAF, INTER), recording, NOW))
        presented = (LEAF.der, INTER.der, LEAF.der, INTER.der)
        anchors = Anchors(certificates=(INTER.der, STRANGER.der), keys=(ROOT.spki,))
        assert asked == [(presented, anchors)], "the leaf is no anchor, and usage 3 gives none"


class TestPkix:
    @pytest.mark.parametrize("level", PKIX_LEVELS)
    def test_a_chain_and_a_name(self, level: Level, store: ChainChecker) -> None:
        verdict = judge(policy(level), peer(LEAF, INTER), store, NOW)
        assert verdict == Verified(matched="matched peername: mx.example")

    @pytest.mark.parametrize("level", PKIX_LEVELS)
    def test_a_sub_domain_rule(self, level: Level, store: ChainChecker) -> None:
        leaf = INTER.issue(dns=["a.b.example.com"])
        assert isinstance(judge(policy(level, names=(".example.com",)), peer(leaf, INTER), store, NOW), Verified)
        assert isinstance(judge(policy(level, names=("example.com",)), peer(leaf, INTER), store, NOW), Refused)

    @pytest.mark.parametrize("level", PKIX_LEVELS)
    def test_a_wrong_name_is_trusted_and_refused(self, level: Level, store: ChainChecker) -> None:
        verdict = refused(judge(policy(level), peer(WRONG_NAME, INTER), store, NOW))
        assert verdict.expected == "a certificate for mx.example or example.com from a trusted CA"
        assert verdict.found == "a certificate for other.example"
        assert verdict.word is Word.TRUSTED
        nameless = INTER.issue()
        assert refused(judge(policy(level), peer(nameless, INTER), store, NOW)).found == "a certificate without names"

    def test_no_names_in_the_policy_match_nothing(self, store: ChainChecker) -> None:
        refused(judge(policy(Level.SECURE, names=()), peer(LEAF, INTER), store, NOW))

    @pytest.mark.parametrize(
        ("chain", "detail"),
        [
            ((SELF_SIGNED,), "certificate verification failed for {peer}: self-signed certificate"),
            ((LEAF,), "certificate verification failed for {peer}: untrusted issuer /CN=Inter"),
            (
                (STRANGER.issue(dns=["mx.example"]), STRANGER),
                "certificate verification failed for {peer}: untrusted issuer /CN=Stranger",
            ),
            ((EXPIRED, INTER), "server certificate verification failed for {peer}: certificate has expired"),
            (
                (pki.authority("Root").issue(dns=["mx.example"]),),
                "server certificate verification failed for {peer}: num=7:certificate signature failure",
            ),
        ],
    )
    def test_details_of_a_failed_chain(self, chain: tuple[Cert, ...], detail: str, store: ChainChecker) -> None:
        verdict = refused(judge(policy(Level.VERIFY), peer(*chain), store, NOW))
        assert verdict.detail == detail
        assert verdict.word is Word.UNTRUSTED

    def test_a_long_chain_in_the_words_of_postfix(self) -> None:
        def too_long(presented: tuple[bytes, ...], anchors: Anchors, now: object) -> ChainResult:
            return ChainFailed(22, 10, "certificate chain too long")

        verdict = refused(judge(policy(Level.SECURE), peer(LEAF), too_long, NOW))
        assert verdict.detail == "certificate verification failed for {peer}: certificate chain longer than limit(9)"


class TestTrustAnchorFiles:
    def anchored(self, directory: Path, block: bytes, *chain: Cert) -> Verdict:
        (directory / "ta.pem").write_bytes(block)
        (directory / "ca.pem").write_bytes(ROOT.pem)
        path = str(directory / "ta.pem")
        checker = ChainChecker.load(cafile=str(directory / "ca.pem"), tafiles=[path])
        return judge(replace(policy(Level.SECURE), tafiles=(path,)), peer(*chain), checker, NOW)

    def test_they_replace_the_store(self, tmp_path: Path) -> None:
        verdict = refused(self.anchored(tmp_path, STRANGER.pem, LEAF, INTER))
        assert "ta.pem" in verdict.expected

    @pytest.mark.parametrize("block", [INTER.pem, ROOT.spki_pem, INTER.spki_pem])
    def test_names_count_for_chains(self, tmp_path: Path, block: bytes) -> None:
        assert isinstance(self.anchored(tmp_path, block, LEAF, INTER), Verified)
        assert refused(self.anchored(tmp_path, block, WRONG_NAME, INTER)).word is Word.TRUSTED

    @pytest.mark.parametrize("leaf", [WRONG_NAME, EXPIRED])
    def test_the_leaf_itself_may_be_listed(self, tmp_path: Path, leaf: Cert) -> None:
        for block in (leaf.pem, leaf.spki_pem):
            assert isinstance(self.anchored(tmp_path, block, leaf), Verified)

    def test_an_unreadable_file_is_named(self, tmp_path: Path) -> None:
        verdict = refused(self.anchored(tmp_path, b"", LEAF, INTER))
        assert "ta.pem" in verdict.found


class TestFingerprint:
    @pytest.mark.parametrize("octets", [EXPIRED.der, EXPIRED.spki])
    @pytest.mark.parametrize("algorithm", ["sha256", "sha512", "sha1", "md5"])
    def test_certificate_or_key(self, octets: bytes, algorithm: str) -> None:
        digest = hashlib.new(algorithm, octets).hexdigest()
        wanted = replace(
            policy(Level.FINGERPRINT), fingerprints=("00" * 16, digest), fingerprint_digest=algorithm, names=()
        )
        assert judge(wanted, peer(EXPIRED), NO_STORE, NOW) == Verified(matched=f"fingerprint: {digest.upper()}")

    def test_a_mismatch_shows_both_digests(self, store: ChainChecker) -> None:
        wanted = replace(policy(Level.FINGERPRINT), fingerprints=("ab" * 32,))
        verdict = refused(judge(wanted, peer(LEAF, INTER), store, NOW))
        assert verdict.expected == "sha256 fingerprint " + "AB" * 32
        assert hashlib.sha256(LEAF.der).hexdigest().upper() in verdict.found
        assert hashlib.sha256(LEAF.spki).hexdigest().upper() in verdict.found
        assert verdict.detail.endswith("num=65:no matching DANE TLSA records")

    def test_only_the_leaf_counts(self) -> None:
        wanted = replace(policy(Level.FINGERPRINT), fingerprints=(hashlib.sha256(INTER.der).hexdigest(),))
        refused(judge(wanted, peer(LEAF, INTER), NO_STORE, NOW))

    @pytest.mark.parametrize("algorithm", ["nonsense", "shake_128"])
    def test_an_unknown_digest_matches_nothing(self, algorithm: str) -> None:
        wanted = replace(policy(Level.FINGERPRINT), fingerprints=("",), fingerprint_digest=algorithm)
        refused(judge(wanted, peer(LEAF), NO_STORE, NOW))


class TestWithoutProof:
    @pytest.mark.parametrize("level", [Level.MAY, Level.ENCRYPT])
    def test_any_certificate_will_do(self, level: Level, store: ChainChecker) -> None:
        for chain in ((SELF_SIGNED,), (EXPIRED, INTER), (LEAF,)):
            verdict = judge(policy(level), peer(*chain), store, NOW)
            assert verdict == Encrypted()
            assert verdict.word is Word.UNTRUSTED
        trusted = judge(policy(level), peer(WRONG_NAME, INTER), store, NOW)
        assert trusted.word is Word.TRUSTED

    @pytest.mark.parametrize("level", [Level.MAY, Level.ENCRYPT])
    def test_or_none(self, level: Level) -> None:
        verdict = judge(policy(level), peer(), NO_STORE, NOW)
        assert verdict == Encrypted(anonymous=True)
        assert verdict.word is Word.ANONYMOUS

    @pytest.mark.parametrize("level", [each for each in Level if each.requires_match])
    def test_an_anonymous_peer_proves_nothing(self, level: Level) -> None:
        def generous(presented: tuple[bytes, ...], anchors: Anchors, now: object) -> ChainResult:
            return ChainOk(presented)

        wanted = replace(policy(level, LEAF.tlsa(3, 1, 1)), fingerprints=(hashlib.sha256(b"").hexdigest(),))
        check: CheckChain = generous
        verdict = refused(judge(wanted, peer(), check, NOW))
        assert verdict.word is Word.ANONYMOUS
        assert verdict.found == "no certificate (anonymous cipher)"


class TestPlaintext:
    HOST = "mx.example[192.0.2.1]"

    def test_where_tls_is_not_required(self) -> None:
        assert isinstance(judge_plaintext(policy(Level.NONE), self.HOST, None), Plaintext)
        assert judge_plaintext(policy(Level.MAY), self.HOST, None) == Plaintext("STARTTLS not offered")
        verdict = judge_plaintext(policy(Level.MAY), self.HOST, Reply(454, ("4.7.0 no TLS today",)))
        assert verdict == Plaintext("STARTTLS refused: 454 4.7.0 no TLS today")

    @pytest.mark.parametrize("level", [each for each in Level if each.requires_tls])
    def test_not_offered(self, level: Level) -> None:
        verdict = judge_plaintext(policy(level), self.HOST, None)
        assert isinstance(verdict, Refused)
        assert verdict.status == EnhancedStatus(4, 7, 4)
        assert verdict.text == "TLS is required, but was not offered by host mx.example[192.0.2.1]"
        assert verdict.rule == "/etc/relay/tls_policy:3"

    @pytest.mark.parametrize("level", [each for each in Level if each.requires_tls])
    @pytest.mark.parametrize(
        ("reply", "status"),
        [
            (Reply(454, ("4.7.0 no TLS today",)), "4.7.0"),
            (Reply(502, ("5.5.1 no such command",)), "4.5.1"),
            (Reply(502, ("no such command",)), "4.0.0"),
        ],
    )
    def test_refused_and_never_for_good(self, level: Level, reply: Reply, status: str) -> None:
        verdict = judge_plaintext(policy(level), self.HOST, reply)
        assert isinstance(verdict, Refused)
        assert str(verdict.status) == status
        assert verdict.text == (
            f"TLS is required, but host mx.example[192.0.2.1] refused to start TLS: {reply.one_line}"
        )
