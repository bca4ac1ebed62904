"""When to try again and when to give up, as Postfix's queue manager does (qmgr_active.c, qmgr_message.c). Pure.

* The wait grows with the age of the message: as long again as it has been here, within two bounds.
* Age is looked at only after an attempt failed: nobody is given up without having been tried.
* Beyond Postfix: a wait that the host named is kept, within bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from relay.mail.envelope import NullSender, Sender

# How many times sooner than by its age a message may be tried because its host named a time.
HASTE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySchedule:
    """The ``[queue]`` options, all in seconds.

    :param maximal_queue_lifetime: the age at which a failed attempt is the last; 0 for one attempt only.
    :param bounce_queue_lifetime: the same for mail with the null sender.
    """

    minimal_backoff_time: float = 300.0
    maximal_backoff_time: float = 4_000.0
    maximal_queue_lifetime: float = 432_000.0
    bounce_queue_lifetime: float = 432_000.0

    def next_attempt(self, *, arrived_at: datetime, now: datetime, named: float = 0.0) -> datetime:
        """When to try again what was deferred ``now``; a clock that went back counts as no age.

        :param named: seconds that the host asked us to wait, 0 if it did not: kept even where the message is older or
            younger than that, but a host that says "5 minutes" for days is not tried more than eight times as often.
        """
        age = (now - arrived_at).total_seconds()
        wait = max(self.minimal_backoff_time, min(age, self.maximal_backoff_time))
        if named:
            wait = min(max(named, self.minimal_backoff_time, wait / HASTE), max(wait, self.maximal_backoff_time))
        return now + timedelta(seconds=wait)

    def expires_at(self, *, arrived_at: datetime, sender: Sender) -> datetime:
        """From when on a failed attempt is the last."""
        lifetime = self.bounce_queue_lifetime if isinstance(sender, NullSender) else self.maximal_queue_lifetime
        return arrived_at + timedelta(seconds=lifetime)

    def is_expired(self, *, arrived_at: datetime, sender: Sender, now: datetime) -> bool:
        """Whether the attempt that just failed was the last."""
        return now >= self.expires_at(arrived_at=arrived_at, sender=sender)
