"""The disk fails at each thing that the store does to it, in each way: never a 250 for what is not durable, never a
recipient lost or served twice.

Clients hand letters in and try again when they are told 4xx; a worker leases, reads, settles, and keeps a result until it
is written, as ``relay.queue.settle`` does. At one operation of the disk, or for a while from it on, the disk fails. In the
end all letters were delivered once; and at the sync points after the failure a power cut would have broken no promise.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import apsw
import pytest

from relay.outcome.result import Sent
from relay.queue.sqlite import SqliteStore
from relay.queue.store import Lease, LeaseLost, Settlement, StoreUnavailable
from tests.fault.disk import Image, Journal, JournalFiles, JournalVfs, Op, Short, sync_points
from tests.fault.promises import Begun, Promised, Promises
from tests.unit.queue.samples import DEFERRED, SENT, T0, chunks, new, read

LETTERS: dict[str, tuple[int, tuple[str, ...]]] = {
    "small": (300, ("one@a.example",)),
    "large": (200_000, ("one@a.example", "two@b.example")),
    "late": (5_000, ("three@c.example", "four@c.example")),
}
MOST_TRIES = 2_000
LASTING = 25
_SERIALS = count()
Fault = Callable[[Op], Exception | None]


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def broken(op: Op) -> Exception:
    """An I/O error, or a sync that fails."""
    return _os_error(errno.EIO) if _in_spool(op) else apsw.IOError("disk I/O error")


def full(op: Op) -> Exception | None:
    """No space, for what takes space."""
    if op.kind not in {"write", "create", "truncate", "sync", "sync directory"}:
        return None
    if op.kind == "sync" and not _in_spool(op):
        return apsw.IOError("disk I/O error")  # what SQLite makes of it (os_unix.c)
    return _os_error(errno.ENOSPC) if _in_spool(op) else apsw.FullError("database or disk is full")


def short(op: Op) -> Exception | None:
    """Half of a write."""
    return Short() if op.kind == "write" else None


def _in_spool(op: Op) -> bool:
    return op.name.startswith("q.spool") or not op.name


@dataclass
class World:
    """A store, its clients and its worker."""

    journal: Journal
    now: datetime = T0
    delivered: Counter[tuple[str, int]] = field(default_factory=Counter)
    put_as: dict[str, str] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    serial: int = 0
    store: SqliteStore = field(init=False)

    async def hand_in(self, token: str) -> None:
        """As a client does: again, as a new message, until it is told 250."""
        size, people = LETTERS[token]
        body = (token.encode() * size)[:size]
        for _ in range(MOST_TRIES):
            self.serial += 1
            queue_id = f"{token}{self.serial}"
            message = new(queue_id, *people, arrived_at=self.now)
            self.put_as[queue_id] = token
            numbers = tuple(int(one.id) for one in message.envelope.recipients)
            self.journal.mark(Begun(queue_id, body=body, recipients=numbers))
            try:
                await self.store.put(message, chunks(body[:60_000], body[60_000:]))
            except StoreUnavailable:
                await _wait()
                continue
            self.journal.mark(Promised(queue_id))
            return
        self.troubles.append(f"{token} was never taken")

    async def work(self) -> None:
        """Deliver until there is nothing left."""
        for _ in range(MOST_TRIES):
            self.now += timedelta(minutes=31)
            try:
                heads = await self.store.heads(now=self.now, limit=10)
                rooms = {head.destination: 10 for head in heads}
                leases = await self.store.lease_at(rooms, now=self.now, until=self.now + timedelta(minutes=30))
                if not leases and not (await self.store.counts()).messages:
                    return
            except StoreUnavailable:
                await _wait()
                continue
            for held in leases:
                await self._deliver(held)
        self.troubles.append("the queue never came to its end")

    async def _deliver(self, held: Lease) -> None:
        token = self.put_as[held.message.queue_id]
        result = DEFERRED if token == "late" and held.attempts == 0 else SENT
        try:
            if len(await read(self.store, held.message.queue_id)) != LETTERS[token][0]:
                self.troubles.append(f"{held.message.queue_id} is not whole")
        except StoreUnavailable:
            result = DEFERRED
        except KeyError:
            self.troubles.append(f"{held.message.queue_id} lost its content")
            return
        ended = tuple(int(one.id) for one in held.recipients) if isinstance(result, Sent) else ()
        self.delivered.update((token, number) for number in ended)
        if ended:
            self.journal.mark(Begun(held.message.queue_id, ended=ended))
        last = await self._settle(
            Settlement(lease=held, results={one.id: result for one in held.recipients}, next_attempt=self.now)
        )
        if ended:
            self.journal.mark(Promised(held.message.queue_id, ended=ended, last=last))

    async def _settle(self, settlement: Settlement) -> bool:
        for _ in range(MOST_TRIES):
            try:
                return await self.store.settle(settlement)
            except StoreUnavailable:
                await _wait()
            except LeaseLost:
                self.troubles.append(f"{settlement.lease.message.queue_id}: the lease was lost")
                return False
        self.troubles.append("a result was never written")
        return False


async def _wait() -> None:
    await asyncio.sleep(0.001)


@pytest.fixture
def vfs(tmp_path: Path) -> Iterator[JournalVfs]:
    directory = tmp_path / "disk"
    directory.mkdir()
    watched = JournalVfs(f"faults-{next(_SERIALS)}", Journal(directory))
    yield watched
    watched.unregister()


async def live(vfs: JournalVfs, at: int, fault: Fault, lasting: int) -> tuple[World, int]:
    """Hand everything in and deliver it, while the disk fails from its operation ``at`` on for ``lasting`` operations.

    :return: the world, and how many operations there were.
    """
    journal = vfs.journal
    world = World(journal)
    world.store = await SqliteStore.open(
        journal.root / "q",
        clock=lambda: world.now,
        vfs=vfs.vfs_name,
        checkpoint_pages=12,
        files=JournalFiles(journal),
        sleep=lambda seconds: _wait(),
    )
    journal.asked = 0
    journal.trouble = lambda op: fault(op) if at < journal.asked <= at + lasting else None
    await asyncio.gather(*(world.hand_in(token) for token in ("small", "large")))
    await world.hand_in("late")
    await world.work()
    asked = journal.asked
    journal.trouble = lambda op: None
    await world.store.close()
    return world, asked


async def promises_kept(ops: Sequence[Op], points: Sequence[int], directory: Path) -> list[str]:
    """What a power cut at these points would have broken."""
    directory.mkdir()
    image, promises, done, found = Image(), Promises(), 0, list[str]()
    for point in points:
        for op in ops[done:point]:
            if op.kind == "mark":
                promises.hear(op.mark)
            else:
                image.apply(op)
        done = point
        place = directory / str(point)
        place.mkdir()
        image.write(place)
        found += await promises.broken_in(place / "q")
    return found


def check(world: World) -> None:
    assert world.troubles == []
    wanted = {(token, number): 1 for token, (_, people) in LETTERS.items() for number in range(1, len(people) + 1)}
    assert dict(world.delivered) == wanted, "lost, or served twice"


async def test_without_a_fault(vfs: JournalVfs, tmp_path: Path) -> None:
    world, asked = await live(vfs, 0, broken, 0)
    check(world)
    assert asked > 150, "too little was done to the disk"
    ops = vfs.journal.ops
    assert await promises_kept(ops, sync_points(ops), tmp_path / "images") == []


FAULTS: dict[str, tuple[Fault, int]] = {
    "one I/O error": (broken, 1),
    "I/O errors for a while": (broken, LASTING),
    "no space once": (full, 1),
    "no space for a while": (full, LASTING),
    "a short write": (short, 1),
}


async def everywhere(directory: Path, fault: Fault, lasting: int, places: Sequence[int]) -> int:
    """Fail at each of these operations; returns how often something failed at all."""
    hits = 0
    for at in places:
        root = directory / str(at)
        root.mkdir(parents=True)
        vfs = JournalVfs(f"faults-{next(_SERIALS)}", Journal(root))
        hit: list[int] = []

        def counted(op: Op, hit: list[int] = hit, journal: Journal = vfs.journal) -> Exception | None:
            trouble = fault(op)
            if trouble is not None:
                hit.append(len(journal.ops))
            return trouble

        try:
            world, _ = await live(vfs, at, counted, lasting)
        finally:
            vfs.unregister()
        try:
            check(world)
            ops = vfs.journal.ops
            after = [point for point in sync_points(ops) if hit and point >= hit[0]]
            broken_promises = await promises_kept(ops, after[:: max(1, len(after) // 3)], root / "images")
            assert broken_promises == []
        except AssertionError as error:
            error.add_note(f"the disk failed at operation {at}")
            raise
        hits += bool(hit)
    return hits


@pytest.mark.parametrize("name", FAULTS)
async def test_some_places(tmp_path: Path, name: str) -> None:
    fault, lasting = FAULTS[name]
    start = list(FAULTS).index(name)
    assert await everywhere(tmp_path, fault, lasting, range(start, 190, 17)) > 3


async def test_a_start_on_a_failing_disk(vfs: JournalVfs) -> None:
    """It is refused with a reason or it works; the next one finds everything."""
    journal, path = vfs.journal, vfs.journal.root / "q"

    async def started() -> SqliteStore:
        return await SqliteStore.open(path, clock=lambda: T0, vfs=vfs.vfs_name, files=JournalFiles(journal))

    store = await started()
    await store.put(new("A1"), chunks(b"small"))
    await store.put(new("A2"), chunks(b"large" * 50_000))
    await store.close()
    asked, refused = 1, 0
    for at in range(200):
        if at > asked:
            break
        journal.asked = 0
        journal.trouble = lambda op, at=at: broken(op) if journal.asked == at + 1 else None  # type: ignore[misc] # a default
        try:
            store = await started()
        except StoreUnavailable:
            refused += 1
        else:
            await store.close()
        asked = journal.asked
        journal.trouble = lambda op: None
        store = await started()
        assert (await store.counts()).messages == 2
        assert await read(store, "A2") == b"large" * 50_000
        await store.close()
    assert refused > 5


async def test_a_log_with_a_hole_is_not_built_upon(vfs: JournalVfs, tmp_path: Path) -> None:
    """The process ended when a sync had failed: the next one reads a log of which a part is not on the disk."""
    journal = vfs.journal

    async def for_ever(seconds: float) -> None:
        await asyncio.Event().wait()

    async def started() -> SqliteStore:
        return await SqliteStore.open(
            journal.root / "q", clock=lambda: T0, vfs=vfs.vfs_name, files=JournalFiles(journal), sleep=for_ever
        )

    async def put(store: SqliteStore, queue_id: str) -> None:
        journal.mark(Begun(queue_id, body=b"small", recipients=(1,)))
        await store.put(new(queue_id), chunks(b"small"))
        journal.mark(Promised(queue_id))

    store = await started()
    await put(store, "A1")
    journal.trouble = lambda op: broken(op) if op.kind in {"sync", "remove", "truncate"} else None
    with pytest.raises(StoreUnavailable):
        await put(store, "A2")
    await store.close()
    assert (journal.root / "q-wal").stat().st_size, "closing emptied the log: nothing is shown"
    journal.trouble = lambda op: None
    store = await started()
    await put(store, "A3")
    ops = list(journal.ops)
    await store.close()
    assert await promises_kept(ops, [len(ops)], tmp_path / "images") == []


@pytest.mark.long
@pytest.mark.parametrize("name", FAULTS)
async def test_every_place(tmp_path: Path, name: str) -> None:
    fault, lasting = FAULTS[name]
    assert await everywhere(tmp_path, fault, lasting, range(260)) > 30
