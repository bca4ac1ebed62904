"""A fallback relay under the policy of the destination that it stands in for: what binds there, and the law."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dane.tlsa import Absent, Failed, MatchingType, Selector, Tlsa, TlsaLookup, Unusable, Usable, Usage
from relay.mail.names import Domain, NextHop
from relay.policy.decide import decide
from relay.policy.inherit import Bond, Demand, decide_for_fallback, demand_of
from relay.policy.level import Level
from relay.policy.policy import (
    Decision,
    Defaults,
    Entry,
    HostFacts,
    LiteralName,
    MalformedEntry,
    MapEntry,
    MatchRule,
    NoEntry,
    PolicyFacts,
    Rule,
    TlsParameters,
    TlsPolicy,
    Withheld,
)
from relay.sasl.credentials import AtStake, Owner

FALLBACK = NextHop.parse("[fallback.example]:587", default_port=25)
HOST = Domain("fallback.example")
RECORD = Tlsa(Usage.DANE_EE, Selector.SPKI, MatchingType.SHA2_256, bytes(32))
USABLE, ABSENT, FAILED = Usable(HOST, (RECORD,)), Absent("no TLSA records"), Failed("SERVFAIL")
STATES: tuple[TlsaLookup, ...] = (USABLE, Unusable(HOST, ()), ABSENT, FAILED)
NO_ENTRY = NoEntry()
PLACE = Rule("tls_policy:7", "example.com ...")


def entry(level: Level, *match: MatchRule, protocols: str = "") -> MapEntry:
    fingerprints = ("ab" * 32,) if level is Level.FINGERPRINT else ()
    parameters = TlsParameters(protocols=protocols)
    return MapEntry(level=level, rule=PLACE, match=match, fingerprints=fingerprints, parameters=parameters)


def decided(
    destination: Entry, demand: Demand, tlsa: TlsaLookup = ABSENT, *, default: Level = Level.MAY, own: Entry = NO_ENTRY
) -> Decision:
    defaults = Defaults(level=default, level_rule=Rule("relay.toml:3"))
    facts = HostFacts(next_hop=FALLBACK, host=HOST, had_mx=False, mx_secure=True, tlsa=tlsa)
    return decide_for_fallback(
        PolicyFacts(entry=own, host=facts, defaults=defaults), [Bond("example.com", destination, demand)]
    )


def policy(
    destination: Entry, demand: Demand, tlsa: TlsaLookup = ABSENT, *, default: Level = Level.MAY, own: Entry = NO_ENTRY
) -> TlsPolicy:
    decision = decided(destination, demand, tlsa, default=default, own=own)
    assert isinstance(decision, TlsPolicy), decision
    return decision


@pytest.mark.parametrize("level", [Level.NONE, Level.MAY, Level.ENCRYPT])
def test_plain_levels_are_the_same_there(level: Level) -> None:
    assert policy(entry(level), Demand.NOTHING, default=Level.NONE).level is level


@pytest.mark.parametrize("level", [Level.NONE, Level.MAY, Level.ENCRYPT])
def test_credentials_for_the_relay_are_not_withheld_by_the_destinations_line(level: Level) -> None:
    facts = PolicyFacts(
        entry=NO_ENTRY,
        host=HostFacts(next_hop=FALLBACK, host=HOST, had_mx=False, mx_secure=True, tlsa=ABSENT),
        defaults=Defaults(level=Level.MAY, level_rule=Rule("relay.toml:3")),
        credentials=AtStake("sasl_passwd:1", Owner.NEXT_HOP),
    )
    bound = decide_for_fallback(facts, [Bond("example.com", entry(level), Demand.NOTHING)])
    assert isinstance(bound, TlsPolicy)
    assert (bound.level, bound.names) == (Level.SECURE, (LiteralName(HOST),))


def test_names_relative_to_the_next_hop_are_the_relays() -> None:
    bound = policy(entry(Level.SECURE), Demand.PROOF)
    assert bound.level is Level.SECURE
    assert bound.names == (LiteralName(HOST), LiteralName(HOST, below=True))
    assert bound.rule.place == "tls_policy:7 for example.com"


def test_names_and_fingerprints_that_are_written_out_stay_those_of_the_destination() -> None:
    mail = LiteralName(Domain("mail.example.com"))
    assert policy(entry(Level.SECURE, mail), Demand.PROOF).names == (mail,)
    assert policy(entry(Level.FINGERPRINT), Demand.PROOF).fingerprints == ("ab" * 32,)


@pytest.mark.parametrize(
    ("demand", "tlsa", "level"),
    [
        (Demand.NOTHING, ABSENT, Level.MAY),
        (Demand.ENCRYPTION, ABSENT, Level.ENCRYPT),
        (Demand.PROOF, ABSENT, Level.SECURE),
        (Demand.PROOF, Unusable(HOST, ()), Level.SECURE),
        (Demand.NOTHING, Unusable(HOST, ()), Level.ENCRYPT),
        (Demand.NOTHING, USABLE, Level.DANE),
        (Demand.PROOF, USABLE, Level.DANE),
    ],
)
@pytest.mark.parametrize("from_map", [True, False])
def test_dane_is_worth_there_what_it_came_to_at_the_destination(
    demand: Demand, tlsa: TlsaLookup, level: Level, *, from_map: bool
) -> None:
    destination = entry(Level.DANE) if from_map else NoEntry()
    assert policy(destination, demand, tlsa, default=Level.MAY if from_map else Level.DANE).level is level


def test_dane_only_wants_records_of_the_relay() -> None:
    assert isinstance(decided(entry(Level.DANE_ONLY), Demand.PROOF), Withheld)
    assert policy(entry(Level.DANE_ONLY), Demand.PROOF, USABLE).level is Level.DANE_ONLY


def test_a_lookup_that_fails_and_a_malformed_line_withhold() -> None:
    assert isinstance(decided(entry(Level.DANE), Demand.NOTHING, FAILED), Withheld)
    broken = MalformedEntry(key="example.com", rule=PLACE, warning="what?")
    assert isinstance(decided(broken, Demand.PROOF), Withheld)
    assert isinstance(decided(entry(Level.MAY), Demand.NOTHING, own=broken), Withheld)


def test_the_relays_own_default_holds_where_it_asks_for_more_and_the_lines_protocols_stay() -> None:
    own = policy(entry(Level.MAY, protocols=">=TLSv1.3"), Demand.NOTHING, USABLE, default=Level.DANE)
    assert (own.level, own.protocols) == (Level.DANE, ">=TLSv1.3")


@pytest.mark.parametrize(
    "destination", [entry(Level.FINGERPRINT), entry(Level.SECURE, LiteralName(Domain("mail.example.com")))]
)
def test_credentials_for_the_relay_do_not_go_to_the_peer_of_a_destination(destination: MapEntry) -> None:
    defaults = Defaults(level=Level.MAY, level_rule=Rule("relay.toml:3"))
    host = HostFacts(next_hop=FALLBACK, host=HOST, had_mx=False, mx_secure=True, tlsa=ABSENT)
    stake = AtStake("sasl_passwd:1", Owner.HOST)
    facts = PolicyFacts(entry=NO_ENTRY, host=host, defaults=defaults, credentials=stake)
    held = decide_for_fallback(facts, [Bond("example.com", destination, Demand.PROOF)])
    assert isinstance(held, Withheld)
    assert held.text == "SASL credentials withheld"
    plain = decide_for_fallback(facts, [Bond("example.com", entry(Level.SECURE), Demand.PROOF)])
    assert isinstance(plain, TlsPolicy)
    assert LiteralName(HOST) in plain.names


def test_demands() -> None:
    host = HostFacts(next_hop=FALLBACK, host=HOST, had_mx=False, mx_secure=True, tlsa=ABSENT)
    defaults = Defaults(level=Level.MAY, level_rule=Rule("relay.toml:3"))

    def demand(level: Level) -> Demand:
        return demand_of(decide(PolicyFacts(entry=entry(level), host=host, defaults=defaults)))

    assert [demand(level) for level in (Level.NONE, Level.MAY, Level.DANE)] == [Demand.NOTHING] * 3
    assert demand(Level.ENCRYPT) is Demand.ENCRYPTION
    assert {demand(level) for level in (Level.FINGERPRINT, Level.VERIFY, Level.SECURE, Level.DANE_ONLY)} == {
        Demand.PROOF
    }


LEVELS = [level for level in Level if level is not Level.HALFDANE]
ENTRIES = st.one_of(st.just(NoEntry()), st.sampled_from(LEVELS).map(entry))


@given(
    destination=ENTRIES,
    found=st.sampled_from([ABSENT, USABLE, Unusable(HOST, ()), FAILED]),
    tlsa=st.sampled_from(STATES),
    default=st.sampled_from([level for level in LEVELS if level is not Level.FINGERPRINT]),
)
def test_nothing_leaves_through_the_relay_under_less_than_the_destination_asked_for(
    destination: Entry, found: TlsaLookup, tlsa: TlsaLookup, default: Level
) -> None:
    defaults = Defaults(level=default, level_rule=Rule("relay.toml:3"))
    there = HostFacts(
        next_hop=NextHop.parse("example.com", default_port=25),
        host=Domain("mx.example.com"),
        had_mx=True,
        mx_secure=True,
        tlsa=found,
    )
    asked = demand_of(decide(PolicyFacts(entry=destination, host=there, defaults=defaults)))
    assert demand_of(decided(destination, asked, tlsa, default=default)) >= asked
