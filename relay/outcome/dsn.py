"""Reports to senders about their messages (RFC 3461, 3464, 6522, 6533), in the form of Postfix's bounce_notify_util.c. Pure.

* Whatever a stranger wrote is made one bounded line before it enters a field: no report has a line of a stranger's choosing.
* The original goes in byte for byte; the boundary does not occur in it.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from enum import Enum
from typing import assert_never

from relay.mail.envelope import Address, Message, QueueId, Recipient, sender_text
from relay.mail.reply import EnhancedStatus
from relay.outcome.result import Diagnostic, FromPeer, Local
from relay.outcome.wording import one_line

# Postfix's bounce_size_limit and header_size_limit.
MAX_RETURNED_OCTETS = 50_000
MAX_HEADER_OCTETS = 102_400
MAX_FIELD = 900
# RFC 2046 section 5.1.1.
_MAX_BOUNDARY = 70
_MAX_REFERENCES = 20
# RFC 5322 section 2.1.1, without the line end.
_MAX_LINE = 998
_WIDTH = 79
_INDENT = "    "

_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,250}>")
_XTEXT = re.compile(r"\+([0-9A-F]{2})")


class Kind(Enum):
    """What a report is about; its Action field (RFC 3464 section 2.3.3)."""

    NON_DELIVERY = "failed"
    DELAY = "delayed"
    SUCCESS = "relayed"


class Audience(Enum):
    """For whom a report is, as Postfix's log names them."""

    SENDER = "sender"
    POSTMASTER = "postmaster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What the report says of one recipient.

    :param reason: for people, without the address.
    """

    recipient: Recipient
    status: EnhancedStatus
    reason: str
    diagnostic: Diagnostic


@dataclass(frozen=True, slots=True)
class Whole:
    """The original's content."""

    content: bytes


@dataclass(frozen=True, slots=True)
class HeadersOnly:
    """The original's header section, with the CRLF of its last line."""

    headers: bytes


Original = Whole | HeadersOnly


@dataclass(frozen=True, slots=True, kw_only=True)
class Dsn:
    """A report ready to be queued; ``smtputf8`` says that its envelope needs that."""

    content: bytes
    smtputf8: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """What a report is made of.

    :param reader: who is told: the message's sender, or the postmaster.
    :param report: the queue ID that the report will have.
    :param hostname: ours.
    :param message: the original.
    :param retry_until: when the message is given up at the latest, aware; said of delays.
    :param made_at: aware.
    """

    kind: Kind
    audience: Audience
    reader: Address
    report: QueueId
    hostname: str
    message: Message
    recipients: Sequence[Reported]
    original: Original
    retry_until: datetime
    made_at: datetime


def header_section(content: bytes) -> bytes:
    """The header section with its last CRLF; bounded, cut at a line's end."""
    if content.startswith(b"\r\n"):
        return b""
    end = content.find(b"\r\n\r\n", 0, MAX_HEADER_OCTETS)
    if end >= 0:
        return content[: end + 2]
    cut = content.rfind(b"\r\n", 0, MAX_HEADER_OCTETS)
    return content[: cut + 2] if cut >= 0 else b""


def compose(occasion: Occasion) -> Dsn:
    """Write the report."""
    envelope = occasion.message.envelope
    returned = _returned(occasion.original)
    headers = header_section(returned)
    utf8 = envelope.smtputf8 and not (
        headers.isascii()
        and occasion.reader.is_ascii
        and sender_text(envelope.sender).isascii()
        and all(one.recipient.address.is_ascii and one.reason.isascii() for one in occasion.recipients)
    )
    boundary = _boundary(occasion, returned)
    eight_bit = utf8 or not returned.isascii()
    parts = (
        _notification(occasion, utf8=utf8),
        _delivery_status(occasion, utf8=utf8),
        _returned_header(occasion, utf8=utf8, eight_bit=not returned.isascii()),
    )
    lines = [
        *_header(occasion, headers, boundary=boundary, eight_bit=eight_bit),
        "",
        "This is a MIME-encapsulated message.",
        "",
        *(line for part in parts for line in (f"--{boundary}", *part)),
    ]
    # The line end before a boundary belongs to it (RFC 2046 section 5.1.1), so the original stays as it was.
    content = b"\r\n".join([*(_octets(line, utf8=utf8) for line in lines), returned, f"--{boundary}--".encode(), b""])
    return Dsn(content=content, smtputf8=utf8)


