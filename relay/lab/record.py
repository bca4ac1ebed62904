"""What a lab host saw: sessions, commands and messages. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum


class Reach(IntEnum):
    """How far a message got at the receivers, the furthest of all attempts."""

    NOTHING = 0
    ENVELOPE = 1
    CONTENT = 2
    DELIVERED = 3


@dataclass(frozen=True, slots=True)
class TlsSeen:
    """The TLS session that a host got: version and cipher as ``ssl`` names them, SNI empty if none was sent."""

    version: str
    cipher: str
    sni: str


@dataclass(frozen=True, slots=True)
class Command:
    """One command line without its CRLF (undecodable octets escaped), and whether it came over TLS."""

    line: str
    encrypted: bool

    @property
    def verb(self) -> str:
        """The first word in capitals."""
        return self.line.partition(" ")[0].upper()


@dataclass(frozen=True, slots=True)
class Received:
    """One message as it came.

    :param wire: the octets between the 354 and the final ``.``, dot-stuffing included.
    :param accepted: whether it was answered with 250.
    """

    sender: str
    recipients: tuple[str, ...]
    wire: bytes
    encrypted: bool
    accepted: bool

    @property
    def content(self) -> bytes:
        """The message with dot-stuffing undone (RFC 5321 section 4.5.2)."""
        undone = self.wire.replace(b"\r\n.", b"\r\n")
        return undone[1:] if undone.startswith(b".") else undone


@dataclass(slots=True)
class SessionRecord:
    """What one session showed; grows while the session lasts.

    :param number: counts the sessions of a host, from 1.
    """

    peer: tuple[str, int]
    commands: list[Command] = field(default_factory=list)
    tls: TlsSeen | None = None
    tls_error: str = ""
    received: list[Received] = field(default_factory=list)
    content_octets: int = 0
    ended: bool = False
    number: int = 0

    @property
    def reach(self) -> Reach:
        """How far a message got in this session."""
        if any(message.accepted for message in self.received):
            return Reach.DELIVERED
        if self.received:
            return Reach.CONTENT
        return Reach.ENVELOPE if self.saw_mail else Reach.NOTHING

    @property
    def saw_mail(self) -> bool:
        """Whether MAIL or anything after it came: the sender had taken this host for good."""
        return any(command.verb in {"MAIL", "RCPT", "DATA", "BDAT"} for command in self.commands)
