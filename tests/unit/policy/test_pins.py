"""Fingerprints in maps: how they are written, and that a rewritten map differs in them alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.policy.pins import CannotPin, find_pinned, line_of, pinned_lines, with_pins, written
from relay.policy.policy import MapEntry
from relay.policy.table import parse_table

A, B, C = ("ab" * 32, "cd" * 32, "ef" * 32)


def rewritten(text: str, *pins: str, key: str = "example.com") -> str:
    return with_pins(text, "m", find_pinned(parse_table(text, "m"), key), pins)


def test_a_line_is_read_as_it_was_written() -> None:
    entry = parse_table(line_of("example.com", [A, B]) + "\n", "m").entries["example.com"]
    assert isinstance(entry, MapEntry)
    assert entry.fingerprints == (A, B)
    assert written(A).startswith("AB:AB:")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("example.com fingerprint match=OLD\n", "example.com fingerprint match=NEW\n"),
        (
            "example.com\tfingerprint MATCH = OLD ciphers=high\nb may",
            "example.com\tfingerprint match=NEW ciphers=high\nb may",
        ),
        ("# c\nb may\nexample.com fingerprint\n # match=x\n  match=OLD,ciphers=high\n\n", None),
        ("example.com fingerprint match=OLD match=OTHER\n", "example.com fingerprint match=NEW \n"),
    ],
)
def test_only_the_pins_of_the_line_change(before: str, after: str | None) -> None:
    before = before.replace("OLD", A).replace("OTHER", B).replace(" = ", "=")
    wanted = (before.replace(A, written(C)) if after is None else after).replace("NEW", written(C))
    assert rewritten(before, C) == wanted


def test_what_is_written_otherwise_is_left_alone() -> None:
    assert rewritten(f"example.com fingerprint {{ match = {A} }}\n", C) == (
        f"example.com fingerprint {{ match={written(C)} }}\n"
    )
    with pytest.raises(CannotPin, match=r"m:1: .*write match=EF:EF"):
        rewritten(f"example.com fingerprint {{match={A}}} match={B}\n", C)
    with pytest.raises(CannotPin, match=r"m:1: .*write match=EF:EF"):
        rewritten(f"example.com fingerprint {{ match\n  = {A} }}\n", C)


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("", "example.com", "no line has the key example.com"),
        ("example.com secure\n", "example.com", "m:1: expected level fingerprint; found secure"),
        ("example.com scure\n", "example.com", "m:1: invalid security level"),
    ],
)
def test_lines_without_pins_are_refused_by_place(text: str, key: str, words: str) -> None:
    with pytest.raises(CannotPin, match=words):
        find_pinned(parse_table(text, "m"), key)


def test_keys_are_found_as_look_ups_find_them() -> None:
    table = parse_table(f"Example.COM. fingerprint match={A}\nb.example may\n", "m")
    assert [line.key for line in pinned_lines(table)] == ["example.com"]
    assert find_pinned(table, "EXAMPLE.com").pins == (A,)


LINES = st.sampled_from(
    ["b.example may", "# match=x", "", "#: audit=dane", "  ciphers=high", ".c.example secure match=x.y"]
)


@given(
    st.lists(LINES, max_size=4),
    st.lists(LINES, max_size=4),
    st.lists(st.sampled_from([A, B, C]), min_size=1, unique=True),
)
def test_other_entries_never_change(above: list[str], below: list[str], pins: list[str]) -> None:
    text = "\n".join([*above, f"example.com fingerprint match={A}", *below, ""])
    table = parse_table(text, "m")
    if not isinstance(table.entries.get("example.com"), MapEntry):
        return
    try:
        changed = rewritten(text, *pins)
    except CannotPin:
        return
    after = parse_table(changed, "m")
    assert {key: entry for key, entry in table.entries.items() if key != "example.com"} == {
        key: entry for key, entry in after.entries.items() if key != "example.com"
    }
    assert find_pinned(after, "example.com").pins == tuple(pins)
