"""Destinations with TLSA records: what matches, what does not, and what must stop the mail (RFC 7672, RFC 7671)."""

from __future__ import annotations

from relay.lab.ca import CertificateKind, Signer
from relay.lab.destination import HOSTS, Asked, Destination, Host, MxSet, Session, TlsaSpec
from relay.lab.nameserver import Trust
from relay.lab.record import Reach
from relay.lab.scenarios.build import (
    NO_HANDSHAKE,
    NOT_OFFERED,
    NOT_VERIFIED,
    TLSA_EE,
    TLSA_OF_STRANGER,
    TLSA_TA,
    deferred,
    host,
    mx,
    one_host,
    sent,
)
from relay.lab.script import Script, StartTls, TlsRange

_HALF = f"mx.halfdane.{HOSTS}"


def _verified(one: Host, shows: str, rule: str, *proves: int) -> Destination:
    return one_host(one, shows, rule, sent("", Session.VERIFIED, "dane", relay=one.name), proves=proves)


def _refused(one: Host, shows: str, rule: str, *proves: int, session: Session = Session.UNTRUSTED) -> Destination:
    ending = deferred("", "4.7.5", NOT_VERIFIED, "!dane", session, relay=one.name)
    return one_host(one, shows, rule, ending, proves=proves)


_MATCHING = (
    _verified(host("good", TLSA_EE), "3 1 1 matches", "RFC 7672 section 3.1.1", 1, 2, 10, 26, 41),
    _verified(host("ta", TLSA_TA), "2 1 1 of the issuer matches", "RFC 7672 section 3.1.2", 32, 49),
    _verified(
        host("ta-cert", TlsaSpec(2, 0, 1, Signer.ROOT)),
        "2 0 1 of the root, sent along, matches",
        "RFC 7671 section 5.2.3",
        47,
        49,
    ),
    _verified(
        host("ta-wildcard", TLSA_TA, certificate=CertificateKind.WILDCARD),
        "2 1 1, wildcard certificate",
        "RFC 7672 section 3.2.3",
        37,
    ),
    _verified(
        host("self-signed", TlsaSpec(3, 0, 1), certificate=CertificateKind.SELF_SIGNED),
        "3 0 1, self-signed",
        "RFC 7672 section 3.1.1",
        31,
        47,
    ),
    _verified(
        host("rsa", TlsaSpec(3, 1, 2), certificate=CertificateKind.RSA, script=Script(tls=TlsRange.ONLY_1_2)),
        "3 1 2, RSA key, TLS 1.2 only",
        "RFC 6698 section 2.1.3",
        46,
        47,
    ),
    _verified(
        host("expired-ee", TLSA_EE, certificate=CertificateKind.EXPIRED),
        "expired, but 3 1 1 matches",
        "RFC 7672 section 3.1.1",
        31,
    ),
    _verified(
        host("wrong-name-ee", TLSA_EE, certificate=CertificateKind.WRONG_NAME),
        "another name, but 3 1 1 matches",
        "RFC 7672 section 3.1.1",
        31,
        42,
    ),
    _verified(
        host("rollover", TLSA_OF_STRANGER, TLSA_EE),
        "two 3 1 1, the second matches",
        "RFC 7671 section 8.1",
        34,
    ),
)

_MISMATCHING = (
    _refused(host("mismatch", TLSA_OF_STRANGER), "3 1 1 of another key", "RFC 7672 section 2.2", 10, 44),
    _refused(
        host("agility", TlsaSpec(3, 1, 2, Signer.STRANGER), TLSA_EE),
        "3 1 1 matches, but the stronger 3 1 2 does not",
        "RFC 7671 section 9",
        39,
        54,
    ),
    _refused(
        host("expired-ta", TLSA_TA, certificate=CertificateKind.EXPIRED),
        "expired, under 2 1 1",
        "RFC 7672 section 3.1.2",
        32,
    ),
    _refused(
        host("wrong-name-ta", TLSA_TA, certificate=CertificateKind.WRONG_NAME),
        "another name, under 2 1 1",
        "RFC 7672 section 3.2.2",
        32,
        36,
        session=Session.TRUSTED,
    ),
    _refused(
        host("junk-ta", TlsaSpec(2, 1, 1, Signer.ROOT), certificate=CertificateKind.UNRELATED_CA),
        "2 1 1 of a CA sent along that signed nothing",
        "RFC 7671 section 5.2",
        32,
    ),
)

