"""Whether what the disk said can be believed, and whether there is room on it.

After an I/O error or a failed sync nobody knows what is on the disk: the kernel may have dropped the pages that it could
not write and call the next sync a success. So from then on nothing is committed, and nobody is told 250, until the
database was opened anew and checked (``SqliteStore``).

Room is kept for what must be written even when no more mail is taken: results, reports, and the database's own log.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import apsw

from relay.queue.store import StoreUnavailable

# Twice what the write-ahead log grows to between checkpoints: once for it, once for the pages it becomes.
LOG_ROOM = 32 * 1024 * 1024

# The WAL index could not grow: SQLite calls this an I/O error, but it means that the disk is full (os_unix.c).
_FULL_IN_DISGUISE = frozenset({apsw.SQLITE_IOERR_SHMSIZE})


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system as it is now: octets that we may still use, and whether it takes any."""

    free: int
    read_only: bool = False


Look = Callable[[Path], Disk]
"""Looks at the file system of a directory; raises OSError."""


def look_at(directory: Path) -> Disk:
    """``statvfs``; a file system that does not know its size counts as one with room."""
    found = os.statvfs(directory)
    if not found.f_blocks:
        return Disk(free=1 << 62, read_only=bool(found.f_flag & os.ST_RDONLY))
    return Disk(free=found.f_bavail * found.f_frsize, read_only=bool(found.f_flag & os.ST_RDONLY))


def unavailable(error: apsw.Error) -> StoreUnavailable:
    """SQLite's error as the seam's."""
    return StoreUnavailable(f"queue database: {str(error) or type(error).__name__}", full=_means_full(error))


def is_doubtful(error: BaseException) -> bool:
    """Whether after this error of SQLite's nobody knows what is on the disk."""
    doubtful = isinstance(error, apsw.IOError | apsw.CorruptError | apsw.NotADBError | apsw.ReadOnlyError)
    return doubtful and not _means_full(error)


def _means_full(error: BaseException) -> bool:
    return isinstance(error, apsw.FullError) or getattr(error, "extendedresult", 0) in _FULL_IN_DISGUISE


def close(connection: apsw.Connection) -> None:
    """Close; what the disk says to that changes nothing any more, for all that was answered was synced before."""
    for force in (False, True):
        with suppress(apsw.Error):
            connection.close(force=force)
            return


class Trust:
    """Whether the disk is believed; every thread of the store asks here before it commits.

    :param directory: of the queue.
    :param lost: called once, on whatever thread, when trust is lost.
    """

    def __init__(self, directory: Path, look: Look, lost: Callable[[StoreUnavailable], None]) -> None:
        self._directory = directory
        self._look = look
        self._lost = lost
        self._lock = threading.Lock()
        self._refusal: StoreUnavailable | None = None

    def lose(self, why: str) -> StoreUnavailable:
        """Believe nothing any more; returns what everybody is told until ``regain``."""
        with self._lock:
            if self._refusal is not None:
                return self._refusal
            refusal = StoreUnavailable(
                f"not trusted until it is opened anew and checked: {why}", full=self._read_only()
            )
            self._refusal = refusal
        self._lost(refusal)
        return refusal

    def regain(self) -> None:
        """The database was opened anew and checked."""
        self._refusal = None

    @property
    def refusal(self) -> StoreUnavailable | None:
        """Why nothing may be committed now; None while all is well."""
        refusal = self._refusal
        return None if refusal is None else StoreUnavailable(str(refusal), full=refusal.full)

    def _read_only(self) -> bool:
        """A file system gone read-only fails our writes as a broken one does, and is told as a full one."""
        try:
            return self._look(self._directory).read_only
        except OSError:
            return False


class Glance:
    """A ``Look`` that looks again only after a while where there was ample room: it is asked for twice a message.

    :param enough: octets that are ample; with less, or on a disk that takes nothing, each call looks.
    :param seconds: between two looks.
    :param monotonic: seconds on a clock that nobody sets.
    """

    def __init__(self, look: Look, *, enough: int, seconds: float, monotonic: Callable[[], float]) -> None:
        self._look = look
        self._enough = enough
        self._seconds = seconds
        self._monotonic = monotonic
        self._seen: dict[Path, tuple[float, Disk]] = {}

    def __call__(self, directory: Path) -> Disk:
        """What was seen not long ago, or what is seen now; raises OSError."""
        now = self._monotonic()
        seen = self._seen.get(directory)
        if seen is not None and now - seen[0] < self._seconds:
            return seen[1]
        self._seen.pop(directory, None)
        disk = self._look(directory)
        if disk.free >= self._enough and not disk.read_only:
            self._seen[directory] = (now, disk)
        return disk


@dataclass(frozen=True, slots=True)
class Room:
    """Whether there is room for more mail.

    :param directory: of the queue.
    :param floor: octets that must stay free; 0 for no such floor.
    """

    directory: Path
    floor: int
    look: Look

    @property
    def refusal(self) -> StoreUnavailable | None:
        """Why no mail can be taken now; None while there is room."""
        if not self.floor:
            return None
        try:
            disk = self.look(self.directory)
        except OSError as error:
            return StoreUnavailable(f"{self.directory}: {error.strerror or error}")
        if disk.read_only:
            return StoreUnavailable(f"the file system of {self.directory} is read-only", full=True)
        if disk.free < self.floor:
            free, floor = _mebibytes(disk.free), _mebibytes(self.floor)
            return StoreUnavailable(f"{free} free in {self.directory}, and {floor} are kept free", full=True)
        return None


def floor_of(message_size_limit: int, minfree: int) -> int:
    """How many octets stay free: ``queue.minfree``, at least 1.5 messages of the largest size, and room for the log."""
    return max(minfree, message_size_limit * 3 // 2) + LOG_ROOM


def _mebibytes(octets: int) -> str:
    return f"{octets / 1048576:.1f} MiB"
