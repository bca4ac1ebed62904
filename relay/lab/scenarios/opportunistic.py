"""Destinations without TLSA records that count: dane comes to may (RFC 7435, RFC 7672 section 2.2)."""

from __future__ import annotations

from relay.lab.ca import CertificateKind
from relay.lab.destination import Asked, Destination, Session
from relay.lab.nameserver import Trust
from relay.lab.record import Reach
from relay.lab.scenarios.build import NO_HANDSHAKE, TLSA_OF_STRANGER, deferred, host, one_host, sent
from relay.lab.script import StartTls

OPPORTUNISTIC = (
    one_host(
        host("no-tlsa", certificate=CertificateKind.SELF_SIGNED),
        "no TLSA, self-signed",
        "RFC 7672 section 2.2",
        sent("no-tlsa", Session.UNTRUSTED, "may"),
        proves=(2, 12),
    ),
    one_host(
        host("known-ca"),
        "no TLSA, certificate of a known CA",
        "RFC 7435",
        sent("known-ca", Session.TRUSTED, "may"),
        proves=(12,),
    ),
    one_host(
        host("cleartext", script=StartTls.ABSENT),
        "no TLSA, no STARTTLS",
        "RFC 7672 section 2.2",
        sent("cleartext", Session.CLEAR, "may:none"),
        proves=(12,),
    ),
    one_host(
        host("starttls-454", script=StartTls.REFUSED_454),
        "no TLSA, 454 to STARTTLS: goes on in clear",
        "RFC 3207 section 4",
        sent("starttls-454", Session.CLEAR, "may:none"),
        proves=(12,),
    ),
    one_host(
        host("bad-handshake", script=StartTls.CUT),
        "no TLSA, handshake cut: deferred, in clear once older",
        "RFC 7435 section 3",
        deferred("bad-handshake", "4.7.5", NO_HANDSHAKE, "may?"),
        sent("bad-handshake", Session.CLEAR, "may:none"),
        proves=(12,),
    ),
    Destination(
        name="insecure",
        shows="unsigned zone with a wrong TLSA: worth nothing",
        rule="RFC 7672 section 2.2.2",
        hosts=(host("insecure", TLSA_OF_STRANGER, certificate=CertificateKind.SELF_SIGNED),),
        trust=Trust.INSECURE,
        endings=(sent("insecure", Session.UNTRUSTED, "may"),),
        reach=Reach.DELIVERED,
        tlsa=Asked.NO,
        proves=(12, 21, 22, 30),
    ),
)
