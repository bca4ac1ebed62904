from __future__ import annotations

from datetime import timedelta

from relay.mail.envelope import Message, QueueId
from relay.queue.arrivals import stored
from relay.queue.warm import WarmMessages
from tests.unit.queue.samples import T0, new

A, B, C = QueueId("A"), QueueId("B"), QueueId("C")
LATER = T0 + timedelta(minutes=1)


def message(queue_id: QueueId, *recipients: str) -> Message:
    return stored(new(queue_id, *recipients), 0, eight_bit=False)


def test_what_is_kept_is_there_until_it_is_forgotten() -> None:
    warm = WarmMessages()
    warm.keep(message(A), b"a", T0)
    assert (warm.content(A), warm.content(B)) == (b"a", None)
    warm.forget(A)
    warm.forget(A)
    assert (warm.content(A), warm.octets) == (None, 0)


def test_the_budget_holds_and_those_that_came_first_stay() -> None:
    warm = WarmMessages(budget=8000)
    for queue_id in (A, B, C):
        warm.keep(message(queue_id), bytes(2000), T0)
    assert (warm.content(A), warm.content(B), warm.content(C)) == (bytes(2000), bytes(2000), None)
    assert warm.octets <= 8000
    warm.forget(A)
    warm.keep(message(C), bytes(2000), T0)
    assert warm.content(C) is not None
    warm.keep(message(A), bytes(9000), LATER)
    assert warm.content(A) is None
    assert 0 <= warm.octets <= 8000


def test_who_waits_long_makes_room() -> None:
    warm = WarmMessages(budget=8000)
    warm.keep(message(A), bytes(2000), T0)
    warm.keep(message(B), bytes(2000), LATER)
    warm.keep(message(C), bytes(2000), LATER)
    assert (warm.content(A), warm.content(B), warm.content(C)) == (None, bytes(2000), bytes(2000))
    warm.clear()
    assert (warm.content(B), warm.octets) == (None, 0)


def test_a_message_with_many_recipients_takes_more_of_the_budget() -> None:
    warm = WarmMessages(budget=8000)
    warm.keep(message(A, *(f"{number}@a.example" for number in range(20))), b"", T0)
    assert warm.message(A) is None
    one = message(A, "1@a.example")
    warm.keep(one, b"", T0)
    assert warm.message(A) is one
    assert warm.message(B) is None
