"""Addresses, report wishes, clients and queue IDs."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.envelope import (
    NO_TLS,
    NULL_SENDER,
    Address,
    Client,
    ClientTls,
    Notify,
    new_queue_id,
    sender_text,
)
from relay.mail.names import Domain

DIGITS = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"


def address(text: str) -> Address:
    return Address(text, Domain.parse(text.rpartition("@")[2]))


@pytest.mark.parametrize(
    ("text", "local_part"),
    [("User@example.com", "User"), ('"a@b"@example.com', '"a@b"'), ("jürgen@example.com", "jürgen")],
)
def test_local_part_is_kept_as_written(text: str, local_part: str) -> None:
    assert address(text).local_part == local_part
    assert str(address(text)) == text


def test_is_ascii_looks_at_the_text_as_written() -> None:
    assert address("user@example.com").is_ascii
    assert not address("jürgen@example.com").is_ascii
    assert not address("user@bücher.example").is_ascii


def test_senders() -> None:
    assert sender_text(address("a@example.com")) == "a@example.com"
    assert sender_text(NULL_SENDER) == ""
    assert str(NULL_SENDER) == ""


@pytest.mark.parametrize(
    ("notify", "wanted"),
    [
        (Notify.UNSPECIFIED, True),
        (Notify.FAILURE, True),
        (Notify.FAILURE | Notify.DELAY, True),
        (Notify.NEVER, False),
        (Notify.SUCCESS, False),
        (Notify.DELAY | Notify.SUCCESS, False),
    ],
)
def test_report_on_failure(notify: Notify, wanted: bool) -> None:
    assert notify.on_failure is wanted


def test_client() -> None:
    client = Client(address=ip_address("192.0.2.1"))
    assert str(client) == "unknown[192.0.2.1]"
    assert str(Client(address=ip_address("2001:db8::1"), name="c.example")) == "c.example[2001:db8::1]"
    assert not NO_TLS.used
    assert ClientTls(protocol="TLSv1.3").used


def test_queue_id_in_postfixs_long_form() -> None:
    # 10 characters of time, z, then the serial; worked out by hand from safe_ultostr.c's alphabet.
    assert new_queue_id(0, 0) == "0000000000z0"
    assert new_queue_id(1_000_001, 50) == "0000010001zy"
    assert new_queue_id(52_000_052, 51) == "0000100010z10"


def number(text: str, base: int) -> int:
    value = 0
    for digit in text:
        value = value * base + DIGITS.index(digit)
    return value


@given(st.integers(0, 52**6 * 1_000_000 - 1), st.integers(0, 2**63))
def test_queue_id_tells_its_time_and_serial(microseconds: int, serial: int) -> None:
    text = new_queue_id(microseconds, serial)
    # The serial is in base 51 so that the last z always is the separator (global/mail_queue.h).
    time, separator, rest = text.rpartition("z")
    assert (separator, len(time)) == ("z", 10)
    assert number(time[:6], 52) * 1_000_000 + number(time[6:], 52) == microseconds
    assert number(rest, 51) == serial


@given(st.lists(st.integers(0, 52**6 * 1_000_000 - 1), min_size=2, max_size=2))
def test_queue_ids_sort_by_time(times: list[int]) -> None:
    first, second = sorted(times)
    assert new_queue_id(first, 1)[:10] <= new_queue_id(second, 1)[:10]
