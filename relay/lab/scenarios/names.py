"""Destinations whose certificates carry odd names, and odd sets of TLSA records (RFC 7672 section 3.2, RFC 7671)."""

from __future__ import annotations

from relay.lab.ca import CertificateKind, Signer
from relay.lab.destination import Destination, Host, Session, TlsaSpec
from relay.lab.scenarios.build import NOT_VERIFIED, TLSA_EE, TLSA_OF_STRANGER, TLSA_TA, deferred, host, one_host, sent


def _verified(one: Host, shows: str, rule: str, *proves: int) -> Destination:
    return one_host(one, shows, rule, sent("", Session.VERIFIED, "dane", relay=one.name), proves=proves)


def _wrong_name(one: Host, shows: str, rule: str, *proves: int) -> Destination:
    ending = deferred("", "4.7.5", NOT_VERIFIED, "!dane", Session.TRUSTED, relay=one.name)
    return one_host(one, shows, rule, ending, proves=proves)


NAMES = (
    _verified(
        host("ta-domain-name", TLSA_TA, certificate=CertificateKind.DOMAIN_NAME),
        "2 1 1, certificate of the domain, not the host",
        "RFC 7672 section 3.2.2",
        36,
    ),
    _verified(
        host("cn-only", TLSA_TA, certificate=CertificateKind.CN_ONLY),
        "2 1 1, the name is in the common name alone",
        "RFC 7672 section 3.2.3",
        37,
        57,
    ),
    _wrong_name(
        host("cn-beside-san", TLSA_TA, certificate=CertificateKind.CN_BESIDE),
        "2 1 1, right common name beside a wrong DNS name",
        "RFC 6125 section 6.4.4",
        37,
    ),
    _wrong_name(
        host("partial-wildcard", TLSA_TA, certificate=CertificateKind.PARTIAL_WILDCARD),
        "2 1 1, wildcard for a part of a label",
        "RFC 7672 section 3.2.3",
        38,
    ),
    _verified(
        host(
            "mixed-ee-ta",
            TlsaSpec(2, 1, 1, Signer.STRANGER),
            TLSA_EE,
            certificate=CertificateKind.WRONG_NAME,
        ),
        "3 1 1 matches beside a 2 1 1 that does not; another name",
        "RFC 7672 section 3.1.1",
        34,
        35,
    ),
    _verified(
        host("unusable-beside", TlsaSpec(1, 1, 1, Signer.STRANGER), TLSA_EE),
        "PKIX-EE record of another key beside a 3 1 1 that matches",
        "RFC 7672 section 3.1.3",
        33,
        55,
    ),
    _verified(
        host("full-key", TlsaSpec(3, 1, 0)), "3 1 0: the whole key stands in the DNS", "RFC 6698 section 2.1.3", 47
    ),
    _verified(
        host("not-yet-valid-ee", TLSA_EE, certificate=CertificateKind.NOT_YET_VALID),
        "not valid yet, but 3 1 1 matches",
        "RFC 7672 section 3.1.1",
        31,
    ),
    one_host(
        host("not-yet-valid-ta", TLSA_TA, certificate=CertificateKind.NOT_YET_VALID),
        "not valid yet, under 2 1 1",
        "RFC 7672 section 3.1.2",
        deferred("not-yet-valid-ta", "4.7.5", NOT_VERIFIED, "!dane", Session.UNTRUSTED),
        proves=(32,),
    ),
    one_host(
        host("agility-full", TlsaSpec(3, 1, 0), TLSA_OF_STRANGER),
        "3 1 0 matches beside a 3 1 1 that does not",
        "RFC 7671 section 9",
        sent("agility-full", Session.VERIFIED, "dane"),
        proves=(54,),
    ),
)
