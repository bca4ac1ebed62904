"""What a client sends, taken apart into command lines and contents, with a time limit on every wait.

One buffer stands between the socket and both: what was sent ahead of its turn (pipelined commands, also behind the end of
a content) waits there. A command that comes alone while one is waited for can be answered before anybody is woken for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from enum import Enum
from typing import Final

from relay.smtpd.content import ContentDecoder
from relay.smtpd.watch import Watch

BLOCK_OCTETS = 65536
# RFC 5321 asks for 512, and each extension for more; 2048 is Postfix's line_length_limit.
MAX_LINE_OCTETS = 2048
# Postfix's smtpd_timeout under stress, in seconds.
HURRIED_TIMEOUT = 10.0
# Postfix's smtpd_min_data_rate, octets a second: a content may take the timeout, and what its size needs at this rate.
MIN_DATA_RATE = 500

# So much may be unread here; then the connection is not read from until it is no more than a block.
_UNREAD_OCTETS = 2 * BLOCK_OCTETS

LOST: Final = "lost connection"
TIMED_OUT: Final = "timeout"


class ClientGone(Exception):  # noqa: N818 - it names the state, not the handling
    """The client went away or is silent: ``how`` is ``lost connection`` or ``timeout``.

    ``after`` is where it was, if that says more than the last command.
    """

    def __init__(self, how: str, after: str = "") -> None:
        super().__init__(how)
        self.how = how
        self.after = after


Answers = Callable[[bytes], bool]
"""Answers a command line, given without its CRLF, or says False and leaves it as it is."""


def _nobody_answers(line: bytes) -> bool:
    return False


class Odd(Enum):
    """What there may be in place of a command line."""

    TOO_LONG = "a line longer than MAX_LINE_OCTETS"
    INTERRUPTED = "interrupt() was called"


class Incoming:
    """A client's octets; ``bare_line_end`` tells whether the last command line ended with a bare LF.

    :param watch: the session's, closed by whoever made it.
    :param timeout: seconds that a command line, and each block of a content, may take.
    :param hurried: whether there is no more than ``HURRIED_TIMEOUT`` for that now.
    :param reading: told to read no more from the connection while much is unread here (False), and to go on (True).
    """

    def __init__(
        self,
        watch: Watch,
        *,
        timeout: float,
        hurried: Callable[[], bool] = lambda: False,
        reading: Callable[[bool], None] = lambda go_on: None,
    ) -> None:
        self._timeout = timeout
        self._hurried = hurried
        self._reading = reading
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._waiting: asyncio.Future[None] | None = None
        self._paused = False
        self._watch = watch
        self._in_line = False
        self._answers: Answers = _nobody_answers
        self.ended = False
        self.interrupted = False
        self.bare_line_end = False

    # --- for the connection -----------------------------------------------------------------------------------------

    def feed(self, octets: bytes) -> None:
        """Octets came."""
        if self._in_line and not self._buffer and self._answered(octets):
            return
        self._buffer += octets
        if len(self._buffer) > _UNREAD_OCTETS and not self._paused:
            self._paused = True
            self._reading(False)
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """Nothing more comes; if that is for an error, what nobody has read yet is lost, too."""
        self.ended = True
        if error is not None:
            self._buffer.clear()
        self._wake()

    def _answered(self, octets: bytes) -> bool:
        """Whether it was one command line, whole, with nothing behind it, and was answered."""
        end = len(octets) - 1
        if end > MAX_LINE_OCTETS or octets.find(b"\n") != end or not octets.endswith(b"\r\n") or self.interrupted:
            return False
        self.bare_line_end = False
        if not self._answers(octets[:-2]):
            return False
        self._watch.renew(self.timeout)
        return True

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    # --- for the conversation ---------------------------------------------------------------------------------------

    @property
    def has_line(self) -> bool:
        """Whether a command line can be had without waiting."""
        return b"\n" in self._buffer

    async def line(self, answers: Answers = _nobody_answers) -> bytes | Odd:
        """The next command line, without its end, which is LF with or without CR before it.

        :param answers: is offered lines that come alone; those that it answers are not given, and the time for the next begins.
        :raises ClientGone: lost, or no whole line came in time.
        """
        if self.has_line:
            return await self._whole_line()
        self._in_line, self._answers = True, answers
        try:
            with self._watch.within(self.timeout):
                return await self._whole_line()
        except TimeoutError:
            if self.interrupted:
                return Odd.INTERRUPTED
            raise ClientGone(TIMED_OUT) from None
        finally:
            self._in_line, self._answers = False, _nobody_answers

    async def _whole_line(self) -> bytes | Odd:
        too_long = False
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_LINE_OCTETS:
                too_long = True
                self.clear()
            await self._more()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._shrunk()
        self.bare_line_end = not line.endswith(b"\r")
        return Odd.TOO_LONG if too_long or end > MAX_LINE_OCTETS else line.removesuffix(b"\r")

    def interrupt(self) -> None:
        """Let a waiting ``line`` return now; ``interrupted`` tells who was not waiting."""
        self.interrupted = True
        if self._in_line:
            self._watch.shorten(0.0)

    def hurry(self) -> None:
        """Give a waiting ``line`` no more than ``HURRIED_TIMEOUT`` from now on."""
        if self._in_line:
            self._watch.shorten(HURRIED_TIMEOUT)

    @property
    def early(self) -> bytes:
        """The beginning of what was sent ahead of its turn, as far as it was read; it stays in its place."""
        return bytes(self._buffer[:MAX_LINE_OCTETS])

    async def look(self) -> None:
        """Read what has already come, without waiting for more."""
        for _ in range(2):  # the loop looks at the connection meanwhile, the standard library's after what was ready
            await asyncio.sleep(0)

    def clear(self) -> bool:
        """Forget what was sent ahead; returns whether there was anything."""
        anything = bool(self._buffer)
        self._buffer.clear()
        self._shrunk()
        return anything

    def content(self, *, stuffed_after_lf: bool = False) -> Content:
        """The content that follows the reply 354; nothing else may be read before its end."""
        return Content(self, stuffed_after_lf=stuffed_after_lf)

    def octets(self, count: int) -> Octets:
        """The octets that follow a BDAT command; nothing else may be read before their end."""
        return Octets(self, count)

    async def block(self, timeout: float, most: int = BLOCK_OCTETS) -> bytes:
        """What is there or comes next.

        :param timeout: seconds.
        :param most: octets, at least 1; the rest stays in its place.
        """
        if not self._buffer:
            try:
                with self._watch.within(min(timeout, self.timeout)):
                    await self._more()
            except TimeoutError:
                raise ClientGone(TIMED_OUT) from None
        with memoryview(self._buffer) as buffered:
            block = bytes(buffered[:most])
        del self._buffer[:most]
        self._shrunk()
        return block

    def push_back(self, octets: bytes) -> None:
        """Put back what turned out to come after a content."""
        self._buffer[:0] = octets

    @property
    def timeout(self) -> float:
        """Seconds that a client has for a line or a block."""
        return min(self._timeout, HURRIED_TIMEOUT) if self._hurried() else self._timeout

    async def _more(self) -> None:
        """Have more in the buffer than there is."""
        before = len(self._buffer)
        while len(self._buffer) <= before:
            if self.ended:
                raise ClientGone(LOST)
            self._waiting = self._loop.create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None

    def _shrunk(self) -> None:
        if self._paused and len(self._buffer) <= BLOCK_OCTETS:
            self._paused = False
            self._reading(True)


class _Paced:
    """Blocks of a client that must not be slower on the whole than ``MIN_DATA_RATE``.

    Only waiting for the client counts, never the time that the store takes. ``received`` counts the octets that came.
    """

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self._time = asyncio.get_running_loop().time
        self._waited = 0.0
        self.received = 0

    @property
    def _allowed(self) -> float:
        return self._incoming.timeout + self.received / MIN_DATA_RATE - self._waited

    async def _block(self, most: int = BLOCK_OCTETS) -> bytes:
        began = self._time()
        block = await self._incoming.block(self._allowed, most)
        self._waited += self._time() - began
        self.received += len(block)
        return block


class Content(_Paced):
    """One content as decoded chunks: an iterator that whoever stores the message pulls at its own pace.

    It goes on where it was left, so that a content refused half-way can be read to its end.
    :raises ClientGone: from ``__anext__``: lost, silent, or slower than ``MIN_DATA_RATE`` on the whole.
    """

    def __init__(self, incoming: Incoming, *, stuffed_after_lf: bool = False) -> None:
        super().__init__(incoming)
        self._decoder = ContentDecoder(stuffed_after_lf=stuffed_after_lf)
        self._ended = False

    @property
    def bare(self) -> bool:
        """Whether a bare CR or LF came so far."""
        return self._decoder.bare

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    @property
    def ended(self) -> bool:
        """Whether all of it was read."""
        return self._ended

    async def octets(self) -> bytes:
        """The next block as it came, which is to be decoded before another one is asked for."""
        return await self._block()

    def decoded(self, octets: bytes) -> bytes:
        """What a block comes to, possibly nothing."""
        chunk = self._decoder.feed(octets)
        self._ended = self._decoder.finished
        if self._ended:
            self._incoming.push_back(self._decoder.leftover)
        return chunk

    async def __anext__(self) -> bytes:
        while not self._ended:
            if chunk := self.decoded(await self.octets()):
                return chunk
        raise StopAsyncIteration

    async def drain(self) -> None:
        """Read to the end and drop what comes."""
        async for _ in self:
            pass


class Octets(_Paced):
    """The octets of one BDAT chunk, as they come."""

    def __init__(self, incoming: Incoming, count: int) -> None:
        super().__init__(incoming)
        self._left = count

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        block = await self._block(min(self._left, BLOCK_OCTETS))
        self._left -= len(block)
        return block

    async def drain(self) -> None:
        """Read to the end and drop what comes."""
        async for _ in self:
            pass
