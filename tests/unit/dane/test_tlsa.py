"""TLSA RDATA: what is usable, what is not and why; hostile octets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from relay.dane.tlsa import (
    MatchingType,
    Selector,
    Tlsa,
    Unusable,
    UnusableTlsa,
    Usable,
    Usage,
    classify,
    parse_tlsa,
)
from relay.mail.names import Domain

BASE = Domain("mx.example.net")
KEY = ec.generate_private_key(ec.SECP256R1())
SPKI = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mx.example.net")])
START = datetime(2026, 1, 1, tzinfo=UTC)
CERT = (
    x509.CertificateBuilder()
    .subject_name(NAME)
    .issuer_name(NAME)
    .public_key(KEY.public_key())
    .serial_number(1)
    .not_valid_before(START)
    .not_valid_after(START + timedelta(days=1))
    .sign(KEY, hashes.SHA256())
    .public_bytes(Encoding.DER)
)


@pytest.mark.parametrize("usage", [2, 3])
@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
def test_usable_records(usage: int, selector: int, matching: int) -> None:
    data = {0: SPKI if selector else CERT, 1: bytes(32), 2: bytes(64)}[matching]
    record = parse_tlsa(bytes([usage, selector, matching]) + data)
    assert record == Tlsa(Usage(usage), Selector(selector), MatchingType(matching), data)


@pytest.mark.parametrize(
    ("rdata", "reason"),
    [
        (b"", "truncated TLSA RR length == 0"),
        (b"\x03\x01\x01", "truncated TLSA RR length == 3"),
        (b"\x00\x01\x01" + bytes(32), f"unsupported TLSA certificate usage: 0 1 1 {'00' * 32}"),
        (b"\x01\x01\x01" + bytes(32), f"unsupported TLSA certificate usage: 1 1 1 {'00' * 32}"),
        (b"\x04\x01\x01\xab", "unsupported TLSA certificate usage: 4 1 1 AB"),
        (b"\xff\x01\x01\xab", "unsupported TLSA certificate usage: 255 1 1 AB"),
        (b"\x03\x02\x01\xab", "unsupported TLSA selector: 3 2 1 AB"),
        (b"\x03\x01\x03\xab", "unsupported TLSA matching type: 3 1 3 AB"),
        (b"\x03\x01\x01" + bytes(31), f"TLSA digest of 31 octets instead of 32: 3 1 1 {'00' * 31}"),
        (b"\x03\x01\x01" + bytes(33), f"TLSA digest of 33 octets instead of 32: 3 1 1 {'00' * 32}"),
        (b"\x03\x01\x02" + bytes(32), f"TLSA digest of 32 octets instead of 64: 3 1 2 {'00' * 32}"),
        (b"\x03\x00\x00\xab", "TLSA data is no CERT in DER: 3 0 0 AB"),
        (b"\x03\x01\x00\xab", "TLSA data is no SPKI in DER: 3 1 0 AB"),
    ],
)
def test_unusable_records_say_why(rdata: bytes, reason: str) -> None:
    assert parse_tlsa(rdata) == UnusableTlsa(rdata, reason)


def test_selector_and_full_data_must_agree() -> None:
    assert isinstance(parse_tlsa(b"\x03\x00\x00" + SPKI), UnusableTlsa)
    assert isinstance(parse_tlsa(b"\x03\x01\x00" + CERT), UnusableTlsa)


def test_full_data_with_octets_behind_it_is_unusable() -> None:
    assert isinstance(parse_tlsa(b"\x03\x00\x00" + CERT + b"\x00"), UnusableTlsa)
    assert isinstance(parse_tlsa(b"\x03\x01\x00" + SPKI + b"\x00"), UnusableTlsa)


def test_a_key_of_an_unknown_algorithm_is_usable() -> None:
    # SEQUENCE { SEQUENCE { OID 1.3.9999 } BIT STRING { 00 01 } }
    spki = bytes.fromhex("300b300506032bce0f03020001")
    assert isinstance(parse_tlsa(b"\x03\x01\x00" + spki), Tlsa)


def test_full_data_needs_an_outline_and_no_more() -> None:
    """What only we cannot read must not turn a demand for proof into mere encryption."""
    for broken in (CERT.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x03"), CERT[:-1] + bytes([CERT[-1] ^ 1])):
        assert isinstance(parse_tlsa(b"\x02\x00\x00" + broken), Tlsa)
    off_the_curve = SPKI[:-1] + bytes([SPKI[-1] ^ 1])
    assert isinstance(parse_tlsa(b"\x02\x01\x00" + off_the_curve), Tlsa)
    for cut in (CERT[:-1], CERT[1:], b"\x30\x80" + CERT[2:]):
        assert isinstance(parse_tlsa(b"\x02\x00\x00" + cut), UnusableTlsa)


def test_presentation_is_postfixs_and_bounded() -> None:
    assert str(Tlsa(Usage.DANE_EE, Selector.SPKI, MatchingType.SHA2_256, b"\xab" * 32)) == f"3 1 1 {'AB' * 32}"
    assert str(Tlsa(Usage.DANE_TA, Selector.CERT, MatchingType.FULL, b"\xab" * 900)) == f"2 0 0 {'AB' * 32}..."
    record = parse_tlsa(b"\x00\x00\x00" + bytes(60_000))
    assert isinstance(record, UnusableTlsa)
    assert len(record.reason) < 200


def test_classify_sorts_and_keeps_order() -> None:
    ee, ta, bad = b"\x03\x01\x01" + bytes(32), b"\x02\x00\x01" + bytes(32), b"\x01\x00\x01" + bytes(32)
    found = classify(BASE, (bad, ee, ta))
    assert isinstance(found, Usable)
    assert [record.usage for record in found.records] == [Usage.DANE_EE, Usage.DANE_TA]
    assert [record.rdata for record in found.unusable] == [bad]
    only_bad = classify(BASE, (bad,))
    assert isinstance(only_bad, Unusable)
    assert (only_bad.base, len(only_bad.unusable)) == (BASE, 1)


@given(st.binary(max_size=300))
def test_any_octets_become_a_record_or_a_reason(rdata: bytes) -> None:
    record = parse_tlsa(rdata)
    if isinstance(record, Tlsa):
        assert bytes([record.usage, record.selector, record.matching]) + record.data == rdata
    else:
        assert record.rdata == rdata
        assert record.reason.isprintable()


@given(st.lists(st.binary(max_size=80), min_size=1, max_size=8))
def test_classify_loses_no_record(rdatas: list[bytes]) -> None:
    found = classify(BASE, tuple(rdatas))
    kept = len(found.unusable) + (len(found.records) if isinstance(found, Usable) else 0)
    assert kept == len(rdatas)
