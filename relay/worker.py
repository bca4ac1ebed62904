"""The worker: leases what is due, makes attempts, settles them; so many at a time per destination.

The queue and delivery do not know each other; they meet here. Every task is the worker's own: when it stops, each either
finishes by the deadline or is cancelled and its lease given back.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from relay.concurrency import Concurrency
from relay.delivery.attempt import Deliverer
from relay.delivery.delivery import Delivery, Policies
from relay.delivery.route import Router
from relay.log.events import Activated, Crashed, Observer, Program, Warned
from relay.mail.envelope import QueueId, Recipient, RecipientId
from relay.mail.reply import EnhancedStatus
from relay.outcome.result import AttemptResult, Deferred, Delays, Local, NoHost, Outcome
from relay.queue.settle import Settler
from relay.queue.store import Lease, QueueStore, StoreUnavailable

LEASE = timedelta(minutes=30)
RENEW_SECONDS = 300.0
STORE_RETRY_SECONDS = 5.0
IDLE_SECONDS = 60.0
# While deliveries are under way the whole queue is looked at so often: retries that became due start then.
BUSY_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """Limits of one worker.

    :param concurrency: attempts at a time.
    :param initial_destination_concurrency: attempts at a time at one destination, to begin with.
    :param destination_concurrency_limit: attempts at a time at one destination, at most.
    """

    concurrency: int = 200
    initial_destination_concurrency: int = 5
    destination_concurrency_limit: int = 20


class Worker:
    """Runs deliveries until it is stopped.

    :param policies: the rules in force; asked once for each attempt, so that a reload never splits one.
    :param router: the routes in force, likewise.
    """

    def __init__(
        self,
        *,
        store: QueueStore,
        deliverer: Deliverer,
        settler: Settler,
        policies: Callable[[], Policies],
        router: Callable[[], Router],
        options: WorkerOptions,
        clock: Callable[[], datetime],
        observe: Observer,
    ) -> None:
        self._store = store
        self._deliverer = deliverer
        self._settler = settler
        self._policies = policies
        self._router = router
        self._options = options
        self._clock = clock
        self._observe = observe
        self._wake = asyncio.Event()
        self._look = True
        self._expected: set[str] = set()
        self._stopping = False
        self._at_destination = Concurrency(
            initial=options.initial_destination_concurrency, limit=options.destination_concurrency_limit
        )
        self._active: Counter[QueueId] = Counter()
        self._running: dict[asyncio.Task[bool], Lease] = {}

    def wake(self) -> None:
        """Anything may be due: look at the whole queue."""
        self._look = True
        self._wake.set()

    def expect(self, destinations: Collection[str]) -> None:
        """Mail came in for these destinations: look there, which is cheaper than looking everywhere."""
        self._expected.update(destinations)
        self._wake.set()

    async def run(self) -> None:
        """Lease and deliver until ``stop``; raises nothing but cancellation."""
        renewing = asyncio.create_task(self._renew_leases(), name="renew leases")
        try:
            while not self._stopping:
                self._wake.clear()
                timeout = await self._start_what_is_due()
                try:
                    async with asyncio.timeout(timeout):
                        await self._wake.wait()
                except TimeoutError:
                    self._look = True
        finally:
            renewing.cancel()

    async def stop(self, deadline: float) -> None:
        """Take nothing new, let attempts finish for ``deadline`` seconds, then give back what they hold."""
        self._stopping = True
        self._wake.set()
        running = dict(self._running)
        if running:
            _, late = await asyncio.wait(running, timeout=deadline)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            tokens = [running[task].token for task in late]
            if tokens:
                try:
                    await self._store.release(tokens)
                except StoreUnavailable as error:
                    self._observe(Warned(Program.QMGR, f"leases kept until the next start: {error}"))

    async def _start_what_is_due(self) -> float:
        """Start as many due deliveries as limits allow; returns the seconds until the whole queue is looked at again."""
        try:
            await self._start_expected()
            # With nothing under way no end of a delivery will wake us: then the next look must be on time.
            while (self._look or not self._running) and (room := self._options.concurrency - len(self._running)) > 0:
                self._look = False
                if not await self._start_any(room):
                    due = await self._store.next_due(busy=self._at_destination.full())
                    return IDLE_SECONDS if due is None else self._until(due)
        except StoreUnavailable as error:
            self._observe(Warned(Program.QMGR, f"queue unavailable: {error}"))
            return STORE_RETRY_SECONDS
        return BUSY_SECONDS

    async def _start_expected(self) -> None:
        """Look at the destinations where mail came in or a delivery ended; what finds no room now is looked at later."""
        rooms: dict[str, int] = {}
        room = self._options.concurrency - len(self._running)
        for destination in list(self._expected):
            if room <= 0:
                break
            self._expected.discard(destination)
            here = min(room, self._at_destination.room(destination))
            if here:
                rooms[destination] = here
                room -= here
        if rooms:
            now = self._clock()
            for lease in await self._store.lease_at(rooms, now=now, until=now + LEASE):
                self._start(lease)

    async def _start_any(self, room: int) -> bool:
        """Look at the whole queue; returns whether anything was due."""
        now = self._clock()
        leases = await self._store.lease(
            now=now,
            until=now + LEASE,
            limit=room,
            busy=self._at_destination.full(),
            each=self._at_destination.initial,
        )
        too_many = []
        for lease in leases:
            if self._at_destination.room(lease.destination):
                self._start(lease)
            else:
                too_many.append(lease.token)
        if too_many:
            await self._store.release(too_many)
        self._look = self._look or len(leases) > len(too_many)
        return len(leases) > len(too_many)

    def _until(self, due: datetime) -> float:
        return min(IDLE_SECONDS, max(0.0, (due - self._clock()).total_seconds()))

    def _start(self, lease: Lease) -> None:
        message = lease.message
        if not self._active[message.queue_id]:
            self._observe(
                Activated(
                    queue_id=message.queue_id,
                    sender=message.envelope.sender,
                    size=message.size,
                    recipients=lease.total_recipients,
                )
            )
        self._active[message.queue_id] += 1
        self._at_destination.begin(lease.destination)
        task = asyncio.create_task(self._deliver(lease), name=f"deliver {message.queue_id} to {lease.destination}")
        self._running[task] = lease
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[bool]) -> None:
        lease = self._running.pop(task)
        queue_id = lease.message.queue_id
        self._active[queue_id] -= 1
        if not self._active[queue_id]:
            del self._active[queue_id]
        throttled = not task.cancelled() and task.exception() is None and task.result()
        self._at_destination.end(lease.destination, throttled=throttled)
        self._expected.add(lease.destination)
        if not task.cancelled() and (error := task.exception()) is not None:
            text = "".join(traceback.format_exception(error))
            self._observe(Crashed("settling", text, queue_id))
        self._wake.set()

    async def _deliver(self, lease: Lease) -> bool:
        """Attempt each route of a lease (one, unless routes have changed since it was queued), then settle it.

        :returns: whether the destination itself failed.
        """
        policies, router = self._policies(), self._router()
        outcomes: dict[RecipientId, Outcome] = {}
        throttles = False
        for route, recipients in router.group(lease.recipients, lease.message.envelope.sender).items():
            delivery = Delivery(
                message=lease.message,
                route=route,
                recipients=recipients,
                leased_at=lease.leased_at,
                configured=all(map(router.is_configured, route)),
                fallback=router.fallback,
                body=lambda: self._store.open_body(lease.message.queue_id),
            )
            result = await self._attempt(delivery, policies)
            outcomes.update(result.outcomes)
            throttles = throttles or result.throttles
        await self._settler.settle(lease, AttemptResult(outcomes=outcomes, throttles=throttles))
        return throttles

    async def _attempt(self, delivery: Delivery, policies: Policies) -> AttemptResult:
        """One attempt; one that fails in a way nobody foresaw is a deferral."""
        queue_id = delivery.message.queue_id
        try:
            return await self._deliverer.attempt(delivery, policies)
        except StoreUnavailable as error:
            self._observe(Warned(Program.QMGR, f"queue unavailable: {error}", queue_id))
            return _interrupted(delivery.recipients, "the queue could not be read")
        except Exception:
            self._observe(Crashed("delivery", traceback.format_exc(), queue_id))
            return _interrupted(delivery.recipients, "internal error; see the log of the relay")

    async def _renew_leases(self) -> None:
        """Hold on to deliveries that take longer than a lease."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            tokens = [lease.token for lease in self._running.values()]
            try:
                await self._store.extend(tokens, self._clock() + LEASE)
            except StoreUnavailable as error:
                self._observe(Warned(Program.QMGR, f"leases not extended: {error}"))


def _interrupted(recipients: tuple[Recipient, ...], text: str) -> AttemptResult:
    deferred = Deferred(status=EnhancedStatus(4, 3, 0), reason=text, diagnostic=Local(text))
    outcomes = {
        recipient.id: Outcome(
            recipient=recipient.id,
            result=deferred,
            relay=NoHost(),
            delays=Delays(before_queue=0, in_queue=0, setup=0, transmission=0),
            tls="unknown?",
        )
        for recipient in recipients
    }
    return AttemptResult(outcomes=outcomes, throttles=False)
