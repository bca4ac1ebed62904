from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.reply import Reply
from relay.smtpd import replies
from relay.smtpd.commands import Command, first_word, quoted, read_command

KNOWN = frozenset({"MAIL", "NOOP", "EHLO", "DATA", "QUIT", "RCPT"})


def read(line: bytes) -> Command | Reply:
    return read_command(line, KNOWN.__contains__)


def test_a_command_is_a_verb_and_an_argument() -> None:
    assert read(b"mail  FROM:<a@x.example> SIZE=1 ") == Command("MAIL", "FROM:<a@x.example> SIZE=1")
    assert read(b" NOOP") == Command("NOOP", "")


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"", replies.BAD_SYNTAX),
        (b"  ", replies.BAD_SYNTAX),
        (b"\xff", replies.BAD_UTF8),
        (b"HELP", replies.NOT_RECOGNIZED),
        (b"X-1 y", replies.NOT_RECOGNIZED),
        (b"NOOP a\0b", replies.BAD_SYNTAX),
        (b"GET / HTTP/1.1", replies.FORBIDDEN_COMMAND),
        (b"post /", replies.FORBIDDEN_COMMAND),
        (b"Subject: hello", replies.FORBIDDEN_COMMAND),
        (b"\x16\x03\x01", replies.FORBIDDEN_COMMAND),
        (b"<html>", replies.FORBIDDEN_COMMAND),
        (b"\0\0", replies.FORBIDDEN_COMMAND),
    ],
)
def test_what_is_no_command_has_its_reply(line: bytes, reply: Reply) -> None:
    assert read(line) is reply


def test_which_commands_end_a_group() -> None:
    assert [Command(verb, "").ends_a_group("ESMTP") for verb in ("EHLO", "DATA", "NOOP", "MAIL", "RCPT", "BDAT")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert Command("MAIL", "").ends_a_group("SMTP")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"*UTH PLAIN AHMAc2VjcmV0", "*UTH ..."),
        (b"Subject: to be seen", "Subject ..."),
        (b"\x00\xff word", "..."),
        (b"AHMAc2VjcmV0", "..."),
        (b"AHMAc2VjcmV0 ", "..."),
        (b"", "..."),
    ],
)
def test_only_a_word_that_others_follow_is_shown_where_passwords_are_expected(line: bytes, shown: str) -> None:
    assert first_word(line) == shown


@given(st.binary(max_size=300))
def test_any_line_is_a_command_or_has_a_reply_and_is_quoted_on_one_line(line: bytes) -> None:
    found = read(line)
    assert isinstance(found, Command) or found.code >= 221
    assert quoted(line).isprintable()
    assert quoted(line).isascii()
