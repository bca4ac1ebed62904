"""Commands step by step on a real queue: what they change, what they say, and what is left when they are cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from itertools import count
from pathlib import Path

import pytest

from relay.log.events import Event, Noted, Settled
from relay.mail.envelope import Address, QueueId, Sender
from relay.outcome.result import Bounced
from relay.queue import administration
from relay.queue.administration import Administration, Command, Progress, Verb
from relay.queue.filter_text import parse_filter
from relay.queue.schedule import RetrySchedule
from relay.queue.settle import Settler
from relay.queue.sqlite import SqliteStore
from relay.queue.store import EntryState, StoreUnavailable
from tests.unit.queue.samples import DEFERRED, SENT, T0, lease, new, put, settlement


class World:
    """An administration of a queue in a file."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.told: list[Event] = []
        self.woken = 0
        ids = count(1)
        settler = Settler(
            store=store,
            schedule=RetrySchedule(),
            hostname="relay.example",
            clock=self.clock,
            new_id=lambda: QueueId(f"R{next(ids)}"),
            destination_of=self.route,
            observe=self.told.append,
        )
        self.administration = Administration(
            store=store,
            acts=store.acts,
            settler=settler,
            destination_of=self.route,
            clock=self.clock,
            observe=self.told.append,
            wake=self.wake,
            backup=store.backup,
        )

    def clock(self) -> datetime:
        return T0

    def route(self, address: Address, sender: Sender) -> str:
        del sender
        return str(address.domain)

    def wake(self) -> None:
        self.woken += 1

    async def run(self, verb: Verb, where: str, *, dry_run: bool = False) -> list[Progress]:
        command = Command(verb=verb, where=parse_filter(where), by="root", reason="why", dry_run=dry_run)
        return [progress async for progress in self.administration.run(command)]

    def notes(self) -> list[str]:
        return [f"{each.queue_id} {each.text}".strip() for each in self.told if isinstance(each, Noted)]


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Steps are small here, so that five messages take several."""
    monkeypatch.setattr(administration, "LOOKING", 2)
    monkeypatch.setattr(administration, "AT_ONCE", 1)
    monkeypatch.setattr(administration, "BOUNCED_AT_ONCE", 1)
    store = await SqliteStore.open(tmp_path / "q", clock=lambda: T0)
    for number in range(1, 6):
        await put(store, new(f"A{number}", "x@a.example", "y@b.example"))
    yield World(store)
    await store.close()


async def test_each_step_says_how_far_it_is_and_the_last_is_the_result(world: World) -> None:
    steps = await world.run(Verb.HOLD, "domain:a.example and not A3")
    assert steps[-1] == Progress(looked=5, messages=4, recipients=4)
    assert [step.looked for step in steps] == sorted(step.looked for step in steps)
    assert len(steps) >= 4
    assert world.notes() == [f"A{n} placed on hold (by root: why)" for n in (1, 2, 4, 5)] + [
        "Placed on hold: 4 messages"
    ]
    assert (await world.store.counts()).deliveries[EntryState.HOLD] == 4


async def test_a_dry_run_counts_and_is_silent(world: World) -> None:
    (*_, last) = await world.run(Verb.BOUNCE, "domain:a.example", dry_run=True)
    assert last == Progress(looked=5, messages=5, recipients=5)
    assert (world.told, world.woken) == ([], 0)
    assert (await world.store.counts()).messages == 5


async def test_deliveries_go_on_between_the_steps(world: World) -> None:
    command = Command(verb=Verb.DELETE, where=parse_filter("ALL"), by="root")
    steps = world.administration.run(command)
    await anext(steps)
    (held, *_) = await lease(world.store, limit=1)
    await world.store.settle(settlement(held, SENT))
    last = [step async for step in steps][-1]
    assert last.recipients < 10
    assert (await world.store.counts()).messages == 0


async def test_a_command_that_is_cut_off_says_what_it_did(world: World) -> None:
    steps = world.administration.run(Command(verb=Verb.DELETE, where=parse_filter("ALL"), by="root"))
    await anext(steps)
    await steps.aclose()
    assert world.notes() == ["A1 removed (by root)", "Deleted: 1 message"]
    assert (await world.store.counts()).messages == 4


async def test_giving_up_settles_and_leaves_what_is_being_delivered(world: World) -> None:
    leases = await lease(world.store, limit=20)
    for held in leases:
        if held.message.queue_id != "A1":
            await world.store.settle(settlement(held, DEFERRED))
    (*_, last) = await world.run(Verb.BOUNCE, "A1 A2 and domain:a.example")
    assert last == Progress(looked=2, messages=1, recipients=1, busy=1)
    (settled,) = (each for each in world.told if isinstance(each, Settled))
    assert isinstance(settled.outcome.result, Bounced)
    assert settled.outcome.result.reason == (
        "returned to sender by the mail administrator: why: last attempt: Server certificate not verified"
    )
    assert world.notes() == ["A2 expired (by root: why)", "Force-expired: 1 message"]
    assert world.woken == 1
    assert {entry.message.queue_id for entry in await world.store.entries(limit=20)} == {
        "A1",
        "A2",
        "A3",
        "A4",
        "A5",
        "R1",
    }


async def test_what_was_taken_to_be_given_up_is_given_back_if_that_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.run(Verb.HOLD, "A1")

    async def broken(lease: object, result: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(world.administration.settler, "settle", broken)
    with pytest.raises(asyncio.CancelledError):
        await world.run(Verb.BOUNCE, "A1")
    assert (await world.store.counts()).deliveries[EntryState.HOLD] == 2


async def test_a_queue_that_is_away_is_told(world: World) -> None:
    await world.store.close()
    with pytest.raises(StoreUnavailable):
        await world.run(Verb.HOLD, "ALL")
