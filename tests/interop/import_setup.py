"""What a real-world-like Postfix configuration of the import test is: its files, and destinations to try it on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from relay.lab.ca import CertificateKind, fingerprint
from relay.lab.destination import TlsaSpec
from relay.lab.script import Script, StartTls
from tests.interop.side_by_side_case import Case, Host
from tests.interop.side_by_side_world import SENDER_DOMAIN, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One destination, and who writes to it.

    :param case: its DNS and hosts, if mail goes there.
    :param through: names of smarthosts whose sessions count for it.
    """

    case: Case
    sender: str = f"app@{SENDER_DOMAIN}"
    local_part: str = "user"
    through: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What tests call it."""
        return self.case.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A configuration as an administrator has it.

    Texts have ``@directory@``, ``@port@``, ``@other_port@``, ``@ca@``, ``@fingerprint:HOST@`` and ``@client@`` (a PEM file
    with our client certificate and key) where a run puts in its own.

    :param client_options: what master.cf says of the smtp service.
    :param smarthosts: hosts that are a real Postfix, which takes mail of clients with a certificate only.
    :param remarks: what the import has to say, each by its beginning behind the directory.
    """

    name: str
    main: str
    files: Mapping[str, str]
    destinations: tuple[Destination, ...]
    client_options: Mapping[str, str] = field(default_factory=dict)
    smarthosts: tuple[Host, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def cases(self) -> tuple[Case, ...]:
        """All that the lab has to have."""
        return tuple(destination.case for destination in self.destinations)

    @property
    def master(self) -> str:
        """master.cf, as far as an import reads it."""
        options = "".join(f"  -o {name}={value}\n" for name, value in self.client_options.items())
        return f"smtp inet n - n - - smtpd\nsmtp unix - - n - - smtp\n{options}"


def filled(text: str, world: World, directory: str, client: str) -> str:
    """A text with what this run has in place of the marks."""
    marks = {
        "@directory@": directory,
        "@ca@": str(world.ca_file),
        "@client@": client,
        **{f"@{name}@": str(port) for name, port in world.ports.items()},
    }
    for name, credential in world.credentials.items():
        if f"@fingerprint:{name}@" in text:
            marks[f"@fingerprint:{name}@"] = fingerprint(credential.leaf)
    for mark, value in marks.items():
        text = text.replace(mark, value)
    return text


def direct(
    name: str,
    *tlsa: TlsaSpec | str,
    script: Script | StartTls = StartTls.WORKS,
    certificate: CertificateKind = CertificateKind.GOOD,
    zone: str = "test",
    listens: bool = True,
) -> Destination:
    """A destination with one MX host of its own."""
    host = Host(
        name=f"mx.{name}.{zone}",
        script=Script(starttls=script) if isinstance(script, StartTls) else script,
        certificate=certificate,
        tlsa=tlsa,
        listens=listens,
    )
    return Destination(case=Case(name=name, what="", hosts=(host,), zone=zone))


def elsewhere(
    name: str, *through: Host, sender: str = f"app@{SENDER_DOMAIN}", local_part: str = "user", zone: str = "test"
) -> Destination:
    """A destination whose mail goes to smarthosts, whatever its own domain has."""
    case = Case(name=name, what="", hosts=through, exchangers=(), zone=zone)
    return Destination(case=case, sender=sender, local_part=local_part, through=tuple(host.name for host in through))
