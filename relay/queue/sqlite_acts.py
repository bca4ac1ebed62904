"""``QueueActs`` of the SQLite queue: steps in the reader's thread, acts in the writer's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import apsw

from relay.mail.envelope import QueueId
from relay.queue import actions, listing
from relay.queue.acts import Act, Acted, Found, GroupBy, HoldRule, Tallied
from relay.queue.filter import Filter
from relay.queue.store import Lease, QueueEntry, StoreUnavailable
from relay.queue.transactions import Choose

Run = Callable[[Callable[[apsw.Connection], Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteActs:
    """What administrators do to a ``SqliteStore``, which makes this.

    :param read: runs a job in the reader's thread.
    :param commit: runs a job in the writer's thread and returns when it is committed.
    :param lease: leases what a job chooses, as ``SqliteStore`` does.
    :param remove: removes a spool file that no message needs any more.
    :param forget: told of each message that was changed; what is in memory of it may be wrong.
    """

    read: Run
    commit: Run
    lease: Callable[[Choose, datetime, datetime], Awaitable[Sequence[Lease]]]
    remove: Callable[[str], Awaitable[None]]
    forget: Callable[[QueueId], None]
    clock: Callable[[], datetime]

    async def find(self, where: Filter, *, after: QueueId | None = None, looking: int) -> Found:
        """One step through the queue; see ``QueueActs.find``."""
        job = partial(listing.find, where=where, after=after, looking=looking, now=self.clock())
        found: Found = await self.read(job)
        return found

    async def tally(self, where: Filter, by: GroupBy, *, after: QueueId | None = None, looking: int) -> Tallied:
        """One step of counting; see ``QueueActs.tally``."""
        job = partial(listing.tally, where=where, by=by, after=after, looking=looking, now=self.clock())
        tallied: Tallied = await self.read(job)
        return tallied

    async def entries(self, ids: Collection[QueueId], where: Filter) -> Sequence[QueueEntry]:
        """Messages with the recipients that the filter means."""
        job = partial(listing.entries_of, ids=tuple(ids), where=where, now=self.clock())
        entries: list[QueueEntry] = await self.read(job)
        return entries

    async def act(self, act: Act, where: Filter, ids: Collection[QueueId]) -> Acted:
        """Do something; see ``QueueActs.act``."""
        job = partial(actions.act, what=act, where=where, ids=tuple(ids), now=self.clock())
        done: actions.Done = await self.commit(job)
        for queue_id in done.acted.recipients:
            self.forget(queue_id)
        for name in done.spooled:
            with suppress(StoreUnavailable):  # it is deleted all the same; the file is swept at the next start
                await self.remove(name)
        return done.acted

    async def take(self, where: Filter, ids: Collection[QueueId], *, until: datetime) -> Sequence[Lease]:
        """Lease what the filter means; see ``QueueActs.take``."""
        at = self.clock()
        job = partial(actions.take, where=where, ids=tuple(ids))
        return await self.lease(job, at, until)

    async def hold_rules(self) -> Sequence[HoldRule]:
        """The rules for mail that comes in."""
        rules: list[HoldRule] = await self.read(actions.hold_rules)
        return rules

    async def add_hold_rule(self, *, filter_text: str, reason: str, by: str) -> HoldRule:
        """Hold what comes in from now on and fits."""
        job = partial(actions.add_hold_rule, filter_text=filter_text, reason=reason, by=by, now=self.clock())
        rule: HoldRule = await self.commit(job)
        return rule

    async def remove_hold_rule(self, number: int) -> bool:
        """End a rule."""
        there: bool = await self.commit(partial(actions.remove_hold_rule, rule=number))
        return there
