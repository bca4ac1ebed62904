"""The worker: leases what is due, makes attempts, settles them; who gets how much, ``relay.scheduling`` says.

The queue and delivery do not know each other; they meet here. Every task is the worker's own: when it stops, each either
finishes by the deadline or is cancelled and its lease given back.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from relay.delivery.attempt import Deliverer
from relay.delivery.delivery import Delivery, Policies, overridden
from relay.delivery.route import Router
from relay.log.events import Activated, Crashed, Noted, Observer, Program, Warned
from relay.mail.envelope import QueueId, RecipientId
from relay.mail.reply import EnhancedStatus
from relay.outcome.result import AttemptResult, Outcome
from relay.outcome.untried import broken_off, suspended
from relay.policy.override import TlsOverride
from relay.queue.settle import Settler
from relay.queue.store import Lease, QueueStore, StoreUnavailable
from relay.scheduling.destinations import Destinations
from relay.scheduling.turns import MAX_IN_LINE, Turns
from relay.scheduling.window import Failing, Limits, Suspension

LEASE = timedelta(minutes=30)
RENEW_SECONDS = 300.0
STORE_RETRY_SECONDS = 5.0
IDLE_SECONDS = 60.0
# While deliveries are under way the whole queue is looked at so often: retries that became due start then.
BUSY_SECONDS = 1.0
# Looking at the whole queue takes longer the more destinations it has; it never takes more than this part of the time.
LOOKING_SHARE = 0.05
# A look that took long on a slow disk must not hold up retries: seconds between two looks, at most.
LONGEST_REST = 10.0
# So many destinations are learned of in one look, the longest due first.
HEADS = 2_000
# Mail of dead destinations that is deferred at a time: it takes writing to the queue, and no slot.
DEFERRED_AT_A_TIME = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """Limits of one worker.

    :param concurrency: attempts at a time.
    :param limits: those of each destination.
    :param recipient_limit: recipients of one transaction at most (``destination_recipient_limit``); 0 for no limit.
    """

    concurrency: int = 200
    limits: Limits = field(default_factory=Limits)
    recipient_limit: int = 50


@dataclass(frozen=True, slots=True)
class _Job:
    """A lease under way.

    :param suspension: why nobody is dialled; None for an attempt.
    """

    lease: Lease
    suspension: Suspension | None


class Worker:
    """Runs deliveries until it is stopped.

    :param policies: the rules in force; asked once for each attempt, so that a reload never splits one.
    :param router: the routes in force, likewise.
    :param monotonic: seconds on a clock that nobody sets.
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
        monotonic: Callable[[], float],
        observe: Observer,
    ) -> None:
        self._store = store
        self._deliverer = deliverer
        self._settler = settler
        self._policies = policies
        self._router = router
        self._options = options
        self._clock = clock
        self._monotonic = monotonic
        self._observe = observe
        self._wake = asyncio.Event()
        self._look = True
        self._may_look_at = 0.0
        self._looked_at = 0.0
        self._next_due: datetime | None = None
        self._stopping = False
        self._hurry = asyncio.Event()
        self._destinations = Destinations(options.limits)
        self._turns = Turns(reserve=options.concurrency // 4)
        self._dead: dict[str, None] = {}
        self._expected: set[str] = set()
        self._active: Counter[QueueId] = Counter()
        self._running: dict[asyncio.Task[Failing | None], _Job] = {}
        self._attempts = 0

    def wake(self) -> None:
        """Anything may be due, and an administrator wants it tried: look everywhere, at dead destinations too."""
        self._destinations.revive()
        self._look = True
        self._may_look_at = 0.0
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
                timeout = await self._turn()
                try:
                    async with asyncio.timeout(timeout):
                        await self._wake.wait()
                except TimeoutError:
                    self._look = True
        finally:
            renewing.cancel()

    async def stop(self, deadline: float) -> None:
        """Take nothing new, let attempts finish for ``deadline`` seconds or until ``hurry``, then give back what they hold."""
        self._stopping = True
        self._wake.set()
        running = dict(self._running)
        if not running:
            return
        ending, hurry = asyncio.ensure_future(_end_of(running)), asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait((ending, hurry), timeout=deadline, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        late = [task for task in running if not task.done()]
        for task in late:
            task.cancel()
        await asyncio.gather(ending, hurry, return_exceptions=True)
        if late:
            try:
                await self._store.release([running[task].lease.token for task in late])
            except StoreUnavailable as error:
                self._observe(Warned(Program.QMGR, f"leases kept until the next start: {error}"))

    def hurry(self) -> None:
        """Let ``stop`` wait no longer."""
        self._hurry.set()

    @property
    def under_way(self) -> int:
        """How many attempts are being made."""
        return self._attempts

    async def _turn(self) -> float:
        """Start as much as limits allow; returns the seconds until this is to be done again, if nothing wakes us before."""
        try:
            await self._start_what_is_due()
            self._look = self._look or self._is_time_to_look()
            if self._look and self._monotonic() >= self._may_look_at:
                await self._look_around()
                await self._start_what_is_due()
        except StoreUnavailable as error:
            self._observe(Warned(Program.QMGR, f"queue unavailable: {error}"))
            return STORE_RETRY_SECONDS
        return self._patience()

    def _is_time_to_look(self) -> bool:
        """Whether mail may have become due that nobody told of; being woken all the time must not put that off."""
        if not self._running:
            return True  # no end of a delivery will wake us: then the next look must be on time
        due = self._next_due is not None and self._next_due <= self._clock()
        return due or self._monotonic() >= self._looked_at + BUSY_SECONDS

    def _patience(self) -> float:
        now = self._monotonic()
        waits = [BUSY_SECONDS if self._running or self._look else IDLE_SECONDS]
        if self._next_due is not None:
            waits.append((self._next_due - self._clock()).total_seconds())
        if (rest := self._destinations.next_rest()) is not None:
            waits.append(rest - now)
        return max(min(waits), self._may_look_at - now, 0.0)

    async def _look_around(self) -> None:
        """Learn which destinations have mail that is due, beside those that are known to; nothing is leased yet."""
        began = self._monotonic()
        self._look = False
        known = {*self._destinations.held_back(began), *self._turns, *self._dead}
        now = self._clock()
        heads = await self._store.heads(now=now, limit=HEADS, busy=known)
        due = [head.destination for head in heads if head.due <= now]
        self._next_due = heads[len(due)].due if len(due) < len(heads) else None
        self._look = self._look or len(due) == HEADS
        self._looked_at = ended = self._monotonic()
        self._may_look_at = ended + min((ended - began) * (1 / LOOKING_SHARE - 1), LONGEST_REST)
        for destination in due:
            self._join(destination)

    def _join(self, destination: str) -> None:
        """A destination has due mail, as far as is known: it stands in line, unless it is dead."""
        if self._destinations.suspension(destination, self._monotonic()) is None:
            if not self._turns.join(destination):
                self._look = True
        elif len(self._dead) < MAX_IN_LINE:
            self._dead[destination] = None
        else:
            self._look = True

    async def _start_what_is_due(self) -> None:
        """Lease for those whose turn it is, and for the dead; start what was had."""
        now = self._monotonic()
        self._expected.update(self._destinations.rested(now))
        expected, self._expected = self._expected, set()
        for destination in expected:
            self._join(destination)
        spare = DEFERRED_AT_A_TIME - (len(self._running) - self._attempts)
        dead = self._suspended(now, spare)
        dealt = self._turns.deal(
            self._options.concurrency - self._attempts,
            room=lambda name: self._destinations.room(name, now),
            is_idle=self._destinations.is_idle,
        )
        rooms = {**dealt, **dict.fromkeys(dead, max(1, spare // max(1, len(dead))))}
        if not rooms:
            return
        wall, limit = self._clock(), self._options.recipient_limit
        leases = await self._store.lease_at(rooms, now=wall, until=wall + LEASE, recipient_limit=limit)
        if self._stopping:
            await self._store.release([lease.token for lease in leases])
            return
        had = Counter(lease.destination for lease in leases)
        if split := {lease.destination for lease in leases if len(lease.recipients) == limit}:
            self.expect(split)  # the other parts are due, and may go at the same time
        for destination, room in rooms.items():
            if had[destination] < room:
                # Nothing more is due there; what came in meanwhile is in ``_expected``.
                self._turns.leave(destination)
                self._dead.pop(destination, None)
                if not had[destination]:
                    self._destinations.forget(destination, now)
        for lease in leases:
            self._start(lease, dead.get(lease.destination))

    def _suspended(self, now: float, most: int) -> dict[str, Suspension]:
        """The dead destinations whose mail is deferred next; those that are dead no more go back in line."""
        found: dict[str, Suspension] = {}
        for name in list(self._dead):
            suspension = self._destinations.suspension(name, now)
            if suspension is None:
                del self._dead[name]
                self._join(name)
            elif len(found) < most:
                found[name] = suspension
                self._dead[name] = self._dead.pop(name)  # to the end of the line
        return found

    def _start(self, lease: Lease, suspension: Suspension | None) -> None:
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
        # It may have died since its turn was dealt: then nobody is dialled any more.
        suspension = suspension or self._destinations.suspension(lease.destination, self._monotonic())
        if suspension is None:
            self._destinations.begin(lease.destination)
            self._attempts += 1
        work = self._deliver(lease) if suspension is None else self._defer(lease, suspension.why)
        task = asyncio.create_task(work, name=f"deliver {message.queue_id} to {lease.destination}")
        self._running[task] = _Job(lease, suspension)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Failing | None]) -> None:
        job = self._running.pop(task)
        lease = job.lease
        queue_id = lease.message.queue_id
        self._active[queue_id] -= 1
        if not self._active[queue_id]:
            del self._active[queue_id]
        error = None if task.cancelled() else task.exception()
        failing = None if task.cancelled() or error is not None else task.result()
        if job.suspension is None:
            self._attempts -= 1
            self._destinations.end(lease.destination, self._monotonic(), failing)
        self._expected.add(lease.destination)
        if error is not None:
            self._observe(Crashed("settling", "".join(traceback.format_exception(error)), queue_id))
        self._wake.set()

    async def _defer(self, lease: Lease, why: Failing) -> Failing | None:
        """Put mail of a dead destination off without dialling; it may expire of that, as after an attempt."""
        waited, in_queue = self._times(lease)
        outcomes = suspended(lease.recipients, why.status, why.reason, waited=waited, in_queue=in_queue)
        await self._settler.settle(lease, AttemptResult(outcomes=outcomes))
        return None

    async def _deliver(self, lease: Lease) -> Failing | None:
        """Attempt each route of a lease (one, unless routes have changed since it was queued), then settle it.

        :returns: what the destination itself failed with, if it did.
        """
        outcomes: dict[RecipientId, Outcome] = {}
        try:
            failing = await self._attempt_routes(lease, outcomes)
        except asyncio.CancelledError:
            if outcomes:
                # What hosts took already must not go to them again; the rest is as it was.
                await self._settler.settle(lease, AttemptResult(outcomes=outcomes))
            raise
        await self._settler.settle(lease, AttemptResult(outcomes=outcomes))
        return failing

    async def _attempt_routes(self, lease: Lease, outcomes: dict[RecipientId, Outcome]) -> Failing | None:
        policies, router = overridden(self._policies(), lease.override), self._router()
        if isinstance(lease.override, TlsOverride):
            override = lease.override
            text = f"TLS level {override.level.word}: {override.place}: {override.reason}"
            self._observe(Noted(Program.QMGR, text, lease.message.queue_id))
        failing: Failing | None = None
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
            failing = await self._attempt(delivery, policies, lease, outcomes) or failing
        return failing

    async def _attempt(
        self, delivery: Delivery, policies: Policies, lease: Lease, outcomes: dict[RecipientId, Outcome]
    ) -> Failing | None:
        """One attempt; one that fails in a way nobody foresaw is a deferral of those whom no host took before."""
        queue_id = delivery.message.queue_id
        try:
            result = await self._deliverer.attempt(delivery, policies, outcomes)
        except StoreUnavailable as error:
            self._observe(Warned(Program.QMGR, f"queue unavailable: {error}", queue_id))
            text, failing = "the queue could not be read", None
        except Exception:
            self._observe(Crashed("delivery", traceback.format_exc(), queue_id))
            text = "internal error; see the log of the relay"
            failing = Failing(status=EnhancedStatus(4, 3, 0), reason=text, ours=True)
        else:
            outcomes.update(result.outcomes)
            cause = result.throttled_by
            return None if cause is None else Failing(status=cause.status, reason=cause.reason)
        waited, in_queue = self._times(lease)
        left = tuple(one for one in delivery.recipients if one.id not in outcomes)
        outcomes.update(broken_off(left, text, waited=waited, in_queue=in_queue))
        return failing

    def _times(self, lease: Lease) -> tuple[float, float]:
        """Seconds from a message's arrival until it was leased, and since then."""
        waited = (lease.leased_at - lease.message.arrived_at).total_seconds()
        return max(0.0, waited), max(0.0, (self._clock() - lease.leased_at).total_seconds())

    async def _renew_leases(self) -> None:
        """Hold on to deliveries that take longer than a lease."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            tokens = [job.lease.token for job in self._running.values()]
            try:
                await self._store.extend(tokens, self._clock() + LEASE)
            except StoreUnavailable as error:
                self._observe(Warned(Program.QMGR, f"leases not extended: {error}"))


async def _end_of(tasks: Collection[asyncio.Task[Failing | None]]) -> bool:
    await asyncio.wait(tasks)
    return True
