"""The SMTP commands of one transaction, and what the replies to them mean. Pure.

MAIL, RCPT and DATA form one plan; with PIPELINING (RFC 2920) it leaves in one write, without it command by command.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from relay.mail.envelope import Address, BodyType, Message, Notify, Recipient, Ret, sender_text
from relay.sasl.choose import offered

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_NOT_XTEXT = re.compile(r"[^!-*,-<>-~]")
_NOT_UTF8_XTEXT = re.compile(r"[^!-*,-<>-\[\]-~]")


class Need(Enum):
    """An extension that a message cannot do without, and what to say when a host lacks it."""

    SMTPUTF8 = "SMTPUTF8"
    EIGHT_BIT_MIME = "8BITMIME"


@dataclass(frozen=True, slots=True)
class Extensions:
    """What a host offered in reply to EHLO: keywords in capitals with their parameters."""

    offered: Mapping[str, str]

    @classmethod
    def parse(cls, lines: tuple[str, ...], *, discard: frozenset[str] = frozenset()) -> Extensions:
        """Read the lines of an EHLO reply; the first one is the host's name.

        :param discard: keywords, in capitals, that count as not offered.
        """
        offered: dict[str, str] = {}
        for line in lines[1:]:
            keyword, _, parameters = line.strip().partition(" ")
            if keyword and len(line) <= 2048 and keyword.upper() not in discard:
                offered[keyword.upper()] = parameters.strip()
        return cls(offered)

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """What AUTH was offered with, in capitals; ``AUTH=`` is how hosts said it before RFC 4954."""
        words = [self.offered.get("AUTH", "")]
        for keyword, parameters in self.offered.items():
            if keyword.startswith("AUTH="):
                words += [keyword.removeprefix("AUTH="), parameters]
        return offered(" ".join(words))

    @property
    def has_auth(self) -> bool:
        """Whether AUTH was offered, be it with no mechanism at all."""
        return any(keyword == "AUTH" or keyword.startswith("AUTH=") for keyword in self.offered)

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.offered

    @property
    def size_limit(self) -> int:
        """Octets that the host takes at most; 0 if it does not say."""
        value = self.offered.get("SIZE", "").split(" ")[0]
        return int(value) if value.isascii() and value.isdigit() and len(value) <= 20 else 0


def unmet_needs(message: Message, recipients: Collection[Recipient], extensions: Extensions) -> Iterator[Need]:
    """The extensions that this message needs and the host does not offer (RFC 6531 section 3.2, RFC 6152)."""
    sender = sender_text(message.envelope.sender)
    addresses_ascii = sender.isascii() and all(recipient.address.is_ascii for recipient in recipients)
    if message.envelope.smtputf8 and (message.eight_bit or not addresses_ascii) and "SMTPUTF8" not in extensions:
        yield Need.SMTPUTF8
    elif message.eight_bit and not {"8BITMIME", "SMTPUTF8"} & set(extensions.offered):
        yield Need.EIGHT_BIT_MIME


def mail_command(message: Message, extensions: Extensions) -> bytes:
    """``MAIL FROM`` with the parameters that the host understands (RFC 1870, 6152, 6531, 3461); no SIZE if that is 0."""
    envelope = message.envelope
    sender = sender_text(envelope.sender)
    parameters = [f"MAIL FROM:<{_checked(sender)}>"]
    if "SIZE" in extensions and message.size:
        parameters.append(f"SIZE={message.size}")
    if "8BITMIME" in extensions and (message.eight_bit or envelope.body is BodyType.EIGHT_BIT_MIME):
        parameters.append("BODY=8BITMIME")
    if "SMTPUTF8" in extensions and envelope.smtputf8:
        parameters.append("SMTPUTF8")
    if "DSN" in extensions:
        if envelope.ret is not Ret.UNSPECIFIED:
            parameters.append(f"RET={envelope.ret.value}")
        if envelope.envid:
            parameters.append(f"ENVID={_checked(envelope.envid)}")
    return " ".join(parameters).encode()


def rcpt_command(recipient: Recipient, extensions: Extensions) -> bytes:
    """``RCPT TO`` with NOTIFY and ORCPT where the host offers DSN (RFC 3461 section 4).

    An ORCPT that nobody gave is made, as Postfix does: a later host that rewrites the address can then still name it.
    """
    parameters = [f"RCPT TO:<{_checked(recipient.address.text)}>"]
    if "DSN" in extensions:
        words = [flag.name for flag in Notify if flag in recipient.notify and flag.name]
        if words:
            parameters.append(f"NOTIFY={','.join(words)}")
        orcpt = _checked(recipient.orcpt or _own_orcpt(recipient.address))
        # RFC 6533 section 3: unencoded UTF-8 only where the host takes it.
        parameters.append(f"ORCPT={orcpt if 'SMTPUTF8' in extensions else _NOT_ASCII.sub(_hexpoint, orcpt)}")
    return " ".join(parameters).encode()


def _own_orcpt(address: Address) -> str:
    """An address as original recipient: xtext for ASCII (RFC 3461 section 4), else utf-8-addr-xtext (RFC 6533 section 3)."""
    if address.is_ascii:
        return f"rfc822;{_NOT_XTEXT.sub(lambda found: f'+{ord(found[0]):02X}', address.text)}"
    return f"utf-8;{_NOT_UTF8_XTEXT.sub(_hexpoint, address.text)}"


def _hexpoint(found: re.Match[str]) -> str:
    return f"\\x{{{ord(found[0]):X}}}"


def _checked(text: str) -> str:
    """Text about to stand in a command line; what came in through our own front end has none of these."""
    if _FORBIDDEN.search(text):
        raise ValueError(f"control character in an SMTP parameter: {text[:80]!r}")
    return text


class DotStuffer:
    """Doubles dots at the start of lines of a body that comes in pieces (RFC 5321 section 4.5.2)."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = b"\r\n"

    def feed(self, chunk: bytes) -> bytes:
        """Stuff the next piece of a body whose line ends are CRLF."""
        if not chunk:
            return b""
        at_line_start = self._last == b"\r\n"
        split_line_end = self._last[-1:] == b"\r" and chunk[:2] == b"\n."
        self._last = (self._last + chunk[-2:])[-2:]
        # Most pieces have no dot at all, which is seen in a hundredth of the time; and looking from behind is quicker.
        has_any = b"." in chunk and chunk.rfind(b"\r\n.") >= 0
        stuffed = chunk.replace(b"\r\n.", b"\r\n..") if has_any else chunk
        if at_line_start and chunk[:1] == b".":
            return b"." + stuffed
        if split_line_end:
            return b"\n.." + stuffed[2:]
        return stuffed

    def end(self) -> bytes:
        """What ends the data: a line end if the body lacks it, and the lone dot."""
        return b".\r\n" if self._last == b"\r\n" else b"\r\n.\r\n"
