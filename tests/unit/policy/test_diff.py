"""What changes for whom between two sets of maps."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.names import NextHop
from relay.policy.diff import MALFORMED, Change, diff
from relay.policy.level import Level
from relay.policy.policy import Defaults, Rule
from relay.policy.table import PolicyTables, parse_table

DEFAULTS = Defaults(level=Level.DANE, level_rule=Rule("relay.toml:3"))
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
A64, B64 = "ab" * 32, "cd" * 32


def tables(text: str, name: str) -> PolicyTables:
    return PolicyTables((parse_table(text, name),))


def changes(old: str, new: str, *queued: str) -> dict[str, Change]:
    hops = [NextHop.parse(text, default_port=25) for text in queued]
    found = diff(tables(old, "old"), tables(new, "new"), DEFAULTS, hops, now=NOW)
    assert [change.destination for change in found] == sorted({change.destination for change in found})
    return {change.destination: change for change in found}


def one(old: str, new: str) -> Change:
    (change,) = changes(f"example.com {old}\n" if old else "", f"example.com {new}\n" if new else "").values()
    assert change.destination == "example.com"
    return change


def test_nothing_changes_where_lines_only_move() -> None:
    assert changes("a.example secure\nb.example may\n", "# new\n\nb.example   may\nA.EXAMPLE. secure\n") == {}


@pytest.mark.parametrize(
    ("old", "new", "aspects", "weaker"),
    [
        ("secure", "may", ("level", "match"), True),
        ("may", "secure", ("level", "match"), False),
        ("secure", "secure match=mx.example.net", ("match",), False),
        ("secure", "secure match=nexthop:dot-nexthop:mx.example.net", ("match",), True),
        (f"fingerprint match={A64}", f"fingerprint match={B64}", ("fingerprints",), False),
        (f"fingerprint match={A64}", f"fingerprint match={A64}|{B64}", ("fingerprints",), True),
        (f"fingerprint match={A64}|{B64}", f"fingerprint match={B64}", ("fingerprints",), False),
        ("secure tafile=/a.pem", "secure", ("tafiles",), True),
        ("encrypt", "encrypt protocols=>=TLSv1", ("protocols",), True),
        ("encrypt", "encrypt ciphers=high", ("ciphers",), False),
        ("encrypt exclude=RC4", "encrypt", ("exclude",), True),
        ("secure", "secure servername=hostname", ("servername",), False),
    ],
)
def test_one_line_changes(old: str, new: str, aspects: tuple[str, ...], weaker: bool) -> None:
    change = one(old, new)
    assert change.aspects == aspects
    assert bool(change.weaker) is weaker
    assert not change.becomes_malformed


def test_the_order_of_fingerprints_is_no_change() -> None:
    line = "example.com fingerprint match={}|{}\n"
    assert changes(line.format(A64, B64), line.format(B64, A64)) == {}


def test_a_line_goes_and_the_default_holds() -> None:
    change = one("secure", "")
    assert change.aspects == ("level", "rule", "match")
    assert (change.before.rule.place, change.after.rule.place) == ("old:1", "relay.toml:3")
    assert (change.before.key, change.after.key) == ("example.com", "")
    assert change.weaker


def test_a_line_comes_that_says_what_the_default_says() -> None:
    change = one("", "dane")
    assert change.aspects == ("rule",)
    assert not change.weaker


def test_a_line_becomes_malformed_and_is_mended() -> None:
    broken = one("secure", "scure")
    assert broken.becomes_malformed
    assert (broken.after.level, broken.after.warning) == (MALFORMED, 'invalid security level "scure"')
    assert not broken.weaker  # no mail is no leak
    mended = one("scure", "secure")
    assert not mended.becomes_malformed
    assert not mended.weaker
    assert one("scure", "may").weaker
    assert changes("example.com scure\n", "example.com scure\n") == {}


def test_what_is_below_a_parent_changes_by_its_line() -> None:
    found = changes(
        ".example.com may\nb.example.com may\n", ".example.com secure\nb.example.com may\na.example.com may\n"
    )
    assert set(found) == {".example.com", "a.example.com"}
    assert found[".example.com"].aspects == ("level", "match")
    own = found["a.example.com"]
    assert own.aspects == ("rule",)
    assert (own.before.key, own.after.key) == (".example.com", "a.example.com")


def test_a_line_of_its_own_takes_over_from_the_parent() -> None:
    found = changes(".example.com secure\n", ".example.com secure\na.example.com may\n")
    assert set(found) == {"a.example.com"}
    assert found["a.example.com"].weaker == ("may instead of secure",)


def test_queued_destinations_count_and_are_looked_up() -> None:
    found = changes(
        ".example.com secure\n",
        ".example.com may\n",
        "a.example.com",
        "a.example.com",
        "any.example.com",
        "else.example",
    )
    assert {name: change.queued for name, change in found.items()} == {
        ".example.com": 0,
        "a.example.com": 2,
        "any.example.com": 1,
    }


def test_brackets_ports_and_strange_keys() -> None:
    found = changes("[mail.example.com]:587 secure\nk..example secure\n", "", "[192.0.2.1]")
    assert set(found) == {"[mail.example.com]:587"}


def test_keys_in_other_letters_are_the_same_key() -> None:
    assert changes("Müller.example secure\n", "xn--mller-kva.example secure\n") == {}


LINES = st.sampled_from(["", "none", "may", "encrypt", "dane", "dane-only", "verify", "secure", "nonsense"])


@given(st.dictionaries(st.sampled_from(["a.x.example", ".x.example", "x.example", ".example"]), LINES), st.data())
def test_there_and_back(old: dict[str, str], data: st.DataObject) -> None:
    new = data.draw(st.dictionaries(st.sampled_from(list(old) or ["y.example"]), LINES))
    one_text, other_text = ("".join(f"{key} {line}\n" for key, line in lines.items() if line) for lines in (old, new))
    there, back = changes(one_text, other_text), changes(other_text, one_text)
    assert set(there) == set(back)
    for name, change in there.items():
        assert (change.before.level, change.after.level) == (back[name].after.level, back[name].before.level)
        assert change.aspects == back[name].aspects
    assert changes(one_text, one_text) == {}


def test_exceptions_that_end_later_or_never_are_weaker() -> None:
    assert one("may until=2027-01-31", "may until=2027-03-01").weaker == (
        "does not end on 2027-01-31 but on 2027-03-01",
    )
    assert one("may until=2027-01-31", "may").weaker == ("does not end on 2027-01-31",)
    shorter = one("may until=2027-03-01", "may until=2027-01-31")
    assert (shorter.aspects, shorter.weaker) == (("until",), ())
    assert one("may", "may audit=dane").aspects == ("audit",)


def test_a_line_that_has_ended_counts_for_nothing() -> None:
    renewed = one("may until=2026-01-31", "may until=2027-01-31")
    assert (renewed.before.level, renewed.after.level) == ("dane", "may")
    assert renewed.before.rule.place == "relay.toml:3 since old:1 expired on 2026-01-31"
    assert renewed.weaker


def test_an_end_where_none_may_be_is_malformed_in_the_new_map() -> None:
    assert one("secure", "secure until=2027-01-31").becomes_malformed
