"""Events against tests/golden/log: reviewed like code, never written by the code under test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from relay.log.events import Event
from relay.log.json import JsonLines
from relay.log.postfix import PostfixLines
from tests.unit.log.cases import AT, CASES

GOLDEN = Path(__file__).parents[2] / "golden" / "log"
POSTFIX = PostfixLines(hostname="relay.example", pid=4242)
JSON = JsonLines(hostname="relay.example", pid=4242)


def golden(name: str) -> dict[str, list[str]]:
    cases: dict[str, list[str]] = {}
    for line in (GOLDEN / name).read_text().splitlines():
        if line.startswith("== "):
            cases[line[3:]] = []
        elif line:
            cases[list(cases)[-1]].append(line)
    return cases


@pytest.mark.parametrize("name", CASES)
def test_postfix(name: str) -> None:
    assert list(POSTFIX.lines(CASES[name], AT)) == golden("postfix.txt")[name]


@pytest.mark.parametrize("name", CASES)
def test_json(name: str) -> None:
    (line,) = JSON.lines(CASES[name], AT)
    (expected,) = golden("json.txt")[name]
    assert json.loads(line) == json.loads(expected)
    assert line.isascii()


def test_no_golden_case_is_left_over() -> None:
    assert set(golden("postfix.txt")) == set(CASES)
    assert set(golden("json.txt")) == set(CASES)


def test_every_event_has_a_case() -> None:
    assert {type(event) for event in CASES.values()} == set(get_args(Event))
