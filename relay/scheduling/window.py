"""One destination's window: how many deliveries it gets at a time, and when it is given up for a while (qmgr_queue.c).

Success lets it grow, failure of the destination itself (connection, TLS, look-up; not a refused message) shrinks it. Each
failure also counts as its share of a cohort, a window's worth of deliveries; after so many failed cohorts without a success
between them the destination is dead: its mail is deferred without dialling until a pause is over.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.mail.reply import EnhancedStatus
from relay.scheduling.feedback import WHOLE, Feedback


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The ``[smtp]`` options of a destination's scheduling, and two of ``[queue]``. Times are seconds.

    :param initial: deliveries at a time to begin with (``initial_destination_concurrency``).
    :param limit: deliveries at a time at most (``destination_concurrency_limit``).
    :param positive: what a success adds (``destination_concurrency_positive_feedback``).
    :param negative: what a failure takes away (``destination_concurrency_negative_feedback``).
    :param failed_cohorts: after so many the destination is dead; 0 for never
        (``destination_concurrency_failed_cohort_limit``).
    :param rate_delay: pause after each delivery; it makes the limit 1 (``destination_rate_delay``).
    :param pause: how long a dead destination is left alone (``minimal_backoff_time``).
    :param own_pause: the same where the fault may be ours (``transport_retry_time``).
    """

    initial: int = 5
    limit: int = 20
    positive: Feedback = WHOLE
    negative: Feedback = WHOLE
    failed_cohorts: float = 1.0
    rate_delay: float = 0.0
    pause: float = 300.0
    own_pause: float = 60.0

    @property
    def highest(self) -> int:
        """The limit, which is 1 where a pause is to follow each delivery."""
        return 1 if self.rate_delay else self.limit

    @property
    def first(self) -> int:
        """The window of a destination that nothing is known of."""
        return min(self.initial, self.highest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """The destination itself failed in an attempt.

    :param reason: as it was logged for the message that found out.
    :param ours: whether the fault may be this machine's, not the destination's.
    """

    status: EnhancedStatus
    reason: str
    ours: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspension:
    """A dead destination: why, and until when (seconds on the caller's clock)."""

    why: Failing
    until: float


class Window:
    """The window of one destination; it changes with each delivery's end."""

    __slots__ = ("_failed_cohorts", "_failures", "_limits", "_successes", "busy", "resting_until", "size", "suspension")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._successes = 0.0
        self._failures = 0.0
        self._failed_cohorts = 0.0
        self.size = limits.first
        self.busy = 0
        self.suspension: Suspension | None = None
        self.resting_until = 0.0

    def ended(self, now: float, failing: Failing | None) -> None:
        """A delivery ended; it still counts as busy while the window moves.

        :param failing: what the destination itself failed with, if it did.
        """
        if failing is None:
            self._grow()
        elif self.suspension is None:
            self._shrink(now, failing)
        self.busy -= 1
        if self._limits.rate_delay:
            self.resting_until = now + self._limits.rate_delay

    def revive(self) -> None:
        """End a suspension: begin anew, with what is still under way or as with a stranger."""
        self.suspension = None
        self.size = min(self.busy, self._limits.highest) or self._limits.first
        self._successes = self._failures = self._failed_cohorts = 0.0

    def _grow(self) -> None:
        self._failed_cohorts = 0.0
        if self.suspension is not None:
            self.revive()
            return
        # Only so far beyond what is under way as it began, or failures would not be felt.
        if self.size >= self._limits.highest or self.size >= self.busy + self._limits.first:
            return
        step = self._limits.positive.value(self.size)
        self._successes += step
        while step and self._successes + step / 2 >= 1:
            self.size += 1
            self._successes -= 1
            self._failures = 0.0
        self.size = min(self.size, self._limits.highest)

    def _shrink(self, now: float, failing: Failing) -> None:
        self._failed_cohorts += 1 / self.size
        if self._limits.failed_cohorts and self._failed_cohorts >= self._limits.failed_cohorts:
            pause = self._limits.own_pause if failing.ours else self._limits.pause
            self.suspension = Suspension(why=failing, until=now + pause)
            return
        step = self._limits.negative.value(self.size)
        # Failure is felt at the beginning of its cycle, success at the end of its own.
        self._failures -= step
        while self._failures - step / 2 < 0:
            if not step:
                break
            self.size -= 1
            self._successes = 0.0
            self._failures += 1
        self.size = max(self.size, 1)
