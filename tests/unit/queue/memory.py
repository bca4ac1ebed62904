"""The queue's contract as a model in memory: an engine that keeps nothing, to hold the real ones against."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count

from relay.mail.envelope import Message, QueueId, RecipientId
from relay.outcome.result import Deferred
from relay.queue.store import (
    EntryState,
    Head,
    Lease,
    LeaseLost,
    LeaseToken,
    NewMessage,
    PendingRecipient,
    QueueCounts,
    QueueEntry,
    Settlement,
    StoreUnavailable,
)


@dataclass(slots=True)
class _Delivery:
    destination: str
    pending: list[RecipientId]
    next_attempt: datetime
    serial: int
    attempts: int = 0
    token: LeaseToken | None = None
    until: datetime | None = None
    began: datetime | None = None

    def is_free(self, now: datetime) -> bool:
        return self.until is None or self.until <= now

    def state(self, now: datetime) -> EntryState:
        if not self.is_free(now):
            return EntryState.ACTIVE
        return EntryState.DEFERRED if self.attempts else EntryState.INCOMING


@dataclass(slots=True)
class _Stored:
    message: Message
    body: bytes
    deliveries: list[_Delivery]
    reasons: dict[RecipientId, str] = field(default_factory=dict)
    delay_told: set[RecipientId] = field(default_factory=set)


class MemoryStore:
    """``QueueStore`` without a disk."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._stored: dict[QueueId, _Stored] = {}
        self._tokens = count(1)
        self._serials = count(1)
        self._closed = False

    @property
    def refusal(self) -> StoreUnavailable | None:
        return StoreUnavailable("closed") if self._closed else None

    async def put(self, message: NewMessage, body: AsyncIterator[bytes]) -> Message:
        content = b"".join([chunk async for chunk in body])
        self._check()
        return self._insert(message, content)

    def _insert(self, new: NewMessage, content: bytes) -> Message:
        if new.queue_id in self._stored:
            raise ValueError(new.queue_id)
        message = Message(
            queue_id=new.queue_id,
            envelope=new.envelope,
            size=len(content),
            arrived_at=new.arrived_at,
            eight_bit=not content.isascii(),
        )
        groups: dict[str, list[RecipientId]] = {}
        for recipient in new.envelope.recipients:
            groups.setdefault(new.destinations[recipient.id], []).append(recipient.id)
        deliveries = [_Delivery(name, ids, new.arrived_at, next(self._serials)) for name, ids in groups.items()]
        self._stored[new.queue_id] = _Stored(message, content, deliveries)
        return message

    async def lease(
        self, *, now: datetime, until: datetime, limit: int, busy: Collection[str] = (), each: int | None = None
    ) -> Sequence[Lease]:
        self._check()
        due = [one for one in self._due(now) if one[1].destination not in busy][:limit]
        taken: Counter[str] = Counter()
        chosen = []
        for stored, delivery in due:
            taken[delivery.destination] += 1
            if each is None or taken[delivery.destination] <= each:
                chosen.append((stored, delivery))
        return [self._take(one, now, until) for one in chosen]

    async def lease_at(
        self, rooms: Mapping[str, int], *, now: datetime, until: datetime, recipient_limit: int = 0
    ) -> Sequence[Lease]:
        self._check()
        chosen = [
            one
            for destination, room in rooms.items()
            for one in [due for due in self._due(now) if due[1].destination == destination][:room]
        ]
        return [self._take(self._split(one, recipient_limit), now, until) for one in chosen]

    def _split(self, one: tuple[_Stored, _Delivery], limit: int) -> tuple[_Stored, _Delivery]:
        stored, delivery = one
        if limit and len(delivery.pending) > limit:
            rest = replace(
                delivery, pending=delivery.pending[limit:], serial=next(self._serials), token=None, until=None
            )
            del delivery.pending[limit:]
            stored.deliveries.append(rest)
        return one

    async def heads(self, *, now: datetime, limit: int, busy: Collection[str] = ()) -> Sequence[Head]:
        self._check()
        first: dict[str, datetime] = {}
        for _, one in self._all():
            if one.is_free(now) and one.destination not in busy:
                first[one.destination] = min(one.next_attempt, first.get(one.destination, one.next_attempt))
        return sorted(Head(due, destination) for destination, due in first.items())[:limit]

    def _due(self, now: datetime) -> list[tuple[_Stored, _Delivery]]:
        due = [
            (stored, delivery)
            for stored, delivery in self._all()
            if delivery.is_free(now) and delivery.next_attempt <= now
        ]
        return sorted(due, key=lambda one: (one[1].next_attempt, one[1].serial))

    def _take(self, one: tuple[_Stored, _Delivery], now: datetime, until: datetime) -> Lease:
        stored, delivery = one
        delivery.token = LeaseToken(str(next(self._tokens)))
        delivery.until = until
        delivery.attempts += 1
        delivery.began = now
        people = stored.message.envelope.recipients
        return Lease(
            token=delivery.token,
            message=stored.message,
            destination=delivery.destination,
            recipients=tuple(one for one in people if one.id in delivery.pending),
            attempts=delivery.attempts - 1,
            leased_at=now,
            due_at=delivery.next_attempt,
            total_recipients=len(people),
            delay_told=frozenset(stored.delay_told & set(delivery.pending)),
        )

    async def next_due(self, *, busy: Collection[str] = ()) -> datetime | None:
        self._check()
        now = self._clock()
        free = (one for _, one in self._all() if one.is_free(now) and one.destination not in busy)
        return min((one.next_attempt for one in free), default=None)

    async def extend(self, tokens: Collection[LeaseToken], until: datetime) -> None:
        self._check()
        for _, delivery in self._all():
            if delivery.token in tokens:
                delivery.until = until

    async def release(self, tokens: Collection[LeaseToken]) -> None:
        self._check()
        for _, delivery in self._all():
            if delivery.token in tokens:
                delivery.token = delivery.until = None
                delivery.attempts -= 1

    async def settle(self, settlement: Settlement) -> bool:
        self._check()
        queue_id = settlement.lease.message.queue_id
        stored = self._stored.get(queue_id)
        held = [one for one in stored.deliveries if one.token == settlement.lease.token] if stored else []
        if stored is None or not held:
            raise LeaseLost(queue_id)
        (delivery,) = held
        if not settlement.results.keys() <= set(delivery.pending):
            raise ValueError("results for others than the recipients of the lease")
        ids = [report.message.queue_id for report in settlement.reports]
        if len(set(ids)) < len(ids) or any(one in self._stored for one in ids):
            raise ValueError(f"a queue ID of {ids} is taken")
        for report in settlement.reports:
            self._insert(report.message, report.content)
        for id_, result in settlement.results.items():
            stored.reasons[id_] = result.reason
            if not isinstance(result, Deferred):
                delivery.pending.remove(id_)
        stored.delay_told |= settlement.delay_told
        delivery.token = delivery.until = None
        delivery.next_attempt = settlement.next_attempt
        if not delivery.pending:
            stored.deliveries.remove(delivery)
        if not stored.deliveries:
            del self._stored[queue_id]
        return not stored.deliveries

    async def flush(self, *, now: datetime, ids: Collection[QueueId] = ()) -> int:
        self._check()
        changed = 0
        for stored, delivery in self._all():
            chosen = not ids or stored.message.queue_id in ids
            if chosen and delivery.token is None and delivery.next_attempt > now:
                delivery.next_attempt = now
                changed += 1
        return changed

    async def entries(self, *, limit: int, after: QueueId | None = None) -> Sequence[QueueEntry]:
        self._check()
        ids = sorted(one for one in self._stored if after is None or one > after)
        return [self._entry(self._stored[one]) for one in ids[:limit]]

    def _entry(self, stored: _Stored) -> QueueEntry:
        now = self._clock()
        return QueueEntry(
            message=stored.message,
            recipients=tuple(
                PendingRecipient(
                    recipient=one,
                    destination=delivery.destination,
                    state=delivery.state(now),
                    reason=stored.reasons.get(one.id, ""),
                    next_attempt=delivery.next_attempt,
                    attempts=delivery.attempts,
                    last_attempt=delivery.began,
                )
                for one in stored.message.envelope.recipients
                for delivery in stored.deliveries
                if one.id in delivery.pending
            ),
        )

    async def counts(self) -> QueueCounts:
        self._check()
        now = self._clock()
        states = [delivery.state(now) for _, delivery in self._all()]
        return QueueCounts(
            messages=len(self._stored),
            deliveries={state: states.count(state) for state in EntryState},
            oldest_arrival=min((stored.message.arrived_at for stored in self._stored.values()), default=None),
        )

    async def open_body(self, queue_id: QueueId) -> AsyncIterator[bytes]:
        self._check()
        body = self._stored[queue_id].body
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    async def close(self) -> None:
        self._closed = True

    def forget_leases(self) -> None:
        """What the end of a process does to its leases: they are over, their attempts stay counted, and that shows."""
        for stored, delivery in self._all():
            if delivery.token is not None and delivery.began is not None:
                broke_off = f"the attempt begun at {delivery.began:%Y-%m-%dT%H:%M:%SZ} broke off"
                reason = f"{broke_off}: the relay ended in the middle of it"
                stored.reasons.update(dict.fromkeys(delivery.pending, reason))
            delivery.token = delivery.until = None

    def _all(self) -> list[tuple[_Stored, _Delivery]]:
        return [(stored, delivery) for stored in self._stored.values() for delivery in stored.deliveries]

    def _check(self) -> None:
        if self._closed:
            raise StoreUnavailable("closed")
