"""Connections to a queue database: how they are opened, what is set, and what is looked at before they are used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import apsw

from relay.queue.health import close, unavailable
from relay.queue.integrity import quick_check
from relay.queue.migrate import VERSION, bring_up_to_date
from relay.queue.rewriting import write_log_anew
from relay.queue.store import StoreUnavailable

CHECK_SECONDS = 2.0
CHECK_AGAIN_SECONDS = 10.0
_BUSY_MS = 5_000
_CACHE_KIB = 16 * 1024
CHECKPOINT_PAGES = 4_000  # of 4 KiB: a checkpoint a 16 MB of log, each costs two syncs more
_LOG_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Connecting:
    """What connections to one file have in common.

    :param vfs: the name of a registered SQLite VFS; empty for the system's.
    :param checkpoint_pages: pages of log after which they are carried into the database.
    """

    path: Path
    vfs: str = ""
    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    checkpoint_pages: int = CHECKPOINT_PAGES

    def first(self, ready: Callable[[apsw.Connection], None]) -> tuple[apsw.Connection, bool]:
        """The writer's connection at the start of a process: make or migrate the file, check it, then ``ready``.

        :return: the connection, and whether the check came to its end.
        :raises StoreUnavailable: if the file cannot be used; the message says why.
        """
        whole = False

        def prepare(connection: apsw.Connection) -> None:
            nonlocal whole
            found = bring_up_to_date(connection, str(self.path))
            whole = found == 0 or quick_check(connection, str(self.path), CHECK_SECONDS)
            ready(connection)

        return self._writer(apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, prepare), whole

    def again(self, ready: Callable[[apsw.Connection], None]) -> apsw.Connection:
        """The writer's connection after the disk was in doubt: the same file, checked, and seen to take a commit.

        :param ready: called before it is used.
        :raises StoreUnavailable: if it is not to be trusted yet; the message says why.
        """

        def prepare(connection: apsw.Connection) -> None:
            if connection.pragma("user_version") != VERSION:
                raise StoreUnavailable(f"{self.path} is not the queue database that it was; start the relay anew")
            quick_check(connection, str(self.path), CHECK_AGAIN_SECONDS)
            with connection:
                connection.pragma("user_version", VERSION)
            ready(connection)

        return self._writer(apsw.SQLITE_OPEN_READWRITE, prepare)

    def reader(self, *, writes_elsewhere: bool = False) -> apsw.Connection:
        """A connection that only reads this file.

        :param writes_elsewhere: whether it may write other files (``VACUUM INTO``).
        :raises StoreUnavailable: if it cannot be opened.
        """
        connection = self._open(apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.set_busy_timeout(_BUSY_MS)
            connection.pragma("query_only", int(not writes_elsewhere))
            connection.pragma("cache_size", -_CACHE_KIB // 2)
            connection.wal_autocheckpoint(0)
        except apsw.Error as error:
            close(connection)
            raise unavailable(error) from error
        return connection

    def _open(self, flags: int) -> apsw.Connection:
        try:
            return apsw.Connection(str(self.path), vfs=self.vfs or None, flags=flags)
        except apsw.Error as error:
            raise StoreUnavailable(f"cannot open queue database {self.path}: {error}") from error

    def _writer(self, flags: int, prepare: Callable[[apsw.Connection], None]) -> apsw.Connection:
        connection = self._open(flags)
        try:
            write_log_anew(self.path, self.vfs)  # nothing of it was read yet
            self._set(connection)
            prepare(connection)
        except apsw.Error as error:
            close(connection)
            raise unavailable(error) from error
        except StoreUnavailable:
            close(connection)
            raise
        return connection

    def _set(self, connection: apsw.Connection) -> None:
        connection.set_busy_timeout(_BUSY_MS)
        if connection.pragma("journal_mode", "wal") != "wal":
            raise StoreUnavailable(f"{self.path}: the file system cannot do SQLite's write-ahead log; use a local disk")
        connection.pragma("synchronous", self.synchronous)
        connection.pragma("fullfsync", 1)  # macOS: fsync alone leaves it in the drive's cache
        connection.pragma("foreign_keys", 1)
        connection.pragma("cache_size", -_CACHE_KIB)
        connection.pragma("journal_size_limit", _LOG_LIMIT)
        connection.wal_autocheckpoint(0)  # see Checkpoints


class Checkpoints:
    """Carries the log into the database when it has grown, between two batches of jobs.

    SQLite's own way does it inside the commit that made the log grow, and keeps to itself what the disk says to that:
    here commits are answered first, and an error is an error.

    :param pages: of log after which it is carried over.
    """

    def __init__(self, pages: int) -> None:
        self._limit = pages
        self._pages = 0

    def watch(self, connection: apsw.Connection) -> apsw.Connection:
        """Learn from each commit of this connection how long the log is; returns the connection."""
        connection.set_wal_hook(self._grown)
        return connection

    def _grown(self, connection: apsw.Connection, name: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK

    def between(self, connection: apsw.Connection) -> None:
        """Carry the log over if it is long; what a reader still needs of it stays until the next time.

        :raises apsw.Error: if the disk does not take it; nothing is lost by that, the log stays.
        """
        if self._pages >= self._limit:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)


def empty_log(connection: apsw.Connection) -> None:
    """Carry all that was committed into the database, synced, and cut the log off.

    What stood in the log behind it, of a commit that failed, is never read again.
    """
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
