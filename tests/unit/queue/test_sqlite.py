"""The SQLite engine where it differs from others: files, versions, faults, group commit, the end of a process."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import apsw
import pytest

from relay.queue.migrate import APPLICATION_ID, VERSION, bring_up_to_date
from relay.queue.sqlite import SqliteStore
from relay.queue.store import EntryState, StoreUnavailable
from tests.unit.queue.recording_vfs import Record, RecordingFiles, RecordingVfs
from tests.unit.queue.samples import (
    DEFERRED,
    LEASE,
    SENT,
    T0,
    chunks,
    lease,
    new,
    next_due,
    put,
    read,
    settlement,
)

LARGE = b"large body " * 20_000
SMALL = b"Subject: x\r\n\r\nhello\r\n"


def clock() -> datetime:
    return T0


@pytest.fixture
def vfs() -> Iterator[RecordingVfs]:
    watched = RecordingVfs("watched", Record())
    yield watched
    watched.gate.set()
    watched.unregister()


def spooled(path: Path) -> list[str]:
    return sorted(os.listdir(path.with_name(path.name + ".spool")))


# --- opening --------------------------------------------------------------------------------------------------------


async def test_a_queue_is_there_after_reopening(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "q", clock=clock)
    await put(store, new("A1"), SMALL)
    await put(store, new("A2"), LARGE)
    await store.close()
    store = await SqliteStore.open(tmp_path / "q", clock=clock)
    assert await read(store, "A1") == SMALL
    assert await read(store, "A2") == LARGE
    await store.close()


async def test_leases_of_the_process_before_are_cleared_and_their_attempts_stay(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "q", clock=clock)
    await put(store, new("A1"))
    await lease(store)
    await store.close()
    store = await SqliteStore.open(tmp_path / "q", clock=clock)
    assert (await store.counts()).deliveries[EntryState.ACTIVE] == 0
    (entry,) = await store.entries(limit=1)
    (pending,) = entry.recipients
    assert pending.reason == "the attempt begun at 2026-03-04T05:06:07Z broke off: the relay ended in the middle of it"
    assert (pending.attempts, pending.last_attempt, pending.state) == (1, T0, EntryState.DEFERRED)
    (held,) = await lease(store)
    assert held.attempts == 1
    await store.close()


async def test_orphaned_bodies_are_swept_and_others_kept(tmp_path: Path) -> None:
    path = tmp_path / "q"
    store = await SqliteStore.open(path, clock=clock)
    await put(store, new("A1"), LARGE)
    await store.close()
    (kept,) = spooled(path)
    for name in ("A2.9", "A3.10.tmp"):
        (tmp_path / "q.spool" / name).write_bytes(b"left behind")
    store = await SqliteStore.open(path, clock=clock)
    assert spooled(path) == [kept]
    await put(store, new("A4"), LARGE)
    assert spooled(path) == sorted([kept, "A4.11"])
    assert await read(store, "A1") == LARGE
    await store.close()


async def test_a_lost_body_is_a_body_that_is_gone(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "q", clock=clock)
    await put(store, new("A1"), LARGE)
    (name,) = spooled(tmp_path / "q")
    (tmp_path / "q.spool" / name).unlink()
    with pytest.raises(KeyError, match=name):
        await read(store, "A1")
    await store.close()


async def test_the_spool_is_empty_when_nothing_is_queued(tmp_path: Path) -> None:
    path = tmp_path / "q"
    store = await SqliteStore.open(path, clock=clock)
    await put(store, new("A1"), LARGE)
    assert len(spooled(path)) == 1
    with pytest.raises(ValueError, match="A1"):
        await put(store, new("A1"), LARGE)
    assert len(spooled(path)) == 1
    (held,) = await lease(store)
    await store.settle(settlement(held, DEFERRED))
    assert len(spooled(path)) == 1
    (held,) = await lease(store, held.leased_at.replace(year=2030))
    await store.settle(settlement(held, SENT))
    assert spooled(path) == []
    await store.close()


@pytest.mark.parametrize("where", ["missing/q", "directory"])
async def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, where: str) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(StoreUnavailable, match=str(tmp_path / where)):
        await SqliteStore.open(tmp_path / where, clock=clock)


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "q"
    path.write_bytes(b"important notes\n" * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        await SqliteStore.open(path, clock=clock)
    assert path.read_bytes() == b"important notes\n" * 100


# --- versions -------------------------------------------------------------------------------------------------------


async def test_a_newer_queue_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "q"
    await (await SqliteStore.open(path, clock=clock)).close()
    with apsw.Connection(str(path)) as connection:
        connection.pragma("user_version", VERSION + 1)
    connection.close()
    with pytest.raises(StoreUnavailable, match=f"{path} has schema version {VERSION + 1}, made by a newer dane-relay"):
        await SqliteStore.open(path, clock=clock)


async def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "q"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE recipe (name)")
    connection.close()
    with pytest.raises(StoreUnavailable, match=r"q is not a queue database of dane-relay"):
        await SqliteStore.open(path, clock=clock)


def older(path: Path) -> apsw.Connection:
    """A queue as the release before made it: of this folder's version 1."""
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE letter (name TEXT NOT NULL) STRICT; INSERT INTO letter VALUES ('kept')")
    connection.pragma("user_version", 1)
    connection.pragma("application_id", APPLICATION_ID)
    return connection


