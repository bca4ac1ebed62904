"""The queue commands: a request of the control protocol in, its answers out.

The relay's end of the control socket answers with these, and so does a command that works on a queue which no relay uses.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import assert_never

from relay.control.protocol import (
    Answer,
    BadMessage,
    Done,
    Failed,
    HoldRuleAdd,
    HoldRuleRemove,
    HoldRules,
    Item,
    QueueAct,
    QueueBackup,
    QueueCount,
    QueueGroups,
    QueueList,
    QueueRequest,
    QueueShow,
    Underway,
    no_such_message,
)
from relay.mail.envelope import QueueId
from relay.policy.override import AS_CONFIGURED, AsConfigured, TlsOverride, parse_level
from relay.queue.acts import GroupBy, HoldRule
from relay.queue.administration import Administration, Command, Groups, Progress, Verb
from relay.queue.backup import BackedUp, BackupFailed
from relay.queue.filter import fits_arrivals
from relay.queue.filter_text import FilterError, parse_filter
from relay.queue.showq import counts_object, details_object, entry_object

PAGE = 100
# A message with many recipients goes out in parts, so that a line stays bounded.
RECIPIENTS_A_LINE = 200
GROUPS_SHOWN = 50


async def answers(request: QueueRequest, administration: Administration, by: str) -> AsyncGenerator[Answer, None]:
    """Carry out a request; the last answer is ``Done`` or ``Failed``.

    :param by: who asks.
    :raises StoreUnavailable: if the queue cannot be read or written now.
    """
    try:
        async with aclosing(_answers(request, administration, by)) as found:
            async for answer in found:
                yield answer
    except (FilterError, BadMessage) as error:
        yield Failed(str(error))


async def _answers(request: QueueRequest, administration: Administration, by: str) -> AsyncGenerator[Answer, None]:
    match request:
        case QueueList() | QueueAct() | QueueShow() | QueueGroups() | QueueBackup():
            async with aclosing(_long(request, administration, by)) as found:
                async for answer in found:
                    yield answer
        case QueueCount():
            yield Done(counts_object(await administration.store.counts()))
        case HoldRules():
            for rule in await administration.acts.hold_rules():
                yield Item(_rule_object(rule))
            yield Done({})
        case HoldRuleAdd():
            yield await _add_rule(request, administration, by)
        case HoldRuleRemove(number=number):
            yield Done({"removed": await administration.remove_hold_rule(number, by)})
        case _:
            assert_never(request)


def _long(
    request: QueueList | QueueAct | QueueShow | QueueGroups | QueueBackup, administration: Administration, by: str
) -> AsyncGenerator[Answer, None]:
    match request:
        case QueueList(after=after, where=""):
            return _everything(administration, after)
        case QueueList(after=after, where=where):
            return _meant(administration, after, where)
        case QueueAct():
            return _act(request, administration, by)
        case QueueShow(queue_id=queue_id):
            return _show(administration, QueueId(queue_id))
        case QueueGroups():
            return _groups(request, administration)
        case QueueBackup(path=path):
            return _backup(administration, Path(path), by)
        case _:
            assert_never(request)


async def _add_rule(request: HoldRuleAdd, administration: Administration, by: str) -> Answer:
    if not fits_arrivals(parse_filter(request.where)):
        raise BadMessage(
            "a rule for mail that comes in can ask for domain, rcpt, sender, destination and size only:"
            " nothing else is known of it yet"
        )
    rule = await administration.acts.add_hold_rule(filter_text=request.where, reason=request.reason, by=by)
    administration.tell_rule(rule, "made", by)
    return Done(_rule_object(rule))


async def _meant(administration: Administration, after: str, where: str) -> AsyncGenerator[Answer, None]:
    async with aclosing(administration.listing(parse_filter(where), after=_after(after))) as steps:
        async for step in steps:
            for entry in step:
                for part in _parts(entry_object(entry)):
                    yield Item(part)
            if not step:
                yield Underway({})
    yield Done({})


async def _everything(administration: Administration, after: str) -> AsyncGenerator[Answer, None]:
    last = _after(after)
    while page := await administration.store.entries(limit=PAGE, after=last):
        for entry in page:
            for part in _parts(entry_object(entry)):
                yield Item(part)
        last = page[-1].message.queue_id
    yield Done({})


async def _act(request: QueueAct, administration: Administration, by: str) -> AsyncGenerator[Answer, None]:
    progress = Progress()
    async with aclosing(administration.run(_command(request, administration, by))) as steps:
        async for progress in steps:
            yield Underway(_progress_object(progress))
    yield Done(_progress_object(progress))


def _command(request: QueueAct, administration: Administration, by: str) -> Command:
    try:
        verb = Verb(request.verb)
        override: TlsOverride | AsConfigured = AS_CONFIGURED
        if request.tls_level:
            override = TlsOverride(
                level=parse_level(request.tls_level), by=by, at=administration.clock(), reason=request.reason
            )
    except ValueError as error:
        raise BadMessage(str(error)) from None
    if request.tls_level and verb is not Verb.REQUEUE:
        raise BadMessage("only what is requeued can be given a TLS level")
    if request.tls_level and not request.reason.strip():
        raise BadMessage("a TLS level other than maps and defaults say needs a reason")
    return Command(
        verb=verb,
        where=parse_filter(request.where),
        by=by,
        reason=request.reason.strip(),
        override=override,
        dry_run=request.dry_run,
    )


async def _show(administration: Administration, queue_id: QueueId) -> AsyncGenerator[Answer, None]:
    try:
        shown = await administration.show(queue_id)
    except KeyError:
        yield Failed(no_such_message(queue_id))
        return
    for part in _parts(entry_object(shown.entry)):
        yield Item(part)
    yield Done(details_object(shown.entry, shown.header))


async def _groups(request: QueueGroups, administration: Administration) -> AsyncGenerator[Answer, None]:
    """The largest groups first; what the small ones have together is said at the end."""
    try:
        by = GroupBy(request.by)
    except ValueError as error:
        raise BadMessage(str(error)) from None
    found = Groups({}, left_out=0)
    async with aclosing(administration.groups(parse_filter(request.where), by)) as steps:
        async for step in steps:
            found = step
            yield Underway({})
    largest = sorted(found.groups.items(), key=lambda one: (-one[1].recipients, one[0]))
    shown = len(largest) if request.whole else GROUPS_SHOWN
    for key, group in largest[:shown]:
        yield Item({"group": key, "recipients": group.recipients, "oldest_arrival": group.oldest.isoformat()})
    rest = sum(group.recipients for _, group in largest[shown:]) + found.left_out
    yield Done({"groups": len(largest), "recipients_of_others": rest})


async def _backup(administration: Administration, target: Path, by: str) -> AsyncGenerator[Answer, None]:
    done = BackedUp(0, 0, 0)
    try:
        async with aclosing(administration.back_up(target, by)) as steps:
            async for done in steps:
                yield Underway(_backed_up_object(done))
    except BackupFailed as error:
        yield Failed(str(error))
        return
    yield Done(_backed_up_object(done))


def _backed_up_object(done: BackedUp) -> dict[str, object]:
    return {"messages": done.messages, "files": done.files, "octets": done.octets}


def _progress_object(progress: Progress) -> dict[str, object]:
    return {
        "looked": progress.looked,
        "messages": progress.messages,
        "recipients": progress.recipients,
        "busy": progress.busy,
    }


def _rule_object(rule: HoldRule) -> dict[str, object]:
    return {
        "number": rule.number,
        "filter": rule.filter,
        "reason": rule.reason,
        "by": rule.by,
        "at": rule.at.isoformat(),
    }


def _after(after: str) -> QueueId | None:
    return QueueId(after) if after else None


def _parts(entry: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """An entry in lines of bounded length; all but the last say ``continued``."""
    recipients = entry["recipients"]
    if not isinstance(recipients, list):
        raise TypeError("an entry without a list of recipients")
    for start in range(0, max(1, len(recipients)), RECIPIENTS_A_LINE):
        part = {**entry, "recipients": recipients[start : start + RECIPIENTS_A_LINE]}
        yield part if start + RECIPIENTS_A_LINE >= len(recipients) else {**part, "continued": True}
