"""The queue's contract as a model in memory: an engine that keeps nothing, to hold the real ones against."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count

from relay.mail.envelope import Address, Message, QueueId, RecipientId
from relay.outcome.result import Deferred
from relay.policy.override import AS_CONFIGURED, AsConfigured, TlsOverride
from relay.queue.acts import (
    Act,
    Acted,
    Delete,
    Flush,
    Found,
    Group,
    GroupBy,
    Hold,
    HoldRule,
    Release,
    Requeue,
    Tallied,
)
from relay.queue.filter import Facts, Filter, ids_of, matches
from relay.queue.filter_text import parse_filter
from relay.queue.store import (
    NOBODY,
    EntryState,
    Head,
    Lease,
    LeaseLost,
    LeaseToken,
    NewMessage,
    PendingRecipient,
    QueueCounts,
    QueueEntry,
    Reservation,
    Settlement,
    StoreUnavailable,
    Taker,
)


@dataclass(slots=True)
class MemoryDelivery:
    destination: str
    pending: list[RecipientId]
    next_attempt: datetime
    attempts: int = 0
    token: LeaseToken | None = None
    until: datetime | None = None
    began: datetime | None = None
    held: bool = False
    override: TlsOverride | AsConfigured = AS_CONFIGURED

    def is_free(self, now: datetime) -> bool:
        return self.until is None or self.until <= now

    def is_ready(self, now: datetime) -> bool:
        return self.is_free(now) and not self.held

    def state(self, now: datetime) -> EntryState:
        if not self.is_free(now):
            return EntryState.ACTIVE
        if self.held and self.token is None:
            return EntryState.HOLD
        return EntryState.DEFERRED if self.attempts else EntryState.INCOMING


@dataclass(slots=True)
class MemoryMessage:
    message: Message
    body: bytes
    deliveries: list[MemoryDelivery]
    reasons: dict[RecipientId, str] = field(default_factory=dict)
    statuses: dict[RecipientId, str] = field(default_factory=dict)
    delay_told: set[RecipientId] = field(default_factory=set)


class MemoryStore:
    """``QueueStore`` without a disk."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.clock = clock
        self.stored: dict[QueueId, MemoryMessage] = {}
        self._tokens = count(1)
        self._closed = False
        self.acts = MemoryActs(self)

    @property
    def refusal(self) -> StoreUnavailable | None:
        return StoreUnavailable("closed") if self._closed else None

    async def put(self, message: NewMessage, body: AsyncIterator[bytes], taker: Taker = NOBODY) -> Message:
        content = b"".join([chunk async for chunk in body])
        self.check()
        reservation = taker.reserve(Counter(message.destinations.values()))
        if reservation is None:
            return self._insert(message, content)
        try:
            stored = self._insert(message, content)
        except BaseException:
            taker.give_back(reservation)
            raise
        taker.begin(reservation, [] if self.acts.rules else self._take_over(stored, reservation))
        return stored

    def _take_over(self, message: Message, reservation: Reservation) -> list[Lease]:
        stored = self.stored[message.queue_id]
        return [
            self.take((stored, one), reservation.at, reservation.until)
            for one in stored.deliveries
            if one.destination in reservation.destinations
        ]

    def _insert(self, new: NewMessage, content: bytes) -> Message:
        if new.queue_id in self.stored:
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
        deliveries = [MemoryDelivery(name, ids, new.arrived_at) for name, ids in groups.items()]
        self.stored[new.queue_id] = MemoryMessage(message, content, deliveries)
        self.acts.hold_new(new.queue_id)
        return message

    async def lease_at(
        self, rooms: Mapping[str, int], *, now: datetime, until: datetime, recipient_limit: int = 0
    ) -> Sequence[Lease]:
        self.check()
        chosen = [
            one
            for destination, room in rooms.items()
            for one in [due for due in self._due(now) if due[1].destination == destination][:room]
        ]
        return [self.take(self._split(one, recipient_limit), now, until) for one in chosen]

    def _split(self, one: tuple[MemoryMessage, MemoryDelivery], limit: int) -> tuple[MemoryMessage, MemoryDelivery]:
        stored, delivery = one
        if limit and len(delivery.pending) > limit:
            rest = replace(delivery, pending=delivery.pending[limit:], token=None, until=None)
            del delivery.pending[limit:]
            stored.deliveries.append(rest)
        return one

    async def heads(self, *, now: datetime, limit: int, busy: Collection[str] = ()) -> Sequence[Head]:
        self.check()
        first: dict[str, datetime] = {}
        for _, one in self._all():
            if one.is_ready(now) and one.destination not in busy:
                first[one.destination] = min(one.next_attempt, first.get(one.destination, one.next_attempt))
        return sorted(Head(due, destination) for destination, due in first.items())[:limit]

    def _due(self, now: datetime) -> list[tuple[MemoryMessage, MemoryDelivery]]:
        due = [
            (stored, delivery)
            for stored, delivery in self._all()
            if delivery.is_ready(now) and delivery.next_attempt <= now
        ]
        return sorted(due, key=lambda one: one[1].next_attempt)  # and as they were put, then split, as SQLite does

    def take(self, one: tuple[MemoryMessage, MemoryDelivery], now: datetime, until: datetime) -> Lease:
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
            override=delivery.override,
        )

    async def extend(self, tokens: Collection[LeaseToken], until: datetime) -> None:
        self.check()
        for _, delivery in self._all():
            if delivery.token in tokens:
                delivery.until = until

    async def release(self, tokens: Collection[LeaseToken]) -> None:
        self.check()
        for _, delivery in self._all():
            if delivery.token in tokens:
                delivery.token = delivery.until = None
                delivery.attempts -= 1

    async def settle(self, settlement: Settlement) -> bool:
        self.check()
        queue_id = settlement.lease.message.queue_id
        stored = self.stored.get(queue_id)
        held = [one for one in stored.deliveries if one.token == settlement.lease.token] if stored else []
        if stored is None or not held:
            raise LeaseLost(queue_id)
        (delivery,) = held
        if not settlement.results.keys() <= set(delivery.pending):
            raise ValueError("results for others than the recipients of the lease")
        ids = [report.message.queue_id for report in settlement.reports]
        if len(set(ids)) < len(ids) or any(one in self.stored for one in ids):
            raise ValueError(f"a queue ID of {ids} is taken")
        for report in settlement.reports:
            self._insert(report.message, report.content)
        for id_, result in settlement.results.items():
            stored.reasons[id_] = result.reason
            stored.statuses[id_] = str(result.status)
            if not isinstance(result, Deferred):
                delivery.pending.remove(id_)
        stored.delay_told |= settlement.delay_told
        delivery.token = delivery.until = None
        delivery.next_attempt = settlement.next_attempt
        if not delivery.pending:
            stored.deliveries.remove(delivery)
        if not stored.deliveries:
            del self.stored[queue_id]
        return not stored.deliveries

    async def flush(self, *, now: datetime, ids: Collection[QueueId] = ()) -> int:
        self.check()
        changed = 0
        for stored, delivery in self._all():
            chosen = not ids or stored.message.queue_id in ids
            if chosen and delivery.token is None and not delivery.held and delivery.next_attempt > now:
                delivery.next_attempt = now
                changed += 1
        return changed

    async def entries(self, *, limit: int, after: QueueId | None = None) -> Sequence[QueueEntry]:
        self.check()
        ids = sorted(one for one in self.stored if after is None or one > after)
        return [self.entry(self.stored[one]) for one in ids[:limit]]

    def entry(self, stored: MemoryMessage) -> QueueEntry:
        now = self.clock()
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
                    status=stored.statuses.get(one.id, ""),
                    override=delivery.override,
                    last_attempt=delivery.began,
                )
                for one in stored.message.envelope.recipients
                for delivery in stored.deliveries
                if one.id in delivery.pending
            ),
        )

    async def counts(self) -> QueueCounts:
        self.check()
        now = self.clock()
        states = [delivery.state(now) for _, delivery in self._all()]
        return QueueCounts(
            messages=len(self.stored),
            deliveries={state: states.count(state) for state in EntryState},
            oldest_arrival=min((stored.message.arrived_at for stored in self.stored.values()), default=None),
        )

    async def open_body(self, queue_id: QueueId) -> AsyncIterator[bytes]:
        self.check()
        body = self.stored[queue_id].body
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

    def _all(self) -> list[tuple[MemoryMessage, MemoryDelivery]]:
        return [(stored, delivery) for stored in self.stored.values() for delivery in stored.deliveries]

    def check(self) -> None:
        if self._closed:
            raise StoreUnavailable("closed")