@pytest.fixture
def sql(tmp_path: Path) -> Path:
    """Version 3 of that schema, and the way there."""
    folder = tmp_path / "sql"
    (folder / "migrations").mkdir(parents=True)
    (folder / "schema.sql").write_text("CREATE TABLE letter (name TEXT NOT NULL, weight INTEGER, stamp TEXT) STRICT;")
    (folder / "migrations" / "0002_weight.sql").write_text("ALTER TABLE letter ADD COLUMN weight INTEGER;")
    (folder / "migrations" / "0003_stamp.sql").write_text("ALTER TABLE letter ADD COLUMN stamp TEXT;")
    return folder


def columns(connection: apsw.Connection) -> list[object]:
    return [row[1] for row in connection.execute("PRAGMA table_info(letter)")]


def test_an_older_queue_is_migrated_step_by_step(tmp_path: Path, sql: Path) -> None:
    connection = older(tmp_path / "q")
    assert bring_up_to_date(connection, "q", sql=sql, version=3) == 1
    assert columns(connection) == ["name", "weight", "stamp"]
    assert connection.execute("SELECT name FROM letter").fetchall() == [("kept",)]
    assert connection.pragma("user_version") == 3
    assert bring_up_to_date(connection, "q", sql=sql, version=3) == 3
    connection.close()


def test_a_migration_that_fails_leaves_the_version_before(tmp_path: Path, sql: Path) -> None:
    (sql / "migrations" / "0003_stamp.sql").write_text("ALTER TABLE letter ADD COLUMN stamp TEXT; SELECT nonsense;")
    connection = older(tmp_path / "q")
    with pytest.raises(apsw.SQLError, match="nonsense"):
        bring_up_to_date(connection, "q", sql=sql, version=3)
    assert columns(connection) == ["name", "weight"]
    assert connection.pragma("user_version") == 2
    connection.close()


def test_a_new_queue_has_the_whole_schema_at_once(tmp_path: Path, sql: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "q"))
    assert bring_up_to_date(connection, "q", sql=sql, version=3) == 3
    assert columns(connection) == ["name", "weight", "stamp"]
    connection.close()


def test_each_version_after_the_first_has_its_migration() -> None:
    folder = Path(__file__).parents[3] / "relay" / "queue" / "sql" / "migrations"
    numbers = sorted(int(file.name[:4]) for file in folder.glob("*.sql"))
    assert numbers == list(range(2, VERSION + 1))


async def test_a_queue_of_the_first_version_is_led_to_this_one(tmp_path: Path) -> None:
    """As a new one: the same columns with the same defaults, and what waited or was held goes on doing so."""
    old, now = tmp_path / "old", tmp_path / "new"
    await (await SqliteStore.open(now, clock=clock)).close()
    connection = apsw.Connection(str(old))
    connection.execute((Path(__file__).parent / "schema_1.sql").read_text())
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1")
    client = '{"address":"192.0.2.1","port":0,"name":"","helo":"","protocol":"","user":"","tls":["","",0,0]}'
    connection.execute("INSERT INTO message VALUES (1, 'A1', '', '', 0, 1, 0, '7BIT', 0, '', '', 0, ?)", (client,))
    connection.execute("INSERT INTO body VALUES (1, x'00', '')")
    connection.execute("INSERT INTO delivery VALUES (1, 0, 'a.example', 'held', 0, 0, 0, 0)")
    connection.execute("INSERT INTO recipient VALUES (1, 1, 0, 0, 'u@a.example', 'a.example', 0, '', 'pending', '')")
    connection.close()
    store = await SqliteStore.open(old, clock=clock)
    assert (await store.counts()).deliveries[EntryState.HOLD] == 1
    await store.close()
    assert shape(old) == shape(now)


