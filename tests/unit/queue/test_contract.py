"""What every engine promises (relay/queue/store.py), run against each: the model in memory and SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path

import pytest

from relay.mail.envelope import Envelope, QueueId, RecipientId
from relay.outcome.result import Bounced, Deferred, Sent
from relay.queue.sqlite import SqliteStore
from relay.queue.store import EntryState, Head, LeaseLost, QueueStore, Report, Settlement, StoreUnavailable
from tests.unit.queue.memory import MemoryStore
from tests.unit.queue.samples import (
    BOUNCED,
    DEFERRED,
    FROM_NOBODY,
    LEASE,
    MINUTE,
    RICH,
    SENT,
    T0,
    Hands,
    chunks,
    lease,
    new,
    next_due,
    put,
    read,
    settlement,
)

Results = Mapping[RecipientId, Sent | Deferred | Bounced]


class Clock:
    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[QueueStore]:
    engine: QueueStore
    if request.param == "memory":
        engine = MemoryStore(clock)
    else:
        engine = await SqliteStore.open(tmp_path / "queue.sqlite", clock=clock)
    yield engine
    await engine.close()


# --- put and bodies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [RICH, FROM_NOBODY], ids=["everything set", "null sender"])
async def test_a_message_comes_back_as_it_went_in(store: QueueStore, given: Envelope) -> None:
    put_message = await store.put(new("A1", given=given), chunks(b"Subject: \xc3\xa9\r\n", b"\r\n"))
    assert (put_message.size, put_message.eight_bit, put_message.envelope) == (15, True, given)
    leases = await lease(store)
    assert {held.message for held in leases} == {put_message}
    assert {one for held in leases for one in held.recipients} == set(given.recipients)
    (entry,) = await store.entries(limit=5)
    assert entry.message == put_message


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 1_000_000])
@pytest.mark.parametrize("chunk", [1 << 20, 60_001, 65_536])
async def test_a_body_comes_back_octet_for_octet(store: QueueStore, size: int, chunk: int) -> None:
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    pieces = [body[start : start + chunk] for start in range(0, size, chunk)]
    message = await store.put(new("A1"), chunks(*pieces))
    assert message.size == size
    assert message.eight_bit == (size > 128)
    got = [piece async for piece in store.open_body(QueueId("A1"))]
    assert b"".join(got) == body
    assert all(0 < len(piece) <= 65_536 for piece in got)


# --- taking over ----------------------------------------------------------------------------------------------------


async def test_what_is_taken_over_is_leased_from_its_commit_on(store: QueueStore) -> None:
    hands = Hands("a.example")
    message = await store.put(new("A1", "one@a.example", "two@b.example", "three@a.example"), chunks(b"x"), hands)
    assert hands.asked == [{"a.example": 2, "b.example": 1}]
    assert hands.open == 0
    (taken,) = hands.leases
    assert [one.address.text for one in taken.recipients] == ["one@a.example", "three@a.example"]
    assert (taken.message, taken.destination, taken.attempts) == (message, "a.example", 0)
    assert (taken.leased_at, taken.due_at, taken.total_recipients) == (T0, T0, 3)
    (other,) = await lease(store)
    assert other.destination == "b.example"
    assert await store.settle(settlement(taken, SENT)) is False
    assert await store.settle(settlement(other, SENT)) is True


async def test_a_lease_that_was_taken_over_is_one_like_others(store: QueueStore, clock: Clock) -> None:
    hands = Hands("a.example")
    await store.put(new("A1"), chunks(b"x"), hands)
    (entry,) = await store.entries(limit=5)
    assert (entry.state, entry.recipients[0].attempts, entry.recipients[0].last_attempt) == (EntryState.ACTIVE, 1, T0)
    await store.release([hands.leases[0].token])
    (again,) = await lease(store)
    assert again.attempts == 0
    await store.settle(settlement(again, DEFERRED))
    assert await read(store, "A1") == b"x"
    with pytest.raises(LeaseLost):
        await store.settle(settlement(hands.leases[0], SENT))
    clock.now += LEASE + MINUTE
    await store.put(new("A2"), chunks(b"x"), Hands("a.example", at=T0))
    assert {one.message.queue_id for one in await lease(store, now=clock.now)} == {"A1", "A2"}, "it ends by time"


async def test_what_is_not_committed_is_not_taken_over(store: QueueStore) -> None:
    await put(store, new("A1"))
    hands = Hands("a.example")
    with pytest.raises(ValueError, match="A1"):
        await store.put(new("A1"), chunks(b"x"), hands)

    async def breaks() -> AsyncIterator[bytes]:
        yield b"x"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await store.put(new("A2"), breaks(), hands)
    assert (len(hands.asked), hands.open, hands.leases) == (1, 0, [])


async def test_the_body_of_an_unknown_message(store: QueueStore) -> None:
    with pytest.raises(KeyError):
        await read(store, "A1")


@pytest.mark.parametrize("size", [10, 300_000])
async def test_what_the_body_raises_passes_through_and_nothing_is_kept(store: QueueStore, size: int) -> None:
    class ClientWentAwayError(Exception):
        pass

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * size
        raise ClientWentAwayError

    with pytest.raises(ClientWentAwayError):
        await store.put(new("A1"), body())
    assert (await store.counts()).messages == 0
    await put(store, new("A1"))
    assert (await store.counts()).messages == 1


@pytest.mark.parametrize("size", [10, 300_000])
async def test_a_cancelled_put_keeps_nothing(store: QueueStore, size: int) -> None:
    begun = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * size
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.put(new("A1"), body()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await store.counts()).messages == 0


@pytest.mark.parametrize("size", [10, 300_000])
async def test_a_queue_id_is_used_once(store: QueueStore, size: int) -> None:
    await put(store, new("A1"), b"1" * size)
    with pytest.raises(ValueError, match="A1"):
        await put(store, new("A1"), b"2" * size)
    assert await read(store, "A1") == b"1" * size
    assert (await store.counts()).messages == 1


# --- leases ---------------------------------------------------------------------------------------------------------


async def test_recipients_of_one_destination_are_one_delivery(store: QueueStore) -> None:
    await put(store, new("A1", "one@a.example", "two@b.example", "three@a.example"))
    leases = await lease(store)
    assert {held.destination: [int(one.id) for one in held.recipients] for held in leases} == {
        "a.example": [1, 3],
        "b.example": [2],
    }
    assert {held.total_recipients for held in leases} == {3}
    assert {(held.attempts, held.leased_at, held.due_at) for held in leases} == {(0, T0, T0)}


async def test_a_delivery_has_one_holder(store: QueueStore) -> None:
    await put(store, new("A1"))
    assert len(await lease(store)) == 1
    assert await lease(store) == []


async def test_only_what_is_due_is_leased(store: QueueStore) -> None:
    await put(store, new("A1", arrived_at=T0 + MINUTE))
    assert await lease(store, T0) == []
    assert len(await lease(store, T0 + MINUTE)) == 1


async def test_the_longest_due_come_first(store: QueueStore) -> None:
    for number in (3, 1, 2):
        await put(store, new(f"A{number}", arrived_at=T0 + number * MINUTE))
    now = T0 + 5 * MINUTE
    assert [held.message.queue_id for held in await lease(store, now, limit=2)] == ["A1", "A2"]
    assert [held.message.queue_id for held in await lease(store, now, limit=2)] == ["A3"]


async def test_busy_destinations_are_passed_over(store: QueueStore) -> None:
    await put(store, new("A1", "one@a.example", "two@b.example"))
    assert [held.destination for held in await lease(store, busy=("a.example", "c.example"))] == ["b.example"]
    assert [held.destination for held in await lease(store)] == ["a.example"]


async def test_leasing_at_some_destinations(store: QueueStore) -> None:
    for number in range(3):
        await put(store, new(f"A{number}", "one@a.example", "two@b.example", arrived_at=T0 - (3 - number) * MINUTE))
    await put(store, new("A9", "one@a.example", arrived_at=T0 + MINUTE))
    held = await store.lease_at({"a.example": 2, "c.example": 5}, now=T0, until=T0 + MINUTE)
    assert [(one.destination, one.message.queue_id) for one in held] == [("a.example", "A0"), ("a.example", "A1")]
    held = await store.lease_at({"a.example": 9}, now=T0, until=T0 + MINUTE)
    assert [one.message.queue_id for one in held] == ["A2"]
    # Leases that lapsed are due again, with all else.
    held = await store.lease_at({"a.example": 9}, now=T0 + MINUTE, until=T0 + 2 * MINUTE)
    assert [one.message.queue_id for one in held] == ["A0", "A1", "A2", "A9"]
    assert await store.lease_at({}, now=T0, until=T0 + MINUTE) == []


async def test_a_lease_ends_with_its_time(store: QueueStore) -> None:
    await put(store, new("A1"))
    (first,) = await lease(store)
    assert await lease(store, T0 + LEASE - MINUTE) == []
    (second,) = await lease(store, T0 + LEASE)
    assert second.attempts == 1
    assert second.token != first.token
    with pytest.raises(LeaseLost):
        await store.settle(settlement(first, SENT))
    assert await store.settle(settlement(second, SENT))


async def test_a_lease_that_ended_but_was_not_taken_over_can_still_be_settled(store: QueueStore, clock: Clock) -> None:
    await put(store, new("A1"))
    (held,) = await lease(store)
    clock.now = T0 + 2 * LEASE
    assert await store.settle(settlement(held, SENT))


async def test_an_extended_lease_lasts(store: QueueStore) -> None:
    await put(store, new("A1"))
    (held,) = await lease(store)
    await store.extend([held.token], T0 + 2 * LEASE)
    assert await lease(store, T0 + LEASE) == []
    assert len(await lease(store, T0 + 2 * LEASE)) == 1


async def test_a_released_delivery_is_due_as_before(store: QueueStore) -> None:
    await put(store, new("A1"))
    (held,) = await lease(store, T0 + MINUTE)
    await store.release([held.token])
    (again,) = await lease(store, T0 + 2 * MINUTE)
    assert (again.due_at, again.attempts) == (T0, 0)
    with pytest.raises(LeaseLost):
        await store.settle(settlement(held, SENT))


async def test_lost_leases_are_neither_extended_nor_released(store: QueueStore) -> None:
    await put(store, new("A1"))
    (first,) = await lease(store)
    (second,) = await lease(store, T0 + LEASE)
    await store.release([first.token])
    await store.extend([first.token], T0)
    assert await lease(store, T0 + LEASE) == []
    assert await store.settle(settlement(second, SENT))


async def test_heads_of_destinations(store: QueueStore) -> None:
    assert await store.heads(now=T0, limit=9) == []
    await put(store, new("A1", "one@a.example"))
    await put(store, new("A2", "one@b.example", arrived_at=T0 + MINUTE))
    first, second = Head(T0, "a.example"), Head(T0 + MINUTE, "b.example")
    assert await store.heads(now=T0, limit=9) == [first, second]
    assert await store.heads(now=T0, limit=1) == [first]
    assert await store.heads(now=T0, limit=1, busy=["a.example"]) == [second]
    assert await store.heads(now=T0, limit=1, busy=["a.example", "b.example"]) == []
    await lease(store)
    assert await store.heads(now=T0, limit=9) == [second]
    assert await store.heads(now=T0 + LEASE, limit=9) == [first, second]


# --- settling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("result", [SENT, BOUNCED])
@pytest.mark.parametrize("size", [10, 300_000])
async def test_the_last_recipient_takes_the_message_along(store: QueueStore, result: Sent | Bounced, size: int) -> None:
    await put(store, new("A1"), b"x" * size)
    (held,) = await lease(store)
    assert await store.settle(settlement(held, result))
    assert await store.entries(limit=5) == []
    assert await next_due(store) is None
    with pytest.raises(KeyError):
        await read(store, "A1")


async def test_the_message_stays_while_another_destination_waits(store: QueueStore) -> None:
    await put(store, new("A1", "one@a.example", "two@b.example"))
    first, second = await lease(store)
    assert not await store.settle(settlement(first, SENT))
    assert await read(store, "A1")
    assert await store.settle(settlement(second, SENT))


async def test_the_deferred_come_back_at_their_time(store: QueueStore) -> None:
    await put(store, new("A1"))
    (held,) = await lease(store)
    assert not await store.settle(settlement(held, DEFERRED))
    assert await next_due(store) == T0 + 5 * MINUTE
    assert await lease(store, T0 + 4 * MINUTE) == []
    (again,) = await lease(store, T0 + 5 * MINUTE)
    assert (again.attempts, again.due_at, again.message) == (1, T0 + 5 * MINUTE, held.message)


async def test_settled_recipients_never_come_back(store: QueueStore) -> None:
    await put(store, new("A1", "one@a.example", "two@a.example", "three@a.example", "four@a.example"))
    (held,) = await lease(store)
    results: Results = {RecipientId(1): SENT, RecipientId(2): DEFERRED, RecipientId(3): BOUNCED}
    await store.settle(Settlement(lease=held, results=results, next_attempt=T0 + MINUTE))
    (again,) = await lease(store, T0 + MINUTE)
    assert [one.id for one in again.recipients] == [2, 4]
    assert again.total_recipients == 4
    assert len(again.message.envelope.recipients) == 4
    with pytest.raises(ValueError, match="recipients of the lease"):
        await store.settle(Settlement(lease=again, results={RecipientId(1): SENT}, next_attempt=T0))
    assert await store.settle(settlement(again, SENT))


async def test_a_lease_is_settled_once(store: QueueStore) -> None:
    await put(store, new("A1"))
    (held,) = await lease(store)
    await store.settle(settlement(held, DEFERRED))
    with pytest.raises(LeaseLost):
        await store.settle(settlement(held, SENT))


async def test_a_report_is_queued_with_the_result(store: QueueStore) -> None:
    await put(store, new("A1"))
    (held,) = await lease(store)
    content = b"Subject: report\r\n\r\n" + b"\xe4" * 70_000
    report = Report(message=new("R1", given=FROM_NOBODY), content=content)
    results = {RecipientId(1): BOUNCED}
    assert await store.settle(Settlement(lease=held, results=results, next_attempt=T0, reports=(report,)))
    (back,) = await lease(store)
    assert back.message.queue_id == "R1"
    assert back.message.envelope == FROM_NOBODY
    assert (back.message.size, back.message.eight_bit) == (len(content), True)
    assert await read(store, "R1") == content


async def test_a_report_that_cannot_be_queued_undoes_the_result(store: QueueStore) -> None:
    await put(store, new("A1"))
    await put(store, new("R1", arrived_at=T0 + LEASE))
    (held,) = await lease(store)
    report = Report(message=new("R1", given=FROM_NOBODY), content=b"")
    with pytest.raises(ValueError, match="R1"):
        await store.settle(
            Settlement(lease=held, results={RecipientId(1): BOUNCED}, next_attempt=T0, reports=(report,))
        )
    assert (await store.counts()).deliveries[EntryState.ACTIVE] == 1
    assert await store.settle(settlement(held, SENT))


# --- flush, listing, counting ---------------------------------------------------------------------------------------


async def test_flush_makes_the_waiting_due(store: QueueStore) -> None:
    for number in (1, 2, 3):
        await put(store, new(f"A{number}", "one@a.example", "two@b.example", arrived_at=T0 + LEASE))
    assert await store.flush(now=T0, ids=[QueueId("A2"), QueueId("A9")]) == 2
    assert {held.message.queue_id for held in await lease(store)} == {"A2"}
    assert await store.flush(now=T0) == 4
    assert await store.flush(now=T0) == 0
    assert {held.message.queue_id for held in await lease(store)} == {"A1", "A3"}


async def test_entries_are_listed_in_pages(store: QueueStore) -> None:
    for number in (5, 1, 4, 2, 3):
        await put(store, new(f"A{number}"))
    first = await store.entries(limit=2)
    assert [entry.message.queue_id for entry in first] == ["A1", "A2"]
    rest = await store.entries(limit=9, after=first[-1].message.queue_id)
    assert [entry.message.queue_id for entry in rest] == ["A3", "A4", "A5"]


async def test_entries_show_who_waits_where_and_why(store: QueueStore) -> None:
    await put(store, new("A1", "one@a.example", "two@b.example", "three@a.example"))
    (held,) = await lease(store, busy=("b.example",))
    assert [entry.state for entry in await store.entries(limit=1)] == [EntryState.ACTIVE]
    results: Results = {RecipientId(1): DEFERRED, RecipientId(3): SENT}
    await store.settle(Settlement(lease=held, results=results, next_attempt=T0 + MINUTE))
    (entry,) = await store.entries(limit=1)
    assert entry.state is EntryState.DEFERRED
    assert [
        (one.recipient.address.text, one.destination, one.state, one.reason, one.next_attempt, one.attempts)
        for one in entry.recipients
    ] == [
        ("one@a.example", "a.example", EntryState.DEFERRED, DEFERRED.reason, T0 + MINUTE, 1),
        ("two@b.example", "b.example", EntryState.INCOMING, "", T0, 0),
    ]


async def test_counts(store: QueueStore, clock: Clock) -> None:
    empty = await store.counts()
    assert (empty.messages, set(empty.deliveries.values()), empty.oldest_arrival) == (0, {0}, None)
    await put(store, new("A2", "one@a.example", "two@b.example", arrived_at=T0 + MINUTE))
    await put(store, new("A1", "one@a.example"))
    for held in await lease(store, limit=1):
        await store.settle(settlement(held, DEFERRED))
    await lease(store, T0 + MINUTE, busy=("b.example",))
    counts = await store.counts()
    assert (counts.messages, counts.oldest_arrival) == (2, T0)
    assert counts.deliveries == {
        EntryState.ACTIVE: 1,
        EntryState.INCOMING: 1,
        EntryState.DEFERRED: 1,
        EntryState.HOLD: 0,
    }
    clock.now = T0 + 2 * LEASE
    assert (await store.counts()).deliveries[EntryState.ACTIVE] == 0


# --- closing --------------------------------------------------------------------------------------------------------


async def test_a_closed_store_is_unavailable(store: QueueStore) -> None:
    await put(store, new("A1"))
    (held,) = await lease(store)
    await store.close()
    await store.close()
    for call in (
        put(store, new("A2")),
        put(store, new("A3"), b"x" * 300_000),
        lease(store),
        store.lease_at({"a.example": 1}, now=T0, until=T0 + MINUTE),
        store.extend([held.token], T0),
        store.release([held.token]),
        store.settle(settlement(held, SENT)),
        store.flush(now=T0),
        store.entries(limit=1),
        store.counts(),
        read(store, "A1"),
    ):
        with pytest.raises(StoreUnavailable):
            await call
