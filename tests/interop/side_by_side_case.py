"""What a destination of the comparison with Postfix is: its DNS, its hosts, and under which settings mail goes there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from relay.lab.ca import CertificateKind, Signer
from relay.lab.destination import TlsaSpec
from relay.lab.script import Script, StartTls
from tests.interop.zones import Zone

EE = TlsaSpec(3, 1, 1)
EE_OF_STRANGER = TlsaSpec(3, 1, 1, Signer.STRANGER)
TA = TlsaSpec(2, 1, 1, Signer.ISSUER)
NO_STARTTLS = Script(starttls=StartTls.ABSENT)
OTHER_PORT = "{other_port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One host that mail may come to, on an address of its own.

    :param name: without trailing dot; owner of its address record.
    :param issued_for: the name in its certificate; empty for its own.
    :param tlsa: records to publish; a text is master file RDATA as it stands.
    :param tlsa_at: the owner of those, a master file name with ``{port}``; empty for where the host's own belong.
    :param port: ``{port}``, or ``{other_port}`` for one that only a next-hop with a port leads to.
    :param listens: False for a host whose port is closed.
    """

    name: str
    script: Script = field(default_factory=Script)
    certificate: CertificateKind = CertificateKind.GOOD
    issued_for: str = ""
    tlsa: tuple[TlsaSpec | str, ...] = ()
    tlsa_at: str = ""
    port: str = "{port}"
    listens: bool = True

    @property
    def tlsa_owner(self) -> str:
        """Where its TLSA records are, still with the place for the port."""
        return self.tlsa_at or f"_{self.port}._tcp.{self.name}."


@dataclass(frozen=True, slots=True)
class Profile:
    """Settings under which a Postfix and a relay run side by side.

    :param level: the security level without a policy line.
    :param options: further ones by Postfix's name without the prefix, which is our name in ``[smtp]``.
    :param relayhost: next-hops of all mail, with ``{port}`` and ``{other_port}``; empty to go by MX.
    """

    name: str
    level: str = "dane"
    options: Mapping[str, str] = field(default_factory=dict)
    relayhost: tuple[str, ...] = ()


DANE = Profile("dane")
TABLE = Profile("table", level="may")
INSECURE_MAY = Profile("insecure-may", options={"tls_dane_insecure_mx_policy": "may"})
INSECURE_ENCRYPT = Profile("insecure-encrypt", options={"tls_dane_insecure_mx_policy": "encrypt"})
RELAYHOST = Profile("relayhost", relayhost=("[mx1.relayhost.test]", "[mx2.relayhost.test]:{other_port}"))
ALONE = Profile("alone")
"""The plain settings again, for what takes Postfix's client down and other mail with it."""

PROFILES = (DANE, TABLE, INSECURE_MAY, INSECURE_ENCRYPT, RELAYHOST, ALONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One destination.

    :param what: what it is, for the document.
    :param hosts: each has its address in the DNS, and its certificate and TLSA records from the run's authority.
    :param zone: the domain is directly below it: ``test`` (signed), ``insecure.test``, ``bogus.test``, ``expired.test``.
    :param exchangers: names in the MX records, best first; None for one for each host.
    :param records: further lines, all names absolute.
    :param zones: zones that this destination has for itself.
    :param policy: the right side of its line in the policy map, empty for none.
    :param literal: whether mail is addressed to the first host's address instead of the domain.
    """

    name: str
    what: str
    hosts: tuple[Host, ...] = ()
    zone: str = "test"
    exchangers: tuple[str, ...] | None = None
    records: tuple[str, ...] = ()
    zones: tuple[Zone, ...] = ()
    policy: str = ""
    profile: Profile = DANE
    literal: bool = False

    @property
    def domain(self) -> str:
        """The domain that mail is sent to."""
        return f"{self.name}.{self.zone}"

    @property
    def mx_records(self) -> tuple[str, ...]:
        """Its MX records as master file lines."""
        names = tuple(host.name + "." for host in self.hosts) if self.exchangers is None else self.exchangers
        return tuple(f"{self.domain}. IN MX {10 * place} {name}" for place, name in enumerate(names, 1))


@dataclass(frozen=True, slots=True)
class Section:
    """Destinations that belong together."""

    title: str
    cases: tuple[Case, ...]


def one_host(
    name: str,
    what: str,
    *tlsa: TlsaSpec | str,
    script: Script | StartTls = StartTls.WORKS,
    certificate: CertificateKind = CertificateKind.GOOD,
    issued_for: str = "",
    tlsa_at: str = "",
    zone: str = "test",
    host: str = "",
    records: tuple[str, ...] = (),
    zones: tuple[Zone, ...] = (),
    policy: str = "",
    profile: Profile = DANE,
) -> Case:
    """A destination with one MX host, ``mx.DOMAIN`` unless it is named."""
    only = Host(
        name=host or f"mx.{name}.{zone}",
        script=Script(starttls=script) if isinstance(script, StartTls) else script,
        certificate=certificate,
        issued_for=issued_for,
        tlsa=tlsa,
        tlsa_at=tlsa_at,
    )
    return Case(
        name=name, what=what, hosts=(only,), zone=zone, records=records, zones=zones, policy=policy, profile=profile
    )
