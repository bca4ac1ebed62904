"""What a client sends, taken apart into command lines and contents, with a time limit on every wait.

One buffer stands between the socket and both: what was sent ahead of its turn (pipelined commands, also behind the end of
a content) waits there.
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


class Odd(Enum):
    """What there may be in place of a command line."""

    TOO_LONG = "a line longer than MAX_LINE_OCTETS"
    INTERRUPTED = "interrupt() was called"


class Incoming:
    """A client's octets; ``bare_line_end`` tells whether the last command line ended with a bare LF.

    :param reader: of the connection; only its ``read`` is used.
    :param timeout: seconds that a command line, and each block of a content, may take.
    :param hurried: whether there is no more than ``HURRIED_TIMEOUT`` for that now.
    :param heard: whether the client has said anything yet.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        *,
        timeout: float,
        hurried: Callable[[], bool] = lambda: False,
        heard: Callable[[], bool] = lambda: True,
    ) -> None:
        self._reader = reader
        self._timeout = timeout
        self._hurried = hurried
        self._heard = heard
        self._buffer = bytearray()
        self._watch = Watch()
        self._in_line = False
        self.interrupted = False
        self.bare_line_end = False

    @property
    def has_line(self) -> bool:
        """Whether a command line can be had without waiting."""
        return b"\n" in self._buffer

    async def line(self) -> bytes | Odd:
        """The next command line, without its end, which is LF with or without CR before it.

        :raises ClientGone: lost, or no whole line came in time.
        """
        if self.has_line:
            return await self._whole_line()
        self._in_line = True
        try:
            with self._watch.within(self.timeout):
                return await self._whole_line()
        except TimeoutError:
            if self.interrupted:
                return Odd.INTERRUPTED
            raise ClientGone(TIMED_OUT) from None
        finally:
            self._in_line = False

    async def _whole_line(self) -> bytes | Odd:
        too_long = False
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_LINE_OCTETS:
                too_long = True
                self._buffer.clear()
            self._buffer += await self._read()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
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

    def close(self) -> None:
        """Nothing is read any more."""
        self._watch.close()

    @property
    def early(self) -> bytes:
        """The beginning of what was sent ahead of its turn, as far as it was read; it stays in its place."""
        return bytes(self._buffer[:MAX_LINE_OCTETS])

    async def look(self) -> None:
        """Read what has already come, without waiting for more."""
        for _ in range(2):  # the loop looks at the connection meanwhile, the standard library's after what was ready
            await asyncio.sleep(0)
        if not self._heard():
            return
        try:
            with self._watch.within(0.0):
                self._buffer += await self._read()
        except (TimeoutError, ClientGone):  # nothing; who is gone will be missed when it is waited for
            pass

    def clear(self) -> bool:
        """Forget what was sent ahead; returns whether there was anything."""
        anything = bool(self._buffer)
        self._buffer.clear()
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
                    octets = await self._read()
            except TimeoutError:
                raise ClientGone(TIMED_OUT) from None
            if len(octets) <= most:
                return octets
            self._buffer += octets
        with memoryview(self._buffer) as buffered:
            block = bytes(buffered[:most])
        del self._buffer[:most]
        return block

    def push_back(self, octets: bytes) -> None:
        """Put back what turned out to come after a content."""
        self._buffer[:0] = octets

    @property
    def timeout(self) -> float:
        """Seconds that a client has for a line or a block."""
        return min(self._timeout, HURRIED_TIMEOUT) if self._hurried() else self._timeout

    async def _read(self) -> bytes:
        try:
            octets = await self._reader.read(BLOCK_OCTETS)
        except OSError:  # reset, or broken TLS; also a ETIMEDOUT of the network, which is no silence of the client's
            raise ClientGone(LOST) from None
        if not octets:
            raise ClientGone(LOST)
        return octets


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
