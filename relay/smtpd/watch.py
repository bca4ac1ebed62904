"""The time limits of one session's waits, which come one after another: one alarm for all of them.

``asyncio.timeout`` makes and cancels a timer for each wait; here the alarm stays, and when it rings before its time, because
the wait that it was set for is over, it is set anew.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from relay.smtpd.alarms import Alarms


class Watch:
    """``with watch.within(seconds):`` raises TimeoutError when the time is over; one block at a time, in one task."""

    __slots__ = ("_alarms", "_armed", "_armed_for", "_cancelling", "_expired", "_loop", "_task", "_tick", "_until")

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None
        self._armed = False
        self._tick = 0
        self._armed_for = 0.0
        self._until = 0.0
        self._cancelling = 0
        self._expired = False

    def within(self, seconds: float) -> Watch:
        """A limit for the block that begins now."""
        self._until = self._loop.time() + seconds
        return self

    def shorten(self, seconds: float) -> None:
        """Give the block that is under way, if there is one, no more than this from now on."""
        until = self._loop.time() + seconds
        if self._task is not None and until < self._until:
            self._until = until
            if seconds > 0.0:
                self._arm()
            else:
                self._expire()

    def renew(self, seconds: float) -> None:
        """Give the block that is under way this long from now on, as if it began now."""
        if self._task is not None and not self._expired:
            self._until = self._loop.time() + seconds
            self._arm()

    def close(self) -> None:
        """No block begins any more."""
        if self._armed:
            self._armed = False
            self._alarms.unset(self._tick, self._ring)

    def __enter__(self) -> None:
        task = asyncio.current_task(self._loop)
        if self._task is not None or task is None:
            raise RuntimeError("one wait at a time, in a task")
        self._task, self._cancelling, self._expired = task, task.cancelling(), False
        self._arm()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if (
            self._expired
            and task is not None
            and task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error

    def _arm(self) -> None:
        """Have the alarm ring at the limit, or before it."""
        if self._armed:
            if self._armed_for <= self._until:
                return
            self._alarms.unset(self._tick, self._ring)
        self._armed_for = self._until
        self._tick = self._alarms.set(self._until, self._ring)
        self._armed = True

    def _ring(self) -> None:
        self._armed = False
        if self._task is None:
            return
        if self._armed_for < self._until:
            self._arm()
        else:
            self._expire()

    def _expire(self) -> None:
        if self._task is not None and not self._expired:
            self._expired = True
            self._task.cancel()
