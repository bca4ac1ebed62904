"""A lease carried out: a session is free for the next message only when the results of this one are written."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from relay.delivery.attempt import Deliverer
from relay.delivery.delivery import Delivery, Policies
from relay.delivery.opening import Session
from relay.delivery.pool import Pool, Terms
from relay.delivery.route import Router
from relay.lanes import Lanes
from relay.log.events import Event
from relay.outcome.result import AttemptResult
from relay.queue.settle import Settler
from relay.queue.store import Lease
from relay.worker.carrying import Carrier
from tests.unit.queue.memory import MemoryStore
from tests.unit.queue.samples import T0, lease, new, put

PAIR = (cast("Terms", "terms"), cast("Session", "session"))


class Course:
    """What happens to a session and to results, in order."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.may_settle = asyncio.Event()
        self.settling = asyncio.Event()

    def give(self, terms: Terms, session: Session) -> None:
        assert (terms, session) == PAIR
        self.steps.append("given back")


class OneHost(Deliverer):
    def __init__(self, course: Course) -> None:
        self.pool = cast("Pool", course)

    async def attempt(self, delivery: Delivery, policies: Policies, finished: Any = None) -> AttemptResult:
        assert delivery.held is not None
        delivery.held.append(PAIR)
        return AttemptResult(outcomes={})


class SlowSettler(Settler):
    def __init__(self, course: Course) -> None:
        self._course = course

    async def settle(self, lease: Lease, result: AttemptResult) -> None:
        self._course.settling.set()
        await self._course.may_settle.wait()
        self._course.steps.append("settled")


async def carrying(course: Course) -> asyncio.Task[Any]:
    store, events = MemoryStore(lambda: T0), list[Event]()
    await put(store, new("M1"))
    (held,) = await lease(store)
    carrier = Carrier(
        store=store,
        deliverer=OneHost(course),
        settler=SlowSettler(course),
        policies=lambda: cast("Policies", None),
        router=lambda: Router(relay_hosts=(), port=25),
        clock=lambda: T0,
        observe=events.append,
        lanes=Lanes(),
    )
    task = asyncio.create_task(carrier.deliver(held))
    await course.settling.wait()
    return task


async def test_a_session_is_given_back_when_the_results_are_written() -> None:
    course = Course()
    task = await carrying(course)
    assert not course.steps
    course.may_settle.set()
    await task
    assert course.steps == ["settled", "given back"]


async def test_a_session_is_given_back_though_the_delivery_is_cancelled() -> None:
    course = Course()
    task = await carrying(course)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert course.steps == ["given back"]