def shape(path: Path) -> dict[str, list[object]]:
    """Tables with their columns (name, type, not null, default, key), indexes with their columns."""
    with apsw.Connection(str(path)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")]
        found: dict[str, list[object]] = {}
        for name in names:
            found[str(name)] = sorted(row[1:] for row in connection.execute(f"PRAGMA table_info({name})"))
            found[f"{name} indexes"] = sorted(row[1:] for row in connection.execute(f"PRAGMA index_list({name})"))
    connection.close()
    return found


# --- the schema guards its own rules --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE delivery SET state = 'leased'",
        "UPDATE delivery SET lease = 4",
        "UPDATE delivery SET state = 'leased', lease = 1, lease_until = 1",
        "UPDATE delivery SET state = 'gone'",
        "UPDATE delivery SET destination = ''",
        "UPDATE recipient SET state = 'lost'",
        "UPDATE message SET queue_id = '../../etc/passwd'",
        "UPDATE message SET sender = ''",
        "UPDATE body SET content = NULL",
        "UPDATE body SET spool = 'A1.1'",
        "DELETE FROM message; INSERT INTO body VALUES (77, x'', '')",
    ],
)
async def test_states_that_must_not_be_cannot_be_written(tmp_path: Path, statement: str) -> None:
    store = await SqliteStore.open(tmp_path / "q", clock=clock)
    await put(store, new("A1"))
    await store.close()
    connection = apsw.Connection(str(tmp_path / "q"))
    connection.pragma("foreign_keys", 1)
    with pytest.raises(apsw.ConstraintError):
        connection.execute(statement)
    connection.close()


# --- faults ---------------------------------------------------------------------------------------------------------


async def test_a_full_disk_makes_the_store_unavailable_until_there_is_room(tmp_path: Path, vfs: RecordingVfs) -> None:
    store = await SqliteStore.open(tmp_path / "q", clock=clock, vfs="watched")
    await put(store, new("A1"))
    (held,) = await lease(store)
    vfs.failure = apsw.FullError("database or disk is full")
    for call in (put(store, new("A2")), put(store, new("A3"), LARGE), store.settle(settlement(held, SENT))):
        with pytest.raises(StoreUnavailable) as caught:
            await call
        assert caught.value.full
    assert spooled(tmp_path / "q") == []
    vfs.failure = None
    await put(store, new("A4"))
    assert await store.settle(settlement(held, SENT))
    assert [entry.message.queue_id for entry in await store.entries(limit=9)] == ["A4"]
    await store.close()


