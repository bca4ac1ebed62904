"""What a stricter policy says of a session that was had under another one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from relay.mail.reply import EnhancedStatus, Reply
from relay.outcome.audit import audit
from relay.policy.audit import Finding, audited_entry
from relay.policy.level import Level
from relay.policy.policy import Defaults, MalformedEntry, MapEntry, NoEntry, Rule, TlsPolicy, Withheld
from relay.policy.table import parse_table
from relay.tls.peer import Anchors, ChainFailed, ChainResult, InClear, PeerFacts

NOW = datetime(2026, 11, 26, tzinfo=UTC)
RULE = Rule("tls_policy:3 audit=dane")
PEER = PeerFacts(chain=(), protocol="TLSv1.2", cipher="X", bits=128, algorithm_bits=128)
DANE = TlsPolicy(level=Level.DANE, asked=Level.DANE, rule=RULE, sni="mx.example.com", why=("asks", "found records"))
MAY = Defaults(level=Level.MAY, level_rule=Rule("relay.toml:3"))
GLOBAL = replace(MAY, audit=Level.DANE, audit_rule=Rule("relay.toml:4"))


def untrusted(presented: tuple[bytes, ...], anchors: Anchors, now: datetime) -> ChainResult:
    del presented, anchors, now
    return ChainFailed(20, 0, "no issuer")


def finding(policy: TlsPolicy | Withheld, seen: PeerFacts | InClear, *, answered: bool = True) -> tuple[Finding, str]:
    found = audit(policy, seen, "mx[192.0.2.1]", untrusted, NOW, answered=answered)
    return found.finding, found.text


def test_no_certificate_under_dane_is_refused_and_names_the_server_name_that_was_not_sent() -> None:
    found, text = finding(DANE, PEER)
    assert found is Finding.REFUSED
    assert text.startswith("Server certificate not verified: expected usable TLSA records; found no certificate")
    assert text.endswith(
        "rule tls_policy:3 audit=dane (the session sent no server name, the audited level would send mx.example.com)"
    )
    assert "sent no" not in finding(DANE, replace(PEER, sni="mx.example.com"))[1]


def test_in_clear() -> None:
    found, text = finding(DANE, InClear("STARTTLS not offered"))
    assert found is Finding.REFUSED
    assert text.startswith("TLS is required, but was not offered by host mx[192.0.2.1]: expected STARTTLS")
    assert "454" in finding(DANE, InClear("STARTTLS refused", Reply(454, ("4.7.0 no",))))[1]
    opportunistic = replace(DANE, level=Level.MAY, why=("asks", "no TLSA records"))
    assert finding(opportunistic, InClear("STARTTLS not offered")) == (
        Finding.UNPROVED,
        "no TLSA records; in the clear: STARTTLS not offered",
    )


def test_dane_without_records_proves_nothing_and_encrypt_is_met_by_encryption() -> None:
    assert finding(replace(DANE, level=Level.MAY, why=("asks", "none")), PEER) == (Finding.UNPROVED, "none; encrypted")
    assert finding(replace(DANE, level=Level.ENCRYPT, asked=Level.ENCRYPT, why=()), PEER)[0] is Finding.VERIFIED


def test_a_protocol_that_the_level_would_not_take() -> None:
    found, text = finding(DANE, replace(PEER, protocol="TLSv1"))
    assert found is Finding.REFUSED
    assert "expected a TLS session (>=TLSv1.2); found TLSv1" in text


@pytest.mark.parametrize(("answered", "expected"), [(True, Finding.REFUSED), (False, Finding.UNKNOWN)])
def test_no_session_at_all(answered: bool, expected: Finding) -> None:
    withheld = Withheld(
        status=EnhancedStatus(4, 7, 5),
        text="no TLSA records found",
        expected="a",
        found="b",
        rule=RULE,
        asked=Level.DANE_ONLY,
    )
    assert finding(withheld, PEER, answered=answered) == (
        expected,
        "no TLSA records found: expected a; found b; rule tls_policy:3 audit=dane",
    )


def line(text: str) -> MapEntry | MalformedEntry:
    return parse_table(f"example.com {text}\n", "tls_policy").entries["example.com"]


def test_the_line_s_audit_goes_before_the_global_one() -> None:
    own = audited_entry(line("may audit=secure until=2027-01-31 ciphers=high"), GLOBAL)
    assert isinstance(own, MapEntry)
    assert (own.level, own.rule.place, own.match) == (Level.SECURE, "tls_policy:1 audit=secure", ())
    assert own.parameters.ciphers == ""
    by_default = audited_entry(line("may"), GLOBAL)
    assert isinstance(by_default, MapEntry)
    assert (by_default.level, by_default.rule.place) == (Level.DANE, "relay.toml:4")
    nothing = audited_entry(NoEntry(), GLOBAL)
    assert isinstance(nothing, MapEntry)
    assert nothing.level is Level.DANE


def test_names_stay_where_both_levels_have_names() -> None:
    own = audited_entry(line("verify match=.example.net audit=secure"), MAY)
    assert isinstance(own, MapEntry)
    assert [str(name) for name in own.match] == [".example.net"]


@pytest.mark.parametrize("text", ["may", "none", "dane audit=dane", "scure audit=dane"])
def test_nothing_to_audit(text: str) -> None:
    assert audited_entry(line(text), MAY) == NoEntry()


def test_the_global_audit_leaves_out_what_has_the_level_or_no_tls() -> None:
    assert audited_entry(line("dane"), GLOBAL) == NoEntry()
    assert audited_entry(line("none"), GLOBAL) == NoEntry()
    assert audited_entry(line("scure"), GLOBAL) == NoEntry()
    assert audited_entry(NoEntry(), replace(GLOBAL, level=Level.DANE)) == NoEntry()
