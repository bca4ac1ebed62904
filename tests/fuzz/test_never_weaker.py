"""Nothing that maps, names, DNS or dates can say yields less than the global level, but a line that says so itself.

The judge here reads lines in its own simple way and shares no code with the tables: where a decision is weaker than the
global level's under the same facts, a line must stand there that names the next-hop, says the level, is well formed and
has not ended.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

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
from relay.policy.decide import decide
from relay.policy.exceptions import find, in_force
from relay.policy.level import Level
from relay.policy.policy import (
    Decision,
    Defaults,
    HostFacts,
    InsecureMxPolicy,
    MalformedEntry,
    MapEntry,
    NoEntry,
    PolicyFacts,
    Rule,
    Withheld,
)
from relay.policy.table import PolicyTables, parse_table
from tests.fuzz.effort import LONG, QUICK

TODAY = date(2026, 6, 1)
NOW = datetime.combine(TODAY, time(12), UTC)
MX = Domain("mx.example.net")
RECORD = Tlsa(Usage.DANE_EE, Selector.SPKI, MatchingType.SHA2_256, bytes(32))
LEVELS = [level for level in Level if level is not Level.HALFDANE]
ATTRIBUTES = {
    *("match", "tafile", "ciphers", "protocols", "exclude", "servername", "connection_reuse", "enable_rpk"),
    *("policy_ttl", "policy_type", "policy_domain", "policy_string", "mx_host_pattern", "policy_failure"),
    *("until", "audit"),
}


def often(likely: st.SearchStrategy[str], *others: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """The first as often as all others together."""
    return st.booleans().flatmap(lambda first: likely if first else st.one_of(*others))


# Drawn so that lines often name the next-hop: what hits nothing says nothing about weakness.
names = st.sampled_from(["a.example.com", "a.example.com", "a.example.com", "b.a.example.com"])
written_keys = often(
    st.sampled_from(["a.example.com", "a.example.com", ".example.com", ".com"]),
    names,
    names.map(str.upper),
    names.map(lambda name: f"{name}."),
    names.map(lambda name: f"[{name}]"),
    names.map(lambda name: f"[{name}]:587"),
    names.map(lambda name: f"{name}:587"),
    st.sampled_from(["[192.0.2.1]", "192.0.2.1", "*", "user@example.com", "bücher.example"]),
    st.text(max_size=12),
)
days = st.integers(-800, 800).map(lambda days: f"until={TODAY + timedelta(days)}")
attributes = st.one_of(
    st.sampled_from(
        [
            "match=nexthop",
            "match=example.com:.example.com",
            "match=" + "ab" * 32,
            "match=",
            "match",
            "ciphers=high",
            "ciphers=best",
            "protocols=>=TLSv1.2",
            "protocols=SSLv9",
            "exclude=MD5",
            "servername=nexthop",
            "connection_reuse=yes",
            "enable_rpk=perhaps",
            "policy_type=sts",
            "policy_ttl=5",
            "policy_failure=validation-failure",
            "until=2020-01-01 until=2027-01-01",
            "until=2020-01-01 until=2027-01-01",
            "until=2026-13-01",
            "until=",
            "utnil=2020-01-01",
            "audit=dane",
            "audit=may",
            "{ match = hostname }",
            "{ match",
            "}",
            ",",
            "colour=blue",
        ]
    ),
    days,
    days,
    st.text(max_size=8),
)
words = often(
    st.sampled_from(["none", "may", "encrypt"]),
    st.sampled_from([level.word for level in LEVELS]),
    st.sampled_from([level.word for level in LEVELS]),
    st.sampled_from(["MAY", "None", "secrue", "halfdane", "", "may,none", "dane-onyl", "\u0307may"]),
    st.text(max_size=6),
)
values = often(
    words,
    st.tuples(words, attributes).map(" ".join),
    st.tuples(words, st.lists(attributes, max_size=3)).map(lambda parts: " ".join([parts[0], *parts[1]])),
)
comments = often(
    st.just(""),
    days.map(lambda text: f"#: {text}\n"),
    st.just("# none\n"),
    st.just("\n"),
    st.just("#: level=none\n"),
)
indents = st.sampled_from(["", "", "", " "])
entries = st.tuples(
    comments, indents, written_keys, st.sampled_from([*" " * 6, "\t", "\n  ", "", "\u00a0"]), values
).map("".join)
lines = st.lists(entries, min_size=1, max_size=4).map("\n".join)
texts = often(lines, lines, st.text(max_size=120))
patterns = st.sampled_from(
    [
        "/./",
        "/example/",
        "/^example\\.com$/",
        "/^\\./",
        "!/^a/",
        "/(a|aa)+$/",
        "if /com/",
        "endif",
        "/[/",
        "/x",
        "/EX/i",
    ]
)
rules = st.lists(st.tuples(patterns, values).map(" ".join), max_size=5).map("\n".join)
maps = st.one_of(
    st.tuples(st.just("texthash"), texts),
    st.tuples(st.sampled_from(["hash", "lmdb", "texthash"]), texts),
    st.tuples(st.sampled_from(["pcre", "regexp"]), rules),
    st.tuples(st.just("cidr"), texts),
)
next_hops = st.one_of(
    names.map(lambda name: NextHop.parse(name, default_port=25)),
    names.map(lambda name: NextHop.parse(name, default_port=25)),
    names.map(lambda name: NextHop.parse(f"[{name}]:587", default_port=25)),
    names.map(lambda name: NextHop.parse(f"{name}:587", default_port=25)),
    st.just(NextHop.of_domain(IpLiteral.parse("192.0.2.1"), 25)),
)
lookups: st.SearchStrategy[TlsaLookup] = st.sampled_from(
    [
        Usable(MX, (RECORD,)),
        Unusable(MX, (UnusableTlsa(b"", "odd"),)),
        Absent("none"),
        NotLookedUp("insecure"),
        Failed("SERVFAIL"),
    ]
)


@st.composite
def hosts(draw: st.DrawFn) -> HostFacts:
    next_hop = draw(next_hops)
    by_mx = next_hop.use_mx
    return HostFacts(
        next_hop=next_hop,
        host=MX if by_mx else next_hop.host,
        had_mx=by_mx,
        mx_secure=draw(st.booleans()) or not by_mx,
        tlsa=draw(lookups) if isinstance(next_hop.host, Domain) else NotLookedUp("an address literal"),
        validating=draw(st.sampled_from([True, True, True, False])),
    )


defaults = st.builds(
    Defaults,
    level=st.sampled_from([level for level in LEVELS if level is not Level.FINGERPRINT]),
    level_rule=st.just(Rule("smtp.tls_security_level", "global")),
    insecure_mx=st.sampled_from(list(InsecureMxPolicy)),
    degrade_without_validation=st.booleans(),
)


def rank(decision: Decision, host: HostFacts) -> int:
    """How much is certain of what leaves."""
    if isinstance(decision, Withheld):
        return 5
    level = decision.level
    if level in (Level.NONE, Level.MAY, Level.ENCRYPT):
        return (Level.NONE, Level.MAY, Level.ENCRYPT).index(level)
    by_dns = level is Level.HALFDANE or (level.is_pkix and any(name.domain == MX for name in decision.names))
    return 3 if by_dns and not host.mx_secure else 4


def keys_of(next_hop: NextHop) -> list[str]:
    labels = next_hop.key.split(".")
    bare = next_hop.use_mx and ":" not in next_hop.key
    return [next_hop.key, *("." + ".".join(labels[number:]) for number in range(1, len(labels)) if bare)]


def says_so(kind: str, text: str, entry: MapEntry, next_hop: NextHop) -> bool:
    """Whether the line of an entry says by itself, to anybody who reads it, what the entry makes of it."""
    lines = text.split("\n")
    number = int(entry.rule.place.rpartition(":")[2])
    line = lines[number - 1]
    if line[0].isspace() or line.startswith("#"):
        return False
    for later in lines[number:]:
        if later.strip() and not later.lstrip().startswith("#"):
            if not later[0].isspace():
                break
            line += later
    if kind in ("texthash", "hash", "lmdb"):
        key = line.split()[0]
        value = line[len(key) :]
        named = key.lower().rstrip(".") in [one.rstrip(".") for one in keys_of(next_hop)]
    else:
        pattern, _, value = line.partition("/ ") if "/i " not in line else line.partition("/i ")
        flags = re.IGNORECASE if "/i " not in line else 0
        found = [bool(re.search(pattern.lstrip("!/"), key, flags)) for key in keys_of(next_hop)]
        named = not all(found) if pattern.startswith("!") else any(found)
    above = number - 2
    while above >= 0 and lines[above].strip().startswith("#:"):
        value += " " + lines[above].strip()[2:]
        above -= 1
    level, *rest = re.sub(r"\s*=\s*", "=", re.sub(r"[{},]", " ", value)).split()
    until = [word.partition("=")[2] for word in rest if word.lower().startswith("until")]
    return (
        named
        and level.lower() == entry.level.word
        and all(name in ATTRIBUTES for name in (word.partition("=")[0].lower() for word in rest if "=" in word))
        and len(until) <= 1
        and all(re.fullmatch(r"\d{4}-\d\d-\d\d", day) and date.fromisoformat(day) >= TODAY for day in until)
    )


TRAPS = (
    " a.example.com none\n",
    "#: until=2020-01-01\na.example.com none\n",
    "a.example.com none until=2020-01-01 until=2027-01-01\n",
    "[a.example.com] none\n",
    "example.com none\n",
    "a.example.com none colour\n",
    "a.example.com.example none\n",
    "a.example.com\n none until=x\n",
)


@pytest.mark.parametrize("text", TRAPS)
def test_known_traps(text: str) -> None:
    host = HostFacts(next_hop=NextHop.parse("a.example.com", default_port=25), host=MX, had_mx=True, mx_secure=True)
    check([("texthash", text)], host, Defaults(level=Level.SECURE, level_rule=Rule("global")))
    loaded = PolicyTables((parse_table(text, "0"),))
    entry = in_force(find(loaded, host.next_hop, Defaults(level=Level.SECURE, level_rule=Rule("global"))), NOW)
    assert not isinstance(entry, MapEntry)


@QUICK
@given(tables=st.lists(maps, min_size=1, max_size=3), host=hosts(), defaults=defaults)
def test_less_than_the_global_level_comes_of_a_line_that_says_so(
    tables: list[tuple[str, str]], host: HostFacts, defaults: Defaults
) -> None:
    check(tables, host, defaults)


@pytest.mark.long
@LONG
@given(tables=st.lists(maps, min_size=1, max_size=3), host=hosts(), defaults=defaults)
def test_the_same_for_long(tables: list[tuple[str, str]], host: HostFacts, defaults: Defaults) -> None:
    check(tables, host, defaults)


def check(tables: list[tuple[str, str]], host: HostFacts, defaults: Defaults) -> None:
    loaded = PolicyTables(
        tuple(parse_table(text, str(number), kind=kind) for number, (kind, text) in enumerate(tables))
    )
    entry = in_force(find(loaded, host.next_hop, defaults), NOW)
    got = decide(PolicyFacts(entry=entry, host=host, defaults=defaults))
    plain = decide(PolicyFacts(entry=NoEntry(), host=host, defaults=defaults))
    match entry:
        case NoEntry():
            assert rank(got, host) == rank(plain, host)
        case MalformedEntry():
            assert isinstance(got, Withheld)
        case MapEntry():
            if rank(got, host) < rank(plain, host):
                kind, text = tables[int(entry.rule.place.partition(":")[0])]
                assert kind != "cidr"
                assert says_so(kind, text, entry, host.next_hop), (text, entry, got)


@given(level=st.sampled_from(LEVELS), host=hosts(), defaults=defaults)
def test_what_cannot_be_known_never_weakens_a_level(level: Level, host: HostFacts, defaults: Defaults) -> None:
    """A failed look-up, or a resolver that does not validate, gives no less than any answer would."""
    entry = MapEntry(level=level, rule=Rule("m:1"), fingerprints=("ab" * 32,))
    got = decide(PolicyFacts(entry=entry, host=host, defaults=defaults))
    in_doubt = not host.validating or isinstance(host.tlsa, Failed)
    if in_doubt and level.asks_for_dane:
        assert isinstance(got, Withheld)
    if not level.asks_for_dane:
        assert isinstance(got, Withheld) or got.level is level
    if level is Level.DANE_ONLY:
        assert isinstance(got, Withheld) or got.level is Level.DANE_ONLY
