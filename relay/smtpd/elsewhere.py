"""What the other workers of a relay count of their clients: a piece of memory where each writes its own counts and reads theirs.

Nobody waits: a worker has a part of the memory in which it alone writes, and what is asked for is the sum of the others' parts.
So one that is stopped or dies in the middle of anything holds up nobody; its parent clears its part when it has ended. Who tells
a count before it asks for the others' cannot be overlooked by another that does the same. Numbers are written and read as whole
machine words; a count that is being replaced while it is read is the one from before or behind.

A part is a table of ``BUCKETS`` times ``SLOTS`` counts, a megabyte at most. Where a bucket is full of clients that
count still, the next one's count stays its worker's own: then a limit holds for each worker.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Protocol

BUCKETS: Final = 4096
SLOTS: Final = 8
# Of a slot: whose count, until when it counts (nanoseconds), and the count; 0 for nobody's.
_WORDS: Final = 3
_WORD_OCTETS: Final = 8
_BUCKET: Final = SLOTS * _WORDS
_PART: Final = BUCKETS * _BUCKET
# In front of the parts is what nobody outside can guess, so that nobody can choose addresses that fall into one bucket.
_SECRET_OCTETS: Final = 32
_FRONT: Final = mmap.PAGESIZE // _WORD_OCTETS
# A count that lasts until it is taken back.
FOREVER: Final = float("inf")
_END_OF_TIME: Final = 2**64 - 1
_REMEMBERED: Final = 4096


class Elsewhere(Protocol):
    """Counts by kind and client. Nothing here waits; times are seconds of ``time.monotonic``, which all processes share."""

    def tell(self, kind: str, client: str, count: int, until: float, now: float) -> None:
        """Let the others know a count of this process.

        :param until: when it counts no more.
        """
        ...

    def count(self, kind: str, client: str, now: float) -> int:
        """The others' counts, together."""
        ...


class _Alone:
    """There are no others."""

    def tell(self, kind: str, client: str, count: int, until: float, now: float) -> None:
        return

    def count(self, kind: str, client: str, now: float) -> int:
        return 0


ALONE: Final = _Alone()


class SharedMemory:
    """The memory of all workers. It goes with the last process that has it.

    :param descriptor: of the file in memory; ours from now on.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        self._octets = memoryview(self._map)
        self.words = self._octets.cast("Q")
        self.secret = bytes(self._octets[:_SECRET_OCTETS])
        self.workers = (len(self.words) - _FRONT) // _PART

    @classmethod
    def made(cls, workers: int) -> SharedMemory:
        """New memory, for so many.

        :raises OSError: if there is none.
        """
        descriptor = _file_in_memory()
        os.ftruncate(descriptor, (_FRONT + workers * _PART) * _WORD_OCTETS)
        os.pwrite(descriptor, os.urandom(_SECRET_OCTETS), 0)
        return cls(descriptor)

    def clear(self, worker: int) -> None:
        """A worker has ended: what it counted counts no more.

        :param worker: from 0 on.
        """
        begin = (_FRONT + worker * _PART) * _WORD_OCTETS
        self._octets[begin : begin + _PART * _WORD_OCTETS] = bytes(_PART * _WORD_OCTETS)

    def close(self) -> None:
        """Give it up."""
        self.words.release()
        self._octets.release()
        self._map.close()
        os.close(self.descriptor)


class SharedCounts:
    """``Elsewhere`` of one worker.

    :param worker: whose part it writes, from 0 on.
    """

    def __init__(self, memory: SharedMemory, worker: int) -> None:
        self._words = memory.words
        self._own = _FRONT + worker * _PART
        self._others = [_FRONT + other * _PART for other in range(memory.workers) if other != worker]
        self._key: Callable[[str, str], int] = lru_cache(_REMEMBERED)(_keys(memory.secret))

    def tell(self, kind: str, client: str, count: int, until: float, now: float) -> None:
        """Let the others know a count of this worker; see ``Elsewhere.tell``."""
        key, words = self._key(kind, client), self._words
        first = self._own + key % BUCKETS * _BUCKET
        bucket = words[first : first + _BUCKET].tolist()
        keys = bucket[::_WORDS]
        if key in keys:
            slot = first + keys.index(key) * _WORDS
        elif count:
            present = _nanoseconds(now)
            free = (at for at in range(0, _BUCKET, _WORDS) if not bucket[at] or bucket[at + 1] <= present)
            if (found := next(free, None)) is None:
                return
            slot = first + found
            words[slot] = 0
        else:
            return
        # In this order: a count never gets a time that is not its own, nor a key the count of another.
        words[slot + 2] = count
        words[slot + 1] = _nanoseconds(until)
        words[slot] = key if count else 0

    def count(self, kind: str, client: str, now: float) -> int:
        """The other workers' counts, together."""
        key, present, total = self._key(kind, client), _nanoseconds(now), 0
        for part in self._others:
            first = part + key % BUCKETS * _BUCKET
            bucket = self._words[first : first + _BUCKET].tolist()
            keys = bucket[::_WORDS]
            if key in keys:
                at = keys.index(key) * _WORDS
                total += bucket[at + 2] if bucket[at + 1] > present else 0
        return total


def _keys(secret: bytes) -> Callable[[str, str], int]:
    def key(kind: str, client: str) -> int:
        digest = blake2b(f"{kind} {client}".encode(), digest_size=_WORD_OCTETS, key=secret).digest()
        return int.from_bytes(digest) or 1

    return key


def _nanoseconds(seconds: float) -> int:
    return _END_OF_TIME if seconds == FOREVER else int(seconds * 1e9)


def _file_in_memory() -> int:
    """A descriptor that is inherited only where that is asked for."""
    if made := getattr(os, "memfd_create", None):
        return int(made("counts of clients"))  # of Linux and FreeBSD
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
