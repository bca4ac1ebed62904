"""Large contents take turns on their way in and out, so that small mail beside them need not wait.

What a large content needs of the event loop comes in pieces of some tenths of a millisecond, and a hundred of them in one pass
are what everybody else waits for. So one turn begins in a pass, whatever the number of those that wait for one: in between, all
that is small comes by. While small mail is about they leave it a part of the time, too: what comes upon a loop that is busy all
the time waits for whatever else has come. And a small message on its way into the queue needs the interpreter in another thread,
again and again for a moment: large contents leave it alone meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Final

LARGE_OCTETS: Final = 64 * 1024
"""What comes behind so much of a content waits for its turn."""
# Pieces at a time: of a content coming in one is being decoded while one is being written.
_WIDTH = 2
# Seconds that turns let small messages go first: enough for a commit, and large messages go on all the same.
_COURTESY = 0.005
# Of so many seconds large contents may use all, and then leave the loop alone for so many, if a small message came of late.
_SPELL = 0.001
_REST = 0.001
_OF_LATE = 0.25


class Lanes:
    """``async with lanes:`` is one turn; first come, first served, and no two begin in one pass of the loop.

    :param width: turns at a time.
    :param courtesy: seconds that turns wait at most while small messages are committed; then as many begin as there are lanes.
    :param clock: seconds that never go back.
    """

    def __init__(
        self, *, width: int = _WIDTH, courtesy: float = _COURTESY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._width = self._free = width
        self._courtesy = courtesy
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        # The call that begins the next turn; a timer while small messages go first.
        self._next: asyncio.Handle | None = None
        self._small = 0
        self._small_at = -_OF_LATE
        self._overdue = 0
        self._courteous = False
        self._spell_began = clock()

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
        """Begin the next turn, or wait until it may begin."""
        loop = asyncio.get_running_loop()
        self._courteous = bool(self._small and not self._overdue)
        if self._courteous:
            self._next = loop.call_later(self._courtesy, self._go_on_anyway)
        elif self._is_to_rest:
            self._next = loop.call_later(_REST, self._go_on_rested)
        else:
            self._begin()

    def _go_on_anyway(self) -> None:
        """There are always some small ones: large messages are not to wait for ever."""
        self._overdue = self._width
        self._spell_began = self._clock()
        self._begin()

    @property
    def _is_to_rest(self) -> bool:
        now = self._clock()
        return now - self._spell_began >= _SPELL and now - self._small_at < _OF_LATE

    def _go_on_rested(self) -> None:
        self._spell_began = self._clock()
        self._go_on()

    def _begin(self) -> None:
        """Let the first of those that still wait have its turn."""
        self._next = None
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # cancelled
                turn.set_result(None)
                self._free -= 1
                self._overdue = max(0, self._overdue - 1)
                break
        self._plan()

    @contextmanager
    def small_first(self) -> Iterator[None]:
        """A small message is being committed for the length of the context."""
        self._small += 1
        self._small_at = self._clock()
        try:
            yield
        finally:
            self._small -= 1
            if not self._small and self._courteous and self._next is not None:
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
