"""Protocol lists, cipher grades, fingerprints and match lists."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.names import Domain
from relay.policy.notation import (
    parse_exclusions,
    parse_fingerprint,
    parse_grade,
    parse_match,
    parse_protocols,
    split_list,
)
from relay.policy.parameters import InvalidTlsParameter, cipher_list, enabled_versions
from relay.policy.policy import LiteralName, MatchName


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        (">=TLSv1.2", ">=TLSv1.2"),
        ("!SSLv2, !SSLv3", "!SSLv2 !SSLv3"),
        ("!SSLv2:!SSLv3:!tlsv1", "!SSLv2 !SSLv3 !tlsv1"),
        (">= TLSv1.2 , <= 0304", ">=TLSv1.2 <=0304"),
        ("TLSv1.2 TLSv1.3", "TLSv1.2 TLSv1.3"),
        (">=303", ">=303"),
        ("", ""),
    ],
)
def test_protocols(text: str, normal: str) -> None:
    assert parse_protocols(text) == normal


@pytest.mark.parametrize(
    "text", [">=TLSv9", ">TLSv1", "TLSv1.4", "!", "TLS1.2", ">==TLSv1", "!0304", "0304", ">=0x12345"]
)
def test_no_protocols(text: str) -> None:
    with pytest.raises(ValueError, match="Invalid TLS protocol list"):
        parse_protocols(text)


@pytest.mark.parametrize("text", [">=TLSv1.3 <=TLSv1.2", "!TLSv1 !TLSv1.1 !TLSv1.2 !TLSv1.3", "SSLv3", "TLSv1 !TLSv1"])
def test_no_version_left(text: str) -> None:
    with pytest.raises(ValueError, match="it leaves none of TLSv1"):
        parse_protocols(text)


_ITEMS = st.lists(
    st.builds(
        str.__add__,
        st.sampled_from(["", "!", ">=", "<=", ">= ", ">"]),
        st.sampled_from(
            ["SSLv2", "SSLv3", "TLSv1", "tlsv1.1", "TLSv1.2", "TLSv1.3", "TLSv1.4", "0303", "0x304", "300", ""]
        ),
    ),
    max_size=4,
)


@given(_ITEMS, st.sampled_from([" ", ", ", ":"]))
def test_the_handshake_reads_every_list_that_is_accepted_and_no_other(items: list[str], separator: str) -> None:
    text = separator.join(items)
    try:
        normal = parse_protocols(text)
    except ValueError:
        with pytest.raises(InvalidTlsParameter):
            enabled_versions(re.sub(r"(>=|<=|!)\s+", r"\1", text))
    else:
        assert enabled_versions(normal)


@pytest.mark.parametrize("text", ["", "MD5", "aNULL:MD5, DES-CBC3-SHA kECDH+RSA"])
def test_exclusions(text: str) -> None:
    assert parse_exclusions(text) == text
    cipher_list("medium", text, mandatory=True, must_match=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [("MD5:!DES", "invalid unary '!+-@' in cipher exclusion: \"!DES\""), ("a;b", 'invalid cipher exclusion: "a;b"')],
)
def test_no_exclusions(text: str, message: str) -> None:
    for read in (parse_exclusions, lambda terms: cipher_list("medium", terms, mandatory=True, must_match=True)):
        with pytest.raises(ValueError, match=re.escape(message)):
            read(text)


def test_grades() -> None:
    assert parse_grade(" High ") == "high"
    with pytest.raises(ValueError, match='invalid cipher grade: "best"'):
        parse_grade("best")


@pytest.mark.parametrize("octets", [16, 20, 32, 48, 64])
def test_fingerprints(octets: int) -> None:
    digits = bytes(range(octets)).hex()
    assert parse_fingerprint(":".join(digits[i : i + 2] for i in range(0, len(digits), 2)).upper()) == digits


@pytest.mark.parametrize("text", ["", "zz" * 32, "ab" * 31, "abc", "ab" * 33, "\u0661" * 64])
def test_no_fingerprints(text: str) -> None:
    with pytest.raises(ValueError, match="malformed fingerprint value"):
        parse_fingerprint(text)


def test_match_lists() -> None:
    listed = parse_match(split_list("nexthop, dot-nexthop:hostname  .example.com nexthop a..b ."))
    assert listed.rules == (
        MatchName.NEXTHOP,
        MatchName.DOT_NEXTHOP,
        MatchName.HOSTNAME,
        LiteralName(Domain("example.com"), below=True),
    )
    assert listed.ignored == ('ignoring invalid match name: "a..b"', 'ignoring invalid match name: "."')
