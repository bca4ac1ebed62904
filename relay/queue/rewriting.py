"""Making durable anew what stands in a write-ahead log that somebody else left behind.

What is read from a log is not always on the disk. A sync that failed dropped what it should have written, and the kernel
calls those pages clean from then on: they can be read until they leave its memory, no later sync writes them, and a power
cut shows the hole. SQLite believes a log that it can read, takes what it finds there as committed, and appends behind it;
what is behind a hole is gone with it. So a log that was not written by this very connection, each of whose commits was
synced, is written anew before it is believed: the same octets at the same place, then a sync. A power cut in the middle of
that changes nothing, for each sector holds the old octets or the same ones again.
"""

from __future__ import annotations

from pathlib import Path

import apsw

# SQLite's own VFS takes less than 128 KiB at once (os_unix.c, seekAndWriteFd), for no page is larger than half of it.
_PIECE = 64 * 1024
_FLAGS = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
_FULL_SYNC = apsw.SQLITE_SYNC_FULL  # macOS: fsync alone leaves it in the drive's cache


def write_log_anew(database: Path, vfs: str = "") -> None:
    """Write the log of a database to the disk as it reads now, and its name in the directory; without a log do nothing.

    :param vfs: the name of a registered SQLite VFS; empty for the system's.
    :raises apsw.Error: if the disk does not take it.
    """
    path = database.with_name(database.name + "-wal")
    if not path.exists():
        return
    # As SQLite opens it: with CREATE, its first sync is one of the directory too (os_unix.c, unixOpen and unixSync).
    log = apsw.VFSFile(vfs, str(path), [_FLAGS, 0])
    try:
        size = log.xFileSize()
        for start in range(0, size, _PIECE):
            log.xWrite(log.xRead(min(_PIECE, size - start), start), start)
        if size:
            log.xSync(_FULL_SYNC)
    finally:
        log.xClose()
