"""Group and signature scheme out of handshake messages, well-formed and hostile."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.tls.transcript import (
    Scheme,
    certificate_verify_scheme,
    group_shown,
    scheme_of,
    server_hello_group,
)


def server_hello(*extensions: tuple[int, bytes], session: bytes = b"s" * 32) -> bytes:
    listed = b"".join(struct.pack(">HH", kind, len(body)) + body for kind, body in extensions)
    body = b"\x03\x03" + b"r" * 32 + bytes([len(session)]) + session + b"\x13\x02\x00" + struct.pack(">H", len(listed))
    return b"\x02" + (len(body) + len(listed)).to_bytes(3, "big") + body + listed


VERSIONS = (0x002B, b"\x03\x04")


def test_the_group_of_a_key_share() -> None:
    share = (0x0033, struct.pack(">HH", 0x001D, 32) + bytes(32))
    for session in (b"", b"s" * 32):
        assert server_hello_group(server_hello(VERSIONS, share, session=session)) == 0x001D
        assert server_hello_group(server_hello(share, VERSIONS, session=session)) == 0x001D


def test_a_server_hello_without_key_share_has_no_group() -> None:
    assert server_hello_group(server_hello(VERSIONS)) == 0
    assert server_hello_group(server_hello()) == 0
    assert server_hello_group(server_hello((0x0033, b"\x00"))) == 0


def test_other_messages_have_none() -> None:
    assert server_hello_group(b"\x01" + server_hello((0x0033, b"\x00\x1d"))[1:]) == 0
    assert certificate_verify_scheme(b"\x02\x00\x00\x04\x08\x04") == 0


@given(st.binary(max_size=120), st.integers(0, 120))
def test_any_octets_are_survived(octets: bytes, cut: int) -> None:
    for message in (octets, b"\x02" + octets, b"\x0f" + octets, server_hello((0x0033, octets))[:cut]):
        assert 0 <= server_hello_group(message) <= 0xFFFF
        assert 0 <= certificate_verify_scheme(message) <= 0xFFFF


@pytest.mark.parametrize(
    ("group", "shown"),
    [
        (0x001D, "X25519"),
        ("x25519", "X25519"),
        (0x0017, "ECDHE (P-256)"),
        ("secp256r1", "ECDHE (P-256)"),
        (0x0100, "DHE (2048 bits)"),
        (0x11EC, "X25519MLKEM768"),
        ("X25519MLKEM768", "X25519MLKEM768"),
        (0x9999, ""),
        ("made-up", ""),
        (0, ""),
    ],
)
def test_groups_in_postfixs_words(group: int | str, shown: str) -> None:
    assert group_shown(group) == shown


def test_schemes_in_postfixs_words() -> None:
    assert scheme_of(certificate_verify_scheme(b"\x0f\x00\x00\x06\x08\x04\x00\x00")) == Scheme("RSA-PSS", "SHA256")
    assert scheme_of("rsa_pss_rsae_sha256").signed_with(2048) == "RSA-PSS (2048 bits)"
    assert scheme_of(0x0804).signed_with(0) == "RSA-PSS"
    assert scheme_of(0x0403) == Scheme("ECDSA (prime256v1)", "SHA256")
    assert scheme_of(0x0403).signed_with(0) == "ECDSA (prime256v1)"
    assert scheme_of(0x0807) == Scheme("ED25519", "")
    assert scheme_of(0x1234) == scheme_of("made-up") == Scheme("")
