"""decide(): every level, TLSA state, MX security and option against Postfix's table, and two laws."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from relay.mail.reply import EnhancedStatus
from relay.policy.decide import decide, needs_tlsa
from relay.policy.level import Level
from relay.policy.policy import (
    Decision,
    Defaults,
    HostFacts,
    InsecureMxPolicy,
    LiteralName,
    MalformedEntry,
    MapEntry,
    MatchName,
    MatchRule,
    NoEntry,
    PolicyFacts,
    Rule,
    TlsParameters,
    TlsPolicy,
    Withheld,
)

MX = Domain("mx.example.net")
BASE = Domain("base.example.net")
NEXT_HOP = NextHop.parse("example.com", default_port=25)
RECORD = Tlsa(Usage.DANE_EE, Selector.SPKI, MatchingType.SHA2_256, bytes(32))
BAD_RECORD = UnusableTlsa(b"", "unsupported TLSA certificate usage: 1 0 1 AA")
USABLE = Usable(BASE, (RECORD,), (BAD_RECORD,))
UNUSABLE = Unusable(BASE, (BAD_RECORD,))
ABSENT = Absent("NXDOMAIN with DNSSEC")
NOT_LOOKED_UP = NotLookedUp("the address records are insecure")
FAILED = Failed("SERVFAIL")
STATES: tuple[TlsaLookup, ...] = (USABLE, UNUSABLE, ABSENT, NOT_LOOKED_UP, FAILED)
RULE = Rule("tls_policy:7", "example.com dane")
DEFAULTS = Defaults(level=Level.DANE, level_rule=Rule("relay.toml:3"))
OTHERS = [Level.NONE, Level.MAY, Level.ENCRYPT, Level.FINGERPRINT, Level.VERIFY, Level.SECURE]
DANE, ENCRYPT, MAY = InsecureMxPolicy.DANE, InsecureMxPolicy.ENCRYPT, InsecureMxPolicy.MAY


def entry_at(level: Level) -> MapEntry:
    fingerprints = ("ab" * 32,) if level is Level.FINGERPRINT else ()
    return MapEntry(level=level, rule=RULE, fingerprints=fingerprints)


def host(tlsa: TlsaLookup = NOT_LOOKED_UP, *, mx_secure: bool = True, validating: bool = True) -> HostFacts:
    return HostFacts(next_hop=NEXT_HOP, host=MX, had_mx=True, mx_secure=mx_secure, tlsa=tlsa, validating=validating)


def decided(
    entry: MapEntry | MalformedEntry | NoEntry, facts: HostFacts | None = None, defaults: Defaults = DEFAULTS
) -> Decision:
    return decide(PolicyFacts(entry=entry, host=facts or host(), defaults=defaults))


def policy(entry: MapEntry | NoEntry, facts: HostFacts | None = None, defaults: Defaults = DEFAULTS) -> TlsPolicy:
    decision = decided(entry, facts, defaults)
    assert isinstance(decision, TlsPolicy), decision
    return decision


def withheld(
    entry: MapEntry | MalformedEntry | NoEntry, facts: HostFacts | None = None, defaults: Defaults = DEFAULTS
) -> Withheld:
    decision = decided(entry, facts, defaults)
    assert isinstance(decision, Withheld), decision
    assert decision.status == EnhancedStatus(4, 7, 5)
    assert decision.expected
    assert decision.found
    return decision


# What a map line "dane" comes to: TLSA state, MX secure?, insecure MX policy -> level, or the reason for none.
_DANE_TABLE: list[tuple[TlsaLookup, bool, InsecureMxPolicy, Level | str]] = [
    *((USABLE, True, insecure, Level.DANE) for insecure in InsecureMxPolicy),
    *((UNUSABLE, True, insecure, Level.ENCRYPT) for insecure in InsecureMxPolicy),
    (USABLE, False, DANE, Level.HALFDANE),
    (USABLE, False, ENCRYPT, Level.ENCRYPT),
    (USABLE, False, MAY, Level.MAY),
    (UNUSABLE, False, DANE, Level.ENCRYPT),
    (UNUSABLE, False, ENCRYPT, Level.ENCRYPT),
    (UNUSABLE, False, MAY, Level.MAY),
    *((ABSENT, secure, insecure, Level.MAY) for secure in (True, False) for insecure in InsecureMxPolicy),
    *((NOT_LOOKED_UP, secure, insecure, Level.MAY) for secure in (True, False) for insecure in InsecureMxPolicy),
    *(
        (FAILED, secure, insecure, "TLSA lookup error for mx.example.net:25")
        for secure in (True, False)
        for insecure in InsecureMxPolicy
    ),
]


@pytest.mark.parametrize(("tlsa", "mx_secure", "insecure_mx", "expected"), _DANE_TABLE)
@pytest.mark.parametrize("source", ["map", "default"])
def test_dane(
    source: str, tlsa: TlsaLookup, mx_secure: bool, insecure_mx: InsecureMxPolicy, expected: Level | str
) -> None:
    entry = entry_at(Level.DANE) if source == "map" else NoEntry()
    decision = decided(entry, host(tlsa, mx_secure=mx_secure), replace(DEFAULTS, insecure_mx=insecure_mx))
    match decision:
        case TlsPolicy():
            assert decision.level is expected
            assert decision.asked is Level.DANE
            assert bool(decision.tlsa) == decision.level.is_dane
        case Withheld():
            assert decision.text == expected


def test_the_dane_table_is_whole() -> None:
    assert len({(id(t), s, i) for t, s, i, _ in _DANE_TABLE}) == len(STATES) * 2 * len(InsecureMxPolicy)


@pytest.mark.parametrize("insecure_mx", InsecureMxPolicy)
@pytest.mark.parametrize(
    ("tlsa", "mx_secure", "expected"),
    [
        (USABLE, True, Level.DANE_ONLY),
        (UNUSABLE, True, "TLSA records unusable"),
        (ABSENT, True, "no TLSA records found"),
        (NOT_LOOKED_UP, True, "no TLSA records found"),
        (FAILED, True, "TLSA lookup error for mx.example.net:25"),
        *((tlsa, False, "non DNSSEC destination") for tlsa in STATES),
    ],
)
def test_dane_only_is_never_moved(
    tlsa: TlsaLookup, mx_secure: bool, expected: Level | str, insecure_mx: InsecureMxPolicy
) -> None:
    decision = decided(
        entry_at(Level.DANE_ONLY), host(tlsa, mx_secure=mx_secure), replace(DEFAULTS, insecure_mx=insecure_mx)
    )
    got = decision.level if isinstance(decision, TlsPolicy) else decision.text
    assert got == expected


@pytest.mark.parametrize("level", OTHERS)
@pytest.mark.parametrize("validating", [True, False])
@pytest.mark.parametrize("mx_secure", [True, False])
@pytest.mark.parametrize("tlsa", STATES)
def test_dns_moves_no_other_level(level: Level, tlsa: TlsaLookup, mx_secure: bool, validating: bool) -> None:
    got = policy(entry_at(level), host(tlsa, mx_secure=mx_secure, validating=validating))
    assert got == policy(entry_at(level))
    assert (got.level, got.asked, got.tlsa) == (level, level, ())


@pytest.mark.parametrize("tlsa", STATES)
@pytest.mark.parametrize("mx_secure", [True, False])
@pytest.mark.parametrize("level", [Level.DANE, Level.DANE_ONLY])
@pytest.mark.parametrize("source", ["map", "default"])
@pytest.mark.parametrize("degrade", [True, False])
def test_without_validation(level: Level, source: str, tlsa: TlsaLookup, mx_secure: bool, degrade: bool) -> None:
    entry = entry_at(level) if source == "map" else NoEntry()
    defaults = replace(DEFAULTS, level=level, degrade_without_validation=degrade)
    decision = decided(entry, host(tlsa, mx_secure=mx_secure, validating=False), defaults)
    if degrade and source == "default" and level is Level.DANE:
        assert isinstance(decision, TlsPolicy)
        assert decision.level is Level.MAY
        assert any("resolver does not validate" in step for step in decision.why)
        assert "dns.on_no_validation = degrade" in decision.alarm
    else:
        assert isinstance(decision, Withheld)
        assert decision.text == "resolver does not validate"


def test_a_malformed_entry_is_withheld_with_postfixs_warning() -> None:
    bad = MalformedEntry(key=".example.com", rule=RULE, warning='invalid security level "x"')
    got = withheld(bad)
    assert got.text == "client TLS configuration problem"
    assert got.warning == 'smtp_tls_policy_maps, next-hop destination ".example.com": invalid security level "x"'
    assert got.rule is RULE


def test_fingerprint_without_fingerprints_is_withheld() -> None:
    assert withheld(MapEntry(level=Level.FINGERPRINT, rule=RULE)).text == "client TLS configuration problem"
    assert policy(entry_at(Level.FINGERPRINT)).fingerprints == ("ab" * 32,)


@pytest.mark.parametrize(
    ("level", "match", "next_hop", "names"),
    [
        (Level.VERIFY, (), "example.com", ["mx.example.net"]),
        (Level.SECURE, (), "example.com", ["example.com", ".example.com"]),
        (Level.SECURE, (), "[relay.example.com]:587", ["relay.example.com", ".relay.example.com"]),
        (Level.SECURE, (MatchName.HOSTNAME,), "example.com", ["mx.example.net"]),
        (
            Level.VERIFY,
            (LiteralName(Domain("a.example"), below=True), MatchName.NEXTHOP, MatchName.NEXTHOP),
            "example.com",
            [".a.example", "example.com"],
        ),
    ],
)
def test_names_at_pkix_levels(level: Level, match: tuple[MatchRule, ...], next_hop: str, names: list[str]) -> None:
    facts = replace(host(), next_hop=NextHop.parse(next_hop, default_port=25))
    assert [str(name) for name in policy(MapEntry(level=level, rule=RULE, match=match), facts).names] == names


def test_default_names_come_from_the_options() -> None:
    defaults = replace(DEFAULTS, verify_match=(MatchName.NEXTHOP,), secure_match=(LiteralName(Domain("s.example")),))
    assert [str(n) for n in policy(entry_at(Level.VERIFY), defaults=defaults).names] == ["example.com"]
    assert [str(n) for n in policy(entry_at(Level.SECURE), defaults=defaults).names] == ["s.example"]


def test_a_pkix_level_without_any_name_is_withheld() -> None:
    literal = NextHop.parse("[192.0.2.1]", default_port=25)
    facts = replace(host(), next_hop=literal, host=IpLiteral.parse("192.0.2.1"), had_mx=False)
    for level in (Level.VERIFY, Level.SECURE):
        assert withheld(entry_at(level), facts).expected == "a name to match"


def test_dane_reference_names_and_sni() -> None:
    secure = policy(entry_at(Level.DANE), replace(host(USABLE), expanded_next_hop=Domain("expanded.example")))
    assert [str(name) for name in secure.names] == ["base.example.net", "example.com", "expanded.example"]
    assert (secure.sni, secure.tlsa_base, secure.tlsa) == ("base.example.net", "base.example.net", (RECORD,))
    assert secure.rule.place == "TLSA _25._tcp.base.example.net by tls_policy:7"
    insecure = policy(entry_at(Level.DANE), host(USABLE, mx_secure=False))
    assert [str(name) for name in insecure.names] == ["base.example.net"]


def test_servername_is_for_levels_other_than_dane() -> None:
    parameters = TlsParameters(servername="hostname")
    assert policy(replace(entry_at(Level.SECURE), parameters=parameters)).sni == "mx.example.net"
    assert policy(replace(entry_at(Level.DANE), parameters=parameters), host(USABLE)).sni == "base.example.net"
    nexthop = TlsParameters(servername="nexthop")
    assert policy(replace(entry_at(Level.MAY), parameters=nexthop)).sni == "example.com"
    literal = TlsParameters(servername="sni.example")
    assert policy(replace(entry_at(Level.MAY), parameters=literal)).sni == "sni.example"
    assert policy(entry_at(Level.SECURE)).sni == ""


def test_protocols_and_ciphers_by_class() -> None:
    defaults = replace(DEFAULTS, protocols="p", mandatory_protocols="mp", ciphers="medium", mandatory_ciphers="high")
    may, encrypt = (policy(entry_at(level), defaults=defaults) for level in (Level.MAY, Level.ENCRYPT))
    assert (may.protocols, may.ciphers) == ("p", "medium")
    assert (encrypt.protocols, encrypt.ciphers) == ("mp", "high")
    # The class is that of what dane came to, not of what was asked for.
    assert policy(entry_at(Level.DANE), host(ABSENT), defaults).protocols == "p"
    assert policy(entry_at(Level.DANE), host(USABLE), defaults).protocols == "mp"
    own = TlsParameters(protocols="x", ciphers="null", exclude="MD5")
    got = policy(replace(entry_at(Level.ENCRYPT), parameters=own), defaults=defaults)
    assert (got.protocols, got.ciphers, got.exclude) == ("x", "null", "MD5")


@pytest.mark.parametrize("level", [level for level in Level if level is not Level.HALFDANE])
def test_an_external_policy_failure_refuses_every_certificate(level: Level) -> None:
    entry = replace(entry_at(level), policy_failure="sts-policy-invalid")
    if level.requires_match:
        got = withheld(entry, host(USABLE))
        assert (got.text, got.found) == (
            "Server certificate not verified",
            "external policy failure (sts-policy-invalid)",
        )
    else:
        assert policy(entry, host(USABLE)).level is level


@pytest.mark.parametrize(
    ("entry", "facts", "insecure_mx", "needed"),
    [
        (entry_at(Level.DANE), host(), DANE, True),
        (NoEntry(), host(), DANE, True),
        (NoEntry(), host(mx_secure=False), DANE, True),
        (NoEntry(), host(mx_secure=False), ENCRYPT, True),
        (NoEntry(), host(mx_secure=False), MAY, False),
        (NoEntry(), host(), MAY, True),
        (entry_at(Level.DANE_ONLY), host(), MAY, True),
        (entry_at(Level.DANE_ONLY), host(mx_secure=False), DANE, False),
        (NoEntry(), replace(host(), host=IpLiteral.parse("192.0.2.1")), DANE, False),
        (MalformedEntry(key="k", rule=RULE, warning="w"), host(), DANE, False),
        *((entry_at(level), host(), DANE, False) for level in OTHERS),
    ],
)
def test_needs_tlsa(
    entry: MapEntry | MalformedEntry | NoEntry, facts: HostFacts, insecure_mx: InsecureMxPolicy, needed: bool
) -> None:
    assert needs_tlsa(entry, facts, replace(DEFAULTS, insecure_mx=insecure_mx)) is needed


_LEVELS = st.sampled_from([level for level in Level if level is not Level.HALFDANE])
_DEFAULTS = st.builds(
    Defaults,
    level=_LEVELS.filter(lambda level: level is not Level.FINGERPRINT),
    level_rule=st.just(RULE),
    insecure_mx=st.sampled_from(InsecureMxPolicy),
    degrade_without_validation=st.booleans(),
)
_ENTRIES = st.one_of(st.just(NoEntry()), _LEVELS.map(entry_at))
_STRENGTH = {Level.HALFDANE: 5, Level.DANE: 5, Level.DANE_ONLY: 5}  # all three need a TLSA match


def strength(level: Level) -> int:
    return _STRENGTH.get(level, int(level))


@given(_ENTRIES, _DEFAULTS, st.sampled_from(STATES), st.booleans())
def test_no_dns_failure_yields_a_weaker_level(
    entry: MapEntry | NoEntry, defaults: Defaults, tlsa: TlsaLookup, mx_secure: bool
) -> None:
    """Take any facts and let a look-up fail, or validation stop: no session at all, or one at least as strong."""
    before = decided(entry, host(tlsa, mx_secure=mx_secure), defaults)
    failed = decided(entry, host(FAILED, mx_secure=mx_secure), defaults)
    blind = decided(entry, host(tlsa, mx_secure=mx_secure, validating=False), defaults)
    degrades = isinstance(entry, NoEntry) and defaults.level is Level.DANE and defaults.degrade_without_validation
    for after in (failed, *(() if degrades else (blind,))):
        if isinstance(after, TlsPolicy):
            assert isinstance(before, TlsPolicy)
            assert strength(after.level) >= strength(before.level)


@given(_ENTRIES, _DEFAULTS, st.sampled_from(STATES), st.booleans(), st.booleans())
def test_every_decision_keeps_the_administrators_word(
    entry: MapEntry | NoEntry, defaults: Defaults, tlsa: TlsaLookup, mx_secure: bool, validating: bool
) -> None:
    decision = decided(entry, host(tlsa, mx_secure=mx_secure, validating=validating), defaults)
    asked = entry.level if isinstance(entry, MapEntry) else defaults.level
    assert decision.asked is asked
    if isinstance(decision, TlsPolicy):
        assert decision.why
        assert not decision.alarm or not validating
        allowed = {Level.MAY, Level.ENCRYPT, Level.HALFDANE, Level.DANE} if asked is Level.DANE else {asked}
        assert decision.level in allowed
        assert bool(decision.names) == (decision.level.is_dane or decision.level.is_pkix)


@pytest.mark.parametrize(
    ("host", "patterns", "fits"),
    [
        ("mx1.example.net", ("mx1.example.net",), True),
        ("mx1.example.net", ("*.example.org", "*.example.net"), True),
        ("a.mx1.example.net", ("*.example.net",), False),
        ("example.net", ("*.example.net",), False),
        ("mx2.example.net", ("mx1.example.net",), False),
        ("mx1.example.net", ("",), False),
    ],
)
def test_hosts_of_an_sts_policy_in_a_line(host: str, patterns: tuple[str, ...], fits: bool) -> None:
    entry = replace(entry_at(Level.SECURE), match=(LiteralName(Domain("x.example")),), mx_patterns=patterns)
    facts = HostFacts(
        next_hop=NextHop.parse("example.com", default_port=25), host=Domain(host), had_mx=True, mx_secure=False
    )
    got = decide(PolicyFacts(entry=entry, host=facts, defaults=DEFAULTS))
    if fits:
        assert isinstance(got, TlsPolicy)
        assert got.names == (LiteralName(Domain(host)),)  # its own name, whatever match= says
    else:
        assert isinstance(got, Withheld)
        assert (str(got.status), got.text) == ("4.3.0", "server unavailable or unable to receive mail")
        assert got.warning == f"MX name '{host}' does not match STS MX pattern for 'example.com'"
