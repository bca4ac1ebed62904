"""Destinations that differ in what the DNS says of them (RFC 7672 sections 2.1 and 2.2)."""

from __future__ import annotations

from relay.lab.ca import CertificateKind
from relay.lab.destination import TlsaSpec
from relay.lab.script import Script
from tests.interop.side_by_side_case import (
    DANE,
    EE,
    EE_OF_STRANGER,
    INSECURE_ENCRYPT,
    INSECURE_MAY,
    NO_STARTTLS,
    TABLE,
    Case,
    Host,
    Profile,
    Section,
    one_host,
)
from tests.interop.zones import Signing, Zone


def _half(
    name: str, what: str, *tlsa: TlsaSpec, profile: Profile = DANE, script: Script | None = None, policy: str = ""
) -> Case:
    """An unsigned domain whose MX host is in a signed zone; its certificate alone would be Untrusted."""
    host = Host(name=f"mx.{name}.test", tlsa=tlsa, script=script or Script(), certificate=CertificateKind.SELF_SIGNED)
    return Case(name=name, what=what, hosts=(host,), zone="insecure.test", profile=profile, policy=policy)


LOOKUPS = Section(
    "Look-ups: secure, insecure, failed",
    (
        one_host("no-tlsa", "no TLSA: NXDOMAIN", certificate=CertificateKind.SELF_SIGNED),
        one_host(
            "no-tlsa-nodata",
            "no TLSA: NODATA",
            records=('_{port}._tcp.mx.no-tlsa-nodata.test. IN TXT "no TLSA here"',),
        ),
        one_host(
            "tlsa-servfail",
            "TLSA look-up: SERVFAIL",
            zones=(Zone("_tcp.mx.tlsa-servfail.test.", Signing.UNLOADABLE),),
        ),
        one_host(
            "tlsa-bogus",
            "TLSA look-up: signatures that do not validate",
            EE,
            zones=(Zone("_tcp.mx.tlsa-bogus.test.", Signing.WRONG_DS),),
        ),
        one_host(
            "tlsa-silence",
            "TLSA look-up: the name server does not answer",
            records=("_tcp.mx.tlsa-silence.test. IN NS ns.silent.test.",),
        ),
        Case(
            name="host-alias-servfail",
            what="the MX host is a CNAME; SERVFAIL for TLSA at its target, a good one at the alias",
            hosts=(
                Host(
                    name="target.host-alias-servfail.test",
                    tlsa=(EE,),
                    tlsa_at="_{port}._tcp.mx.host-alias-servfail.test.",
                ),
            ),
            exchangers=("mx.host-alias-servfail.test.",),
            records=("mx.host-alias-servfail.test. IN CNAME target.host-alias-servfail.test.",),
            zones=(Zone("_tcp.target.host-alias-servfail.test.", Signing.UNLOADABLE),),
        ),
        one_host(
            "unsigned", "unsigned domain and host; its TLSA would not match", EE_OF_STRANGER, zone="insecure.test"
        ),
        one_host(
            "unsigned-host", "signed domain, host in an unsigned zone", EE_OF_STRANGER, host="mx.host.insecure.test"
        ),
        one_host("mx-bogus", "the domain's signatures do not validate", EE, zone="bogus.test", host="mx.mx-bogus.test"),
        one_host("mx-expired", "the domain's signatures ended", EE, zone="expired.test", host="mx.mx-expired.test"),
        one_host("address-bogus", "the host's address does not validate", EE, host="mx.address.bogus.test"),
        Case(name="no-domain", what="the domain does not exist", exchangers=()),
        Case(name="no-mail", what="neither MX nor address", exchangers=(), records=('no-mail.test. IN TXT "no mail"',)),
        Case(
            name="literal",
            what="an address literal; the host that is there has a TLSA that would not match",
            hosts=(Host(name="mx.literal.test", tlsa=(EE_OF_STRANGER,)),),
            literal=True,
        ),
        Case(name="null-mx", what="null MX", exchangers=(".",)),
        Case(name="no-host", what="the MX host does not exist", exchangers=("mx.no-host.test.",)),
        one_host("dane-only", "`3 1 1` matches; policy line `dane-only`", EE, policy="dane-only"),
        one_host("dane-only-none", "no TLSA; policy line `dane-only`", policy="dane-only"),
        one_host("dane-only-insecure", "unsigned; policy line `dane-only`", zone="insecure.test", policy="dane-only"),
        one_host(
            "dane-only-servfail",
            "TLSA look-up: SERVFAIL; policy line `dane-only`",
            zones=(Zone("_tcp.mx.dane-only-servfail.test.", Signing.UNLOADABLE),),
            policy="dane-only",
        ),
        one_host("may-line", "TLSA does not match; policy line `may`", EE_OF_STRANGER, policy="may"),
        one_host("bad-line", "`3 1 1` matches; policy line `dane match=nexthop`", EE, policy="dane match=nexthop"),
    ),
)

HALF = Section(
    "MX records without DNSSEC, hosts in a signed zone",
    (
        _half("half", "TLSA matches", EE),
        _half("half-mismatch", "TLSA does not match", EE_OF_STRANGER),
        _half("half-clear", "TLSA, no STARTTLS", EE, script=NO_STARTTLS),
        _half("half-none", "no TLSA"),
        _half("half-unusable", "`1 1 1` only", TlsaSpec(1, 1, 1)),
        _half("half-dane-only", "TLSA matches; policy line `dane-only`", EE, policy="dane-only"),
        _half("half-table", "TLSA matches; level `may`, policy line `dane`", EE, profile=TABLE, policy="dane"),
        _half(
            "half-table-mismatch",
            "TLSA does not match; level `may`, policy line `dane`",
            EE_OF_STRANGER,
            profile=TABLE,
            policy="dane",
        ),
        _half("half-may", "TLSA does not match; insecure MX policy `may`", EE_OF_STRANGER, profile=INSECURE_MAY),
        _half("half-may-clear", "TLSA, no STARTTLS; the same", EE, profile=INSECURE_MAY, script=NO_STARTTLS),
        _half(
            "half-encrypt",
            "TLSA does not match; insecure MX policy `encrypt`",
            EE_OF_STRANGER,
            profile=INSECURE_ENCRYPT,
        ),
        _half("half-encrypt-clear", "TLSA, no STARTTLS; the same", EE, profile=INSECURE_ENCRYPT, script=NO_STARTTLS),
        _half("half-encrypt-none", "no TLSA, no STARTTLS; the same", profile=INSECURE_ENCRYPT, script=NO_STARTTLS),
    ),
)
