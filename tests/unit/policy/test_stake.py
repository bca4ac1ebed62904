"""Credentials in a decision: nothing that decide() gives lets them go to a host that proved nothing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from relay.dane.tlsa import (
    Absent,
    Failed,
    MatchingType,
    NotLookedUp,
    Selector,
    Tlsa,
    TlsaLookup,
    Unusable,
    UnusableTlsa,
    Usable,
    Usage,
)
from relay.mail.names import Domain, IpLiteral, NextHop
from relay.policy.decide import asks_for_dane, decide, needs_tlsa
from relay.policy.level import Level
from relay.policy.policy import (
    Decision,
    Defaults,
    HostFacts,
    InsecureMxPolicy,
    MapEntry,
    NoEntry,
    PolicyFacts,
    Rule,
    TlsPolicy,
    Withheld,
)
from relay.sasl.credentials import AtStake, BadCredentials, NoCredentials, Owner

MX = Domain("mx.provider.test")
SMARTHOST = NextHop.parse("[smtp.provider.test]:587", default_port=25)
DOMAIN = NextHop.parse("provider.test", default_port=25)
LITERAL = NextHop.parse("[192.0.2.7]:587", default_port=25)
USABLE = Usable(MX, (Tlsa(Usage.DANE_EE, Selector.SPKI, MatchingType.SHA2_256, bytes(32)),), ())
UNUSABLE = Unusable(MX, (UnusableTlsa(b"", "no such usage"),))
STATES: tuple[TlsaLookup, ...] = (USABLE, UNUSABLE, Absent("NODATA"), NotLookedUp("insecure"), Failed("SERVFAIL"))
CONFIGURABLE = [level for level in Level if level is not Level.HALFDANE]
NEXT_HOP_KEY, HOST_KEY, SENDER_KEY = (
    AtStake("sasl_passwd:4", owner) for owner in (Owner.NEXT_HOP, Owner.HOST, Owner.SENDER)
)


def defaults(level: Level, **more: InsecureMxPolicy | bool) -> Defaults:
    return Defaults(level=level, level_rule=Rule("relay.toml:3"), **more)  # type: ignore[arg-type] # by name


def line(level: Level) -> MapEntry:
    fingerprints = ("ab" * 32,) if level is Level.FINGERPRINT else ()
    return MapEntry(level=level, rule=Rule("tls_policy:7"), fingerprints=fingerprints)


def smarthost(tlsa: TlsaLookup = STATES[2], *, validating: bool = True) -> HostFacts:
    return HostFacts(
        next_hop=SMARTHOST,
        host=Domain("smtp.provider.test"),
        had_mx=False,
        mx_secure=True,
        tlsa=tlsa,
        validating=validating,
    )


def exchanger(tlsa: TlsaLookup = STATES[2], *, mx_secure: bool = True, validating: bool = True) -> HostFacts:
    return HostFacts(next_hop=DOMAIN, host=MX, had_mx=True, mx_secure=mx_secure, tlsa=tlsa, validating=validating)


def decided(host: HostFacts, entry: MapEntry | NoEntry, level: Level, stake: AtStake = NEXT_HOP_KEY) -> Decision:
    return decide(PolicyFacts(entry=entry, host=host, defaults=defaults(level), credentials=stake))


def policy(host: HostFacts, entry: MapEntry | NoEntry, level: Level, stake: AtStake = NEXT_HOP_KEY) -> TlsPolicy:
    decision = decided(host, entry, level, stake)
    assert isinstance(decision, TlsPolicy), decision
    return decision


def everything() -> Iterator[PolicyFacts]:
    """Every way in which credentials, lines, defaults and DNS facts can meet."""
    hosts = [
        *(smarthost(tlsa, validating=validating) for tlsa, validating in product(STATES, (True, False))),
        *(
            exchanger(tlsa, mx_secure=mx_secure, validating=validating)
            for tlsa, mx_secure, validating in product(STATES, (True, False), (True, False))
        ),
        HostFacts(next_hop=LITERAL, host=IpLiteral.parse("192.0.2.7"), had_mx=False, mx_secure=True),
    ]
    entries: list[MapEntry | NoEntry] = [NoEntry(), *map(line, CONFIGURABLE)]
    rules = [
        defaults(level, insecure_mx=insecure, degrade_without_validation=degrades)
        for level, insecure, degrades in product(CONFIGURABLE, InsecureMxPolicy, (True, False))
    ]
    for host, entry, rule, stake in product(hosts, entries, rules, (NEXT_HOP_KEY, HOST_KEY, SENDER_KEY)):
        yield PolicyFacts(entry=entry, host=host, defaults=rule, credentials=stake)


def test_no_decision_lets_credentials_go_to_a_host_that_proves_nothing() -> None:
    allowed = 0
    for facts in everything():
        decision = decide(facts)
        assert isinstance(decision, TlsPolicy | Withheld)
        if isinstance(decision, Withheld):
            assert decision.status.klass == 4
            continue
        allowed += 1
        assert decision.level.requires_match, (facts, decision)
        assert decision.names or decision.fingerprints or decision.tlsa, (facts, decision)
        if decision.level is Level.HALFDANE:
            assert isinstance(facts.credentials, AtStake)
            assert facts.credentials.owner is Owner.HOST, "insecure MX records led to the host"
    assert allowed > 1000, "and some are allowed to"


def test_credentials_never_make_a_policy_weaker() -> None:
    for facts in everything():
        without = decide(PolicyFacts(entry=facts.entry, host=facts.host, defaults=facts.defaults))
        decision = decide(facts)
        if isinstance(decision, TlsPolicy) and isinstance(without, TlsPolicy):
            assert not (without.level.requires_match and not decision.level.requires_match)


@pytest.mark.parametrize("level", [Level.NONE, Level.MAY, Level.ENCRYPT, Level.VERIFY, Level.DANE])
def test_without_a_line_it_is_secure_with_the_hosts_own_name(level: Level) -> None:
    found = policy(smarthost(), NoEntry(), level)
    assert (found.level, [str(name) for name in found.names]) == (Level.SECURE, ["smtp.provider.test"])
    assert found.sni == "smtp.provider.test"
    assert str(found.rule) == "sasl_passwd:4"
    assert found.why[0] == "sasl_passwd:4 has credentials for this next-hop"


@pytest.mark.parametrize("level", [Level.NONE, Level.MAY, Level.ENCRYPT, Level.VERIFY, Level.DANE])
def test_without_a_line_it_is_dane_where_the_records_are_usable(level: Level) -> None:
    found = policy(smarthost(USABLE), NoEntry(), level)
    assert (found.level, found.tlsa) == (Level.DANE, USABLE.records)
    assert needs_tlsa(NoEntry(), smarthost(), defaults(level), NEXT_HOP_KEY)
    assert asks_for_dane(NoEntry(), defaults(level), NEXT_HOP_KEY)
    assert asks_for_dane(NoEntry(), defaults(level), NoCredentials()) is (level is Level.DANE)


def test_a_lookup_that_failed_defers_and_a_resolver_that_cannot_validate_does_not() -> None:
    failed = decided(smarthost(Failed("SERVFAIL")), NoEntry(), Level.MAY)
    assert isinstance(failed, Withheld)
    assert failed.text == "TLSA lookup error for smtp.provider.test:587"
    assert policy(smarthost(validating=False), NoEntry(), Level.DANE).level is Level.SECURE
    line_says_dane = decided(smarthost(validating=False), line(Level.DANE), Level.MAY)
    assert isinstance(line_says_dane, Withheld)


@pytest.mark.parametrize("level", [Level.DANE_ONLY, Level.SECURE])
def test_a_default_that_is_stricter_stays(level: Level) -> None:
    decision = decided(smarthost(), NoEntry(), level)
    if level is Level.SECURE:
        assert isinstance(decision, TlsPolicy)
        assert (decision.level, str(decision.rule)) == (Level.SECURE, "relay.toml:3")
    else:
        assert isinstance(decision, Withheld)


@pytest.mark.parametrize("level", [Level.NONE, Level.MAY, Level.ENCRYPT])
@pytest.mark.parametrize("tlsa", STATES)
def test_a_line_that_asks_for_less_withholds_them(level: Level, tlsa: TlsaLookup) -> None:
    decision = decided(smarthost(tlsa), line(level), Level.SECURE)
    assert isinstance(decision, Withheld)
    assert (decision.text, decision.found) == ("SASL credentials withheld", f"level {level.word}")
    assert (str(decision.rule), decision.status.klass) == ("tls_policy:7", 4)


@pytest.mark.parametrize("level", [Level.FINGERPRINT, Level.VERIFY, Level.SECURE])
def test_a_line_that_authenticates_is_the_administrators_word(level: Level) -> None:
    found = policy(smarthost(), line(level), Level.MAY)
    assert (found.level, str(found.rule)) == (level, "tls_policy:7")


@pytest.mark.parametrize("tlsa", [UNUSABLE, Absent("NODATA"), NotLookedUp("insecure")])
def test_a_line_that_says_dane_never_comes_down_to_less_than_secure(tlsa: TlsaLookup) -> None:
    found = policy(smarthost(tlsa), line(Level.DANE), Level.MAY)
    assert (found.level, [str(name) for name in found.names]) == (Level.SECURE, ["smtp.provider.test"])


def test_mx_records_without_dnssec_lend_the_host_no_name() -> None:
    insecure = policy(exchanger(mx_secure=False), NoEntry(), Level.MAY)
    assert [str(name) for name in insecure.names] == ["provider.test", ".provider.test"]
    secure = policy(exchanger(mx_secure=True), NoEntry(), Level.MAY)
    assert [str(name) for name in secure.names] == ["provider.test", ".provider.test", "mx.provider.test"]
    unproved = policy(exchanger(mx_secure=True, validating=False), NoEntry(), Level.MAY)
    assert [str(name) for name in unproved.names] == ["provider.test", ".provider.test"]


def test_credentials_of_a_host_need_that_hosts_name_and_no_other() -> None:
    found = policy(exchanger(mx_secure=False), NoEntry(), Level.MAY, HOST_KEY)
    assert [str(name) for name in found.names] == ["mx.provider.test"]


def test_half_dane_proves_the_host_and_not_the_next_hop() -> None:
    assert policy(exchanger(USABLE, mx_secure=False), NoEntry(), Level.DANE, HOST_KEY).level is Level.HALFDANE
    assert policy(exchanger(USABLE, mx_secure=False), NoEntry(), Level.DANE).level is Level.SECURE
    assert policy(exchanger(USABLE, mx_secure=False), line(Level.DANE), Level.DANE, SENDER_KEY).level is Level.SECURE


def test_an_address_has_no_name_to_prove() -> None:
    host = HostFacts(next_hop=LITERAL, host=IpLiteral.parse("192.0.2.7"), had_mx=False, mx_secure=True)
    decision = decided(host, NoEntry(), Level.MAY)
    assert isinstance(decision, Withheld)
    assert decision.found == "an address literal"
    assert policy(host, line(Level.FINGERPRINT), Level.MAY).level is Level.FINGERPRINT


def test_a_line_of_credentials_that_cannot_be_understood_holds_mail() -> None:
    bad = BadCredentials(place="sasl_passwd:9", owner=Owner.NEXT_HOP, expected="user:password", found="no colon")
    facts = PolicyFacts(entry=line(Level.SECURE), host=smarthost(), defaults=defaults(Level.DANE), credentials=bad)
    decision = decide(facts)
    assert isinstance(decision, Withheld)
    assert (str(decision.rule), decision.status.klass, decision.found) == ("sasl_passwd:9", 4, "no colon")
