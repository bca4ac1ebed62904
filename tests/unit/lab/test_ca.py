"""The lab's certificates are what their kind says, by OpenSSL's own judgement."""

from __future__ import annotations

import hashlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import crypto

from relay.lab.ca import Authority, CertificateKind, Credential, Signer, fingerprint, tlsa_rdata

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, NOW)


def chain_error(authority: Authority, credential: Credential) -> str:
    """What OpenSSL says of the chain against the lab's CA file, empty for nothing."""
    store = crypto.X509Store()
    store.load_locations(str(authority.ca_file))
    store.set_time(NOW)
    leaf, *others = map(crypto.X509.from_cryptography, credential.chain)
    try:
        crypto.X509StoreContext(store, leaf, others).verify_certificate()
    except crypto.X509StoreContextError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (CertificateKind.GOOD, ""),
        (CertificateKind.RSA, ""),
        (CertificateKind.WILDCARD, ""),
        (CertificateKind.WRONG_NAME, ""),
        (CertificateKind.DOMAIN_NAME, ""),
        (CertificateKind.PARTIAL_WILDCARD, ""),
        (CertificateKind.CN_ONLY, ""),
        (CertificateKind.CN_BESIDE, ""),
        (CertificateKind.EXPIRED, "expired"),
        (CertificateKind.NOT_YET_VALID, "not yet valid"),
        (CertificateKind.SELF_SIGNED, "self-signed"),
        (CertificateKind.UNRELATED_CA, "self-signed"),
        (CertificateKind.UNKNOWN_CA, "self-signed certificate in certificate chain"),
    ],
)
def test_openssl_agrees_with_the_kind(authority: Authority, kind: CertificateKind, error: str) -> None:
    found = chain_error(authority, authority.issue(kind, "mx.good.lab.test"))
    assert (error in found) if error else not found


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (CertificateKind.GOOD, "mx.good.lab.test"),
        (CertificateKind.WILDCARD, "*.good.lab.test"),
        (CertificateKind.WRONG_NAME, "somewhere-else.test"),
        (CertificateKind.DOMAIN_NAME, "good.lab.test"),
        (CertificateKind.PARTIAL_WILDCARD, "m*.good.lab.test"),
        (CertificateKind.CN_BESIDE, "somewhere-else.test"),
    ],
)
def test_the_name_is_in_the_san(authority: Authority, kind: CertificateKind, name: str) -> None:
    leaf = authority.issue(kind, "mx.good.lab.test").leaf
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [name]


@pytest.mark.parametrize("kind", CertificateKind)
def test_a_server_can_use_the_file(authority: Authority, kind: CertificateKind) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue(kind, "mx.good.lab.test").pem_file)


def test_the_ca_file_holds_the_root_only(authority: Authority) -> None:
    (root,) = x509.load_pem_x509_certificates(authority.ca_file.read_bytes())
    good = authority.issue(CertificateKind.GOOD, "mx.good.lab.test")
    assert root == good.chain[-1]
    assert root.not_valid_after_utc > NOW + timedelta(days=300)


def test_tlsa_rdata_is_that_of_rfc_6698(authority: Authority) -> None:
    leaf = authority.issue(CertificateKind.GOOD, "mx.good.lab.test").leaf
    der = leaf.public_bytes(Encoding.DER)
    spki = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert spki in der
    assert tlsa_rdata(3, 0, 0, leaf) == b"\x03\x00\x00" + der
    assert tlsa_rdata(3, 1, 1, leaf) == b"\x03\x01\x01" + hashlib.sha256(spki).digest()
    assert tlsa_rdata(2, 0, 1, leaf) == b"\x02\x00\x01" + hashlib.sha256(der).digest()
    assert tlsa_rdata(1, 1, 2, leaf) == b"\x01\x01\x02" + hashlib.sha512(spki).digest()
    assert fingerprint(leaf).replace(":", "").lower() == hashlib.sha256(der).hexdigest()


@pytest.mark.parametrize(("selector", "matching"), [(2, 1), (1, 3)])
def test_tlsa_numbers_without_a_meaning_are_refused(authority: Authority, selector: int, matching: int) -> None:
    with pytest.raises(ValueError, match="no TLSA"):
        tlsa_rdata(3, selector, matching, authority.issue(CertificateKind.GOOD, "a.test").leaf)


def test_signers_are_the_chain_and_a_stranger(authority: Authority) -> None:
    good = authority.issue(CertificateKind.GOOD, "mx.good.lab.test")
    assert authority.signer(good, Signer.LEAF) == good.chain[0]
    assert authority.signer(good, Signer.ISSUER) == good.chain[1]
    assert authority.signer(good, Signer.ROOT) == good.chain[2]
    assert authority.signer(good, Signer.STRANGER) not in good.chain
    own = authority.issue(CertificateKind.SELF_SIGNED, "mx.own.lab.test")
    assert authority.signer(own, Signer.ISSUER) == own.leaf
