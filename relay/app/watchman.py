"""A worker that is up and answers nobody is ended, so that another takes its place: its loop hangs, or the queue's threads do.

What it had accepted is in its queue, and what it was delivering is delivered again, as after any crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

# Seconds between an answer and the next question.
ASK_SECONDS = 5.0
# How long an answer is waited for, in pieces, each waited for by itself: time in which the parent was stopped too (a
# machine that was suspended, a container that was frozen) counts as one piece, however long it was.
PIECES = 30
PIECE_SECONDS = 1.0
# The service manager looks at all of it (WatchdogSec=60s): a worker is replaced before that ends the whole relay.


class Watched(Protocol):
    """A worker as it is seen here."""

    @property
    def ready(self) -> asyncio.Event:
        """Set while it is up."""
        ...

    @property
    def pid(self) -> int:
        """Of its process; 0 where there is none."""
        ...

    def replace(self, reason: str) -> None:
        """End its process at once; another is started."""
        ...


async def keep_watching(worker: Watched, answers: Callable[[], Awaitable[None]]) -> None:
    """Ask it again and again, until cancelled.

    :param answers: returns when it has answered, or is not there.
    """
    while True:
        await worker.ready.wait()
        asked = worker.pid
        if not await _in_time(answers) and worker.pid == asked and worker.ready.is_set():
            worker.replace(f"does not answer since {PIECES * PIECE_SECONDS:g} s")
        await asyncio.sleep(ASK_SECONDS)


async def _in_time(answers: Callable[[], Awaitable[None]]) -> bool:
    answering = asyncio.ensure_future(answers())
    try:
        for _ in range(PIECES):
            await asyncio.wait((answering,), timeout=PIECE_SECONDS)
            if answering.done():
                return True
        return False
    finally:
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
