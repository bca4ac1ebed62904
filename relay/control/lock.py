"""One process at a time owns a state directory: an exclusive flock on ``lock`` in it.

The kernel ends the lock with its process, however that ends, so the file is never stale and never removed; its content is
the owner's process id, for people.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LOCK_NAME = "lock"


class LockFailed(Exception):  # noqa: N818 - it names what happened, not the handling
    """The state directory cannot be locked; the message names it and says why."""


class Held(LockFailed):
    """Another process holds the state directory.

    :param pid: its process id, 0 if the lock file does not say.
    """

    def __init__(self, state_dir: Path, pid: int) -> None:
        who = f"process {pid}" if pid else "another process"
        super().__init__(
            f"state_dir {state_dir} is in use by {who}: stop it first, or give this relay a directory of its own"
        )
        self.pid = pid


@dataclass(frozen=True, slots=True)
class StateLock:
    """Proof that this process holds ``state_dir``; only ``hold`` makes one.

    :param descriptor: a process that inherits it holds the directory too, as long as it lives.
    """

    state_dir: Path
    descriptor: int = -1


@contextmanager
def hold(state_dir: Path) -> Iterator[StateLock]:
    """Hold an existing state directory for the length of the context.

    :raises Held: if another process (or another holder in this one) has it.
    :raises LockFailed: if there is no such directory or the lock file cannot be opened or locked.
    """
    path = state_dir / LOCK_NAME
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise LockFailed(f"state_dir {state_dir}: cannot open its lock file: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Held(state_dir, _pid(lock)) from None
        except OSError as error:
            raise LockFailed(f"state_dir {state_dir}: cannot lock it: {error.strerror}") from error
        _sign(lock, state_dir)
        yield StateLock(state_dir, lock)
    finally:
        os.close(lock)  # ends the lock


def is_held(state_dir: Path) -> bool:
    """Whether a process holds the directory right now, without disturbing it.

    :raises LockFailed: if the lock file is there and cannot be read.
    """
    try:
        lock = os.open(state_dir / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise LockFailed(f"state_dir {state_dir}: cannot open its lock file: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _sign(lock: int, state_dir: Path) -> None:
    try:
        if os.geteuid() == 0:
            # A command run by root must not leave a file that the relay's own user cannot open.
            owner = os.stat(state_dir)
            os.fchown(lock, owner.st_uid, owner.st_gid)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        raise LockFailed(f"state_dir {state_dir}: cannot write its lock file: {error.strerror}") from error


def _pid(lock: int) -> int:
    text = os.pread(lock, 20, 0).strip()
    return int(text) if text.isdigit() else 0
