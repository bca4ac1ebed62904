"""TLSA RDATA of any octets: a record or a reason, and never a weaker policy than OpenSSL would come to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import event, given
from hypothesis import strategies as st

from relay.dane.match import counting, in_turn, matches
from relay.dane.tlsa import Tlsa, UnusableTlsa, Usable, classify, parse_tlsa
from relay.mail.names import Domain
from tests import pki
from tests.fuzz.effort import LONG, QUICK
from tests.fuzz.mutation import changed_der, changed_octets
from tests.interop.dane_chains import rsa_key
from tests.interop.openssl_dane import OpensslDane, required

BASE: Final = Domain("mx.example")
ONE = pki.make("mx.example", dns=["mx.example"], serial=1, key=ec.derive_private_key(1, ec.SECP256R1()))
ANOTHER = pki.make("mx.example", serial=2, key=rsa_key(7, 1024))
RDATAS: Final = [
    bytes((usage, selector, matching)) + cert.tlsa(usage, selector, matching).data
    for cert in (ONE, ANOTHER)
    for usage in (2, 3)
    for selector in (0, 1)
    for matching in (0, 1, 2)
]
FULL: Final = [ONE.der, ONE.spki, ANOTHER.der, ANOTHER.spki]


@pytest.fixture(scope="module")
def oracle() -> Iterator[OpensslDane]:
    with required() as running:
        yield running


def full_records() -> st.SearchStrategy[bytes]:
    """Full(0) data that is still DER, and of which something is odd."""
    return st.builds(
        lambda usage, selector, data: bytes((usage, selector, 0)) + data,
        st.sampled_from((2, 3)),
        st.integers(0, 1),
        changed_der(FULL, FULL),
    )


def read(rdata: bytes) -> Tlsa | UnusableTlsa:
    """Everything of ours that reads one record."""
    record = parse_tlsa(rdata)
    if isinstance(record, UnusableTlsa):
        assert record.rdata == rdata
        assert record.reason.isprintable()
        assert len(record.reason) < 300
        return record
    assert str(record).isprintable()
    assert len(str(record)) < 100
    assert counting([record]) == in_turn([record]) == (record,)
    assert matches(record, der=ONE.der, spki=ONE.spki) is (record.data in _of_one(record))
    return record


def _of_one(record: Tlsa) -> list[bytes]:
    selected = ONE.spki if record.selector else ONE.der
    return [[selected], [hashlib.sha256(selected).digest()], [hashlib.sha512(selected).digest()]][record.matching]


class TestReading:
    @QUICK
    @given(changed_octets(RDATAS))
    def test_one(self, rdata: bytes) -> None:
        read(rdata)

    @QUICK
    @given(full_records())
    def test_full_data(self, rdata: bytes) -> None:
        read(rdata)

    @QUICK
    @given(st.lists(changed_octets(RDATAS), min_size=1, max_size=6))
    def test_several(self, rdatas: list[bytes]) -> None:
        found = classify(BASE, tuple(rdatas))
        usable = found.records if isinstance(found, Usable) else ()
        assert len(usable) + len(found.unusable) == len(rdatas)
        assert set(counting(usable)) <= set(usable)
        assert sorted(in_turn(usable), key=str) == sorted(usable, key=str)


def compare(oracle: OpensslDane, rdata: bytes) -> None:
    """What OpenSSL takes, ours takes: else it would demand nothing where OpenSSL demands proof."""
    usable = isinstance(read(rdata), Tlsa)
    event(f"{'usable' if usable else 'unusable'}, to OpenSSL {'usable' if oracle.usable(rdata) else 'unusable'}")
    assert usable or not oracle.usable(rdata)
    if usable and rdata[2]:
        assert oracle.usable(rdata), "of digests everything is known"


@pytest.mark.interop
class TestBesideOpenssl:
    @QUICK
    @given(rdata=st.one_of(changed_octets(RDATAS), full_records()))
    def test_what_it_takes_ours_takes(self, oracle: OpensslDane, rdata: bytes) -> None:
        compare(oracle, rdata)

    @pytest.mark.long
    @LONG
    @given(rdata=st.one_of(changed_octets(RDATAS), full_records()))
    def test_what_it_takes_ours_takes_of_many(self, oracle: OpensslDane, rdata: bytes) -> None:
        compare(oracle, rdata)
