"""The embedded queue: one SQLite file, one writer thread, one reader thread, large bodies in files beside it.

WAL with ``synchronous=FULL``: a commit returns when the log is synced. One process uses a file at a time; who holds the
lock of the state directory sees to that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import apsw

from relay.mail.envelope import Message, QueueId
from relay.queue import listing, selection, transactions
from relay.queue.migrate import bring_up_to_date
from relay.queue.rows import Body, InFile, InRow, micros, moment, text
from relay.queue.spool import CHUNK, Files, Spool, SpoolFile
from relay.queue.store import Lease, LeaseToken, NewMessage, QueueCounts, QueueEntry, Settlement, StoreUnavailable
from relay.queue.writer import Job, Lane, commit_together, read_each, unavailable

MAX_IN_ROW = 64 * 1024
_BUSY_MS = 5_000
_CACHE_KIB = 16 * 1024
_CHECKPOINT_PAGES = 4_000  # of 4 KiB: a checkpoint a 16 MB of log, each costs two syncs more
_LOG_LIMIT = 64 * 1024 * 1024

T = TypeVar("T")


class SqliteStore:
    """``QueueStore`` in a file of its own; made by ``open``.

    :param path: of the database; large bodies go to the directory ``PATH.spool``.
    :param clock: the time now, aware, UTC: for whether a lease has ended, where the caller does not say.
    """

    def __init__(self, path: Path, *, clock: Callable[[], datetime], spool: Spool, vfs: str, synchronous: str) -> None:
        self._path = path
        self._clock = clock
        self._spool = spool
        self._vfs = vfs
        self._synchronous = synchronous
        self._writer = Lane("queue-writer", self._connect_writer, commit_together)
        self._reader = Lane("queue-reader", self._connect_reader, read_each)
        self._serial = 0
        self._background: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        clock: Callable[[], datetime],
        vfs: str = "",
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        files: Files | None = None,
    ) -> Self:
        """Open or make the queue, migrate it, end the leases of the process before, sweep orphaned bodies.

        :param vfs: the name of a registered SQLite VFS; empty for the system's.
        :param synchronous: NORMAL loses what was accepted last at a power failure: for the test that proves the syncs.
        :param files: the file system of large bodies; None for the system's.
        :raises StoreUnavailable: if the file cannot be used; the message says why.
        """
        spool = Spool(path.with_name(path.name + ".spool"), files)
        store = cls(path, clock=clock, spool=spool, vfs=vfs, synchronous=synchronous)
        try:
            await store._writer.start()
            try:
                await store._reader.start()
            except StoreUnavailable:
                await store._writer.stop()
                raise
        except StoreUnavailable:
            spool.close()
            raise
        return store

    async def put(self, message: NewMessage, body: AsyncIterator[bytes]) -> Message:
        """Commit a message; see ``QueueStore.put``."""
        intake = _Intake(self._spool, message.queue_id)
        kept = False
        try:
            async for chunk in body:
                await intake.take(chunk)
            where = await intake.finish()
            stored = transactions.stored(message, intake.size, eight_bit=intake.eight_bit)
            await self._commit(partial(_put, message=stored, new=message, body=where), undo=transactions.withdraw)
            kept = True
        finally:
            if not kept:
                await self._see_through(intake.discard())
        return stored

    async def lease(
        self, *, now: datetime, until: datetime, limit: int, busy: Collection[str] = (), each: int | None = None
    ) -> Sequence[Lease]:
        """Take due deliveries; see ``QueueStore.lease``."""
        choose = partial(selection.choose, limit=limit, busy=tuple(busy))
        return await self._lease(choose, now, until, each)

    async def lease_at(self, rooms: Mapping[str, int], *, now: datetime, until: datetime) -> Sequence[Lease]:
        """Take due deliveries of some destinations; see ``QueueStore.lease_at``."""
        return await self._lease(partial(selection.choose_at, rooms=dict(rooms)), now, until)

    async def _lease(
        self, choose: transactions.Choose, now: datetime, until: datetime, each: int | None = None
    ) -> Sequence[Lease]:
        self._serial += 1
        job = partial(transactions.lease, choose=choose, now=now, until=until, serial=self._serial, each=each)
        return await self._commit(job, undo=_give_back)

    async def next_due(self, *, busy: Collection[str] = ()) -> datetime | None:
        """When something is due next; see ``QueueStore.next_due``."""
        due = await self._read(partial(selection.next_due, now=micros(self._clock()), busy=tuple(busy)))
        return None if due is None else moment(due)

    async def extend(self, tokens: Collection[LeaseToken], until: datetime) -> None:
        """Hold leases longer; a lease that was lost stays lost."""
        await self._commit(lambda connection: transactions.extend(connection, tokens, until))

    async def release(self, tokens: Collection[LeaseToken]) -> None:
        """Give leases back; a lease that was lost is no matter."""
        await self._commit(lambda connection: transactions.release(connection, tokens))

    async def settle(self, settlement: Settlement) -> bool:
        """Write an attempt's results; see ``QueueStore.settle``.

        :raises LeaseLost: if the lease ended and somebody else took the delivery; nothing was written.
        """
        settled = await self._commit(lambda connection: transactions.settle(connection, settlement))
        if settled.spool:
            await self._spool.remove(settled.spool)
        return settled.last

    async def flush(self, *, now: datetime, ids: Collection[QueueId] = ()) -> int:
        """Make deliveries due now, some thousands a transaction; returns how many changed."""
        job = partial(_flush, now=now, ids=tuple(ids))
        changed = total = await self._commit(job)
        while not ids and changed == transactions.FLUSH_AT_ONCE:
            changed = await self._commit(job)
            total += changed
        return total

    async def entries(self, *, limit: int, after: QueueId | None = None) -> Sequence[QueueEntry]:
        """List messages; see ``QueueStore.entries``."""
        now = self._clock()
        return await self._read(lambda connection: listing.entries(connection, limit=limit, after=after, now=now))

    async def counts(self) -> QueueCounts:
        """Count what is queued."""
        now = self._clock()
        return await self._read(lambda connection: listing.counts(connection, now=now))

    async def open_body(self, queue_id: QueueId) -> AsyncIterator[bytes]:
        """A message's content in chunks of at most 64 KiB; raises KeyError if it is gone."""
        body = await self._read(lambda connection: listing.body(connection, queue_id))
        if isinstance(body, InRow):
            for start in range(0, len(body.content), CHUNK):
                yield body.content[start : start + CHUNK]
            return
        try:
            async for chunk in self._spool.read(body.name):
                yield chunk
        except FileNotFoundError as error:
            raise KeyError(f"{queue_id}: its content {error.filename} is gone") from error

    async def close(self) -> None:
        """Finish what was begun, then close; closing twice is fine."""
        while self._background:
            await asyncio.wait(self._background)
        await self._reader.stop()  # first: the last connection to close checkpoints, and that is the writer's work
        await self._writer.stop()
        self._spool.close()

    async def _read(self, job: Job[T]) -> T:
        return await self._reader.submit(job)

    async def _commit(self, job: Job[T], undo: Callable[[apsw.Connection, T], None] | None = None) -> T:
        """Have a job committed; if the caller is cancelled meanwhile, what the job did is undone."""
        running = self._writer.submit(job)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            if undo is not None:
                await self._see_through(self._undo(running, undo))
            raise

    async def _undo(self, running: asyncio.Future[T], undo: Callable[[apsw.Connection, T], None]) -> None:
        await asyncio.wait([running])
        if running.exception() is not None:
            return
        value = running.result()
        try:
            await self._writer.submit(lambda connection: undo(connection, value))
        except StoreUnavailable:
            pass  # it stays: a message then arrives twice if its client sends it again (RFC 1047), a lease ends by time

    async def _see_through(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something to its end, even if whoever waits for it is cancelled."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        await asyncio.shield(task)

    def _connect_writer(self) -> apsw.Connection:
        try:
            connection = apsw.Connection(str(self._path), vfs=self._vfs or None)
        except apsw.Error as error:
            raise StoreUnavailable(f"cannot open queue database {self._path}: {error}") from error
        try:
            self._prepare(connection)
        except apsw.Error as error:
            connection.close()
            raise unavailable(error) from error
        except StoreUnavailable:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: apsw.Connection) -> None:
        connection.set_busy_timeout(_BUSY_MS)
        if connection.pragma("journal_mode", "wal") != "wal":
            raise StoreUnavailable(
                f"{self._path}: the file system cannot do SQLite's write-ahead log; use a local disk"
            )
        connection.pragma("synchronous", self._synchronous)
        connection.pragma("fullfsync", 1)  # macOS: fsync alone leaves it in the drive's cache
        connection.pragma("foreign_keys", 1)
        connection.pragma("cache_size", -_CACHE_KIB)
        connection.pragma("journal_size_limit", _LOG_LIMIT)
        connection.wal_autocheckpoint(_CHECKPOINT_PAGES)
        bring_up_to_date(connection, str(self._path))
        with connection:
            transactions.clear_leases(connection)
        named = {text(name) for (name,) in connection.execute("SELECT spool FROM body WHERE spool <> ''")}
        self._spool.open(named)

    def _connect_reader(self) -> apsw.Connection:
        try:
            connection = apsw.Connection(str(self._path), vfs=self._vfs or None, flags=apsw.SQLITE_OPEN_READWRITE)
            connection.set_busy_timeout(_BUSY_MS)
            connection.pragma("query_only", 1)
            connection.pragma("cache_size", -_CACHE_KIB // 2)
            connection.wal_autocheckpoint(0)
        except apsw.Error as error:
            raise unavailable(error) from error
        return connection


class _Intake:
    """A body on its way in: in memory while it may stay in its row, in a spool file from then on."""

    def __init__(self, spool: Spool, queue_id: QueueId) -> None:
        self._spool = spool
        self._queue_id = queue_id
        self._small = bytearray()
        self._file: SpoolFile | None = None
        self.size = 0
        self.eight_bit = False

    async def take(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self.eight_bit = self.eight_bit or not chunk.isascii()
        if self._file is None and self.size <= MAX_IN_ROW:
            self._small += chunk
            return
        if self._file is None:
            self._file = self._spool.create(self._queue_id)
            await self._file.write(bytes(self._small))
            self._small.clear()
        await self._file.write(chunk)

    async def finish(self) -> Body:
        if self._file is None:
            return InRow(bytes(self._small))
        await self._file.keep()
        return InFile(self._file.name)

    async def discard(self) -> None:
        if self._file is not None:
            await self._file.discard()


def _put(connection: apsw.Connection, *, message: Message, new: NewMessage, body: Body) -> int:
    return transactions.put(connection, message, new.destinations, body)


def _give_back(connection: apsw.Connection, leases: list[Lease]) -> None:
    transactions.release(connection, [one.token for one in leases])


def _flush(connection: apsw.Connection, *, now: datetime, ids: tuple[QueueId, ...]) -> int:
    return transactions.flush(connection, now=now, ids=ids)
