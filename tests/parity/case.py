"""What a comparison of policy maps consists of: map lines, a destination that meets them, and how its host stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from relay.lab.ca import CertificateKind, Signer
from relay.lab.destination import TlsaSpec
from relay.lab.script import Script, StartTls, TlsRange

_EE = TlsaSpec(3, 1, 1)


@dataclass(frozen=True, slots=True)
class Stands:
    """How a host stands.

    :param issued_for: the name in its certificate; ``{domain}`` and ``{host}`` are filled in.
    """

    words: str
    certificate: CertificateKind = CertificateKind.GOOD
    issued_for: str = "{host}"
    script: Script = field(default_factory=Script)
    tlsa: tuple[TlsaSpec, ...] = ()


class Posture(Enum):
    """The postures; ``mx.DOMAIN`` is the host of every destination."""

    GOOD = Stands("a certificate of the lab CA for the host")
    DOMAIN = Stands("one for the domain and not the host", issued_for="{domain}")
    OTHER = Stands("one for another name", issued_for="elsewhere.test")
    SELF = Stands("a self-signed one for the host", CertificateKind.SELF_SIGNED)
    EXPIRED = Stands("one that expired", CertificateKind.EXPIRED)
    UNKNOWN = Stands("one of a CA that nobody configured", CertificateKind.UNKNOWN_CA)
    CLEAR = Stands("no STARTTLS", script=Script(starttls=StartTls.ABSENT))
    REFUSES = Stands("454 to STARTTLS", script=Script(starttls=StartTls.REFUSED_454))
    BABBLES = Stands("babble instead of a handshake", script=Script(starttls=StartTls.GARBAGE))
    OLD = Stands("TLS 1.2 only", script=Script(tls=TlsRange.ONLY_1_2))
    NEW = Stands("TLS 1.3 only", script=Script(tls=TlsRange.ONLY_1_3))
    TLSA = Stands("self-signed, with its TLSA record", CertificateKind.SELF_SIGNED, tlsa=(_EE,))
    MISMATCH = Stands("the TLSA record of another key", tlsa=(TlsaSpec(3, 1, 1, Signer.STRANGER),))
    UNUSABLE = Stands("a TLSA record that cannot be used (1 1 1)", tlsa=(TlsaSpec(1, 1, 1),))
    TLSA_CLEAR = Stands("a TLSA record and no STARTTLS", script=Script(starttls=StartTls.ABSENT), tlsa=(_EE,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One look-up and the delivery that follows.

    :param lines: of the group's map, where ``{domain}``, ``{host}``, ``{port}``, ``{leaf}`` and ``{key}`` (SHA-256 digests of
        the host's certificate and of its public key), ``{ca}`` and ``{other_ca}`` (files) are filled in.
    :param below: labels in front of the domain that mail goes to.
    :param route: the right side of a transport map line for the destination, empty for none.
    """

    name: str
    lines: tuple[str, ...]
    posture: Posture = Posture.GOOD
    below: str = ""
    route: str = ""

    @property
    def domain(self) -> str:
        """The domain that the lines are about."""
        return f"{self.name}.test"

    @property
    def destination(self) -> str:
        """The domain that mail goes to."""
        return f"{self.below}.{self.domain}" if self.below else self.domain

    @property
    def host(self) -> str:
        """Its one host."""
        return f"mx.{self.domain}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Cases that share a configuration.

    :param maps: ``tls_policy_maps``; ``{directory}`` is where ``files`` are, and ``{lines}`` the map with the cases' lines.
    :param level: the level without a line.
    :param files: further maps, by name.
    """

    name: str
    cases: tuple[Case, ...]
    level: str = "may"
    maps: tuple[str, ...] = ("texthash:{lines}",)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a delivery.

    :param level: the effective level, ``unknown`` if none could be told.
    :param session: the log's word for the session; empty if there was none in TLS.
    :param reason: the text of the status line without addresses, for what was not sent.
    :param warnings: what was logged about the look-up, without the prefix that names the destination.
    """

    level: str
    status: str
    dsn: str
    session: str
    reason: str
    warnings: tuple[str, ...]


def numbered(prefix: str, *rows: tuple[str | tuple[str, ...], Posture] | Case) -> tuple[Case, ...]:
    """Cases ``PREFIX001`` and up: each a right-hand side (or whole lines) with a posture, or a case to be named."""
    made = []
    for number, row in enumerate(rows, 1):
        name = f"{prefix}{number:03}"
        if isinstance(row, Case):
            made.append(Case(name=name, lines=row.lines, posture=row.posture, below=row.below, route=row.route))
            continue
        text, posture = row
        lines = (f"{{domain}} {text}",) if isinstance(text, str) else text
        made.append(Case(name=name, lines=lines, posture=posture))
    return tuple(made)
