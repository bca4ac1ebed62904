"""Random histories: SQLite answers each call as the model in memory does, across restarts and failures of the disk."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import apsw
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relay.mail.envelope import Address, QueueId, Sender
from relay.outcome.result import Bounced, Deferred, Sent
from relay.policy.level import Level
from relay.policy.override import AS_CONFIGURED, TlsOverride
from relay.queue.acts import Act, Delete, Flush, Hold, Release, Requeue
from relay.queue.filter_text import parse_filter
from relay.queue.sqlite import SqliteStore
from relay.queue.store import Lease, LeaseLost, Report, Settlement, StoreUnavailable
from tests.unit.queue.memory import MemoryStore
from tests.unit.queue.recording_vfs import PATIENCE, Record, RecordingVfs
from tests.unit.queue.samples import BOUNCED, DEFERRED, FROM_NOBODY, SENT, T0, Hands, chunks, new, read

DOMAINS = ("a.example", "b.example", "c.example")
PEOPLE = st.lists(st.sampled_from([f"{who}@{domain}" for who in "xy" for domain in DOMAINS]), min_size=1, max_size=5)
BUSY = st.sets(st.sampled_from(DOMAINS), max_size=2).map(lambda names: tuple(sorted(names)))
RESULTS = st.lists(st.sampled_from([SENT, DEFERRED, BOUNCED, None]), min_size=5, max_size=5)

FILTERS = st.sampled_from(
    ["ALL", "domain:a.example", "rcpt:x@b.example", "status:hold", "not status:deferred", "age>20m"]
)
OVERRIDE = TlsOverride(level=Level.MAY, reason="their certificate ran out", by="tim", at=T0)


def _anew(address: Address, sender: Sender) -> str:
    """Routes as they are after a change: one person's mail leaves its domain's, another domain's goes with it."""
    if address.text.startswith("x@"):
        return "a.example"
    return address.text.partition("@")[2]


ACTS: st.SearchStrategy[Act] = st.sampled_from(
    [Flush(), Hold(), Release(), Delete(), Requeue(_anew, AS_CONFIGURED), Requeue(_anew, OVERRIDE)]
)
ERRORS: list[type[apsw.Error]] = [apsw.FullError, apsw.IOError]
_SERIALS = count()

T = TypeVar("T")
Pair = tuple[Lease, Lease]


