"""Postfix's notation for protocols and ciphers."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.policy.parameters import InvalidTlsParameter, TlsVersion, cipher_list, enabled_versions

TLS1, TLS1_1, TLS1_2, TLS1_3 = TlsVersion


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (TLS1, TLS1_1, TLS1_2, TLS1_3)),
        (">=TLSv1.2", (TLS1_2, TLS1_3)),
        (">=tlsv1.2", (TLS1_2, TLS1_3)),
        (">=TLSv1, <=TLSv1.2", (TLS1, TLS1_1, TLS1_2)),
        ("<=TLSv1.3:>=TLSv1.3", (TLS1_3,)),
        (">=0x0303", (TLS1_2, TLS1_3)),
        (">=303 <=0303", (TLS1_2,)),
        (">=SSLv3", (TLS1, TLS1_1, TLS1_2, TLS1_3)),
        ("!SSLv2, !SSLv3", (TLS1, TLS1_1, TLS1_2, TLS1_3)),
        ("!SSLv2:!SSLv3:!TLSv1:!TLSv1.1", (TLS1_2, TLS1_3)),
        ("TLSv1.2 TLSv1.3", (TLS1_2, TLS1_3)),
        ("TLSv1 TLSv1.3", (TLS1, TLS1_3)),
        ("TLSv1.2 TLSv1.3 !TLSv1.3", (TLS1_2,)),
        ("!TLSv1.1", (TLS1, TLS1_2, TLS1_3)),
    ],
)
def test_protocol_lists(text: str, expected: tuple[TlsVersion, ...]) -> None:
    assert enabled_versions(text) == expected


@pytest.mark.parametrize(
    "text",
    ["TLSv1.4", "TLS1.2", "!", ">=", "> =TLSv1.2", "=TLSv1.2", "!>=TLSv1.2", ">=0x", ">=xyz", "!0x0301", "TLSv1.2;x"],
)
def test_unknown_items_are_refused_in_postfixs_words(text: str) -> None:
    with pytest.raises(InvalidTlsParameter) as caught:
        enabled_versions(text)
    assert str(caught.value) == f'Invalid TLS protocol list "{text}"'


@pytest.mark.parametrize("text", ["SSLv3", ">=TLSv1.3 <=TLSv1.2", "!TLSv1 !TLSv1.1 !TLSv1.2 !TLSv1.3", ">=0x0305"])
def test_a_list_that_leaves_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidTlsParameter, match="leaves none"):
        enabled_versions(text)


@given(st.text(alphabet="<>=!TLSv1.230x, :", max_size=30))
def test_any_text_gives_versions_or_the_error(text: str) -> None:
    try:
        versions = enabled_versions(text)
    except InvalidTlsParameter:
        return
    assert versions
    assert list(versions) == sorted(versions)


def ciphers_of(text: str) -> list[str]:
    """What OpenSSL makes of a list, without the suites of TLS 1.3, which it does not touch."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers(f"{text}:@SECLEVEL=0")
    return [cipher["description"] for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"]


@pytest.mark.parametrize("grade", ["high", "medium", "low", "export", "MEDIUM"])
def test_grades_make_working_lists_without_broken_ciphers(grade: str) -> None:
    ciphers = ciphers_of(cipher_list(grade, mandatory=True, must_match=True))
    assert len(ciphers) > 10
    assert not any(bad in cipher for cipher in ciphers for bad in ("Au=None", "Enc=None", "RC4", "3DES", "Mac=MD5"))


def test_anonymous_ciphers_only_where_nobody_must_match() -> None:
    free = ciphers_of(cipher_list("medium", mandatory=False, must_match=False))
    assert any("Au=None" in cipher for cipher in free)
    assert not any("Au=None" in cipher for cipher in ciphers_of(cipher_list("medium", mandatory=True, must_match=True)))


def test_null_ciphers_only_where_the_clear_is_allowed_too() -> None:
    free = ciphers_of(cipher_list("null", mandatory=False, must_match=False))
    assert free
    assert all("Enc=None" in cipher for cipher in free)
    with pytest.raises(ssl.SSLError):
        ciphers_of(cipher_list("null", mandatory=True, must_match=False))


def test_exclusions() -> None:
    ciphers = ciphers_of(cipher_list("high", "aRSA, AES256:CAMELLIA", mandatory=True, must_match=True))
    assert ciphers
    assert not any(bad in cipher for cipher in ciphers for bad in ("Au=RSA", "AES(256)", "AESGCM(256)", "Camellia"))


def test_errors_in_postfixs_words() -> None:
    with pytest.raises(InvalidTlsParameter) as caught:
        cipher_list("strong", mandatory=True, must_match=True)
    assert str(caught.value) == 'invalid cipher grade: "strong"'
    for item in ("!aRSA", "+aRSA", "-aRSA", "@SECLEVEL=0"):
        with pytest.raises(InvalidTlsParameter, match="invalid unary"):
            cipher_list("high", f"aDSS {item}", mandatory=True, must_match=True)
    with pytest.raises(InvalidTlsParameter, match="invalid cipher exclusion"):
        cipher_list("high", "a;b", mandatory=True, must_match=True)