def _header(occasion: Occasion, original: bytes, *, boundary: str, eight_bit: bool) -> list[str]:
    made_at = occasion.made_at.astimezone(UTC)
    lines = [
        f"Date: {format_datetime(made_at)}",
        f"From: Mail Delivery System <MAILER-DAEMON@{occasion.hostname}>",
        f"Subject: {_subject(occasion.kind, occasion.audience)}",
        f"To: {_clean(occasion.reader.text)}",
        f"Message-ID: <{made_at:%Y%m%d%H%M%S}.{occasion.report}@{occasion.hostname}>",
    ]
    message_ids = _message_ids(original, b"message-id")[:1]
    if message_ids:
        references = [*_message_ids(original, b"references"), *message_ids]
        lines.append(f"In-Reply-To: {message_ids[0]}")
        first, *rest = _shortened(references)
        lines += [f"References: {first}", *(f"\t{one}" for one in rest)]
    lines += [
        f"Auto-Submitted: {'auto-replied' if occasion.audience is Audience.SENDER else 'auto-generated'}",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
    ]
    return [*lines, *_encoding(eight_bit=eight_bit)]


def _notification(occasion: Occasion, *, utf8: bool) -> list[str]:
    lines = [
        "Content-Description: Notification",
        f"Content-Type: text/plain; charset={'utf-8' if utf8 else 'us-ascii'}",
        *_encoding(eight_bit=utf8),
        "",
        f"This is the mail system at host {occasion.hostname}.",
        "",
        *_explanation(occasion.kind, occasion.audience),
    ]
    for one in occasion.recipients:
        lines += ["", *_wrapped(f"<{_clean(one.recipient.address.text)}>: {_clean(one.reason)}")]
    return [*lines, ""]


def _delivery_status(occasion: Occasion, *, utf8: bool) -> list[str]:
    message, envelope = occasion.message, occasion.message.envelope
    lines = [
        "Content-Description: Delivery report",
        f"Content-Type: message/{'global-' if utf8 else ''}delivery-status",
        *_encoding(eight_bit=utf8),
        "",
        f"Reporting-MTA: dns; {occasion.hostname}",
    ]
    if envelope.envid:
        lines.append(f"Original-Envelope-Id: {_clean(_from_xtext(envelope.envid))}")
    lines.append(f"X-Relay-Queue-ID: {message.queue_id}")
    if isinstance(envelope.sender, Address):
        lines.append(f"X-Relay-Sender: {_typed(envelope.sender)}")
    lines.append(f"Arrival-Date: {format_datetime(message.arrived_at.astimezone(UTC))}")
    for one in occasion.recipients:
        lines += ["", *_recipient_fields(one, occasion)]
    return [*lines, ""]


def _recipient_fields(one: Reported, occasion: Occasion) -> list[str]:
    lines = [f"Final-Recipient: {_typed(one.recipient.address)}"]
    if one.recipient.orcpt:
        lines.append(f"Original-Recipient: {_original_recipient(one.recipient.orcpt)}")
    lines += [f"Action: {occasion.kind.value}", f"Status: {one.status}"]
    match one.diagnostic:
        case FromPeer(reply=reply, mta=mta):
            lines.append(f"Remote-MTA: dns; {_clean(mta)}")
            lines += _wrapped(f"Diagnostic-Code: smtp; {_clean(reply.one_line)}")
        case Local(text=text):
            lines += _wrapped(f"Diagnostic-Code: X-Relay; {_clean(text)}")
        case _:
            assert_never(one.diagnostic)
    if occasion.kind is Kind.DELAY:
        lines.append(f"Will-Retry-Until: {format_datetime(occasion.retry_until.astimezone(UTC))}")
    return lines


def _returned_header(occasion: Occasion, *, utf8: bool, eight_bit: bool) -> list[str]:
    """The third part up to where the original begins, with the Return-Path that final delivery would have added."""
    what = "Undelivered Message" if occasion.kind is Kind.NON_DELIVERY else "Message"
    match occasion.original:
        case Whole():
            description, kind = what, "message/global" if utf8 else "message/rfc822"
        case HeadersOnly():
            description, kind = f"{what} Headers", "message/global-headers" if utf8 else "text/rfc822-headers"
        case _:
            assert_never(occasion.original)
    return [
        f"Content-Description: {description}",
        f"Content-Type: {kind}",
        *_encoding(eight_bit=eight_bit),
        "",
        f"Return-Path: <{_clean(sender_text(occasion.message.envelope.sender))}>",
    ]


