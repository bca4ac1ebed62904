"""Paths to anchors of our own, certificates and bare keys: what OpenSSL's DANE verification would say."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from relay.tls.chain import ChainChecker
from relay.tls.peer import Anchors, ChainFailed, ChainOk
from tests import pki
from tests.fuzz.mutation import parse
from tests.pki import NOW, Cert

ROOT = pki.authority("Root")
INTER = ROOT.issue("Inter", ca=True)
LEAF = INTER.issue("mx.example", dns=["mx.example"])
STRANGER = pki.authority("Stranger")
NO_STORE = ChainChecker()


def own(*certs: Cert, keys: tuple[bytes, ...] = ()) -> Anchors:
    return Anchors(certificates=tuple(cert.der for cert in certs), keys=keys)


def check(*chain: Cert, anchors: Anchors, checker: ChainChecker = NO_STORE) -> ChainOk | ChainFailed:
    return checker(tuple(cert.der for cert in chain), anchors, NOW)


def path_of(*chain: Cert) -> tuple[bytes, ...]:
    return tuple(cert.der for cert in chain)


@pytest.fixture
def store(tmp_path: Path) -> ChainChecker:
    return with_store(tmp_path, ROOT)


def with_store(directory: Path, *roots: Cert) -> ChainChecker:
    cafile = directory / "ca.pem"
    cafile.write_bytes(b"".join(root.pem for root in roots))
    return ChainChecker.load(cafile=str(cafile))


class TestOwnAnchors:
    def test_they_replace_the_store(self, store: ChainChecker) -> None:
        result = check(LEAF, INTER, anchors=own(STRANGER), checker=store)
        assert isinstance(result, ChainFailed)

    def test_both_at_once_is_a_mistake_of_ours(self, store: ChainChecker) -> None:
        with pytest.raises(ValueError, match="replace the CA store"):
            store(path_of(LEAF), Anchors(store=True, keys=(ROOT.spki,)), NOW)

    def test_none_at_all_is_no_path(self) -> None:
        assert isinstance(check(LEAF, INTER, ROOT, anchors=Anchors()), ChainFailed)

    def test_an_intermediate_is_anchor_enough(self) -> None:
        assert check(LEAF, INTER, anchors=own(INTER)) == ChainOk(path_of(LEAF, INTER))

    def test_an_anchor_need_not_be_presented(self) -> None:
        assert check(LEAF, anchors=own(INTER)) == ChainOk(path_of(LEAF, INTER))
        assert check(LEAF, INTER, anchors=own(ROOT)) == ChainOk(path_of(LEAF, INTER, ROOT))

    def test_an_anchor_that_signed_nothing(self) -> None:
        assert isinstance(check(LEAF, INTER, STRANGER, anchors=own(STRANGER)), ChainFailed)

    def test_the_leaf_is_never_its_own_anchor(self) -> None:
        for leaf in (LEAF, pki.make("mx.example"), pki.make("mx.example", ca=True)):
            assert isinstance(check(leaf, anchors=own(leaf)), ChainFailed)
            assert isinstance(check(leaf, leaf, anchors=own(leaf)), ChainFailed)

    def test_a_twin_does_not_take_the_place_of_the_leaf(self) -> None:
        key = pki.ec_key()
        leaf, twin = pki.make("mx.example", key=key, ca=True), pki.make("mx.example", key=key, ca=True)
        assert isinstance(check(leaf, twin, anchors=own(twin)), ChainFailed)

    def test_dates_of_an_intermediate_anchor_do_not_count(self) -> None:
        for dates in (pki.EXPIRED, pki.FUTURE):
            inter = ROOT.issue("Dated", ca=True, dates=dates)
            leaf = inter.issue("mx.example")
            assert check(leaf, inter, anchors=own(inter)) == ChainOk(path_of(leaf, inter))

    def test_dates_of_a_self_issued_anchor_count(self) -> None:
        root = pki.authority("Expired root", dates=pki.EXPIRED)
        result = check(root.issue("mx.example"), root, anchors=own(root))
        assert isinstance(result, ChainFailed)
        assert (result.code, result.depth) == (10, 1)

    def test_dates_below_an_anchor_count(self) -> None:
        dated = INTER.issue("mx.example", dates=pki.EXPIRED)
        result = check(dated, INTER, anchors=own(INTER))
        assert isinstance(result, ChainFailed)
        assert (result.code, result.depth) == (10, 0)
        expired = ROOT.issue("Expired", ca=True, dates=pki.EXPIRED)
        result = check(expired.issue("mx.example"), expired, anchors=own(ROOT))
        assert isinstance(result, ChainFailed)
        assert (result.code, result.depth) == (10, 1)
        both = expired.issue("mx.example", dates=pki.EXPIRED)
        result = check(both, expired, anchors=own(expired))
        assert isinstance(result, ChainFailed)
        assert result.code == 10

    def test_dates_that_cannot_be_read(self) -> None:
        """They count where dates count, and nowhere else."""
        month_47 = INTER.der.replace(b"260701120000Z", b"264701120000Z")
        assert month_47 != INTER.der
        assert isinstance(NO_STORE(path_of(LEAF), Anchors(certificates=(month_47,)), NOW), ChainOk)
        assert isinstance(NO_STORE((LEAF.der, month_47), own(ROOT), NOW), ChainFailed)
        root = ROOT.der.replace(b"260701120000Z", b"264701120000Z")
        assert isinstance(NO_STORE(path_of(LEAF, INTER), Anchors(certificates=(root,)), NOW), ChainFailed)

    def test_dates_of_a_self_issued_anchor_that_only_openssl_reads(self) -> None:
        late = pki.authority("Late root", dates=pki.EXPIRED)
        odd = late.der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x03", 1)
        result = NO_STORE((late.issue("mx.example").der,), Anchors(certificates=(odd,)), NOW)
        assert isinstance(result, ChainFailed)
        assert result.code == 10

    def test_an_expired_anchor_lets_no_expired_issuer_in(self) -> None:
        """That its dates do not count must not change the path that leads to it."""
        top = ROOT.issue("Top", ca=True, dates=pki.EXPIRED)
        middle = top.issue("Middle", ca=True)
        cross = STRANGER.issue("Middle", ca=True, key=middle.key, dates=pki.EXPIRED)
        leaf = middle.issue("mx.example")
        assert check(leaf, cross, STRANGER, middle, top, anchors=own(top)) == ChainOk(path_of(leaf, middle, top))

    def test_what_only_openssl_reads_is_no_link_between(self) -> None:
        """By what it is signed is unknown to us."""
        structure = parse(INTER.der)
        structure.inner[0].inner[0].inner[0].content = b"\x03"  # version 4
        assert isinstance(ROOT.key, ec.EllipticCurvePrivateKey)
        signature = ROOT.key.sign(structure.inner[0].encode(), ec.ECDSA(hashes.SHA256()))
        structure.inner[2].content = b"\0" + signature
        result = NO_STORE((LEAF.der, structure.encode()), own(ROOT), NOW)
        assert isinstance(result, ChainFailed)
        assert (result.code, result.depth) == (68, 1)

    def test_an_anchor_must_be_an_authority(self) -> None:
        inter = ROOT.issue("Not a CA", ca=False)
        assert isinstance(check(inter.issue("mx.example"), inter, anchors=own(inter)), ChainFailed)

    def test_the_purpose_counts(self) -> None:
        leaf = INTER.issue("mx.example", eku=[pki.CLIENT_AUTH])
        result = check(leaf, INTER, anchors=own(INTER))
        assert isinstance(result, ChainFailed)
        assert result.code == 26

    def test_unreadable_anchors_are_passed_over(self) -> None:
        anchors = Anchors(certificates=(b"junk", INTER.der), keys=(b"junk",))
        assert check(LEAF, anchors=anchors) == ChainOk(path_of(LEAF, INTER))

    def test_an_anchor_of_the_same_name_hides_no_other(self) -> None:
        twin = pki.authority("Inter")
        late = pki.make("Inter", issuer=ROOT, ca=True, key=INTER.key, dates=pki.EXPIRED)
        for anchors in ((twin, INTER), (INTER, twin), (STRANGER, twin, late)):
            result = check(LEAF, twin, INTER, anchors=own(*anchors))
            assert isinstance(result, ChainOk)
            assert result.path[-1] in (INTER.der, late.der)
        failed = NO_STORE(path_of(LEAF), Anchors(certificates=(twin.der, STRANGER.der)), NOW)
        assert isinstance(failed, ChainFailed)

    def test_an_anchor_of_a_version_that_only_openssl_reads(self) -> None:
        odd = ROOT.der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x03", 1)
        assert NO_STORE(path_of(LEAF, INTER), Anchors(certificates=(odd,)), NOW) == ChainOk((LEAF.der, INTER.der, odd))


class TestBareKeys:
    def test_a_certificate_must_be_signed_as_it_says(self) -> None:
        """RFC 5280 section 4.1.1.2: the algorithm outside of what is signed is the one inside."""
        structure = parse(LEAF.der)
        named = structure.inner[0].inner[2].inner[0]
        named.content = named.content[:-1] + bytes((named.content[-1] ^ 1,))  # ecdsa-with-SHA384, it says
        tbs = structure.inner[0].encode()
        assert isinstance(INTER.key, ec.EllipticCurvePrivateKey)
        structure.inner[2].content = b"\0" + INTER.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
        keys = Anchors(keys=(INTER.spki,))
        assert isinstance(NO_STORE((structure.encode(),), keys, NOW), ChainFailed)
        assert isinstance(NO_STORE((LEAF.der,), keys, NOW), ChainOk)

    def test_a_key_is_asked_beside_an_anchor_that_fails(self) -> None:
        """Unless it is that anchor's own: its dates would not count any more."""
        late = pki.authority("Inter", dates=pki.EXPIRED)
        key_counts = Anchors(certificates=(late.der,), keys=(ROOT.spki,))
        assert NO_STORE(path_of(LEAF, INTER), key_counts, NOW) == ChainOk(path_of(LEAF, INTER), key=ROOT.spki)
        leaf = late.issue("mx.example")
        own_key = Anchors(certificates=(late.der,), keys=(late.spki,))
        result = NO_STORE(path_of(leaf, late), own_key, NOW)
        assert isinstance(result, ChainFailed)
        assert (result.code, result.depth) == (10, 1)

    def test_a_presented_certificate_that_the_key_signed_counts(self) -> None:
        anchors = own(keys=(ROOT.spki,))
        assert check(LEAF, INTER, anchors=anchors) == ChainOk(path_of(LEAF, INTER), key=ROOT.spki)

    @pytest.mark.parametrize("key", [pki.rsa_key(), pki.ec_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()])
    def test_it_may_have_signed_the_leaf_itself(self, key: pki.PrivateKey) -> None:
        root = pki.authority("Root", key=key)
        leaf = root.issue("mx.example")
        assert check(leaf, anchors=own(keys=(root.spki,))) == ChainOk((leaf.der,), key=root.spki)

    def test_a_key_that_signed_nothing(self) -> None:
        for key in (STRANGER.spki, INTER.spki[:-1], LEAF.spki, pki.authority("x", key=pki.rsa_key()).spki):
            assert isinstance(check(LEAF, INTER, anchors=own(keys=(key,))), ChainFailed)

    def test_dates_of_what_it_signed_count(self) -> None:
        inter = ROOT.issue("Expired", ca=True, dates=pki.EXPIRED)
        result = check(inter.issue("mx.example"), inter, anchors=own(keys=(ROOT.spki,)))
        assert isinstance(result, ChainFailed)
        assert result.code == 10

    def test_not_so_if_that_is_an_anchor_by_itself(self) -> None:
        inter = ROOT.issue("Expired", ca=True, dates=pki.EXPIRED)
        leaf = inter.issue("mx.example")
        assert check(leaf, inter, anchors=own(inter, keys=(ROOT.spki,))) == ChainOk(path_of(leaf, inter))

    def test_what_it_signed_must_lead_to_the_leaf(self) -> None:
        other = ROOT.issue("Other", ca=True)
        assert isinstance(check(STRANGER.issue("mx.example"), other, anchors=own(keys=(ROOT.spki,))), ChainFailed)
