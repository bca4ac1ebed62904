"""References in values: every notation, what is empty, and what makes no sense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.importing.expand import CannotExpand, expand

VALUES = {"a": "one", "b": "$a two", "none": "", "level": "3.10", "circle": "$circle", "many": "$b $b $b"}


def of(text: str) -> str:
    return expand(text, lambda name: VALUES.get(name, ""))


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("x", "x"),
        ("$a", "one"),
        ("${a}", "one"),
        ("$(a)", "one"),
        ("${ a }", "one"),
        ("$a.$b", "one.one two"),
        ("$$a", "$a"),
        ("$unknown", ""),
        ("${a?yes}", "yes"),
        ("${none?yes}", ""),
        ("${none:no}", "no"),
        ("${a:no}", ""),
        ("${a?{yes $b}:{no}}", "yes one two"),
        ("${none?{yes}:{no $a}}", "no one"),
        ("${none?{10}:{300}}s", "300s"),
        ("${a?$b}", "one two"),
        ("${{$a} == {one} ? {same} : {other}}", "same"),
        ("${{$a} != {one} ? {other} : {same}}", "same"),
        ("${{2} < {10} ? {number}}", "number"),
        ("${{$level} <level {3.6} ? {old} : {new}}", "new"),
        ("${{$level} >=level {3.9} ? {new}}", "new"),
        ("${{3.6} <level {2} ? {old} : {}}", ""),
        ("${{$a} == {b}:{other}}", "other"),
    ],
)
def test_notations(text: str, expanded: str) -> None:
    assert of(text) == expanded


@pytest.mark.parametrize(
    "text", ["${a", "$(a", "$", "$!", "${}", "${a!b}", "$circle", "${{a} = {b} ? {c}}", "${{a} <level {b}?{c}}"]
)
def test_what_makes_no_sense_is_said(text: str) -> None:
    with pytest.raises(CannotExpand):
        of(text)


def test_what_grows_without_bound_is_cut_short() -> None:
    values = {f"x{n}": f"$x{n + 1} " * 10 for n in range(20)}
    with pytest.raises(CannotExpand):
        expand("$x0", lambda name: values.get(name, "x" * 100))


@given(st.text(alphabet="${}()?:ab =<", max_size=40))
def test_whatever_is_written_ends(text: str) -> None:
    try:
        expand(text, lambda name: "v" if name == "a" else "")
    except CannotExpand:
        return