_STOPPED = (
    one_host(
        host("no-starttls", TLSA_EE, script=StartTls.ABSENT),
        "TLSA, but no STARTTLS",
        "RFC 7672 section 2.2",
        deferred("no-starttls", "4.7.4", NOT_OFFERED, "!dane"),
        proves=(29,),
    ),
    one_host(
        host("starttls-554", TLSA_EE, script=StartTls.REFUSED_554),
        "TLSA, but 554 to STARTTLS",
        "DESIGN section 3",
        deferred("starttls-554", "4.7.0", "refused to start TLS: 554 5.7.0 no TLS for you", "!dane"),
        proves=(29,),
    ),
    one_host(
        host("garbage", TLSA_EE, script=StartTls.GARBAGE),
        "TLSA, but babble for a handshake",
        "RFC 7672 section 2.2",
        deferred("garbage", "4.7.5", NO_HANDSHAKE, "dane?"),
        proves=(10,),
    ),
    one_host(
        host("refuses-554", TLSA_EE, script=Script(greeting="554 5.3.2 not today")),
        "TLSA, and a 554 greeting",
        "DESIGN section 3",
        deferred("refuses-554", "4.3.2", "refused to talk to me: 554 5.3.2 not today", "dane?"),
        proves=(29,),
    ),
)

_OTHER = (
    one_host(
        host("pkix-only", TlsaSpec(1, 1, 1), certificate=CertificateKind.SELF_SIGNED),
        "only a PKIX-EE record: encrypt",
        "RFC 7672 section 3.1.3",
        sent("pkix-only", Session.UNTRUSTED, "encrypt"),
        proves=(11, 33),
    ),
    Destination(
        name="halfdane",
        shows="insecure MX, secure host with TLSA",
        rule="RFC 7672 section 2.2.1",
        hosts=(Host(name=_HALF, tlsa=(TLSA_EE,)),),
        trust=Trust.INSECURE,
        endings=(sent("", Session.TRUSTED, "halfdane", relay=_HALF),),
        reach=Reach.DELIVERED,
        tlsa=Asked.YES,
        proves=(18,),
    ),
    Destination(
        name="two-hosts",
        shows="first host does not match, second does",
        rule="RFC 7672 section 2.1",
        hosts=(
            Host(name=mx("two-hosts", "mx1"), preference=10, tlsa=(TLSA_OF_STRANGER,)),
            Host(name=mx("two-hosts", "mx2"), preference=20, tlsa=(TLSA_EE,)),
        ),
        endings=(sent("", Session.VERIFIED, "dane", relay=mx("two-hosts", "mx2")),),
        reach=Reach.DELIVERED,
        tlsa=Asked.YES,
        proves=(1, 34),
    ),
    Destination(
        name="implicit-mx",
        shows="no MX, TLSA at the domain itself",
        rule="RFC 7672 section 2.2.2",
        hosts=(Host(name="implicit-mx.lab.test", tlsa=(TLSA_TA,)),),
        mx=MxSet.IMPLICIT,
        endings=(sent("", Session.VERIFIED, "dane", relay="implicit-mx.lab.test"),),
        reach=Reach.DELIVERED,
        tlsa=Asked.YES,
        proves=(25,),
    ),
    Destination(
        name="cname-host",
        shows="MX host is a CNAME, TLSA at its target",
        rule="RFC 7672 section 2.2.2",
        hosts=(Host(name=f"real.cname-host.{HOSTS}", alias=mx("cname-host"), tlsa=(TLSA_TA,)),),
        endings=(sent("cname-host", Session.VERIFIED, "dane"),),
        reach=Reach.DELIVERED,
        tlsa=Asked.YES,
        proves=(19, 23, 51),
    ),
)

DANE = (*_MATCHING, *_MISMATCHING, *_STOPPED, *_OTHER)
