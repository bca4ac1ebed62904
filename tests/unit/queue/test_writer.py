"""The thread that owns the connection: batches, savepoints, errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from relay.queue.health import Trust, look_at
from relay.queue.store import StoreUnavailable
from relay.queue.writer import MAX_BATCH, Done, Failed, Job, Lane, commit_together, read_each


@pytest.fixture
def connection() -> Iterator[apsw.Connection]:
    memory = apsw.Connection(":memory:")
    memory.execute("CREATE TABLE seen (what TEXT UNIQUE)")
    yield memory
    memory.close()


def trusting() -> Trust:
    return Trust(Path(), look_at, lambda refusal: None)


def write(what: str) -> Job[str]:
    def job(connection: apsw.Connection) -> str:
        connection.execute("INSERT INTO seen VALUES (?)", (what,))
        return what

    return job


def failing(what: str, error: Exception) -> Job[str]:
    def job(connection: apsw.Connection) -> str:
        write(what)(connection)
        raise error

    return job


def seen(connection: apsw.Connection) -> list[object]:
    return [what for (what,) in connection.execute("SELECT what FROM seen ORDER BY rowid")]


def test_a_job_that_raises_is_undone_alone(connection: apsw.Connection) -> None:
    error = LookupError("no")
    answers = commit_together(connection, [write("a"), failing("b", error), write("c")])
    assert answers == [Done("a"), Failed(error), Done("c")]
    assert seen(connection) == ["a", "c"]


def test_jobs_that_go_well_take_no_savepoint(connection: apsw.Connection) -> None:
    said: list[str] = []

    def hear(cursor: apsw.Cursor, statement: str, bindings: object) -> bool:
        said.append(statement.partition(" ")[0])
        return True

    connection.exec_trace = hear
    assert commit_together(connection, [write("a"), write("b")]) == [Done("a"), Done("b")]
    assert said == ["BEGIN", "INSERT", "INSERT", "COMMIT"]


def test_a_job_that_raises_is_run_again_and_the_others_count_once(connection: apsw.Connection) -> None:
    runs: list[str] = []

    def once(connection: apsw.Connection) -> str:
        runs.append("run")
        if len(runs) == 1:
            raise LookupError("only the first time")
        return write("b")(connection)

    assert commit_together(connection, [write("a"), once, write("c")]) == [Done("a"), Done("b"), Done("c")]
    assert seen(connection) == ["a", "b", "c"]


def test_a_job_that_ends_the_transaction_does_not_take_the_others_along(connection: apsw.Connection) -> None:
    """As on a full disk: a large message that does not fit must not keep small results from being written."""
    answers = commit_together(connection, [write("a"), failing("b", apsw.FullError("disk is full")), write("c")])
    assert answers[::2] == [Done("a"), Done("c")]
    assert isinstance(answers[1], Failed)
    assert isinstance(answers[1].error, StoreUnavailable)
    assert answers[1].error.full
    assert seen(connection) == ["a", "c"]
    assert not connection.in_transaction


def test_a_job_that_rolls_back_itself_is_seen(connection: apsw.Connection) -> None:
    def job(connection: apsw.Connection) -> None:
        connection.execute("ROLLBACK")
        raise LookupError

    answers = commit_together(connection, [write("a"), job])
    assert answers[0] == Done("a")
    assert isinstance(answers[1], Failed)
    assert seen(connection) == ["a"]


def test_reading_jobs_see_one_snapshot_each_and_leave_no_transaction(connection: apsw.Connection) -> None:
    commit_together(connection, [write("a")])
    error = LookupError("no")

    def bad(connection: apsw.Connection) -> None:
        raise error

    assert read_each(connection, [seen, bad, seen]) == [Done(["a"]), Failed(error), Done(["a"])]
    assert not connection.in_transaction


async def test_more_jobs_than_a_batch_are_all_done_in_order() -> None:
    def connect() -> apsw.Connection:
        memory = apsw.Connection(":memory:")
        memory.execute("CREATE TABLE seen (what TEXT UNIQUE)")
        return memory

    lane = Lane("test", connect, commit_together, trusting())
    await lane.start()
    names = [str(number) for number in range(2 * MAX_BATCH + 7)]
    futures = [lane.submit(write(name)) for name in names]
    listing = lane.submit(seen)
    await lane.stop()
    assert await asyncio.gather(*futures) == names
    assert await listing == names
    with pytest.raises(StoreUnavailable, match="closed"):
        lane.submit(seen)


async def test_jobs_that_come_at_the_same_time_share_a_commit() -> None:
    commits: list[int] = []

    def committing() -> bool:
        commits.append(1)
        return False

    def connect() -> apsw.Connection:
        memory = apsw.Connection(":memory:")
        memory.execute("CREATE TABLE seen (what TEXT UNIQUE)")
        memory.set_commit_hook(committing)
        return memory

    lane = Lane("test", connect, commit_together, trusting())
    await lane.start()
    assert await asyncio.gather(*(lane.submit(write(name)) for name in "abc")) == ["a", "b", "c"]
    assert len(commits) == 1
    await lane.stop()


async def test_a_bare_job_is_done_alone_and_in_its_place() -> None:
    lane = Lane("test", lambda: apsw.Connection(":memory:"), commit_together, trusting())
    await lane.start()
    table = lane.submit(lambda connection: bool(connection.execute("CREATE TABLE seen (what TEXT UNIQUE)")))
    inside = lane.submit(lambda connection: connection.in_transaction)
    bare = lane.submit(lambda connection: (connection.in_transaction, seen(connection)), bare=True)
    after = lane.submit(write("after"))
    await lane.stop()
    assert (await table, await inside, await bare, await after) == (True, True, (False, []), "after")


async def test_a_connection_that_cannot_be_made_is_told() -> None:
    def connect() -> apsw.Connection:
        raise StoreUnavailable("no such place")

    with pytest.raises(StoreUnavailable, match="no such place"):
        await Lane("test", connect, commit_together, trusting()).start()
