"""The embedded queue: one SQLite file, one writer thread, one reader thread, large bodies in files beside it.

WAL with ``synchronous=FULL``: a commit returns when the log is synced. One process uses a file at a time; who holds the
lock of the state directory sees to that. The threads are ``database``'s, the statements those of ``transactions``,
``selection`` and ``listing``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import apsw

from relay.log.events import Observer, StoreState
from relay.mail.envelope import Message, QueueId
from relay.queue import arrivals, listing, selection, transactions
from relay.queue.backup import BackedUp, Backup
from relay.queue.connecting import CHECKPOINT_PAGES, Connecting
from relay.queue.database import Database
from relay.queue.files import Files, SystemFiles
from relay.queue.health import Look, Room, look_at
from relay.queue.incoming import IncomingBody
from relay.queue.rows import Body, InRow, micros, moment, text
from relay.queue.spool import CHUNK, Spool
from relay.queue.sqlite_acts import SqliteActs
from relay.queue.store import (
    NOBODY,
    Head,
    Lease,
    LeaseLost,
    LeaseToken,
    NewMessage,
    QueueCounts,
    QueueEntry,
    Settlement,
    StoreUnavailable,
    Taker,
)
from relay.queue.warm import WarmMessages
from relay.queue.writer import Job

T = TypeVar("T")


class SqliteStore:
    """``QueueStore`` in a file of its own; made by ``open``.

    :param path: of the database; large bodies go to the directory ``PATH.spool``.
    :param clock: the time now, aware, UTC: for whether a lease has ended, where the caller does not say.
    """

    def __init__(
        self,
        connecting: Connecting,
        *,
        clock: Callable[[], datetime],
        observe: Observer,
        floor: int,
        files: Files,
        look: Look,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        path = connecting.path
        self._connecting = connecting
        self._clock = clock
        self._observe = observe
        self._database = Database(connecting, look=look, observe=observe, changed=self._tell_state, sleep=sleep)
        self._spool = Spool(path.with_name(path.name + ".spool"), files, self._database.trust)
        self._room = Room(path.parent, floor, look)
        self._warm = WarmMessages()
        self._taking = True
        self._serial = 0
        # What takes back jobs of which nobody knows whether they are on the disk; their callers were told that they are not.
        self._unsaid: list[Callable[[apsw.Connection], None]] = []
        self._in_doubt: set[LeaseToken] = set()
        self._background: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        clock: Callable[[], datetime],
        observe: Observer = lambda event: None,
        floor: int = 0,
        vfs: str = "",
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        checkpoint_pages: int = CHECKPOINT_PAGES,
        files: Files | None = None,
        look: Look = look_at,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> Self:
        """Open or make the queue: migrate and check it, end the leases of the process before, sweep orphaned bodies.

        :param observe: told when mail can no longer be taken, and when it can again.
        :param floor: octets that stay free on the disk: with less, no mail is taken; 0 for no such floor.
        :param vfs: the name of a registered SQLite VFS; empty for the system's.
        :param synchronous: NORMAL loses what was accepted last at a power failure: for the test that proves the syncs.
        :param files: the file system of large bodies; None for the system's.
        :param look: what is left on the disk.
        :param sleep: seconds to wait before the file is opened anew, after the disk was in doubt.
        :raises StoreUnavailable: if the file cannot be used; the message says why.
        """
        connecting = Connecting(path=path, vfs=vfs, synchronous=synchronous, checkpoint_pages=checkpoint_pages)
        store = cls(
            connecting,
            clock=clock,
            observe=observe,
            floor=floor,
            files=files or SystemFiles(),
            look=look,
            sleep=sleep,
        )
        try:
            await store._database.start(store._first, store._again, store._spool.check)
        except StoreUnavailable:
            store._spool.close()
            raise
        return store

    def _first(self, connection: apsw.Connection) -> None:
        """In the writer's thread, once."""
        with connection:
            transactions.clear_leases(connection)
        named = {text(name) for (name,) in connection.execute("SELECT spool FROM body WHERE spool <> ''")}
        self._spool.open(named)

    def _again(self, connection: apsw.Connection) -> None:
        """In the writer's thread, after the disk was in doubt: what nobody was promised is not there."""
        with connection:
            for forget in tuple(self._unsaid):
                forget(connection)

    @property
    def refusal(self) -> StoreUnavailable | None:
        """Why no mail can be taken now; see ``QueueStore.refusal``."""
        refusal = self._database.trust.refusal or self._room.refusal
        if (refusal is None) != self._taking:
            self._taking = refusal is None
            self._observe(StoreState("" if refusal is None else str(refusal)))
        return refusal

    def _tell_state(self) -> None:
        if self._database.trust.refusal is None:
            self._unsaid.clear()
        _ = self.refusal

    async def put(self, message: NewMessage, body: AsyncIterator[bytes], taker: Taker = NOBODY) -> Message:
        """Commit a message; see ``QueueStore.put``."""
        refusal = self.refusal
        if refusal is not None:
            raise refusal
        incoming = IncomingBody(self._spool, message.queue_id, lambda: self.refusal)
        kept = False
        try:
            async for chunk in body:
                await incoming.take(chunk)
            where = await incoming.finish()
            stored = arrivals.stored(message, incoming.size, eight_bit=incoming.eight_bit)
            await self._arrive(stored, message, where, taker)
            kept = True
        finally:
            if not kept:
                await self._see_through(incoming.discard())
        return stored

    async def _arrive(self, stored: Message, new: NewMessage, body: Body, taker: Taker) -> None:
        """Commit a message, and hand it over with the leases that its taker wants."""
        deliveries: dict[str, int] = {}
        for destination in new.destinations.values():
            deliveries[destination] = deliveries.get(destination, 0) + 1
        reservation = taker.reserve(deliveries)
        hand_over = None
        if reservation is not None:
            self._serial += 1
            hand_over = arrivals.HandOver(reservation, self._serial)
        withdraw = partial(transactions.withdraw, queue_id=stored.queue_id)
        leases: list[Lease] | None = None
        try:
            leases = await self._commit(
                lambda connection: arrivals.put(connection, stored, new.destinations, body, hand_over),
                undo=lambda connection, _: withdraw(connection),
                forget=withdraw,
            )
        finally:
            if reservation is not None and leases is None:
                taker.give_back(reservation)
        if isinstance(body, InRow):
            self._warm.keep(stored, body.content, self._clock())
        if reservation is not None:
            taker.begin(reservation, leases)

    async def lease_at(
        self, rooms: Mapping[str, int], *, now: datetime, until: datetime, recipient_limit: int = 0
    ) -> Sequence[Lease]:
        """Take due deliveries of some destinations; see ``QueueStore.lease_at``."""
        choose = partial(selection.choose_at, rooms=dict(rooms))
        return await self._lease(choose, now, until, recipient_limit=recipient_limit)

    async def _lease(
        self,
        choose: transactions.Choose,
        now: datetime,
        until: datetime,
        recipient_limit: int = 0,
    ) -> Sequence[Lease]:
        self._serial += 1
        job = partial(
            transactions.lease,
            choose=choose,
            now=now,
            until=until,
            serial=self._serial,
            recipient_limit=recipient_limit,
            kept=self._warm.message,
        )
        return await self._commit(job, undo=_give_back, forget=partial(transactions.release_all, serial=self._serial))

    async def heads(self, *, now: datetime, limit: int, busy: Collection[str] = ()) -> Sequence[Head]:
        """Destinations with something to do; see ``QueueStore.heads``."""
        found = await self._read(partial(selection.heads, now=micros(now), limit=limit, busy=tuple(busy)))
        return [Head(moment(due), destination) for due, destination in found]

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
        token = settlement.lease.token
        try:
            settled = await self._commit(lambda connection: transactions.settle(connection, settlement))
        except StoreUnavailable:
            if self._database.trust.refusal is not None:
                self._in_doubt.add(token)
            raise
        except LeaseLost:
            # Unless it was this very settlement, which was in the log after all when the file was opened anew.
            if token not in self._in_doubt:
                raise
            settled = await self._read(lambda connection: transactions.found_settled(connection, settlement))
        self._in_doubt.discard(token)
        self._warm.forget(settlement.lease.message.queue_id)
        if settled.spool:
            with suppress(StoreUnavailable):  # it is settled all the same; the file is swept at the next start
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
        self._tell_state()
        now = self._clock()
        return await self._read(lambda connection: listing.counts(connection, now=now))

    async def open_body(self, queue_id: QueueId) -> AsyncIterator[bytes]:
        """A message's content in chunks of at most 64 KiB; raises KeyError if it is gone."""
        warm = self._warm.content(queue_id)
        body = InRow(warm) if warm is not None else await self._read(partial(listing.body, queue_id=queue_id))
        if isinstance(body, InRow):
            for start in range(0, len(body.content), CHUNK):
                yield body.content[start : start + CHUNK]
            return
        try:
            async for chunk in self._spool.read(body.name):
                yield chunk
        except FileNotFoundError as error:
            raise KeyError(f"{queue_id}: its content {error.filename} is gone") from error

    @property
    def acts(self) -> SqliteActs:
        """What administrators do to this queue."""
        return SqliteActs(
            read=self._read,
            commit=self._commit,
            lease=self._lease,
            remove=self._spool.remove,
            forget=self._warm.forget,
            clock=self._clock,
        )

    def backup(self, target: Path) -> AsyncGenerator[BackedUp, None]:
        """Copy the whole queue into one file while it is in use; says how far it is, and in the end how much it was.

        :param target: an absolute path at which nothing is yet.
        :raises BackupFailed: if the copy cannot be made; nothing is left of it.
        """
        room = self._room
        work = Backup(connecting=self._connecting, spool=self._spool, look=room.look, floor=room.floor)
        return work.steps(target)

    async def close(self) -> None:
        """Finish what was begun, then close; closing twice is fine."""
        while self._background:
            await asyncio.wait(self._background)
        self._warm.clear()
        await self._database.stop()
        self._spool.close()

    async def _read(self, job: Job[T]) -> T:
        return await self._database.read(job)

    async def _commit(
        self,
        job: Job[T],
        undo: Callable[[apsw.Connection, T], None] | None = None,
        forget: Callable[[apsw.Connection], None] | None = None,
    ) -> T:
        """Have a job committed; if the caller is cancelled meanwhile, what the job did is undone.

        :param forget: undoes it without knowing whether it was done: for when the disk was in doubt.
        """
        running = self._database.commit(job)
        try:
            return await asyncio.shield(running)
        except StoreUnavailable:
            self._doubt(forget)
            raise
        except asyncio.CancelledError:
            if undo is not None:
                await self._see_through(self._undo(running, undo, forget))
            raise

    async def _undo(
        self,
        running: asyncio.Future[T],
        undo: Callable[[apsw.Connection, T], None],
        forget: Callable[[apsw.Connection], None] | None,
    ) -> None:
        await asyncio.wait([running])
        if running.exception() is not None:
            self._doubt(forget)
            return
        value = running.result()
        try:
            await self._database.commit(lambda connection: undo(connection, value))
        except StoreUnavailable:
            # It stays, unless the disk is opened anew: a message then arrives twice if its client sends it again (RFC 1047),
            # a lease ends by time.
            self._doubt(forget)

    def _doubt(self, forget: Callable[[apsw.Connection], None] | None) -> None:
        if forget is not None and self._database.trust.refusal is not None:
            self._unsaid.append(forget)

    async def _see_through(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something to its end, even if whoever waits for it is cancelled."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        await asyncio.shield(task)


def _give_back(connection: apsw.Connection, leases: list[Lease]) -> None:
    transactions.release(connection, [one.token for one in leases])


def _flush(connection: apsw.Connection, *, now: datetime, ids: tuple[QueueId, ...]) -> int:
    return transactions.flush(connection, now=now, ids=ids)
