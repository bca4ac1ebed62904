"""A disk under the queue that writes down all that is done to it, and fails when told to.

``Journal`` is the record; ``JournalVfs`` and ``JournalFiles`` are the two ways to the disk, SQLite's and the spool's.
``Image`` reads a record back as what a power failure would leave.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from relay.queue.files import SystemFiles


@dataclass(frozen=True, slots=True)
class Op:
    """One thing done to the disk, or (``mark``) one thing that the test noted.

    :param kind: create, write, truncate, sync, lost (a sync that failed), sync directory, rename, remove, read, open or mark.
    :param name: the file, by its path under the test's directory; for a rename the old one.
    """

    kind: str
    name: str = ""
    offset: int = 0
    data: bytes = b""
    other: str = ""
    mark: object = None


class Short(Exception):  # noqa: N818 - it names a way to write, not an error
    """Told to a write: only half of it happens."""


Trouble = Callable[[Op], Exception | None]
"""Whether, and how, an operation fails; asked before it is done."""


def no_trouble(op: Op) -> None:
    """All is well."""
    return


@dataclass
class Journal:
    """What was done, in order, on whatever thread."""

    root: Path
    ops: list[Op] = field(default_factory=list)
    trouble: Trouble = no_trouble
    asked: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    def name(self, path: str | Path) -> str:
        """How a file is called here."""
        return str(Path(path).relative_to(self.root))

    def ask(self, op: Op) -> Exception | None:
        """How this operation fails, if it does."""
        with self.lock:
            self.asked += 1
            return self.trouble(op)

    def add(self, op: Op) -> None:
        """It was done."""
        with self.lock:
            self.ops.append(op)

    def fail_sync(self, trouble: Exception | None, op: Op) -> None:
        """A sync that fails loses what it should have written: the kernel calls those pages clean from now on."""
        if trouble is not None:
            self.add(Op("lost", op.name))
            raise trouble

    def mark(self, what: object) -> None:
        """Note something between the operations."""
        self.add(Op("mark", mark=what))


class JournalVfs(apsw.VFS):
    """The system's VFS, written down."""

    def __init__(self, name: str, journal: Journal) -> None:
        super().__init__(name, "")
        self.vfs_name = name
        self.journal = journal

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        return _JournalFile(self.journal, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 - SQLite's name
        op = Op("remove", self.journal.name(filename))
        _raise(self.journal.ask(op))
        super().xDelete(filename, syncdir)
        self.journal.add(op)
        if syncdir:
            self.journal.add(Op("sync directory", "."))


class _JournalFile(apsw.VFSFile):
    def __init__(self, journal: Journal, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self._journal = journal
        self._name = journal.name(path)
        existed = Path(path).exists()
        op = Op("open" if existed else "create", self._name)
        _raise(journal.ask(op))
        super().__init__("", name, flags)
        if not existed:
            journal.add(op)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802 - SQLite's name
        _raise(self._journal.ask(Op("read", self._name)))
        return super().xRead(amount, offset)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802 - SQLite's name
        whole = bytes(data)
        trouble = self._journal.ask(Op("write", self._name, offset, whole))
        if isinstance(trouble, Short):
            half = whole[: len(whole) // 2]
            super().xWrite(half, offset)
            self._journal.add(Op("write", self._name, offset, half))
            raise apsw.FullError("only half of it was written")
        _raise(trouble)
        super().xWrite(whole, offset)
        self._journal.add(Op("write", self._name, offset, whole))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - SQLite's name
        op = Op("truncate", self._name, newsize)
        _raise(self._journal.ask(op))
        super().xTruncate(newsize)
        self._journal.add(op)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        op = Op("sync", self._name)
        self._journal.fail_sync(self._journal.ask(op), op)
        super().xSync(flags)
        self._journal.add(op)
        if self._name.endswith("-wal"):  # the first sync of a new log syncs its directory too (os_unix.c, unixSync)
            self._journal.add(Op("sync directory", "."))


class JournalFiles(SystemFiles):
    """The system's files, written down."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._names: dict[int, str] = {}
        self._offsets: dict[int, int] = {}

    def create(self, path: Path) -> int:
        op = Op("create", self._journal.name(path))
        _raise(self._journal.ask(op))
        descriptor = super().create(path)
        self._journal.add(op)
        self._names[descriptor], self._offsets[descriptor] = op.name, 0
        return descriptor

    def write(self, descriptor: int, data: memoryview) -> int:
        name, offset = self._names[descriptor], self._offsets[descriptor]
        trouble = self._journal.ask(Op("write", name, offset, bytes(data)))
        if isinstance(trouble, Short):
            data = data[: max(1, len(data) // 2)]
        else:
            _raise(trouble)
        written = super().write(descriptor, data)
        self._journal.add(Op("write", name, offset, bytes(data[:written])))
        self._offsets[descriptor] += written
        return written

    def sync(self, descriptor: int) -> None:
        op = Op("sync", self._names[descriptor])
        self._journal.fail_sync(self._journal.ask(op), op)
        super().sync(descriptor)
        self._journal.add(op)

    def rename(self, old: Path, new: Path) -> None:
        op = Op("rename", self._journal.name(old), other=self._journal.name(new))
        _raise(self._journal.ask(op))
        super().rename(old, new)
        self._journal.add(op)

    def sync_directory(self, path: Path) -> None:
        op = Op("sync directory", self._journal.name(path))
        _raise(self._journal.ask(op))
        super().sync_directory(path)
        self._journal.add(op)

    def open(self, path: Path) -> int:
        _raise(self._journal.ask(Op("open", self._journal.name(path))))
        return super().open(path)

    def read(self, descriptor: int, octets: int) -> bytes:
        _raise(self._journal.ask(Op("read")))
        return super().read(descriptor, octets)

    def remove(self, path: Path) -> None:
        op = Op("remove", self._journal.name(path))
        _raise(self._journal.ask(op))
        super().remove(path)
        self._journal.add(op)


def _raise(trouble: Exception | None) -> None:
    if trouble is not None:
        raise trouble


@dataclass(slots=True)
class _Inode:
    synced: bytearray = field(default_factory=bytearray)
    unsynced: list[Op] = field(default_factory=list)


class Image:
    """What is surely on the disk after so many operations: contents as last synced, names as their directory was."""

    def __init__(self) -> None:
        self._names: dict[str, _Inode] = {}
        self._durable: dict[str, _Inode] = {}

    def apply(self, op: Op) -> None:
        """One more operation was done."""
        match op.kind:
            case "create":
                self._names[op.name] = _Inode()
            case "write" | "truncate":
                self._names[op.name].unsynced.append(op)
            case "sync":
                inode = self._names[op.name]
                for written in inode.unsynced:
                    _change(inode.synced, written)
                inode.unsynced.clear()
            case "lost":
                self._names[op.name].unsynced.clear()
            case "rename":
                self._names[op.other] = self._names.pop(op.name)
            case "remove":
                self._names.pop(op.name, None)
            case "sync directory":
                self._sync_directory(op.name)
            case _:
                pass

    def _sync_directory(self, directory: str) -> None:
        parent = Path(directory)
        for name in [*self._durable, *self._names]:
            if Path(name).parent == parent:
                self._durable.pop(name, None)
                if name in self._names:
                    self._durable[name] = self._names[name]

    def write(self, root: Path, chance: random.Random | None = None) -> None:
        """Lay the files down in an empty directory.

        :param chance: which of the writes that were not synced are on the disk all the same, sector by sector; None for
            none of them.
        """
        for name, inode in self._durable.items():
            content = bytearray(inode.synced)
            for op in inode.unsynced if chance else ():
                _change_partly(content, op, chance)
            path = root / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)


def _change(content: bytearray, op: Op) -> None:
    if op.kind == "truncate":
        del content[op.offset :]
        return
    content.extend(bytes(max(0, op.offset - len(content))))
    content[op.offset : op.offset + len(op.data)] = op.data


_SECTOR = 512


def _change_partly(content: bytearray, op: Op, chance: random.Random | None) -> None:
    if chance is None or chance.random() < 0.3:
        return
    if op.kind == "truncate" or chance.random() < 0.5:
        _change(content, op)
        return
    for start in range(0, len(op.data), _SECTOR):
        if chance.random() < 0.5:
            _change(content, Op("write", op.name, op.offset + start, op.data[start : start + _SECTOR]))


def sync_points(ops: Sequence[Op]) -> list[int]:
    """How many operations had been done just before each sync, and at the end: promises are oldest there."""
    points = [index for index, op in enumerate(ops) if op.kind in {"sync", "sync directory"}]
    return [*points, len(ops)]
