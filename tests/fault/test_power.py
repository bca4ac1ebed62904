"""Power loss at every sync: from the record of a run, the queue is started from a copy that holds only what was synced.

Nothing that was promised is missing from it, and nothing that was settled is back. That the test can fail is shown by
taking syncs away: all of a kind, one by one, and SQLite's own with ``synchronous=NORMAL``.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

import pytest

from relay.outcome.result import Bounced, Deferred, Sent
from relay.queue.sqlite import SqliteStore
from relay.queue.store import NOBODY, Lease, Report, Settlement
from tests.fault.disk import Image, Journal, JournalFiles, JournalVfs, Op, sync_points
from tests.fault.promises import Begun, Promised, Promises
from tests.unit.queue.samples import BOUNCED, DEFERRED, FROM_NOBODY, LEASE, MINUTE, SENT, T0, Hands, chunks, lease, new

QUEUE = "q"
_SERIALS = count()


@dataclass(slots=True)
class Run:
    """A store at work, its promises noted between what it does to the disk."""

    journal: Journal
    store: SqliteStore
    reports: int = 0

    async def put(self, queue_id: str, size: int, *recipients: str, hands: Hands | None = None) -> None:
        body = (queue_id.encode() * (size // len(queue_id) + 1))[:size]
        message = new(queue_id, *recipients)
        numbers = tuple(int(one.id) for one in message.envelope.recipients)
        self.journal.mark(Begun(queue_id, body=body, recipients=numbers))
        pieces = chunks(*(body[at : at + 50_000] for at in range(0, size, 50_000)))
        await self.store.put(message, pieces, hands or NOBODY)
        self.journal.mark(Promised(queue_id))

    async def settle(self, held: Lease, *results: Sent | Deferred | Bounced, report: bool = False) -> None:
        given = {one.id: result for one, result in zip(held.recipients, results, strict=True)}
        ended = tuple(int(id_) for id_, result in given.items() if not isinstance(result, Deferred))
        queue_id, name = held.message.queue_id, ""
        reports: tuple[Report, ...] = ()
        if report:
            self.reports += 1
            name = f"R{self.reports}"
            self.journal.mark(Begun(name, body=b"report", recipients=(1,)))
            reports = (Report(message=new(name, given=FROM_NOBODY, arrived_at=T0 + LEASE), content=b"report"),)
        if ended:
            self.journal.mark(Begun(queue_id, ended=ended))
        settlement = Settlement(lease=held, results=given, next_attempt=T0 + 5 * MINUTE, reports=reports)
        last = await self.store.settle(settlement)
        if ended:
            self.journal.mark(Promised(queue_id, ended=ended, last=last, report=name))


async def work(run: Run) -> None:
    """A bit of everything, some of it at once."""
    await run.put("A1", 300)
    await run.put("A2", 200_000, "one@a.example", "two@b.example")
    await asyncio.gather(*(run.put(f"B{number}", 5_000 * number, "x@c.example") for number in range(8)))
    await asyncio.gather(*(run.put(f"C{number}", 70_000 + number, "y@d.example") for number in range(4)))
    await run.put("A3", 10, "one@a.example", "two@a.example", "three@a.example")
    held = {(one.message.queue_id, one.destination): one for one in await lease(run.store, limit=100)}
    assert len(held) == 16
    by_id = {str(queue_id): one for (queue_id, _), one in held.items()}
    await run.settle(by_id["A1"], SENT)
    await run.settle(by_id["A3"], SENT, DEFERRED, BOUNCED, report=True)
    await asyncio.gather(*(run.settle(by_id[f"B{number}"], SENT) for number in range(8)))
    await asyncio.gather(*(run.settle(by_id[f"C{number}"], SENT) for number in range(3)))
    await run.settle(by_id["C3"], DEFERRED)
    for (queue_id, _), one in held.items():
        if queue_id == "A2":
            await run.settle(one, SENT)
    await asyncio.gather(*(run.put(f"D{number}", 30_000) for number in range(5)))
    await run.put("D9", 90_000)
    hands = Hands("e.example")
    await asyncio.gather(*(run.put(f"F{number}", 20_000 * number, "z@e.example", hands=hands) for number in range(5)))
    await asyncio.gather(*(run.settle(one, SENT) for one in hands.leases[:3]))
    await run.settle(hands.leases[3], DEFERRED)


async def recorded(
    directory: Path, *, synchronous: Literal["FULL", "NORMAL"] = "FULL", checkpoint_pages: int = 30
) -> list[Op]:
    """The record of a run: open, work, close, open again, work a little."""
    directory.mkdir()
    journal = Journal(directory)
    vfs = JournalVfs(f"power-{next(_SERIALS)}", journal)

    async def opened() -> SqliteStore:
        return await SqliteStore.open(
            directory / QUEUE,
            clock=lambda: T0,
            vfs=vfs.vfs_name,
            synchronous=synchronous,
            checkpoint_pages=checkpoint_pages,
            files=JournalFiles(journal),
        )

    try:
        run = Run(journal, await opened())
        await work(run)
        await run.store.close()
        run.store = await opened()
        await run.put("E1", 100)
        await run.put("E2", 100_000)
        ops = list(journal.ops)  # the power fails here at the latest
        await run.store.close()
    finally:
        vfs.unregister()
    return ops


async def broken_at(
    ops: Sequence[Op], points: Sequence[int], directory: Path, seed: int | None = None, *, any_will_do: bool = False
) -> list[tuple[int, str]]:
    """What is not as promised after a power failure at each of these points, or at the first at which something is not."""
    directory.mkdir()
    found = []
    image, promises, done = Image(), Promises(), 0
    for number, point in enumerate(points):
        for op in ops[done:point]:
            if op.kind == "mark":
                promises.hear(op.mark)
            else:
                image.apply(op)
        done = point
        place = directory / str(number)
        place.mkdir()
        image.write(place, None if seed is None else random.Random(seed * 100_000 + point))
        found += [(point, broken) for broken in await promises.broken_in(place / QUEUE)]
        if found and any_will_do:
            return found
    return found


@pytest.fixture(scope="module")
def ops(tmp_path_factory: pytest.TempPathFactory) -> list[Op]:
    return asyncio.run(recorded(tmp_path_factory.mktemp("power") / "run"))


async def test_only_what_was_synced_is_left_at_every_sync_point(ops: list[Op], tmp_path: Path) -> None:
    points = sync_points(ops)
    assert len(points) > 80, "the run was too short to show anything"
    assert {Path(op.name).suffix for op in ops if op.kind == "sync"} >= {"", ".tmp"}
    assert any(op.kind == "sync" and op.name == QUEUE for op in ops), "no checkpoint was seen"
    assert await broken_at(ops, points, tmp_path / "images") == []


@pytest.mark.parametrize("seed", range(2))
async def test_of_what_was_not_synced_any_part_may_be_left(ops: list[Op], tmp_path: Path, seed: int) -> None:
    """Sectors of unsynced writes, in any mixture: checksums and order tell what counts."""
    assert await broken_at(ops, sync_points(ops), tmp_path / "images", seed) == []


# --- that it can fail -----------------------------------------------------------------------------------------------

KINDS: dict[str, Callable[[Op], bool]] = {
    "the log's": lambda op: op.kind == "sync" and op.name == f"{QUEUE}-wal",
    "the database's": lambda op: op.kind == "sync" and op.name == QUEUE,
    "a spool file's": lambda op: op.kind == "sync" and op.name.endswith(".tmp"),
    "the spool directory's": lambda op: op.kind == "sync directory" and op.name == f"{QUEUE}.spool",
}


@pytest.mark.parametrize("kind", KINDS)
async def test_without_a_kind_of_sync_it_is_red(ops: list[Op], tmp_path: Path, kind: str) -> None:
    kept = [op for op in ops if not KINDS[kind](op)]
    assert len(kept) < len(ops)
    assert await broken_at(kept, sync_points(kept), tmp_path / "images", any_will_do=True)


@pytest.mark.parametrize("kind", ["the log's", "a spool file's", "the spool directory's"])
async def test_without_one_sync_it_is_red(ops: list[Op], tmp_path: Path, kind: str) -> None:
    """Each sync on which a promise rests alone is needed; of those, some are taken away one at a time."""
    alone = [index for index, op in enumerate(ops) if KINDS[kind](op) and _rests_alone_on(ops, index, kind)]
    assert alone
    for index in alone[:: max(1, len(alone) // 3)]:
        kept = [op for at, op in enumerate(ops) if at != index]
        after = [point for point in sync_points(kept) if point >= index]
        assert await broken_at(kept, after, tmp_path / str(index), any_will_do=True), f"not needed: {ops[index]}"


def _rests_alone_on(ops: Sequence[Op], index: int, kind: str) -> bool:
    """Whether no other sync of this kind stands between what this one syncs and the promise."""
    if kind == "a spool file's":
        return True
    following = next((at for at in range(index + 1, len(ops)) if KINDS[kind](ops[at])), len(ops))
    before = next((at for at in range(index - 1, -1, -1) if KINDS[kind](ops[at])), 0)
    promised = [op.mark.queue_id for op in ops[index:following] if isinstance(op.mark, Promised) and not op.mark.ended]
    if kind == "the log's":
        # A promise is noted a little later than its sync: it rests on this one if its row was written just before.
        written = b"".join(op.data for op in ops[before:index] if op.name == f"{QUEUE}-wal")
        return any(queue_id.encode() in written for queue_id in promised)
    renamed = [Path(op.other).stem for op in ops[before:index] if op.kind == "rename"]
    return bool(set(renamed) & set(promised))


async def test_with_synchronous_normal_it_is_red(tmp_path: Path) -> None:
    ops = await recorded(tmp_path / "run", synchronous="NORMAL")
    assert await broken_at(ops, sync_points(ops), tmp_path / "images", any_will_do=True)


def test_an_image_holds_what_was_synced(tmp_path: Path) -> None:
    image = Image()
    for op in (
        Op("create", "d/a"),
        Op("write", "d/a", 0, b"old"),
        Op("sync", "d/a"),
        Op("sync directory", "d"),
        Op("write", "d/a", 1, b"new"),
        Op("create", "d/b"),
        Op("write", "d/b", 0, b"b"),
        Op("sync", "d/b"),
        Op("rename", "d/b", other="d/c"),
    ):
        image.apply(op)
    image.write(tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "d").iterdir()} == {"a": b"old"}
    image.apply(Op("sync directory", "d"))
    image.write(tmp_path)
    assert (tmp_path / "d" / "c").read_bytes() == b"b"
