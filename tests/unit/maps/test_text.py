"""Tables of literal keys: which entry a key has, and what becomes of one that nobody can read."""

from __future__ import annotations

import pytest

from relay.maps.build import MapSpec, build_table
from relay.maps.comments import Comment
from relay.maps.notation import BadNotation
from relay.maps.table import MISSING, Answer, Failed, Found, find


def answer(spec: str, key: str, text: str = "") -> Answer:
    return build_table(MapSpec.parse(spec), text).lookup(key)


FILE = """\
# first
A.example  one two
#: until=2027-01-31
#: ticket 7
b.example
   three
c.example
d.example same   words
d.example same words
e.example one
e.example two
"""


@pytest.mark.parametrize("kind", ["texthash:", "hash:", "lmdb:", "btree:", "cdb:", "proxy:hash:", ""])
def test_a_file(kind: str) -> None:
    table = build_table(MapSpec.parse(f"{kind}maps/it"), FILE)
    assert table.lookup("a.example") == Found("one two", "maps/it:2")
    assert table.lookup("b.example") == Found("three", "maps/it:5", Comment("until=2027-01-31 ticket 7"))
    assert table.lookup("c.example") == Failed("expected format: key whitespace value", "maps/it:7")
    assert table.lookup("d.example") == Found("same   words", "maps/it:8")
    assert table.lookup("e.example") == Failed('duplicate entry: "e.example" (first at maps/it:10)', "maps/it:11")
    assert table.lookup("f.example") == MISSING
    assert list(table.keys()) == [f"{letter}.example" for letter in "abcde"]
    assert [(problem.place, problem.is_error) for problem in table.problems] == [
        ("maps/it:7", True),
        ("maps/it:9", False),
        ("maps/it:11", True),
    ]


def test_in_place() -> None:
    inline = 'inline:{ a.example=one, { B.example = two  three }, { "c d" = x } }'
    assert answer(inline, "a.example") == Found("one", "inline:{a.example=...}:1")
    found = answer(inline, "b.example")
    assert isinstance(found, Found)
    assert found.value == "two  three"
    assert isinstance(answer(inline, "c d"), Found)
    assert answer(inline, "c.example") == MISSING
    assert isinstance(answer("inline:{ a= , b=c }", "a"), Failed)
    assert answer("static:dane", "whatever") == Found("dane", "static:...:1")
    static = answer("static:{ secure match=nexthop }", "whatever")
    assert isinstance(static, Found)
    assert static.value == "secure match=nexthop"
    assert isinstance(answer("static:{ }", "whatever"), Failed)


@pytest.mark.parametrize(
    "spec",
    ["inline:a=b", "inline:{}", "inline:{ }", "inline:{a}", "inline:{{a=b}", "inline:{a=b}c", "static:{a", "inline:"],
)
def test_what_cannot_be_read_in_place_is_refused(spec: str) -> None:
    with pytest.raises(BadNotation):
        answer(spec, "a")


def test_the_first_answer_counts_and_a_failure_is_one() -> None:
    one, two, patterns = (
        build_table(MapSpec(kind, name), text)
        for kind, name, text in (("hash", "one", "a"), ("hash", "two", "a 2\nb 3"), ("pcre", "three", "/./ 4"))
    )
    assert find((one, two), "a") == Failed("expected format: key whitespace value", "one:1")
    assert find((one, two), "b") == Found("3", "two:2")
    assert find((one, two, patterns), "c") == Found("4", "three:1")
    assert find((one, two, patterns), "c", partial=True) == MISSING
