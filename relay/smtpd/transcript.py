"""What was said in a session in which something went wrong, for the postmaster (Postfix's smtpd_chat_notify). Pure.

Which class a reply belongs to is Postfix's choice (``error_mask`` in smtpd.c and smtpd_check.c). Nothing that may be a password
is in a transcript, and of a long session only the beginning and the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from relay.mail.envelope import Client
from relay.mail.reply import Reply
from relay.outcome.incident import Incident
from relay.outcome.wording import one_line
from relay.queue.notices import NoticeClass
from relay.queue.postmaster import Postmaster
from relay.sasl.server import MECHANISMS
from relay.smtpd import replies
from relay.smtpd.commands import Command

_FIRST_LINES = 10
_LAST_LINES = 60
_LINE_OCTETS = 200
# Codes for what is no SMTP, or out of its order (RFC 5321 section 4.2.2); 521 and 551 answer a BDAT that is none.
_PROTOCOL_CODES = frozenset({500, 501, 502, 503, 504, 521, 551, 555})
_RESOURCE = frozenset({replies.NO_SPACE, replies.NOT_WRITTEN})


def class_of(reply: Reply) -> NoticeClass | None:
    """The class of notices that a reply belongs to; None where nothing is wrong, or only a password was."""
    if reply is replies.FORBIDDEN_COMMAND:
        return NoticeClass.POLICY
    if reply.code < 400 or reply in {replies.AUTH_FAILED, replies.AUTH_BUSY}:
        return None
    status = reply.status
    if reply in _RESOURCE:
        return NoticeClass.RESOURCE
    if (status.klass, status.subject, status.detail) == (4, 3, 0):
        return NoticeClass.SOFTWARE
    if reply.code == 421 and status.subject in {3, 4}:
        return None  # we are busy or stop, or the client was silent
    if reply.code in _PROTOCOL_CODES or reply is replies.NOT_SYNCHRONIZED or status.subject == 6:
        return NoticeClass.PROTOCOL
    return NoticeClass.POLICY


@dataclass(frozen=True, slots=True)
class Transcripts:
    """Which sessions the postmaster is to hear of.

    :param wanted: those in which there was something of these classes; empty for none.
    :param take: gets what is to be told.
    """

    wanted: frozenset[NoticeClass] = frozenset()
    take: Callable[[Incident], None] = lambda incident: None

    @classmethod
    def of(cls, postmaster: Postmaster | None) -> Self:
        """Those that this one wants to hear of."""
        return cls() if postmaster is None else cls(postmaster.wanted, postmaster.take)


NO_TRANSCRIPTS: Final = Transcripts()


class Transcript:
    """What is said in one session, as it is said; costs nothing where nobody wants to hear of it."""

    __slots__ = ("_classes", "_first", "_last", "_left_out", "_wanted")

    def __init__(self, wanted: frozenset[NoticeClass]) -> None:
        self._wanted = wanted
        self._classes: set[NoticeClass] = set()
        self._first: list[str] = []
        self._last: deque[str] = deque()
        self._left_out = 0

    def said(self, reply: Reply, sent: Reply) -> None:
        """One of our replies, and what was sent for it (``soft_bounce``)."""
        if not self._wanted:
            return
        found = class_of(reply)
        if found in self._wanted:
            self._classes.add(found)
        for number, text in enumerate(sent.lines, 1):
            self._add(f" Out: {sent.code}{' ' if number == len(sent.lines) else '-'}{text}")

    def heard(self, command: Command) -> None:
        """A command that we know; of AUTH no more than its mechanism."""
        if not self._wanted:
            return
        argument = command.argument
        if command.verb == "AUTH":
            mechanism = argument.partition(" ")[0].upper()
            argument = f"{mechanism} ..." if mechanism in MECHANISMS else "..."
        self._add(f" In:  {command.verb} {argument}".rstrip())

    def heard_else(self, quoted: str) -> None:
        """Something else, made fit for the log."""
        if self._wanted:
            self._add(f" In:  {quoted}")

    def incident(self, client: Client) -> Incident | None:
        """What to tell, if anything of the wanted classes was in it."""
        if not self._classes:
            return None
        gap = (f"      ({self._left_out} lines left out)",) if self._left_out else ()
        return Incident(
            classes=tuple(sorted(one.value for one in self._classes)),
            about=f"SMTP server: errors from {client}",
            lines=("Transcript of session follows.", "", *self._first, *gap, *self._last),
        )

    def _add(self, line: str) -> None:
        line = one_line(line, _LINE_OCTETS)
        if len(self._first) < _FIRST_LINES:
            self._first.append(line)
            return
        self._last.append(line)
        if len(self._last) > _LAST_LINES:
            self._last.popleft()
            self._left_out += 1
