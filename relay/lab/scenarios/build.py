"""Short ways to write scenarios down."""

from __future__ import annotations

from typing import Final

from relay.lab.ca import CertificateKind, Signer
from relay.lab.destination import (
    LAB,
    Asked,
    Destination,
    Ending,
    Host,
    MessageKind,
    Session,
    Status,
    TlsaSpec,
)
from relay.lab.nameserver import Fault, Trust
from relay.lab.record import Reach
from relay.lab.script import Script, StartTls

TLSA_EE: Final = TlsaSpec(3, 1, 1)
TLSA_OF_STRANGER: Final = TlsaSpec(3, 1, 1, Signer.STRANGER)
TLSA_TA: Final = TlsaSpec(2, 1, 1, Signer.ISSUER)

NOT_VERIFIED: Final = "Server certificate not verified"
NOT_OFFERED: Final = "TLS is required, but was not offered by host"
NO_HANDSHAKE: Final = "Cannot start TLS: handshake failure"


def mx(name: str, label: str = "mx") -> str:
    """The usual name of a destination's host."""
    return f"{label}.{name}.{LAB}"


def sent(name: str, session: Session, tls: str, *, relay: str = "") -> Ending:
    """Delivered."""
    return Ending(
        status=Status.SENT,
        dsn="2.0.0",
        session=session,
        tls=tls,
        reason="250 2.0.0 Ok: kept by the lab",
        relay=relay or mx(name),
    )


def deferred(name: str, dsn: str, reason: str, tls: str, session: Session = Session.NONE, *, relay: str = "") -> Ending:
    """To be tried again."""
    return Ending(status=Status.DEFERRED, dsn=dsn, session=session, tls=tls, reason=reason, relay=relay or mx(name))


def bounced(name: str, dsn: str, reason: str, tls: str, session: Session = Session.NONE, *, relay: str = "") -> Ending:
    """Back to the sender."""
    return Ending(status=Status.BOUNCED, dsn=dsn, session=session, tls=tls, reason=reason, relay=relay or mx(name))


def host(
    name: str,
    *tlsa: TlsaSpec,
    certificate: CertificateKind = CertificateKind.GOOD,
    script: Script | StartTls = StartTls.WORKS,
    fault: Fault = Fault.NONE,
) -> Host:
    """The one host of a destination."""
    if isinstance(script, StartTls):
        script = Script(starttls=script)
    return Host(name=mx(name), tlsa=tlsa, certificate=certificate, script=script, tlsa_fault=fault)


def one_host(
    only: Host,
    shows: str,
    rule: str,
    *endings: Ending,
    policy: str = "",
    asked: Asked | None = None,
    proves: tuple[int, ...] = (),
    message: MessageKind = MessageKind.PLAIN,
    trust: Trust = Trust.SECURE,
) -> Destination:
    """A destination with one MX host in its own secure zone; how far its mail gets follows from the last ending.

    :param proves: the requirements of docs/conformance.md that show here, by number.
    """
    name = only.name.removeprefix("mx.").removesuffix(f".{LAB}")
    return Destination(
        name=name,
        shows=shows,
        rule=rule,
        hosts=(only,),
        endings=endings,
        reach=Reach.DELIVERED if endings[-1].status is Status.SENT else Reach.NOTHING,
        policy=policy,
        tlsa=asked or (Asked.EITHER if policy else Asked.YES),
        proves=proves,
        message=message,
        trust=trust,
    )
