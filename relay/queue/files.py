"""What the spool asks of the file system, and the system's own answer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol


class Files(Protocol):
    """What the spool asks of the file system; each call may raise OSError."""

    def create(self, path: Path) -> int:
        """Open a new file for writing; returns its descriptor."""
        ...

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write some of ``data``; returns how many octets."""
        ...

    def sync(self, descriptor: int) -> None:
        """Have the file's content on the disk when this returns."""
        ...

    def rename(self, old: Path, new: Path) -> None:
        """Give a file its final name."""
        ...

    def sync_directory(self, path: Path) -> None:
        """Have the directory's names on the disk when this returns."""
        ...

    def open(self, path: Path) -> int:
        """Open a file for reading; returns its descriptor."""
        ...

    def read(self, descriptor: int, octets: int) -> bytes:
        """Read on; empty at the end."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file."""
        ...


class SystemFiles:
    """``Files`` by the operating system's calls."""

    def create(self, path: Path) -> int:
        """Open a new file, readable by its owner only."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, descriptor: int, data: memoryview) -> int:
        """``write``, which may write less than all."""
        return os.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        """``fsync``."""
        os.fsync(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        """``rename``."""
        os.rename(old, new)

    def sync_directory(self, path: Path) -> None:
        """``fsync`` of the directory."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def open(self, path: Path) -> int:
        """Open an existing file."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, descriptor: int, octets: int) -> bytes:
        """``read``."""
        return os.read(descriptor, octets)

    def remove(self, path: Path) -> None:
        """``unlink``."""
        os.unlink(path)
