"""The contents of a session: DATA, which is one command, and BDAT, which spreads a message over several (RFC 3030).

Of a content in chunks a task of its own accepts it, so that whoever stores it pulls it as one stream while the session goes on
answering commands between the chunks. Whatever becomes of a chunk, its octets are read: what follows is a command again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, nullcontext
from enum import Enum

from relay.lanes import LARGE_OCTETS, Lanes
from relay.log.events import Observer, Program, Warned
from relay.mail.envelope import Envelope
from relay.mail.reply import Reply
from relay.smtpd import replies
from relay.smtpd.budget import Budget, OverBudget, Share
from relay.smtpd.chunking import Chunk, ChunkDecoder, parse_bdat
from relay.smtpd.commands import quoted
from relay.smtpd.content import BareLineEnds
from relay.smtpd.dialogue import Dialogue
from relay.smtpd.incoming import LOST, ClientGone, Incoming, Octets
from relay.smtpd.intake import Refused
from relay.smtpd.options import SmtpdOptions

Accept = Callable[[Envelope, AsyncIterator[bytes]], Awaitable[Reply]]
"""``Intake.accept``: what becomes of a message. Never raises but what the content raises."""


class _Mark(Enum):
    END = "the content is whole"
    GONE = "the rest of the content will not come"


class Reception:
    """Takes the contents of one session, each within its share of the budget.

    :param lanes: of the whole relay; a large content takes a turn for each of its blocks.
    :param accept: takes each message.
    """

    def __init__(
        self,
        incoming: Incoming,
        dialogue: Dialogue,
        *,
        options: SmtpdOptions,
        budget: Budget,
        lanes: Lanes,
        accept: Accept,
        observe: Observer,
    ) -> None:
        self._incoming = incoming
        self._dialogue = dialogue
        self._options = options
        self._budget = budget
        self._lanes = lanes
        self._accept = accept
        self._observe = observe
        self._in_chunks: _MessageInChunks | None = None
        self._discarding = False
        self.had_bare = False

    async def data(self, argument: str, start: Callable[[], Awaitable[None]]) -> Reply:
        """Carry DATA out.

        :param start: tells the client to begin (354).
        :raises ClientGone: in the middle of the content; nothing of it is kept.
        """
        envelope = self._dialogue.begin_data(argument)
        if isinstance(envelope, Reply):
            return envelope
        share = self._budget.open()
        try:
            try:
                share.cover(0)
            except OverBudget:
                return replies.NO_SPACE
            await start()
            return await self._whole_content(envelope, share)
        finally:
            share.close()

    async def _whole_content(self, envelope: Envelope, share: Share) -> Reply:
        content = self._incoming.content(stuffed_after_lf=self._options.forbid_bare_newline is BareLineEnds.NO)

        async def watched() -> AsyncGenerator[bytes, None]:
            while not content.ended:
                octets = await content.octets()  # before the lane, so that nobody waits for a client in one
                async with self._lane(content.received):
                    block = content.decoded(octets)
                    self._inspect(content.bare, share, content.received)
                    if block:
                        yield block  # the lane is left when the next one is asked for
            await self._let_commit(committing, content.received)

        try:
            async with AsyncExitStack() as committing, aclosing(watched()) as blocks:
                reply = await self._accept(envelope, blocks)
            await content.drain()
        except ClientGone as gone:
            raise ClientGone(gone.how, f"DATA ({content.received} bytes)") from None
        self._dialogue.end_transaction()
        return reply

    def _lane(self, known: int) -> AbstractAsyncContextManager[object]:
        """A turn, for the next block of a content that is large or says so.

        :param known: octets of it that came or will come, as far as that is known.
        """
        is_large = max(known, self._dialogue.declared_octets) >= LARGE_OCTETS
        return self._lanes if is_large else nullcontext()

    async def _let_commit(self, committing: AsyncExitStack, received: int) -> None:
        """For a whole content: large ones that came side by side end all at once, and are committed in turns too."""
        if received < LARGE_OCTETS:
            committing.enter_context(self._lanes.small_first())
        else:
            await committing.enter_async_context(self._lanes)

    def _inspect(self, bare: bool, share: Share, received: int) -> None:
        """Refuse a content for what came so far.

        :raises Refused: with the reply.
        """
        self.had_bare = self.had_bare or (bare and self._options.forbid_bare_newline is not BareLineEnds.NO)
        if bare and self._options.forbid_bare_newline is BareLineEnds.REJECT:
            raise Refused(replies.bare_line_end(str(self._options.hostname)))
        try:
            share.cover(received)
        except OverBudget:
            raise Refused(replies.NO_SPACE) from None

    # --- chunks -----------------------------------------------------------------------------------------------------

    async def bdat(self, argument: str) -> Reply:
        """Carry one BDAT out, its octets included.

        :raises ClientGone: in the middle of them.
        """
        chunk = parse_bdat(argument)
        if chunk is None:
            text = (
                f"NOQUEUE: malformed BDAT command syntax from {self._dialogue.client}: BDAT {quoted(argument.encode())}"
            )
            self._observe(Warned(Program.SMTPD, text))
            return replies.BDAT_SYNTAX
        octets = self._incoming.octets(chunk.octets)
        before = self._received
        limit = self._options.message_size_limit
        if limit and before + chunk.octets > limit + limit // 2:
            return replies.BDAT_BEYOND_SKIPPING  # and the session ends: nobody reads on for so long
        begun = self._begun(chunk)
        try:
            reply = begun if isinstance(begun, Reply) else await self._fed(begun, chunk, octets)
            await octets.drain()
        except ClientGone as gone:
            raise ClientGone(gone.how, f"BDAT ({before + octets.received} bytes)") from None
        if chunk.last or reply.code >= 400:
            await self.abandon()
            self._dialogue.end_transaction()
            self._discarding = not chunk.last
        return reply

    @property
    def _received(self) -> int:
        return self._in_chunks.received if self._in_chunks is not None else 0

    async def _fed(self, message: _MessageInChunks, chunk: Chunk, octets: Octets) -> Reply:
        refused = await message.feed(octets, chunk.octets)
        if refused is not None or not chunk.last:
            return refused or replies.chunk_taken(chunk.octets)
        async with AsyncExitStack() as committing:
            await self._let_commit(committing, message.received)
            reply = await message.end()
        return replies.queued_in_chunks(reply, message.received) if reply.code < 400 else reply

    def _begun(self, chunk: Chunk) -> _MessageInChunks | Reply:
        """The message that a chunk belongs to, or why there is none."""
        if chunk.is_null:
            return replies.NULL_BDAT
        if self._discarding:
            return replies.chunk_discarded(chunk.octets)
        if 0 < self._options.message_size_limit < self._received + chunk.octets:
            return replies.CHUNK_TOO_BIG
        if self._in_chunks is None:
            envelope = self._dialogue.begin_chunks()
            if isinstance(envelope, Reply):
                return envelope
            self._in_chunks = _MessageInChunks(self._budget.open(), self._inspect, self._lane)
            self._in_chunks.begin(self._accept, envelope)
        return self._in_chunks

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to ``abandon``."""
        return self._in_chunks is None and not self._discarding

    async def abandon(self) -> None:
        """Forget a message of which chunks are missing, and that chunks are to be discarded; nothing of it is kept."""
        message, self._in_chunks = self._in_chunks, None
        self._discarding = False
        if message is not None:
            await message.abandon()


