"""Line numbers in TOML: strings, arrays, comments, dotted and quoted keys, inline tables."""

from __future__ import annotations

import json
import tomllib

from hypothesis import given
from hypothesis import strategies as st

from relay.config.locate import locate

DOCUMENT = '''\
# [smtp] in a comment
top.dotted = 1

[ relay ] # header
myhostname = "x # not a comment ] = [smtp]"
multi = """
[smtp]
port = 1 \\""" still
"""
literal = \'\'\'
[smtp]
\'\'\'
array = [ # comment ] "
  "a ] # = x", 'b"',
  [1, 2], # [smtp]
]
inline = { a = 1, b = "}" }

[smtp]
"quoted key" = 1
port = 25 # x = 1
tls . dotted = 2
  indented=3
date = 1979-05-27 07:32:00
quotes = """a""""
after = 1
[[list]]
x = 1
[[list]]
x = 2
[a."b.c".d]
e = 1'''


def test_locate() -> None:
    tomllib.loads(DOCUMENT)
    lines = locate(DOCUMENT)
    assert lines == {
        ("top",): 2,
        ("top", "dotted"): 2,
        ("relay",): 4,
        ("relay", "myhostname"): 5,
        ("relay", "multi"): 6,
        ("relay", "literal"): 10,
        ("relay", "array"): 13,
        ("relay", "inline"): 17,
        ("smtp",): 19,
        ("smtp", "quoted key"): 20,
        ("smtp", "port"): 21,
        ("smtp", "tls"): 22,
        ("smtp", "tls", "dotted"): 22,
        ("smtp", "indented"): 23,
        ("smtp", "date"): 24,
        ("smtp", "quotes"): 25,
        ("smtp", "after"): 26,
        ("list",): 27,
        ("list", "x"): 28,
        ("a",): 31,
        ("a", "b.c"): 31,
        ("a", "b.c", "d"): 31,
        ("a", "b.c", "d", "e"): 32,
    }


def test_nothing() -> None:
    assert locate("") == {}
    assert locate("\n# only a comment") == {}


_TEXT = st.text(alphabet=st.sampled_from("ab[]{}=#'\"\\\n ,."), max_size=15)


def toml(value: object) -> str:
    return f"[{', '.join(map(toml, value))}]" if isinstance(value, list) else json.dumps(value)


@given(st.lists(st.recursive(_TEXT | st.integers(), lambda inner: st.lists(inner, max_size=3)), max_size=8))
def test_whatever_the_values_each_key_is_on_its_line(values: list[object]) -> None:
    text = "[s]\n" + "".join(f"k{number} = {toml(value)} # ]'\"\n" for number, value in enumerate(values))
    assert list(tomllib.loads(text)["s"].values()) == values
    assert locate(text) == {("s",): 1} | {("s", f"k{number}"): number + 2 for number in range(len(values))}
