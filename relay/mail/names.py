"""Domain names, address literals and next-hops, parsed once at the edge.

A name that got through ``parse`` is valid for the rest of its life: lower-case A-labels, no trailing dot,
label and name lengths of RFC 1035 section 2.3.4.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import idna

IpAddress = IPv4Address | IPv6Address

MAX_NAME_OCTETS = 253
MAX_LABEL_OCTETS = 63
# Underscores occur in _25._tcp and, against RFC 952, in host names that people really use.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?", re.ASCII)
_IDEOGRAPHIC_DOTS = str.maketrans({"\u3002": ".", "\uff0e": ".", "\uff61": "."})


class BadName(ValueError):  # noqa: N818 - it names the fault, not the handling
    """A text that is not a domain name, address literal or next-hop; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True, order=True)
class Domain:
    """A domain name as lower-case A-labels without a trailing dot."""

    name: str

    @classmethod
    def parse(cls, text: str) -> Domain:
        """Read a domain name as written by a person, a peer or the DNS.

        :param text: A-labels or U-labels (UTS 46), any case, one trailing dot allowed.
        :raises BadName: if the name or one of its labels is empty, too long or has other characters.
        """
        name = text.translate(_IDEOGRAPHIC_DOTS).removesuffix(".").lower()
        if not name.isascii():
            try:
                name = idna.encode(name, uts46=True).decode("ascii").lower()
            except (idna.IDNAError, UnicodeError) as error:
                raise BadName(f"not a domain name: {text[:80]!r}: {error}") from None
        if not name or len(name) > MAX_NAME_OCTETS:
            raise BadName(f"not a domain name: {text[:80]!r}: {'empty' if not name else 'too long'}")
        for label in name.split("."):
            if len(label) > MAX_LABEL_OCTETS or not _LABEL.fullmatch(label):
                raise BadName(f"not a domain name: {text[:80]!r}: label {label[:64]!r}")
        return cls(name)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels from left to right."""
        return tuple(self.name.split("."))

    def parents(self) -> tuple[str, ...]:
        """Each parent domain from the nearest up: ``a.b.c`` gives ``b.c``, ``c``."""
        labels = self.name.split(".")
        return tuple(".".join(labels[i:]) for i in range(1, len(labels)))

    def is_below(self, parent: str) -> bool:
        """Whether this is a true sub-domain, at any depth, of ``parent``."""
        return self.name.endswith("." + parent)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class IpLiteral:
    """A network address in the place of a domain (RFC 5321 section 4.1.3)."""

    address: IpAddress

    @classmethod
    def parse(cls, text: str) -> IpLiteral:
        """Read ``192.0.2.1``, ``2001:db8::1`` or ``IPv6:2001:db8::1``, without the brackets.

        :raises BadName: if it is none of these, or has an IPv6 scope.
        """
        bare = text[5:] if text[:5].lower() == "ipv6:" else text
        try:
            address = ip_address(bare)
        except ValueError:
            raise BadName(f"not an address literal: {text[:80]!r}") from None
        if (bare is not text and address.version == 4) or "%" in bare:
            raise BadName(f"not an address literal: {text[:80]!r}")
        return cls(address)

    def __str__(self) -> str:
        prefix = "IPv6:" if self.address.version == 6 else ""
        return f"[{prefix}{self.address}]"


@dataclass(frozen=True, slots=True)
class NextHop:
    """Where mail goes next: a domain whose MX hosts are looked up, or one host in brackets.

    ``key`` is the text as the administrator wrote it (``example.com``, ``[mail.example.com]:587``), its name as a
    ``Domain`` reads it: the first key of every per-destination table (postfix smtp_tls_policy.c), and what deliveries
    are grouped by.
    """

    key: str
    host: Domain | IpLiteral
    port: int
    use_mx: bool

    @classmethod
    def parse(cls, text: str, *, default_port: int) -> NextHop:
        """Read ``domain``, ``domain:port``, ``[host]``, ``[host]:port``, ``[address]`` or ``[address]:port``.

        :param default_port: the TCP port when the text names none.
        :raises BadName: if it is none of these.
        """
        bracketed = re.fullmatch(r"\[([^\[\]]+)\](?::([0-9]{1,5}))?", text)
        plain = re.fullmatch(r"([^\[\]:]+)(?::([0-9]{1,5}))?", text)
        match = bracketed or plain
        if match is None:
            raise BadName(f"not a next-hop: {text[:80]!r}: expected domain, domain:port, [host] or [host]:port")
        port = int(match[2]) if match[2] else default_port
        if not 0 < port < 65536:
            raise BadName(f"not a next-hop: {text[:80]!r}: port {port}")
        host = _literal_or_domain(match[1]) if bracketed else Domain.parse(match[1])
        # A-labels without a trailing dot, so that one destination has one key; a literal stays as written.
        name = str(host) if isinstance(host, Domain) else match[1].lower()
        key = (f"[{name}]" if bracketed else name) + (f":{port}" if match[2] else "")
        return cls(key=key, host=host, port=port, use_mx=not bracketed)

    @classmethod
    def of_domain(cls, domain: Domain | IpLiteral, port: int) -> NextHop:
        """The next-hop of a recipient domain when no map names another."""
        return cls(key=str(domain).lower(), host=domain, port=port, use_mx=isinstance(domain, Domain))

    def __str__(self) -> str:
        return self.key


def _literal_or_domain(text: str) -> Domain | IpLiteral:
    try:
        return IpLiteral.parse(text)
    except BadName:
        return Domain.parse(text)
