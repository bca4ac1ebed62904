"""A queue that is only looked at, for the tests of what looks at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from relay.log.events import Observer
from relay.mail.envelope import NULL_SENDER, Address, Client, Envelope, Message, QueueId, Recipient, RecipientId, Sender
from relay.mail.names import Domain
from relay.queue.acts import Act, Acted, Found, GroupBy, HoldRule, Tallied
from relay.queue.administration import Administration
from relay.queue.backup import BackedUp, BackupFailed
from relay.queue.filter import Facts, Filter, matches
from relay.queue.schedule import RetrySchedule
from relay.queue.settle import Settler
from relay.queue.store import (
    NOBODY,
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
    Taker,
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


class FixedActs:
    """What administrators do to a ``FixedQueue``: remembered, and nothing changes."""

    def __init__(self, queue: FixedQueue) -> None:
        self._queue = queue
        self.acted: list[tuple[Act, tuple[QueueId, ...]]] = []
        self.rules: list[HoldRule] = []

    async def find(self, where: Filter, *, after: QueueId | None = None, looking: int) -> Found:
        page = await self._queue.entries(limit=looking, after=after)
        meant = [each for each in map(partial(_meant, where), page) if each.recipients]
        return Found(
            ids=tuple(each.message.queue_id for each in meant),
            recipients=sum(len(each.recipients) for each in meant),
            looked=len(page),
            last=page[-1].message.queue_id if len(page) == looking else None,
        )

    async def tally(self, where: Filter, by: GroupBy, *, after: QueueId | None = None, looking: int) -> Tallied:
        raise NotImplementedError

    async def entries(self, ids: Collection[QueueId], where: Filter) -> Sequence[QueueEntry]:
        page = [each for each in await self._queue.entries(limit=1000) if each.message.queue_id in ids]
        return [each for each in map(partial(_meant, where), page) if each.recipients]

    async def act(self, act: Act, where: Filter, ids: Collection[QueueId]) -> Acted:
        self.acted.append((act, tuple(ids)))
        return Acted(
            recipients={each.message.queue_id: len(each.recipients) for each in await self.entries(ids, where)},
            busy=0,
        )

    async def take(self, where: Filter, ids: Collection[QueueId], *, until: datetime) -> Sequence[Lease]:
        raise NotImplementedError

    async def hold_rules(self) -> Sequence[HoldRule]:
        return self.rules

    async def add_hold_rule(self, *, filter_text: str, reason: str, by: str) -> HoldRule:
        self.rules.append(HoldRule(number=len(self.rules) + 1, filter=filter_text, reason=reason, by=by, at=NOW))
        return self.rules[-1]

    async def remove_hold_rule(self, number: int) -> bool:
        there = [rule for rule in self.rules if rule.number == number]
        self.rules = [rule for rule in self.rules if rule.number != number]
        return bool(there)


def _meant(where: Filter, entry: QueueEntry) -> QueueEntry:
    message = entry.message
    sender = message.envelope.sender
    return replace(
        entry,
        recipients=tuple(
            each
            for each in entry.recipients
            if matches(
                where,
                Facts(
                    queue_id=message.queue_id,
                    sender=str(sender),
                    sender_domain=str(sender.domain) if isinstance(sender, Address) else "",
                    recipient=each.recipient.address.text,
                    domain=str(each.recipient.address.domain),
                    destination=each.destination,
                    arrived_at=message.arrived_at,
                    size=message.size,
                    place=each.state,
                    status=each.status,
                    reason=each.reason,
                ),
                NOW,
            )
        ),
    )


def administration(
    queue: FixedQueue, *, wake: Callable[[], None], observe: Observer = lambda event: None
) -> Administration:
    """What queue commands need, on a queue that nothing changes."""
    settler = Settler(
        store=queue,
        schedule=RetrySchedule(),
        hostname="relay.example",
        clock=lambda: NOW,
        new_id=lambda: QueueId("R1"),
        destination_of=_by_domain,
        observe=observe,
    )
    return Administration(
        store=queue,
        acts=queue.acts,
        settler=settler,
        destination_of=_by_domain,
        clock=lambda: NOW,
        observe=observe,
        wake=wake,
        backup=_no_backup,
    )


async def _no_backup(target: Path) -> AsyncGenerator[BackedUp, None]:
    """Goes as far as one message, for the tests of what asks for it."""
    if target.name == "refused":
        raise BackupFailed(f"{target} is there already")
    yield BackedUp(0, 0, 10)
    yield BackedUp(1, 0, 20)


def _by_domain(address: Address, sender: Sender) -> str:
    del sender
    return str(address.domain)


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
        self.acts = FixedActs(self)

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

    async def put(self, message: NewMessage, body: AsyncIterator[bytes], taker: Taker = NOBODY) -> Message:
        raise NotImplementedError

    async def lease_at(
        self, rooms: Mapping[str, int], *, now: datetime, until: datetime, recipient_limit: int = 0
    ) -> Sequence[Lease]:
        raise NotImplementedError

    async def heads(self, *, now: datetime, limit: int, busy: Collection[str] = ()) -> Sequence[Head]:
        raise NotImplementedError

    async def extend(self, tokens: Collection[LeaseToken], until: datetime) -> None:
        raise NotImplementedError

    async def release(self, tokens: Collection[LeaseToken]) -> None:
        raise NotImplementedError

    async def settle(self, settlement: Settlement) -> bool:
        raise NotImplementedError

    def open_body(self, queue_id: QueueId) -> AsyncIterator[bytes]:
        raise NotImplementedError
