"""Large contents take turns on their way in and out, so that small mail beside them need not wait.

What a large content needs of the event loop comes in pieces of some tenths of a millisecond, and a hundred of them in one pass
are what everybody else waits for. So one turn begins in a pass, whatever the number of those that wait for one: in between, all
that is small comes by. And a small message on its way into the queue needs the interpreter in another thread, again and again
for a moment: large contents leave it alone meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
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
    """``async with lanes:`` is one turn; first come, first served, and no two begin in one pass of the loop.

    :param width: turns at a time.
    :param courtesy: seconds that a turn waits at most while small messages are being committed.
    """

    def __init__(self, *, width: int = _WIDTH, courtesy: float = _COURTESY) -> None:
        self._free = width
        self._courtesy = courtesy
        self._small = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        # The call that begins the next turn; a timer while small messages go first.
        self._next: asyncio.Handle | None = None

    async def __aenter__(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._plan()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it had begun
                self._end()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        self._free += 1
        self._plan()

    def _plan(self) -> None:
        if self._next is None and self._free and self._waiting:
            self._next = asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._small:
            self._next = asyncio.get_running_loop().call_later(self._courtesy, self._begin)
        else:
            self._begin()

    def _begin(self) -> None:
        """Let the first of those that still wait have its turn."""
        self._next = None
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # cancelled
                turn.set_result(None)
                self._free -= 1
                break
        self._plan()

    @contextmanager
    def small_first(self) -> Iterator[None]:
        """A small message is being committed for the length of the context."""
        self._small += 1
        try:
            yield
        finally:
            self._small -= 1
            if not self._small and self._next is not None:
                self._next.cancel()
                self._next = None
                self._plan()

    async def paced(self, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """A content whose pieces take turns; each turn is over when its piece is given, so that no host is waited for in it."""
        passed = 0
        async for piece in content:
            passed += len(piece)
            if passed > LARGE_OCTETS:
                async with self:
                    pass
            yield piece
