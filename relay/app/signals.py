"""What signals ask of a relay, from before it is up until it is gone.

A signal that nobody handles ends the process, SIGHUP too; so a service manager that reloads a relay which just began to
start would have killed it. What is asked for while it starts is remembered until it is up.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """SIGTERM and SIGINT end the relay, SIGHUP reloads it. SIGHUP is heard from here on, the others from ``listen`` on."""

    def __init__(self) -> None:
        self._to_stop = 0
        self._to_reload = False
        self._stop: Callable[[], None] | None = None
        self._reload: Callable[[], None] | None = None
        signal.signal(signal.SIGHUP, self._early)

    def listen(self) -> None:
        """Hear them in the running loop."""
        loop = asyncio.get_running_loop()
        for number in _ENDING:
            loop.add_signal_handler(number, self._asked_to_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._asked_to_reload)

    def answered_by(self, *, stop: Callable[[], None], reload: Callable[[], None]) -> None:
        """The relay is up: have it do what was asked for, and what will be."""
        self._stop, self._reload = stop, reload
        if self._to_stop:
            stop()
        elif self._to_reload:
            reload()

    def _early(self, number: int, frame: FrameType | None) -> None:
        self._to_reload = True

    def _asked_to_stop(self, number: int) -> None:
        if self._stop is not None:
            self._stop()
            return
        self._to_stop += 1
        if self._to_stop > 1:  # somebody does not want to wait for it to start first; nothing is under way yet
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _asked_to_reload(self) -> None:
        if self._reload is None:
            self._to_reload = True
        else:
            self._reload()
