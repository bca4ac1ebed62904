from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.desk.host import is_loopback, names_loopback


@pytest.mark.parametrize(
    "header",
    [
        "localhost",
        "localhost:8025",
        "LOCALHOST",
        "127.0.0.1",
        "127.0.0.1:8025",
        "127.1.2.3:1",
        "[::1]",
        "[::1]:8025",
        "localhost.",
    ],
)
def test_loopback_by_name_or_address(header: str) -> None:
    assert names_loopback(header)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "rebound.example",
        "rebound.example:8025",
        "localhost.rebound.example",
        "127.0.0.1.rebound.example",
        "127.0.0.1:8025@rebound.example",
        "rebound.example#127.0.0.1",
        "192.0.2.1",
        "[2001:db8::1]",
        "[::1",
        "::1",
        "localhost:",
        "localhost:99999999",
        "localhost, rebound.example",
        "0.0.0.0",
        "[::]",
        "[::ffff:192.0.2.1]",
        "localhost\r\nX: y",
    ],
)
def test_everything_else_is_somebody_else(header: str) -> None:
    assert not names_loopback(header)


@given(st.text(max_size=40))
def test_any_text_is_judged(text: str) -> None:
    assert names_loopback(text) in {True, False}


def test_all_of_127_is_loopback_and_the_wildcard_is_not() -> None:
    assert is_loopback("127.255.0.1")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("::")
    assert not is_loopback("")
