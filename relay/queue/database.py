"""The two lanes of one SQLite file, writer and reader, and the way back to them after the disk was in doubt.

When trust is lost (``health``), nothing is committed until: what had been committed is in the database and synced and the
log is cut off, both connections are closed, the file is opened anew, checked, and seen to take a commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import apsw

from relay.log.events import Noted, Observer, Program, Warned
from relay.queue.connecting import CHECK_SECONDS, Checkpoints, Connecting, empty_log
from relay.queue.health import Look, Trust
from relay.queue.store import StoreUnavailable
from relay.queue.writer import Job, Lane, commit_together, read_each

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
# So often the log must be emptied before the file is closed. After that it is closed with its log: a commit that failed,
# but stands whole in it, then counts, is made durable (``rewriting``), and is taken back (``again``).
GENTLE_TRIES = 4

T = TypeVar("T")


class Database:
    """Jobs in, results out, by two threads with a connection each.

    :param changed: called when trust was lost or is back.
    :param sleep: seconds to wait before the file is opened anew.
    """

    def __init__(
        self,
        connecting: Connecting,
        *,
        look: Look,
        observe: Observer,
        changed: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.trust = Trust(connecting.path.parent, look, self._lost)
        self._connecting = connecting
        self._observe = observe
        self._changed = changed
        self._sleep = sleep
        self._whole = True
        self._ready: Callable[[apsw.Connection], None]
        self._again: Callable[[apsw.Connection], None]
        self._check_files: Callable[[], None]
        self._loop: asyncio.AbstractEventLoop
        self._mending: asyncio.Task[None] | None = None
        self._reopening: set[asyncio.Task[None]] = set()
        self._closed = False
        self._writer = self._writing(self._connect_first)
        self._reader = Lane("queue-reader", connecting.reader, read_each, self.trust)

    async def start(
        self,
        ready: Callable[[apsw.Connection], None],
        again: Callable[[apsw.Connection], None],
        check_files: Callable[[], None],
    ) -> None:
        """Open the file.

        :param ready: called once in the writer's thread, when the schema is as it should be.
        :param again: called there each time that the file was opened anew.
        :param check_files: called before trust is back, in a thread: whether the files beside the database can be
            written.
        :raises StoreUnavailable: if the file cannot be used.
        """
        self._ready, self._again, self._check_files = ready, again, check_files
        self._loop = asyncio.get_running_loop()
        try:
            await self._start(self._writer, self._reader)
        except StoreUnavailable:
            self._closed = True  # nothing is mended that was never open
            if self._mending is not None:
                self._mending.cancel()
            raise
        if not self._whole:
            note = f"queue database {self._connecting.path}: checked for {CHECK_SECONDS:g} s, not to its end"
            self._observe(Noted(Program.QMGR, note))

    def commit(self, job: Job[T]) -> asyncio.Future[T]:
        """Have a job done in a transaction; its result is there when it is synced.

        :raises StoreUnavailable: if the disk is not trusted now, or the store is closed.
        """
        refusal = self.trust.refusal
        if refusal is not None:
            raise refusal
        return self._writer.submit(job)

    def read(self, job: Job[T]) -> asyncio.Future[T]:
        """Have a reading job done."""
        return self._reader.submit(job)

    async def stop(self) -> None:
        """Finish what was submitted, then close; twice is fine."""
        self._closed = True
        if self._mending is not None:
            self._mending.cancel()
            await asyncio.gather(self._mending, *self._reopening, return_exceptions=True)
        await self._reader.stop()  # first: the last connection to close checkpoints, and that is the writer's work
        await self._writer.stop()

    def _writing(self, connect: Callable[[], apsw.Connection]) -> Lane:
        checkpoints = Checkpoints(self._connecting.checkpoint_pages)
        return Lane(
            "queue-writer",
            lambda: checkpoints.watch(connect()),
            commit_together,
            self.trust,
            checkpoints.between,
        )

    def _connect_first(self) -> apsw.Connection:
        connection, self._whole = self._connecting.first(self._ready)
        return connection

    def _lost(self, refusal: StoreUnavailable) -> None:
        """On any thread."""
        try:
            self._loop.call_soon_threadsafe(self._begin_mending)
        except RuntimeError:
            pass  # the loop is closed, and with it the store

    def _begin_mending(self) -> None:
        self._changed()
        if self._mending is None and not self._closed:
            self._mending = self._loop.create_task(self._mend(), name="mend the queue")

    async def _mend(self) -> None:
        pause, tries, told = FIRST_PAUSE, 0, ""
        while True:
            await self._sleep(pause)
            tries += 1
            try:
                await self._see_through(self._reopen(gently=tries <= GENTLE_TRIES))
                break
            except Exception as error:  # whatever it is: without this task the queue would stay closed
                if str(error) != told:
                    told = str(error)
                    self._observe(Warned(Program.QMGR, f"queue still not to be trusted: {told}"))
            pause = min(2 * pause, LONGEST_PAUSE)
        self._mending = None
        self.trust.regain()
        self._changed()

    async def _see_through(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it to its end even if cancelled, so that no thread is left behind with a connection."""
        task = self._loop.create_task(work)
        self._reopening.add(task)
        task.add_done_callback(self._reopening.discard)
        await asyncio.shield(task)

    async def _reopen(self, *, gently: bool) -> None:
        await self._reader.stop()  # a reader would keep the log from being cut off
        if self._writer.is_open:
            try:
                await self._writer.submit(empty_log, bare=True)
            except StoreUnavailable:
                if gently:
                    raise
            await self._writer.stop()
        writer = self._writing(lambda: self._connecting.again(self._again))
        reader = Lane("queue-reader", self._connecting.reader, read_each, self.trust)
        await self._start(writer, reader)
        self._writer, self._reader = writer, reader
        await asyncio.to_thread(self._check_files)

    async def _start(self, writer: Lane, reader: Lane) -> None:
        await writer.start()
        try:
            await reader.start()
        except StoreUnavailable:
            await writer.stop()
            raise
