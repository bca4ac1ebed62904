"""SCRAM-SHA-256 against the example of RFC 7677, a server written from the same primitives, and servers that cheat."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from relay.sasl.mechanism import MechanismFailed
from relay.sasl.scram import (
    MAX_ITERATIONS,
    ScramClient,
    attributes,
    decoded,
    derive_keys,
    encoded,
    proof_is_right,
    server_signature,
)
from relay.sasl.secret import Secret

# RFC 7677 section 3
NONCE = "rOprNGfwEbeRWgbNEkqO"
FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
FINAL = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def client(password: str = "pencil") -> ScramClient:
    return ScramClient("user", Secret(password), nonce=NONCE)


def test_the_example_of_the_rfc() -> None:
    exchange = client()
    assert exchange.first() == FIRST
    assert exchange.next(SERVER_FIRST) == FINAL
    assert not exchange.proved, "the server has proved nothing yet"
    assert exchange.next(SERVER_FINAL) == b""
    assert exchange.proved


def test_the_servers_side_of_the_example() -> None:
    keys = derive_keys(Secret("pencil"), decoded("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
    without_proof, _, proof = FINAL.rpartition(b",p=")
    auth_message = FIRST[3:] + b"," + SERVER_FIRST + b"," + without_proof
    assert proof_is_right(decoded(proof.decode()), keys.stored_key, auth_message)
    assert not proof_is_right(b"short", keys.stored_key, auth_message)
    assert not proof_is_right(bytes(32), keys.stored_key, auth_message)
    assert b"v=" + encoded(server_signature(keys.server_key, auth_message)).encode() == SERVER_FINAL
    assert hashlib.sha256(b"").digest() != keys.stored_key


@pytest.mark.parametrize(
    ("server_first", "found"),
    [
        (SERVER_FIRST.replace(b"rOprN", b"xOprN"), "nonce"),
        (b"r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "nonce"),
        (SERVER_FIRST.replace(b"4096", b"1"), "1 SCRAM iterations"),
        (SERVER_FIRST.replace(b"4096", b"4095"), "4095 SCRAM iterations"),
        (SERVER_FIRST.replace(b"4096", b"%d" % (MAX_ITERATIONS + 1)), "SCRAM iterations"),
        (SERVER_FIRST.replace(b"4096", b"99999999999999999999"), "SCRAM iterations"),
        (SERVER_FIRST.replace(b"4096", b"-4096"), "SCRAM iterations"),
        (SERVER_FIRST.replace(b"4096", "٤٠٩٦".encode()), "SCRAM iterations"),
        (SERVER_FIRST.replace(b"s=W22ZaJ0SNY7soEsUEjb6gQ==", b"s="), "salt"),
        (SERVER_FIRST.replace(b"s=W22ZaJ0SNY7soEsUEjb6gQ==", b"s=*"), "base64"),
        (b"m=ext," + SERVER_FIRST, "extension"),
        (SERVER_FIRST + b",i=5000", "malformed"),
        (b"", "malformed"),
        (b"\xff\xfe", "UTF-8"),
        (b"r=" + b"x" * 3000, "more than"),
    ],
)
def test_a_first_message_that_is_not_to_be_answered(server_first: bytes, found: str) -> None:
    with pytest.raises(MechanismFailed, match=found):
        client().next(server_first)


@pytest.mark.parametrize("final", [b"v=AAAA", b"v=", b"x=1", b"e=invalid-proof", SERVER_FINAL[:-2], b""])
def test_a_server_that_does_not_know_the_password_is_found_out(final: bytes) -> None:
    exchange = client()
    exchange.next(SERVER_FIRST)
    with pytest.raises(MechanismFailed):
        exchange.next(final)
    assert not exchange.proved


def test_a_third_challenge_is_none() -> None:
    exchange = client()
    exchange.next(SERVER_FIRST)
    exchange.next(SERVER_FINAL)
    with pytest.raises(MechanismFailed, match="after the end"):
        exchange.next(b"")


def test_a_wrong_password_fails_on_both_sides() -> None:
    keys = derive_keys(Secret("other"), decoded("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
    without_proof, _, proof = client().next(SERVER_FIRST).rpartition(b",p=")
    auth_message = FIRST[3:] + b"," + SERVER_FIRST + b"," + without_proof
    assert not proof_is_right(decoded(proof.decode()), keys.stored_key, auth_message)


def test_names_and_passwords_are_prepared() -> None:
    named = ScramClient("a,b=c\u00ad", Secret("x"), nonce=NONCE)
    assert named.first() == b"n,,n=a=2Cb=3Dc,r=" + NONCE.encode()
    composed, ligature = (ScramClient("user", Secret(text), nonce=NONCE) for text in ("\u2168", "IX"))
    assert composed.next(SERVER_FIRST) == ligature.next(SERVER_FIRST), "RFC 4013 section 3, example 5"


@pytest.mark.parametrize("text", ["a\x07b", "\u0627\u0031", "\u0221", "\udcff"])
def test_a_password_with_prohibited_characters_is_refused_unquoted(text: str) -> None:
    with pytest.raises(MechanismFailed) as caught:
        client(text).next(SERVER_FIRST)
    assert text not in str(caught.value)


@pytest.mark.parametrize("parse", [attributes, decoded])
def test_odd_texts_raise_nothing_else(parse: Callable[[str], object]) -> None:
    for text in ("", ",", "=", "r", "r=,r=", "é=1", "\0", "r=\udcff", "===", "A" * 5000):
        try:
            parse(text)
        except MechanismFailed:
            pass
