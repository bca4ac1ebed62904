"""Lines that end: where they may stand, what holds after them, and what is said of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dane.tlsa import Absent, Failed, NotLookedUp, TlsaLookup
from relay.mail.names import Domain, NextHop
from relay.policy.compare import lesser_guarantees
from relay.policy.decide import decide
from relay.policy.exceptions import endings, find, in_force, misplaced
from relay.policy.level import Level
from relay.policy.policy import (
    Defaults,
    Entry,
    HostFacts,
    MalformedEntry,
    MapEntry,
    NoEntry,
    PolicyFacts,
    Rule,
    TlsPolicy,
    Withheld,
    rule_of,
)
from relay.policy.table import PolicyTables, parse_table

DANE = Defaults(level=Level.DANE, level_rule=Rule("relay.toml:3"))
LAST = datetime(2027, 1, 31, 23, 59, 59, 999_999, tzinfo=UTC)
AFTER = datetime(2027, 2, 1, tzinfo=UTC)
HOP = NextHop.parse("example.com", default_port=25)


def tables(*texts: str) -> PolicyTables:
    return PolicyTables(tuple(parse_table(text, f"map{number}") for number, text in enumerate(texts, 1)))


def at(found: Entry, when: datetime) -> tuple[str, str]:
    """The level and the rule that hold."""
    entry = in_force(found, when)
    level = "malformed" if isinstance(entry, MalformedEntry) else "default"
    return (entry.level.word if isinstance(entry, MapEntry) else level), rule_of(entry, DANE).place


def test_the_last_day_counts_whole_in_utc_and_then_the_default_holds() -> None:
    found = find(tables("example.com may until=2027-01-31\n"), HOP, DANE)
    assert at(found, LAST) == ("may", "map1:1")
    assert at(found, AFTER) == ("default", "relay.toml:3 since map1:1 expired on 2027-01-31")
    # East of Greenwich the day is over earlier by the clock on the wall, and not by UTC.
    assert at(found, LAST.astimezone(timezone(timedelta(hours=9)))) == ("may", "map1:1")


def test_what_the_line_covered_up_holds_next_table_then_parent() -> None:
    both = tables(".com secure\na.example.com may until=2027-01-31\n", "a.example.com encrypt\n")
    hop = NextHop.parse("a.example.com", default_port=25)
    assert at(find(both, hop, DANE), AFTER) == ("encrypt", "map2:1 since map1:2 expired on 2027-01-31")
    alone = tables(".com secure\na.example.com may until=2027-01-31\n")
    assert at(find(alone, hop, DANE), AFTER) == ("secure", "map1:1 since map1:2 expired on 2027-01-31")


def test_exceptions_from_exceptions_end_one_by_one() -> None:
    found = find(
        tables("example.com none until=2027-01-31\n", "example.com may until=2027-03-01\n", "example.com secure\n"),
        HOP,
        DANE,
    )
    assert at(found, LAST)[0] == "none"
    assert at(found, AFTER) == ("may", "map2:1 since map1:1 expired on 2027-01-31")
    assert at(found, AFTER + timedelta(days=60)) == (
        "secure",
        "map3:1 since map1:1 expired on 2027-01-31 and map2:1 expired on 2027-03-01",
    )


def test_after_the_end_a_malformed_line_still_defers() -> None:
    found = find(tables("example.com may until=2027-01-31\n.com scure\n", "example.com scure\n"), HOP, DANE)
    assert at(found, LAST)[0] == "may"
    assert at(found, AFTER) == ("malformed", "map2:1 since map1:1 expired on 2027-01-31")


@pytest.mark.parametrize(
    ("line", "others"),
    [
        ("secure until=2027-01-31", ""),
        ("dane until=2027-01-31", ""),
        ("dane-only until=2027-01-31", ""),
        ("encrypt until=2027-01-31", ".com.example none\n"),
        ("secure until=2027-01-31", ".other secure\n"),
    ],
)
def test_an_end_that_would_weaken_makes_the_line_malformed(line: str, others: str) -> None:
    defaults = Defaults(level=Level.NONE, level_rule=Rule("relay.toml:3")) if "none" in others else DANE
    maps = tables(f"# first\nexample.com {line}\n{others}")
    found = find(maps, HOP, defaults)
    assert isinstance(found, MalformedEntry)
    assert found.rule.place == "map1:2"
    assert found.key == "example.com"
    assert "weaker than what applies without it (relay.toml:3)" in found.warning
    (problem,) = misplaced(maps, defaults)
    assert problem.is_error
    assert str(problem).startswith('map1:2: example.com: attribute "until" allowed only on a line that is weaker')
    facts = PolicyFacts(entry=in_force(found, LAST), host=host(Absent("none")), defaults=defaults)
    decision = decide(facts)
    assert isinstance(decision, Withheld)
    assert (str(decision.status), decision.rule.place) == ("4.7.5", "map1:2")


@pytest.mark.parametrize(
    "line",
    [
        "may until=2027-01-31",
        "none until=2027-01-31",
        "encrypt until=2027-01-31",  # weaker where there are TLSA records
    ],
)
def test_weaker_lines_may_end(line: str) -> None:
    maps = tables(f"example.com {line}\n")
    assert isinstance(find(maps, HOP, DANE), MapEntry)
    assert not list(misplaced(maps, DANE))


def test_more_names_at_the_same_level_are_weaker_too() -> None:
    maps = tables(".com secure\na.example.com secure match=nexthop:dot-nexthop:mx.example.net until=2027-01-31\n")
    assert not list(misplaced(maps, DANE))


def test_warned_of_from_two_weeks_before() -> None:
    maps = tables("# first\nexample.com may until=2027-01-31\n")

    def said(day: datetime) -> list[str]:
        return [str(problem) for problem in endings(maps, DANE, day)]

    assert said(datetime(2027, 1, 16, 23, tzinfo=UTC)) == []
    (soon,) = said(datetime(2027, 1, 17, tzinfo=UTC))
    assert soon == (
        'map1:2: example.com: the exception "may until=2027-01-31" ends in 14 days (at the end of that day, UTC); '
        "then relay.toml:3 (dane) applies"
    )
    assert "ends tomorrow" in said(datetime(2027, 1, 30, 12, tzinfo=UTC))[0]
    assert "ends today" in said(LAST)[0]
    (late,) = said(AFTER)
    assert late == (
        'map1:2: example.com: the exception "may until=2027-01-31" has expired; relay.toml:3 (dane) applies: '
        "remove the line"
    )
    assert not any(problem.is_error for problem in endings(maps, DANE, AFTER))


def test_an_ended_line_is_in_the_reason_of_a_refusal() -> None:
    found = find(tables("example.com may until=2027-01-31\n", "example.com dane-only\n"), HOP, DANE)
    decision = decide(PolicyFacts(entry=in_force(found, AFTER), host=host(Absent("none")), defaults=DANE))
    assert isinstance(decision, Withheld)
    assert str(decision.rule) == "map2:1 since map1:1 expired on 2027-01-31"


def host(tlsa: TlsaLookup) -> HostFacts:
    return HostFacts(next_hop=HOP, host=Domain("mx.example.com"), had_mx=True, mx_secure=True, tlsa=tlsa)


LEVELS = st.sampled_from(["none", "may", "encrypt", "dane", "dane-only", "verify", "secure", "nonsense"])
ENDS = st.sampled_from(
    ["", " until=2027-01-31", " until=2026-01-01", " until=2027-13-01", " until=", " unitl=2027-01-31"]
)
LINES = st.builds(lambda level, end: f"{level}{end}", LEVELS, ENDS)
TLSA = st.sampled_from([Absent("none"), NotLookedUp("insecure"), Failed("SERVFAIL")])
DEFAULT = st.sampled_from([Level.NONE, Level.MAY, Level.ENCRYPT, Level.DANE, Level.DANE_ONLY, Level.SECURE])


@given(st.lists(LINES, max_size=3), LINES | st.just(""), DEFAULT, TLSA, st.booleans())
def test_nothing_but_a_well_formed_line_that_holds_is_weaker_than_the_default(
    own: list[str], parent: str, level: Level, tlsa: TlsaLookup, late: bool
) -> None:
    """Must show 6: whatever the maps say, the global level holds unless a good line of today says otherwise."""
    maps = tables(*(f"a.example {line}\n" for line in own), f".example {parent}\n" if parent else "")
    defaults = Defaults(level=level, level_rule=Rule("relay.toml:3"))
    hop = NextHop.parse("a.example", default_port=25)
    when = AFTER if late else LAST
    entry = in_force(find(maps, hop, defaults), when)
    with_line = decide(PolicyFacts(entry=entry, host=host(tlsa), defaults=defaults))
    without = decide(PolicyFacts(entry=NoEntry(), host=host(tlsa), defaults=defaults))
    if isinstance(entry, MapEntry):
        assert entry.until >= when.date()
        assert all(word not in entry.rule.text for word in ("nonsense", "unitl", "2027-13", "2026-01-01"))
        if isinstance(with_line, TlsPolicy):
            assert with_line.asked is entry.level
    elif isinstance(entry, NoEntry):
        assert isinstance(with_line, Withheld) == isinstance(without, Withheld)
        if isinstance(with_line, TlsPolicy) and isinstance(without, TlsPolicy):
            assert with_line.level is without.level
    else:
        assert isinstance(with_line, Withheld)


@given(LINES, LINES | st.just(""), DEFAULT)
def test_the_end_of_a_line_always_strengthens_somewhere(own: str, parent: str, level: Level) -> None:
    maps = tables(f"a.example {own}\n.example {parent}\n" if parent else f"a.example {own}\n")
    defaults = Defaults(level=level, level_rule=Rule("relay.toml:3"))
    hop = NextHop.parse("a.example", default_port=25)
    before = in_force(find(maps, hop, defaults), LAST)
    after = in_force(find(maps, hop, defaults), AFTER)
    if isinstance(before, MapEntry) and before.rule != rule_of(after, defaults) and "until" in before.rule.text:
        assert lesser_guarantees(after, before, hop, defaults)


def test_lines_of_patterns_end_too() -> None:
    maps = PolicyTables((parse_table("/\\.example$/ may until=2027-01-31\n", "patterns", kind="regexp"),))
    hop = NextHop.parse("a.example", default_port=25)
    assert at(find(maps, hop, DANE), LAST) == ("may", "patterns:1")
    assert at(find(maps, hop, DANE), AFTER) == ("default", "relay.toml:3 since patterns:1 expired on 2027-01-31")
    (soon,) = endings(maps, DANE, LAST)
    assert "ends today (at the end of that day, UTC); then what applies without it applies" in str(soon)
    strict = Defaults(level=Level.NONE, level_rule=Rule("relay.toml:3"))
    assert isinstance(find(maps, hop, strict), MalformedEntry)
