"""Attributes in ``#:`` comments: whose they are, what may stand there, and that doubt defers."""

from __future__ import annotations

from datetime import date

import pytest

from relay.policy.level import Level
from relay.policy.policy import NO_END, MalformedEntry, MapEntry
from relay.policy.table import PolicyTable, parse_table


def table(*lines: str) -> PolicyTable:
    return parse_table("".join(f"{line}\n" for line in lines), "tls_policy")


def entry(read: PolicyTable, key: str = "example.com") -> MapEntry:
    found = read.entries[key]
    assert isinstance(found, MapEntry), found
    return found


def warning(read: PolicyTable, key: str = "example.com") -> str:
    found = read.entries[key]
    assert isinstance(found, MalformedEntry), found
    assert any(problem.is_error and found.warning in problem.text for problem in read.problems)
    return found.warning


def test_a_comment_and_the_line_say_the_same() -> None:
    above = table("#: until=2027-01-31 audit=dane", "example.com may")
    beside = table("# nothing", "example.com may until=2027-01-31 audit=dane")
    for read in (above, beside):
        found = entry(read)
        assert (found.level, found.until, found.audit) == (Level.MAY, date(2027, 1, 31), Level.DANE)
        assert found.rule.place == "tls_policy:2"
        assert not read.problems


def test_several_comments_and_continued_entries() -> None:
    read = table(
        "# why", "#: until=2027-01-31", "  #:audit=secure", "example.com may", "  ciphers=high", "b.example may"
    )
    assert (entry(read).until, entry(read).audit) == (date(2027, 1, 31), Level.SECURE)
    assert entry(read).parameters.ciphers == "high"
    assert (entry(read, "b.example").until, entry(read, "b.example").audit) == (NO_END, Level.NONE)


def test_level_none_takes_an_end_too() -> None:
    assert entry(table("#: until=2027-01-31", "example.com none")).until == date(2027, 1, 31)
    read = table("example.com none until=2027-01-31 ciphers=high")
    assert entry(read).until == date(2027, 1, 31)
    assert [problem.text for problem in read.problems] == [
        'example.com: ignoring attribute "ciphers=high" with TLS disabled'
    ]


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (("#: unitl=2027-01-31", "example.com may"), 'attribute "unitl" must stand on the line itself'),
        (("#: ciphers=high", "example.com may"), 'attribute "ciphers" must stand on the line itself'),
        (("#: until 2027-01-31", "example.com may"), "malformed attribute/value pair"),
        (("#: until=2027-01-31", "", "example.com may"), 'malformed "#:" comment in line 1: line 2 parts it'),
        (("#: until=2027-01-31", "# a word", "example.com may"), "line 2 parts it from the entry"),
        (("example.com may", "#: until=2027-01-31", " ciphers=high"), "it stands within the entry"),
        (("#: until=2027-01-31", "example.com may until=2027-02-01"), 'attribute "until" is specified multiple times'),
        (("#: until=31.1.2027", "example.com may"), 'malformed value: "31.1.2027": expected YYYY-MM-DD'),
        (("example.com may until=2027-02-30",), "expected YYYY-MM-DD"),
        (("example.com may until=20270131",), "expected YYYY-MM-DD"),
        (("example.com may until=9999-12-31",), "that is no end; leave it out"),
        (("example.com may audit=may",), "nothing is audited at this level"),
        (("example.com may audit=fingerprint",), "nothing is audited at this level"),
        (("example.com may audit=danes",), "invalid security level 'danes'"),
        (("example.com none audit=dane",), 'attribute "audit" invalid at security level "none"'),
        (("example.com may audit=dane audit=secure",), 'attribute "audit" is specified multiple times'),
    ],
)
def test_what_cannot_be_understood_makes_the_entry_malformed(lines: tuple[str, ...], text: str) -> None:
    assert text in warning(table(*lines))


def test_a_comment_below_the_last_entry_may_have_been_meant_for_it() -> None:
    assert "in line 2: no entry follows it" in warning(table("example.com may", "#: until=2027-01-31"))
    assert not table("# nothing", "#: until=2027-01-31").problems


def test_the_same_key_twice_with_different_comments_is_a_contradiction() -> None:
    read = table("#: until=2027-01-31", "example.com may", "example.com may")
    found = read.entries["example.com"]
    assert isinstance(found, MalformedEntry)
    assert "duplicate entry" in found.warning


def test_patterns_take_comments_too() -> None:
    read = parse_table("#: until=2027-01-31\n/^example/ may\n", "patterns", kind="regexp")
    found = read.lookup("example.com")
    assert isinstance(found, MapEntry)
    assert found.until == date(2027, 1, 31)


def test_a_commented_out_entry_gives_its_attributes_to_nobody() -> None:
    read = table("#: until=2027-01-31", "#example.com may", "other.example may")
    assert "line 2 parts it" in warning(read, "other.example")


@pytest.mark.parametrize("ornament", ["#:::::::::", "#:", "#:-----", "#:== partners ==", "#:#:#:"])
def test_ornaments_are_no_attributes(ornament: str) -> None:
    read = table(ornament, "example.com may", ornament, "", ornament)
    assert entry(read).until == NO_END
    assert not read.problems
