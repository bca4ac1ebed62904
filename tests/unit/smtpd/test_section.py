from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.smtpd.section import HeaderSection, SectionRules

MESSAGE_ID = (b"message-id", b"Message-Id: <1@relay.example>\r\n")
DATE = (b"date", b"Date: Fri, 21 Aug 2026 10:00:00 +0000\r\n")
ADDING = SectionRules(add=(MESSAGE_ID, DATE))
ADDED = MESSAGE_ID[1] + DATE[1]
DROPPING = SectionRules(drop=frozenset({b"bcc", b"resent-bcc"}))


def edit(rules: SectionRules, *chunks: bytes) -> bytes:
    section = HeaderSection(rules)
    return b"".join([section.feed(chunk) for chunk in chunks]) + section.end()


@pytest.mark.parametrize(
    ("message", "edited"),
    [
        (b"Subject: x\r\n\r\nbody\r\n", b"Subject: x\r\n" + ADDED + b"\r\nbody\r\n"),
        (b"Subject: x\r\n", b"Subject: x\r\n" + ADDED),
        (b"", ADDED),
        (b"\r\n", ADDED + b"\r\n"),
        (b"no field\r\n\r\nx\r\n", ADDED + b"\r\nno field\r\n\r\nx\r\n"),
        (b"Subject: x\r\nno field\r\nDate: y\r\n", b"Subject: x\r\n" + ADDED + b"\r\nno field\r\nDate: y\r\n"),
        (b"date: x\r\n y\r\n\r\n", b"date: x\r\n y\r\n" + MESSAGE_ID[1] + b"\r\n"),
        (b"Date : x\r\nMESSAGE-ID:\r\n\r\n", b"Date : x\r\nMESSAGE-ID:\r\n\r\n"),
        (b"Subject: x\r\n Date: x\r\n\r\nDate: x\r\n", b"Subject: x\r\n Date: x\r\n" + ADDED + b"\r\nDate: x\r\n"),
        (b"From me\r\nDate: x\r\n\r\n", b"From me\r\nDate: x\r\n" + MESSAGE_ID[1] + b"\r\n"),
        (b" folded\r\n\r\n", ADDED + b"\r\n folded\r\n\r\n"),
    ],
)
def test_what_is_missing_is_added_at_the_end_of_the_section(message: bytes, edited: bytes) -> None:
    assert edit(ADDING, message) == edited


@pytest.mark.parametrize(
    ("message", "edited"),
    [
        (b"To: a\r\nBcc: b,\r\n c\r\nSubject: x\r\n\r\nBcc: body\r\n", b"To: a\r\nSubject: x\r\n\r\nBcc: body\r\n"),
        (b"BCC:b\r\nresent-bcc: c\r\n\r\n", b"\r\n"),
        (b"Bcc: b\r\n", b""),
        (b"X-Bcc: b\r\n\r\n", b"X-Bcc: b\r\n\r\n"),
        (b"Bcc: " + b"x" * 3000 + b"\r\n y\r\nTo: a\r\n\r\n", b"To: a\r\n\r\n"),
    ],
)
def test_fields_are_dropped_with_the_lines_that_continue_them(message: bytes, edited: bytes) -> None:
    assert edit(DROPPING, message) == edited


@pytest.mark.parametrize(
    ("field", "stays"),
    [
        (b"X: 345678\r\n", b"X: 345678\r\n"),
        (b"X: 345678a\r\n", b"X: 345678a\r\n"),
        (b"X: 345678abcd\r\n", b"X: 345678ab\r\n"),
        (b"X: 4\r\n 56\r\n 6\r\n", b"X: 4\r\n 56\r\n"),
        (b"X: 4\r\n 567\r\n 6\r\n", b"X: 4\r\n 567\r\n"),
        (b"X: 4\r\n 56789\r\n 6\r\n", b"X: 4\r\n 5678\r\n"),
    ],
)
def test_a_field_beyond_its_limit_is_cut(field: bytes, stays: bytes) -> None:
    rules = SectionRules(size_limit=11)
    section = HeaderSection(rules)
    message = field + b"Y: 1\r\n\r\n" + b"z" * 50 + b"\r\n"
    assert section.feed(message) == stays + b"Y: 1\r\n\r\n" + b"z" * 50 + b"\r\n"
    assert section.cut == (stays != field)


line = st.sampled_from(
    [
        b"",
        b"Date: x",
        b"Bcc: " + b"y" * 20,
        b" folded",
        b"\tx",
        b"From me",
        b"no field",
        b"X" * 90 + b": x",
        b"X" + b" " * 1100 + b": x",
        b"Y: " + b"z" * 2000,
        b" " + b"z" * 1500,
    ]
)


@given(st.lists(line, max_size=8), st.lists(st.integers(0, 9000), max_size=5), st.integers(0, 2500))
def test_how_the_input_is_cut_changes_nothing(lines: list[bytes], cuts: list[int], limit: int) -> None:
    message = b"".join(one + b"\r\n" for one in lines)
    rules = SectionRules(add=(MESSAGE_ID, DATE), drop=frozenset({b"bcc"}), size_limit=limit)
    borders = [0, *sorted(min(cut, len(message)) for cut in cuts), len(message)]
    whole = edit(rules, message)
    assert edit(rules, *(message[a:b] for a, b in pairwise(borders))) == whole
    assert edit(rules, *(message[i : i + 1] for i in range(min(len(message), 3000))), message[3000:]) == whole
    assert whole.endswith(b"\r\n")


@given(st.lists(line, max_size=8))
def test_without_rules_nothing_is_changed(lines: list[bytes]) -> None:
    message = b"".join(one + b"\r\n" for one in lines)
    assert edit(SectionRules(), message) == message
    assert edit(SectionRules(size_limit=100_000, drop=frozenset({b"x-none"})), message) == message
