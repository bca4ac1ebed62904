"""What is known so far of each recipient of one attempt, and what becomes of those that no host took (smtp_trouble.c)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from relay.delivery.delivery import Delivery
from relay.delivery.trouble import Kind, Trouble
from relay.log.events import HostFailed, Observer
from relay.mail.envelope import Recipient, RecipientId
from relay.mail.reply import EnhancedStatus
from relay.outcome.result import (
    AttemptResult,
    Bounced,
    Deferred,
    Delays,
    Local,
    NoHost,
    Outcome,
    RecipientResult,
    RelayHost,
    Sent,
)


class Tally:
    """What is known so far of each recipient of one attempt.

    :param finished: gets each outcome as soon as it is final, so that it outlives an attempt that breaks off.
    :param soft_bounce: whether nothing bounces: what is hard is tried at the next host, then deferred.
    """

    def __init__(
        self,
        delivery: Delivery,
        finished: dict[RecipientId, Outcome],
        *,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        observe: Observer,
        soft_bounce: bool = False,
    ) -> None:
        self._delivery = delivery
        self._soft_bounce = soft_bounce
        self._monotonic = monotonic
        self._observe = observe
        self._pending: dict[RecipientId, Recipient] = {r.id: r for r in delivery.recipients}
        self._troubles: dict[RecipientId, Trouble] = {}
        self._outcomes = finished
        self._last: Trouble | None = None
        self._began = monotonic()
        self._in_queue = max(0.0, (clock() - delivery.leased_at).total_seconds())
        self._sending_since: float | None = None

    @property
    def pending(self) -> tuple[Recipient, ...]:
        """The recipients that have no final answer yet."""
        return tuple(self._pending.values())

    def sending_begins(self) -> None:
        """From now on time counts as transmission, not as connection set-up."""
        self._sending_since = self._monotonic()
        self._tell_last()

    def sent(self, recipient_id: RecipientId, sent: Sent, relay: RelayHost, tls: str, reused: int = 0) -> None:
        """A host took responsibility for a recipient.

        :param reused: how many messages the session had carried before.
        """
        self._settle(recipient_id, sent, relay, tls, reused)

    def refuse(self, trouble: Trouble, ids: Iterable[RecipientId] | None = None) -> None:
        """A host did not take some recipients (all that are pending, if not said)."""
        if ids is None:
            self._tell_last()
        self._last = trouble
        for recipient_id in list(self._pending) if ids is None else ids:
            if self._soft_bounce:
                self._troubles[recipient_id] = trouble
            elif trouble.kind is Kind.HARD:
                self._settle(recipient_id, _bounced(trouble), trouble.relay, trouble.tls, trouble.reused)
            elif trouble.kind is Kind.SOFT or self._kind_so_far(recipient_id) is not Kind.SOFT:
                # What only the last host may bounce does not bounce where another host may yet take it.
                self._troubles[recipient_id] = trouble

    def end(self, result: RecipientResult) -> None:
        """The route itself says what becomes of every recipient, as with postfix error(8) and discard(8)."""
        for recipient_id in list(self._pending):
            self._settle(recipient_id, self._final(result), NoHost(), "")

    def announce(self, trouble: Trouble) -> None:
        """Log a failure after which the attempt goes on."""
        self._observe(HostFailed(self._delivery.message.queue_id, trouble.reason))

    def close(self) -> AttemptResult:
        """No host is left: what is pending is deferred, or bounced where the last host decided that."""
        throttled_by: Deferred | None = None
        for recipient_id in list(self._pending):
            trouble = self._troubles.get(recipient_id) or _NO_SERVER
            final = self._final(_deferred(trouble) if trouble.kind is Kind.SOFT else _bounced(trouble))
            if trouble.throttles and isinstance(final, Deferred):
                throttled_by = final
            self._settle(recipient_id, final, trouble.relay, trouble.tls, trouble.reused)
        return AttemptResult(outcomes=self._outcomes, throttled_by=throttled_by)

    def _final(self, result: RecipientResult) -> RecipientResult:
        """What becomes of a recipient; under ``soft_bounce`` a bounce is a deferral (postfix global/bounce.c)."""
        if not self._soft_bounce or not isinstance(result, Bounced):
            return result
        status = result.status.softened()
        return Deferred(status=status, reason=result.reason, diagnostic=result.diagnostic, softened=True)

    def _kind_so_far(self, recipient_id: RecipientId) -> Kind | None:
        trouble = self._troubles.get(recipient_id)
        return None if trouble is None else trouble.kind

    def _tell_last(self) -> None:
        if self._last is not None and self._pending:
            self.announce(self._last)
        self._last = None

    def _settle(
        self, recipient_id: RecipientId, result: RecipientResult, relay: RelayHost | NoHost, tls: str, reused: int = 0
    ) -> None:
        now = self._monotonic()
        setup_until = now if self._sending_since is None else self._sending_since
        self._outcomes[recipient_id] = Outcome(
            recipient=recipient_id,
            result=result,
            relay=relay,
            delays=Delays(
                before_queue=self._delivery.waited,
                in_queue=self._in_queue,
                setup=setup_until - self._began,
                transmission=now - setup_until,
            ),
            tls=tls,
            reused=reused,
        )
        del self._pending[recipient_id]


def without_host(status: EnhancedStatus, reason: str, kind: Kind = Kind.SOFT) -> Trouble:
    """A trouble before there was a host to talk to."""
    return Trouble(status=status, reason=reason, diagnostic=Local(reason), relay=NoHost(), tls="unknown?", kind=kind)


def _deferred(trouble: Trouble) -> Deferred:
    return Deferred(status=trouble.status, reason=trouble.reason, diagnostic=trouble.diagnostic)


def _bounced(trouble: Trouble) -> Bounced:
    return Bounced(status=trouble.status, reason=trouble.reason, diagnostic=trouble.diagnostic)


_NO_SERVER = without_host(EnhancedStatus(4, 3, 0), "server unavailable or unable to receive mail")
