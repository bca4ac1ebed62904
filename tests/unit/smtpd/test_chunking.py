from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.smtpd.chunking import Chunk, ChunkDecoder, parse_bdat

hostile = st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"x", b"\r\n.\r\n"]), max_size=24).map(b"".join)


@pytest.mark.parametrize(
    ("argument", "chunk"),
    [
        ("0 LAST", Chunk(0, last=True)),
        ("10", Chunk(10, last=False)),
        ("10 last", Chunk(10, last=True)),
        ("000 \t LAST", Chunk(0, last=True)),
        ("999999999999999999", Chunk(999999999999999999, last=False)),
    ],
)
def test_a_chunk_is_read(argument: str, chunk: Chunk) -> None:
    assert parse_bdat(argument) == chunk


@pytest.mark.parametrize(
    "argument", ["", "LAST", "-1", "+1", "1.0", "1LAST", "1 LAST x", "1 FIRST", "9" * 19, "\u0661", "1 LAST\n", "0x10"]
)
def test_what_is_no_chunk_is_none(argument: str) -> None:
    assert parse_bdat(argument) is None


def test_only_a_chunk_that_moves_nothing_and_ends_nothing_is_null() -> None:
    assert Chunk(0, last=False).is_null
    assert not Chunk(0, last=True).is_null
    assert not Chunk(1, last=False).is_null


def decode(*blocks: bytes) -> tuple[bytes, bool]:
    decoder = ChunkDecoder()
    content = b"".join([decoder.feed(block) for block in blocks])
    return content + decoder.end(), decoder.bare


def reference(stream: bytes) -> bytes:
    lines, i = bytearray(), 0
    while i < len(stream):
        if stream[i : i + 2] == b"\r\n":
            lines += b"\r\n"
            i += 2
            continue
        lines += b"\r\n" if stream[i : i + 1] in (b"\r", b"\n") else stream[i : i + 1]
        i += 1
    return bytes(lines if not lines or lines.endswith(b"\r\n") else lines + b"\r\n")


@given(hostile, st.lists(st.integers(0, 80), max_size=6))
@example(b"a\r", [2])
@example(b"\r\r\n", [1, 2])
def test_line_ends_become_crlf_however_it_is_cut(stream: bytes, cuts: list[int]) -> None:
    borders = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    content, bare = decode(*(stream[a:b] for a, b in pairwise(borders)))
    assert content == reference(stream)
    assert bare == (b"\r" in stream.replace(b"\r\n", b"") or b"\n" in stream.replace(b"\r\n", b""))


def test_dots_are_content() -> None:
    assert decode(b".\r\n..\r\n.\r\nx") == (b".\r\n..\r\n.\r\nx\r\n", False)
