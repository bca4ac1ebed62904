"""Large bodies in files beside the database.

A file is written under a temporary name, synced, renamed, and its directory synced, all before the row that names it is
committed. So a row never names a file that is not whole on the disk; a file that no row names is swept at the next start.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from relay.queue.files import Files, SystemFiles
from relay.queue.health import Trust
from relay.queue.store import StoreUnavailable

CHUNK = 64 * 1024
# Of a body being written or read, so much in one step of a thread: to and fro costs more than the step does.
_AT_ONCE = 256 * 1024
# A large body is synced as it comes, or the last sync would write all of it at once, and small commits would wait behind it.
_SYNC_AT_ONCE = 2 * 1024 * 1024
_TEMPORARY = ".tmp"
_THREADS = 4
# A file system gone read-only is told as a full one: it is for the administrator, and mail may come again later.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_BROKEN = frozenset({errno.EIO, errno.EROFS, getattr(errno, "EUCLEAN", errno.EIO)})

T = TypeVar("T")


class _TrustedFiles:
    """Files whose errors are weighed: a failed sync, or any I/O error, costs the disk its trust."""

    def __init__(self, files: Files, trust: Trust) -> None:
        self._files = files
        self._trust = trust

    def create(self, path: Path) -> int:
        return self._weighed(self._files.create, path)

    def write_all(self, descriptor: int, data: bytes) -> None:
        left = memoryview(data)
        while left:
            written = self._weighed(self._files.write, descriptor, left)
            if not written:
                raise OSError(errno.EIO, "nothing was written")
            left = left[written:]

    def sync(self, descriptor: int) -> None:
        self._weighed(self._files.sync, descriptor, syncs=True)

    def rename(self, old: Path, new: Path) -> None:
        self._weighed(self._files.rename, old, new)

    def sync_directory(self, path: Path) -> None:
        self._weighed(self._files.sync_directory, path, syncs=True)

    def open(self, path: Path) -> int:
        return self._weighed(self._files.open, path)

    def read(self, descriptor: int, octets: int) -> bytes:
        return self._weighed(self._files.read, descriptor, octets)

    def remove(self, path: Path) -> None:
        """Remove a file; one that is gone is fine, and one that cannot be removed is swept at the next start."""
        with suppress(OSError):
            self._weighed(self._files.remove, path)

    def _weighed(self, call: Callable[..., T], *arguments: object, syncs: bool = False) -> T:
        try:
            return call(*arguments)
        except OSError as error:
            if syncs or error.errno in _BROKEN:
                self._trust.lose(f"queue spool: {error}")
            raise


class SpoolFile:
    """One body being written. Its steps are taken in turn, whatever becomes of the tasks that asked for them."""

    def __init__(self, directory: Path, name: str, files: _TrustedFiles, run: Callable[..., Awaitable[None]]) -> None:
        self.name = name
        self._final = directory / name
        self._temporary = directory / (name + _TEMPORARY)
        self._files = files
        self._run = run
        self._lock = threading.Lock()
        self._descriptor = -1
        self._discarded = False
        self._unsynced = 0
        self._waiting: list[bytes] = []
        self._octets_waiting = 0

    async def write(self, data: bytes) -> None:
        """Append octets; they are gathered, so that a thread is not troubled for each chunk."""
        self._waiting.append(data)
        self._octets_waiting += len(data)
        if self._octets_waiting >= _AT_ONCE:
            await self._run(self._append, self._take_waiting())

    async def keep(self) -> None:
        """Make the file durable under its final name."""
        await self._run(self._finish, self._take_waiting())

    async def discard(self) -> None:
        """Remove the file, finished or not; what cannot be removed is an orphan for the next start."""
        try:
            await self._run(self._remove)
        except StoreUnavailable:  # the threads have ended
            self._remove()

    def _remove(self) -> None:
        with self._lock:
            self._discarded = True
            self._close()
            for path in (self._temporary, self._final):
                self._files.remove(path)

    def _take_waiting(self) -> bytes:
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._octets_waiting = 0
        return data

    def _append(self, data: bytes) -> None:
        with self._lock:
            if self._discarded:
                return
            if self._descriptor < 0:
                self._descriptor = self._files.create(self._temporary)
            self._files.write_all(self._descriptor, data)
            self._unsynced += len(data)
            if self._unsynced >= _SYNC_AT_ONCE:
                self._files.sync(self._descriptor)
                self._unsynced = 0

    def _finish(self, data: bytes) -> None:
        self._append(data)
        with self._lock:
            if self._discarded:
                return
            self._files.sync(self._descriptor)
            self._close()
            self._files.rename(self._temporary, self._final)
            self._files.sync_directory(self._final.parent)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class _Reading:
    """One file being read; whoever is cancelled while a thread reads leaves nothing open."""

    def __init__(self, path: Path, files: _TrustedFiles) -> None:
        self._path = path
        self._files = files
        self._lock = threading.Lock()
        self._descriptor = -1
        self._closed = False

    def next(self) -> bytes:
        """The next ``_AT_ONCE`` octets, fewer at the end, and then none (blocking)."""
        with self._lock:
            if self._closed:
                return b""
            if self._descriptor < 0:
                self._descriptor = self._files.open(self._path)
            return self._files.read(self._descriptor, _AT_ONCE)

    def close(self) -> None:
        """Close the file, after a read that is under way (blocking)."""
        with self._lock:
            self._closed = True
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1


class Spool:
    """The directory of large bodies.

    :param directory: made if it is not there; used by one process at a time.
    :param trust: lost when a sync fails or the disk reports an I/O error.
    """

    def __init__(self, directory: Path, files: Files, trust: Trust) -> None:
        self._directory = directory
        self._files = _TrustedFiles(files, trust)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="spool")
        self._serial = 0
        self._pins = 0
        self._unneeded: list[str] = []
        self._pinning = threading.Lock()

    def open(self, named: Collection[str]) -> None:
        """Make the directory and sweep the files that no row names (blocking).

        :param named: the files that rows name.
        :raises StoreUnavailable: if the directory cannot be used.
        """
        try:
            if not self._directory.is_dir():
                self._directory.mkdir(mode=0o700)
                self._files.sync_directory(self._directory.parent)
            for path in self._directory.iterdir():
                self._serial = max(self._serial, _serial(path.name))
                if path.name not in named:
                    self._files.remove(path)
        except OSError as error:
            raise _unavailable(self._directory, error) from error

    def check(self) -> None:
        """Write a file as a body is written, and take it away again (blocking).

        :raises StoreUnavailable: if that fails.
        """
        path = self._directory / f"check{_TEMPORARY}"
        try:
            self._files.remove(path)
            descriptor = self._files.create(path)
            try:
                self._files.write_all(descriptor, b"check")
                self._files.sync(descriptor)
            finally:
                os.close(descriptor)
            self._files.sync_directory(self._directory)
        except OSError as error:
            raise _unavailable(self._directory, error) from error
        finally:
            self._files.remove(path)

    def create(self, queue_id: str) -> SpoolFile:
        """Begin a file with a name that no other file has; the queue ID in it is for people."""
        self._serial += 1
        return SpoolFile(self._directory, f"{queue_id}.{self._serial}", self._files, self._call)

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """A file's content in chunks of at most 64 KiB.

        :raises FileNotFoundError: if there is no such file.
        """
        reading = _Reading(self._directory / name, self._files)
        try:
            while octets := await self._call(reading.next):
                for start in range(0, len(octets), CHUNK):
                    yield octets[start : start + CHUNK]
        finally:
            try:
                self._pool.submit(reading.close)
            except RuntimeError:  # the threads have ended
                reading.close()

    async def remove(self, name: str) -> None:
        """Remove a file whose row is gone; while files are pinned, at the end of that."""
        await self._call(self._remove, name)

    def _remove(self, name: str) -> None:
        with self._pinning:
            if self._pins:
                self._unneeded.append(name)
                return
        self._files.remove(self._directory / name)

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """No file is removed for the length of the context; a crash meanwhile leaves orphans, which are swept."""
        with self._pinning:
            self._pins += 1
        try:
            yield
        finally:
            with self._pinning:
                self._pins -= 1
                unneeded = [] if self._pins else list(self._unneeded)
                del self._unneeded[: len(unneeded)]
            for name in unneeded:
                self._files.remove(self._directory / name)

    def path(self, name: str) -> Path:
        """Where a file is."""
        return self._directory / name

    def octets(self) -> int:
        """How much there is in all files (blocking)."""
        return sum(entry.stat().st_size for entry in os.scandir(self._directory) if entry.is_file())

    def close(self) -> None:
        """Let the threads end when they have done what they were given."""
        self._pool.shutdown(wait=False)

    async def _call(self, function: Callable[..., T], *arguments: object) -> T:
        try:
            working = asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*arguments))
        except RuntimeError as error:
            raise StoreUnavailable("the queue is closed") from error
        try:
            return await working
        except FileNotFoundError:
            raise  # an answer, not a state of the disk
        except OSError as error:
            raise _unavailable(self._directory, error) from error


def make_durably(directory: Path) -> None:
    """Make a directory that only its owner may enter, and those above it, so that a power failure keeps them.

    :raises OSError: if that cannot be done.
    """
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in missing:
        SystemFiles().sync_directory(path.parent)


def _serial(name: str) -> int:
    number = name.removesuffix(_TEMPORARY).rpartition(".")[2]
    return int(number) if number.isascii() and number.isdigit() else 0


def _unavailable(directory: Path, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(f"queue spool {directory}: {error}", full=error.errno in _FULL)
