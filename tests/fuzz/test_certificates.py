"""Certificates that have been tampered with, alone and in chains, through our rooms and through OpenSSL.

Nothing may raise, and nothing may be accepted that OpenSSL refuses, except the one class of
tests/interop/dane_differences.py (a second path). Being stricter than OpenSSL is allowed here.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import event, given
from hypothesis import strategies as st

from relay.tls.certificate import cert_facts, cut_spki, issuer_line
from relay.tls.chain import ChainChecker
from relay.tls.peer import Anchors, CertFacts, ChainFailed, ChainOk
from relay.tls.signature import signed_by, weak_key, weakness
from tests import pki
from tests.fuzz.effort import LONG, QUICK
from tests.fuzz.mutation import Node, changed_der, changed_octets, parse
from tests.interop.dane_chains import NAMES, Chains, KeyPool, key_usage
from tests.interop.dane_differences import Question, ask_openssl, ask_ours, is_second_path
from tests.interop.openssl_dane import Accepted, NoHandshake, OpensslDane, Rejected, required
from tests.pki import NOW, Cert

_ED25519_ALGORITHM: Final = Node(0x30, inner=[Node(0x06, bytes.fromhex("2b6570"))])


def key(number: int) -> ed25519.Ed25519PrivateKey:
    """A key whose signatures are the same each time, as hypothesis wants it."""
    return ed25519.Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


ROOT = pki.make("Root", ca=True, key=key(1), serial=1)
INTER = pki.make(
    "Inter",
    issuer=ROOT,
    ca=True,
    key=key(2),
    serial=2,
    extensions=[
        key_usage("key_cert_sign", "crl_sign"),
        x509.SubjectKeyIdentifier.from_public_key(key(2).public_key()),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(key(1).public_key()),
        x509.NameConstraints([x509.DNSName("example"), x509.DNSName("example.org")], None),
    ],
)
LEAF = pki.make(
    NAMES[0],
    issuer=INTER,
    key=key(3),
    serial=3,
    dns=[NAMES[0], "*.mail.example"],
    eku=[pki.SERVER_AUTH, pki.CLIENT_AUTH],
    extensions=[
        key_usage("digital_signature"),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(key(2).public_key()),
    ],
)
CN_ONLY = pki.make(NAMES[0], issuer=INTER, key=key(4), serial=4)
DER: Final = [cert.der for cert in (LEAF, CN_ONLY, INTER, ROOT)]


def _donors() -> list[bytes]:
    """Certificates of all kinds, to take elements from."""
    chains = Chains(20, KeyPool())
    many = [cert.der for _ in range(60) for cert in chains.make().line]
    return random.Random(1).sample(many, 80)


DONORS: Final = _donors()


@pytest.fixture(scope="module")
def oracle() -> Iterator[OpensslDane]:
    with required() as running:
        yield running


def reads(der: bytes) -> None:
    """Everything of ours that reads one certificate."""
    facts = cert_facts(der)
    assert isinstance(facts, CertFacts)
    assert facts.der == der
    assert facts.spki == cut_spki(der)
    assert facts.spki in der
    assert len(facts.subject) <= 200
    assert facts.subject.isprintable()
    assert issuer_line(der).isprintable()
    assert isinstance(weak_key(facts.spki), ChainFailed | None)
    assert isinstance(weakness((der, ROOT.der)), ChainFailed | None)
    assert signed_by(der, INTER.spki) in (True, False)
    checker = ChainChecker()
    for presented in ((der, INTER.der), (LEAF.der, der, INTER.der)):
        for anchors in (
            Anchors(certificates=(INTER.der, der), keys=(ROOT.spki, facts.spki)),
            Anchors(store=True),
        ):
            assert isinstance(checker(presented, anchors, NOW), ChainOk | ChainFailed)


class TestReading:
    @QUICK
    @given(changed_octets(DER))
    def test_octets(self, der: bytes) -> None:
        reads(der)

    @QUICK
    @given(changed_der(DER, DONORS))
    def test_structures(self, der: bytes) -> None:
        reads(der)

    @pytest.mark.long
    @LONG
    @given(changed_octets(DER))
    def test_many_octets(self, der: bytes) -> None:
        reads(der)

    @pytest.mark.long
    @LONG
    @given(changed_der(DER, DONORS))
    def test_many_structures(self, der: bytes) -> None:
        reads(der)


def signed_again(der: bytes, signer: Cert) -> bytes:
    """The same TBSCertificate with a sound signature by ``signer``, whatever became of it."""
    try:
        tbs = parse(der).inner[0].encode()
    except (ValueError, IndexError):
        return der
    assert isinstance(signer.key, ed25519.Ed25519PrivateKey)
    signature = Node(0x03, b"\0" + signer.key.sign(tbs))
    content = tbs + _ED25519_ALGORITHM.encode() + signature.encode()
    return Node(0x30, content).encode()


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """A chain in which one certificate has been tampered with, often signed anew, and records that describe it."""
    line = [draw(st.sampled_from([LEAF, CN_ONLY])).der, INTER.der, ROOT.der]
    at = draw(st.integers(0, 2))
    change = draw(st.sampled_from((changed_octets, changed_der)))
    line[at] = draw(changed_octets([line[at]], 2) if change is changed_octets else changed_der([line[at]], DONORS))
    if draw(st.integers(0, 3)):
        line[at] = signed_again(line[at], (INTER, ROOT, ROOT)[at])
    presented = line[: draw(st.integers(1, 3))]
    if draw(st.booleans()):
        presented.append(draw(st.sampled_from(line)))
    rdatas = [draw(records(line)) for _ in range(draw(st.integers(1, 2)))]
    return Question(tuple(presented), tuple(rdatas), NAMES)


@st.composite
def records(draw: st.DrawFn, line: list[bytes]) -> bytes:
    """A record about one of ``line``, as it is."""
    depth = draw(st.integers(0, len(line) - 1))
    usage = 3 if depth == 0 and draw(st.booleans()) else 2
    selector, matching = draw(st.integers(0, 1)), draw(st.integers(0, 2))
    selected = cut_spki(line[depth]) if selector else line[depth]
    data = {0: selected, 1: hashlib.sha256(selected).digest(), 2: hashlib.sha512(selected).digest()}[matching]
    return bytes((usage, selector, matching)) + data


def compare(oracle: OpensslDane, question: Question) -> None:
    """Ours must not raise, and must not accept more than OpenSSL."""
    ours, theirs = ask_ours(question), ask_openssl(oracle, question)
    event(f"{type(theirs).__name__}, {'accepted' if ours.accepted else 'not accepted'}")
    if isinstance(theirs, NoHandshake | Accepted):
        return
    if ours.accepted:
        assert is_second_path(oracle, question, ours, theirs), f"{theirs}\n{ours.verdict}"
    assert not (ours.verdict is None and isinstance(theirs, Rejected)), "OpenSSL takes a record that we do not"


@pytest.mark.interop
class TestJudging:
    @QUICK
    @given(question=questions())
    def test_nothing_more_is_accepted(self, oracle: OpensslDane, question: Question) -> None:
        compare(oracle, question)

    @pytest.mark.long
    @LONG
    @given(question=questions())
    def test_nothing_more_of_many_is_accepted(self, oracle: OpensslDane, question: Question) -> None:
        compare(oracle, question)
