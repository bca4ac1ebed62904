"""One lease carried out: an attempt at each of its routes, then the outcomes settled, whatever happens on the way."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable
from datetime import datetime

from relay.delivery.attempt import Deliverer
from relay.delivery.delivery import Delivery, Policies, overridden
from relay.delivery.opening import Session
from relay.delivery.pool import Terms
from relay.delivery.route import Router
from relay.lanes import LARGE_OCTETS, Lanes
from relay.log.events import Crashed, Noted, Observer, Program, Warned
from relay.mail.envelope import Message, RecipientId
from relay.mail.reply import EnhancedStatus
from relay.outcome.result import AttemptResult, Outcome
from relay.outcome.untried import broken_off, suspended
from relay.policy.override import TlsOverride
from relay.queue.settle import Settler
from relay.queue.store import Lease, QueueStore, StoreUnavailable
from relay.scheduling.window import Failing


class Carrier:
    """Carries leases out; safe to use from many tasks at once.

    :param policies: the rules in force; asked once for each lease, so that a reload never splits one.
    :param router: the routes in force, likewise.
    :param lanes: where large contents take turns.
    """

    def __init__(
        self,
        *,
        store: QueueStore,
        deliverer: Deliverer,
        settler: Settler,
        policies: Callable[[], Policies],
        router: Callable[[], Router],
        clock: Callable[[], datetime],
        observe: Observer,
        lanes: Lanes,
    ) -> None:
        self._store = store
        self._deliverer = deliverer
        self._settler = settler
        self._policies = policies
        self._router = router
        self._clock = clock
        self._observe = observe
        self._lanes = lanes

    async def defer(self, lease: Lease, why: Failing) -> Failing | None:
        """Put mail of a dead destination off without dialling; it may expire of that, as after an attempt."""
        waited, in_queue = self._times(lease)
        outcomes = suspended(lease.recipients, why.status, why.reason, waited=waited, in_queue=in_queue)
        await self._settler.settle(lease, AttemptResult(outcomes=outcomes))
        return None

    async def deliver(self, lease: Lease) -> Failing | None:
        """Attempt each route of a lease (one, unless routes have changed since it was queued), then settle it.

        :returns: what the destination itself failed with, if it did.
        """
        held: list[tuple[Terms, Session]] = []
        try:
            return await self._deliver(lease, held)
        finally:
            for terms, session in held:
                self._deliverer.pool.give(terms, session)

    async def _deliver(self, lease: Lease, held: list[tuple[Terms, Session]]) -> Failing | None:
        outcomes: dict[RecipientId, Outcome] = {}
        try:
            failing = await self._attempt_routes(lease, outcomes, held)
        except asyncio.CancelledError:
            if outcomes:
                # What hosts took already must not go to them again; the rest is as it was.
                await self._settler.settle(lease, AttemptResult(outcomes=outcomes))
            raise
        with self._lanes.small_first():  # whoever hands in a message waits for the same commits
            await self._settler.settle(lease, AttemptResult(outcomes=outcomes))
        return failing

    async def _attempt_routes(
        self, lease: Lease, outcomes: dict[RecipientId, Outcome], held: list[tuple[Terms, Session]]
    ) -> Failing | None:
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
                body=lambda: self._content(lease.message),
                held=held,
            )
            failing = await self._attempt(delivery, policies, lease, outcomes) or failing
        return failing

    def _content(self, message: Message) -> AsyncIterator[bytes]:
        content = self._store.open_body(message.queue_id)
        return content if message.size <= LARGE_OCTETS else self._lanes.paced(content)

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
