"""Which resolver is believed is told in both shapes, also when it was the first that was looked at."""

from __future__ import annotations

import json

import pytest

from relay.log.events import ResolverProbed
from relay.log.json import JsonLines
from relay.log.postfix import PostfixLines
from tests.unit.log.cases import AT

NAME = "libunbound through 127.0.0.1:53"


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (ResolverProbed(True, "good", False, resolver=NAME, kind="k"), [f"resolver validates: {NAME}: good"]),
        (ResolverProbed(True, "good", True, resolver=NAME, kind="k"), [f"resolver validates: {NAME}: good"]),
        (ResolverProbed(True, "good", False), []),
        (ResolverProbed(False, "bad", True, resolver=NAME), ["warning: resolver does not validate: bad"]),
    ],
)
def test_in_postfix_lines(event: ResolverProbed, said: list[str]) -> None:
    lines = PostfixLines(hostname="h", pid=1).lines(event, AT)
    assert [line.partition("smtp[1]: ")[2] for line in lines] == said


def test_in_json() -> None:
    (line,) = JsonLines(hostname="h", pid=1).lines(ResolverProbed(True, "good", True, resolver=NAME, kind="k"), AT)
    told = json.loads(line)
    assert (told["resolver"], told["kind"], told["validating"]) == (NAME, "k", True)
