"""Whoever makes errors on purpose does not flood the postmaster, and what cannot be told now is told later."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Collection, Iterator
from datetime import datetime
from itertools import count

import pytest

from relay.log.events import Crashed, Event, Noted, StoreState
from relay.mail.envelope import NULL_SENDER, Address, Message, Notify, QueueId
from relay.mail.names import Domain
from relay.outcome.incident import Incident
from relay.queue.notices import OF_INCIDENTS
from relay.queue.postmaster import MOST_OF_A_CLASS, PAUSE, Postmaster
from relay.queue.store import NOBODY, NewMessage, StoreUnavailable, Taker
from tests.unit.queue.memory import MemoryStore
from tests.unit.queue.samples import T0, read

READER = Address("postmaster@relay.test", Domain.parse("relay.test"))


class FullAtTimes(MemoryStore):
    """A store that refuses mail while ``full``."""

    full = False
    tries = 0

    async def put(self, message: NewMessage, body: AsyncIterator[bytes], taker: Taker = NOBODY) -> Message:
        self.tries += 1
        if self.full:
            raise StoreUnavailable("full", full=True)
        return await super().put(message, body, taker)


class World:
    """A postmaster who waits when told to."""

    def __init__(self) -> None:
        self.store = FullAtTimes(lambda: T0)
        self.events: list[Event] = []
        self.waited: list[float] = []
        self.go_on = asyncio.Event()
        self.woken: list[Collection[str]] = []
        serials: Iterator[int] = count(1)
        self.postmaster = Postmaster(
            store=self.store,
            hostname="relay.test",
            wanted=OF_INCIDENTS,
            reader=READER,
            clock=self._now,
            new_id=lambda: QueueId(f"P{next(serials)}"),
            destination_of=lambda address, sender: "relay.test",
            observe=self.events.append,
            queued=self.woken.append,
            sleep=self._sleep,
        )

    def _now(self) -> datetime:
        return T0

    async def _sleep(self, seconds: float) -> None:
        self.waited.append(seconds)
        await self.go_on.wait()
        self.go_on.clear()

    async def settled(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def told(self) -> list[str]:
        """The contents of what was written, in order."""
        entries = await self.store.entries(limit=100)
        return [(await read(self.store, entry.message.queue_id)).decode() for entry in entries]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    running = asyncio.create_task(world.postmaster.run())
    yield world
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def incident(number: int, word: str = "policy") -> Incident:
    return Incident(classes=(word,), about=f"errors {number}", lines=("line",))


async def test_the_first_is_told_at_once_and_the_next_ones_together(world: World) -> None:
    world.postmaster.take(incident(1))
    await world.settled()
    assert len(await world.told()) == 1
    assert world.waited == [PAUSE]
    assert world.woken == [{"relay.test"}]
    for number in range(2, 1000):
        world.postmaster.take(incident(number))
    world.postmaster.take(incident(1000, "software"))
    await world.settled()
    assert len(await world.told()) == 1, "a flood is one message"
    world.go_on.set()
    await world.settled()
    _, second = await world.told()
    assert [f"errors {number} " in second for number in (2, 6, 7, 1000)] == [True, True, False, True]
    assert f"{998 - MOST_OF_A_CLASS} more of class policy" in second
    assert [event.text for event in world.events if isinstance(event, Noted)] == [
        "postmaster notification of 1 incidents",
        "postmaster notification of 999 incidents",
    ]
    world.go_on.set()
    await world.settled()
    assert len(await world.told()) == 2, "nothing happened, nothing is told"


async def test_it_is_from_nobody_and_asks_for_no_report(world: World) -> None:
    world.postmaster.take(incident(1))
    await world.settled()
    (entry,) = await world.store.entries(limit=9)
    assert entry.message.envelope.sender == NULL_SENDER
    (recipient,) = entry.message.envelope.recipients
    assert (recipient.address, recipient.notify) == (READER, Notify.NEVER)


async def test_what_the_queue_cannot_take_is_told_when_it_can(world: World) -> None:
    world.store.full = True
    world.postmaster.observe(StoreState("0.1 MiB free"))
    await world.settled()
    assert (world.store.tries, await world.told()) == (1, [])
    assert len(world.waited) == 1
    assert world.waited[0] < PAUSE
    world.store.full = False
    world.postmaster.observe(StoreState(""))
    world.go_on.set()
    await world.settled()
    (content,) = await world.told()
    assert "no mail was taken into the queue (resource)" in content
    assert "0.1 MiB free" in content


async def test_of_a_crash_no_more_than_the_name_of_the_exception(world: World) -> None:
    try:
        raise RuntimeError("the password\nis: secret")
    except RuntimeError:
        world.postmaster.observe(Crashed("delivery", traceback.format_exc(), "Q7"))
    await world.settled()
    (content,) = await world.told()
    assert "internal error in delivery, message Q7 (software)" in content
    assert "RuntimeError; the log has where it happened" in content
    assert "secret" not in content


async def test_what_is_not_wanted_is_not_kept(world: World) -> None:
    world.postmaster.take(incident(1, "bounce"))
    await world.postmaster.finish()
    assert await world.told() == []


async def test_what_is_left_is_told_at_the_end(world: World) -> None:
    world.postmaster.take(incident(1))
    await world.settled()
    world.postmaster.take(incident(2))
    await world.postmaster.finish()
    assert len(await world.told()) == 2
    world.store.full = True
    world.postmaster.take(incident(3))
    await world.postmaster.finish()  # the log has it
