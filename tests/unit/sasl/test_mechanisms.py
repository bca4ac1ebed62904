"""PLAIN, LOGIN, OAUTHBEARER, XOAUTH2: their octets, and servers that ask for more. And which of them is taken."""

from __future__ import annotations

import pytest

from relay.sasl.bearer import error_status
from relay.sasl.choose import filtered, fitting, offered
from relay.sasl.credentials import Password, TokenCommand, TokenFile
from relay.sasl.exchange import exchange
from relay.sasl.mechanism import Exchange, MechanismFailed
from relay.sasl.secret import Secret


def begun(mechanism: str, user: str = "joe@example.com", secret: str = "tanstaaftanstaaf") -> Exchange:
    return exchange(mechanism, user, Secret(secret), host="server.example.com", port=143, nonce="x")


def test_plain_is_the_message_of_rfc_4616() -> None:
    assert begun("PLAIN", "tim").first() == b"\0tim\0tanstaaftanstaaf"
    with pytest.raises(MechanismFailed, match="challenge"):
        begun("PLAIN").next(b"")


def test_login_answers_in_order_whatever_the_words() -> None:
    login = begun("LOGIN", "tim")
    assert not login.speaks_first
    assert (login.next(b"Username:"), login.next(b"What else?")) == (b"tim", b"tanstaaftanstaaf")
    with pytest.raises(MechanismFailed):
        login.next(b"")
    with pytest.raises(MechanismFailed):
        login.first()


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_octets_that_are_no_utf8_go_out_as_they_stood_in_the_map(mechanism: str) -> None:
    latin1 = b"p\xe4ss".decode(errors="surrogateescape")
    told = begun(mechanism, "tim", latin1)
    said = told.first() if told.speaks_first else told.next(b"") + told.next(b"")
    assert said.endswith(b"p\xe4ss")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_a_nul_would_end_the_password_early(mechanism: str) -> None:
    told = begun(mechanism, "tim", "pass\0word")
    with pytest.raises(MechanismFailed) as caught:
        _ = told.first() if told.speaks_first else (told.next(b""), told.next(b""))
    assert "pass" not in str(caught.value).replace("password", "")


def test_oauthbearer_is_the_message_of_rfc_7628() -> None:
    told = begun("OAUTHBEARER", "user@example.com", "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==")
    assert told.first() == (
        b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01"
        b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01"
    )
    assert told.next(b'{"status":"invalid_token","scope":"mail"}') == b"\x01"
    with pytest.raises(MechanismFailed):
        told.next(b"")


def test_a_name_with_commas_cannot_forge_a_gs2_header() -> None:
    assert begun("OAUTHBEARER", "a,b=c", "t").first().startswith(b"n,a=a=2Cb=3Dc,\x01host=")


def test_xoauth2_is_googles_message() -> None:
    told = begun("XOAUTH2", "someuser@example.com", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg")
    assert (
        told.first()
        == b"user=someuser@example.com\x01auth=Bearer ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg\x01\x01"
    )
    assert told.next(b'{"status":"401"}') == b""


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
@pytest.mark.parametrize(
    ("user", "token"), [("joe", "a b"), ("joe", "a\x01b"), ("joe", ""), ("jo\x01e", "abc"), ("joe", "a\n")]
)
def test_nothing_can_be_smuggled_into_a_bearer_message(mechanism: str, user: str, token: str) -> None:
    with pytest.raises(MechanismFailed):
        begun(mechanism, user, token).first()


@pytest.mark.parametrize(
    ("challenge", "status"),
    [
        (b'{"status":"invalid_token"}', "invalid_token"),
        (b'{"status":401}', "401"),
        (b'{"status":"a\\r\\nb"}', "unknown error"),
        (b'{"status":["x"]}', "unknown error"),
        (b"[]", "unknown error"),
        (b"\xff", "unknown error"),
        (b"[" * 4000, "unknown error"),
        (b"", "unknown error"),
    ],
)
def test_the_servers_fault_is_a_word_or_nothing(challenge: bytes, status: str) -> None:
    assert error_status(challenge) == status


def test_what_a_host_offers_is_read_in_any_case() -> None:
    assert offered("plain  LOGIN PLAIN") == ("PLAIN", "LOGIN")
    assert offered("") == ()
    assert len(offered(" ".join(f"X{n}" for n in range(500)))) == 64


def test_the_best_mechanism_that_fits_the_proof_comes_first() -> None:
    everything = ("LOGIN", "PLAIN", "XOAUTH2", "CRAM-MD5", "SCRAM-SHA-256", "OAUTHBEARER")
    assert fitting(Password(Secret("x")), everything) == ("SCRAM-SHA-256", "PLAIN", "LOGIN")
    assert fitting(TokenFile("/t"), everything) == ("OAUTHBEARER", "XOAUTH2")
    assert fitting(TokenCommand(("/t",)), ("PLAIN",)) == ()


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ((), "PLAIN LOGIN SCRAM-SHA-256"),
        (("plain",), "PLAIN"),
        (("Login", "PLAIN"), "PLAIN LOGIN"),
        (("!plain", "static:all"), "LOGIN SCRAM-SHA-256"),
        (("!login", "!plain", "static:rest"), "SCRAM-SHA-256"),
        (("!!login",), "LOGIN"),
        (("external",), ""),
    ],
)
def test_a_filter_reads_as_postfix_does(words: tuple[str, ...], left: str) -> None:
    assert filtered(("PLAIN", "LOGIN", "SCRAM-SHA-256"), words) == tuple(left.split())
