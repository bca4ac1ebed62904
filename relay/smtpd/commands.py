"""One command line taken apart, or the reply to what is none. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from relay.mail.reply import Reply
from relay.smtpd import replies

_MAX_QUOTED = 100
_AFTER_AUTH = re.compile(rb"\bAUTH\b.*", re.DOTALL | re.IGNORECASE)
# A word with another one behind it, or the name of a header field: not a word alone, which may be a password in base64.
_FIRST_WORD = re.compile(rb"\s*([!-9;-~]{1,40})[ :]\s*\S")
# smtpd_forbidden_commands, and a header field where a command should be (is_header.c): no mail client says any of it.
_FORBIDDEN = re.compile(r"CONNECT|GET|POST|[^A-Z].*|[!-9;-~]+:.*", re.DOTALL)
# Commands that end a group of pipelined ones (RFC 2920 section 3.1; smtpd.c, SMTPD_CMD_FLAG_LAST).
_LAST_OF_GROUP = frozenset({"HELO", "EHLO", "DATA", "NOOP", "VRFY", "AUTH"})


@dataclass(frozen=True, slots=True)
class Command:
    """A command that we know: its verb in upper case, and the rest without surrounding blanks."""

    verb: str
    argument: str

    def ends_a_group(self, protocol: str) -> bool:
        """Whether a client must hear the answer before it goes on; without EHLO, that is so of every command."""
        return self.verb in _LAST_OF_GROUP or protocol != "ESMTP"


def read_command(line: bytes, knows: Callable[[str], bool]) -> Command | Reply:
    """Read a command line.

    :param line: without its end.
    :param knows: whether a verb in upper case is one of ours.
    """
    try:
        text = line.decode().strip()
    except UnicodeDecodeError:
        return replies.BAD_UTF8
    verb, _, argument = text.partition(" ")
    verb = verb.upper()
    if not verb:
        return replies.BAD_SYNTAX
    if not knows(verb):
        return replies.FORBIDDEN_COMMAND if _FORBIDDEN.fullmatch(verb) else replies.NOT_RECOGNIZED
    return replies.BAD_SYNTAX if "\0" in argument else Command(verb, argument.strip())


def quoted(octets: bytes) -> str:
    """What a client said, for the log: ASCII, on one line, bounded; nothing that follows an AUTH."""
    return ascii(_AFTER_AUTH.sub(b"AUTH ...", octets)[:_MAX_QUOTED].decode("latin-1"))[1:-1]


def first_word(octets: bytes) -> str:
    """What is safe to log of octets that are no command, where passwords are expected: a client may garble its AUTH, or go on
    with a password although AUTH was no command."""
    found = _FIRST_WORD.match(octets)
    return f"{quoted(found[1])} ..." if found else "..."
