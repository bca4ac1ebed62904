"""The Received field that we add, and a look at the header section as it streams by. Pure.

The field is Postfix's (smtpd/smtpd.c): its words, its order, its folding. Nothing that a client says gets into it
unfiltered: a HELO argument could otherwise bring a comment, another clause or a field of its own.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import assert_never

from relay.mail.envelope import Client, ClientCertificate, Envelope, LocalUser, NoCertificate, QueueId
from relay.mail.names import IpAddress, IpLiteral

PRODUCT = "dane-relay"
MAX_WORD_LENGTH = 255
MAX_MESSAGE_ID_OCTETS = 998
# More header than this is not looked at: every line costs time, and a sender of endless ones must not decide how much.
MAX_SCANNED_OCTETS = 1_048_576
# The start of a line is all that is kept of it, long enough for a field name and any Message-ID.
_MAX_LINE_OCTETS = 4096

# What Postfix neuters in a HELO argument: white space and what has a meaning in a structured field (RFC 5322 3.2.3).
_SPECIAL = re.compile(r"[^!#$%&'*+\-./0-9:=?A-Z\[\]^_`a-z{|}~]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_FIELD_NAME = re.compile(rb"([!-9;-~]{1,78})[ \t]*:")
_CRLF = b"\r\n"
_END = b"\r\n\r\n"


def received_field(envelope: Envelope, *, hostname: str, queue_id: QueueId, arrived_at: datetime) -> bytes:
    """The trace field of one message (RFC 5321 section 4.4), with its CRLFs, ready to stand before the content.

    :param hostname: ours, of the ``by`` clause.
    :param arrived_at: aware; written in UTC.

    A ``for`` clause stands only where there is one recipient: it would tell each of several about the others.
    """
    client = envelope.client
    lines = [_from(client.helo, client.name, client.address)]
    if isinstance(client.local, LocalUser):
        lines.append(f"\t(local user {_word(client.local.name) or 'unknown'}, uid {client.local.uid})")
    if client.tls.used:
        tls = client.tls
        lines.append(f"\t(using {tls.protocol} with cipher {tls.cipher} ({tls.bits}/{tls.algorithm_bits} bits))")
        lines.append(f"\t({_certificate(tls.certificate)})")
    by = f"\tby {hostname} ({PRODUCT}) with {protocol_word(client, smtputf8=envelope.smtputf8)} id {queue_id}"
    date = _date(arrived_at.replace(microsecond=0))
    if len(envelope.recipients) == 1:
        recipient = _CONTROL.sub("?", envelope.recipients[0].address.text)
        lines += [by, f"\tfor <{recipient}>; {date}"]
    else:
        lines += [by + ";", f"\t{date}"]
    return "".join(f"{line}\r\n" for line in lines).encode("utf-8", "replace")


def missing_fields(queue_id: QueueId, *, hostname: str, arrived_at: datetime) -> tuple[tuple[bytes, bytes], ...]:
    """What a message must have (RFC 5322 section 3.6): fields by lower-case name, whole, as Postfix's cleanup adds them.

    :param hostname: ours; with the time and the queue ID it makes the Message-Id one of its kind.
    :param arrived_at: aware; written in UTC.
    """
    at = arrived_at.astimezone(UTC)
    message_id = f"Message-Id: <{at:%Y%m%d%H%M%S}.{queue_id}@{hostname}>\r\n"
    date = f"Date: {_date(at.replace(microsecond=0))}\r\n"
    return (b"message-id", message_id.encode("ascii", "replace")), (b"date", date.encode("ascii"))


@lru_cache(maxsize=256)
def _from(helo: str, name: str, address: IpAddress) -> str:
    """The first line; a client that comes again says the same."""
    return f"Received: from {_word(helo) or _word(name)} ({_word(name)} [{str(IpLiteral(address))[1:-1]}])"


@lru_cache(maxsize=16)
def _date(at: datetime) -> str:
    """A date-time of RFC 5322 in UTC; messages of the same second share it."""
    return f"{format_datetime(at.astimezone(UTC))} (UTC)"


def protocol_word(client: Client, *, smtputf8: bool) -> str:
    """How the message came, in the words of RFC 3848 and RFC 6531: ``SMTP``, ``ESMTPS``, ``UTF8SMTPSA``…"""
    word = "UTF8SMTP" if smtputf8 else client.protocol
    return word + ("S" if client.tls.used else "") + ("A" if client.user else "")


def _certificate(certificate: ClientCertificate | NoCertificate) -> str:
    match certificate:
        case ClientCertificate():
            return f'Client CN "{_name(certificate.subject)}", Issuer "{_name(certificate.issuer)}" (not verified)'
        case NoCertificate.NOT_PRESENTED:
            return "Client did not present a certificate"
        case NoCertificate.NOT_REQUESTED:
            return "No client certificate requested"
        case _:
            assert_never(certificate)


def _name(text: str) -> str:
    """A name of a certificate, whose blanks may stay."""
    return " ".join(_word(word) for word in text[:MAX_WORD_LENGTH].split())


def _word(text: str) -> str:
    return _SPECIAL.sub("?", text[:MAX_WORD_LENGTH])


class HeaderScanner:
    """Reads along with the content, chunk by chunk, up to the end of its header section.

    The section ends with an empty line, or, as in Postfix's mime_state.c, before the first line that is neither a field
    nor the continuation of one (an mbox ``From `` line at the very start is passed over). Memory is bounded by one field
    name and one Message-ID; work by ``MAX_SCANNED_OCTETS``.

    ``received`` counts Received fields, ``message_id`` is the first Message-ID's value on one line (empty if there is
    none yet), ``has_date`` tells of a Date field, ``size`` counts the section's octets without the empty line, ``ended``
    tells that the rest is body.
    """

    __slots__ = ("_cut", "_field", "_first", "_message_id", "_partial", "ended", "has_date", "received", "size")

    def __init__(self) -> None:
        self.received = 0
        self.has_date = False
        self.size = 0
        self.ended = False
        self._message_id = b""
        self._field = b""
        self._partial = b""
        self._cut = 0
        self._first = True

    @property
    def message_id(self) -> str:
        """The Message-ID as text, without what would break a line, at most ``MAX_MESSAGE_ID_OCTETS`` long."""
        value = b" ".join(self._message_id.split()).decode("utf-8", "backslashreplace")
        return _CONTROL.sub("?", value)[:MAX_MESSAGE_ID_OCTETS]

    def feed(self, chunk: bytes) -> None:
        """Look at the next piece of content, whose line ends are CRLF and may fall between two pieces."""
        if self.ended:
            return
        data = self._partial + chunk
        end = data.find(_END)
        lines = (data if end < 0 else data[: end + len(_END)]).split(_CRLF)  # what is body is not cut into lines
        partial = lines.pop()
        for line in lines:
            if not self._continues_with(line):
                self.ended = True
                self._partial = b""
                return
        self._partial = partial
        if len(partial) > _MAX_LINE_OCTETS:
            # A CR at the end stays: the LF that makes a line end of it may be on its way.
            self._partial = partial[:_MAX_LINE_OCTETS] + (b"\r" if partial.endswith(b"\r") else b"")
            self._cut += len(partial) - len(self._partial)
        self.ended = self.size + self._cut > MAX_SCANNED_OCTETS

    def _continues_with(self, line: bytes) -> bool:
        """Whether the section still goes on after this line."""
        first, self._first = self._first, False
        if line[:1] in (b" ", b"\t") and self._field:
            if self._field == b"message-id":
                self._message_id = (self._message_id + line)[: 2 * MAX_MESSAGE_ID_OCTETS]
        elif (match := _FIELD_NAME.match(line)) is not None:
            self._begin(match[1].lower(), line[match.end() :])
        elif not (first and line.startswith((b"From ", b">From "))):
            return False  # the empty line is no field either
        self.size += len(line) + self._cut + len(_CRLF)
        self._cut = 0
        return self.size <= MAX_SCANNED_OCTETS

    def _begin(self, name: bytes, value: bytes) -> None:
        if name == b"message-id" and self._message_id:
            name = b"message-id (another)"
        self._field = name
        if name == b"received":
            self.received += 1
        elif name == b"date":
            self.has_date = True
        elif name == b"message-id":
            self._message_id = value[: 2 * MAX_MESSAGE_ID_OCTETS]
