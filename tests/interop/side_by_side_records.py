"""Destinations that differ in what their TLSA records are and what they match (RFC 7671, RFC 7672 section 3)."""

from __future__ import annotations

from relay.lab.ca import CertificateKind, Signer
from relay.lab.destination import TlsaSpec
from tests.interop.side_by_side_case import ALONE, EE, EE_OF_STRANGER, NO_STARTTLS, TA, Case, Host, Section, one_host

_SHA512_OF_STRANGER = TlsaSpec(3, 1, 2, Signer.STRANGER)
_SHORT_DIGEST = "3 1 1 " + "ab" * 20

END_ENTITY = Section(
    "DANE-EE: the host's own certificate or key",
    (
        one_host("ee", "`3 1 1` matches", EE, certificate=CertificateKind.SELF_SIGNED),
        one_host("ee-certificate", "`3 0 2` matches", TlsaSpec(3, 0, 2)),
        one_host("ee-full", "`3 0 0` matches: the whole certificate in the DNS", TlsaSpec(3, 0, 0)),
        one_host("ee-mismatch", "`3 1 1` of another key", EE_OF_STRANGER),
        one_host("ee-expired", "`3 1 1` matches an expired certificate", EE, certificate=CertificateKind.EXPIRED),
        one_host("ee-early", "`3 1 1` matches one not yet valid", EE, certificate=CertificateKind.NOT_YET_VALID),
        one_host(
            "ee-name", "`3 1 1` matches a certificate of another name", EE, certificate=CertificateKind.WRONG_NAME
        ),
        one_host("ee-rollover", "two `3 1 1`, the second matches", EE_OF_STRANGER, EE),
        one_host("agility", "`3 1 1` matches, the stronger `3 1 2` does not", _SHA512_OF_STRANGER, EE),
        one_host("agility-full", "`3 1 0` matches, `3 1 2` does not", _SHA512_OF_STRANGER, TlsaSpec(3, 1, 0)),
        one_host("agility-selector", "`3 0 1` matches, `3 1 2` does not", _SHA512_OF_STRANGER, TlsaSpec(3, 0, 1)),
    ),
)

TRUST_ANCHOR = Section(
    "DANE-TA: an authority in the chain",
    (
        one_host("ta", "`2 1 1` of the issuer", TA),
        one_host("ta-root", "`2 0 1` of the root, which is sent along", TlsaSpec(2, 0, 1, Signer.ROOT)),
        one_host("ta-full", "`2 0 0` of the issuer", TlsaSpec(2, 0, 0, Signer.ISSUER)),
        one_host("ta-wildcard", "`2 1 1`, wildcard certificate", TA, certificate=CertificateKind.WILDCARD),
        one_host("ta-next-hop", "`2 1 1`, the certificate is the next-hop domain's", TA, issued_for="ta-next-hop.test"),
        one_host("ta-expired", "`2 1 1`, expired", TA, certificate=CertificateKind.EXPIRED),
        one_host("ta-name", "`2 1 1`, another name", TA, certificate=CertificateKind.WRONG_NAME),
        one_host("ta-mismatch", "`2 1 1` of a certificate that is not there", TlsaSpec(2, 1, 1, Signer.STRANGER)),
        one_host(
            "ta-unrelated",
            "`2 1 1` of an authority that is sent along and signed nothing",
            TlsaSpec(2, 1, 1, Signer.ROOT),
            certificate=CertificateKind.UNRELATED_CA,
        ),
        one_host(
            "ta-leaf",
            "`2 0 1` of the host's own self-signed certificate",
            TlsaSpec(2, 0, 1),
            certificate=CertificateKind.SELF_SIGNED,
        ),
        one_host("ee-or-ta", "`3 1 1` of another key, `2 1 1` of the issuer", EE_OF_STRANGER, TA),
        one_host(
            "ee-and-ta-name",
            "`3 1 1` matches, `2 1 1` of the issuer, another name",
            EE,
            TA,
            certificate=CertificateKind.WRONG_NAME,
        ),
    ),
)

