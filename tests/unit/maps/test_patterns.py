"""Pattern and network tables: order, blocks, results, and rules that fail what reaches them."""

from __future__ import annotations

import pytest

from relay.maps.build import MapSpec, build_table
from relay.maps.patterns import MAX_KEY
from relay.maps.table import MISSING, Answer, Failed, Found


def answer(kind: str, text: str, key: str) -> Answer:
    return build_table(MapSpec(kind, "m"), text).lookup(key)


def value(kind: str, text: str, key: str) -> str:
    got = answer(kind, text, key)
    assert not isinstance(got, Failed), got
    return f"{got.value} {got.place}" if isinstance(got, Found) else ""


RULES = """\
if /\\.example$/
!/^mail\\./ outside
/^mail\\.([a-z]+)\\./ to $1, ${1} and $(1) for $$5
endif
/^(?#) x/ never
|a/b| slash
/OTHER/i sensitive
/other/ insensitive
"""


@pytest.mark.parametrize(
    ("kind", "key", "expected"),
    [
        ("pcre", "a.example", "outside m:2"),
        ("pcre", "MAIL.x.example", "to x, x and x for $5 m:3"),
        ("pcre", "mail.7.example", ""),
        ("pcre", "a/b", "slash m:6"),
        ("pcre", "other", "insensitive m:8"),
        ("pcre", "OTHER", "sensitive m:7"),
        ("regexp", "a.example", "outside m:2"),
        ("regexp", "other", "insensitive m:8"),
    ],
)
def test_rules_in_order(kind: str, key: str, expected: str) -> None:
    text = RULES if kind == "pcre" else RULES.replace("/^(?#) x/ never\n", "#\n")
    assert value(kind, text, key) == expected


@pytest.mark.parametrize(
    ("kind", "rule", "reason"),
    [
        ("pcre", "/a", 'no closing regexp delimiter "/"'),
        ("pcre", "/a/", "no replacement text"),
        ("pcre", "/a/q x", 'unknown regexp option "q"'),
        ("pcre", "/a/U x", 'unknown regexp option "U"'),
        ("pcre", "/a/ $1", 'out of range replacement index "1"'),
        ("pcre", "/(a)/ $2", 'out of range replacement index "2"'),
        ("pcre", "/(a)/ $x", 'non-numeric replacement index "x"'),
        ("pcre", "/(a)/ 5 $", "bad replacement syntax"),
        ("pcre", "!/(a)/ $1", "$number found in negative match replacement text"),
        ("pcre", "/a(/ x", "error in regex"),
        ("pcre", "/(?C1)a/ x", "not understood"),
        ("pcre", "/\\Ra/ x", "not understood"),
        ("pcre", "/a(?i)b/ x", "not understood"),
        ("pcre", "/a{,3}/ x", '"{,n}" means different things'),
        ("pcre", "example.com x", "unrecognized request"),
        ("pcre", "endif", "ENDIF without IF"),
        ("pcre", "if /a/", "IF has no matching ENDIF"),
        ("pcre", "if /a/\n /b/ x\nendif", "text after the IF pattern"),
        ("regexp", "/a(?:b)/ x", '"(?" is no POSIX expression'),
        ("regexp", "/a*?/ x", "nothing before"),
        ("regexp", "/[a/ x", "a bracket ["),
        ("regexp", "/a/x x", "basic regular expressions"),
        ("cidr", "10.0.0.1/8 x", "has host bits set"),
        ("cidr", "10.0.0.0/8", "no lookup result"),
        ("cidr", "10.0.0.0/255.0.0.0 x", "bad mask value"),
        ("cidr", "example.com x", "bad address pattern"),
        ("cidr", "if 10.0.0.0/8", "IF has no matching ENDIF"),
    ],
)
def test_a_broken_rule_fails_what_reaches_it(kind: str, rule: str, reason: str) -> None:
    first, last = ("/^first$/ 1", "/./ 2") if kind != "cidr" else ("192.0.2.1 1", "0.0.0.0/0 2")
    text = f"{first}\n{rule}\n{last}\n"
    got = answer(kind, text, "192.0.2.2" if kind == "cidr" else "a")
    assert isinstance(got, Failed)
    assert (reason in got.reason, got.place) == (True, "m:2")
    assert isinstance(answer(kind, text, "192.0.2.1" if kind == "cidr" else "first"), Found)
    assert any(
        problem.is_error and problem.place == "m:2" for problem in build_table(MapSpec(kind, "m"), text).problems
    )


@pytest.mark.parametrize("kind", ["pcre", "regexp"])
def test_a_pattern_that_takes_too_long_fails_and_nothing_else_is_tried(kind: str) -> None:
    got = answer(kind, "/^(a|aa)+$/ strong\n/./ weak\n", "a" * 200 + "!")
    assert isinstance(got, Failed)
    assert got.place == "m:1"
    assert "took longer" in got.reason


def test_a_key_that_nobody_has_is_not_looked_up() -> None:
    assert isinstance(answer("pcre", "/./ x\n", "a" * (MAX_KEY + 1)), Failed)


@pytest.mark.parametrize("brought", ["a b", "a,b", "a=b{c", "[192.0.2.1]", "a:26", 'x"y', "a\nb"])
def test_what_a_key_brings_never_becomes_a_word_of_its_own(brought: str) -> None:
    assert isinstance(answer("pcre", "/^(.*)@/ smtp:$1.example\n", f"{brought}@example.com"), Failed)
    assert isinstance(answer("pcre", "/^(.*)@/ smtp:example\n", f"{brought}@example.com"), Found)


NETWORKS = """\
if !10.0.0.0/8
192.0.2.0/24 documentation
[2001:db8::]/32 six
[2001:db9::/32] nine
endif
if 10.0.0.0/8
!10.1.0.0/16 not one
endif
10.1.2.3 exact
"""


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("192.0.2.7", "documentation m:2"),
        ("192.0.3.7", ""),
        ("2001:db8::1", ""),
        ("10.2.0.1", "not one m:7"),
        ("10.1.2.3", "exact m:9"),
        ("10.1.2.4", ""),
        ("example.com", ""),
        ("[192.0.2.7]", ""),
        ("192.0.2", ""),
    ],
)
def test_networks(key: str, expected: str) -> None:
    assert value("cidr", NETWORKS, key) == expected


def test_networks_of_both_versions() -> None:
    text = "192.0.2.0/24 four\n2001:db8::/32 six\n[2001:db9::/32] nine\n::/0 rest\n"
    assert [value("cidr", text, key).split()[0] for key in ("192.0.2.1", "2001:db8::5", "2001:db9::1", "::1")] == [
        "four",
        "six",
        "nine",
        "rest",
    ]
    assert answer("cidr", text, "198.51.100.1") == MISSING
