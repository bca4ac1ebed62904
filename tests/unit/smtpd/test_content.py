from __future__ import annotations

import sys
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.smtpd.content import ContentDecoder, has_bare

# Made of what matters, so that ends, stuffed dots and stray line ends come up all the time.
hostile = st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"x", b"\r\n.\r\n"]), max_size=24).map(
    b"".join
)


def decode(*blocks: bytes) -> tuple[bytes, bool, bytes]:
    """Content, finished, what was left over."""
    decoder = ContentDecoder()
    content = b""
    for number, block in enumerate(blocks):
        content += decoder.feed(block)
        if decoder.finished:
            return content, True, decoder.leftover + b"".join(blocks[number + 1 :])
    return content, False, b""


def reference(stream: bytes) -> tuple[bytes, bool, bytes]:
    """The three laws octet by octet, slowly."""
    whole = b"\r\n" + stream
    end = whole.find(b"\r\n.\r\n")
    assert end >= 0
    raw = whole[: end + 2]

    def stuffed(i: int) -> bool:
        before, dot, after = raw[max(i - 2, 0) : i], raw[i : i + 1], raw[i + 1 : i + 2]
        if dot != b".":
            return False
        return after not in (b"\r", b"\n") if before == b"\r\n" else before.endswith(b"\n") and after == b"."

    unstuffed = b"".join(raw[i : i + 1] for i in range(len(raw)) if not stuffed(i))
    lines, i = bytearray(), 0
    while i < len(unstuffed):
        if unstuffed[i : i + 2] == b"\r\n":
            lines += b"\r\n"
            i += 2
            continue
        lines += b"\r\n" if unstuffed[i : i + 1] in (b"\r", b"\n") else unstuffed[i : i + 1]
        i += 1
    return bytes(lines[2:]), True, whole[end + 5 :]


@pytest.mark.parametrize(
    ("stream", "content"),
    [
        (b".\r\n", b""),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"\r\n.\r\n", b"\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b".a\r\n..b\r\n...\r\n.\r\n", b"a\r\n.b\r\n..\r\n"),
        (b"a.\r\n.\r\n", b"a.\r\n"),
        (b"\xff\x00\x80\r\n.\r\n", b"\xff\x00\x80\r\n"),
    ],
)
def test_dots_are_undone_and_the_end_is_found(stream: bytes, content: bytes) -> None:
    assert decode(stream) == (content, True, b"")


@pytest.mark.parametrize(
    ("smuggled", "line_before"),
    [
        (b"\n.\n", b""),
        (b"\r.\r", b""),
        (b"\r\n.\n", b""),
        (b"\n.\r\n", b""),
        (b"\r.\r\n", b""),
        (b"\r\n.\r", b""),
        (b"\n.\r", b""),
        (b"\r.\n", b""),
    ],
)
def test_no_other_end_ends_the_content(smuggled: bytes, line_before: bytes) -> None:
    inner = b"MAIL FROM:<evil@example.org>"
    content, finished, leftover = decode(b"a" + smuggled + inner + b"\r\n.\r\nQUIT\r\n")
    assert finished
    assert content == b"a\r\n.\r\n" + inner + b"\r\n"
    assert leftover == b"QUIT\r\n"


def test_stray_line_ends_become_crlf() -> None:
    assert decode(b"a\nb\rc\r\r\nd\n\re\r\n.\r\n")[0] == b"a\r\nb\r\nc\r\n\r\nd\r\n\r\ne\r\n"


def test_after_a_bare_line_end_one_dot_is_content_and_two_are_stuffing() -> None:
    assert decode(b"a\n.b\r..c\n..d\n...\n.\n..\r\n.\r\n")[0] == b"a\r\n.b\r\n..c\r\n.d\r\n..\r\n.\r\n.\r\n"


def test_what_follows_the_end_is_left_over() -> None:
    assert decode(b"a\r\n.\r\nMAIL FROM:<>\r\n.\r\n") == (b"a\r\n", True, b"MAIL FROM:<>\r\n.\r\n")


def test_an_unfinished_content_is_not_finished() -> None:
    for stream in (b"", b".", b".\r", b"a\r\n.", b"a\r\n.\r", b"a\n.\n", b"a\r\n"):
        assert not decode(stream)[1], stream


def test_nothing_is_taken_after_the_end() -> None:
    decoder = ContentDecoder()
    decoder.feed(b".\r\n")
    with pytest.raises(ValueError, match="after its end"):
        decoder.feed(b"more")


@given(hostile)
@example(b"\r\n.\r")
@example(b".\r\r\n..")
@example(b"\r\r\n.\n\r\n.\r\n")
@example(b"\n..\r.\n..")
def test_blocks_follow_the_laws(stream: bytes) -> None:
    stream += b"\r\n.\r\n"
    assert decode(stream) == reference(stream)


@given(hostile)
@example(b"")
@example(b"\r")
@example(b"x\r\n\r")
@example(b"\x85\xe2\x80\xa8\x0b\x0c\x1c")  # line ends elsewhere: in Unicode, and on paper
def test_a_bare_line_end_is_what_is_left_without_crlf(octets: bytes) -> None:
    without = octets.replace(b"\r\n", b"x")
    assert has_bare(octets) == (b"\r" in without or b"\n" in without)


@given(hostile, st.lists(st.integers(0, 80), max_size=6))
def test_how_the_input_is_split_changes_nothing(stream: bytes, cuts: list[int]) -> None:
    stream += b"\r\n.\r\ntail"
    borders = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    blocks = [stream[a:b] for a, b in pairwise(borders)]
    assert decode(*blocks) == decode(stream)
    assert decode(*(stream[i : i + 1] for i in range(len(stream)))) == decode(stream)


@given(st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\r", b"").replace(b"\n", b"")), max_size=10))
def test_what_a_correct_client_stuffs_comes_out(lines: list[bytes]) -> None:
    content = b"".join(line + b"\r\n" for line in lines)
    stuffed = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
    assert decode(stuffed + b".\r\n") == (content, True, b"")


@pytest.mark.parametrize("line", [b"x" * 76 + b"\r\n", b"..\r\n", b"x\n", b"\r", b"\r\n.\n"])
def test_ten_megabytes_take_no_loop_over_octets(line: bytes) -> None:
    stream = line * (10_000_000 // len(line)) + b"\r\n.\r\n"
    blocks = [stream[i : i + 65536] for i in range(0, len(stream), 65536)]
    steps = 0

    def step(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal steps
        steps += 1
        return step

    decoder = ContentDecoder()
    before = sys.gettrace()
    sys.settrace(step)
    try:
        for block in blocks:
            decoder.feed(block)
    finally:
        sys.settrace(before)
    assert decoder.finished
    assert steps < 100 * len(blocks)  # lines of Python run, for ten million octets
