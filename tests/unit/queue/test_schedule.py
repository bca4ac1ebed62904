"""Retry and expiry against Postfix's rules."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.envelope import NULL_SENDER
from relay.queue.schedule import RetrySchedule
from tests.unit.queue.samples import T0, address

SCHEDULE = RetrySchedule()
SENDER = address("a@b.example")
SECONDS = st.floats(min_value=0, max_value=1e7)


@pytest.mark.parametrize(
    ("age", "wait"),
    [(0, 300), (299, 300), (300, 300), (301, 301), (1200, 1200), (3999, 3999), (4000, 4000), (400_000, 4000)],
)
def test_the_wait_is_the_age_within_bounds(age: int, wait: int) -> None:
    now = T0 + timedelta(seconds=age)
    assert SCHEDULE.next_attempt(arrived_at=T0, now=now) == now + timedelta(seconds=wait)


def test_a_clock_that_went_back_counts_as_no_age() -> None:
    now = T0 - timedelta(days=1)
    assert SCHEDULE.next_attempt(arrived_at=T0, now=now) == now + timedelta(seconds=300)


@given(age=SECONDS, minimal=SECONDS, more=SECONDS)
def test_the_wait_never_leaves_its_bounds(age: float, minimal: float, more: float) -> None:
    schedule = RetrySchedule(minimal_backoff_time=minimal, maximal_backoff_time=minimal + more)
    now = T0 + timedelta(seconds=age)
    wait = (schedule.next_attempt(arrived_at=T0, now=now) - now).total_seconds()
    assert minimal - 1e-5 <= wait <= minimal + more + 1e-5


def test_expiry_is_by_the_sender() -> None:
    schedule = RetrySchedule(maximal_queue_lifetime=1000, bounce_queue_lifetime=10)
    for sender, lifetime in ((SENDER, 1000), (NULL_SENDER, 10)):
        end = T0 + timedelta(seconds=lifetime)
        assert schedule.expires_at(arrived_at=T0, sender=sender) == end
        assert schedule.is_expired(arrived_at=T0, sender=sender, now=end)
        assert not schedule.is_expired(arrived_at=T0, sender=sender, now=end - timedelta(microseconds=1))


def test_a_lifetime_of_zero_is_one_attempt() -> None:
    once = RetrySchedule(maximal_queue_lifetime=0, bounce_queue_lifetime=0)
    assert once.is_expired(arrived_at=T0, sender=SENDER, now=T0)
    assert once.is_expired(arrived_at=T0, sender=NULL_SENDER, now=T0)


@pytest.mark.parametrize(
    ("age", "named", "wait"),
    [
        (0, 900, 900),  # longer than by its age: coming sooner would be in vain
        (0, 60, 300),  # never sooner than the administrator allows
        (2000, 600, 600),  # the host knows better than its age
        (4000, 10, 500),  # but not for ever: an eighth of what its age asks for
        (0, 86_400, 4000),  # nor later than the administrator allows
    ],
)
def test_a_wait_that_the_host_named_is_kept_within_bounds(age: int, named: float, wait: int) -> None:
    now = T0 + timedelta(seconds=age)
    assert SCHEDULE.next_attempt(arrived_at=T0, now=now, named=named) == now + timedelta(seconds=wait)


@given(age=SECONDS, named=SECONDS)
def test_a_named_wait_never_leaves_the_bounds(age: float, named: float) -> None:
    now = T0 + timedelta(seconds=age)
    wait = (SCHEDULE.next_attempt(arrived_at=T0, now=now, named=named) - now).total_seconds()
    assert 300 - 1e-5 <= wait <= 4000 + 1e-5
