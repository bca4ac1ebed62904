"""Audits of sessions, beside the deliveries: a stricter level gathers and judges for itself, and holds nothing up.

Two laws:

* A delivery neither waits for an audit nor hears of it: each runs in a task of its own, after the session was had.
* What is under way is bounded in number and time; what comes when there is no room is not audited, and counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from relay.dane.tlsa import Failed
from relay.delivery.facts import FactFinder
from relay.delivery.gather import Gatherer, LookupTrouble
from relay.delivery.leg import Leg
from relay.delivery.opening import Session
from relay.delivery.trouble import Trouble
from relay.dns.probe import Validation
from relay.log.events import Observer, SessionAudited
from relay.mail.envelope import QueueId
from relay.mail.names import Domain, IpLiteral
from relay.outcome.audit import Audited, audit
from relay.outcome.result import RelayHost
from relay.outcome.wording import explain, one_line
from relay.policy.audit import Finding, audited_entry
from relay.policy.policy import MapEntry, NoEntry
from relay.tls.peer import CheckChain, InClear, NotSeen, PeerFacts

MAX_UNDER_WAY: Final = 200
SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Had:
    """A session that was had, and the host it was with."""

    leg: Leg
    host: Domain | IpLiteral
    relay: RelayHost
    seen: PeerFacts | InClear
    queue_id: QueueId


class Auditor:
    """Audits sessions whose destination asks for it.

    :param validation: gives a fresh opinion on whether the resolver validates.
    :param observe: told of each audit.
    """

    def __init__(
        self,
        *,
        gatherer: Gatherer,
        validation: Callable[[], Awaitable[Validation]],
        check_chain: CheckChain,
        clock: Callable[[], datetime],
        observe: Observer,
    ) -> None:
        self._gatherer = gatherer
        self._validation = validation
        self._check_chain = check_chain
        self._clock = clock
        self._observe = observe
        self._under_way: set[asyncio.Task[None]] = set()
        self.left_out = 0

    def reused(self, leg: Leg, relay: RelayHost, session: Session, queue_id: QueueId) -> None:
        """Nothing to do: it was audited when it was had."""

    def carried(self, leg: Leg, relay: RelayHost, session: Session) -> None:
        """Nothing to do: an audit is of the session, not of what went over it."""

    def had(self, leg: Leg, relay: RelayHost, opened: Session | Trouble, queue_id: QueueId) -> None:
        """Audit a session in the background, if its destination asks for it and there is room."""
        entry = audited_entry(leg.entry, leg.defaults)
        if isinstance(entry, NoEntry) or isinstance(opened.seen, NotSeen):
            return
        if len(self._under_way) >= MAX_UNDER_WAY:
            self.left_out += 1
            return
        host = IpLiteral(relay.address) if relay.name == str(relay.address) else Domain.parse(relay.name)
        had = _Had(leg=leg, host=host, relay=relay, seen=opened.seen, queue_id=queue_id)
        task = asyncio.create_task(self._audit(had, entry), name=f"audit {queue_id} at {relay}")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def finish(self, deadline: float) -> None:
        """Wait for audits under way, then give up what is left."""
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=deadline)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _audit(self, had: _Had, entry: MapEntry) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                audited = await self._find_out(had, entry)
        except TimeoutError:
            audited = _no_answer(entry, f"none within {SECONDS:g} seconds")
        self._observe(
            SessionAudited(
                queue_id=had.queue_id,
                destination=had.leg.next_hop.key,
                relay=had.relay,
                asked=entry.level,
                level=audited.level,
                finding=audited.finding,
                text=audited.text,
            )
        )

    async def _find_out(self, had: _Had, entry: MapEntry) -> Audited:
        """A look-up of the audit's own for everything: what the delivery did not need, it did not ask for."""
        leg = Leg(next_hop=had.leg.next_hop, entry=entry, defaults=had.leg.defaults)
        opinion = await self._validation() if leg.asks_for_dane else None
        destination = await self._gatherer.destination(leg.next_hop)
        if isinstance(destination, LookupTrouble):
            return _no_answer(entry, destination.text)
        addresses = await self._gatherer.addresses(had.host)
        if isinstance(addresses, LookupTrouble):
            return _no_answer(entry, addresses.text)
        address = next((one for one in addresses if one.address == had.relay.address), None)
        if address is None:
            return _no_answer(entry, f"{had.relay.address} is no address of {had.host} any more")
        facts = await FactFinder(self._gatherer, self._validation).of(destination, had.host, address, leg, opinion)
        answered = facts.validating and not isinstance(facts.tlsa, Failed)
        return audit(
            leg.decide(facts), had.seen, had.relay.namaddr, self._check_chain, self._clock(), answered=answered
        )


def _no_answer(entry: MapEntry, found: str) -> Audited:
    text = explain("look-up failed", expected="an answer from the DNS", found=one_line(found), rule=str(entry.rule))
    return Audited(Finding.UNKNOWN, entry.level, text)
