"""Outlines of DER structures; cutting certificates apart is tested in tests/unit/tls/test_certificate.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dane.der import BIT_STRING, SEQUENCE, has_outline
from tests import pki

CERT = (SEQUENCE, SEQUENCE, BIT_STRING)
KEY = (SEQUENCE, BIT_STRING)
ONE = pki.make("mx.example")


def test_outlines_of_certificates_and_keys() -> None:
    assert has_outline(ONE.der, CERT)
    assert has_outline(ONE.spki, KEY)
    assert not has_outline(ONE.der, KEY)
    assert not has_outline(ONE.spki, CERT)


@pytest.mark.parametrize("octets", [b"", b"\x30", b"\x30\x00", ONE.spki + b"\0", ONE.spki[:-1], b"\x31" + ONE.spki[1:]])
def test_what_has_none(octets: bytes) -> None:
    assert not has_outline(octets, KEY)


@given(st.binary(max_size=60))
def test_any_octets_have_one_or_not(octets: bytes) -> None:
    assert has_outline(octets, KEY) in (True, False)