class _MessageInChunks:
    """A message on its way from the chunks of a session to the task that accepts it, one block at a time."""

    def __init__(
        self,
        share: Share,
        inspect: Callable[[bool, Share, int], None],
        lane: Callable[[int], AbstractAsyncContextManager[object]],
    ) -> None:
        self._share = share
        self._inspect = inspect
        self._lane = lane
        self._decoder = ChunkDecoder()
        self._blocks: asyncio.Queue[bytes | _Mark] = asyncio.Queue(maxsize=1)
        self._task: asyncio.Task[Reply]
        self.received = 0

    def begin(self, accept: Accept, envelope: Envelope) -> None:
        """Start the task."""
        self._task = asyncio.ensure_future(accept(envelope, self._content()))

    async def _content(self) -> AsyncIterator[bytes]:
        while (block := await self._blocks.get()) is not _Mark.END:
            if isinstance(block, _Mark):
                raise ClientGone(LOST)
            self._inspect(self._decoder.bare, self._share, self.received)
            if block:
                yield block
        self._inspect(self._decoder.bare, self._share, self.received)

    async def feed(self, octets: AsyncIterator[bytes], count: int) -> Reply | None:
        """Hand on the octets of a chunk, so many; returns what the message was refused with, if it was."""
        known = self.received + count
        async for block in octets:
            self.received += len(block)
            async with self._lane(known):
                taken = await self._hand_on(self._decoder.feed(block))
            if not taken:
                return await self._task
        return await self._task if self._task.done() else None

    async def end(self) -> Reply:
        """The last chunk is over: what becomes of the message."""
        if await self._hand_on(self._decoder.end()):
            await self._hand_on(_Mark.END)
        return await self._task

    async def _hand_on(self, block: bytes | _Mark) -> bool:
        """Give the task a block when it has taken the one before; False if it will not take any more."""
        if self._blocks.full() and not self._task.done():
            putting = asyncio.ensure_future(self._blocks.put(block))
            try:
                await asyncio.wait({putting, self._task}, return_when=asyncio.FIRST_COMPLETED)
                return putting.done()
            finally:
                putting.cancel()  # does nothing to what is done
        if self._task.done():
            return False
        self._blocks.put_nowait(block)
        return True

    async def abandon(self) -> None:
        """End the task if it waits for more, and wait until it has."""
        while not self._blocks.empty():
            self._blocks.get_nowait()
        if not self._task.done():
            self._blocks.put_nowait(_Mark.GONE)
        try:
            await self._task
        except ClientGone:
            pass
        finally:
            self._share.close()