class MemoryActs:
    """``QueueActs`` on a ``MemoryStore``: each recipient is asked for by the pure filter."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.rules: list[HoldRule] = []
        self._numbers = count(1)

    async def find(self, where: Filter, *, after: QueueId | None = None, looking: int) -> Found:
        self._store.check()
        ids = sorted(one for one in self._store.stored if after is None or one > after)
        named = ids_of(where)
        step = [one for one in ids if named is None or one in named][:looking]
        meant = {one: sum(len(people) for _, people in self._meant(where, [one])) for one in step}
        return Found(
            ids=tuple(one for one in step if meant[one]),
            recipients=sum(meant.values()),
            looked=len(step),
            last=step[-1] if len(step) == looking else None,
        )

    async def tally(self, where: Filter, by: GroupBy, *, after: QueueId | None = None, looking: int) -> Tallied:
        step = await self.find(where, after=after, looking=looking)
        groups: dict[str, Group] = {}
        now = self._store.clock()
        for (queue_id, delivery), people in self._meant(where, step.ids):
            stored = self._store.stored[queue_id]
            for facts in (_facts(stored, delivery, id_, now) for id_ in people):
                key = {
                    GroupBy.DOMAIN: facts.domain,
                    GroupBy.DESTINATION: facts.destination,
                    GroupBy.SENDER: facts.sender,
                    GroupBy.STATUS: facts.status,
                    GroupBy.REASON: facts.reason,
                }[by]
                one = Group(1, facts.arrived_at)
                groups[key] = groups[key].joined(one) if key in groups else one
        return Tallied(groups=groups, last=step.last)

    async def entries(self, ids: Collection[QueueId], where: Filter) -> Sequence[QueueEntry]:
        self._store.check()
        found = []
        for one in sorted(set(ids) & self._store.stored.keys()):
            meant = {id_ for _, people in self._meant(where, [one]) for id_ in people}
            entry = self._store.entry(self._store.stored[one])
            people = tuple(each for each in entry.recipients if each.recipient.id in meant)
            if people:
                found.append(replace(entry, recipients=people))
        return found

    async def act(self, act: Act, where: Filter, ids: Collection[QueueId]) -> Acted:
        self._store.check()
        changed: dict[QueueId, int] = {}
        busy = 0
        for (queue_id, delivery), people in self._meant(where, ids):
            whole = len(people) == len(delivery.pending)
            if delivery.token is not None and not (whole and isinstance(act, Hold | Release)):
                busy += len(people)
            elif self._apply(act, queue_id, delivery, people):
                changed[queue_id] = changed.get(queue_id, 0) + len(people)
        return Acted(recipients=changed, busy=busy)

    def _apply(self, act: Act, queue_id: QueueId, delivery: MemoryDelivery, people: list[RecipientId]) -> bool:
        now = self._store.clock()
        stored = self._store.stored[queue_id]
        match act:
            case Flush():
                if delivery.held or delivery.next_attempt <= now:
                    return False
                self._split(stored, delivery, people).next_attempt = now
            case Hold():
                if delivery.held:
                    return False
                self._split(stored, delivery, people).held = True
            case Release():
                if not delivery.held:
                    return False
                released = self._split(stored, delivery, people)
                released.held, released.next_attempt = False, now
            case Delete():
                stored.deliveries.remove(self._split(stored, delivery, people))
                gone = [one for one in stored.message.envelope.recipients if one.id not in people]
                stored.message = replace(
                    stored.message, envelope=replace(stored.message.envelope, recipients=tuple(gone))
                )
                if not stored.deliveries:
                    del self._store.stored[queue_id]
            case Requeue(destination_of, override):
                addresses = {one.id: one.address for one in stored.message.envelope.recipients}
                sender = stored.message.envelope.sender
                for destination in {id_: destination_of(addresses[id_], sender) for id_ in people}.values():
                    mine = [id_ for id_ in people if destination_of(addresses[id_], sender) == destination]
                    if mine and set(mine) <= set(delivery.pending):
                        part = self._split(stored, delivery, mine)
                        part.destination, part.override = destination, override
                        part.held, part.next_attempt = False, now
        return True

    def _split(self, stored: MemoryMessage, delivery: MemoryDelivery, people: list[RecipientId]) -> MemoryDelivery:
        if len(people) == len(delivery.pending):
            return delivery
        delivery.pending = [one for one in delivery.pending if one not in people]
        part = replace(delivery, pending=list(people))
        stored.deliveries.append(part)
        return part

    async def take(self, where: Filter, ids: Collection[QueueId], *, until: datetime) -> Sequence[Lease]:
        self._store.check()
        now = self._store.clock()
        taken = []
        for (queue_id, delivery), people in self._meant(where, ids):
            if delivery.token is None:
                stored = self._store.stored[queue_id]
                taken.append(self._store.take((stored, self._split(stored, delivery, people)), now, until))
        return taken

    async def hold_rules(self) -> Sequence[HoldRule]:
        return tuple(self.rules)

    async def add_hold_rule(self, *, filter_text: str, reason: str, by: str) -> HoldRule:
        rule = HoldRule(number=next(self._numbers), filter=filter_text, reason=reason, by=by, at=self._store.clock())
        self.rules.append(rule)
        return rule

    async def remove_hold_rule(self, number: int) -> bool:
        there = any(rule.number == number for rule in self.rules)
        self.rules = [rule for rule in self.rules if rule.number != number]
        return there

    def hold_new(self, queue_id: QueueId) -> None:
        for rule in self.rules:
            for (_, delivery), people in self._meant(parse_filter(rule.filter), [queue_id]):
                if not delivery.held:
                    self._split(self._store.stored[queue_id], delivery, people).held = True

    def _meant(
        self, where: Filter, ids: Collection[QueueId]
    ) -> list[tuple[tuple[QueueId, MemoryDelivery], list[RecipientId]]]:
        now = self._store.clock()
        found = []
        for queue_id in sorted(set(ids) & self._store.stored.keys()):
            stored = self._store.stored[queue_id]
            for delivery in list(stored.deliveries):
                people = [id_ for id_ in delivery.pending if matches(where, _facts(stored, delivery, id_, now), now)]
                if people:
                    found.append(((queue_id, delivery), people))
        return found


def _facts(stored: MemoryMessage, delivery: MemoryDelivery, id_: RecipientId, now: datetime) -> Facts:
    message = stored.message
    (recipient,) = (one for one in message.envelope.recipients if one.id == id_)
    sender = message.envelope.sender
    return Facts(
        queue_id=message.queue_id,
        sender=str(sender),
        sender_domain=str(sender.domain) if isinstance(sender, Address) else "",
        recipient=recipient.address.text,
        domain=str(recipient.address.domain),
        destination=delivery.destination,
        arrived_at=message.arrived_at,
        size=message.size,
        place=delivery.state(now),
        status=stored.statuses.get(id_, ""),
        reason=stored.reasons.get(id_, ""),
    )
