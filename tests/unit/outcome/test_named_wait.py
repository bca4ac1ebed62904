"""Which replies name a wait; samples are the words of well-known greylisting software and of large hosters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.reply import Reply
from relay.outcome.named_wait import named_wait
from relay.outcome.result import Deferred, FromPeer, Local


def said(text: str, code: int = 450) -> Deferred:
    reply = Reply(code, (text,))
    return Deferred(status=reply.status, reason=text, diagnostic=FromPeer(reply=reply, mta="mx.example"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("4.7.1 Greylisted, please try again in 300 seconds", 300),
        ("4.2.0 <u@d.example>: Recipient address rejected: Greylisted, see http://grey.example/help.html", 0),
        ("4.7.1 Greylisting in action, please come back in 00:04:59", 299),
        ("4.7.1 Greylisted for 5 minutes", 300),
        ("4.7.0 Graylisted. Retry after 10 min.", 600),
        ("4.7.1 try again in 1 hour", 3600),
        ("4.7.1 Please retry in 90s", 90),
        ("4.3.2 Too busy, wait 2h", 7200),
        ("4.7.0 Delayed for 120 secs", 120),
        ("4.7.0 Please try again later", 0),
        ("4.7.0 more than 100 messages in 60 seconds", 0),
        ("4.7.0 try again later, limit is 60 messages per 1 hour", 0),
        ("4.2.2 try again in 5 metres", 0),
        ("4.2.2 Mailbox of user again99 full", 0),
    ],
)
def test_samples(text: str, seconds: float) -> None:
    assert named_wait(said(text)) == seconds


def test_our_own_words_name_nothing() -> None:
    text = "try again in 300 seconds"
    assert named_wait(Deferred(status=said(text).status, reason=text, diagnostic=Local(text))) == 0


def test_a_second_line_counts_and_far_away_text_does_not() -> None:
    reply = Reply(451, ("4.7.1 Greylisted,", "4.7.1 try again in 60 seconds"))
    assert named_wait(Deferred(status=reply.status, reason="", diagnostic=FromPeer(reply=reply, mta="mx"))) == 60
    assert named_wait(said("x" * 5_000 + " try again in 60 seconds")) == 0


@given(st.text())
def test_any_text_is_survived(text: str) -> None:
    assert 0 <= named_wait(said(f"4.7.1 try again in {text}")) < 10**10
