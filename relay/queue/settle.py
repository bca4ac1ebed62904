"""The one place that writes what became of an attempt.

Results, next attempt and the report that they cause are one transaction; what is told (log, metrics) is told after it. A
result is never given up because its task was cancelled or the store was away: it is kept until it is written, or until
the relay stops and the store is still away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from relay.log.events import Event, Expired, Noted, Notified, Observer, Program, Removed, Settled, Warned
from relay.mail.envelope import Address, Message, QueueId, Recipient, RecipientId, Sender
from relay.outcome.dsn import Reported
from relay.outcome.named_wait import named_wait
from relay.outcome.result import (
    AttemptResult,
    Bounced,
    Deferred,
    Diagnostic,
    FromPeer,
    Local,
    Outcome,
    RecipientResult,
    RelayHost,
    Sent,
)
from relay.queue.notices import ReportOptions, notices
from relay.queue.reports import Reporter
from relay.queue.schedule import RetrySchedule
from relay.queue.store import Lease, LeaseLost, QueueStore, Report, Settlement, StoreUnavailable

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
# A kept result holds its lease well beyond the next try.
HOLD = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to write, and what to tell when it is written."""

    settlement: Settlement
    told: tuple[Event, ...]


class Settler:
    """Settles leases.

    :param hostname: ours, in reports.
    :param new_id: a new queue ID at each call, for reports.
    :param destination_of: the scheduling key of mail to an address from a sender, for reports.
    :param reporting: delays, sizes and the postmaster's copies.
    :param queued: told of the destinations of reports when they are in the queue, to wake whoever delivers.
    :param sleep: seconds to wait before trying the store again.
    """

    def __init__(
        self,
        *,
        store: QueueStore,
        schedule: RetrySchedule,
        hostname: str,
        clock: Callable[[], datetime],
        new_id: Callable[[], QueueId],
        destination_of: Callable[[Address, Sender], str],
        observe: Observer,
        reporting: ReportOptions | None = None,
        queued: Callable[[Collection[str]], None] = lambda destinations: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._schedule = schedule
        self._clock = clock
        self._observe = observe
        self._queued = queued
        self._sleep = sleep
        self._reporting = reporting or ReportOptions()
        self._reporter = Reporter(
            store=store,
            hostname=hostname,
            size_limit=self._reporting.size_limit,
            new_id=new_id,
            destination_of=destination_of,
        )

    async def settle(self, lease: Lease, result: AttemptResult) -> None:
        """Write the outcomes of an attempt; returns when they are written, or somebody else took the delivery over.

        If the caller is cancelled, what was begun is brought to its end first; only a store that is still away then
        makes it give up, which is told as a warning.
        """
        stopping = asyncio.Event()
        work = asyncio.ensure_future(self._settle(lease, result, stopping))
        cancelled = False
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                cancelled = True
                stopping.set()
        work.result()
        if cancelled:
            raise asyncio.CancelledError

    async def _settle(self, lease: Lease, result: AttemptResult, stopping: asyncio.Event) -> None:
        queue_id = lease.message.queue_id
        now = self._clock()
        plan: _Plan | None = None
        pause = FIRST_PAUSE
        waited = False
        while True:
            last_try = stopping.is_set()
            try:
                if waited:
                    await self._store.extend([lease.token], self._clock() + HOLD)
                plan = plan or await self._plan(lease, result.outcomes, now)
                last = await self._store.settle(plan.settlement)
                self._tell(plan, queue_id, last=last, waited=waited)
                return
            except LeaseLost:
                self._warn(
                    "another attempt took over before the results were written; mail may be sent twice", queue_id
                )
                return
            except StoreUnavailable as error:
                if last_try:
                    self._warn(f"results not written before the stop, mail may be sent twice: {error}", queue_id)
                    return
                if not waited:
                    self._warn(f"results not written yet, they are kept: {error}", queue_id)
            waited = True
            await self._pause(pause, stopping)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _tell(self, plan: _Plan, queue_id: QueueId, *, last: bool, waited: bool) -> None:
        if waited:
            self._observe(Noted(Program.QMGR, "results are written now", queue_id))
        for event in plan.told:
            self._observe(event)
        if last:
            self._observe(Removed(queue_id))
        if plan.settlement.reports:
            self._queued({name for report in plan.settlement.reports for name in report.message.destinations.values()})

    async def _plan(self, lease: Lease, outcomes: Mapping[RecipientId, Outcome], now: datetime) -> _Plan:
        message = lease.message
        sender = message.envelope.sender
        deferred = any(isinstance(outcome.result, Deferred) for outcome in outcomes.values())
        expired = deferred and self._schedule.is_expired(arrived_at=message.arrived_at, sender=sender, now=now)
        results = {id_: _final(outcome.result, expired=expired) for id_, outcome in outcomes.items()}
        causes = notices(lease, results, self._reporting, now)
        reports: list[Report] = []
        reported: list[Event] = []
        for wanted in causes.wanted:
            people = [_reported(one, outcomes[one.id], results[one.id]) for one in wanted.recipients]
            retry_until = self._schedule.expires_at(arrived_at=message.arrived_at, sender=sender)
            report = await self._reporter.report(wanted, message, people, now=now, retry_until=retry_until)
            reports.append(report)
            reported.append(Notified(message.queue_id, wanted.word, report.message.queue_id, wanted.audience))
        told: list[Event] = [
            Settled(queue_id=message.queue_id, recipient=recipient.address, outcome=outcomes[recipient.id])
            for recipient in lease.recipients
            if recipient.id in outcomes
        ]
        if expired:
            told.append(Expired(message.queue_id, sender))
        all_done = not deferred and len(results) == len(lease.recipients)
        settlement = Settlement(
            lease=lease,
            results=results,
            next_attempt=now if all_done else self._next_attempt(message, results.values(), now),
            reports=tuple(reports),
            delay_told=causes.told,
        )
        return _Plan(settlement, (*told, *reported, *causes.withheld))

    def _next_attempt(self, message: Message, results: Iterable[RecipientResult], now: datetime) -> datetime:
        """When those that were deferred may all be tried again."""
        waits = {named_wait(result) for result in results if isinstance(result, Deferred)} or {0.0}
        return max(self._schedule.next_attempt(arrived_at=message.arrived_at, now=now, named=wait) for wait in waits)

    async def _pause(self, seconds: float, stopping: asyncio.Event) -> None:
        """Wait, but no longer than until the relay stops."""
        waits = {asyncio.ensure_future(self._sleep(seconds)), asyncio.ensure_future(stopping.wait())}
        _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in pending:
            wait.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    def _warn(self, text: str, queue_id: QueueId) -> None:
        self._observe(Warned(Program.QMGR, text, queue_id))


def _final(result: RecipientResult, *, expired: bool) -> RecipientResult:
    """A deferral after the message's lifetime is a failure, for the reason it was a deferral."""
    if expired and isinstance(result, Deferred):
        return Bounced(status=result.status, reason=result.reason, diagnostic=result.diagnostic)
    return result


def _reported(recipient: Recipient, outcome: Outcome, result: RecipientResult) -> Reported:
    diagnostic: Diagnostic
    match result:
        case Sent(reply=reply):
            host = outcome.relay
            diagnostic = FromPeer(reply=reply, mta=host.name) if isinstance(host, RelayHost) else Local(reply.one_line)
        case Deferred() | Bounced():
            diagnostic = result.diagnostic
        case _:
            assert_never(result)
    return Reported(recipient=recipient, status=result.status, reason=result.reason, diagnostic=diagnostic)
