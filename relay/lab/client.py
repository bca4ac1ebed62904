"""The lab's sender: an ordinary SMTP client that hands one message for each destination to a relay."""

from __future__ import annotations

import smtplib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from relay.lab.destination import Destination, MessageKind
from relay.lab.scenarios import RETURN_ADDRESS

CLIENT_NAME = "client.lab.test"
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of handing the messages over.

    :param sent: content by destination name.
    :param refused: the relay's reply, by the names of destinations for which it took no message.
    """

    sent: Mapping[str, bytes]
    refused: Mapping[str, str]


def compose_message(one: Destination, now: datetime) -> bytes:
    """The lab's message to a destination: CRLF line ends, lines that begin with dots, 8-bit octets where it is to have some."""
    words = "Grüße" if one.message is MessageKind.EIGHT_BIT else "Greetings"
    more = {
        MessageKind.LONG_LINES: ["x" * 998, "." + "y" * 997, "z" * 998],
        MessageKind.LARGE: [f"{number:07d} " + "." * 90 for number in range(10_102)],
    }.get(one.message, [])
    lines = (
        f"From: The lab <{RETURN_ADDRESS}>",
        f"To: {one.domain}:;",
        f"Subject: {one.shows}",
        f"Date: {format_datetime(now)}",
        f"Message-ID: <{now:%Y%m%d%H%M%S}.{one.name}@{CLIENT_NAME}>",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Transfer-Encoding: {'8bit' if one.message is MessageKind.EIGHT_BIT else '7bit'}",
        "",
        f"{words} to {one.domain}: {one.shows} ({one.rule}).",
        ".",
        "..two dots before this",
        ".one dot before this",
        *more,
        "",
    )
    return "\r\n".join(lines).encode()


def submit(relay: tuple[str, int], destinations: Iterable[Destination], now: datetime) -> Submission:
    """Hand over one message a destination, in one session; blocks.

    :param relay: address and port of the relay's SMTP service.
    :raises OSError: if there is no session to be had, or it is lost (``smtplib.SMTPException`` is an OSError).
    """
    sent: dict[str, bytes] = {}
    refused: dict[str, str] = {}
    with smtplib.SMTP(*relay, local_hostname=CLIENT_NAME, timeout=TIMEOUT_SECONDS) as session:
        session.ehlo_or_helo_if_needed()
        for one in destinations:
            content = compose_message(one, now)
            if reply := _submit_one(session, one, content):
                refused[one.name] = reply
                session.rset()
            else:
                sent[one.name] = content
    return Submission(sent, refused)


def _submit_one(session: smtplib.SMTP, one: Destination, content: bytes) -> str:
    """Empty, or the reply that refused the message."""
    options = {
        MessageKind.PLAIN: (),
        MessageKind.EIGHT_BIT: ("BODY=8BITMIME",),
        MessageKind.UTF8_ADDRESS: ("SMTPUTF8",),
        MessageKind.LONG_LINES: (),
        MessageKind.LARGE: (),
    }[one.message]
    code, text = session.mail(RETURN_ADDRESS, options)
    if code == 250:
        code, text = session.rcpt(one.recipient)
    if code == 250:
        try:
            code, text = session.data(content)
        except smtplib.SMTPDataError as error:
            code, text = error.smtp_code, _octets(error.smtp_error)
    return "" if code == 250 else f"{code} {text.decode('utf-8', 'backslashreplace')}"


def _octets(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text
