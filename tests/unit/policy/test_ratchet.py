"""The ratchet: what it asks for, what it never does, and the administrator's word against it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dane.tlsa import Absent, Failed, MatchingType, NotLookedUp, Selector, Tlsa, TlsaLookup, Usable, Usage
from relay.mail.names import Domain, NextHop
from relay.policy.decide import decide
from relay.policy.level import Level
from relay.policy.policy import (
    Decision,
    Defaults,
    Entry,
    HostFacts,
    MapEntry,
    NoEntry,
    PolicyFacts,
    Rule,
    TlsPolicy,
    Withheld,
)
from relay.policy.ratchet import UNSEEN, Best, Mark, held_at, is_below, mark_of, raised

HOST = Domain("mx.example.com")
USABLE = Usable(HOST, (Tlsa(Usage.DANE_EE, Selector.SPKI, MatchingType.SHA2_256, bytes(32)),))
ABSENT = Absent("no TLSA records")
DANE = Defaults(level=Level.DANE, level_rule=Rule("relay.toml:3"))
MAY = replace(DANE, level=Level.MAY)
SEEN_DANE = Best(mark=Mark.DANE, host="mx[192.0.2.1]:25", since=date(2026, 11, 1), last=date(2026, 11, 20))
NO_ENTRY = NoEntry()
SEEN_TLS = replace(SEEN_DANE, mark=Mark.ENCRYPTED)


def facts(entry: Entry, defaults: Defaults, tlsa: TlsaLookup, *, mx_secure: bool = True) -> PolicyFacts:
    hop = NextHop.parse("example.com", default_port=25)
    host = HostFacts(next_hop=hop, host=HOST, had_mx=True, mx_secure=mx_secure, tlsa=tlsa)
    return PolicyFacts(entry=entry, host=host, defaults=defaults)


def decided(
    best: Best, tlsa: TlsaLookup, *, defaults: Defaults = DANE, entry: Entry = NO_ENTRY, mx_secure: bool = True
) -> Decision:
    """As ``Leg.decide`` does it where the ratchet is enforced."""
    about = facts(entry, defaults, tlsa, mx_secure=mx_secure)
    decision = decide(about)
    held = held_at(entry, defaults, best)
    if is_below(decision, held):
        decision = decide(replace(about, entry=raised(entry, defaults, held, best)))
    assert not is_below(decision, held)
    return decision


def test_records_that_are_gone_withhold_the_session() -> None:
    decision = decided(SEEN_DANE, ABSENT)
    assert isinstance(decision, Withheld)
    assert decision.text == "no TLSA records found"
    assert decision.rule.place == "ratchet (proved by DANE at mx[192.0.2.1]:25 on 2026-11-01) over relay.toml:3"


def test_mx_records_that_lost_their_dnssec_withhold_it_too() -> None:
    assert isinstance(decided(SEEN_DANE, NotLookedUp("insecure"), mx_secure=False), Withheld)
    assert isinstance(decided(SEEN_DANE, USABLE, mx_secure=False), Withheld)


def test_while_records_are_there_nothing_changes() -> None:
    assert decided(SEEN_DANE, USABLE) == decided(UNSEEN, USABLE)


def test_encryption_seen_is_encryption_asked_for() -> None:
    for defaults in (DANE, MAY):
        decision = decided(SEEN_TLS, ABSENT, defaults=defaults)
        assert isinstance(decision, TlsPolicy)
        assert decision.level is Level.ENCRYPT
        assert decision.protocols == defaults.mandatory_protocols
        assert str(decision.rule).startswith("ratchet (encrypted at mx[192.0.2.1]:25 on 2026-11-01) over relay.toml:3")


def test_may_is_never_held_at_records_that_it_never_asks_for() -> None:
    decision = decided(SEEN_DANE, NotLookedUp("not asked"), defaults=MAY)
    assert isinstance(decision, TlsPolicy)
    assert decision.level is Level.ENCRYPT


@pytest.mark.parametrize("level", [Level.NONE, Level.MAY, Level.ENCRYPT])
def test_a_line_is_the_administrator_s_word(level: Level) -> None:
    entry = MapEntry(level=level, rule=Rule("tls_policy:3"))
    decision = decided(SEEN_DANE, ABSENT, entry=entry)
    assert isinstance(decision, TlsPolicy)
    assert decision.level is level


def test_a_line_that_says_dane_is_held() -> None:
    decision = decided(SEEN_DANE, ABSENT, defaults=MAY, entry=MapEntry(level=Level.DANE, rule=Rule("tls_policy:3")))
    assert isinstance(decision, Withheld)
    assert decision.rule.place.endswith("over tls_policy:3")


def test_what_a_session_is_worth() -> None:
    policy = TlsPolicy(level=Level.DANE, asked=Level.DANE, rule=Rule("x"))
    assert mark_of(policy, encrypted=True) is Mark.DANE
    assert mark_of(replace(policy, level=Level.HALFDANE), encrypted=True) is Mark.ENCRYPTED
    assert mark_of(replace(policy, level=Level.SECURE), encrypted=True) is Mark.ENCRYPTED
    assert mark_of(policy, encrypted=False) is Mark.NOTHING


RANK = {Level.NONE: 0, Level.MAY: 1, Level.ENCRYPT: 2}


@given(
    st.sampled_from([UNSEEN, SEEN_TLS, SEEN_DANE]),
    st.sampled_from([USABLE, ABSENT, Failed("x"), NotLookedUp("y")]),
    st.sampled_from([level for level in Level if level is not Level.HALFDANE and level is not Level.FINGERPRINT]),
    st.booleans(),
)
def test_the_ratchet_only_ever_adds(best: Best, tlsa: TlsaLookup, level: Level, mx_secure: bool) -> None:
    defaults = replace(DANE, level=level)
    with_it, without = (decided(each, tlsa, defaults=defaults, mx_secure=mx_secure) for each in (best, UNSEEN))
    if isinstance(without, Withheld):
        assert isinstance(with_it, Withheld)
    elif isinstance(with_it, TlsPolicy):
        assert RANK.get(with_it.level, 3) >= RANK.get(without.level, 3)
