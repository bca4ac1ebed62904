from __future__ import annotations

import sys
from itertools import pairwise
from types import FrameType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from relay.delivery.lines import LineBreaker


def broken(limit: int, *chunks: bytes) -> bytes:
    breaker = LineBreaker(limit)
    return b"".join([breaker.feed(chunk) for chunk in chunks])


def reference(limit: int, content: bytes) -> bytes:
    """As Postfix does it, line by line."""
    out = []
    for line in content.split(b"\r\n"):
        pieces, rest = [line[:limit]], line[limit:]
        while rest:
            pieces.append(b" " + rest[: limit - 1])
            rest = rest[limit - 1 :]
        out.append(b"\r\n".join(pieces))
    return b"\r\n".join(out)


def test_lines_at_the_limit_stay_and_longer_ones_are_broken() -> None:
    content = b"x" * 998 + b"\r\n" + b"y" * 999 + b"\r\n" + b"." * 2000
    assert broken(998, content) == (
        b"x" * 998 + b"\r\n" + b"y" * 998 + b"\r\n y\r\n" + b"." * 998 + b"\r\n " + b"." * 997 + b"\r\n " + b"." * 5
    )


def test_it_is_told_whether_a_line_was_broken() -> None:
    breaker = LineBreaker(5)
    chunk = b"12345\r\n12345\r\n"
    assert breaker.feed(chunk) is chunk
    assert not breaker.broke
    breaker.feed(b"123456")
    assert breaker.broke


lines = st.lists(st.integers(0, 25).map(lambda length: b"a" * length), max_size=12).map(b"\r\n".join)


@given(lines, st.integers(2, 12), st.lists(st.integers(0, 300), max_size=6))
def test_pieces_change_nothing_and_no_line_is_too_long(content: bytes, limit: int, cuts: list[int]) -> None:
    expected = reference(limit, content)
    borders = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    pieces = [content[a:b] for a, b in pairwise(borders)]
    assert broken(limit, content) == expected
    assert broken(limit, *pieces) == expected
    assert broken(limit, *(content[i : i + 1] for i in range(len(content)))) == expected
    assert all(len(line) <= limit for line in expected.split(b"\r\n"))


def test_ten_megabytes_of_short_lines_take_no_loop_over_lines() -> None:
    chunk = (b"x" * 76 + b"\r\n") * 840
    steps = 0

    def step(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal steps
        steps += 1
        return step

    breaker = LineBreaker(998)
    before = sys.gettrace()
    sys.settrace(step)
    try:
        for _ in range(150):
            breaker.feed(chunk)
    finally:
        sys.settrace(before)
    assert steps < 150 * 700
