from __future__ import annotations

from datetime import timedelta

from relay.mail.envelope import QueueId
from relay.queue.warm import WarmContents
from tests.unit.queue.samples import T0

A, B, C = QueueId("A"), QueueId("B"), QueueId("C")
LATER = T0 + timedelta(minutes=1)


def test_what_is_kept_is_there_until_it_is_forgotten() -> None:
    warm = WarmContents()
    warm.keep(A, b"a", T0)
    assert (warm.get(A), warm.get(B)) == (b"a", None)
    warm.forget(A)
    warm.forget(A)
    assert (warm.get(A), warm.octets) == (None, 0)


def test_the_budget_holds_and_those_that_came_first_stay() -> None:
    warm = WarmContents(budget=6000)
    for queue_id in (A, B, C):
        warm.keep(queue_id, bytes(2000), T0)
    assert (warm.get(A), warm.get(B), warm.get(C)) == (bytes(2000), bytes(2000), None)
    assert warm.octets <= 6000
    warm.forget(A)
    warm.keep(C, bytes(2000), T0)
    assert warm.get(C) is not None
    warm.keep(A, bytes(7000), LATER)
    assert warm.get(A) is None
    assert 0 <= warm.octets <= 6000


def test_who_waits_long_makes_room() -> None:
    warm = WarmContents(budget=6000)
    warm.keep(A, bytes(2000), T0)
    warm.keep(B, bytes(2000), LATER)
    warm.keep(C, bytes(2000), LATER)
    assert (warm.get(A), warm.get(B), warm.get(C)) == (None, bytes(2000), bytes(2000))
    warm.clear()
    assert (warm.get(B), warm.octets) == (None, 0)
