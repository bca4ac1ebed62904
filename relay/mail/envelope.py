"""The envelope of a message and who brought it: what SMTP says beside the content.

Missing text is the empty string and a missing choice is a named member, never None.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, Flag
from functools import lru_cache
from typing import Final, NewType, assert_never

from relay.mail.names import Domain, IpAddress, IpLiteral

QueueId = NewType("QueueId", str)
RecipientId = NewType("RecipientId", int)

# Postfix's long queue IDs count in base 52 without vowels, so that no ID spells a word (global/safe_ultostr.c).
_BASE52 = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox ``local-part@domain``.

    :param text: as the client wrote it, without angle brackets; case and quotes of the local part are kept.
    """

    text: str
    domain: Domain | IpLiteral

    @property
    def local_part(self) -> str:
        """What stands before the last ``@``."""
        return self.text.rpartition("@")[0]

    @property
    def is_ascii(self) -> bool:
        """Whether the address can be sent to a host without SMTPUTF8."""
        return self.text.isascii()

    def __str__(self) -> str:
        return self.text


class NullSender(Enum):
    """The reverse-path ``<>`` of reports, which must never cause another report (RFC 5321 section 4.5.5)."""

    NULL = ""

    def __str__(self) -> str:
        return ""


NULL_SENDER: Final = NullSender.NULL
Sender = Address | NullSender


class BodyType(Enum):
    """The BODY parameter of MAIL (RFC 6152)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT_MIME = "8BITMIME"


class Ret(Enum):
    """How much of the message a failure report returns (RFC 3461 section 4.3)."""

    UNSPECIFIED = ""
    FULL = "FULL"
    HDRS = "HDRS"


class Notify(Flag):
    """When the sender wants a report for a recipient (RFC 3461 section 4.1); UNSPECIFIED means failure and delay."""

    UNSPECIFIED = 0
    NEVER = 1
    SUCCESS = 2
    FAILURE = 4
    DELAY = 8

    @property
    def on_failure(self) -> bool:
        """Whether a failure is to be reported."""
        return self is Notify.UNSPECIFIED or Notify.FAILURE in self

    @property
    def on_delay(self) -> bool:
        """Whether a delay is to be reported."""
        return self is Notify.UNSPECIFIED or Notify.DELAY in self


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """One recipient; its id stays the same through every attempt, so that results never go by position.

    :param orcpt: the ORCPT parameter as sent (``rfc822;xtext``), empty if there was none.
    """

    id: RecipientId
    address: Address
    notify: Notify = Notify.UNSPECIFIED
    orcpt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """A certificate of which the client has the key. Nobody vouches for the names in it.

    :param fingerprint: SHA-256 of the certificate, ``AB:CD:…``; ``key_fingerprint`` is of its public key.
    :param subject: the subject's common name, for people; ``issuer`` is the issuer's.
    """

    fingerprint: str
    key_fingerprint: str
    subject: str = ""
    issuer: str = ""


class NoCertificate(Enum):
    """Why there is no client certificate."""

    NOT_REQUESTED = "not requested"
    NOT_PRESENTED = "not presented"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """The TLS session a message came in over; ``protocol`` is empty for a session in the clear."""

    protocol: str = ""
    cipher: str = ""
    bits: int = 0
    algorithm_bits: int = 0
    certificate: ClientCertificate | NoCertificate = NoCertificate.NOT_REQUESTED

    @property
    def used(self) -> bool:
        """Whether the session was encrypted."""
        return bool(self.protocol)


NO_TLS: Final = ClientTls()


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalUser:
    """A user of this machine that came through a Unix socket.

    :param uid: as the system tells it; -1 where it does not.
    :param name: the account's; empty if it has none.
    """

    uid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name or 'unknown'} (uid {self.uid})"


class Remote(Enum):
    """The client of a connection over TCP."""

    REMOTE = "remote"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who handed us the message.

    :param name: the verified reverse name, or ``unknown``.
    :param helo: the HELO or EHLO argument as sent.
    :param protocol: ``SMTP`` or ``ESMTP``; TLS and authentication are added where the word is printed.
    :param unnamed: whether it came through a proxy that does not say whose connection it is; the address is the proxy's then.
    :param local: who it is, if it came through a Unix socket; address and name are as Postfix gives them then: localhost's.
    :param user: the authenticated user, empty if there was none; ``sasl_method`` is how it logged in.
    """

    address: IpAddress
    port: int = 0
    name: str = "unknown"
    helo: str = ""
    protocol: str = "ESMTP"
    tls: ClientTls = NO_TLS
    user: str = ""
    sasl_method: str = ""
    unnamed: bool = False
    local: LocalUser | Remote = Remote.REMOTE

    @property
    def has_address(self) -> bool:
        """Whether the address is the client's own, so that rules for addresses concern it."""
        return not self.unnamed and self.local is Remote.REMOTE

    def __str__(self) -> str:
        return _named(self.name, self.address)


@lru_cache(maxsize=1024)
def _named(name: str, address: IpAddress) -> str:
    """Is printed three times a message."""
    return f"{name}[{address}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A message's envelope as accepted (RFC 5321, 3461, 6152, 6531, 8689)."""

    sender: Sender
    recipients: tuple[Recipient, ...]
    body: BodyType = BodyType.SEVEN_BIT
    smtputf8: bool = False
    ret: Ret = Ret.UNSPECIFIED
    envid: str = ""
    requiretls: bool = False
    client: Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An accepted message without its content.

    :param size: octets of content, CRLF line ends, with the header fields that we added.
    :param arrived_at: when it was accepted, aware, UTC.
    :param eight_bit: whether the content has octets above 127.
    """

    queue_id: QueueId
    envelope: Envelope
    size: int
    arrived_at: datetime
    eight_bit: bool = False


def sender_text(sender: Sender) -> str:
    """The reverse-path as it stands between angle brackets."""
    match sender:
        case Address():
            return sender.text
        case NullSender():
            return ""
        case _:
            assert_never(sender)


def new_queue_id(microseconds: int, serial: int) -> QueueId:
    """A queue ID in Postfix's long form (global/mail_queue.h): time, then ``z``, then a number in base 51.

    :param microseconds: since the epoch.
    :param serial: a number that no other message of the same microsecond has (Postfix takes the inode).
    """
    seconds, fraction = divmod(microseconds, 1_000_000)
    return QueueId(f"{_base52(seconds).rjust(6, '0')}{_base52(fraction).rjust(4, '0')}z{_base52(serial, 51)}")


def _base52(number: int, base: int = 52) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, base)
        digits = _BASE52[digit] + digits
        if not number:
            return digits