UNUSABLE = Section(
    "Records that cannot be used",
    (
        one_host("mixed", "`1 1 1`, and `3 1 1` matches", TlsaSpec(1, 1, 1), EE),
        one_host("mixed-mismatch", "`1 1 1` would match, `3 1 1` does not", TlsaSpec(1, 1, 1), EE_OF_STRANGER),
        one_host("pkix-ee", "`1 1 1` only", TlsaSpec(1, 1, 1), certificate=CertificateKind.SELF_SIGNED),
        one_host("pkix-ta", "`0 0 1` only", TlsaSpec(0, 0, 1, Signer.ISSUER)),
        one_host("usage-4", "usage 4 only", "4 1 1 " + "ab" * 32),
        one_host("pkix-clear", "`1 1 1` only, no STARTTLS", TlsaSpec(1, 1, 1), script=NO_STARTTLS),
        one_host("pkix-only-dane-only", "`1 1 1` only; policy line `dane-only`", TlsaSpec(1, 1, 1), policy="dane-only"),
        one_host(
            "short-digest",
            "`3 1 1` with 20 octets only",
            _SHORT_DIGEST,
            certificate=CertificateKind.SELF_SIGNED,
        ),
        one_host("short-digest-mixed", "`3 1 1` with 20 octets, and one that matches", _SHORT_DIGEST, EE),
        one_host("short-digest-clear", "`3 1 1` with 20 octets only, no STARTTLS", _SHORT_DIGEST, script=NO_STARTTLS),
        one_host(
            "short-digest-dane-only",
            "`3 1 1` with 20 octets only; policy line `dane-only`",
            _SHORT_DIGEST,
            policy="dane-only",
        ),
        one_host("selector-7", "`3 7 1` only", "3 7 1 " + "ab" * 32),
        one_host("digest-9", "`3 1 9` only", "3 1 9 " + "ab" * 32),
        one_host("digest-255", "`3 1 255` (private use) only", "3 1 255 " + "ab" * 32),
        one_host("no-digest", "`3 1 1` without data", r"\# 3 030101", profile=ALONE),
        one_host("not-a-certificate", "`3 0 0` with data that is no certificate", "3 0 0 " + "ab" * 64),
    ),
)

WHERE = Section(
    "Where TLSA records are looked for",
    (
        one_host(
            "tlsa-alias",
            "the TLSA name is a CNAME",
            EE,
            tlsa_at="_dane.tlsa-alias.test.",
            records=("_{port}._tcp.mx.tlsa-alias.test. IN CNAME _dane.tlsa-alias.test.",),
        ),
        one_host(
            "tlsa-alias-insecure",
            "the TLSA name is a CNAME into an unsigned zone; what is there would not match",
            EE_OF_STRANGER,
            tlsa_at="_dane.tlsa-alias.insecure.test.",
            records=("_{port}._tcp.mx.tlsa-alias-insecure.test. IN CNAME _dane.tlsa-alias.insecure.test.",),
        ),
        Case(
            name="host-alias",
            what="the MX host is a CNAME; TLSA at its target, another one at the alias",
            hosts=(Host(name="target.host-alias.test", tlsa=(TA,)),),
            exchangers=("mx.host-alias.test.",),
            records=(
                "mx.host-alias.test. IN CNAME target.host-alias.test.",
                "_{port}._tcp.mx.host-alias.test. IN TLSA 3 1 1 " + "ab" * 32,
            ),
        ),
        Case(
            name="host-alias-original",
            what="the MX host is a CNAME; TLSA at the alias only",
            hosts=(
                Host(
                    name="target.host-alias-original.test",
                    issued_for="mx.host-alias-original.test",
                    tlsa=(TA,),
                    tlsa_at="_{port}._tcp.mx.host-alias-original.test.",
                ),
            ),
            exchangers=("mx.host-alias-original.test.",),
            records=("mx.host-alias-original.test. IN CNAME target.host-alias-original.test.",),
        ),
        Case(
            name="host-alias-insecure",
            what="the MX host is a CNAME into an unsigned zone; TLSA at the alias",
            hosts=(
                Host(
                    name="target.host-alias.insecure.test",
                    tlsa=(EE,),
                    tlsa_at="_{port}._tcp.mx.host-alias-insecure.test.",
                ),
            ),
            exchangers=("mx.host-alias-insecure.test.",),
            records=("mx.host-alias-insecure.test. IN CNAME target.host-alias.insecure.test.",),
        ),
        Case(
            name="host-alias-from-insecure",
            what="the MX host is a CNAME from an unsigned zone; a TLSA at its target that does not match",
            hosts=(Host(name="target.host-alias-from-insecure.test", tlsa=(EE_OF_STRANGER,)),),
            exchangers=("mx.host-alias-from-insecure.insecure.test.",),
            records=("mx.host-alias-from-insecure.insecure.test. IN CNAME target.host-alias-from-insecure.test.",),
        ),
        Case(
            name="domain-alias",
            what="the next-hop domain is a CNAME; `2 1 1`, the certificate is its target's",
            hosts=(Host(name="mx.domain-alias.test", issued_for="target.domain-alias.test", tlsa=(TA,)),),
            exchangers=(),
            records=(
                "domain-alias.test. IN CNAME target.domain-alias.test.",
                "target.domain-alias.test. IN MX 10 mx.domain-alias.test.",
            ),
        ),
        Case(
            name="implicit-mx",
            what="no MX records: the domain is its own host, with a TLSA",
            hosts=(Host(name="implicit-mx.test", tlsa=(EE,)),),
            exchangers=(),
        ),
        Case(
            name="implicit-mx-mismatch",
            what="no MX records: the domain is its own host, its TLSA does not match",
            hosts=(Host(name="implicit-mx-mismatch.test", tlsa=(EE_OF_STRANGER,)),),
            exchangers=(),
        ),
    ),
)
