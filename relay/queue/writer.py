"""Threads that own a database connection each: one writer with group commit, one reader.

The asyncio side hands over jobs; the writer's thread takes all that wait, runs each in a savepoint of one transaction,
commits once, and only then answers all of them in one call to the loop. So jobs share the cost of a sync, and nobody
hears of a result that is not on the disk.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

import apsw

from relay.queue.store import StoreUnavailable

MAX_BATCH = 200

T = TypeVar("T")
Job = Callable[[apsw.Connection], T]

# The WAL index could not grow: SQLite calls this an I/O error, but it means that the disk is full (os_unix.c).
_FULL_IN_DISGUISE: Final = frozenset({apsw.SQLITE_IOERR_SHMSIZE})


@dataclass(frozen=True, slots=True)
class Done:
    """A job's value."""

    value: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """What a job raised, or why the transaction that it was part of failed."""

    error: Exception


Answer = Done | Failed
RunBatch = Callable[[apsw.Connection, Sequence[Job[Any]]], list[Answer]]


class _BatchLost(Exception):  # noqa: N818 - it names the state, not the handling
    """The transaction cannot go on; nothing of the batch is written."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def unavailable(error: apsw.Error) -> StoreUnavailable:
    """SQLite's error as the seam's."""
    code = getattr(error, "extendedresult", 0)
    return StoreUnavailable(
        f"queue database: {str(error) or type(error).__name__}",
        full=isinstance(error, apsw.FullError) or code in _FULL_IN_DISGUISE,
    )


def commit_together(connection: apsw.Connection, jobs: Sequence[Job[Any]]) -> list[Answer]:
    """Run jobs in one transaction, each in a savepoint: one that raises is undone alone.

    If the transaction as a whole fails (disk full), each job is tried in one of its own, so that a large message that
    does not fit does not keep small results from being written. Jobs may therefore run twice.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        answers = [_in_savepoint(connection, job) for job in jobs]
        connection.execute("COMMIT")
    except (apsw.Error, _BatchLost) as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if len(jobs) > 1:
            return [commit_together(connection, [job])[0] for job in jobs]
        return [_failed(error.error if isinstance(error, _BatchLost) else error)]
    return answers


def read_each(connection: apsw.Connection, jobs: Sequence[Job[Any]]) -> list[Answer]:
    """Run reading jobs, each over one snapshot of the database."""
    return [_read(connection, job) for job in jobs]


def _in_savepoint(connection: apsw.Connection, job: Job[Any]) -> Answer:
    connection.execute("SAVEPOINT job")
    try:
        value = job(connection)
    except Exception as error:  # whoever gave us the job hears of it; the thread must go on for the others
        # On a full disk or an I/O error SQLite may have rolled everything back already.
        if not connection.in_transaction or isinstance(error, apsw.FullError | apsw.IOError | apsw.CorruptError):
            raise _BatchLost(error) from error
        connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
        return _failed(error)
    connection.execute("RELEASE job")
    return Done(value)


def _read(connection: apsw.Connection, job: Job[Any]) -> Answer:
    try:
        connection.execute("BEGIN")
        try:
            return Done(job(connection))
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    except Exception as error:  # as above
        return _failed(error)


def _failed(error: Exception) -> Failed:
    return Failed(unavailable(error) if isinstance(error, apsw.Error) else error)


class Lane:
    """One thread with one connection, which no other thread ever touches.

    :param name: of the thread.
    :param connect: called in the thread; what it raises, ``start`` raises.
    :param run: what to do with the jobs that wait: ``commit_together`` or ``read_each``.
    """

    def __init__(self, name: str, connect: Callable[[], apsw.Connection], run: RunBatch) -> None:
        self._connect = connect
        self._run = run
        self._jobs: SimpleQueue[tuple[Job[Any], asyncio.Future[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._open = False

    async def start(self) -> None:
        """Start the thread and wait until it has its connection."""
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._thread.start()
        await self._started
        self._open = True

    def submit(self, job: Job[T]) -> asyncio.Future[T]:
        """Have a job done; cancelling the future does not stop it, so shield it.

        :raises StoreUnavailable: if the lane was stopped.
        """
        if not self._open:
            raise StoreUnavailable("the queue is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put((job, future))
        return future

    async def stop(self) -> None:
        """Do what was submitted, close the connection and end the thread."""
        if self._open:
            self._open = False
            self._jobs.put(None)
        await asyncio.shield(self._stopped)

    def _work(self) -> None:
        try:
            connection = self._connect()
        except Exception as error:  # start() raises it
            self._tell(_refuse, self._started, error)
            return
        self._tell(_resolve, [(self._started, Done(None))])
        try:
            while batch := self._take():
                answers = self._answer(connection, [job for job, _ in batch])
                self._tell(_resolve, [(future, answer) for (_, future), answer in zip(batch, answers, strict=True)])
        finally:
            connection.close()
            self._tell(_resolve, [(self._stopped, Done(None))])

    def _answer(self, connection: apsw.Connection, jobs: Sequence[Job[Any]]) -> list[Answer]:
        try:
            return self._run(connection, jobs)
        except Exception as error:  # a rollback failed: say so to these, and let the next batch try
            return [_failed(error) for _ in jobs]

    def _take(self) -> list[tuple[Job[Any], asyncio.Future[Any]]]:
        """Wait for a job and take all that are there; empty at the end."""
        batch = []
        item = self._jobs.get()
        while item is not None:
            batch.append(item)
            if len(batch) == MAX_BATCH:
                return batch
            try:
                item = self._jobs.get_nowait()
            except Empty:
                return batch
        if batch:
            self._jobs.put(None)  # the end was seen behind the last jobs: see it again after them
        return batch

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            pass  # the loop is closed: nobody is left to be told


def _resolve(answered: Sequence[tuple[asyncio.Future[Any], Answer]]) -> None:
    for future, answer in answered:
        if future.done():
            continue
        if isinstance(answer, Done):
            future.set_result(answer.value)
        else:
            future.set_exception(answer.error)


def _refuse(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
