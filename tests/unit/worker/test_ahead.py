"""What is leased before its turn: of whom, how much, and that it comes back untried when it is not begun."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

import pytest

from relay.queue.store import EntryState, Lease, LeaseToken, StoreUnavailable
from relay.worker.ahead import ENOUGH, STALE_SECONDS, Ahead
from tests.unit.queue.memory import MemoryStore
from tests.unit.queue.samples import T0, new, put


class Watched(MemoryStore):
    """Notes what it is asked for, and can be away."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene.now)
        self.asked: list[dict[str, int]] = []
        self.away = False

    async def lease_at(
        self, rooms: Mapping[str, int], *, now: datetime, until: datetime, recipient_limit: int = 0
    ) -> Sequence[Lease]:
        self.asked.append(dict(rooms))
        return await super().lease_at(rooms, now=now, until=until, recipient_limit=recipient_limit)

    async def release(self, tokens: Collection[LeaseToken]) -> None:
        if self.away:
            raise StoreUnavailable("away")
        await super().release(tokens)


class Scene:
    """A queue, what is leased ahead from it, and a clock that only the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.store = Watched(self)
        self.ahead = Ahead(self.store, recipient_limit=50, clock=self.now, monotonic=lambda: self.seconds)

    def now(self) -> datetime:
        return T0 + timedelta(seconds=self.seconds)

    async def put(self, domain: str, messages: int) -> None:
        for number in range(messages):
            await put(self.store, new(f"{domain}{number:04}", f"u@{domain}"))

    async def turn(self, rooms: Mapping[str, int], slow: Collection[str] = ()) -> list[Lease]:
        """As the worker does it: first what is in hand, then the queue."""
        begun = self.ahead.take(rooms)
        had = [lease.destination for lease in begun]
        if left := {name: room - had.count(name) for name, room in rooms.items() if room > had.count(name)}:
            begun += await self.ahead.lease(left, slow=slow)
        return begun

    async def leased(self) -> int:
        entries = await self.store.entries(limit=10_000)
        return sum(entry.state is EntryState.ACTIVE for entry in entries)


@pytest.fixture
def it() -> Scene:
    return Scene()


async def test_a_quick_destination_asks_the_queue_ever_less_often(it: Scene) -> None:
    await it.put("a.example", 300)
    begun = []
    for _ in range(250):
        begun += await it.turn({"a.example": 1})
        it.seconds += 0.002
    assert len(begun) == 250
    assert [lease.message.queue_id for lease in begun] == sorted(lease.message.queue_id for lease in begun), "in order"
    assert len(it.store.asked) <= 15
    assert max(asked["a.example"] for asked in it.store.asked) <= ENOUGH


async def test_a_slow_destination_is_leased_what_begins_and_no_more(it: Scene) -> None:
    await it.put("a.example", 100)
    for _ in range(10):
        await it.turn({"a.example": 1})
        it.seconds += 0.4
    assert it.store.asked == [{"a.example": 1}] * 10
    assert await it.leased() == 10


async def test_one_that_becomes_slow_is_leased_ahead_no_more(it: Scene) -> None:
    await it.put("a.example", 100)
    for _ in range(10):
        await it.turn({"a.example": 1})
        it.seconds += 0.01
    while it.ahead:
        await it.turn({"a.example": 1})
    it.seconds += 30.0
    await it.turn({"a.example": 1})
    assert it.store.asked[-1] == {"a.example": 1}


async def test_where_enough_begin_at_once_nothing_is_leased_ahead(it: Scene) -> None:
    names = [f"d{number}.example" for number in range(ENOUGH)]
    for name in names:
        await it.put(name, 4)
    for _ in range(4):
        assert len(await it.turn(dict.fromkeys(names, 1))) == ENOUGH
    assert it.store.asked == [dict.fromkeys(names, 1)] * 4
    assert not it.ahead


async def test_nothing_is_leased_ahead_for_the_dead(it: Scene) -> None:
    await it.put("a.example", 100)
    for _ in range(4):
        await it.turn({"a.example": 5}, slow={"a.example"})
    assert it.store.asked == [{"a.example": 5}] * 4


async def _in_hand(it: Scene) -> int:
    await it.put("a.example", 100)
    for _ in range(2):
        await it.turn({"a.example": 5})
    assert len(it.ahead) == 10, "twice what was leased last"
    return await it.leased()


async def test_what_is_not_begun_in_time_comes_back_untried(it: Scene) -> None:
    leased = await _in_hand(it)
    it.seconds += STALE_SECONDS * 0.9
    assert not await it.ahead.give_back()
    it.seconds += STALE_SECONDS * 0.2
    assert await it.ahead.give_back()
    assert not it.ahead
    assert await it.leased() == leased - 10
    waiting = [entry for entry in await it.store.entries(limit=100) if entry.state is EntryState.INCOMING]
    assert {entry.recipients[0].attempts for entry in waiting} == {0}


async def test_whatever_is_in_hand_can_be_given_back(it: Scene) -> None:
    leased = await _in_hand(it)
    assert await it.ahead.give_back(all_of_it=True)
    assert await it.leased() == leased - 10


async def test_what_cannot_be_given_back_is_not_begun_and_is_given_back_later(it: Scene) -> None:
    leased = await _in_hand(it)
    it.seconds += STALE_SECONDS
    it.store.away = True
    with pytest.raises(StoreUnavailable):
        await it.ahead.give_back()
    assert it.ahead.take({"a.example": 10}) == [], "nobody knows whether somebody else may have it by now"
    assert it.ahead, "it is not forgotten"
    it.store.away = False
    assert await it.ahead.give_back()
    assert await it.leased() == leased - 10
    assert not it.ahead
