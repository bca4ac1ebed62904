"""Threads that own a database connection each: one writer with group commit, one reader.

The asyncio side hands over jobs; the writer's thread takes all that wait, runs them in one transaction, commits once, and
only then answers all of them in one call to the loop. So jobs share the cost of a sync, and nobody hears of a result that is
not on the disk. Each statement gives up Python's lock and waits to have it back: their number is what a job costs. After an
error that leaves the disk in doubt, jobs are refused (``health``).
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

import apsw

from relay.queue.health import Trust, close, is_doubtful, unavailable
from relay.queue.store import StoreUnavailable

MAX_BATCH = 200

T = TypeVar("T")
Job = Callable[[apsw.Connection], T]


@dataclass(frozen=True, slots=True)
class Done:
    """A job's value."""

    value: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """What a job raised, or why the transaction that it was part of failed.

    :param doubtful: whether nobody knows now what is on the disk.
    """

    error: Exception
    doubtful: bool = False


Answer = Done | Failed
RunBatch = Callable[[apsw.Connection, Sequence[Job[Any]]], list[Answer]]


class _BatchLost(Exception):  # noqa: N818 - it names the state, not the handling
    """The transaction cannot go on; nothing of the batch is written."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def commit_together(connection: apsw.Connection, jobs: Sequence[Job[Any]]) -> list[Answer]:
    """Run jobs in one transaction; one that raises is undone alone.

    If the transaction as a whole fails (disk full), each job is tried in one of its own, so that a large message that
    does not fit does not keep small results from being written. Jobs may therefore run twice. After an error that
    leaves the disk in doubt nothing more is tried.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        answers = _all(connection, jobs) or [_in_savepoint(connection, job) for job in jobs]
        connection.execute("COMMIT")
    except (apsw.Error, _BatchLost) as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        failed = _failed(error.error if isinstance(error, _BatchLost) else error)
        if failed.doubtful or len(jobs) == 1:
            return [failed] * len(jobs)
        return _commit_each(connection, jobs)
    return answers


def _commit_each(connection: apsw.Connection, jobs: Sequence[Job[Any]]) -> list[Answer]:
    answers: list[Answer] = []
    for job in jobs:
        (answer,) = commit_together(connection, [job])
        if isinstance(answer, Failed) and answer.doubtful:
            return answers + [answer] * (len(jobs) - len(answers))
        answers.append(answer)
    return answers


def read_each(connection: apsw.Connection, jobs: Sequence[Job[Any]]) -> list[Answer]:
    """Run reading jobs, each over one snapshot of the database."""
    return [_read(connection, job) for job in jobs]


def _all(connection: apsw.Connection, jobs: Sequence[Job[Any]]) -> list[Answer]:
    """What jobs give, without savepoints, as nearly none ever raises; nothing, in a transaction begun anew, if one does."""
    try:
        return [Done(job(connection)) for job in jobs]
    except Exception as error:  # it is raised again when the job is run in a savepoint
        _raise_if_lost(connection, error)
    connection.execute("ROLLBACK")
    connection.execute("BEGIN IMMEDIATE")
    return []


def _in_savepoint(connection: apsw.Connection, job: Job[Any]) -> Answer:
    connection.execute("SAVEPOINT job")
    try:
        value = job(connection)
    except Exception as error:  # whoever gave us the job hears of it; the thread must go on for the others
        _raise_if_lost(connection, error)
        connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
        return _failed(error)
    connection.execute("RELEASE job")
    return Done(value)


def _raise_if_lost(connection: apsw.Connection, error: Exception) -> None:
    """On a full disk or an I/O error SQLite may have rolled everything back already."""
    if not connection.in_transaction or isinstance(error, apsw.FullError | apsw.IOError) or is_doubtful(error):
        raise _BatchLost(error) from error


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


def _bare(connection: apsw.Connection, job: Job[Any]) -> Answer:
    try:
        return Done(job(connection))
    except Exception as error:  # as above
        return _failed(error)


def _failed(error: Exception) -> Failed:
    return Failed(unavailable(error) if isinstance(error, apsw.Error) else error, doubtful=is_doubtful(error))


