"""What a lab host is told to do: its behaviour as data. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class StartTls(Enum):
    """What a host does about STARTTLS."""

    WORKS = "offered"
    ABSENT = "not offered"
    REFUSED_454 = "answered 454"
    REFUSED_554 = "answered 554"
    GARBAGE = "answered 220, then babble instead of a handshake"
    CUT = "answered 220, then cut during the handshake"
    INJECTED = "answered 220, with a reply in the clear right behind it"


class Stage(Enum):
    """Where a host falls silent."""

    NEVER = "never"
    GREETING = "greeting"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    END_OF_DATA = "end of DATA"


class Rcpt(Enum):
    """What a host says to RCPT."""

    ACCEPTED = "accepted"
    GREYLISTED = "450 to the first attempt of each sender and recipient"
    REJECTED = "550"


class TlsRange(Enum):
    """Which versions of TLS a host speaks."""

    ANY = "TLS 1.2 and 1.3"
    ONLY_1_2 = "TLS 1.2"
    ONLY_1_3 = "TLS 1.3"
    ONLY_1_0 = "TLS 1.0"
    ANONYMOUS = "TLS 1.2, without a certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """How a host behaves.

    :param greeting: the whole first line; one that does not begin with 220 is followed by a close.
    :param end_of_data: the whole reply to the content.
    :param extensions: offered in EHLO beside STARTTLS.
    :param refused: verbs that get a reply of their own (whole line) and nothing else.
    """

    starttls: StartTls = StartTls.WORKS
    tls: TlsRange = TlsRange.ANY
    greeting: str = "220 {host} ESMTP dane-relay lab"
    rcpt: Rcpt = Rcpt.ACCEPTED
    end_of_data: str = "250 2.0.0 Ok: kept by the lab"
    hang: Stage = Stage.NEVER
    extensions: tuple[str, ...] = ("PIPELINING", "SIZE 67108864", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")
    refused: tuple[tuple[str, str], ...] = ()
