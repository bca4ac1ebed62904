"""What administrators do to a queue, as the seam that every engine offers beside ``QueueStore``.

Whoever acts goes through the queue step by step (``find``), so that a million messages are many short transactions and
deliveries go on between them; each step is all or nothing (``act``, ``take``), and looks again at what the filter means. What
is being delivered just then is left alone and counted as ``busy``, except that it can be held: it is, when it comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from relay.mail.envelope import Address, QueueId, Sender
from relay.policy.override import AsConfigured, TlsOverride
from relay.queue.filter import Filter
from relay.queue.store import Lease, QueueEntry


@dataclass(frozen=True, slots=True)
class Flush:
    """Due now; what is held stays so."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Not to be delivered until released; what is held never expires."""


@dataclass(frozen=True, slots=True)
class Release:
    """No longer held, and due now."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Gone, and nobody is told."""


@dataclass(frozen=True, slots=True)
class Requeue:
    """Routed anew, due now, no longer held, under this override or none.

    :param destination_of: the scheduling key of mail to an address from a sender; called in another thread.
    """

    destination_of: Callable[[Address, Sender], str]
    override: TlsOverride | AsConfigured


Act = Flush | Hold | Release | Delete | Requeue


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One step through the queue.

    :param ids: messages of which the filter means a recipient, in the order of their IDs.
    :param recipients: that it means, in all of them.
    :param looked: messages that were looked at.
    :param last: where the next step begins; None where the queue ends.
    """

    ids: tuple[QueueId, ...]
    recipients: int
    looked: int
    last: QueueId | None


class GroupBy(Enum):
    """What recipients can be counted by."""

    DOMAIN = "domain"
    DESTINATION = "destination"
    SENDER = "sender"
    STATUS = "status"
    REASON = "reason"


@dataclass(frozen=True, slots=True)
class Group:
    """Recipients that have something in common, and when the oldest of their messages came in."""

    recipients: int
    oldest: datetime

    def joined(self, other: Group) -> Group:
        """Both together."""
        return Group(self.recipients + other.recipients, min(self.oldest, other.oldest))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tallied:
    """One step of counting: as ``Found``, with the groups that were met in it."""

    groups: dict[str, Group]
    last: QueueId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Acted:
    """What an act changed.

    :param recipients: by message, how many changed.
    :param busy: recipients that it meant and that are being delivered.
    """

    recipients: dict[QueueId, int]
    busy: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRule:
    """Mail that comes in and that the filter means is held.

    :param filter: as written.
    """

    number: int
    filter: str
    reason: str
    by: str
    at: datetime


class QueueActs(Protocol):
    """A queue that administrators can act on. Every method may raise ``StoreUnavailable``."""

    async def find(self, where: Filter, *, after: QueueId | None = None, looking: int) -> Found:
        """Look at up to ``looking`` messages from after ``after`` on.

        :raises FilterError: if the filter has a regular expression that this engine cannot use.
        """
        ...

    async def tally(self, where: Filter, by: GroupBy, *, after: QueueId | None = None, looking: int) -> Tallied:
        """Count what a filter means in up to ``looking`` messages from after ``after`` on; the null sender is empty."""
        ...

    async def entries(self, ids: Collection[QueueId], where: Filter) -> Sequence[QueueEntry]:
        """These messages in the order of their IDs, each with only the recipients that the filter means."""
        ...

    async def act(self, act: Act, where: Filter, ids: Collection[QueueId]) -> Acted:
        """Do something to the recipients of these messages that the filter means."""
        ...

    async def take(self, where: Filter, ids: Collection[QueueId], *, until: datetime) -> Sequence[Lease]:
        """Lease the recipients of these messages that the filter means, waiting or held, due or not."""
        ...

    async def hold_rules(self) -> Sequence[HoldRule]:
        """The rules for mail that comes in, oldest first."""
        ...

    async def add_hold_rule(self, *, filter_text: str, reason: str, by: str) -> HoldRule:
        """Hold what comes in from now on and fits; the filter is one that ``fits_arrivals``."""
        ...

    async def remove_hold_rule(self, number: int) -> bool:
        """End a rule; what it held stays held. Returns whether there was one of that number."""
        ...
