"""What lint says of a line, and of which it says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.names import NextHop
from relay.maps.build import MapSpec, build_table
from relay.policy.level import Level
from relay.policy.lint import Check, LintedMap, Remark, Surroundings, lint
from relay.policy.policy import Defaults, Rule
from relay.policy.table import parse_table, policy_table
from relay.sasl.passwords import CredentialTables, parse_passwords

NOW = datetime(2026, 11, 22, tzinfo=UTC)
DAY = timedelta(days=1)
SHA256, SHA1, MD5 = "ab" * 32, "ab" * 20, "ab" * 16
AROUND = Surroundings(defaults=Defaults(level=Level.MAY, level_rule=Rule("relay.toml:3")), now=NOW)
DANE = replace(AROUND, defaults=replace(AROUND.defaults, level=Level.DANE))


def of(*texts: str, around: Surroundings = AROUND) -> tuple[Remark, ...]:
    names = ("tls_policy", "second", "third")
    return lint([LintedMap(parse_table(text, name), text) for name, text in zip(names, texts, strict=False)], around)


def only(line: str, around: Surroundings = AROUND) -> Remark:
    (remark,) = of(f"# first\n{line}\n", around=around)
    assert remark.place == "tls_policy:2"
    return remark


@pytest.mark.parametrize(
    "line",
    [
        "example.com may",
        "example.com secure",
        ".example.com secure match=mx.example.net",
        "example.com encrypt protocols=>=TLSv1.2 ciphers=high exclude=RC4",
        f"example.com fingerprint match={SHA256}",
        "[mail.example.com]:587 secure servername=hostname",
        "[192.0.2.1] encrypt",
        "example.com dane-only",
    ],
)
def test_good_lines_get_no_remark(line: str) -> None:
    assert of(f"{line}\n") == ()


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("example.com scure", 'example.com: invalid security level "scure"'),
        ("example.com dane match=nexthop", 'example.com: attribute "match" invalid at security level "dane"'),
        ("k..example secure", 'no next-hop ever matches the key "k..example"'),
        ("example.com fingerprint match=zz", "example.com: "),
        ("example.com secure unitl=2027-01-01", 'example.com: invalid attribute name: "unitl"'),
    ],
)
def test_malformed_lines_are_errors_in_postfix_s_words(line: str, text: str) -> None:
    remarks = of(f"# first\n{line}\n")
    errors = [remark for remark in remarks if remark.is_error]
    assert errors
    assert all(remark.check is Check.ENTRY and remark.place == "tls_policy:2" for remark in errors)
    assert errors[0].text.startswith(text)
    assert str(errors[0]).startswith(f"tls_policy:2: error: {text}")


def test_what_the_table_only_warns_of_is_advice() -> None:
    remark = only("example.com none match=x", replace(AROUND, defaults=replace(AROUND.defaults, level=Level.NONE)))
    assert (remark.check, remark.is_error) == (Check.ENTRY, False)
    assert remark.text == 'example.com: ignoring attribute "match=x" with TLS disabled'


def test_duplicates() -> None:
    same, different = of("a.example secure\nA.example. secure\nb.example may\nb.example secure\n")[:2]
    assert (same.place, same.is_error) == ("tls_policy:2", False)
    assert (different.place, different.is_error) == ("tls_policy:4", True)
    assert 'duplicate entry: "b.example" (first at tls_policy:3)' in different.text


def test_shadowed_by_an_earlier_map() -> None:
    (remark,) = of("a.example secure\n", "b.example secure\n", "c.example may\na.example secure\n")
    assert (remark.place, remark.check, remark.is_error) == ("third:2", Check.SHADOWED, False)
    assert remark.text == "a.example: never used: tls_policy:1 has the same key and is tried first"


def test_a_bare_address_is_no_next_hop() -> None:
    remark = only("192.0.2.1 secure")
    assert remark.check is Check.UNREACHABLE
    assert remark.text.endswith("an address is written [192.0.2.1]")


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("[mail.example.com]", "neither smtp.relayhost nor smtp.transport_maps names a host in brackets"),
        ("[mail.example.com]:587", "neither smtp.relayhost nor smtp.transport_maps names a host in brackets"),
        ("example.com:25", "neither smtp.relayhost nor smtp.transport_maps names it so; write example.com"),
        ("example.com", ""),
        (".example.com", ""),
        ("[192.0.2.1]", ""),
        ("[ipv6:2001:db8::1]", ""),
    ],
)
def test_keys_that_no_route_leads_to(key: str, why: str) -> None:
    remarks = of(f"{key} secure\n", around=replace(AROUND, routes_known=True))
    assert [remark.text for remark in remarks] == ([f"{key}: no mail ever goes there: {why}"] if why else [])
    assert of(f"{key} secure\n") == ()  # nothing is known of routes


def test_with_a_relayhost_only_its_keys_are_asked_for() -> None:
    hosts = tuple(NextHop.parse(text, default_port=25) for text in ("[smart.example]:587", "hub.example.net"))
    around = replace(AROUND, routes_known=True, relay_hosts=hosts)
    text = "[smart.example]:587 secure\nhub.example.net secure\n.example.net secure\n.net secure\nexample.com secure\n"
    (remark,) = of(text, around=around)
    assert remark.place == "tls_policy:5"
    assert remark.text.endswith("smtp.relayhost sends all mail to [smart.example]:587, hub.example.net")


def test_a_line_for_a_fallback_relay_says_whose_mail_it_takes_under_less() -> None:
    (relay,) = hops = (NextHop.parse("[relay.example]:587", default_port=25),)
    around = replace(AROUND, routes_known=True, fallback=hops)
    text = "example.com secure\n[relay.example]:587 encrypt\nexample.net dane-only\nexample.org may\n"
    (remark,) = of(text, around=around)
    assert (remark.place, remark.check, remark.is_error) == ("tls_policy:2", Check.FALLBACK, False)
    assert remark.text == (
        f"{relay}: smtp.fallback_relay takes over mail of destinations whose lines ask for more: tls_policy:1 and 1 more"
    )
    assert of("example.com encrypt\n[relay.example]:587 secure\n", around=around) == ()


def test_weaker_than_the_default() -> None:
    remark = only("example.com encrypt", DANE)
    assert (remark.check, remark.is_error) == (Check.WEAKER, False)
    assert remark.text.startswith(
        "example.com: weaker than what relay.toml:3 says: encrypt instead of dane where the destination has usable TLSA"
    )
    assert of("example.com secure\nexample.net dane\nexample.org dane-only\n", around=DANE) == ()


def test_weaker_than_the_line_that_would_apply_without_it() -> None:
    (remark,) = of(".example.com secure\na.example.com may\nb.example.com dane-only\n")
    assert remark.place == "tls_policy:2"
    assert remark.text == "a.example.com: weaker than what tls_policy:1 says: may instead of secure"
    (other,) = of("a.b.example.com encrypt\n", ".example.com secure\n.b.example.com dane-only\n")
    assert "weaker than what second:2 says" in other.text


def test_nothing_is_weaker_than_a_line_that_cannot_be_understood() -> None:
    remarks = of(".example.com scure\na.example.com none\n")
    assert [remark.check for remark in remarks] == [Check.ENTRY]


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("example.com secure match=nexthop:dot-nexthop", "tls_secure_cert_match"),
        ("example.com secure match=.example.com:example.com", "tls_secure_cert_match"),
        ("example.com verify match=hostname", "tls_verify_cert_match"),
    ],
)
def test_match_that_says_nothing_new(line: str, option: str) -> None:
    remark = only(line)
    assert remark.check is Check.MATCH
    assert f"smtp.{option} says anyway" in remark.text


@pytest.mark.parametrize("match", ["nexthop", "hostname", "example.com:.example.com:mx.example.net"])
def test_match_that_says_something(match: str) -> None:
    assert of(f"example.com secure match={match}\n") == ()


def pem(*, start: datetime = NOW - DAY, end: datetime = NOW + DAY) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Partner CA")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    certificate = builder.serial_number(1).not_valid_before(start).not_valid_after(end).sign(key, hashes.SHA256())
    return certificate.public_bytes(Encoding.PEM)


def bare_key() -> bytes:
    return (
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )


@pytest.mark.parametrize(
    ("anchors", "said"),
    [
        ({"/ca.pem": pem(end=NOW - timedelta(hours=1))}, ["the certificate CN=Partner CA expired on 2026-11-21"]),
        ({"/ca.pem": pem(start=NOW + DAY, end=NOW + 9 * DAY)}, ["CN=Partner CA is not valid before 2026-11-23"]),
        ({"/ca.pem": pem()}, []),
        ({"/ca.pem": bare_key()}, []),
        ({"/ca.pem": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, []),
        ({}, []),
    ],
)
def test_trust_anchors(anchors: Mapping[str, bytes], said: list[str]) -> None:
    remarks = of("example.com secure tafile=/ca.pem\n", around=replace(AROUND, anchors=anchors))
    assert len(remarks) == len(said)
    for remark, text in zip(remarks, said, strict=True):
        assert (remark.check, remark.is_error) == (Check.TRUST_ANCHOR, False)
        assert remark.text.startswith("example.com: /ca.pem: ")
        assert text in remark.text


@pytest.mark.parametrize(("digits", "kind"), [(MD5, "md5"), (SHA1, "sha1"), ("ab" * 64, "sha512")])
def test_fingerprints_that_no_digest_can_match(digits: str, kind: str) -> None:
    remark = only(f"example.com fingerprint match={digits}")
    assert (remark.check, remark.is_error) == (Check.FINGERPRINT, True)
    assert f"as many digits as {kind} gives and never matches under smtp.tls_fingerprint_digest = sha256" in remark.text
    beside_a_good_one = only(f"example.com fingerprint match={digits}|{SHA256}")
    assert not beside_a_good_one.is_error


def test_digests_that_can_be_forged() -> None:
    around = replace(AROUND, defaults=replace(AROUND.defaults, fingerprint_digest="sha1"))
    remark = only(f"example.com fingerprint match={SHA1}", around)
    assert not remark.is_error
    assert "sha1 digests can be forged" in remark.text


@pytest.mark.parametrize(
    ("protocols", "old"),
    [(">=TLSv1", "TLSv1 and TLSv1.1"), ("!SSLv2:!SSLv3:!TLSv1", "TLSv1.1"), (">=TLSv1.2", ""), ("TLSv1.3", "")],
)
def test_old_protocols(protocols: str, old: str) -> None:
    remarks = of(f"example.com encrypt protocols={protocols}\n")
    assert [remark.check for remark in remarks] == ([Check.PROTOCOLS] if old else [])
    assert all(f"allows {old}, which RFC 8996 retired" in remark.text for remark in remarks)


def test_attributes_that_do_nothing_here_and_that_old_releases_refuse() -> None:
    remarks = of("example.com secure ENABLE_RPK=yes { connection_reuse = no }\n")
    assert [(remark.check, remark.is_error) for remark in remarks] == [
        (Check.NO_EFFECT, False),
        (Check.POSTFIX, False),
    ]
    assert "raw public keys cannot be negotiated" in remarks[0].text
    assert "Postfix before 3.9 does not know enable_rpk" in remarks[1].text
    (sts,) = of("example.com secure policy_type=sts\n")
    assert "Postfix before 3.10 does not know policy_type" in sts.text


@pytest.mark.parametrize("line", ["Müller.example secure", "example.com. secure"])
def test_keys_that_postfix_reads_otherwise(line: str) -> None:
    remark = only(line)
    assert remark.check is Check.POSTFIX
    assert f'written "{line.split(maxsplit=1)[0]}"' in remark.text


def test_upper_case_is_no_difference() -> None:
    assert of("EXAMPLE.com secure\n") == ()


def test_by_map_and_line_errors_first() -> None:
    remarks = of("# x\nb.example scure\na.example encrypt protocols=>=TLSv1\n", "192.0.2.1 secure\nc.example x\n")
    assert [remark.place for remark in remarks] == ["tls_policy:2", "tls_policy:3", "second:1", "second:2"]


@given(st.text(alphabet="ab.[]: =\n\t#|{},1dany\u00fc\ud800", max_size=120))
def test_no_text_is_too_strange(text: str) -> None:
    around = replace(DANE, routes_known=True)
    for remark in of(text, around=around):
        assert remark.place.startswith("tls_policy:")
        assert remark.text


def test_exceptions_are_told_of_before_and_after_their_end() -> None:
    lines = (f"#: until={day}\nexample.com may\n" for day in ("2026-12-01", "2026-11-01"))
    (soon,), (late,) = (of(text, around=DANE) for text in lines)
    assert soon.place == "tls_policy:2"
    assert (soon.check, soon.is_error) == (Check.EXCEPTION, False)
    assert 'the exception "may until=2026-12-01" ends in 9 days' in soon.text
    assert "has expired; relay.toml:3 (dane) applies: remove the line" in late.text
    assert of("#: until=2027-01-31\nexample.com may\n", around=DANE) == ()


def test_an_end_that_would_weaken_is_an_error() -> None:
    (remark,) = of("#: until=2027-01-31\nexample.com secure\n", around=DANE)
    assert (remark.check, remark.is_error, remark.place) == (Check.EXCEPTION, True, "tls_policy:2")


def test_an_end_that_weakens_somewhere_is_advised_of() -> None:
    (remark,) = of("#: until=2027-01-31\nexample.com encrypt\n", around=DANE)
    assert (remark.check, remark.is_error) == (Check.EXCEPTION, False)
    assert remark.text.startswith(
        "example.com: after 2027-01-31 weaker than before: may instead of encrypt where it has"
    )


def test_what_postfix_would_refuse_and_the_form_that_it_reads_over() -> None:
    beside = of("example.com may until=2027-01-31 audit=dane\n", around=DANE)
    assert [(remark.check, remark.text.partition(",")[0]) for remark in beside] == [
        (Check.POSTFIX, "example.com: no release of Postfix knows until"),
        (Check.POSTFIX, "example.com: no release of Postfix knows audit"),
    ]
    assert '"#: until=..."' in beside[0].text
    assert of("#: until=2027-01-31 audit=dane\nexample.com may\n", around=DANE) == ()


LOGIN = replace(
    AROUND,
    credentials=CredentialTables(
        tables=(parse_passwords("[smtp.test]:587 joe:hunter2\nprovider.test joe:hunter2\n", "sasl_passwd"),)
    ),
)


@pytest.mark.parametrize("level", ["none", "may", "encrypt"])
def test_a_line_that_withholds_credentials_is_an_error(level: str) -> None:
    remarks = of(f"# first\n[smtp.test]:587 {level}\n", around=LOGIN)
    (remark,) = (each for each in remarks if each.check is Check.CREDENTIALS)
    assert remark.is_error
    assert remark.text.startswith("[smtp.test]:587: sasl_passwd:1 has credentials for it, and at level ")
    assert "hunter2" not in str(remarks)


@pytest.mark.parametrize("level", ["secure", "verify", "dane", "dane-only", f"fingerprint match={SHA256}"])
def test_a_line_that_proves_the_host_is_not(level: str) -> None:
    assert not [each for each in of(f"[smtp.test]:587 {level}\n", around=LOGIN) if each.check is Check.CREDENTIALS]
    assert not of("[other.test]:587 encrypt\n", around=LOGIN)


def test_names_out_of_mx_records_are_no_proof_of_the_next_hop() -> None:
    remark = only("provider.test verify", LOGIN)
    assert (remark.check, remark.is_error) == (Check.CREDENTIALS, False)
    assert "ask for secure" in remark.text


def test_an_audit_of_the_line_s_own_level_has_no_effect() -> None:
    remark = next(iter(of("#: audit=secure\nexample.com secure\n")))
    assert (remark.check, remark.text) == (Check.NO_EFFECT, "example.com: audit=secure is the line's own level")
    assert of("#: audit=dane\nexample.com secure\n") == ()


UNDER_DANE = Surroundings(defaults=Defaults(level=Level.DANE, level_rule=Rule("relay.toml:3")), now=NOW)


def test_patterns_and_what_they_cover_up() -> None:
    maps = [
        LintedMap(parse_table("/^a\\./ may enable_rpk=yes\n/(b)/ $1\n/c/ secrue\n", "one", kind="pcre"), ""),
        LintedMap(parse_table("a.example secure\n.d.example secure\n", "two"), "a.example secure\n.d.example secure\n"),
    ]
    remarks = [str(remark) for remark in lint(maps, UNDER_DANE)]
    assert remarks[0].startswith("one:1: advice: whatever it matches: enable_rpk has no effect here")
    assert any(remark.startswith("one:1: advice: whatever it matches: weaker than what") for remark in remarks)
    assert any(
        remark.startswith("one:2: advice: if example.com is what the pattern matched: invalid") for remark in remarks
    )
    assert 'one:3: error: invalid security level "secrue"' in remarks
    assert "two:1: advice: a.example: never used: one:1 answers this key too and is tried first" in remarks
    assert not any(remark.startswith("two:2") for remark in remarks)


def test_a_static_map_covers_up_all_that_follows() -> None:
    source = build_table(MapSpec.parse("static:dane"))
    maps = [
        LintedMap(policy_table(source), ""),
        LintedMap(parse_table("a.example secure\n", "two"), "a.example secure\n"),
    ]
    (remark,) = lint(maps, UNDER_DANE)
    assert "never used: static:...:1 answers this key too" in remark.text
