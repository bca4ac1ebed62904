"""What administrators do to a queue, on each engine: the model in memory and SQLite."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.mail.envelope import Address, QueueId, RecipientId, Sender
from relay.policy.level import Level
from relay.policy.override import AS_CONFIGURED, TlsOverride
from relay.queue.acts import Act, Delete, Flush, Group, GroupBy, Hold, Release, Requeue
from relay.queue.filter_text import FilterError, parse_filter
from relay.queue.sqlite import SqliteStore
from relay.queue.store import EntryState, LeaseLost
from tests.unit.queue.memory import MemoryStore
from tests.unit.queue.samples import (
    BOUNCED,
    DEFERRED,
    FROM_NOBODY,
    LEASE,
    MINUTE,
    SENT,
    T0,
    envelope,
    lease,
    new,
    next_due,
    put,
    settlement,
)

Store = MemoryStore | SqliteStore
ALL = parse_filter("ALL")
OVERRIDE = TlsOverride(level=Level.ENCRYPT, by="root", at=T0, reason="their certificate expired; told by phone")


class Clock:
    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    engine: Store
    if request.param == "memory":
        engine = MemoryStore(clock)
    else:
        engine = await SqliteStore.open(tmp_path / "queue.sqlite", clock=clock)
    yield engine
    await engine.close()


async def ids(store: Store) -> tuple[QueueId, ...]:
    return tuple(entry.message.queue_id for entry in await store.entries(limit=1000))


async def act(store: Store, what: Act, where: str = "ALL") -> tuple[dict[str, int], int]:
    done = await store.acts.act(what, parse_filter(where), await ids(store))
    return {str(queue_id): number for queue_id, number in done.recipients.items()}, done.busy


async def found(store: Store, where: str) -> list[str]:
    """The recipients that a filter means, each as ``ID address``, by way of both ways of asking."""
    parsed = parse_filter(where)
    step = await store.acts.find(parsed, looking=1000)
    entries = await store.acts.entries(step.ids, parsed)
    people = [f"{entry.message.queue_id} {each.recipient.address}" for entry in entries for each in entry.recipients]
    assert len(people) == step.recipients
    assert tuple(entry.message.queue_id for entry in entries) == step.ids
    return people


def states(entry_states: dict[EntryState, int]) -> dict[str, int]:
    return {state.value: number for state, number in entry_states.items() if number}


def moved(address: Address, sender: Sender) -> str:
    """New routes: everything of a.example to a smarthost, the rest by domain."""
    del sender
    return "smart.example" if str(address.domain) == "a.example" else str(address.domain)


# --- finding --------------------------------------------------------------------------------------------------------


async def test_a_filter_means_recipients(store: Store) -> None:
    await put(store, new("A1", "x@a.example", "y@b.example"))
    await put(store, new("B2", "z@b.example"))
    assert await found(store, "domain:b.example") == ["A1 y@b.example", "B2 z@b.example"]
    assert await found(store, "domain:b.example and not rcpt:z@b.example") == ["A1 y@b.example"]


async def test_what_is_settled_is_not_found(store: Store) -> None:
    await put(store, new("A1", "x@a.example", "y@a.example"))
    (held,) = await lease(store)
    await store.settle(replace(settlement(held, DEFERRED), results={held.recipients[0].id: SENT}))
    assert await found(store, "ALL") == ["A1 y@a.example"]


async def test_finding_goes_step_by_step(store: Store) -> None:
    for number in range(7):
        await put(store, new(f"A{number}", "x@a.example" if number % 2 else "x@b.example"))
    where, last, steps = parse_filter("domain:a.example"), None, []
    while True:
        step = await store.acts.find(where, after=last, looking=3)
        steps.append((step.ids, step.recipients, step.looked))
        last = step.last
        if last is None:
            break
    assert steps == [(("A1",), 1, 3), (("A3", "A5"), 2, 3), ((), 0, 1)]


async def test_ids_are_sought_not_walked_to(store: Store) -> None:
    for number in range(9):
        await put(store, new(f"A{number}"))
    step = await store.acts.find(parse_filter("A7 A8"), looking=5)
    assert (step.ids, step.looked, step.last) == (("A7", "A8"), 2, None)


async def test_status_of_the_last_attempt(store: Store, clock: Clock) -> None:
    await put(store, new("A1", "x@a.example"))
    (held,) = await lease(store)
    assert await found(store, "status:active") == ["A1 x@a.example"]
    await store.settle(settlement(held, DEFERRED))
    await put(store, new("B2", "x@b.example"))
    assert await found(store, "status:4.7") == ["A1 x@a.example"]
    assert await found(store, "status:deferred") == ["A1 x@a.example"]
    assert await found(store, "status:incoming") == ["B2 x@b.example"]
    clock.now = T0 + timedelta(hours=2)
    assert await found(store, "age>1h and status:incoming") == ["B2 x@b.example"]


async def test_a_regular_expression_that_the_engine_cannot_use_is_an_error(tmp_path: Path, clock: Clock) -> None:
    store = await SqliteStore.open(tmp_path / "q", clock=clock)
    where = parse_filter('age>1h and reason:~"(?<=x)y"')
    with pytest.raises(FilterError, match="position 20: this regular expression cannot be used"):
        await store.acts.find(where, looking=10)
    await store.close()


async def test_recipients_are_counted_by_what_they_have_in_common(store: Store) -> None:
    await put(store, new("A1", "x@a.example", "y@a.example", "z@b.example"))
    await put(store, new("B2", given=FROM_NOBODY, arrived_at=T0 + MINUTE))
    by_domain = await store.acts.tally(ALL, GroupBy.DOMAIN, looking=100)
    assert by_domain.groups == {"a.example": Group(3, T0), "b.example": Group(1, T0)}
    first = await store.acts.tally(ALL, GroupBy.SENDER, looking=1)
    assert (first.groups, first.last) == ({"sender@source.example": Group(3, T0)}, "A1")
    rest = await store.acts.tally(ALL, GroupBy.SENDER, looking=1, after=first.last)
    assert rest.groups == {"": Group(1, T0 + MINUTE)}


# --- acts -----------------------------------------------------------------------------------------------------------


async def test_what_is_held_waits_until_it_is_released(store: Store, clock: Clock) -> None:
    await put(store, new("A1", "x@a.example", "y@b.example"))
    assert await act(store, Hold(), "domain:a.example") == ({"A1": 1}, 0)
    assert await act(store, Hold()) == ({"A1": 1}, 0)  # only the other one is new
    assert await act(store, Hold()) == ({}, 0)
    assert await lease(store) == []
    assert await next_due(store, clock.now) is None
    assert states(dict((await store.counts()).deliveries)) == {"hold": 2}
    assert await store.flush(now=clock.now + MINUTE) == 0
    assert await act(store, Release(), "domain:b.example") == ({"A1": 1}, 0)
    assert [held.destination for held in await lease(store)] == ["b.example"]


async def test_holding_some_recipients_of_a_delivery_splits_it(store: Store) -> None:
    await put(store, new("A1", "x@a.example", "y@a.example", "z@a.example"))
    assert await act(store, Hold(), "rcpt:y@a.example") == ({"A1": 1}, 0)
    (held,) = await lease(store)
    assert [one.address.text for one in held.recipients] == ["x@a.example", "z@a.example"]
    assert await store.settle(settlement(held, SENT)) is False
    assert await found(store, "status:hold") == ["A1 y@a.example"]


async def test_what_is_being_delivered_is_held_when_it_comes_back(store: Store) -> None:
    await put(store, new("A1", "x@a.example"))
    (held,) = await lease(store)
    assert await act(store, Hold()) == ({"A1": 1}, 0)
    await store.settle(settlement(held, DEFERRED, next_attempt=T0))
    assert await lease(store) == []
    assert await found(store, "status:hold") == ["A1 x@a.example"]


async def test_a_lease_that_is_given_back_is_held_too(store: Store) -> None:
    await put(store, new("A1", "x@a.example"))
    (held,) = await lease(store)
    await act(store, Hold())
    await store.release([held.token])
    assert await lease(store) == []


async def test_a_lease_that_ran_out_is_held_too(store: Store, clock: Clock) -> None:
    await put(store, new("A1", "x@a.example"))
    (held,) = await lease(store)
    await act(store, Hold())
    clock.now = T0 + 2 * LEASE
    assert await lease(store, clock.now) == []
    assert await store.lease_at({"a.example": 5}, now=clock.now, until=clock.now + LEASE) == []
    assert await store.heads(now=clock.now, limit=5) == []
    assert await next_due(store, clock.now) is None
    assert await act(store, Release()) == ({"A1": 1}, 0)
    (again,) = await lease(store, clock.now)
    with pytest.raises(LeaseLost):
        await store.settle(settlement(held, SENT))
    await store.settle(settlement(again, SENT))


@pytest.mark.parametrize("what", [Delete(), Requeue(moved, AS_CONFIGURED)], ids=["delete", "requeue"])
async def test_what_is_being_delivered_is_left_alone(store: Store, what: Act) -> None:
    await put(store, new("A1", "x@a.example", "y@b.example"))
    (held, other) = await lease(store)
    await store.release([other.token])
    assert await act(store, what) == ({"A1": 1}, 1)
    await store.settle(settlement(held, SENT))


async def test_part_of_what_is_being_delivered_cannot_be_held(store: Store) -> None:
    await put(store, new("A1", "x@a.example", "y@a.example"))
    (held,) = await lease(store)
    assert await act(store, Hold(), "rcpt:x@a.example") == ({}, 1)
    await store.settle(settlement(held, SENT))


async def test_what_is_deleted_is_gone(store: Store, tmp_path: Path) -> None:
    await put(store, new("A1", "x@a.example", "y@a.example", "z@b.example"))
    await put(store, new("B2", "x@a.example"), b"x" * 100_000)
    assert await act(store, Delete(), "rcpt:x@a.example") == ({"A1": 1, "B2": 1}, 0)
    assert await found(store, "ALL") == ["A1 y@a.example", "A1 z@b.example"]
    assert list(tmp_path.glob("*.spool/*")) == []
    assert await act(store, Delete()) == ({"A1": 2}, 0)
    assert (await store.counts()).messages == 0


async def test_flush_makes_due_and_releases_nothing(store: Store, clock: Clock) -> None:
    await put(store, new("A1", "x@a.example"))
    await put(store, new("B2", "x@b.example"))
    for held in await lease(store):
        await store.settle(settlement(held, DEFERRED))
    await act(store, Hold(), "B2")
    assert await lease(store) == []
    assert await act(store, Flush()) == ({"A1": 1}, 0)
    assert [held.message.queue_id for held in await lease(store, clock.now)] == ["A1"]


async def test_requeue_routes_anew_and_makes_due(store: Store, clock: Clock) -> None:
    old = {RecipientId(number): "old" for number in (1, 2, 3)}
    await put(store, new("A1", "x@a.example", "y@b.example", "z@a.example", destinations=old))
    for held in await lease(store):
        await store.settle(settlement(held, DEFERRED))
    await act(store, Hold())
    assert await act(store, Requeue(moved, OVERRIDE), "domain:a.example or domain:b.example") == ({"A1": 3}, 0)
    leases = {held.destination: held for held in await lease(store, clock.now)}
    assert {name: [one.address.text for one in held.recipients] for name, held in leases.items()} == {
        "smart.example": ["x@a.example", "z@a.example"],
        "b.example": ["y@b.example"],
    }
    assert {held.override for held in leases.values()} == {OVERRIDE}
    assert {held.attempts for held in leases.values()} == {1}


async def test_an_override_is_of_the_recipients_that_were_meant_and_ends_with_the_next_requeue(store: Store) -> None:
    await put(store, new("A1", "x@a.example", "y@a.example"))
    await put(store, new("B2", "x@a.example"))
    await act(store, Requeue(moved, OVERRIDE), "A1 and rcpt:x@a.example")
    (first, second) = await store.entries(limit=10)
    assert [each.override for each in first.recipients] == [OVERRIDE, AS_CONFIGURED]
    assert [each.override for each in second.recipients] == [AS_CONFIGURED]
    await act(store, Requeue(moved, AS_CONFIGURED), "A1")
    (first, _) = await store.entries(limit=10)
    assert [each.override for each in first.recipients] == [AS_CONFIGURED, AS_CONFIGURED]


async def test_take_leases_what_is_meant_held_or_not_due(store: Store) -> None:
    await put(store, new("A1", "x@a.example", "y@a.example"))
    await act(store, Hold())
    (taken,) = await store.acts.take(parse_filter("rcpt:y@a.example"), [QueueId("A1")], until=T0 + LEASE)
    assert [one.address.text for one in taken.recipients] == ["y@a.example"]
    assert await store.settle(settlement(taken, BOUNCED)) is False
    assert await found(store, "status:hold") == ["A1 x@a.example"]


async def test_what_was_taken_and_given_back_is_held_as_before(store: Store) -> None:
    await put(store, new("A1"))
    await act(store, Hold())
    (taken,) = await store.acts.take(ALL, [QueueId("A1")], until=T0 + LEASE)
    assert await store.acts.take(ALL, [QueueId("A1")], until=T0 + LEASE) == []
    await store.release([taken.token])
    assert await found(store, "status:hold") == ["A1 one@a.example"]
    with pytest.raises(LeaseLost):
        await store.settle(settlement(taken, BOUNCED))


async def test_a_hold_outlives_the_process(tmp_path: Path, clock: Clock) -> None:
    store = await SqliteStore.open(tmp_path / "q", clock=clock)
    await put(store, new("A1"))
    await act(store, Hold())
    await store.acts.take(ALL, [QueueId("A1")], until=T0 + LEASE)
    await store.close()
    store = await SqliteStore.open(tmp_path / "q", clock=clock)
    assert await lease(store) == []
    assert await found(store, "status:hold") == ["A1 one@a.example"]
    await store.close()


# --- rules for mail that comes in -----------------------------------------------------------------------------------


async def test_mail_that_fits_a_rule_is_held_as_it_comes_in(store: Store) -> None:
    await put(store, new("A1", "x@a.example"))
    rule = await store.acts.add_hold_rule(filter_text="domain:a.example", reason="migration", by="root")
    assert await store.acts.hold_rules() == [rule] or await store.acts.hold_rules() == (rule,)
    await put(store, new("B2", "x@a.example", "y@b.example"))
    await put(store, new("C3", given=FROM_NOBODY))
    assert await found(store, "status:hold") == ["B2 x@a.example", "C3 one@a.example"]
    assert await store.acts.remove_hold_rule(rule.number) is True
    assert await store.acts.remove_hold_rule(rule.number) is False
    await put(store, new("D4", "x@a.example"))
    assert await found(store, "status:hold") == ["B2 x@a.example", "C3 one@a.example"]


async def test_rules_outlive_the_process_and_one_that_cannot_be_read_holds_all(tmp_path: Path, clock: Clock) -> None:
    store = await SqliteStore.open(tmp_path / "q", clock=clock)
    await store.acts.add_hold_rule(filter_text="size>1GB", reason="", by="root")
    await store.close()
    store = await SqliteStore.open(tmp_path / "q", clock=clock)
    await put(store, new("A1"))
    assert await found(store, "status:hold") == []
    await store._commit(lambda connection: connection.execute("UPDATE hold_rule SET filter = 'colour:red'"))
    await put(store, new("B2"))
    assert await found(store, "status:hold") == ["B2 one@a.example"]
    await store.close()


# --- SQL and Python mean the same -----------------------------------------------------------------------------------

TERMS = st.sampled_from(
    [
        "domain:a.example",
        "domain:.example",
        "domain:.a.example",
        "rcpt:X@A.example",
        "rcpt:@b.example",
        "sender:<>",
        "sender:@source.example",
        "sender:SENDER@source.example",
        "destination:a.example",
        "age>30m",
        "age>=1h",
        "age<1h",
        "size>100",
        "size<=46",
        "status:hold",
        "status:active",
        "status:deferred",
        "status:incoming",
        "status:4.7",
        "status:4",
        "status:4.7.5",
        "status:5",
        "reason:CERT",
        "reason:~cert.*ver",
        "reason:~^server",
        "A1",
        "id:A1,B2,Z9",
        "ALL",
    ]
)
FILTERS = st.recursive(
    TERMS,
    lambda inner: (
        inner.map("not ({})".format)
        | st.lists(inner, min_size=2, max_size=3).map(lambda some: f"({' and '.join(some)})")
        | st.lists(inner, min_size=2, max_size=3).map(lambda some: f"({' or '.join(some)})")
    ),
    max_leaves=6,
)


async def furnish(store: Store, clock: Clock) -> None:
    """Messages in every state, of different senders, ages and sizes."""
    await put(store, new("A1", "x@a.example", "Y@b.example"))
    await put(store, new("B2", given=FROM_NOBODY), b"x" * 200)
    for held in await lease(store):
        await store.settle(settlement(held, DEFERRED, next_attempt=T0 + timedelta(days=1)))
    await put(store, new("C3", given=envelope("x@sub.a.example", "y@a.example"), arrived_at=T0 + timedelta(minutes=40)))
    await act(store, Hold(), "C3 and domain:a.example")
    await put(store, new("D4", "x@b.example", arrived_at=T0 + timedelta(minutes=50)))
    clock.now = T0 + timedelta(minutes=55)
    await store.lease_at({"b.example": 1}, now=clock.now, until=clock.now + LEASE)
    clock.now = T0 + timedelta(hours=1)


@settings(max_examples=25, deadline=None)
@given(st.lists(FILTERS, min_size=5, max_size=15))
def test_both_engines_mean_the_same(filters: list[str]) -> None:
    async def compare() -> None:
        with tempfile.TemporaryDirectory() as folder:
            answers: list[object] = []
            for kind in ("memory", "sqlite"):
                clock = Clock()
                store: Store = MemoryStore(clock)
                if kind == "sqlite":
                    store = await SqliteStore.open(Path(folder) / "q", clock=clock)
                await furnish(store, clock)
                answers.append(
                    [
                        (
                            await found(store, each),
                            [await store.acts.tally(parse_filter(each), by, looking=9) for by in GroupBy],
                        )
                        for each in filters
                    ]
                )
                await store.close()
            assert answers[0] == answers[1]

    asyncio.run(compare())
