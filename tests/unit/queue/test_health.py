"""When the disk fails: what is not trusted is not used, and what is mended is used again."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from relay.log.events import Event, StoreState, Warned
from relay.queue.database import GENTLE_TRIES
from relay.queue.health import LOG_ROOM, Disk, Glance, Trust, floor_of, look_at
from relay.queue.integrity import quick_check
from relay.queue.rows import number
from relay.queue.spool import make_durably
from relay.queue.sqlite import SqliteStore
from relay.queue.store import LeaseLost, StoreUnavailable
from tests.unit.queue.recording_vfs import PATIENCE, Record, RecordingFiles, RecordingVfs
from tests.unit.queue.samples import SENT, T0, lease, new, put, read, settlement

LARGE = b"large body " * 20_000
FREE = 10**12


class World:
    """A store on a disk that fails when told to."""

    def __init__(self, path: Path, vfs: RecordingVfs) -> None:
        self.path = path
        self.vfs = vfs
        self.files = RecordingFiles(Record())
        self.disk = Disk(free=FREE)
        self.events: list[Event] = []
        self.told = asyncio.Condition()
        self.tries = 0
        self.may_try = asyncio.Event()

    async def open(self, floor: int = 0) -> SqliteStore:
        return await SqliteStore.open(
            self.path,
            clock=lambda: T0,
            observe=self._observe,
            floor=floor,
            vfs=self.vfs.vfs_name,
            files=self.files,
            look=lambda directory: self.disk,
            sleep=self._sleep,
        )

    def _observe(self, event: Event) -> None:
        self.events.append(event)

    async def _sleep(self, seconds: float) -> None:
        self.tries += 1
        await self.may_try.wait()
        await asyncio.sleep(0)

    async def until_told(self, count: int) -> None:
        """Wait until that many events were told."""
        async with asyncio.timeout(PATIENCE):
            while len(self.events) < count:
                await asyncio.sleep(0.001)

    async def until_well(self, store: SqliteStore) -> None:
        """Wait until mail is taken, having seen that none was."""
        assert store.refusal is not None
        async with asyncio.timeout(PATIENCE):
            while store.refusal is not None:
                await asyncio.sleep(0.001)

    @property
    def states(self) -> list[bool]:
        """Whether mail is taken, each time that this changed."""
        return [not event.why for event in self.events if isinstance(event, StoreState)]


@pytest.fixture
def vfs() -> Iterator[RecordingVfs]:
    watched = RecordingVfs("failing", Record())
    yield watched
    watched.gate.set()
    watched.unregister()


@pytest.fixture
async def world(tmp_path: Path, vfs: RecordingVfs) -> World:
    return World(tmp_path / "q", vfs)


def spooled(path: Path) -> list[str]:
    return sorted(os.listdir(path.with_name(path.name + ".spool")))


# --- I/O errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [apsw.IOError("disk I/O error"), apsw.CorruptError("database disk image is malformed")]
)
async def test_after_an_io_error_nothing_is_believed_until_it_was_checked(world: World, error: Exception) -> None:
    store = await world.open()
    await put(store, new("A1"))
    (held,) = await lease(store)
    world.vfs.failure = error
    with pytest.raises(StoreUnavailable, match="not trusted until it is opened anew and checked"):
        await put(store, new("A2"))
    world.vfs.failure = None
    # The disk works again, and is not believed for all that.
    for call in (put(store, new("A3")), put(store, new("A4"), LARGE), store.settle(settlement(held, SENT))):
        with pytest.raises(StoreUnavailable) as caught:
            await call
        assert not caught.value.full
    await world.until_told(1)
    assert world.states == [False]
    world.may_try.set()
    await world.until_told(2)
    assert world.states == [False, True]
    assert store.refusal is None
    await put(store, new("A5"), LARGE)
    assert await store.settle(settlement(held, SENT)), "a lease outlives the mending"
    assert [entry.message.queue_id for entry in await store.entries(limit=9)] == ["A5"]
    assert await read(store, "A5") == LARGE
    await store.close()


async def test_what_waited_behind_a_failed_sync_is_refused_too(world: World) -> None:
    """A batch fails as a whole, without a second try; jobs behind it are not even begun."""
    store = await world.open()
    world.vfs.gate.clear()
    first = asyncio.create_task(put(store, new("A1")))
    await world.vfs.reached()
    rest = [asyncio.create_task(put(store, new(f"B{one}"))) for one in range(20)]
    await asyncio.sleep(0)
    world.vfs.sync_failure = apsw.IOError("disk I/O error")
    syncs = world.vfs.syncs
    world.vfs.gate.set()
    answers = await asyncio.gather(first, *rest, return_exceptions=True)
    assert all(isinstance(answer, StoreUnavailable) for answer in answers)
    assert world.vfs.syncs == syncs + 1
    world.vfs.sync_failure = None
    world.may_try.set()
    await world.until_told(2)
    assert (await store.counts()).messages == 0, "a commit that failed does not count later"
    await store.close()
    store = await world.open()
    assert (await store.counts()).messages == 0
    await store.close()


async def test_a_disk_that_stays_broken_is_tried_again_and_told_once(world: World) -> None:
    store = await world.open()
    await put(store, new("A1"))
    world.vfs.failure = world.vfs.sync_failure = apsw.IOError("disk I/O error")
    with pytest.raises(StoreUnavailable):
        await put(store, new("A2"))
    world.may_try.set()
    async with asyncio.timeout(PATIENCE):
        while world.tries < GENTLE_TRIES + 3:
            await asyncio.sleep(0.001)
    assert len([event for event in world.events if isinstance(event, Warned)]) <= 2
    assert world.states == [False]
    world.vfs.failure = world.vfs.sync_failure = None
    async with asyncio.timeout(PATIENCE):
        while world.states != [False, True]:
            await asyncio.sleep(0.001)
    await put(store, new("A3"))
    assert [entry.message.queue_id for entry in await store.entries(limit=9)] == ["A1", "A3"]
    await store.close()


async def test_a_result_that_was_in_the_log_after_all_is_written_once(world: World) -> None:
    """The commit failed at its sync, and the file had to be opened anew with its log: trying again finds it done."""
    store = await world.open()
    await put(store, new("A1"))
    await put(store, new("A2", "one@a.example", "two@b.example"))
    held = await lease(store)
    world.vfs.sync_failure = apsw.IOError("disk I/O error")
    with pytest.raises(StoreUnavailable):
        await store.settle(settlement(held[0], SENT))
    world.may_try.set()
    async with asyncio.timeout(PATIENCE):
        while world.tries < GENTLE_TRIES + 3:
            await asyncio.sleep(0.001)
    world.vfs.sync_failure = None
    await world.until_well(store)
    assert [entry.message.queue_id for entry in await store.entries(limit=9)] == ["A2"], "it stood whole in the log"
    assert await store.settle(settlement(held[0], SENT))
    with pytest.raises(LeaseLost):
        await store.settle(settlement(held[0], SENT))
    assert not await store.settle(settlement(held[1], SENT))
    await store.close()


async def test_closing_while_the_disk_is_in_doubt(world: World) -> None:
    store = await world.open()
    await put(store, new("A1"))
    world.vfs.failure = apsw.IOError("disk I/O error")
    with pytest.raises(StoreUnavailable):
        await put(store, new("A2"))
    await world.until_told(1)
    await store.close()
    world.vfs.failure = None
    store = await world.open()
    assert [entry.message.queue_id for entry in await store.entries(limit=9)] == ["A1"]
    await store.close()


@pytest.mark.parametrize("what", ["sync", "sync_directory"])
async def test_a_spool_file_that_cannot_be_synced_costs_the_trust(world: World, what: str) -> None:
    store = await world.open()

    def fail(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # whatever it says: a failed sync is a failed sync

    setattr(world.files, what, fail)
    with pytest.raises(StoreUnavailable):
        await put(store, new("A1"), LARGE)
    with pytest.raises(StoreUnavailable, match="not trusted"):
        await put(store, new("A2"))
    assert spooled(world.path) == []
    world.may_try.set()
    async with asyncio.timeout(PATIENCE):  # the check writes and syncs a file of its own
        while world.tries < 2:
            await asyncio.sleep(0.001)
    delattr(world.files, what)
    await world.until_well(store)
    await put(store, new("A1"), LARGE)
    assert len(spooled(world.path)) == 1
    await store.close()


async def test_a_file_that_is_gone_is_not_made_anew(world: World) -> None:
    """An empty queue in the place of a full one would be the worst way to be well again."""
    store = await world.open()
    await put(store, new("A1"))
    world.vfs.failure = apsw.IOError("disk I/O error")
    with pytest.raises(StoreUnavailable):
        await put(store, new("A2"))
    world.vfs.failure = None
    for path in list(world.path.parent.glob("q*")):
        if path.is_file():
            path.rename(path.with_name("moved-" + path.name))
    world.may_try.set()
    async with asyncio.timeout(PATIENCE):
        while world.tries < GENTLE_TRIES + 2:
            await asyncio.sleep(0.001)
    assert store.refusal is not None
    assert not world.path.exists()
    await store.close()


# --- room -----------------------------------------------------------------------------------------------------------


async def test_below_the_floor_no_mail_is_taken_and_results_are(world: World) -> None:
    store = await world.open(floor=1_000_000)
    await put(store, new("A1"))
    (held,) = await lease(store)
    world.disk = Disk(free=999_999)
    with pytest.raises(StoreUnavailable, match=r"1.0 MiB free in .*, and 1.0 MiB are kept free") as caught:
        await put(store, new("A2"))
    assert caught.value.full
    assert await store.settle(settlement(held, SENT))
    world.disk = Disk(free=1_000_000)
    await put(store, new("A2"))
    assert world.states == [False, True]
    await store.close()


async def test_a_large_body_stops_at_the_floor(world: World) -> None:
    store = await world.open(floor=1_000_000)
    written = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal written
        for _ in range(100):
            yield b"x" * 100_000
            written += 1
            if written == 20:
                world.disk = Disk(free=0)

    with pytest.raises(StoreUnavailable, match="kept free"):
        await store.put(new("A1"), body())
    assert 20 <= written <= 32
    assert spooled(world.path) == []
    await store.close()


async def test_a_read_only_file_system_is_told_as_a_full_one(world: World) -> None:
    store = await world.open(floor=1)
    world.disk = Disk(free=FREE, read_only=True)
    with pytest.raises(StoreUnavailable, match="read-only") as caught:
        await put(store, new("A1"))
    assert caught.value.full
    world.disk = Disk(free=FREE)
    world.vfs.failure = apsw.IOError("disk I/O error")  # as it goes read-only in the middle of a commit

    async def body() -> AsyncIterator[bytes]:
        yield b"content"
        world.disk = Disk(free=FREE, read_only=True)

    with pytest.raises(StoreUnavailable, match="not trusted") as caught:
        await store.put(new("A1"), body())
    assert caught.value.full
    world.disk, world.vfs.failure = Disk(free=FREE), None
    world.may_try.set()
    await world.until_well(store)
    await put(store, new("A1"))
    await store.close()


def test_the_floor() -> None:
    assert floor_of(10_240_000, 0) == 15_360_000 + LOG_ROOM
    assert floor_of(10_240_000, 20_000_000) == 20_000_000 + LOG_ROOM


def test_looking_at_a_real_disk(tmp_path: Path) -> None:
    disk = look_at(tmp_path)
    assert disk.free > 0
    assert not disk.read_only
    if Path("/proc/self").exists():
        assert look_at(Path("/proc")).free == 1 << 62, "a file system without a size is no full one"


def test_a_glance_is_a_look_that_is_not_old(tmp_path: Path) -> None:
    now, found = [100.0], [Disk(free=10)]

    def look(directory: Path) -> Disk:
        if not found:
            raise OSError(errno.EIO, "broken")
        return found[0]

    glance = Glance(look, enough=10, seconds=0.5, monotonic=lambda: now[0])
    assert glance(tmp_path) == Disk(free=10)
    found[0] = Disk(free=9)
    now[0] += 0.4
    assert glance(tmp_path) == Disk(free=10)
    now[0] += 0.1
    assert glance(tmp_path) == Disk(free=9)
    for seen in (Disk(free=8), Disk(free=20, read_only=True), Disk(free=20)):
        found[0] = seen
        assert glance(tmp_path) == seen, "with little room, each call looks"
    found.clear()
    now[0] += 0.5
    for _ in range(2):
        with pytest.raises(OSError, match="broken"):
            glance(tmp_path)


def test_trust_is_lost_once() -> None:
    told: list[StoreUnavailable] = []
    trust = Trust(Path(), lambda directory: Disk(free=0), told.append)
    assert trust.refusal is None
    first = trust.lose("one")
    assert trust.lose("two") is first
    assert told == [first]
    assert str(trust.refusal) == str(first)
    trust.regain()
    assert trust.refusal is None


# --- looking it over ------------------------------------------------------------------------------------------------


async def damaged(path: Path) -> None:
    """A queue whose table of deliveries was written over."""
    store = await SqliteStore.open(path, clock=lambda: T0)
    for one in range(5):
        await put(store, new(f"A{one}"))
    await store.close()
    connection = apsw.Connection(str(path))
    found = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'delivery'").fetchall()
    ((page,),), size = found, number(connection.pragma("page_size"))
    connection.close()
    with path.open("r+b") as file:
        file.seek((number(page) - 1) * size + 8)
        file.write(b"\xff" * 200)


async def test_a_damaged_queue_is_refused_at_the_start(tmp_path: Path) -> None:
    await damaged(tmp_path / "q")
    with pytest.raises(StoreUnavailable, match=r"is damaged: .*; .* put a backup in its place"):
        await SqliteStore.open(tmp_path / "q", clock=lambda: T0)


async def test_the_check_ends_with_its_time(tmp_path: Path) -> None:
    await damaged(tmp_path / "q")
    connection = apsw.Connection(str(tmp_path / "q"))
    ticks = iter(range(1000))
    assert not quick_check(connection, "q", -1.0, monotonic=lambda: float(next(ticks)))
    connection.close()


async def test_a_whole_queue_is_whole(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "q", clock=lambda: T0)
    await put(store, new("A1"))
    await store.close()
    connection = apsw.Connection(str(tmp_path / "q"))
    assert quick_check(connection, "q", 60.0)
    connection.close()


def test_a_directory_made_durably(tmp_path: Path) -> None:
    make_durably(tmp_path / "a" / "b")
    make_durably(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
