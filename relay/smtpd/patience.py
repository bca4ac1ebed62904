"""How much a client may get wrong: Postfix's error and junk command limits, and its command counts. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from relay.mail.reply import Reply
from relay.smtpd import replies
from relay.smtpd.options import SmtpdOptions

# Commands that do nothing for a message (smtpd.c: SMTPD_CMD_FLAG_LIMIT).
_JUNK = frozenset({"HELO", "EHLO", "NOOP", "RSET", "VRFY"})
# Recipients beyond the limit that are refused without being held against the client (RFC 5321 section 4.5.3.1.10).
_OVERSHOOT = 1000


class Patience:
    """One session's counts of commands, errors and junk."""

    __slots__ = ("_commands", "_errors", "_hard", "_junk", "_junk_limit", "_overshoot", "_soft")

    def __init__(self, options: SmtpdOptions) -> None:
        self._soft = options.soft_error_limit
        self._hard = options.hard_error_limit
        self._junk_limit = options.junk_command_limit
        self._errors = 0
        self._junk = 0
        self._overshoot = 0
        self._commands: dict[str, tuple[int, int]] = {}

    def count(self, command: str, reply: Reply) -> None:
        """Take note of a command, by its upper-case name or ``UNKNOWN``, and how it was answered."""
        refused = reply.code >= 400
        accepted, total = self._commands.get(command, (0, 0))
        self._commands[command] = (accepted + (not refused), total + 1)
        if command in _JUNK:
            self._junk += 1
            refused = refused or self._junk > self._junk_limit
        if reply is replies.TOO_MANY_RECIPIENTS:
            self._overshoot += 1
            refused = self._overshoot > _OVERSHOOT
        self._errors += refused

    def renew(self) -> None:
        """A message was handed over: what went wrong before is forgotten."""
        self._errors = 0
        self._junk = 0
        self._overshoot = 0

    @property
    def thin(self) -> bool:
        """Whether refusals are to be held back for a while."""
        return self._errors > self._soft

    @property
    def ample(self) -> bool:
        """Whether one more error would neither be held back nor end the session."""
        return self._errors < self._soft and self._errors + 1 < self._hard

    @property
    def exhausted(self) -> bool:
        """Whether the session is to be ended."""
        return self._errors >= self._hard

    @property
    def commands(self) -> Mapping[str, tuple[int, int]]:
        """(accepted, total) by lower-case command, in the order of first use."""
        return {command.lower(): counts for command, counts in self._commands.items()}
