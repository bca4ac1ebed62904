"""Results of recipients whom no host was asked about: their destination is suspended, or the attempt broke off. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from relay.mail.envelope import Recipient, RecipientId
from relay.mail.reply import EnhancedStatus
from relay.outcome.result import Deferred, Delays, Local, NoHost, Outcome
from relay.outcome.wording import one_line

SUSPENDED = "delivery temporarily suspended"


def suspended(
    recipients: Iterable[Recipient], status: EnhancedStatus, reason: str, *, waited: float, in_queue: float
) -> Mapping[RecipientId, Outcome]:
    """Outcomes at a dead destination, in the words of Postfix's error(8) and with no ``tls=``, as it has none.

    :param status: and ``reason``: of the attempt that found the destination dead.
    :param waited: seconds from the message's arrival until the queue gave it out.
    :param in_queue: seconds since then.
    """
    text = one_line(f"{SUSPENDED}: {reason}")
    return _all(recipients, Deferred(status=status, reason=text, diagnostic=Local(text)), "", waited, in_queue)


def broken_off(
    recipients: Iterable[Recipient], why: str, *, waited: float, in_queue: float
) -> Mapping[RecipientId, Outcome]:
    """Outcomes of an attempt that ended in a way nobody foresaw."""
    deferred = Deferred(status=EnhancedStatus(4, 3, 0), reason=why, diagnostic=Local(why))
    return _all(recipients, deferred, "unknown?", waited, in_queue)


def _all(
    recipients: Iterable[Recipient], result: Deferred, tls: str, waited: float, in_queue: float
) -> Mapping[RecipientId, Outcome]:
    delays = Delays(before_queue=waited, in_queue=in_queue, setup=0, transmission=0)
    return {
        recipient.id: Outcome(recipient=recipient.id, result=result, relay=NoHost(), delays=delays, tls=tls)
        for recipient in recipients
    }
