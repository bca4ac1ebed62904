"""Carries out the queue commands, step by step, in a running relay or on a queue that no relay uses.

A command goes over the queue in the order of queue IDs. Between any two steps deliveries and other commands have their turn,
and whoever asked hears how far it is. It is logged as ``postsuper`` would, with who did it and why.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Final, assert_never

from relay.log.events import Noted, Observer, Program, Warned
from relay.mail.envelope import Address, QueueId, RecipientId, Sender
from relay.mail.reply import EnhancedStatus
from relay.outcome.dsn import MAX_HEADER_OCTETS, header_section
from relay.outcome.result import AttemptResult, Bounced, Delays, Local, NoHost, Outcome
from relay.outcome.wording import one_line
from relay.policy.override import AS_CONFIGURED, AsConfigured, TlsOverride
from relay.queue.acts import (
    Act,
    Delete,
    Flush,
    Found,
    Group,
    GroupBy,
    Hold,
    HoldRule,
    QueueActs,
    Release,
    Requeue,
    Tallied,
)
from relay.queue.backup import BackedUp
from relay.queue.filter import Everything, Filter
from relay.queue.settle import Settler
from relay.queue.store import Lease, QueueEntry, QueueStore

# Messages looked at in the reader's thread at a time, and changed in one transaction: each some hundredths of a second.
LOOKING: Final = 5_000
AT_ONCE: Final = 500
BOUNCED_AT_ONCE: Final = 50
LEASE: Final = timedelta(minutes=30)
MAX_GROUPS: Final = 100_000
# RFC 3463 section 3.5: its time in the queue is over, if by an administrator's hand.
_GIVEN_UP: Final = EnhancedStatus(5, 4, 7)
_EVERYTHING: Final = Everything()


class Verb(Enum):
    """What can be done to queued mail."""

    FLUSH = "flush"
    HOLD = "hold"
    RELEASE = "release"
    REQUEUE = "requeue"
    DELETE = "delete"
    BOUNCE = "bounce"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command.

    :param by: who gave it.
    :param reason: why, in their words; may be empty.
    :param override: the TLS level that what is requeued is to have.
    :param dry_run: whether to say only what it would mean.
    """

    verb: Verb
    where: Filter
    by: str
    reason: str = ""
    override: TlsOverride | AsConfigured = AS_CONFIGURED
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a command is; the last one is its result.

    :param looked: messages looked at.
    :param messages: changed, or with ``dry_run`` meant; ``recipients`` of them likewise.
    :param busy: recipients that are being delivered just now and were left alone.
    """

    looked: int = 0
    messages: int = 0
    recipients: int = 0
    busy: int = 0

    def plus(self, *, looked: int = 0, messages: int = 0, recipients: int = 0, busy: int = 0) -> Progress:
        """Further on."""
        return Progress(
            looked=self.looked + looked,
            messages=self.messages + messages,
            recipients=self.recipients + recipients,
            busy=self.busy + busy,
        )


@dataclass(frozen=True, slots=True)
class Groups:
    """Recipients counted by what they have in common.

    :param left_out: recipients of further groups, for which there was no room.
    """

    groups: Mapping[str, Group]
    left_out: int

    def plus(self, step: Tallied) -> Groups:
        """With one step more."""
        groups, left_out = dict(self.groups), self.left_out
        for key, group in step.groups.items():
            if key in groups:
                groups[key] = groups[key].joined(group)
            elif len(groups) < MAX_GROUPS:
                groups[key] = group
            else:
                left_out += group.recipients
        return Groups(groups, left_out)


@dataclass(frozen=True, slots=True)
class Shown:
    """One message, and the header section of its content."""

    entry: QueueEntry
    header: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Administration:
    """Everything that queue commands need.

    :param destination_of: the scheduling key of mail to an address from a sender, under the routes in force.
    :param wake: tells whoever delivers that something became due.
    :param backup: copies the queue into a file, saying how far it is.
    """

    store: QueueStore
    acts: QueueActs
    settler: Settler
    destination_of: Callable[[Address, Sender], str]
    clock: Callable[[], datetime]
    observe: Observer
    wake: Callable[[], None]
    backup: Callable[[Path], AsyncGenerator[BackedUp, None]]

    async def run(self, command: Command) -> AsyncGenerator[Progress, None]:
        """Carry out a command; the last progress is the result.

        :raises FilterError: if the filter cannot be used.
        :raises StoreUnavailable: if the queue cannot be read or written; what was done by then stays done.
        """
        progress = Progress()
        try:
            async with aclosing(self._steps(command.where)) as steps:
                async for step in steps:
                    progress = progress.plus(looked=step.looked)
                    if command.dry_run:
                        progress = progress.plus(messages=len(step.ids), recipients=step.recipients)
                    else:
                        async for further in self._change(command, step.ids, progress):
                            progress = further
                            yield progress
                    yield progress
        finally:
            if progress.messages and not command.dry_run:
                self._tell_all(command, progress)
                if command.verb not in {Verb.HOLD, Verb.DELETE}:
                    self.wake()

    async def listing(
        self, where: Filter, *, after: QueueId | None = None
    ) -> AsyncGenerator[Sequence[QueueEntry], None]:
        """What a filter means, in steps that may be empty; each message with the recipients that it means."""
        async with aclosing(self._steps(where, after)) as steps:
            async for step in steps:
                for start in range(0, len(step.ids), AT_ONCE):
                    yield await self.acts.entries(step.ids[start : start + AT_ONCE], where)
                if not step.ids:
                    yield ()

    async def groups(self, where: Filter, by: GroupBy) -> AsyncGenerator[Groups, None]:
        """Count what a filter means, step by step; the last is the result."""
        found = Groups({}, left_out=0)
        last: QueueId | None = None
        while True:
            step = await self.acts.tally(where, by, after=last, looking=LOOKING)
            found = found.plus(step)
            yield found
            if step.last is None:
                return
            last = step.last

    async def show(self, queue_id: QueueId) -> Shown:
        """One message.

        :raises KeyError: if it is not in the queue.
        """
        entries = await self.acts.entries((queue_id,), _EVERYTHING)
        if not entries:
            raise KeyError(queue_id)
        content = bytearray()
        body = self.store.open_body(queue_id)
        try:
            async for chunk in body:
                content += chunk
                if len(content) >= MAX_HEADER_OCTETS:
                    break
        finally:
            if isinstance(body, AsyncGenerator):
                await body.aclose()
        return Shown(entries[0], header_section(bytes(content)))

    async def remove_hold_rule(self, number: int, by: str) -> bool:
        """End a rule for mail that comes in; returns whether there was one of that number."""
        rules = {rule.number: rule for rule in await self.acts.hold_rules()}
        there = await self.acts.remove_hold_rule(number)
        if there and number in rules:
            self.tell_rule(rules[number], "ended", by)
        return there

    async def back_up(self, target: Path, by: str) -> AsyncGenerator[BackedUp, None]:
        """Copy the whole queue into a file; how far it is, and in the end what it holds.

        :raises BackupFailed: if it cannot be made.
        """
        done = BackedUp(0, 0, 0)
        async with aclosing(self.backup(target)) as steps:
            async for done in steps:
                yield done
        self.observe(Noted(Program.POSTSUPER, one_line(f"{done.messages} messages backed up to {target} by {by}")))

    def tell_rule(self, rule: HoldRule, what: str, by: str) -> None:
        """The line of a rule that was made or ended."""
        why = f": {rule.reason}" if rule.reason else ""
        self.observe(Noted(Program.POSTSUPER, one_line(f"hold rule {rule.number} {what} by {by}{why}: {rule.filter}")))

    async def _steps(self, where: Filter, after: QueueId | None = None) -> AsyncGenerator[Found, None]:
        last = after
        while True:
            step = await self.acts.find(where, after=last, looking=LOOKING)
            yield step
            if step.last is None:
                return
            last = step.last

    async def _change(self, command: Command, ids: Sequence[QueueId], progress: Progress) -> AsyncIterator[Progress]:
        if command.verb is Verb.BOUNCE:
            for start in range(0, len(ids), BOUNCED_AT_ONCE):
                progress = await self._bounce(command, ids[start : start + BOUNCED_AT_ONCE], progress)
                yield progress
            return
        act = self._act(command)
        for start in range(0, len(ids), AT_ONCE):
            done = await self.acts.act(act, command.where, ids[start : start + AT_ONCE])
            for queue_id in done.recipients:
                self._tell(command, queue_id)
            progress = progress.plus(
                messages=len(done.recipients), recipients=sum(done.recipients.values()), busy=done.busy
            )
            yield progress

    def _act(self, command: Command) -> Act:
        match command.verb:
            case Verb.FLUSH:
                return Flush()
            case Verb.HOLD:
                return Hold()
            case Verb.RELEASE:
                return Release()
            case Verb.DELETE:
                return Delete()
            case Verb.REQUEUE:
                return Requeue(self.destination_of, command.override)
            case Verb.BOUNCE:
                raise AssertionError("bouncing settles leases")
            case _:
                assert_never(command.verb)

    async def _bounce(self, command: Command, ids: Sequence[QueueId], progress: Progress) -> Progress:
        """Give up on some messages: what attempts end with, without one."""
        entries = await self.acts.entries(ids, command.where)
        reasons = {
            (entry.message.queue_id, each.recipient.id): each.reason for entry in entries for each in entry.recipients
        }
        leases = await self.acts.take(command.where, ids, until=self.clock() + LEASE)
        unsettled = {lease.token: lease for lease in leases}
        try:
            for lease in leases:
                self._tell(command, lease.message.queue_id)
                await self.settler.settle(lease, self._given_up(command, lease, reasons))
                del unsettled[lease.token]
        finally:
            if unsettled:
                await self.store.release(list(unsettled))
        taken = sum(len(lease.recipients) for lease in leases)
        return progress.plus(
            messages=len({lease.message.queue_id for lease in leases}),
            recipients=taken,
            busy=max(0, len(reasons) - taken),
        )

    def _given_up(
        self, command: Command, lease: Lease, reasons: Mapping[tuple[QueueId, RecipientId], str]
    ) -> AttemptResult:
        waited = max(0.0, (lease.leased_at - lease.message.arrived_at).total_seconds())
        outcomes = {}
        for recipient in lease.recipients:
            last = reasons.get((lease.message.queue_id, recipient.id), "")
            words = ["returned to sender by the mail administrator", command.reason, last and f"last attempt: {last}"]
            reason = one_line(": ".join(filter(None, words)))
            outcomes[recipient.id] = Outcome(
                recipient=recipient.id,
                result=Bounced(status=_GIVEN_UP, reason=reason, diagnostic=Local(reason)),
                relay=NoHost(),
                delays=Delays(before_queue=waited, in_queue=0, setup=0, transmission=0),
                tls="",
            )
        return AttemptResult(outcomes=outcomes)

    def _tell(self, command: Command, queue_id: QueueId) -> None:
        """The line of one message, as ``postsuper`` writes it, and who did it."""
        done = _DONE[command.verb]
        if not done:
            return
        who = one_line(f"by {command.by}{command.reason and ': '}{command.reason}")
        if isinstance(command.override, TlsOverride):
            # A warning whatever the level: this mail no longer goes by the rules that everybody can read.
            text = f"{done}, TLS level {command.override.level.word} instead of what maps and defaults say ({who})"
            self.observe(Warned(Program.POSTSUPER, text, queue_id))
            return
        self.observe(Noted(Program.POSTSUPER, f"{done} ({who})", queue_id))

    def _tell_all(self, command: Command, progress: Progress) -> None:
        text = f"{_TOTAL[command.verb]}: {progress.messages} message{'' if progress.messages == 1 else 's'}"
        self.observe(Noted(Program.POSTSUPER, text))


# The words of postsuper.c.
_DONE: Final[Mapping[Verb, str]] = {
    Verb.FLUSH: "",
    Verb.HOLD: "placed on hold",
    Verb.RELEASE: "released from hold",
    Verb.REQUEUE: "requeued",
    Verb.DELETE: "removed",
    Verb.BOUNCE: "expired",
}
_TOTAL: Final[Mapping[Verb, str]] = {
    Verb.FLUSH: "Flushed",
    Verb.HOLD: "Placed on hold",
    Verb.RELEASE: "Released from hold",
    Verb.REQUEUE: "Requeued",
    Verb.DELETE: "Deleted",
    Verb.BOUNCE: "Force-expired",
}
