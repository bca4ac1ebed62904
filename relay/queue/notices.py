"""Which reports the results of an attempt cause, and who gets them. Pure.

To senders as RFC 3461 says; to the postmaster by class, as Postfix's ``notify_classes`` (postconf(5), bounce(8)). No report
ever causes another to its own author: what has the null sender is never reported to a sender, and what could not be
delivered to a postmaster is not told to that postmaster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Final, assert_never

from relay.log.events import NotNotified
from relay.mail.envelope import Address, Notify, NullSender, Recipient, RecipientId
from relay.outcome.dsn import MAX_RETURNED_OCTETS, Audience, Kind
from relay.outcome.result import Bounced, Deferred, RecipientResult, Sent
from relay.queue.store import Lease


class NoticeClass(Enum):
    """What the postmaster can have copies of (``notify_classes``)."""

    BOUNCE = "bounce"
    DOUBLE_BOUNCE = "2bounce"
    DELAY = "delay"
    POLICY = "policy"
    PROTOCOL = "protocol"
    RESOURCE = "resource"
    SOFTWARE = "software"


OF_INCIDENTS = frozenset({NoticeClass.POLICY, NoticeClass.PROTOCOL, NoticeClass.RESOURCE, NoticeClass.SOFTWARE})
"""Not copies of reports, but what happened to sessions and to the relay itself (``relay.queue.postmaster``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """What is reported beside what RFC 3461 demands.

    :param size_limit: octets of a message that goes back whole; of a larger one only the header (bounce_size_limit).
    :param delay_warning_time: seconds of age from which on a sender is told of a delay, once; 0 for never.
    :param notices: who gets the postmaster's copies; a class without an address has none.
    """

    size_limit: int = MAX_RETURNED_OCTETS
    delay_warning_time: float = 0.0
    notices: Mapping[NoticeClass, Address] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A report to be made."""

    kind: Kind
    audience: Audience
    reader: Address
    recipients: tuple[Recipient, ...]

    @property
    def word(self) -> str:
        """What the log calls it (bounce_notify_service.c and its like)."""
        match self.kind:
            case Kind.NON_DELIVERY:
                return "non-delivery"
            case Kind.DELAY:
                return "delay"
            case Kind.SUCCESS:
                return "delivery status"
            case _:
                assert_never(self.kind)


@dataclass(frozen=True, slots=True)
class Notices:
    """What to report, and what is not reported though mail was lost.

    :param told: recipients whose delay is reported by this; each delay is told once.
    """

    wanted: tuple[Wanted, ...]
    withheld: tuple[NotNotified, ...]
    told: frozenset[RecipientId]


NOTHING: Final = Notices(wanted=(), withheld=(), told=frozenset())


def notices(
    lease: Lease, results: Mapping[RecipientId, RecipientResult], options: ReportOptions, now: datetime
) -> Notices:
    """What the final results of an attempt cause.

    :param results: with a deferral after the message's lifetime turned into a failure already.
    """
    ended = [recipient for recipient in lease.recipients if recipient.id in results]
    if all(one.notify is Notify.UNSPECIFIED and isinstance(results[one.id], Sent) for one in ended):
        return NOTHING  # nearly all mail
    bounced = tuple(one for one in ended if isinstance(results[one.id], Bounced))
    late = tuple(_late(lease, ended, results, options, now))
    sender = lease.message.envelope.sender
    if isinstance(sender, NullSender):
        return _of_a_report(lease, bounced, options)
    wanted: list[Wanted] = []
    withheld: list[NotNotified] = []
    for kind, recipients in (
        (Kind.NON_DELIVERY, [one for one in bounced if one.notify.on_failure]),
        (Kind.SUCCESS, [one for one in ended if _wants_success(one, results[one.id])]),
        (Kind.DELAY, [one for one in late if one.notify.on_delay]),
    ):
        if recipients:
            wanted.append(Wanted(kind=kind, audience=Audience.SENDER, reader=sender, recipients=tuple(recipients)))
    if unasked := [one for one in bounced if not one.notify.on_failure]:
        withheld.append(NotNotified(lease.message.queue_id, _unasked(unasked)))
    wanted += _to_postmaster(NoticeClass.BOUNCE, Kind.NON_DELIVERY, bounced, options)
    wanted += _to_postmaster(NoticeClass.DELAY, Kind.DELAY, late, options)
    told = frozenset(one.id for report in wanted if report.kind is Kind.DELAY for one in report.recipients)
    return Notices(tuple(wanted), tuple(withheld), told)


def _of_a_report(lease: Lease, bounced: Sequence[Recipient], options: ReportOptions) -> Notices:
    """A report that failed has no sender to be told: it ends here, with a copy to the postmaster if that is wanted."""
    wanted = tuple(_to_postmaster(NoticeClass.DOUBLE_BOUNCE, Kind.NON_DELIVERY, bounced, options))
    copied = {one.id for report in wanted for one in report.recipients}
    lost = [one for one in bounced if one.id not in copied]
    withheld: tuple[NotNotified, ...] = ()
    if lost and any(_same(one.address, reader) for one in lost for reader in options.notices.values()):
        withheld = (NotNotified(lease.message.queue_id, "it was to the postmaster", Audience.POSTMASTER),)
    elif lost:
        withheld = (NotNotified(lease.message.queue_id, "the message has the null sender"),)
    return Notices(wanted, withheld, frozenset())


def _late(
    lease: Lease,
    ended: Sequence[Recipient],
    results: Mapping[RecipientId, RecipientResult],
    options: ReportOptions,
    now: datetime,
) -> Iterator[Recipient]:
    """Those that are deferred, have waited for long enough, and whose delay nobody was told of."""
    if not options.delay_warning_time or now < lease.message.arrived_at + timedelta(seconds=options.delay_warning_time):
        return
    for recipient in ended:
        if isinstance(results[recipient.id], Deferred) and recipient.id not in lease.delay_told:
            yield recipient


def _to_postmaster(
    notice: NoticeClass, kind: Kind, recipients: Sequence[Recipient], options: ReportOptions
) -> Iterator[Wanted]:
    """The postmaster's copy, but not of what could not be delivered to that postmaster: that would never end."""
    reader = options.notices.get(notice)
    if reader is None:
        return
    others = tuple(one for one in recipients if not _same(one.address, reader))
    if others:
        yield Wanted(kind=kind, audience=Audience.POSTMASTER, reader=reader, recipients=others)


def _same(one: Address, other: Address) -> bool:
    """Whether two addresses may be one mailbox: that of a postmaster is never distinguished by its case (RFC 5321 4.5.1)."""
    return one.text.casefold() == other.text.casefold()


def _wants_success(recipient: Recipient, result: RecipientResult) -> bool:
    """RFC 3461 section 5.2.2: if the next host did not take the request over, we say that we relayed."""
    return Notify.SUCCESS in recipient.notify and isinstance(result, Sent) and not result.dsn_passed_on


def _unasked(bounced: Sequence[Recipient]) -> str:
    return f"NOTIFY does not ask for it: {', '.join(f'<{one.address}>' for one in bounced)}"