class History(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.now = T0
        self.serial = 0
        self.held: list[Pair] = []
        self.model = MemoryStore(lambda: self.now)
        self.bodies: dict[QueueId, bytes] = {}
        self.vfs = RecordingVfs(f"history-{next(_SERIALS)}", Record())
        self.store = self.run(self.open())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def open(self) -> SqliteStore:
        return await SqliteStore.open(
            self.folder / "q", clock=lambda: self.now, vfs=self.vfs.vfs_name, sleep=lambda seconds: asyncio.sleep(0)
        )

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()
        self.vfs.unregister()
        shutil.rmtree(self.folder)

    def later(self) -> datetime:
        """A time that no other delivery has, so that both engines put the due in the same order."""
        self.serial += 1
        return self.now + timedelta(microseconds=self.serial)

    @rule(people=PEOPLE, size=st.sampled_from([0, 10, 70_000]), taken=BUSY)
    def put(self, people: list[str], size: int, taken: tuple[str, ...]) -> None:
        for domain in sorted({person.partition("@")[2] for person in people}):
            those = [person for person in people if person.endswith(domain)]
            self.put_one(those, size, taken)

    def put_one(self, people: list[str], size: int, taken: tuple[str, ...]) -> None:
        message = new(f"M{self.serial:05}", *people, arrived_at=self.later())
        body = message.queue_id.encode() * size
        self.bodies[message.queue_id] = body
        real, model = Hands(*taken, at=self.now), Hands(*taken, at=self.now)
        stored = self.run(self.store.put(message, chunks(body), real))
        assert stored == self.run(self.model.put(message, chunks(body), model))
        assert [same(one) for one in real.leases] == [same(one) for one in model.leases]
        self.held += zip(real.leases, model.leases, strict=True)

    @rule(minutes=st.integers(0, 40))
    def wait(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule(
        rooms=st.dictionaries(st.sampled_from([*DOMAINS, "z.example"]), st.integers(0, 3)),
        most=st.integers(0, 2),
        minutes=st.integers(1, 40),
    )
    def lease_at(self, rooms: dict[str, int], most: int, minutes: int) -> None:
        until = self.now + timedelta(minutes=minutes)
        self.now += timedelta(seconds=1)
        real = self.run(self.store.lease_at(rooms, now=self.now, until=until, recipient_limit=most))
        model = self.run(self.model.lease_at(rooms, now=self.now, until=until, recipient_limit=most))
        assert [same(one) for one in real] == [same(one) for one in model]
        self.held += zip(real, model, strict=True)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), results=RESULTS, report=st.booleans())
    def settle(self, data: st.DataObject, results: list[Sent | Deferred | Bounced | None], report: bool) -> None:
        real, model = self.pick(data)
        chosen = {one.id: result for one, result in zip(real.recipients, results, strict=False) if result is not None}
        next_attempt = self.later()
        reports = (
            (Report(message=new(f"R{self.serial:05}", given=FROM_NOBODY, arrived_at=self.later()), content=b"r"),)
            if report
            else ()
        )
        answers: list[bool | str] = []
        for store, lease in ((self.store, real), (self.model, model)):
            settlement = Settlement(lease=lease, results=chosen, next_attempt=next_attempt, reports=reports)
            try:
                answers.append(self.run(store.settle(settlement)))
            except LeaseLost:
                answers.append("lost")
        assert answers[0] == answers[1]

    @precondition(lambda self: self.held)
    @rule(data=st.data(), minutes=st.integers(1, 90))
    def extend(self, data: st.DataObject, minutes: int) -> None:
        real, model = self.pick(data)
        until = self.now + timedelta(minutes=minutes)
        self.run(self.store.extend([real.token], until))
        self.run(self.model.extend([model.token], until))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        real, model = self.pick(data)
        self.run(self.store.release([real.token]))
        self.run(self.model.release([model.token]))

    @rule(busy=BUSY, limit=st.integers(0, 3))
    def heads(self, busy: tuple[str, ...], limit: int) -> None:
        real = self.run(self.store.heads(now=self.now, limit=limit, busy=busy))
        assert real == self.run(self.model.heads(now=self.now, limit=limit, busy=busy))

    @rule()
    def flush_one(self) -> None:
        entries = self.run(self.model.entries(limit=1))
        ids = [QueueId(entry.message.queue_id) for entry in entries]
        if ids:
            now = self.later()
            assert self.run(self.store.flush(now=now, ids=ids)) == self.run(self.model.flush(now=now, ids=ids))

    @rule()
    def restart(self) -> None:
        """Whatever was leased is free again, its attempts counted."""
        self.run(self.store.close())
        self.store = self.run(self.open())
        self.model.forget_leases()
        self.held.clear()

    @rule(act=ACTS, where=FILTERS)
    def act(self, act: Act, where: str) -> None:
        """What administrators do, to all or to some."""
        ids = [entry.message.queue_id for entry in self.run(self.model.entries(limit=1000))]
        parsed = parse_filter(where)
        self.now += timedelta(seconds=1)
        real = self.run(self.store.acts.act(act, parsed, ids))
        assert real == self.run(self.model.acts.act(act, parsed, ids))

    @rule(people=PEOPLE, size=st.sampled_from([10, 70_000]), error=st.sampled_from(ERRORS), syncing=st.booleans())
    def put_while_the_disk_fails(self, people: list[str], size: int, error: type[apsw.Error], syncing: bool) -> None:
        """Nothing of it is kept, and all else is as it was, once the disk is well and was checked."""
        message = new(f"F{self.serial:05}", *people, arrived_at=self.later())
        failure = error("the disk failed")
        if syncing and error is not apsw.FullError:
            self.vfs.sync_failure = failure
        else:
            self.vfs.failure = failure
        with pytest.raises(StoreUnavailable):
            self.run(self.store.put(message, chunks(b"x" * size)))
        self.vfs.failure = self.vfs.sync_failure = None
        self.run(self.mended())

    async def mended(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.store.refusal is not None:
                await asyncio.sleep(0.001)

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        queue_id = data.draw(st.sampled_from([*self.bodies, QueueId("N1")]))
        answers: list[bytes | str] = []
        for store in (self.store, self.model):
            try:
                answers.append(self.run(read(store, queue_id)))
            except KeyError:
                answers.append("gone")
        assert answers[0] == answers[1]
        assert answers[0] in ("gone", self.bodies.get(queue_id, "gone"))

    @invariant()
    def listed_alike(self) -> None:
        assert self.run(self.store.entries(limit=1000)) == self.run(self.model.entries(limit=1000))
        assert self.run(self.store.counts()) == self.run(self.model.counts())

    def pick(self, data: st.DataObject) -> Pair:
        """One of the leases, perhaps an old one."""
        return self.held[data.draw(st.integers(0, len(self.held) - 1))]


def same(lease: Lease) -> tuple[object, ...]:
    return (
        lease.message,
        lease.destination,
        lease.recipients,
        lease.attempts,
        lease.leased_at,
        lease.due_at,
        lease.total_recipients,
        lease.override,
    )


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
