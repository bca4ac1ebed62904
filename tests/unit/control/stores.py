"""A queue that is only looked at, for the tests of what looks at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from relay.mail.envelope import NULL_SENDER, Address, Client, Envelope, Message, QueueId, Recipient, RecipientId
from relay.mail.names import Domain
from relay.queue.store import (
    EntryState,
    Head,
    Lease,
    LeaseToken,
    NewMessage,
    PendingRecipient,
    QueueCounts,
    QueueEntry,
    Settlement,
    StoreUnavailable,
)

NOW = datetime(2026, 11, 22, 5, 32, 5, tzinfo=UTC)


def pending(
    number: int, *, to: str = "", state: EntryState = EntryState.DEFERRED, reason: str = ""
) -> PendingRecipient:
    text = to or f"user{number}@good.example"
    return PendingRecipient(
        recipient=Recipient(id=RecipientId(number), address=Address(text, Domain.parse(text.rpartition("@")[2]))),
        destination="good.example",
        state=state,
        reason=reason,
        next_attempt=NOW + timedelta(minutes=5),
        attempts=1,
    )


def entry(
    queue_id: str, *recipients: PendingRecipient, sender: str = "a@b.example", size: int = 1234, at: datetime = NOW
) -> QueueEntry:
    envelope = Envelope(
        sender=Address(sender, Domain.parse(sender.rpartition("@")[2])) if sender else NULL_SENDER,
        recipients=tuple(each.recipient for each in recipients),
        client=Client(address=ip_address("127.0.0.1"), name="localhost"),
    )
    message = Message(queue_id=QueueId(queue_id), envelope=envelope, size=size, arrived_at=at)
    return QueueEntry(message=message, recipients=recipients or (pending(1),))


class FixedQueue:
    """Holds entries; remembers flushes; can be told to be unavailable, or not to answer until told."""

    def __init__(self, *entries: QueueEntry) -> None:
        self.queued = sorted(entries, key=lambda each: each.message.queue_id)
        self.flushed: list[tuple[datetime, tuple[QueueId, ...]]] = []
        self.broken = ""
        self.refusal: StoreUnavailable | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked = asyncio.Event()
        self.counted = 0
        self.closed = False

    async def _ask(self) -> None:
        self.asked.set()
        await self.may_answer.wait()
        if self.broken:
            raise StoreUnavailable(self.broken)

    async def entries(self, *, limit: int, after: QueueId | None = None) -> Sequence[QueueEntry]:
        await self._ask()
        return [each for each in self.queued if after is None or each.message.queue_id > after][:limit]

    async def flush(self, *, now: datetime, ids: Collection[QueueId] = ()) -> int:
        await self._ask()
        self.flushed.append((now, tuple(ids)))
        return len([each for each in self.queued if not ids or each.message.queue_id in ids])

    async def counts(self) -> QueueCounts:
        await self._ask()
        self.counted += 1
        oldest = min((each.message.arrived_at for each in self.queued), default=None)
        return QueueCounts(
            messages=len(self.queued), deliveries={EntryState.DEFERRED: len(self.queued)}, oldest_arrival=oldest
        )

    async def close(self) -> None:
        self.closed = True

    async def put(self, message: NewMessage, body: AsyncIterator[bytes]) -> Message:
        raise NotImplementedError

    async def lease(
        self, *, now: datetime, until: datetime, limit: int, busy: Collection[str] = (), each: int | None = None
    ) -> Sequence[Lease]:
        raise NotImplementedError

    async def lease_at(
        self, rooms: Mapping[str, int], *, now: datetime, until: datetime, recipient_limit: int = 0
    ) -> Sequence[Lease]:
        raise NotImplementedError

    async def heads(self, *, now: datetime, limit: int, busy: Collection[str] = ()) -> Sequence[Head]:
        raise NotImplementedError

    async def next_due(self, *, busy: Collection[str] = ()) -> datetime | None:
        raise NotImplementedError

    async def extend(self, tokens: Collection[LeaseToken], until: datetime) -> None:
        raise NotImplementedError

    async def release(self, tokens: Collection[LeaseToken]) -> None:
        raise NotImplementedError

    async def settle(self, settlement: Settlement) -> bool:
        raise NotImplementedError

    def open_body(self, queue_id: QueueId) -> AsyncIterator[bytes]:
        raise NotImplementedError
