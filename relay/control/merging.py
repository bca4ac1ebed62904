"""One answer from several queues: what each worker's queue answers to a request, put together.

A queue that does not answer fails the request: half a listing looks like a whole one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace

from relay.control.protocol import (
    Answer,
    Done,
    Failed,
    HoldRuleAdd,
    HoldRuleRemove,
    HoldRules,
    Item,
    LedgerAsk,
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
from relay.control.queue import GROUPS_SHOWN
from relay.ledger.commands import AUDITS, RATCHET, best_of
from relay.ledger.findings import count_object, count_of, together

Shard = Callable[[QueueRequest | LedgerAsk], AsyncGenerator[Answer, None]]
# By what people call them, the first worker's first.
Shards = Mapping[str, Shard]


class ShardFailed(Exception):  # noqa: N818 - it names what happened, not the handling
    """A queue did not do what it was asked to; the message says which, and why."""


async def merged(request: QueueRequest | LedgerAsk, shards: Shards) -> AsyncGenerator[Answer, None]:
    """Ask all, or those that it takes; the last answer is ``Done`` or ``Failed``."""
    if len(shards) == 1:
        (only,) = shards.values()
        answers = only(request)
    else:
        answers = _merged(request, shards)
    try:
        async with aclosing(answers):
            async for answer in answers:
                yield answer
    except ShardFailed as error:
        yield Failed(str(error))


def _merged(request: QueueRequest | LedgerAsk, shards: Shards) -> AsyncGenerator[Answer, None]:
    match request:
        case QueueList():
            return _listing(request, shards)
        case QueueAct():
            return _sums(request, shards)
        case QueueBackup():
            return _backups(request, shards)
        case QueueShow():
            return _first(request, shards)
        case QueueGroups():
            return _groups(request, shards)
        case HoldRules():
            return _whole(next(iter(shards.items())), request)
        case _:
            return _short(request, shards)


async def _short(
    request: QueueCount | HoldRuleAdd | HoldRuleRemove | LedgerAsk, shards: Shards
) -> AsyncGenerator[Answer, None]:
    """What is answered by a few lines, known when all have been asked."""
    match request:
        case QueueCount():
            yield Done(_count([await _done(shard, request) for shard in shards.items()]))
        case HoldRuleAdd():
            yield Done(await _add_rule(request, shards))
        case HoldRuleRemove():
            yield Done(await _remove_rule(request, shards))
        case LedgerAsk():
            for item in ledgers(request.command, [await _items(shard, request) for shard in shards.items()]):
                yield Item(item)
            yield Done({})


async def _whole(shard: tuple[str, Shard], request: QueueRequest | LedgerAsk) -> AsyncGenerator[Answer, None]:
    """The answers of one.

    :raises ShardFailed: instead of ``Failed``.
    """
    name, ask = shard
    async with aclosing(ask(request)) as answers:
        async for answer in answers:
            if isinstance(answer, Failed):
                raise ShardFailed(f"{name}: {answer.error}")
            yield answer


async def _done(shard: tuple[str, Shard], request: QueueRequest) -> Mapping[str, object]:
    result: Mapping[str, object] = {}
    async with aclosing(_whole(shard, request)) as answers:
        async for answer in answers:
            if isinstance(answer, Done):
                result = answer.value
    return result


async def _items(shard: tuple[str, Shard], request: QueueRequest | LedgerAsk) -> list[Mapping[str, object]]:
    async with aclosing(_whole(shard, request)) as answers:
        return [answer.value async for answer in answers if isinstance(answer, Item)]


async def _listing(request: QueueList, shards: Shards) -> AsyncGenerator[Answer, None]:
    """By queue ID over all; one entry of each queue is in memory."""
    async with AsyncExitStack() as stack:
        heads: dict[str, list[Item]] = {}
        entries: dict[str, AsyncGenerator[list[Item] | Underway, None]] = {}
        for name, shard in shards.items():
            entries[name] = await stack.enter_async_context(aclosing(_entries((name, shard), request)))
        wanting = list(entries)
        while wanting or heads:
            for name in wanting:
                async for found in entries[name]:
                    if isinstance(found, Underway):
                        yield found
                        continue
                    heads[name] = found
                    break
            if not heads:
                break
            name = min(heads, key=lambda each: str(heads[each][0].value.get("queue_id")))
            for part in heads.pop(name):
                yield part
            wanting = [name]
    yield Done({})


async def _entries(shard: tuple[str, Shard], request: QueueList) -> AsyncGenerator[list[Item] | Underway, None]:
    parts: list[Item] = []
    async with aclosing(_whole(shard, request)) as answers:
        async for answer in answers:
            if isinstance(answer, Underway):
                yield answer
            elif isinstance(answer, Item):
                parts.append(answer)
                if not answer.value.get("continued"):
                    yield parts
                    parts = []


async def _sums(request: QueueAct, shards: Shards) -> AsyncGenerator[Answer, None]:
    """One after the other; what is said are the numbers of all together."""
    before: Counter[str] = Counter()
    for shard in shards.items():
        latest: Counter[str] = Counter()
        try:
            async with aclosing(_whole(shard, request)) as answers:
                async for answer in answers:
                    latest = _numbers(answer)
                    yield Underway({**(before + latest)})
        except ShardFailed as error:
            done = (before + latest)["recipients"]
            raise ShardFailed(f"{error} (it was done for {done} recipients before; give the command again)") from None
        before.update(latest)
    yield Done({**dict.fromkeys(("looked", "messages", "recipients", "busy"), 0), **before})


async def _backups(request: QueueBackup, shards: Shards) -> AsyncGenerator[Answer, None]:
    """A file for each queue: the first has the name that was asked for, the others that of their directory added to it."""
    done: Counter[str] = Counter()
    paths: list[str] = []
    for name, shard in shards.items():
        path = request.path if not paths else f"{request.path}.{name.replace(' ', '-')}"
        latest: Counter[str] = Counter()
        async with aclosing(_whole((name, shard), replace(request, path=path))) as answers:
            async for answer in answers:
                latest = _numbers(answer)
                yield Underway({**(done + latest)})
        done.update(latest)
        paths.append(path)
    yield Done({**dict.fromkeys(("messages", "files", "octets"), 0), **done, "paths": paths})


def _numbers(answer: Answer) -> Counter[str]:
    value = answer.value if isinstance(answer, Underway | Done) else {}
    return Counter({key: number for key, number in value.items() if isinstance(number, int)})


async def _first(request: QueueShow, shards: Shards) -> AsyncGenerator[Answer, None]:
    """The queue that has the message answers for all; a queue ID is in one only."""
    absent = no_such_message(request.queue_id)
    troubles: list[str] = []
    for name, ask in shards.items():
        found: list[Answer] = []
        try:
            async with aclosing(ask(request)) as answers:
                found = [answer async for answer in answers]
        except ShardFailed as error:
            troubles.append(str(error))
        if found and not isinstance(found[-1], Failed):
            for answer in found:
                yield answer
            return
        troubles += [f"{name}: {each.error}" for each in found if isinstance(each, Failed) and each.error != absent]
    yield Failed("; ".join([absent, *troubles]) if troubles else absent)


def _count(counts: Sequence[Mapping[str, object]]) -> Mapping[str, object]:
    deliveries: Counter[str] = Counter()
    messages = 0
    for each in counts:
        messages += int(str(each["messages"]))
        by_state = each["deliveries"]
        if isinstance(by_state, Mapping):
            for state, number in by_state.items():
                deliveries[state] += number
    arrivals = sorted(str(each["oldest_arrival"]) for each in counts if each["oldest_arrival"])
    return {"messages": messages, "deliveries": dict(deliveries), "oldest_arrival": arrivals[0] if arrivals else ""}


async def _groups(request: QueueGroups, shards: Shards) -> AsyncGenerator[Answer, None]:
    """Every queue names all its groups here, since the largest of one may be small in another."""
    recipients: Counter[str] = Counter()
    oldest: dict[str, str] = {}
    left_out = 0
    for shard in shards.items():
        async with aclosing(_whole(shard, replace(request, whole=True))) as answers:
            async for answer in answers:
                match answer:
                    case Item(value=value):
                        key, at = str(value["group"]), str(value["oldest_arrival"])
                        recipients[key] += int(str(value["recipients"]))
                        oldest[key] = min(at, oldest.get(key, at))
                    case Done(value=value):
                        left_out += int(str(value["recipients_of_others"]))
                    case _:
                        yield Underway({})
    largest = sorted(recipients.items(), key=lambda one: (-one[1], one[0]))
    shown = largest if request.whole else largest[:GROUPS_SHOWN]
    for key, number in shown:
        yield Item({"group": key, "recipients": number, "oldest_arrival": oldest[key]})
    rest = sum(number for _, number in largest[len(shown) :]) + left_out
    yield Done({"groups": len(largest), "recipients_of_others": rest})


async def _add_rule(request: HoldRuleAdd, shards: Shards) -> Mapping[str, object]:
    """At all or at none: half a rule would let mail go that somebody means to hold. The first worker gives the number."""
    made: dict[str, Mapping[str, object]] = {}
    try:
        for name, ask in shards.items():
            made[name] = await _done((name, ask), request)
    except ShardFailed as failed:
        for name, rule in made.items():
            try:
                await _done((name, shards[name]), HoldRuleRemove(int(str(rule["number"]))))
            except ShardFailed as error:
                text = f"{failed}; and the rule is still in force at {name}, where it could not be removed: {error}"
                raise ShardFailed(f"{text} (see queue hold --rules)") from None
        raise
    return next(iter(made.values()))


async def _remove_rule(request: HoldRuleRemove, shards: Shards) -> Mapping[str, object]:
    """The number is the first worker's; at the others the rule is found by what it says."""
    (first, *others) = shards.items()
    rules = {rule["number"]: rule for rule in await _items(first, HoldRules())}
    rule = rules.get(request.number)
    if rule is None:
        return {"removed": False}
    for shard in others:
        same = [each for each in await _items(shard, HoldRules()) if _says(each) == _says(rule)]
        if same:
            await _done(shard, HoldRuleRemove(int(str(same[0]["number"]))))
    return await _done(first, request)


def _says(rule: Mapping[str, object]) -> tuple[object, object]:
    return rule["filter"], rule["reason"]


def ledgers(command: str, found: Sequence[Sequence[Mapping[str, object]]]) -> list[Mapping[str, object]]:
    """What the ledgers of all workers answered to one of ``relay.ledger.commands.COMMANDS``, as one."""
    items = [item for each in found for item in each]
    if command == AUDITS:
        return [count_object(count) for count in together([count_of(item) for item in items])]
    if command == RATCHET:
        best: dict[object, Mapping[str, object]] = {}
        for item in sorted(items, key=lambda one: best_of(one).mark):
            best[item["destination"]] = item
        return sorted(best.values(), key=lambda one: str(one["destination"]))
    return [{"forgotten": sum(int(str(item["forgotten"])) for item in items)}]
