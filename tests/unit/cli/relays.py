"""A control socket with a queue behind it, served from a thread: commands block, as they do for people."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from relay.control.lock import hold
from relay.control.server import Handlers, Reloaded, serve
from relay.queue.store import QueueEntry
from tests.unit.control.stores import FixedQueue, administration


class Running:
    """What the relay of a test was told."""

    def __init__(self, *entries: QueueEntry) -> None:
        self.store = FixedQueue(*entries)
        self.reloaded = Reloaded(True)
        self.woken = 0
        self.ends_when_told = True
        self.kill: Callable[[], object] = object

    async def run(self, state_dir: Path, up: threading.Event) -> None:
        """Serve until told to stop."""
        loop = asyncio.get_running_loop()
        self.end = asyncio.Event()
        self.kill = lambda: loop.call_soon_threadsafe(self.end.set)
        with hold(state_dir) as lock:
            async with serve(lock, self._handlers()):
                up.set()
                await self.end.wait()

    def _handlers(self) -> Handlers:
        return Handlers(
            administration=administration(self.store, wake=self._wake),
            reload=self._reload,
            stop=self._stop,
            status=dict,
        )

    def _wake(self) -> None:
        self.woken += 1

    def _stop(self) -> None:
        if self.ends_when_told:
            self.end.set()

    async def _reload(self) -> Reloaded:
        return self.reloaded


@contextmanager
def running(state_dir: Path, *entries: QueueEntry) -> Iterator[Running]:
    """A relay on this directory for the length of the context."""
    relay, up = Running(*entries), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(relay.run(state_dir, up)))
    thread.start()
    assert up.wait(20)
    try:
        yield relay
    finally:
        with suppress(RuntimeError):  # it ended by itself, and its loop is closed
            relay.kill()
        thread.join(20)
