"""Paths to the store and to anchors of our own: what OpenSSL would say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from relay.tls.authorities import CaStoreError
from relay.tls.chain import MAX_DEPTH, ChainChecker
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


class TestStore:
    def test_a_chain_to_a_root_of_the_store(self, store: ChainChecker) -> None:
        result = check(LEAF, INTER, anchors=Anchors(store=True), checker=store)
        assert result == ChainOk(path_of(LEAF, INTER, ROOT))

    def test_order_and_junk_do_not_matter(self, store: ChainChecker) -> None:
        result = check(LEAF, STRANGER, ROOT, INTER, LEAF, anchors=Anchors(store=True), checker=store)
        assert result == ChainOk(path_of(LEAF, INTER, ROOT))

    def test_a_missing_intermediate(self, store: ChainChecker) -> None:
        result = check(LEAF, anchors=Anchors(store=True), checker=store)
        assert isinstance(result, ChainFailed)
        assert (result.code, result.depth, result.issuer) == (20, 0, "/CN=Inter")

    def test_an_unknown_root(self, store: ChainChecker) -> None:
        leaf = STRANGER.issue("mx.example")
        result = check(leaf, STRANGER, anchors=Anchors(store=True), checker=store)
        assert isinstance(result, ChainFailed)
        assert (result.code, result.depth, result.issuer) == (19, 1, "/CN=Stranger")

    def test_a_self_signed_leaf(self, store: ChainChecker) -> None:
        result = check(pki.make("mx.example"), anchors=Anchors(store=True), checker=store)
        assert isinstance(result, ChainFailed)
        assert (result.code, result.text) == (18, "self-signed certificate")

    def test_an_intermediate_in_the_store_is_no_anchor(self, tmp_path: Path) -> None:
        result = check(LEAF, anchors=Anchors(store=True), checker=with_store(tmp_path, INTER))
        assert isinstance(result, ChainFailed)
        assert result.code == 2, "unable to get issuer certificate: no partial chains here"

    def test_a_self_signed_leaf_in_the_store(self, tmp_path: Path) -> None:
        leaf = pki.make("mx.example")
        assert check(leaf, anchors=Anchors(store=True), checker=with_store(tmp_path, leaf)) == ChainOk((leaf.der,))

    @pytest.mark.parametrize(("dates", "code"), [(pki.EXPIRED, 10), (pki.FUTURE, 9)])
    def test_dates_count_for_every_certificate(
        self, tmp_path: Path, dates: tuple[datetime, datetime], code: int
    ) -> None:
        root = pki.authority("Dated", dates=dates)
        cases: list[tuple[int, tuple[Cert, ...], Cert]] = []
        inter = ROOT.issue("Dated inter", ca=True, dates=dates)
        cases.append((0, (ROOT.issue("mx.example", dates=dates),), ROOT))
        cases.append((1, (inter.issue("mx.example"), inter), ROOT))
        cases.append((1, (root.issue("mx.example"),), root))
        for depth, chain, anchor in cases:
            result = check(*chain, anchors=Anchors(store=True), checker=with_store(tmp_path, anchor))
            assert isinstance(result, ChainFailed)
            assert (result.code, result.depth) == (code, depth)

    def test_the_time_is_the_one_given(self, store: ChainChecker) -> None:
        chain, anchors = path_of(LEAF, INTER), Anchors(store=True)
        assert isinstance(store(chain, anchors, NOW), ChainOk)
        assert isinstance(store(chain, anchors, NOW + 31 * pki.DAY), ChainFailed)
        assert isinstance(store(chain, anchors, NOW), ChainOk)
        tokyo = timezone(timedelta(hours=9))
        edge = pki.VALID[1]
        assert isinstance(store(chain, anchors, (edge - timedelta(seconds=1)).astimezone(tokyo)), ChainOk)
        assert isinstance(store(chain, anchors, (edge + timedelta(seconds=1)).astimezone(tokyo)), ChainFailed)

    def test_only_authorities_may_sign(self, store: ChainChecker) -> None:
        for ca in (False, None):
            inter = ROOT.issue("Not a CA", ca=ca)
            result = check(inter.issue("mx.example"), inter, anchors=Anchors(store=True), checker=store)
            assert isinstance(result, ChainFailed)
            assert result.depth == 1

    def test_a_client_certificate_is_not_for_servers(self, store: ChainChecker) -> None:
        leaf = ROOT.issue("mx.example", eku=[pki.CLIENT_AUTH])
        result = check(leaf, anchors=Anchors(store=True), checker=store)
        assert isinstance(result, ChainFailed)
        assert (result.code, result.depth) == (26, 0)
        both = ROOT.issue("mx.example", eku=[pki.CLIENT_AUTH, pki.SERVER_AUTH])
        assert isinstance(check(both, anchors=Anchors(store=True), checker=store), ChainOk)

    def test_a_forged_signature(self, store: ChainChecker) -> None:
        forger = pki.authority("Root")
        result = check(forger.issue("mx.example"), anchors=Anchors(store=True), checker=store)
        assert isinstance(result, ChainFailed)
        assert result.code == 7

    def test_small_keys_and_broken_digests(self, tmp_path: Path) -> None:
        root = pki.authority("RSA root", key=pki.rsa_key(1024))
        checker = with_store(tmp_path, root)
        leaf, small = root.issue("mx.example"), root.issue("mx.example", key=pki.small_rsa_key())
        assert isinstance(check(leaf, anchors=Anchors(store=True), checker=checker), ChainOk)
        result = check(small, anchors=Anchors(store=True), checker=checker)
        assert isinstance(result, ChainFailed)
        assert (result.code, result.depth, result.text) == (66, 0, "EE certificate key too weak")
        result = checker((pki.signed_with_sha1(leaf, root),), Anchors(store=True), NOW)
        assert isinstance(result, ChainFailed)
        assert (result.code, result.depth, result.text) == (68, 0, "CA signature digest algorithm too weak")

    def test_a_root_may_be_signed_by_anything(self, tmp_path: Path) -> None:
        root = pki.authority("Old root", key=pki.rsa_key(2048))
        old = pki.signed_with_sha1(root, root)
        (tmp_path / "old.pem").write_bytes(pki.pem_of(old))
        checker = ChainChecker.load(cafile=str(tmp_path / "old.pem"))
        leaf = root.issue("mx.example")
        assert checker((leaf.der,), Anchors(store=True), NOW) == ChainOk((leaf.der, old))

    def test_a_chain_that_is_too_long(self, tmp_path: Path) -> None:
        chain = [ROOT]
        for number in range(MAX_DEPTH):
            chain.append(chain[-1].issue(f"Inter {number}", ca=True))
        checker = with_store(tmp_path, ROOT)
        fits = (*reversed(chain[1:]),)
        assert isinstance(check(*fits, anchors=Anchors(store=True), checker=checker), ChainOk)
        result = check(chain[-1].issue("mx.example"), *fits, anchors=Anchors(store=True), checker=checker)
        assert isinstance(result, ChainFailed)
        assert result.code == 22

    def test_what_is_no_certificate(self, store: ChainChecker) -> None:
        anchors = Anchors(store=True)
        assert isinstance(store((), anchors, NOW), ChainFailed)
        assert isinstance(store((b"junk",), anchors, NOW), ChainFailed)
        assert store((LEAF.der, b"junk", INTER.der), anchors, NOW) == ChainOk(path_of(LEAF, INTER, ROOT))

    def test_a_certificate_that_openssl_reads_and_cannot_write(self, store: ChainChecker) -> None:
        """An algorithm identifier with something of a wrong kind in it: the key of such a leaf does not parse."""
        structure = parse(ROOT.issue("mx.example", key=ed25519.Ed25519PrivateKey.generate()).der)
        algorithm = structure.inner[0].inner[6].inner[0]
        algorithm.inner.append(algorithm.inner[0])
        odd = structure.encode()
        for anchors in (Anchors(store=True), own(ROOT), own(ROOT, keys=(ROOT.spki,))):
            assert isinstance(store((odd, ROOT.der), anchors, NOW), ChainFailed)

    def test_a_leaf_that_openssl_reads_as_other_octets(self, store: ChainChecker) -> None:
        """BER lengths: what was digested for TLSA is not what would be verified."""
        assert LEAF.der[1] == 0x82
        loose = b"\x30\x83\x00" + LEAF.der[2:]
        for anchors in (Anchors(store=True), own(ROOT)):
            assert isinstance(store((LEAF.der, INTER.der), anchors, NOW), ChainOk)
            assert isinstance(store((loose, INTER.der), anchors, NOW), ChainFailed)


class TestLoading:
    def test_a_directory_of_authorities(self, tmp_path: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("left out: openssl (the command) is not installed")
        name = subprocess.run(
            ["openssl", "x509", "-hash", "-noout"], input=ROOT.pem, capture_output=True, check=True
        ).stdout.decode()
        (tmp_path / f"{name.strip()}.0").write_bytes(ROOT.pem)
        checker = ChainChecker.load(capath=str(tmp_path))
        assert isinstance(check(LEAF, INTER, anchors=Anchors(store=True), checker=checker), ChainOk)

    @pytest.mark.parametrize(
        "contents", [None, b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
    )
    def test_a_file_that_cannot_be_used_is_named(self, tmp_path: Path, contents: bytes | None) -> None:
        cafile = tmp_path / "ca.pem"
        if contents is not None:
            cafile.write_bytes(contents)
        with pytest.raises(CaStoreError, match=r"ca\.pem"):
            ChainChecker.load(cafile=str(cafile))

    def test_a_directory_that_is_none_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(CaStoreError, match="no-such"):
            ChainChecker.load(capath=str(tmp_path / "no-such"))

    def test_without_files_the_system_store_is_taken(self, tmp_path: Path) -> None:
        # In a process of its own, because the variable is read from the environment.
        (tmp_path / "ca.pem").write_bytes(ROOT.pem)
        (tmp_path / "chain").write_text("\n".join(der.hex() for der in path_of(LEAF, INTER)))
        script = (
            "import sys, datetime; from relay.tls.chain import ChainChecker; from relay.tls.peer import Anchors\n"
            "chain = tuple(bytes.fromhex(line) for line in open(sys.argv[1]).read().split())\n"
            "now = datetime.datetime.fromisoformat(sys.argv[2])\n"
            "print(type(ChainChecker.load()(chain, Anchors(store=True), now)).__name__)\n"
        )
        for cafile, expected in ((str(tmp_path / "ca.pem"), "ChainOk"), (str(tmp_path / "none"), "ChainFailed")):
            done = subprocess.run(
                [sys.executable, "-c", script, str(tmp_path / "chain"), NOW.isoformat()],
                env={"SSL_CERT_FILE": cafile, "SSL_CERT_DIR": str(tmp_path / "none"), "PYTHONPATH": ":".join(sys.path)},
                cwd=Path(__file__).parents[3],
                capture_output=True,
                text=True,
                check=True,
            )
            assert done.stdout.strip() == expected


class TestTrustAnchorFiles:
    def load(self, directory: Path, *blocks: bytes) -> tuple[ChainChecker, Anchors]:
        file = directory / "anchors.pem"
        file.write_bytes(b"# anchors\n" + b"".join(blocks))
        return ChainChecker.load(tafiles=[str(file)]), Anchors(files=(str(file),))

    def test_certificates(self, tmp_path: Path) -> None:
        checker, anchors = self.load(tmp_path, STRANGER.pem, INTER.pem)
        assert check(LEAF, anchors=anchors, checker=checker) == ChainOk(path_of(LEAF, INTER))

    def test_public_keys(self, tmp_path: Path) -> None:
        checker, anchors = self.load(tmp_path, ROOT.spki_pem)
        assert check(LEAF, INTER, anchors=anchors, checker=checker) == ChainOk(path_of(LEAF, INTER), key=ROOT.spki)

    def test_the_leaf_itself_or_its_key(self, tmp_path: Path) -> None:
        expired = STRANGER.issue("other.example", dates=pki.EXPIRED)
        for block in (expired.pem, expired.spki_pem):
            checker, anchors = self.load(tmp_path, block)
            assert check(expired, anchors=anchors, checker=checker) == ChainOk((expired.der,), leaf_listed=True)
            assert isinstance(check(LEAF, anchors=anchors, checker=checker), ChainFailed)

    @pytest.mark.parametrize(
        "contents",
        [
            None,
            b"",
            b"no PEM here",
            LEAF.key_pem,
            ROOT.pem + LEAF.key_pem,
            ROOT.pem[:-10],
            ROOT.pem + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            b"-----BEGIN PUBLIC KEY-----\n!!!!\n-----END PUBLIC KEY-----\n",
        ],
    )
    def test_an_unreadable_file_fails_every_chain_and_is_named(self, tmp_path: Path, contents: bytes | None) -> None:
        file = tmp_path / "anchors.pem"
        if contents is not None:
            file.write_bytes(contents)
        checker = ChainChecker.load(tafiles=[str(file)])
        result = check(LEAF, INTER, ROOT, anchors=Anchors(files=(str(file),)), checker=checker)
        assert isinstance(result, ChainFailed)
        assert str(file) in result.text
        assert "trust anchor file" in result.text

    def test_one_unreadable_file_of_two(self, tmp_path: Path) -> None:
        (tmp_path / "good.pem").write_bytes(INTER.pem)
        good, bad = str(tmp_path / "good.pem"), str(tmp_path / "bad.pem")
        checker = ChainChecker.load(tafiles=[good, bad])
        assert isinstance(check(LEAF, anchors=Anchors(files=(good,)), checker=checker), ChainOk)
        result = check(LEAF, anchors=Anchors(files=(good, bad)), checker=checker)
        assert isinstance(result, ChainFailed)
        assert bad in result.text

    def test_a_file_that_was_not_loaded(self, tmp_path: Path) -> None:
        result = check(LEAF, anchors=Anchors(files=(str(tmp_path / "late.pem"),)))
        assert isinstance(result, ChainFailed)
        assert "late.pem" in result.text
