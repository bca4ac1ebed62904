"""Answers of several queues as one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

import pytest

from relay.control.merging import Shard, merged
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

Asked = list[QueueRequest | LedgerAsk]


def shard(answers: Sequence[Answer], asked: Asked | None = None) -> Shard:
    """A queue that always answers this."""

    async def ask(request: QueueRequest | LedgerAsk) -> AsyncGenerator[Answer, None]:
        if asked is not None:
            asked.append(request)
        for answer in answers:
            yield answer

    return ask


async def answers_of(request: QueueRequest | LedgerAsk, *shards: Shard) -> list[Answer]:
    named = {f"worker {number}": each for number, each in enumerate(shards, 1)}
    return [answer async for answer in merged(request, named)]


def entry(queue_id: str, *, recipients: Sequence[str] = ("r",), continued: bool = False) -> Item:
    value: dict[str, object] = {"queue_id": queue_id, "recipients": list(recipients)}
    return Item({**value, "continued": True} if continued else value)


async def test_a_listing_goes_by_queue_id_and_keeps_the_parts_of_a_message_together() -> None:
    one: list[Answer] = [
        entry("A"),
        entry("C", recipients=("1",), continued=True),
        entry("C", recipients=("2",)),
        Done({}),
    ]
    two: list[Answer] = [Underway({}), entry("B"), entry("D"), Done({})]
    said = await answers_of(QueueList(), shard(one), shard([Done({})]), shard(two))
    assert [each.value["queue_id"] for each in said if isinstance(each, Item)] == ["A", "B", "C", "C", "D"]
    assert [each.value["recipients"] for each in said if isinstance(each, Item)][2:4] == [["1"], ["2"]]
    assert said[-1] == Done({})


async def test_half_a_listing_is_none() -> None:
    said = await answers_of(QueueList(), shard([entry("A"), Done({})]), shard([Failed("the disk is gone")]))
    assert said[-1] == Failed("worker 2: the disk is gone")
    assert Done({}) not in said


async def test_what_is_done_is_counted_together() -> None:
    numbers = {"looked": 4, "messages": 3, "recipients": 5, "busy": 1}
    asked: Asked = []
    request = QueueAct(verb="hold", where="everything")
    said = await answers_of(request, shard([Underway(numbers), Done(numbers)], asked), shard([Done(numbers)], asked))
    assert said[-1] == Done({"looked": 8, "messages": 6, "recipients": 10, "busy": 2})
    assert asked == [request, request]


async def test_what_was_done_before_another_failed_is_said() -> None:
    numbers = {"looked": 4, "messages": 3, "recipients": 5, "busy": 0}
    said = await answers_of(
        QueueAct(verb="hold", where="everything"), shard([Done(numbers)]), shard([Failed("no room")])
    )
    assert said[-1] == Failed("worker 2: no room (it was done for 5 recipients before; give the command again)")


async def test_the_queue_that_has_a_message_shows_it() -> None:
    absent = Failed(no_such_message("B"))
    there: list[Answer] = [entry("B"), Done({"header": "x"})]
    assert await answers_of(QueueShow("B"), shard([absent]), shard(there)) == there
    assert await answers_of(QueueShow("B"), shard([absent]), shard([absent])) == [absent]
    assert await answers_of(QueueShow("B"), shard([absent]), shard([Failed("no")])) == [
        Failed("B: no such message in the queue; worker 2: no")
    ]


async def test_counts_are_added_and_the_oldest_is_the_oldest_of_all() -> None:
    def count(messages: int, waiting: int, oldest: str) -> Shard:
        value = {"messages": messages, "deliveries": {"waiting": waiting, "hold": 1}, "oldest_arrival": oldest}
        return shard([Done(value)])

    early, late = "2026-11-26T10:00:00+00:00", "2026-11-26T11:00:00+00:00"
    assert await answers_of(QueueCount(), count(2, 3, late), count(1, 1, early), count(0, 0, "")) == [
        Done({"messages": 3, "deliveries": {"waiting": 4, "hold": 3}, "oldest_arrival": early})
    ]


async def test_a_group_that_is_small_everywhere_may_be_large_together() -> None:
    def groups(sizes: Mapping[str, int], others: int) -> list[Answer]:
        items = [Item({"group": key, "recipients": size, "oldest_arrival": f"{size}"}) for key, size in sizes.items()]
        return [*items, Done({"groups": len(items), "recipients_of_others": others})]

    asked: Asked = []
    request = QueueGroups("domain", "everything")
    said = await answers_of(
        request, shard(groups({"a": 3, "b": 2}, 0), asked), shard(groups({"b": 2, "c": 1}, 7), asked)
    )
    assert said == [
        Item({"group": "b", "recipients": 4, "oldest_arrival": "2"}),
        Item({"group": "a", "recipients": 3, "oldest_arrival": "3"}),
        Item({"group": "c", "recipients": 1, "oldest_arrival": "1"}),
        Done({"groups": 3, "recipients_of_others": 7}),
    ]
    assert asked == [QueueGroups("domain", "everything", whole=True)] * 2


def rule(number: int, where: str) -> Item:
    return Item({"number": number, "filter": where, "reason": "", "by": "ann", "at": "x"})


async def test_rules_are_those_of_the_first_and_made_at_all() -> None:
    asked: Asked = []
    one, two = shard([rule(1, "domain:a"), Done({})], asked), shard([rule(9, "domain:a"), Done({})], asked)
    assert await answers_of(HoldRules(), one, two) == [rule(1, "domain:a"), Done({})]
    asked.clear()
    add = HoldRuleAdd("domain:b")
    made = Done({"number": 2})
    assert await answers_of(add, shard([made], asked), shard([Done({"number": 5})], asked)) == [made]
    assert asked == [add, add]


async def test_a_rule_that_one_worker_cannot_make_holds_at_none() -> None:
    asked: list[object] = []

    async def good(request: QueueRequest | LedgerAsk) -> AsyncGenerator[Answer, None]:
        asked.append(request)
        yield Done({"number": 7} if isinstance(request, HoldRuleAdd) else {"removed": True})

    async def broken(request: QueueRequest | LedgerAsk) -> AsyncGenerator[Answer, None]:
        yield Failed("the disk is full")

    add = HoldRuleAdd("domain:b")
    assert await answers_of(add, good, broken) == [Failed("worker 2: the disk is full")]
    assert asked == [add, HoldRuleRemove(7)]


async def test_a_rule_is_removed_by_what_it_says() -> None:
    """The numbers of the same rule differ where one queue has had others before."""
    removed: list[tuple[str, int]] = []

    def queue(name: str, rules: Sequence[Item]) -> Shard:
        async def ask(request: QueueRequest | LedgerAsk) -> AsyncGenerator[Answer, None]:
            if isinstance(request, HoldRuleRemove):
                removed.append((name, request.number))
                yield Done({"removed": True})
                return
            for each in rules:
                yield each
            yield Done({})

        return ask

    one, two = queue("one", [rule(1, "domain:a"), rule(2, "domain:b")]), queue("two", [rule(7, "domain:b")])
    assert await answers_of(HoldRuleRemove(2), one, two) == [Done({"removed": True})]
    assert sorted(removed) == [("one", 2), ("two", 7)]
    removed.clear()
    assert await answers_of(HoldRuleRemove(3), one, two) == [Done({"removed": False})]
    assert removed == []


async def test_a_backup_is_a_file_for_each_queue() -> None:
    asked: Asked = []
    done = Done({"messages": 2, "files": 1, "octets": 10})
    said = await answers_of(QueueBackup("/b/q.tar"), shard([done], asked), shard([done], asked))
    paths = ["/b/q.tar", "/b/q.tar.worker-2"]
    assert said[-1] == Done({"messages": 4, "files": 2, "octets": 20, "paths": paths})
    assert asked == [QueueBackup(path) for path in paths]


async def test_audits_are_counted_together() -> None:
    def audit(sessions: int, host: str, last: str) -> Item:
        return Item(
            {
                "destination": "example.org",
                "audit": "dane",
                "sessions": sessions,
                "verified": 1,
                "refused": sessions - 1,
                "unknown": 0,
                "unproved": 0,
                "why": {"refused": {"host": host, "text": "no match"}},
                "first": "2026-11-25T10:00:00+00:00",
                "last": last,
            }
        )

    early, late = "2026-11-26T10:00:00+00:00", "2026-11-26T11:00:00+00:00"
    said = await answers_of(
        LedgerAsk("policy audit"), shard([audit(3, "new", late), Done({})]), shard([audit(2, "old", early), Done({})])
    )
    (item, done) = said
    assert isinstance(item, Item)
    assert (item.value["sessions"], item.value["verified"], item.value["refused"]) == (5, 2, 3)
    assert item.value["why"] == {"refused": {"host": "new", "text": "no match"}}
    assert done == Done({})


@pytest.mark.parametrize("command", ["policy audit forget", "ratchet forget"])
async def test_forgetting_is_counted(command: str) -> None:
    one = shard([Item({"forgotten": 2}), Done({})])
    assert await answers_of(LedgerAsk(command, "a"), one, one) == [Item({"forgotten": 4}), Done({})]
