"""A SQLite VFS and a file layer that write down every write and sync, hold them up, or fail them."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from relay.queue.files import SystemFiles

PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Happened:
    """``what`` is write, sync, rename, sync directory or returned; ``data`` what was written."""

    what: str
    file: str = ""
    data: bytes = b""


@dataclass(slots=True)
class Record:
    """What happened, in order, on whatever thread."""

    events: list[Happened] = field(default_factory=list)

    def add(self, what: str, file: str = "", data: bytes = b"") -> None:
        self.events.append(Happened(what, Path(file).name, data))


class RecordingVfs(apsw.VFS):
    """The system's VFS, watched.

    ``failure`` is raised by each write to the log while it is set, ``sync_failure`` by each sync; a sync of the log waits
    while ``gate`` is closed, and ``at_gate`` tells that one does; ``syncs`` counts those of the log.
    """

    def __init__(self, name: str, record: Record) -> None:
        super().__init__(name, "")
        self.vfs_name = name
        self.syncs = 0
        self.sync_failure: Exception | None = None
        self.record = record
        self.failure: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.at_gate = threading.Event()

    async def reached(self) -> None:
        """Wait until a sync of the log waits at the gate; one that never comes fails the test."""
        assert await asyncio.to_thread(self.at_gate.wait, PATIENCE), "nothing was synced"

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        return _RecordingFile(self, name, flags)


class _RecordingFile(apsw.VFSFile):
    def __init__(self, vfs: RecordingVfs, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._vfs = vfs
        self._name = name.filename() if isinstance(name, apsw.URIFilename) else str(name)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802 - SQLite's name
        if self._vfs.failure is not None and self._name.endswith("-wal"):
            raise self._vfs.failure
        super().xWrite(data, offset)
        self._vfs.record.add("write", self._name, bytes(data))

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        if self._name.endswith("-wal") and not self._vfs.gate.is_set():
            self._vfs.at_gate.set()
            self._vfs.gate.wait()
        self._vfs.syncs += self._name.endswith("-wal")
        if self._vfs.sync_failure is not None:
            raise self._vfs.sync_failure
        super().xSync(flags)
        self._vfs.record.add("sync", self._name)


class RecordingFiles(SystemFiles):
    """The system's files, watched; ``failure`` is raised by each write while it is set."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.failure: OSError | None = None
        self._names: dict[int, str] = {}

    def create(self, path: Path) -> int:
        descriptor = super().create(path)
        self._names[descriptor] = path.name
        return descriptor

    def write(self, descriptor: int, data: memoryview) -> int:
        if self.failure is not None:
            raise self.failure
        written = super().write(descriptor, data)
        self.record.add("write", self._names[descriptor], bytes(data[:written]))
        return written

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        self.record.add("sync", self._names[descriptor])

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self.record.add("rename", new.name)

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        self.record.add("sync directory", path.name)
