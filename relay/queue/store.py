"""The seam of the queue: what an engine must do, and what it promises.

The unit of work is a *delivery*: the recipients of one message that go to one destination. A destination is a scheduling
key (the next-hop as routed when the message came in); what it means is decided anew at each attempt.

Promises of every engine (``tests/unit/queue/test_contract.py`` runs against each):

* ``put`` returns after the message is committed and synced; if it raises, nothing of the message is kept.
* A delivery is leased to one holder at a time. A lease ends with ``settle``, ``release``, its time, or the holder's process.
* ``settle`` is one transaction: results, next attempt, and the report that they cause. Settled recipients never come back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final, NewType, Protocol

from relay.mail.envelope import Envelope, Message, QueueId, Recipient, RecipientId
from relay.outcome.result import Bounced, Deferred, Sent
from relay.policy.override import AS_CONFIGURED, AsConfigured, TlsOverride

LeaseToken = NewType("LeaseToken", str)


class StoreUnavailable(Exception):  # noqa: N818 - it names the state, not the handling
    """The store cannot do this now (disk full, I/O error, closed); try again later, nothing was changed.

    :param full: whether the cause is want of space, which the client is told as 452 4.3.1.
    """

    def __init__(self, why: str, *, full: bool = False) -> None:
        super().__init__(why)
        self.full = full


class LeaseLost(Exception):  # noqa: N818 - it names the state, not the handling
    """A lease ended and somebody else took its delivery over (or the message is gone): its results were not written."""

    def __init__(self, queue_id: QueueId) -> None:
        super().__init__(f"{queue_id}: the lease ended and was taken over by another attempt")
        self.queue_id = queue_id


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage:
    """A message about to be put.

    :param destinations: each recipient's destination; every recipient of the envelope has one.
    """

    queue_id: QueueId
    envelope: Envelope
    arrived_at: datetime
    destinations: Mapping[RecipientId, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One delivery, held by the caller until it is settled, released or ``until`` passes.

    :param recipients: those not settled yet.
    :param attempts: attempts begun before this one.
    :param leased_at: when this lease began, for the ``delays=`` of its outcomes.
    :param total_recipients: of the whole message, settled ones included.
    :param delay_told: the recipients whose delay was reported already.
    :param override: the TLS level that an administrator asked for, for this mail alone.
    """

    token: LeaseToken
    message: Message
    destination: str
    recipients: tuple[Recipient, ...]
    attempts: int
    leased_at: datetime
    due_at: datetime
    total_recipients: int
    delay_told: frozenset[RecipientId] = frozenset()
    override: TlsOverride | AsConfigured = AS_CONFIGURED


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Room that is kept for the first attempt of a message which is about to be committed.

    :param destinations: those of its destinations that are delivered to at once.
    :param at: when; ``until`` is when the leases end.
    """

    destinations: frozenset[str]
    at: datetime
    until: datetime


class Taker(Protocol):
    """Whoever delivers: takes a message over as it is committed, so that it need not be read back."""

    def reserve(self, destinations: Mapping[str, int]) -> Reservation | None:
        """Keep room for what may be delivered at once; None if that is nothing. Each reservation is answered once.

        :param destinations: of a message that will be committed next, each with the number of its recipients.
        """
        ...

    def begin(self, reservation: Reservation, leases: Sequence[Lease]) -> None:
        """The message is committed; these are its deliveries within the reservation; what a rule holds is not among them."""
        ...

    def give_back(self, reservation: Reservation) -> None:
        """The message was not committed."""
        ...


class _Nobody:
    """Takes nothing over: what comes in waits until it is leased."""

    def reserve(self, destinations: Mapping[str, int]) -> Reservation | None:
        return None

    def begin(self, reservation: Reservation, leases: Sequence[Lease]) -> None:
        raise AssertionError("nothing was reserved")

    def give_back(self, reservation: Reservation) -> None:
        raise AssertionError("nothing was reserved")


NOBODY: Final = _Nobody()


@dataclass(frozen=True, slots=True, order=True)
class Head:
    """When the first unleased delivery of a destination is due, be it in the past or to come."""

    due: datetime
    destination: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report on its way to a sender: a message whose content is small and at hand."""

    message: NewMessage
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What is to be written of one attempt, all or nothing.

    :param results: by recipient id; a recipient of the lease that is missing here stays as it was.
    :param next_attempt: when the deferred (and missing) recipients are due again; of no account where there are none.
    :param reports: put in the same transaction.
    :param delay_told: recipients whose delay is reported by one of these reports.
    """

    lease: Lease
    results: Mapping[RecipientId, Sent | Deferred | Bounced]
    next_attempt: datetime
    reports: tuple[Report, ...] = ()
    delay_told: frozenset[RecipientId] = frozenset()


class EntryState(Enum):
    """Postfix's name for where a delivery is (``postqueue -j``, queue_name)."""

    ACTIVE = "active"
    INCOMING = "incoming"
    DEFERRED = "deferred"
    HOLD = "hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRecipient:
    """A recipient still in the queue, with reason and status of its last deferral (empty before the first).

    :param attempts: begun, one that is under way or broke off included.
    :param last_attempt: when the last of them began; None before the first.
    """

    recipient: Recipient
    destination: str
    state: EntryState
    reason: str
    next_attempt: datetime
    attempts: int
    last_attempt: datetime | None = None
    status: str = ""
    override: TlsOverride | AsConfigured = AS_CONFIGURED


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry:
    """One message in the queue as a listing shows it."""

    message: Message
    recipients: tuple[PendingRecipient, ...]

    @property
    def state(self) -> EntryState:
        """The state that stands for the message: active if any of it is, else hold, deferred, incoming."""
        states = {pending.state for pending in self.recipients}
        order = (EntryState.ACTIVE, EntryState.HOLD, EntryState.DEFERRED, EntryState.INCOMING)
        return next((state for state in order if state in states), EntryState.INCOMING)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCounts:
    """How much is queued: messages, and deliveries by state."""

    messages: int
    deliveries: Mapping[EntryState, int]
    oldest_arrival: datetime | None