def _subject(kind: Kind, audience: Audience) -> str:
    to_sender = audience is Audience.SENDER
    match kind:
        case Kind.NON_DELIVERY:
            return "Undelivered Mail Returned to Sender" if to_sender else "Postmaster Copy: Undelivered Mail"
        case Kind.DELAY:
            return "Delayed Mail (still being retried)" if to_sender else "Postmaster Warning: Delayed Mail"
        case Kind.SUCCESS:
            return "Successful Mail Delivery Report"
        case _:
            assert_never(kind)


def _explanation(kind: Kind, audience: Audience) -> tuple[str, ...]:
    if audience is Audience.POSTMASTER:
        return ("A copy for the postmaster: what became of a message, and why. Its header is attached.",)
    match kind:
        case Kind.NON_DELIVERY:
            return (
                "Your message did not reach the recipients below, and will not be tried again.",
                "Each is followed by the reason. Details for your mail administrator and your",
                "message, or its header, are attached.",
            )
        case Kind.DELAY:
            return (
                "This is a warning only: you need not send your message again.",
                "It has not reached the recipients below yet, and is being tried further.",
                "Each is followed by what happened last. The header of your message is attached.",
            )
        case Kind.SUCCESS:
            return (
                "As you asked to be told: your message was passed on for the recipients below.",
                "The next host does not send such reports, so this may be the last you hear of it.",
            )
        case _:
            assert_never(kind)


def _returned(original: Original) -> bytes:
    match original:
        case Whole(content):
            return content
        case HeadersOnly(headers):
            return headers
        case _:
            assert_never(original)


def _boundary(occasion: Occasion, returned: bytes) -> str:
    """``QID.EPOCH/hostname``, cut to what a boundary may be, and made different while the original has it."""
    stem = f"{occasion.message.queue_id}.{int(occasion.made_at.timestamp())}"
    boundary = f"{stem}/{occasion.hostname}"[:_MAX_BOUNDARY].rstrip("./")
    number = 0
    while boundary.encode() in returned:
        number += 1
        boundary = f"{stem}.{number}/{occasion.hostname}"[:_MAX_BOUNDARY].rstrip("./")
    return boundary


def _message_ids(headers: bytes, field: bytes) -> list[str]:
    """The message identifiers of the first field of that name."""
    match = re.search(rb"(?im)^" + field + rb"[ \t]*:((?:[^\r\n]|\r\n[ \t])*)", headers)
    return _MESSAGE_ID.findall(match[1].decode("ascii", "replace")) if match else []


def _shortened(references: list[str]) -> list[str]:
    """RFC 5322 section 3.6.4 wants them all; the first and the last are what threading needs."""
    return references if len(references) <= _MAX_REFERENCES else [references[0], *references[1 - _MAX_REFERENCES :]]


def _typed(address: Address) -> str:
    """An address with its type (RFC 6533 section 3)."""
    return f"{'rfc822' if address.is_ascii else 'utf-8'}; {_clean(address.text)}"


def _original_recipient(orcpt: str) -> str:
    """ORCPT's value as a field has it: decoded (RFC 3461 section 4.2), except ``utf-8``, whose own encoding stays."""
    kind, _, address = orcpt.partition(";")
    return f"{_clean(kind)};{_clean(address if kind.lower() == 'utf-8' else _from_xtext(address))}"


def _from_xtext(value: str) -> str:
    return _XTEXT.sub(lambda match: chr(int(match[1], 16)), value)


def _encoding(*, eight_bit: bool) -> tuple[str, ...]:
    return ("Content-Transfer-Encoding: 8bit",) if eight_bit else ()


def _wrapped(line: str) -> list[str]:
    """Folded at blanks where there are any, continued with an indent, never longer than a line may be."""
    return textwrap.wrap(line, _WIDTH, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False)


def _clean(text: str) -> str:
    return one_line(text, MAX_FIELD)


def _octets(line: str, *, utf8: bool) -> bytes:
    octets = line.encode("utf-8" if utf8 else "ascii", "replace")
    return octets if len(octets) <= _MAX_LINE else octets[:_MAX_LINE].decode("utf-8", "ignore").encode()
