"""Destinations that the policy map names: the administrator's word goes before what the DNS says (Postfix TLS_README)."""

from __future__ import annotations

from relay.lab.ca import CertificateKind
from relay.lab.destination import Asked, Destination, Session
from relay.lab.nameserver import Trust
from relay.lab.record import Reach
from relay.lab.scenarios.build import (
    NOT_OFFERED,
    NOT_VERIFIED,
    TLSA_EE,
    TLSA_OF_STRANGER,
    deferred,
    host,
    one_host,
    sent,
)
from relay.lab.script import StartTls

_README = "Postfix TLS_README, client_tls_policy"

MAPPED = (
    one_host(
        host("may-line", TLSA_OF_STRANGER, certificate=CertificateKind.SELF_SIGNED),
        "may line beside a TLSA that does not match",
        _README,
        sent("may-line", Session.UNTRUSTED, "may"),
        policy="may",
        proves=(44,),
    ),
    one_host(
        host("none-line", TLSA_EE),
        "none line: in clear although STARTTLS is offered",
        _README,
        sent("none-line", Session.CLEAR, "none"),
        policy="none",
        asked=Asked.NO,
    ),
    one_host(
        host("encrypt", certificate=CertificateKind.SELF_SIGNED),
        "encrypt line, self-signed",
        _README,
        sent("encrypt", Session.UNTRUSTED, "encrypt"),
        policy="encrypt",
    ),
    one_host(
        host("encrypt-missing", script=StartTls.ABSENT),
        "encrypt line, no STARTTLS",
        _README,
        deferred("encrypt-missing", "4.7.4", NOT_OFFERED, "!encrypt"),
        policy="encrypt",
    ),
    one_host(
        host("fingerprint", certificate=CertificateKind.EXPIRED),
        "fingerprint line, the right one (expired does not matter)",
        _README,
        sent("fingerprint", Session.VERIFIED, "fingerprint"),
        policy="fingerprint match={leaf}",
    ),
    one_host(
        host("fingerprint-wrong"),
        "fingerprint line, of another certificate",
        _README,
        deferred("fingerprint-wrong", "4.7.5", NOT_VERIFIED, "!fingerprint", Session.UNTRUSTED),
        policy="fingerprint match={stranger}",
    ),
    one_host(
        host("secure"),
        "secure line, name below the next-hop",
        _README,
        sent("secure", Session.VERIFIED, "secure"),
        policy="secure",
    ),
    one_host(
        host("secure-wrong-name", certificate=CertificateKind.WRONG_NAME),
        "secure line, another name",
        _README,
        deferred("secure-wrong-name", "4.7.5", NOT_VERIFIED, "!secure", Session.TRUSTED),
        policy="secure",
    ),
    one_host(
        host("secure-unknown-ca", certificate=CertificateKind.UNKNOWN_CA),
        "secure line, unknown CA",
        _README,
        deferred("secure-unknown-ca", "4.7.5", NOT_VERIFIED, "!secure", Session.UNTRUSTED),
        policy="secure",
    ),
    one_host(
        host("secure-expired", certificate=CertificateKind.EXPIRED),
        "secure line, expired",
        _README,
        deferred("secure-expired", "4.7.5", NOT_VERIFIED, "!secure", Session.UNTRUSTED),
        policy="secure",
    ),
    one_host(
        host("verify-match"),
        "verify line with match=.lab.test",
        _README,
        sent("verify-match", Session.VERIFIED, "verify"),
        policy="verify match=.lab.test",
    ),
    one_host(
        host("dane-only", certificate=CertificateKind.SELF_SIGNED),
        "dane-only line, no TLSA",
        "Postfix smtp_tls_policy.c, dane_init",
        deferred("dane-only", "4.7.5", "no TLSA records found", "unknown?", relay="none"),
        policy="dane-only",
        asked=Asked.YES,
        proves=(14, 40),
    ),
    Destination(
        name="dane-only-insecure",
        shows="dane-only line, unsigned zone",
        rule="Postfix smtp_tls_policy.c, dane_init",
        hosts=(host("dane-only-insecure", TLSA_EE),),
        trust=Trust.INSECURE,
        policy="dane-only",
        endings=(deferred("", "4.7.5", "non DNSSEC destination", "unknown?", relay="none"),),
        reach=Reach.NOTHING,
        tlsa=Asked.NO,
        proves=(14, 20, 22),
    ),
    one_host(
        host("exception", TLSA_OF_STRANGER),
        "an exception that has not ended yet",
        "docs/policy.md, exceptions that end",
        sent("exception", Session.TRUSTED, "may"),
        policy="may until=2126-12-31",
    ),
    one_host(
        host("expired-exception", TLSA_OF_STRANGER),
        "an exception that has ended: the default holds again",
        "docs/policy.md, exceptions that end",
        deferred("expired-exception", "4.7.5", NOT_VERIFIED, "!dane", Session.UNTRUSTED),
        policy="may until=2026-01-31",
        asked=Asked.YES,
    ),
    one_host(
        host("bad-line", TLSA_EE),
        "a line that cannot be understood: doubt defers",
        "Postfix smtp_tls_policy.c, tls_policy_lookup_one",
        deferred("bad-line", "4.7.5", "client TLS configuration problem", "unknown?", relay="none"),
        policy="dane match=nexthop",
        asked=Asked.EITHER,
    ),
)
