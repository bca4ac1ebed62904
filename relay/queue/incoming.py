"""A body on its way in: in memory while it may stay in its row, in a spool file from then on."""

from __future__ import annotations

from collections.abc import Callable

from relay.mail.envelope import QueueId
from relay.queue.rows import Body, InFile, InRow
from relay.queue.spool import Spool, SpoolFile
from relay.queue.store import StoreUnavailable

MAX_IN_ROW = 64 * 1024
# So much of a large body is written between two looks at the room on the disk.
_UNSEEN = 1024 * 1024


class IncomingBody:
    """Takes chunks, then says where they are.

    :param refusal: why nothing more may be written now; None while there is room.
    """

    def __init__(self, spool: Spool, queue_id: QueueId, refusal: Callable[[], StoreUnavailable | None]) -> None:
        self._spool = spool
        self._queue_id = queue_id
        self._refusal = refusal
        self._small = bytearray()
        self._file: SpoolFile | None = None
        self._unseen = 0
        self.size = 0
        self.eight_bit = False

    async def take(self, chunk: bytes) -> None:
        """Add octets.

        :raises StoreUnavailable: if they cannot be written, or there is no room for more.
        """
        self.size += len(chunk)
        self.eight_bit = self.eight_bit or not chunk.isascii()
        if self._file is None and self.size <= MAX_IN_ROW:
            self._small += chunk
            return
        self._unseen += len(chunk)
        if self._unseen > _UNSEEN:
            self._unseen = 0
            refusal = self._refusal()
            if refusal is not None:
                raise refusal
        if self._file is None:
            self._file = self._spool.create(self._queue_id)
            await self._file.write(bytes(self._small))
            self._small.clear()
        await self._file.write(chunk)

    async def finish(self) -> Body:
        """All was taken: have a large body on the disk under its name, and say where the body is."""
        if self._file is None:
            return InRow(bytes(self._small))
        await self._file.keep()
        return InFile(self._file.name)

    async def discard(self) -> None:
        """Keep nothing."""
        if self._file is not None:
            await self._file.discard()
