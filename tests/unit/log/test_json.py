from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.log.json import JsonLines
from relay.log.postfix import PostfixLines
from tests.unit.log.cases import AT, CASES, ID
from tests.unit.log.test_postfix import hostile

WORDS = JsonLines(hostname="relay.example", pid=4242)
POSTFIX = PostfixLines(hostname="relay.example", pid=4242)


@pytest.mark.parametrize("name", CASES)
def test_the_queue_id_is_on_every_line_that_has_one(name: str) -> None:
    event = CASES[name]
    (line,) = WORDS.lines(event, AT)
    assert json.loads(line).get("queue_id", "") == getattr(event, "queue_id", "")
    assert ID in line or all(ID not in told for told in POSTFIX.lines(event, AT))


@pytest.mark.parametrize("name", CASES)
def test_every_line_says_when_where_and_what(name: str) -> None:
    told = json.loads(WORDS.lines(CASES[name], AT)[0])
    assert list(told)[:4] == ["time", "host", "pid", "event"]
    assert told["time"] == "2026-11-22T05:32:05.123Z"


@given(st.text(max_size=60) | st.sampled_from(["\r\n", "\ud800", "a" * 5000]))
def test_whatever_strangers_write_an_event_is_one_bounded_line(text: str) -> None:
    for event, _ in hostile(text):
        (line,) = WORDS.lines(event, AT)
        assert len(line) <= 40_000
        assert line.isascii()
        assert line.isprintable()
        json.loads(line)
