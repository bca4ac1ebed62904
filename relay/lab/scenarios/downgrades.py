"""Destinations that try to talk a sender out of TLS although their TLSA records call for it (RFC 7672 section 2.2, RFC 3207)."""

from __future__ import annotations

from relay.lab.destination import Asked, Destination
from relay.lab.nameserver import Trust
from relay.lab.scenarios.build import NO_HANDSHAKE, TLSA_EE, deferred, host, one_host
from relay.lab.script import Script, Stage, StartTls, TlsRange


def _no_handshake(name: str, script: Script | StartTls, shows: str, rule: str, *proves: int) -> Destination:
    ending = deferred(name, "4.7.5", NO_HANDSHAKE, "dane?")
    return one_host(host(name, TLSA_EE, script=script), shows, rule, ending, proves=proves)


DOWNGRADES = (
    one_host(
        host("starttls-454-dane", TLSA_EE, script=StartTls.REFUSED_454),
        "TLSA, but 454 to STARTTLS",
        "RFC 7672 section 2.2",
        deferred("starttls-454-dane", "4.7.0", "refused to start TLS: 454 4.7.0 TLS not available", "!dane"),
        proves=(10, 29),
    ),
    _no_handshake(
        "cut-dane", StartTls.CUT, "TLSA, but the handshake is cut: never in clear", "RFC 7672 section 2.2", 10
    ),
    _no_handshake(
        "injected",
        StartTls.INJECTED,
        "a reply in clear right behind the 220: not read as one of TLS",
        "RFC 3207 section 4.2",
        10,
    ),
    _no_handshake("tls-1-0", Script(tls=TlsRange.ONLY_1_0), "TLSA, but TLS 1.0 only", "RFC 7672 section 2.2", 46),
    _no_handshake("anonymous", Script(tls=TlsRange.ANONYMOUS), "TLSA, but no certificate", "RFC 7672 section 8.2", 43),
    one_host(
        host("stalls", TLSA_EE, script=Script(hang=Stage.STARTTLS)),
        "TLSA, but no answer to STARTTLS",
        "RFC 7672 section 2.2",
        deferred("stalls", "4.4.2", "timed out while receiving the STARTTLS response", "dane?"),
        proves=(10,),
    ),
    one_host(
        host("wrong-ds-zone", TLSA_EE),
        "the zone above vouches for another key",
        "RFC 7672 section 2.1.1",
        deferred(
            "wrong-ds-zone",
            "4.4.3",
            "Host or domain name not found. Name service error for name=wrong-ds-zone.lab.test type=MX: Host not found",
            "unknown?",
            relay="none",
        ),
        asked=Asked.EITHER,
        trust=Trust.WRONG_DS,
        proves=(3, 4),
    ),
)
