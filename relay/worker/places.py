"""Places at destinations, shared by the processes of one relay: locks on single octets of one file (fcntl(2), F_SETLK).

A place is the lock on octet ``destination * SPAN + number`` for a number below the limit; the file itself stays empty. The
kernel frees what a process held when it ends, however that ends, so nobody has to clean up after a crash and no process
answers for another. The destination is a digest of 40 bits: two that fell together would share their places, which
delays and harms nothing.

What is fair: each process has a share of the places (the limit divided, at least one) and takes more only while nobody else
wants a place. Who cannot have its share says so by a shared lock on the destination's last octet. Where there are fewer
places than processes nobody's share is safe, so whoever has held a place for ``TURN_SECONDS`` while others wait stands
back for a moment.

Locks of this kind belong to the process and all of them end when it closes any descriptor of the file: it is opened here,
once, and nowhere else.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Final

from relay.scheduling.places import Taken

SPAN: Final = 1 << 20
"""Octets of a destination: more places than any limit has, and the wish."""
TURN_SECONDS: Final = 0.1
# Somebody who found everything full comes again after so many seconds at most (scheduling.destinations); a turn that
# ended must be longer away than that.
STAND_BACK_SECONDS: Final = 0.06
# How long what was found full is not looked at again by a process that has its share.
_FULL_SECONDS: Final = 0.01
# Destinations remembered; those at which it has something are never forgotten.
MAX_REMEMBERED: Final = 10_000


@dataclass(slots=True)
class _Here:
    """What this process has at one destination.

    :param first: the number of the place that is tried first.
    :param numbers: of its places.
    :param turn_began: when it last came to have one after it had none for a while.
    :param wants: whether the others know that it has less than its share and wants more.
    """

    base: int
    first: int
    numbers: list[int] = field(default_factory=list)
    turn_began: float = 0.0
    left_at: float = float("-inf")
    full_until: float = float("-inf")
    back_until: float = float("-inf")
    wants: bool = False


class SharedPlaces:
    """``Places`` of one process; ``Places`` of others are opened on the same file.

    :param path: the file; it is made if it is not there.
    :param limit: places of each destination, below ``SPAN``.
    :param processes: how many share them.
    :param timer: seconds, for the count of what the locks cost.
    """

    def __init__(
        self, path: Path, *, limit: int, processes: int, timer: Callable[[], float] = time.perf_counter
    ) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._limit = min(limit, SPAN - 1)
        self._share = max(1, self._limit // processes)
        self._scarce = self._limit < processes
        self._here: dict[str, _Here] = {}
        self._timer = timer
        self.full = 0
        """How often a place that was due to this process was not free."""
        self.lock_seconds = 0.0
        """What asking for places took, altogether."""

    def take(self, name: str, now: float) -> Taken:
        """Take one more place; see ``Places.take``."""
        began = self._timer()
        try:
            return self._take(name, now)
        finally:
            self.lock_seconds += self._timer() - began

    def _take(self, name: str, now: float) -> Taken:
        here = self._at(name)
        if here.back_until > now:
            return Taken.FULL
        if self._turn_is_over(here, now):
            here.back_until = now + STAND_BACK_SECONDS
            return Taken.FULL
        within = len(here.numbers) < self._share
        if not within and (now < here.full_until or self._others_want(here)):
            return Taken.ENOUGH
        if self._lock_one(here, now):
            if len(here.numbers) >= self._share:
                self._waive(here)
            return Taken.YES
        if not within:
            here.full_until = now + _FULL_SECONDS
            return Taken.ENOUGH
        if not here.wants:
            here.wants = self._lock(here.base + SPAN - 1, fcntl.LOCK_SH)
        self.full += 1
        return Taken.FULL

    def _at(self, name: str) -> _Here:
        here = self._here.get(name)
        if here is None:
            if len(self._here) >= MAX_REMEMBERED:
                self._here = {key: one for key, one in self._here.items() if one.numbers or one.wants}
            here = self._here[name] = _Here(_base(name), os.getpid() % self._limit)
        return here

    def _turn_is_over(self, here: _Here, now: float) -> bool:
        goes_on = now - here.left_at <= STAND_BACK_SECONDS and now - here.turn_began >= TURN_SECONDS
        return self._scarce and not here.numbers and goes_on and self._others_want(here)

    def _lock_one(self, here: _Here, now: float) -> bool:
        mine = here.numbers
        # From the one it had last: that is most likely free, and others look elsewhere first. Each look is a system call, after
        # which this thread has to wait for the interpreter.
        for step in range(self._limit):
            number = (here.first + step) % self._limit
            if number not in mine and self._lock(here.base + number, fcntl.LOCK_EX):
                if not mine and now - here.left_at > STAND_BACK_SECONDS:
                    here.turn_began = now
                mine.append(number)
                return True
        return False

    def leave(self, name: str, now: float) -> None:
        """Give one place back."""
        here = self._here[name]
        here.first = here.numbers.pop()
        self._unlock(here.base + here.first)
        here.left_at = now

    def held(self, name: str) -> int:
        """How many places at a destination are this process's now."""
        here = self._here.get(name)
        return 0 if here is None else len(here.numbers)

    def waive(self, name: str) -> None:
        """It wants no more than it has, until it asks again."""
        here = self._here.get(name)
        if here is not None:
            self._waive(here)

    def _waive(self, here: _Here) -> None:
        if here.wants:
            here.wants = False
            self._unlock(here.base + SPAN - 1)

    def close(self) -> None:
        """Give everything back."""
        os.close(self._file)

    def _others_want(self, here: _Here) -> bool:
        self._waive(here)  # our own wish is not what is asked for
        wish = here.base + SPAN - 1
        if not self._lock(wish, fcntl.LOCK_EX):
            return True
        self._unlock(wish)
        return False

    def _lock(self, octet: int, how: int) -> bool:
        try:
            fcntl.lockf(self._file, how | fcntl.LOCK_NB, 1, octet)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as the system likes it
            return False
        return True

    def _unlock(self, octet: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, octet)


def _base(name: str) -> int:
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=5).digest()) * SPAN