class QueueStore(Protocol):
    """A durable queue. Every method may raise ``StoreUnavailable``."""

    @property
    def refusal(self) -> StoreUnavailable | None:
        """Why ``put`` would refuse mail now: no room, or a disk that is not trusted; None while all is well."""
        ...

    async def put(self, message: NewMessage, body: AsyncIterator[bytes], taker: Taker = NOBODY) -> Message:
        """Commit a message and its body (CRLF line ends, in chunks of any size).

        What ``body`` raises passes through, and nothing is kept.

        :param taker: asked when the body is whole; what it takes is committed as leased, then given to it.
        """
        ...

    async def lease_at(
        self, rooms: Mapping[str, int], *, now: datetime, until: datetime, recipient_limit: int = 0
    ) -> Sequence[Lease]:
        """Take due deliveries of these destinations, at most so many of each, the longest due of each first.

        :param recipient_limit: a delivery with more recipients is split, for good: its lease has so many, in the order
            of the envelope, and the rest is a delivery of its own that stays due; 0 for no limit.
        """
        ...

    async def heads(self, *, now: datetime, limit: int, busy: Collection[str] = ()) -> Sequence[Head]:
        """Up to ``limit`` destinations with unleased deliveries, each with when its first is due, the longest due first.

        :param busy: destinations that are left out.
        """
        ...

    async def extend(self, tokens: Collection[LeaseToken], until: datetime) -> None:
        """Hold leases longer."""
        ...

    async def release(self, tokens: Collection[LeaseToken]) -> None:
        """Give leases back unsettled; their deliveries are due as before."""
        ...

    async def settle(self, settlement: Settlement) -> bool:
        """Write an attempt's results; returns whether that was the last of the message, which is then gone.

        :raises LeaseLost: if the lease ended and another holder took the delivery over; nothing was written.
        """
        ...

    async def flush(self, *, now: datetime, ids: Collection[QueueId] = ()) -> int:
        """Make deliveries (of these messages, or all) due now; returns how many changed."""
        ...

    async def entries(self, *, limit: int, after: QueueId | None = None) -> Sequence[QueueEntry]:
        """List queued messages in the order of their queue IDs, from after ``after`` on."""
        ...

    async def counts(self) -> QueueCounts:
        """Count what is queued."""
        ...

    def open_body(self, queue_id: QueueId) -> AsyncIterator[bytes]:
        """The content of a message in chunks of at most 64 KiB; raises KeyError if it is gone."""
        ...

    async def close(self) -> None:
        """Finish what was begun, then close."""
        ...
