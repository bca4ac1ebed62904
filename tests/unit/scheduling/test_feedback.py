"""Postfix's notation of feedback, and what a malformed one is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.scheduling.feedback import WHOLE, Feedback, Per


@pytest.mark.parametrize(
    ("text", "window", "value"),
    [
        ("1", 5, 1),
        ("0", 5, 0),
        ("0.25", 5, 0.25),
        ("1/8", 5, 0.125),
        ("1 / 10", 20, 0.1),
        ("1 / concurrency", 5, 0.2),
        ("1/concurrency", 20, 0.05),
        ("0.5/concurrency", 5, 0.1),
        ("1 / sqrt_concurrency", 16, 0.25),
    ],
)
def test_values(text: str, window: int, value: float) -> None:
    assert Feedback.parse(text).value(window) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1.5", "2", "1/0", "1/0.5", "1/window", "1/1/1", "1 concurrency", "inf", "nan", "1e3", "١"]
)
def test_what_postfix_ignores_with_a_warning_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Feedback.parse(text)


@given(st.builds(Feedback, st.sampled_from([0.0, 0.125, 0.5, 1.0]), st.sampled_from(Per)))
def test_what_is_written_is_read_again(feedback: Feedback) -> None:
    assert Feedback.parse(str(feedback)) == feedback


def test_the_default_is_a_whole_delivery() -> None:
    assert Feedback.parse("1") == WHOLE
