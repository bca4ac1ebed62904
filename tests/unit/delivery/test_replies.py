"""Replies from octets in any pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.delivery.replies import MAX_LINE_OCTETS, MAX_LINES, MalformedReply, ReplyReader
from relay.mail.reply import Reply

DIALOGUE = b"220 mx ESMTP\r\n250-mx\r\n250-SIZE 10\r\n250 PIPELINING\r\n354\r\n250 2.0.0 Ok: queued \xc3\xa4\xff\n"
REPLIES = [
    Reply(220, ("mx ESMTP",)),
    Reply(250, ("mx", "SIZE 10", "PIPELINING")),
    Reply(354, ("",)),
    Reply(250, ("2.0.0 Ok: queued ä\\xff",)),
]


@given(st.lists(st.integers(1, len(DIALOGUE)), max_size=12))
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    reader, got, at = ReplyReader(), list[Reply](), 0
    for cut in [*sorted(cuts), len(DIALOGUE)]:
        got += reader.feed(DIALOGUE[at:cut])
        at = cut
    assert got == REPLIES
    assert reader.is_empty


def test_half_a_reply_is_not_nothing() -> None:
    for half in (b"25", b"250-mx\r\n"):
        reader = ReplyReader()
        assert reader.feed(half) == []
        assert not reader.is_empty


@pytest.mark.parametrize(
    "octets",
    [
        b"hello\r\n",
        b"199 no\r\n",
        b"600 no\r\n",
        b"250+ok\r\n",
        b"\xff\xff\xff ok\r\n",
        b"\r\n",
        b"2" * (MAX_LINE_OCTETS + 1),
        b"250 " + b"x" * MAX_LINE_OCTETS + b"\r\n",
        b"250-x\r\n" * (MAX_LINES + 1),
    ],
)
def test_what_is_no_reply_ends_the_session(octets: bytes) -> None:
    with pytest.raises(MalformedReply):
        ReplyReader().feed(octets)


@given(st.binary(max_size=300))
def test_any_octets_give_replies_or_the_one_error(octets: bytes) -> None:
    try:
        ReplyReader().feed(octets)
    except MalformedReply:
        pass
