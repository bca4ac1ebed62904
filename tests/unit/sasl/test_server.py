"""The server's side of the mechanisms, against the client's side and against clients that cheat."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relay.sasl.scram import ScramClient
from relay.sasl.secret import Secret
from relay.sasl.server import Challenge, Claim, Login, Plain, Proved, Refused, Scram, begin
from tests.unit.sasl.users_of_tests import PASSWORD, USER, users

NONCE = "clientnonce"


def challenge(step: object) -> bytes:
    assert isinstance(step, Challenge)
    return step.octets


def test_plain_and_login_claim_who_they_are() -> None:
    claim = Claim(USER, Secret(PASSWORD))
    assert Plain().next(f"\0{USER}\0{PASSWORD}".encode()) == claim
    assert Plain().next(f"{USER}\0{USER}\0{PASSWORD}".encode()) == claim
    login = Login()
    assert challenge(login.next(USER.encode())) == b"Password:"
    assert login.next(PASSWORD.encode()) == claim


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"a\0b",
        b"a\0b\0c\0d",
        b"\0\0password",
        b"\0user\0",
        b"other\0user\0password",
        b"\0user\0\xff",
        b"\0" + b"x" * 256 + b"\0password",
        b"\0user\0" + b"x" * 1025,
    ],
)
def test_plain_that_is_none(octets: bytes) -> None:
    with pytest.raises(Refused):
        Plain().next(octets)


def scram(name: str = USER, password: str = PASSWORD) -> tuple[Scram, ScramClient]:
    return Scram(users(), "ours"), ScramClient(name, Secret(password), nonce=NONCE)


def test_scram_proves_both_sides() -> None:
    server, client = scram()
    final = client.next(challenge(server.next(client.first())))
    assert client.next(challenge(server.next(final))) == b""
    assert client.proved
    assert server.next(b"") == Proved(USER)


@pytest.mark.parametrize(("name", "password"), [(USER, "wrong"), ("nobody", PASSWORD)])
def test_scram_with_a_wrong_name_or_password_goes_the_same_way(name: str, password: str) -> None:
    server, client = scram(name, password)
    final = client.next(challenge(server.next(client.first())))
    with pytest.raises(Refused, match=r"^authentication failure$") as refused:
        server.next(final)
    assert refused.value.user == name


def test_the_keys_made_up_for_nobody_let_nobody_in() -> None:
    """Who has the seed could make the stored key up, and still is no user."""
    server, _ = scram()
    server.next(f"n,,n=nobody,r={NONCE}".encode())
    with pytest.raises(Refused):
        server.next(b"c=biws,r=clientnonceours,p=" + b"A" * 43 + b"=")


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n",
        b"n,",
        b"n,,",
        b"p=tls-unique,,n=joe,r=x",
        b"n,,m=x,n=joe,r=x",
        b"n,,r=x,n=joe",
        b"n,,n=joe",
        b"n,,n=,r=x",
        b"n,,n=j=oe,r=x",
        b"n,,n=joe,r=" + b"x" * 201,
        b"n,,n=joe,r=\x01",
        b"n,a=other,n=joe,r=x",
        b"\xff",
        b"n,,n=joe,r=x," + b"y" * 3000,
    ],
)
def test_scram_first_messages_that_are_none(first: bytes) -> None:
    with pytest.raises(Refused):
        scram()[0].next(first)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda final: final.replace(b"c=biws", b"c=eSws"),
        lambda final: final.replace(b"ours", b"urso"),
        lambda final: final.replace(b",p=", b",q="),
        lambda final: final[:-4],
        lambda final: final + b",x=y",
        lambda final: b"",
    ],
)
def test_scram_final_messages_that_are_none(spoil: Callable[[bytes], bytes]) -> None:
    server, client = scram()
    final = client.next(challenge(server.next(client.first())))
    with pytest.raises(Refused):
        server.next(spoil(final))


def test_nothing_comes_after_the_end() -> None:
    server, client = scram()
    server.next(client.next(challenge(server.next(client.first()))))
    with pytest.raises(Refused):
        server.next(b"more")


def test_names_are_escaped() -> None:
    server, client = scram("a,b=c")
    server.next(client.first())
    with pytest.raises(Refused) as refused:
        server.next(b"x")
    assert refused.value.user == "a,b=c"


def test_each_mechanism_has_its_exchange() -> None:
    kinds = [type(begin(name, users(), nonce="x")) for name in ("PLAIN", "LOGIN", "SCRAM-SHA-256")]
    assert kinds == [Plain, Login, Scram]
