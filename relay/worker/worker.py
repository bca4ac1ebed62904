"""The worker: leases what is due and has it carried out; who gets how much, ``relay.scheduling`` says.

Every task is the worker's own: when it stops, each either finishes by the deadline or is cancelled and its lease given back.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from relay.delivery.attempt import Deliverer
from relay.delivery.delivery import Policies
from relay.delivery.route import Router
from relay.lanes import Lanes
from relay.log.events import Activated, Crashed, Observer, Program, Warned
from relay.mail.envelope import QueueId
from relay.queue.settle import Settler
from relay.queue.store import Lease, QueueStore, Reservation, StoreUnavailable
from relay.scheduling.destinations import Destinations
from relay.scheduling.places import ALONE, Places
from relay.scheduling.window import Failing, Suspension
from relay.worker.ahead import LEASE, STALE_SECONDS, Ahead
from relay.worker.carrying import Carrier
from relay.worker.lookout import Dealt, Lookout
from relay.worker.options import WorkerOptions

RENEW_SECONDS = 300.0
STORE_RETRY_SECONDS = 5.0
# Mail of dead destinations that is deferred at a time: it takes writing to the queue, and no slot.
DEFERRED_AT_A_TIME = 100


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
    :param lanes: where large contents take turns.
    :param places: at destinations, where other processes deliver to them too.
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
        lanes: Lanes,
        places: Places = ALONE,
    ) -> None:
        self._store = store
        self._carrier = Carrier(
            store=store,
            deliverer=deliverer,
            settler=settler,
            policies=policies,
            router=router,
            clock=clock,
            observe=observe,
            lanes=lanes,
        )
        self._options = options
        self._clock = clock
        self._monotonic = monotonic
        self._observe = observe
        self._wake = asyncio.Event()
        self._stopping = False
        self._hurry = asyncio.Event()
        self._destinations = Destinations(options.limits, places)
        self._lookout = Lookout(
            store, self._destinations, reserve=options.concurrency // 4, clock=clock, monotonic=monotonic
        )
        self._ahead = Ahead(store, recipient_limit=options.recipient_limit, clock=clock, monotonic=monotonic)
        self._active: Counter[QueueId] = Counter()
        self._running: dict[asyncio.Task[Failing | None], _Job] = {}
        self._attempts = 0
        self._releasing: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Anything may be due, and an administrator wants it tried: look everywhere, at dead destinations too."""
        self._lookout.wake()
        self._wake.set()

    def expect(self, destinations: Collection[str]) -> None:
        """Mail came in for these destinations: look there, which is cheaper than looking everywhere."""
        self._lookout.expect(destinations)
        self._wake.set()

    def reserve(self, destinations: Mapping[str, int]) -> Reservation | None:
        """Keep room for what comes in and may be tried at once, see ``Taker``: where its turn would be now anyway."""
        limit = self._options.recipient_limit
        names: set[str] = set()
        for name, recipients in {} if self._stopping else destinations.items():
            free = self._options.concurrency - self._attempts
            may_start = (not limit or recipients <= limit) and self._lookout.may_start(name, free)
            if may_start and self._destinations.claim(name, 1, self._monotonic()):
                self._destinations.begin(name)
                self._attempts += 1
                names.add(name)
        if not names:
            return None
        at = self._clock()
        return Reservation(destinations=frozenset(names), at=at, until=at + LEASE)

    def begin(self, reservation: Reservation, leases: Sequence[Lease]) -> None:
        """Start what was committed."""
        self._withdraw(reservation)
        if self._stopping:
            self._unclaim(Counter(reservation.destinations))
            task = asyncio.ensure_future(self._release(leases))
            self._releasing.add(task)
            task.add_done_callback(self._releasing.discard)
            return
        if not self._running:
            self._wake.set()  # from now on the queue is looked at more often
        for lease in leases:
            self._start(lease, None)
        self._unclaim(Counter(reservation.destinations) - Counter(lease.destination for lease in leases))

    def give_back(self, reservation: Reservation) -> None:
        """Nothing is started for a reservation."""
        self._withdraw(reservation)
        self._unclaim(Counter(reservation.destinations))

    def _withdraw(self, reservation: Reservation) -> None:
        for name in reservation.destinations:
            self._attempts -= 1
            self._destinations.withdraw(name)

    def _unclaim(self, places: Mapping[str, int]) -> None:
        """Deliveries for which places were claimed will not begin."""
        now = self._monotonic()
        for name, number in places.items():
            self._destinations.unclaim(name, number, now)

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
                    self._lookout.look_everywhere()
        finally:
            renewing.cancel()

    async def stop(self, deadline: float) -> None:
        """Take nothing new, let attempts finish for ``deadline`` seconds or until ``hurry``, then give back what they hold."""
        self._stopping = True
        self._wake.set()
        await self._give_back_in_hand()
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
            await self._release([running[task].lease for task in late])
        if self._releasing:
            await asyncio.wait(self._releasing)

    async def _release(self, leases: Sequence[Lease]) -> None:
        try:
            await self._store.release([lease.token for lease in leases])
        except StoreUnavailable as error:
            self._observe(Warned(Program.QMGR, f"leases kept until the next start: {error}"))

    async def _give_back_in_hand(self) -> None:
        try:
            await self._ahead.give_back(all_of_it=True)
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
            if await self._ahead.give_back():
                self._lookout.look_everywhere()
            await self._start_what_is_due()
            if self._lookout.is_time(busy=bool(self._running)):
                await self._lookout.look_around()
                await self._start_what_is_due()
        except StoreUnavailable as error:
            self._observe(Warned(Program.QMGR, f"queue unavailable: {error}"))
            return STORE_RETRY_SECONDS
        patience = self._lookout.patience(busy=bool(self._running))
        return min(patience, STALE_SECONDS) if self._ahead else patience

    async def _start_what_is_due(self) -> None:
        """Lease for those whose turn it is, and for the dead; start what was had."""
        waiting = len(self._running) - self._attempts
        dealt = self._lookout.deal(self._options.concurrency - self._attempts, DEFERRED_AT_A_TIME - waiting)
        if not dealt.rooms:
            return
        in_hand = self._ahead.take(dealt.rooms)
        self._start_all(in_hand, dealt)
        leased = Counter(lease.destination for lease in in_hand)
        if rooms := {name: room - leased[name] for name, room in dealt.rooms.items() if room > leased[name]}:
            unused = Counter({name: room for name, room in rooms.items() if name not in dealt.dead})
            try:
                leases = await self._ahead.lease(rooms, slow=dealt.dead)
                if self._stopping:
                    await self._release(leases)
                    await self._give_back_in_hand()
                    return
                unused -= Counter(lease.destination for lease in leases)
            finally:
                self._unclaim(unused)
            leased.update(lease.destination for lease in leases)
            self._lookout.had(dealt.rooms, leased)
            self._start_all(leases, dealt)

    def _start_all(self, leases: Sequence[Lease], dealt: Dealt) -> None:
        if split := {lease.destination for lease in leases if len(lease.recipients) == self._options.recipient_limit}:
            self.expect(split)  # the other parts are due, and may go at the same time
        for lease in leases:
            self._start(lease, dealt.dead.get(lease.destination))

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
        if suspension is None:
            suspension = self._destinations.suspension(lease.destination, self._monotonic())
            if suspension is not None:
                self._unclaim({lease.destination: 1})
        if suspension is None:
            self._destinations.begin(lease.destination)
            self._attempts += 1
        carrier = self._carrier
        work = carrier.deliver(lease) if suspension is None else carrier.defer(lease, suspension.why)
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
        if self._lookout.ended(lease.destination) or not self._running:
            self._wake.set()
        if error is not None:
            self._observe(Crashed("settling", "".join(traceback.format_exception(error)), queue_id))

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