@dataclass(frozen=True, slots=True)
class _Item:
    """A job that waits, and who waits for it."""

    job: Job[Any]
    future: asyncio.Future[Any]
    bare: bool


class Lane:
    """One thread with one connection, which no other thread ever touches.

    :param name: of the thread.
    :param connect: called in the thread; what it raises, ``start`` raises.
    :param run: what to do with the jobs that wait: ``commit_together`` or ``read_each``.
    :param trust: lost by errors that leave the disk in doubt; until it is back, jobs are refused.
    :param between: called after each batch, when its jobs are answered.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], apsw.Connection],
        run: RunBatch,
        trust: Trust,
        between: Callable[[apsw.Connection], None] = lambda connection: None,
    ) -> None:
        self._connect = connect
        self._run = run
        self._trust = trust
        self._between = between
        self._gathered: list[_Item] = []
        self._jobs: SimpleQueue[list[_Item] | None] = SimpleQueue()
        self._waiting: deque[_Item] = deque()  # the thread's own
        self._ended = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._open = False

    @property
    def is_open(self) -> bool:
        """Whether jobs are taken."""
        return self._open

    async def start(self) -> None:
        """Start the thread and wait until it has its connection."""
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._thread.start()
        await self._started
        self._open = True

    def submit(self, job: Job[T], *, bare: bool = False) -> asyncio.Future[T]:
        """Have a job done; cancelling the future does not stop it, so shield it.

        :param bare: outside a transaction, and whether the disk is trusted or not.
        :raises StoreUnavailable: if the lane was stopped.
        """
        if not self._open:
            raise StoreUnavailable("the queue is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        if not self._gathered:
            # What happens at about the same time shares a commit, and wakes the thread once.
            self._loop.call_soon(self._hand_over)
        self._gathered.append(_Item(job, future, bare))
        return future

    def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered:
            self._jobs.put(gathered)

    async def stop(self) -> None:
        """Do what was submitted, close the connection and end the thread."""
        if self._open:
            self._open = False
            self._hand_over()
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
                answers = self._answer(connection, batch)
                self._tell(_resolve, [(item.future, answer) for item, answer in zip(batch, answers, strict=True)])
                self._tidy(connection)
        finally:
            close(connection)
            self._tell(_resolve, [(self._stopped, Done(None))])

    def _tidy(self, connection: apsw.Connection) -> None:
        if self._trust.refusal is not None:
            return
        try:
            self._between(connection)
        except apsw.Error as error:  # all that was answered is safe; a full disk is tried again after the next batch
            if is_doubtful(error):
                self._trust.lose(str(unavailable(error)))

    def _answer(self, connection: apsw.Connection, batch: Sequence[_Item]) -> list[Answer]:
        if batch[0].bare:
            return [_bare(connection, batch[0].job)]
        refusal = self._trust.refusal
        if refusal is not None:
            return [Failed(refusal)] * len(batch)
        try:
            answers = self._run(connection, [item.job for item in batch])
        except Exception as error:  # a rollback failed: what this connection does from here on is anybody's guess
            answers = [Failed(self._trust.lose(str(error) or type(error).__name__))] * len(batch)
        doubts = [answer for answer in answers if isinstance(answer, Failed) and answer.doubtful]
        if doubts:
            refusal = self._trust.lose(str(doubts[0].error))
            return [Failed(refusal) if answer in doubts else answer for answer in answers]
        return answers

    def _take(self) -> list[_Item]:
        """Wait for jobs and take those that are there, a bare one alone; empty at the end."""
        if not self._waiting and not self._ended:
            self._receive(self._jobs.get())
        while not self._jobs.empty():
            self._receive(self._jobs.get())
        batch: list[_Item] = []
        while self._waiting and len(batch) < MAX_BATCH and not (batch and self._waiting[0].bare):
            batch.append(self._waiting.popleft())
            if batch[-1].bare:
                break
        return batch

    def _receive(self, handed_over: list[_Item] | None) -> None:
        if handed_over is None:
            self._ended = True
        else:
            self._waiting.extend(handed_over)

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
