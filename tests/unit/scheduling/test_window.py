"""One destination's window against the numbers of Postfix's SCHEDULER_README and qmgr_queue.c."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.reply import EnhancedStatus
from relay.scheduling.feedback import Feedback
from relay.scheduling.window import Failing, Limits, Window

FAILING = Failing(status=EnhancedStatus(4, 4, 1), reason="connect to mx[192.0.2.1]:25: Connection refused")
OURS = Failing(status=EnhancedStatus(4, 3, 0), reason="internal error", ours=True)


def after(window: Window, results: str, now: float = 0.0) -> list[int]:
    """Play deliveries that all run at once and end so: ``+`` for a success, ``-`` for a failure of the destination."""
    sizes = []
    for result in results:
        window.busy = max(window.busy, window.size)
        window.ended(now, FAILING if result == "-" else None)
        sizes.append(window.size)
    return sizes


def deaths(limits: Limits) -> int:
    """After how many failures in a row a destination is dead."""
    window = Window(limits)
    for count in range(1, 10_000):
        window.busy += 1
        window.ended(0, FAILING)
        if window.suspension is not None:
            return count
    raise AssertionError("never")


def test_with_the_defaults_three_failures_in_a_row_are_the_end() -> None:
    # The first failure takes two away (qmgr_queue.c; the README's formula takes one): 1/5 + 1/3 + 1/2 is a cohort.
    # tests/interop/test_postfix_scheduling.py counts the same at a running Postfix.
    assert deaths(Limits()) == 3
    assert after(Window(Limits()), "--") == [3, 2]


@pytest.mark.parametrize(
    ("negative", "cohorts", "count"),
    [
        ("1 / concurrency", 1, 5),  # a whole cohort of five fails: 1/5, then 1/4 three times, then 1/3
        ("0", 1, 5),  # the window never moves: five fifths
        ("1", 10, 12),  # 1/5 + 1/3 + 1/2, and from then on each failure is a cohort of one
    ],
)
def test_failed_cohorts(negative: str, cohorts: int, count: int) -> None:
    assert deaths(Limits(negative=Feedback.parse(negative), failed_cohorts=cohorts)) == count


def test_no_limit_of_cohorts_means_never_dead_and_never_below_one() -> None:
    window = Window(Limits(failed_cohorts=0))
    assert after(window, "-" * 50)[-1] == 1
    assert window.suspension is None


def test_one_success_forgives_failures() -> None:
    window = Window(Limits())
    after(window, "--+-")
    assert window.suspension is None


def test_whole_feedback_grows_by_one_each_time_up_to_the_limit() -> None:
    assert after(Window(Limits(limit=8)), "+" * 6) == [6, 7, 8, 8, 8, 8]


def test_feedback_by_concurrency_grows_by_one_a_cohort() -> None:
    # At the end of a cycle: five successes of 1/5 make six, about six of 1/6 make seven.
    sizes = after(Window(Limits(positive=Feedback.parse("1 / concurrency"))), "+" * 11)
    assert sizes == [5] * 4 + [6] * 6 + [7]


def test_negative_feedback_is_felt_at_the_beginning_of_its_cycle() -> None:
    sizes = after(Window(Limits(negative=Feedback.parse("1 / concurrency"), failed_cohorts=0)), "-----")
    assert sizes == [4, 4, 4, 3, 3]


def test_a_window_grows_only_so_far_beyond_what_is_under_way_as_it_began() -> None:
    window = Window(Limits(initial=2, limit=20))
    for _ in range(20):
        window.busy = 1
        window.ended(0, None)
    assert window.size == 3


def test_a_pause_ends_and_the_window_begins_anew() -> None:
    window = Window(Limits(initial=5))
    after(window, "----")
    suspension = window.suspension
    assert suspension is not None
    assert suspension.why is FAILING
    assert suspension.until == 300
    window.busy = 0
    window.revive()
    assert window.suspension is None
    assert window.size == 5


def test_a_success_of_what_was_still_under_way_revives_with_that_many() -> None:
    window = Window(Limits(initial=5))
    after(window, "----")
    window.busy = 3
    window.ended(0, None)
    assert window.suspension is None
    assert window.size == 3


def test_a_failure_while_dead_does_not_lengthen_the_pause() -> None:
    window = Window(Limits())
    after(window, "----")
    window.busy = 1
    window.ended(200, FAILING)
    assert window.suspension is not None
    assert window.suspension.until == 300


def test_a_fault_that_may_be_ours_costs_a_shorter_pause() -> None:
    window = Window(Limits(initial=1))
    window.busy = 1
    window.ended(10, OURS)
    assert window.suspension is not None
    assert window.suspension.until == 70


def test_a_rate_makes_the_limit_one() -> None:
    window = Window(Limits(rate_delay=2.5))
    assert after(window, "+++", now=7) == [1, 1, 1]
    assert window.resting_until == 9.5


FEEDBACKS = st.sampled_from(["0", "1", "1/8", "0.7", "1 / concurrency", "1 / sqrt_concurrency"]).map(Feedback.parse)


@given(
    st.text("+-", max_size=80),
    st.builds(
        Limits,
        initial=st.integers(1, 9),
        limit=st.integers(1, 30),
        positive=FEEDBACKS,
        negative=FEEDBACKS,
        failed_cohorts=st.sampled_from([0, 1, 3]),
    ),
)
def test_never_above_the_limit_never_below_one(results: str, limits: Limits) -> None:
    assert all(1 <= size <= limits.limit for size in after(Window(limits), results))
