"""A copy of a queue in one file, made while the queue is in use.

The copy is a tar archive of the database and the spool files that its rows name, all as of one moment: unpacked into an
empty state directory it is the queue of that moment. The database is copied by SQLite in one snapshot (``VACUUM INTO``);
spool files that are no longer needed meanwhile are kept until the copy has them.
"""

from __future__ import annotations

import asyncio
import os
import tarfile
import threading
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import apsw

from relay.queue.connecting import Connecting
from relay.queue.files import SystemFiles
from relay.queue.health import Look, close, unavailable
from relay.queue.rows import number, text
from relay.queue.spool import Spool

_TELLING_SECONDS = 1.0


class BackupFailed(Exception):  # noqa: N818 - it names what happened, not the handling
    """No backup was made; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class BackedUp:
    """What a backup holds, or will hold: messages, spool files, and octets of the archive so far."""

    messages: int
    files: int
    octets: int


class Backup:
    """Makes one backup.

    :param floor: octets that stay free on the queue's disk, if the archive is to be there too.
    """

    def __init__(self, *, connecting: Connecting, spool: Spool, look: Look, floor: int) -> None:
        self._connecting = connecting
        self._spool = spool
        self._look = look
        self._floor = floor
        self._stop = threading.Event()
        self._so_far = BackedUp(0, 0, 0)

    async def steps(self, target: Path) -> AsyncGenerator[BackedUp, None]:
        """Write the archive in a thread, saying now and then how far it is; the last word is what it holds.

        :param target: an absolute path at which nothing is yet; the archive appears there when it is whole and on the disk.
        :raises BackupFailed: if it cannot be written; nothing is left of it.
        """
        running = asyncio.ensure_future(asyncio.to_thread(self._run, target))
        try:
            while not running.done():
                await asyncio.wait([running], timeout=_TELLING_SECONDS)
                yield self._so_far if not running.done() else await running
        finally:
            self._stop.set()
            await asyncio.gather(running, return_exceptions=True)

    def _run(self, target: Path) -> BackedUp:
        copy, part = target.with_name(target.name + ".database"), target.with_name(target.name + ".part")
        try:
            if target.exists():
                raise BackupFailed(f"{target} is there already: name another file, or remove it first")
            self._check_room(target)
            try:
                with self._spool.pinned():
                    self._snapshot(copy)
                    done = self._archive(copy, part)
                os.rename(part, target)
                SystemFiles().sync_directory(target.parent)
            finally:
                for left in (copy, part):
                    with suppress(OSError):
                        left.unlink()
        except OSError as error:
            raise BackupFailed(f"{target}: {error.strerror or error}") from error
        except apsw.Error as error:
            raise BackupFailed(f"{target}: {unavailable(error)}") from error
        return done

    def _check_room(self, target: Path) -> None:
        """Where the archive goes to the queue's own disk, it must not eat the room that mail needs."""
        queue = self._connecting.path
        if target.parent.stat().st_dev != queue.parent.stat().st_dev:
            return
        free = self._look(target.parent).free
        needs = 2 * queue.stat().st_size + self._spool.octets()
        if free - needs < self._floor:
            raise BackupFailed(
                f"{target} is on the queue's own disk, which has {free} octets free: the backup needs up to {needs} and "
                f"{self._floor} must stay free for mail; write it to another disk"
            )

    def _snapshot(self, copy: Path) -> None:
        source = self._connecting.reader(writes_elsewhere=True)
        try:
            source.set_progress_handler(self._stop.is_set, 10_000)
            os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            source.execute("VACUUM INTO ?", (str(copy),))
        except apsw.InterruptError:
            raise BackupFailed("given up") from None
        finally:
            close(source)

    def _archive(self, copy: Path, part: Path) -> BackedUp:
        messages, names = _contents(copy)
        database = self._connecting.path.name
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
                archive.add(copy, arcname=database, filter=_ours)
                self._so_far = BackedUp(messages, 0, stream.tell())
                for files, name in enumerate(names, 1):
                    if self._stop.is_set():
                        raise BackupFailed("given up")
                    archive.add(self._spool.path(name), arcname=f"{database}.spool/{name}", filter=_ours)
                    self._so_far = BackedUp(messages, files, stream.tell())
            stream.flush()
            os.fsync(stream.fileno())
            return BackedUp(messages, len(names), stream.tell())


def _contents(copy: Path) -> tuple[int, list[str]]:
    """How many messages a database has, and the spool files that it names."""
    connection = apsw.Connection(str(copy), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        ((messages,),) = connection.execute("SELECT count(*) FROM message").fetchall()
        names = [text(name) for (name,) in connection.execute("SELECT spool FROM body WHERE spool <> ''")]
        return number(messages), names
    finally:
        close(connection)


def _ours(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Whoever unpacks it owns it, and nobody else reads it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member
