"""Large contents take turns on their way in and out, so that small mail beside them need not wait.

What a large content needs of the event loop comes in pieces of some tenths of a millisecond, and a hundred of them in one pass
are what everybody else waits for. So only a few pieces are worked on in a pass. And a small message on its way into the queue
needs the interpreter in another thread, again and again for a moment: large contents leave it alone meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

LARGE_OCTETS: Final = 64 * 1024
"""What comes behind so much of a content waits for its turn."""
# Pieces at a time: of a content coming in one is being decoded while one is being written.
_WIDTH = 2
# Seconds that a piece lets small messages go first: enough for a commit, and a large message goes on all the same.
_COURTESY = 0.005


class Lanes:
    """``async with lanes:`` is one turn; first come, first served.

    :param width: turns at a time.
    :param courtesy: seconds that a turn waits at most while small messages are being committed.
    """

    def __init__(self, *, width: int = _WIDTH, courtesy: float = _COURTESY) -> None:
        self._room = asyncio.Semaphore(width)
        self._courtesy = courtesy
        self._small = 0
        self._calm = asyncio.Event()
        self._calm.set()

    async def __aenter__(self) -> None:
        await self._room.acquire()
        waited = not self._small
        try:
            if not waited:
                await self._wait_for_small()
                waited = True
        finally:
            if not waited:  # cancelled
                self._room.release()

    async def __aexit__(self, *_: object) -> None:
        self._room.release()

    async def _wait_for_small(self) -> None:
        try:
            async with asyncio.timeout(self._courtesy):
                await self._calm.wait()
        except TimeoutError:
            pass  # there are always some: large messages are not to wait for ever

    @contextmanager
    def small_first(self) -> Iterator[None]:
        """A small message is being committed for the length of the context."""
        self._small += 1
        self._calm.clear()
        try:
            yield
        finally:
            self._small -= 1
            if not self._small:
                self._calm.set()

    async def paced(self, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """A content whose pieces take turns; each turn is over when its piece is given, so that no host is waited for in it."""
        passed = 0
        async for piece in content:
            passed += len(piece)
            if passed > LARGE_OCTETS:
                async with self:
                    pass
            yield piece
