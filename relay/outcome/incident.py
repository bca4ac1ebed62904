"""Something that the postmaster wants to hear of, and the message that tells it (Postfix's smtpd_chat.c). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from relay.mail.envelope import Address, QueueId
from relay.outcome.wording import one_line

_MAX_LINE = 500
_MAX_SUBJECT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One thing that went wrong.

    :param classes: the words of ``notify_classes`` that it belongs to.
    :param about: what it is, on one line.
    :param lines: the story.
    """

    classes: tuple[str, ...]
    about: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulletin:
    """Several incidents in one message.

    :param untold: how many more there were, by class.
    """

    incidents: Sequence[Incident]
    untold: Mapping[str, int]
    hostname: str
    reader: Address
    report: QueueId
    made_at: datetime


def compose_bulletin(bulletin: Bulletin) -> bytes:
    """Write the message; what strangers wrote is in lines of our making, in ASCII."""
    made_at, host = bulletin.made_at.astimezone(UTC), bulletin.hostname
    lines = [
        f"Date: {format_datetime(made_at)}",
        f"From: Mail Delivery System <MAILER-DAEMON@{host}>",
        f"Subject: {_fit(_subject(bulletin), _MAX_SUBJECT)}",
        f"To: {_fit(bulletin.reader.text, _MAX_LINE)}",
        f"Message-ID: <{made_at:%Y%m%d%H%M%S}.{bulletin.report}@{host}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"This is the mail system at host {host}.",
    ]
    for incident in bulletin.incidents:
        lines += ["", f"{incident.about} ({', '.join(incident.classes)})", "", *incident.lines]
    for word, number in sorted(bulletin.untold.items()):
        lines += ["", f"{number} more of class {word} in the same time are not shown."]
    lines += ["", "For other details, see the log of the relay."]
    return b"".join(_fit(line, _MAX_LINE).encode("ascii") + b"\r\n" for line in lines)


def _subject(bulletin: Bulletin) -> str:
    if len(bulletin.incidents) == 1 and not bulletin.untold:
        return f"dane-relay {bulletin.incidents[0].about}"
    return f"dane-relay: {len(bulletin.incidents) + sum(bulletin.untold.values())} errors"


def _fit(text: str, limit: int) -> str:
    return one_line(text.encode("ascii", "backslashreplace").decode("ascii"), limit)
