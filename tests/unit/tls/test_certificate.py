"""Facts about certificates: well-formed, odd, and hostile ones."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import example, given
from hypothesis import strategies as st

from relay.dane.der import BadDer, certificate_parts, elements
from relay.tls.certificate import EPOCH, MAX_REMEMBERED_OCTETS, cert_facts, cut_spki, issuer_line
from tests import pki

ROOT = pki.authority("Root")
LEAF = ROOT.issue("mx.example", dns=["MX.example", "*.Sub.example"], eku=[pki.SERVER_AUTH])
SAN = bytes.fromhex("0603551d11")


def test_facts_of_a_leaf() -> None:
    facts = cert_facts(LEAF.der)
    assert facts.der == LEAF.der
    assert facts.spki == LEAF.spki
    assert facts.subject == "CN=mx.example"
    assert facts.issuer == "CN=Root"
    assert not facts.self_issued
    assert facts.dns_names == ("mx.example", "*.sub.example")
    assert facts.common_name == "mx.example"
    assert (facts.not_before, facts.not_after) == pki.VALID
    assert facts.server_auth


def test_facts_of_a_root() -> None:
    facts = cert_facts(ROOT.der)
    assert facts.self_issued
    assert facts.dns_names == ()
    assert facts.server_auth


@pytest.mark.parametrize("key", [pki.ec_key(), pki.rsa_key(1024), ed25519.Ed25519PrivateKey.generate()])
def test_the_key_is_cut_as_it_was_sent(key: pki.PrivateKey) -> None:
    cert = pki.make("mx.example", key=key)
    assert cert_facts(cert.der).spki == cert.spki == cut_spki(cert.der)
    assert cert.spki in cert.der


def test_a_certificate_that_is_shown_again_is_not_read_again() -> None:
    der = pki.make("mx.example").der
    assert cert_facts(bytes(bytearray(der))) is cert_facts(bytes(bytearray(der)))


def test_one_octet_makes_another_certificate() -> None:
    first, second = pki.make("mx.example").der, pki.make("mx.example").der
    assert cert_facts(first).der == first
    assert cert_facts(second).der == second
    changed = first[:-1] + bytes([first[-1] ^ 1])
    assert cert_facts(changed).der == changed


@pytest.mark.parametrize("der", [pki.make("mx.example").der + bytes(MAX_REMEMBERED_OCTETS), bytes(100_000)])
def test_what_is_large_is_not_remembered(der: bytes) -> None:
    assert cert_facts(der) == cert_facts(der)
    assert cert_facts(der) is not cert_facts(der)


def test_a_client_certificate_is_told() -> None:
    assert not cert_facts(pki.make("x", eku=[pki.CLIENT_AUTH]).der).server_auth
    assert cert_facts(pki.make("x", eku=[pki.CLIENT_AUTH, pki.SERVER_AUTH]).der).server_auth


def test_the_last_common_name_counts() -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each) for each in ("first.example", "Last.example")])
    key = pki.ec_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(pki.NOW)
        .not_valid_after(pki.NOW + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    assert cert_facts(pki.Cert(certificate, key).der).common_name == "Last.example"


def test_names_other_than_dns_names_do_not_count() -> None:
    san = x509.SubjectAlternativeName([x509.RFC822Name("a@mx.example"), x509.UniformResourceIdentifier("smtp://x")])
    facts = cert_facts(pki.make("mx.example", extensions=[san]).der)
    assert facts.dns_names == ()
    assert facts.common_name == "mx.example"


def test_one_odd_name_does_not_hide_the_others() -> None:
    der = pki.make("x", dns=["mx.example", "zz.example"]).der.replace(b"zz.example", b"z\xff.example")
    assert cert_facts(der).dns_names == ("mx.example", "z\\xff.example")


def test_an_unreadable_name_extension_leaves_no_name_at_all() -> None:
    der = pki.make("mx.example", dns=["mx.example"]).der
    at = der.index(SAN) + len(SAN) + 2  # behind the header of the OCTET STRING
    broken = der[:at] + b"\x31" + der[at + 1 :]
    facts = cert_facts(broken)
    assert facts.dns_names == ()
    assert facts.common_name == "", "a CN must not count where dNSNames may be hidden"
    assert facts.spki == cert_facts(der).spki


def test_texts_are_escaped_and_bounded() -> None:
    facts = cert_facts(pki.make("a\nb\u202ec\x7f\u200f").der)
    assert facts.subject == "CN=a\\u000ab\\u202ec\\u007f\\u200f"
    long = pki.make(extensions=[])
    assert cert_facts(long.der).subject == ""
    many = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "o" * 60)] * 9)
    key = pki.ec_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(many)
        .issuer_name(many)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(pki.NOW)
        .not_valid_after(pki.NOW)
        .sign(key, hashes.SHA256())
    )
    assert len(cert_facts(pki.Cert(certificate, key).der).subject) == 200


def test_the_issuer_in_the_form_of_postfix() -> None:
    assert issuer_line(LEAF.der) == "/CN=Root"
    assert issuer_line(b"junk") == ""


def test_what_is_no_certificate_has_only_its_octets() -> None:
    for der in (b"", b"\x30", b"junk", LEAF.der[:-1], LEAF.der + b"\x00"):
        facts = cert_facts(der)
        assert facts.der == der
        assert facts.spki == b""
        assert (facts.dns_names, facts.common_name, facts.subject) == ((), "", "")
        assert facts.not_before == facts.not_after == EPOCH
        assert not facts.server_auth


def test_a_version_that_nobody_knows_keeps_the_key() -> None:
    at = LEAF.der.index(bytes.fromhex("a003020102"))
    facts = cert_facts(LEAF.der[:at] + bytes.fromhex("a003020109") + LEAF.der[at + 5 :])
    assert facts.spki == LEAF.spki
    assert facts.dns_names == ()
    assert facts.not_after == EPOCH


def test_odd_serial_numbers_warn_nobody() -> None:
    at = LEAF.der.index(bytes.fromhex("a003020102")) + 5
    assert LEAF.der[at] == 0x02
    negative = LEAF.der[: at + 2] + b"\x80" + LEAF.der[at + 3 :]
    assert cert_facts(negative).dns_names == ("mx.example", "*.sub.example")


@given(st.binary(max_size=300))
def test_any_octets_give_facts(der: bytes) -> None:
    assert cert_facts(der).der == der
    issuer_line(der)


@given(st.integers(0, len(LEAF.der) - 1), st.integers(0, 255))
@example(1, 0x80)
@example(1, 0x84)
@example(4, 0xFF)
def test_any_changed_octet_gives_facts(at: int, octet: int) -> None:
    der = LEAF.der[:at] + bytes([octet]) + LEAF.der[at + 1 :]
    facts = cert_facts(der)
    assert facts.spki == b"" or facts.spki in der
    issuer_line(der)


@given(st.binary(max_size=200))
def test_elements_cover_their_input_or_refuse_it(octets: bytes) -> None:
    try:
        found = list(elements(octets))
    except BadDer:
        return
    assert b"".join(each.whole for each in found) == octets
    assert all(each.whole.endswith(each.content) for each in found)


def test_parts_need_the_shape_of_a_certificate() -> None:
    for octets in ("3000", "30023000", "300430023000", "3080", "1f8101", "30850000000001"):
        with pytest.raises(BadDer):
            certificate_parts(bytes.fromhex(octets))