@pytest.mark.parametrize(("code", "full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EMFILE, False)])
async def test_a_failing_spool_makes_the_store_unavailable_until_it_is_well(
    tmp_path: Path, code: int, full: bool
) -> None:
    files = RecordingFiles(Record())
    store = await SqliteStore.open(tmp_path / "q", clock=clock, files=files)
    files.failure = OSError(code, os.strerror(code))
    with pytest.raises(StoreUnavailable, match=os.strerror(code)) as caught:
        await put(store, new("A1"), LARGE)
    assert caught.value.full is full
    await put(store, new("A2"), SMALL)
    assert spooled(tmp_path / "q") == []
    files.failure = None
    await put(store, new("A1"), LARGE)
    assert await read(store, "A1") == LARGE
    await store.close()


# --- group commit ---------------------------------------------------------------------------------------------------


async def test_what_waits_for_a_sync_is_committed_together_and_answered_after_its_own(
    tmp_path: Path, vfs: RecordingVfs
) -> None:
    store = await SqliteStore.open(tmp_path / "q", clock=clock, vfs="watched")
    await put(store, new("TAKEN"))
    vfs.record.events.clear()
    vfs.gate.clear()
    first = asyncio.create_task(put(store, new("A0")))
    await vfs.reached()
    rest = [asyncio.create_task(put(store, new(f"A{number}"))) for number in range(1, 100)]
    twice = asyncio.create_task(put(store, new("TAKEN")))
    at_once = store.lease_at({"a.example": 200}, now=T0, until=T0 + LEASE)
    leasing = asyncio.ensure_future(at_once)
    await asyncio.sleep(0)
    assert not any(task.done() for task in (first, *rest, twice, leasing))
    vfs.gate.set()
    await asyncio.gather(first, *rest)
    with pytest.raises(ValueError, match="TAKEN"):
        await twice
    assert len(await leasing) == 101  # those put before it in the same transaction are there already
    assert [event.what for event in vfs.record.events if event.file == "q-wal"].count("sync") == 2
    await store.close()


async def test_reading_does_not_wait_for_a_commit(tmp_path: Path, vfs: RecordingVfs) -> None:
    store = await SqliteStore.open(tmp_path / "q", clock=clock, vfs="watched")
    await put(store, new("A1"))
    vfs.gate.clear()
    writing = asyncio.create_task(put(store, new("A2")))
    await vfs.reached()
    assert await read(store, "A1")
    assert (await store.counts()).messages == 1
    vfs.gate.set()
    await writing
    assert (await store.counts()).messages == 2
    await store.close()


@pytest.mark.parametrize("body", [SMALL, LARGE])
async def test_a_put_cancelled_during_its_commit_is_withdrawn(tmp_path: Path, vfs: RecordingVfs, body: bytes) -> None:
    store = await SqliteStore.open(tmp_path / "q", clock=clock, vfs="watched")
    vfs.gate.clear()
    task = asyncio.create_task(put(store, new("A1"), body))
    await vfs.reached()
    task.cancel()
    await asyncio.sleep(0)
    vfs.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await store.counts()).messages == 0
    assert spooled(tmp_path / "q") == []
    await store.close()


async def test_a_lease_cancelled_during_its_commit_is_given_back(tmp_path: Path, vfs: RecordingVfs) -> None:
    store = await SqliteStore.open(tmp_path / "q", clock=clock, vfs="watched")
    await put(store, new("A1"))
    vfs.gate.clear()
    task = asyncio.create_task(lease(store))
    await vfs.reached()
    task.cancel()
    await asyncio.sleep(0)
    vfs.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    (held,) = await lease(store)
    assert held.attempts == 0
    await store.close()


async def test_closing_finishes_what_was_begun(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "q", clock=clock)
    tasks = [asyncio.create_task(put(store, new(f"A{number}"))) for number in range(500)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*tasks)
    store = await SqliteStore.open(tmp_path / "q", clock=clock)
    assert (await store.counts()).messages == 500
    await store.close()


# --- the end of a process -------------------------------------------------------------------------------------------

CHILD = """
import asyncio, sys
from pathlib import Path
from relay.queue.sqlite import SqliteStore
from tests.unit.queue.samples import T0, lease, new, put

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]), clock=lambda: T0)
    await put(store, new("A1"), b"small")
    await put(store, new("A2"), b"large body " * 20_000)
    await lease(store, limit=1)
    print("returned", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_what_put_returned_for_outlives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "q"
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"returned\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    store = await SqliteStore.open(path, clock=clock)
    assert await read(store, "A1") == b"small"
    assert await read(store, "A2") == LARGE
    assert len(await lease(store)) == 2
    await store.close()


# --- many -----------------------------------------------------------------------------------------------------------


async def backlog(path: Path) -> SqliteStore:
    """12,000 deliveries of one destination, due since 1970, then 300 of three others, due since 2000, taking turns."""
    await (await SqliteStore.open(path, clock=clock)).close()
    client = '{"address":"192.0.2.1","port":0,"name":"","helo":"","protocol":"","user":"","tls":["","",0,0]}'
    numbers = range(1, 12_301)
    with apsw.Connection(str(path)) as connection:
        connection.executemany(
            "INSERT INTO message VALUES (?, 'B' || ?, '', '', 0, 0, 0, '7BIT', 0, '', '', 0, ?)",
            ((number, number, client) for number in numbers),
        )
        connection.executemany(
            "INSERT INTO delivery VALUES (?, 0, ?, 'waiting', ?, 0, 0, 0, 0, '', 0)",
            (
                (number, "busy.example", number)
                if number <= 12_000
                else (number, f"c{number % 3}.example", 946_684_800_000_000 + number - 12_001)
                for number in numbers
            ),
        )
        connection.executemany(
            "INSERT INTO recipient VALUES (?, 1, 0, 0, 'u@a.example', 'a.example', 0, '', 'pending', '', '', 0)",
            ((number,) for number in numbers),
        )
    connection.close()
    return await SqliteStore.open(path, clock=clock)


async def test_leasing_looks_past_a_backlog_of_busy_destinations(tmp_path: Path) -> None:
    """More busy deliveries are due than the first look goes through, and the longest due of the others come first."""
    store = await backlog(tmp_path / "q")
    leases = await lease(store, limit=7, busy=("busy.example",))
    assert [held.due_at.microsecond for held in leases] == [0, 1, 2, 3, 4, 5, 6]
    assert {held.destination for held in leases} == {"c0.example", "c1.example", "c2.example"}
    (head,) = await store.heads(now=T0, limit=1, busy=["busy.example"])
    assert head.due == leases[-1].due_at.replace(microsecond=7)
    assert [held.destination for held in await lease(store, limit=1)] == ["busy.example"]
    assert len(await lease(store, limit=1000, busy=("busy.example",))) == 293
    await store.close()


async def test_a_flush_of_more_than_one_transaction(tmp_path: Path) -> None:
    store = await backlog(tmp_path / "q")
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert await store.flush(now=epoch) == 12_300
    assert await next_due(store) == epoch
    await store.close()


async def test_a_chunk_may_be_larger_than_a_row_takes(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "q", clock=clock)
    await store.put(new("A1"), chunks(b"a", LARGE, b"b"))
    assert await read(store, "A1") == b"a" + LARGE + b"b"
    await store.close()
