"""The worker over a queue in memory and hosts that do as they are told: who is dialled, how often, and what is said."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from itertools import count
from typing import cast

import pytest

from relay.delivery.attempt import Deliverer
from relay.delivery.delivery import Delivery, Policies
from relay.delivery.route import Router
from relay.lanes import Lanes
from relay.log.events import Crashed, Event, Removed, Settled
from relay.log.postfix import PostfixLines
from relay.mail.envelope import QueueId, RecipientId
from relay.mail.reply import EnhancedStatus
from relay.outcome.result import (
    AttemptResult,
    Deferred,
    Delays,
    Local,
    NoHost,
    Outcome,
    RecipientResult,
    RelayHost,
    Sent,
)
from relay.queue.schedule import RetrySchedule
from relay.queue.settle import Settler
from relay.queue.store import EntryState, Lease
from relay.scheduling.window import Limits
from relay.worker.options import WorkerOptions
from relay.worker.worker import Worker
from tests.unit.queue.memory import MemoryStore
from tests.unit.queue.samples import DEFERRED, SENT, T0, Hands, chunks, new, put

PATIENCE = 60.0
REFUSED = Deferred(
    status=EnhancedStatus(4, 4, 1),
    reason="connect to mx.dead.example[192.0.2.9]:25: Connection refused",
    diagnostic=Local(""),
)
MX = RelayHost("mx.example", ip_address("192.0.2.1"), 25)

Answer = Callable[[Delivery], RecipientResult]


@dataclass(frozen=True, slots=True)
class Dial:
    """One attempt that began."""

    destination: str
    queue_id: str
    recipients: int


class Hosts(Deliverer):
    """Answers by destination; one whose gate is closed does not answer at all."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.answers: dict[str, Answer] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.dials: list[Dial] = []
        self.busy: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self._changed = changed

    async def attempt(
        self, delivery: Delivery, policies: Policies, finished: dict[RecipientId, Outcome] | None = None
    ) -> AttemptResult:
        name = next(iter(delivery.route)).key
        self.dials.append(Dial(name, delivery.message.queue_id, len(delivery.recipients)))
        self.busy[name] += 1
        self.most[name] = max(self.most[name], self.busy[name])
        self.most["all"] = max(self.most["all"], self.busy.total())
        self._changed()
        try:
            await self.gates.get(name, _open()).wait()
            await asyncio.sleep(0)
            answer = self.answers.get(name)
            result = SENT if answer is None else answer(delivery)
        finally:
            self.busy[name] -= 1
        delays = Delays(before_queue=delivery.waited, in_queue=0, setup=0, transmission=0)
        outcomes = {
            one.id: Outcome(
                recipient=one.id,
                result=result,
                relay=MX if isinstance(result, Sent) else NoHost(),
                delays=delays,
                tls="dane",
            )
            for one in delivery.recipients
        }
        return AttemptResult(outcomes=outcomes, throttled_by=REFUSED if result is REFUSED else None)

    def dialled(self, name: str) -> int:
        return sum(1 for dial in self.dials if dial.destination == name)


def _open() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


class Disk(MemoryStore):
    """A queue that gives leases out only while its gate is open; they are taken before, as in a database."""

    def __init__(self, clock: Callable[[], datetime], changed: Callable[[], None]) -> None:
        super().__init__(clock)
        self.gate = _open()
        self.waiting = 0
        self.leased = 0
        self.asked = 0
        self._changed = changed

    async def lease_at(
        self, rooms: Mapping[str, int], *, now: datetime, until: datetime, recipient_limit: int = 0
    ) -> Sequence[Lease]:
        leases = await super().lease_at(rooms, now=now, until=until, recipient_limit=recipient_limit)
        self.waiting += len(leases)
        self.leased += len(leases)
        self.asked += 1
        self._changed()
        await self.gate.wait()
        self.waiting -= len(leases)
        return leases


class Scene:
    """A worker, its queue, its hosts, and a clock that only the test moves, or another one."""

    def __init__(
        self,
        options: WorkerOptions,
        schedule: RetrySchedule,
        *,
        monotonic: Callable[[], float] | None = None,
        hosts: type[Hosts] = Hosts,
    ) -> None:
        self.seconds = 0.0
        self.monotonic = monotonic or (lambda: self.seconds)
        self.events: list[Event] = []
        self.store = Disk(self.now, self.changed)
        self.hosts = hosts(self.changed)
        self._news = asyncio.Event()
        self._serial = count(1)
        settler = Settler(
            store=self.store,
            schedule=schedule,
            hostname="relay.example",
            clock=self.now,
            new_id=lambda: QueueId(f"R{next(self._serial):05}"),
            destination_of=lambda to, _: str(to.domain),
            observe=self.observe,
        )
        self.worker = Worker(
            store=self.store,
            deliverer=self.hosts,
            settler=settler,
            policies=lambda: cast("Policies", None),
            router=lambda: Router(relay_hosts=(), port=25),
            options=options,
            clock=self.now,
            monotonic=self.monotonic,
            observe=self.observe,
            lanes=Lanes(),
        )

    def now(self) -> datetime:
        return T0 + timedelta(seconds=self.monotonic())

    def observe(self, event: Event) -> None:
        self.events.append(event)
        self.changed()

    def changed(self) -> None:
        self._news.set()

    async def until(self, happened: Callable[[], bool], what: str) -> None:
        """Wait until something has happened."""
        async with asyncio.timeout(PATIENCE):
            while not happened():
                self._news.clear()
                await self._news.wait()
        assert happened(), what

    async def settle_down(self) -> None:
        """Let everything happen that can happen without time passing."""
        for _ in range(200):
            await asyncio.sleep(0)

    async def put(self, domain: str, messages: int = 1, recipients: int = 1) -> list[str]:
        ids = [f"M{next(self._serial):05}" for _ in range(messages)]
        for queue_id in ids:
            people = [f"u{number}@{domain}" for number in range(recipients)]
            await put(self.store, new(queue_id, *people, arrived_at=self.now()))
            self.worker.expect({domain})
        return ids

    async def arrive(self, domain: str, messages: int = 1, recipients: int = 1) -> None:
        """Mail comes in as from a client: the worker is asked at its commit."""
        for _ in range(messages):
            people = [f"u{number}@{domain}" for number in range(recipients)]
            message = new(f"M{next(self._serial):05}", *people, arrived_at=self.now())
            began = self.worker.under_way
            await self.store.put(message, chunks(b"x"), self.worker)
            if self.worker.under_way == began:
                self.worker.expect({domain})

    def settled(self, domain: str = "") -> list[Settled]:
        return [
            event
            for event in self.events
            if isinstance(event, Settled) and str(event.recipient.domain).endswith(domain)
        ]

    def reasons(self, domain: str) -> Counter[str]:
        return Counter(event.outcome.result.reason for event in self.settled(domain))


@asynccontextmanager
async def scene(
    *,
    concurrency: int = 200,
    recipient_limit: int = 50,
    limits: Limits | None = None,
    schedule: RetrySchedule | None = None,
) -> AsyncIterator[Scene]:
    options = WorkerOptions(concurrency=concurrency, limits=limits or Limits(), recipient_limit=recipient_limit)
    one = Scene(options, schedule or RetrySchedule())
    running = asyncio.create_task(one.worker.run())
    try:
        yield one
    finally:
        for gate in one.hosts.gates.values():
            gate.set()
        await one.worker.stop(PATIENCE)
        await running


SUSPENDED = f"delivery temporarily suspended: {REFUSED.reason}"


async def test_a_dead_destination_is_left_alone_and_its_mail_deferred_in_postfixs_words() -> None:
    async with scene() as it:
        it.hosts.answers["dead.example"] = lambda _: REFUSED
        await it.put("dead.example", messages=40)
        await it.put("good.example", messages=40)
        await it.until(lambda: len(it.settled()) == 80, "all settled")
        dialled = it.hosts.dialled("dead.example")
        assert dialled <= 5, "no more than the first window"
        assert it.reasons("dead.example") == {REFUSED.reason: dialled, SUSPENDED: 40 - dialled}
        assert it.hosts.dialled("good.example") == 40
        deferred = next(event for event in it.settled("dead.example") if event.outcome.result.reason == SUSPENDED)
        words = PostfixLines(hostname="relay", pid=1)
        (line,) = words.lines(deferred, T0)
        assert line == (
            f"Mar  4 05:06:07 relay postfix/error[1]: {deferred.queue_id}: to=<u0@dead.example>, "
            f"relay=none, delay=0, delays=0/0/0/0, dsn=4.4.1, status=deferred ({SUSPENDED})"
        )
        entries = await it.store.entries(limit=100)
        assert {entry.state for entry in entries} == {EntryState.DEFERRED}
        # Its due time is the message's own, by its age: what was not dialled waits no longer than what was.
        assert {one.next_attempt for entry in entries for one in entry.recipients} == {T0 + timedelta(seconds=300)}


async def test_new_mail_for_a_dead_destination_is_not_dialled_until_the_pause_is_over() -> None:
    async with scene(limits=Limits(initial=1)) as it:
        it.hosts.answers["dead.example"] = lambda _: REFUSED
        await it.put("dead.example")
        await it.until(lambda: len(it.settled()) == 1, "dialled once")
        await it.settle_down()
        it.seconds = 299.0
        await it.put("dead.example")
        await it.until(lambda: len(it.settled()) == 2, "deferred")
        assert it.hosts.dialled("dead.example") == 1
        it.seconds = 301.0
        it.hosts.answers.clear()
        await it.put("dead.example")
        await it.until(lambda: any(isinstance(event.outcome.result, Sent) for event in it.settled()), "sent")
        assert it.hosts.dialled("dead.example") >= 2


async def test_a_flush_brings_a_dead_destination_back() -> None:
    async with scene(limits=Limits(initial=1)) as it:
        it.hosts.answers["dead.example"] = lambda _: REFUSED
        await it.put("dead.example", messages=3)
        await it.until(lambda: len(it.settled()) == 3, "all deferred")
        assert it.hosts.dialled("dead.example") == 1
        it.hosts.answers.clear()
        await it.store.flush(now=it.now())
        it.worker.wake()
        await it.until(lambda: sum(isinstance(event, Removed) for event in it.events) == 3, "all sent")


async def test_refused_messages_say_nothing_about_the_destination() -> None:
    async with scene() as it:
        it.hosts.answers["picky.example"] = lambda _: DEFERRED
        await it.put("picky.example", messages=30)
        await it.until(lambda: len(it.settled()) == 30, "all tried")
        assert it.hosts.dialled("picky.example") == 30


async def test_a_destination_that_hangs_holds_its_first_window_and_no_more() -> None:
    async with scene(concurrency=20) as it:
        it.hosts.gates["hangs.example"] = asyncio.Event()
        it.hosts.answers["450.example"] = lambda _: DEFERRED
        await it.put("hangs.example", messages=100)
        await it.put("450.example", messages=100)
        for number in range(50):
            await it.put(f"good{number}.example", messages=2)
        await it.until(
            lambda: sum(event.outcome.result is SENT for event in it.settled()) == 100,
            "all mail to the good destinations is gone while the bad one still hangs",
        )
        assert 1 <= it.hosts.busy["hangs.example"] <= it.hosts.most["hangs.example"] <= 5
        assert it.hosts.most["all"] <= 20


async def test_many_that_hang_do_not_keep_a_newcomer_out() -> None:
    async with scene(concurrency=20) as it:
        for number in range(10):
            it.hosts.gates[f"hangs{number}.example"] = asyncio.Event()
            await it.put(f"hangs{number}.example", messages=30)
        await it.settle_down()
        assert it.hosts.busy.total() == 15, "the last slots are not for those who have one"
        await it.put("good.example", messages=10)
        await it.until(lambda: len(it.settled("good.example")) == 10, "good mail goes out")


async def test_limits_are_never_exceeded_and_turns_are_fair() -> None:
    async with scene(concurrency=8, limits=Limits(initial=2, limit=3)) as it:
        for number in range(6):
            await it.put(f"d{number}.example", messages=40)
        await it.until(lambda: len(it.settled()) == 240, "all gone")
        assert it.hosts.most["all"] <= 8
        assert max(it.hosts.most[f"d{number}.example"] for number in range(6)) <= 3
        # A destination that was put first is not served first: when one is done the others are nearly done.
        order = [dial.destination for dial in it.hosts.dials]
        ends = [max(place for place, name in enumerate(order) if name == f"d{number}.example") for number in range(6)]
        assert min(ends) > 150


async def test_a_message_with_more_recipients_than_the_limit_goes_in_several_transactions() -> None:
    async with scene(recipient_limit=50) as it:
        await it.put("big.example", recipients=120)
        await it.until(lambda: any(isinstance(event, Removed) for event in it.events), "gone")
        assert sorted(dial.recipients for dial in it.hosts.dials) == [20, 50, 50]
        assert len({event.recipient.text for event in it.settled()}) == len(it.settled()) == 120


async def test_a_rate_is_kept_and_one_delivery_runs_at_a_time() -> None:
    async with scene(limits=Limits(rate_delay=60)) as it:
        await it.put("slow.example", messages=3)
        for gone in (1, 2, 3):
            await it.until(lambda gone=gone: len(it.settled()) == gone, "one more")  # type: ignore[misc]
            await it.settle_down()
            assert it.hosts.dialled("slow.example") == gone
            it.seconds += 59.0
            it.worker.expect({"slow.example"})
            await it.settle_down()
            assert it.hosts.dialled("slow.example") == gone
            it.seconds += 1.0
            it.worker.expect({"elsewhere.example"})
        assert it.hosts.most["slow.example"] == 1


async def test_an_attempt_that_breaks_defers_its_mail_and_pauses_the_destination_shortly() -> None:
    def broken(_: Delivery) -> RecipientResult:
        raise RuntimeError("nobody foresaw this")

    async with scene(limits=Limits(initial=1, own_pause=60)) as it:
        it.hosts.answers["odd.example"] = broken
        await it.put("odd.example", messages=2)
        await it.until(lambda: len(it.settled()) == 2, "deferred")
        text = "internal error; see the log of the relay"
        assert it.reasons("odd.example") == {text: 1, f"delivery temporarily suspended: {text}": 1}
        assert sum(isinstance(event, Crashed) for event in it.events) == 1
        await it.settle_down()
        it.seconds = 60.0
        it.hosts.answers.clear()
        await it.put("odd.example")
        await it.until(lambda: it.settled()[-1].outcome.result is SENT, "sent")


async def test_mail_of_a_dead_destination_expires_as_after_an_attempt() -> None:
    async with scene(limits=Limits(initial=1), schedule=RetrySchedule(maximal_queue_lifetime=0)) as it:
        it.hosts.answers["dead.example"] = lambda _: REFUSED
        ids = await it.put("dead.example", messages=2)
        await it.until(lambda: {e.queue_id for e in it.events if isinstance(e, Removed)} >= set(ids), "returned")
        assert it.hosts.dialled("dead.example") == 1


async def test_retries_are_found_without_being_announced() -> None:
    async with scene() as it:
        it.hosts.answers["a.example"] = lambda _: DEFERRED
        await it.put("a.example")
        await it.until(lambda: len(it.settled()) == 1, "deferred")
        await it.settle_down()
        it.hosts.answers.clear()
        it.seconds = 300.0
        it.worker.wake()
        await it.until(lambda: len(it.settled()) == 2, "tried again")


async def test_stop_lets_attempts_finish() -> None:
    async with scene() as it:
        it.hosts.gates["a.example"] = asyncio.Event()
        await it.put("a.example")
        await it.until(lambda: it.hosts.dialled("a.example") == 1, "dialled")
        stopping = asyncio.create_task(it.worker.stop(PATIENCE))
        await it.settle_down()
        assert not stopping.done()
        await it.put("b.example")
        await it.settle_down()
        it.hosts.gates["a.example"].set()
        await stopping
        assert it.settled("a.example")[0].outcome.result is SENT
        assert it.hosts.dialled("b.example") == 0, "nothing new is begun"


@pytest.mark.parametrize("hurried", [False, True])
async def test_stop_gives_back_what_does_not_finish_in_time(hurried: bool) -> None:
    async with scene() as it:
        it.hosts.gates["a.example"] = asyncio.Event()
        await it.put("a.example")
        await it.until(lambda: it.hosts.dialled("a.example") == 1, "dialled")
        stopping = asyncio.create_task(it.worker.stop(PATIENCE if hurried else 0.001))
        if hurried:
            await it.settle_down()
            it.worker.hurry()
        await stopping
        assert it.settled() == []
        (entry,) = await it.store.entries(limit=9)
        assert (entry.state, entry.recipients[0].attempts) == (EntryState.INCOMING, 0)


async def test_parts_of_a_long_list_of_recipients_go_at_the_same_time() -> None:
    async with scene(recipient_limit=50) as it:
        it.hosts.gates["big.example"] = asyncio.Event()
        await it.put("big.example", recipients=120)
        await it.settle_down()
        assert it.hosts.busy["big.example"] == 3, "all three are under way, and nobody waited for a second"


async def test_who_died_while_the_queue_was_asked_is_not_dialled() -> None:
    async with scene(limits=Limits(initial=2, failed_cohorts=0.5)) as it:
        it.hosts.answers["dead.example"] = lambda _: REFUSED
        it.hosts.gates["dead.example"] = asyncio.Event()
        await it.put("dead.example")
        await it.until(lambda: it.hosts.dialled("dead.example") == 1, "the first is under way")
        it.store.gate.clear()
        await it.put("dead.example")
        await it.until(lambda: it.store.waiting == 1, "the second is being leased")
        it.hosts.gates["dead.example"].set()
        await it.until(lambda: len(it.settled()) == 1, "the first failed")
        await it.settle_down()
        it.store.gate.set()
        await it.until(lambda: len(it.settled()) == 2, "the second was put off")
        assert it.hosts.dialled("dead.example") == 1


async def test_what_was_being_leased_at_the_stop_is_given_back_untried() -> None:
    async with scene() as it:
        it.store.gate.clear()
        await it.put("a.example")
        await it.until(lambda: it.store.waiting == 1, "being leased")
        await it.worker.stop(PATIENCE)
        it.store.gate.set()
        await it.settle_down()
        assert it.hosts.dialled("a.example") == 0
        (entry,) = await it.store.entries(limit=9)
        assert (entry.state, entry.recipients[0].attempts) == (EntryState.INCOMING, 0)


async def test_failures_that_are_far_between_do_not_add_up() -> None:
    async with scene() as it:
        it.hosts.answers["rare.example"] = lambda _: REFUSED
        for gone in range(1, 8):
            await it.put("rare.example")
            await it.until(lambda gone=gone: len(it.settled()) == gone, "tried")  # type: ignore[misc]
            await it.settle_down()
            it.seconds += 10.0
        assert it.hosts.dialled("rare.example") == 7


async def test_retries_are_found_in_time_however_often_the_worker_is_woken() -> None:
    async with scene() as it:
        it.hosts.gates["hangs.example"] = asyncio.Event()
        it.hosts.answers["a.example"] = lambda _: DEFERRED
        await it.put("hangs.example")
        await it.put("a.example")
        await it.until(lambda: len(it.settled()) == 1, "deferred, while another one hangs")
        await it.settle_down()
        for _ in range(30):
            it.seconds += 10.1
            it.worker.expect({"elsewhere.example"})  # as when mail comes in all the time
            await it.settle_down()
        assert it.hosts.dialled("a.example") == 2


# --- taking over at the commit ----------------------------------------------------------------------------------------


async def test_what_comes_in_is_tried_at_once_without_being_looked_for() -> None:
    async with scene() as it:
        await it.settle_down()
        before = it.store.leased
        it.hosts.gates["a.example"] = asyncio.Event()
        await it.arrive("a.example", messages=3)
        assert it.worker.under_way == 3
        await it.until(lambda: it.hosts.busy["a.example"] == 3, "all three are dialled")
        it.hosts.gates["a.example"].set()
        await it.until(lambda: len(it.settled()) == 3, "all sent")
        assert it.store.leased == before, "nothing was read back"
        assert [str(event.queue_id) for event in it.settled()] == [dial.queue_id for dial in it.hosts.dials]


async def test_what_has_no_room_waits_and_nobody_overtakes_it() -> None:
    async with scene(limits=Limits(initial=2, limit=2)) as it:
        it.hosts.gates["a.example"] = asyncio.Event()
        await it.arrive("a.example", messages=6)
        await it.settle_down()
        assert it.hosts.busy["a.example"] == 2
        assert it.worker.reserve({"a.example": 1}) is None
        it.hosts.gates["a.example"].set()
        await it.until(lambda: len(it.settled()) == 6, "all sent")
        assert [dial.queue_id for dial in it.hosts.dials] == sorted(dial.queue_id for dial in it.hosts.dials)
        assert it.hosts.most["a.example"] == 2


async def test_a_backlog_goes_first() -> None:
    async with scene(limits=Limits(initial=1, limit=1)) as it:
        it.hosts.gates["a.example"] = asyncio.Event()
        await it.arrive("a.example", messages=2)
        await it.settle_down()
        it.hosts.gates["a.example"].set()
        await it.until(lambda: len(it.settled()) >= 1, "the first is gone")
        await it.arrive("a.example")
        await it.until(lambda: len(it.settled()) == 3, "all are gone")
        assert [dial.queue_id for dial in it.hosts.dials] == sorted(dial.queue_id for dial in it.hosts.dials)


async def test_the_dead_are_not_dialled_for_what_comes_in() -> None:
    async with scene(limits=Limits(initial=1)) as it:
        it.hosts.answers["dead.example"] = lambda _: REFUSED
        await it.arrive("dead.example", messages=3)
        await it.until(lambda: len(it.settled()) == 3, "deferred")
        assert it.hosts.dialled("dead.example") == 1
        assert it.reasons("dead.example") == {REFUSED.reason: 1, SUSPENDED: 2}


async def test_too_many_recipients_are_split_as_ever() -> None:
    async with scene(recipient_limit=2) as it:
        await it.arrive("a.example", recipients=5)
        await it.until(lambda: len(it.settled()) == 5, "all sent")
        assert sorted(dial.recipients for dial in it.hosts.dials) == [1, 2, 2]


async def test_the_last_slots_are_kept_for_newcomers_here_too() -> None:
    async with scene(concurrency=8) as it:
        it.hosts.gates = {name: asyncio.Event() for name in ("a.example", "b.example")}
        await it.arrive("a.example", messages=5)
        await it.arrive("b.example", messages=5)
        await it.settle_down()
        assert it.hosts.busy.total() == 6
        await it.arrive("good.example")
        await it.until(lambda: len(it.settled("good.example")) == 1, "a newcomer gets his slot")


async def test_a_reservation_given_back_leaves_no_trace() -> None:
    async with scene(limits=Limits(initial=1)) as it:
        reservation = it.worker.reserve({"a.example": 1, "b.example": 1})
        assert reservation is not None
        assert sorted(reservation.destinations) == ["a.example", "b.example"]
        assert it.worker.under_way == 2
        assert it.worker.reserve({"a.example": 1}) is None
        it.worker.give_back(reservation)
        assert it.worker.under_way == 0
        again = it.worker.reserve({"a.example": 1})
        assert again is not None
        it.worker.give_back(again)


async def test_what_was_held_meanwhile_is_not_started() -> None:
    async with scene() as it:
        reservation = it.worker.reserve({"a.example": 1})
        assert reservation is not None
        it.worker.begin(reservation, [])
        assert (it.worker.under_way, it.hosts.dials) == (0, [])


async def test_what_is_committed_while_the_worker_stops_is_given_back() -> None:
    async with scene() as it:
        reservation = it.worker.reserve({"a.example": 1})
        assert reservation is not None
        hands = Hands("a.example", at=it.now())
        await it.store.put(new("A1", "u@a.example", arrived_at=it.now()), chunks(b"x"), hands)
        stopping = asyncio.create_task(it.worker.stop(PATIENCE))
        await it.settle_down()
        assert it.worker.reserve({"b.example": 1}) is None
        it.worker.begin(reservation, hands.leases)
        await stopping
        await it.settle_down()
        assert it.hosts.dials == []
        (entry,) = await it.store.entries(limit=5)
        assert (entry.state, entry.recipients[0].attempts) == (EntryState.INCOMING, 0)


async def test_a_retry_is_not_forgotten_over_what_comes_in() -> None:
    async with scene(schedule=RetrySchedule(minimal_backoff_time=10, maximal_backoff_time=10)) as it:
        it.hosts.answers["a.example"] = lambda _: DEFERRED
        await it.arrive("a.example")
        await it.until(lambda: len(it.settled()) == 1, "deferred")
        await it.settle_down()
        it.seconds = 11.0
        it.hosts.answers.clear()
        await it.arrive("b.example")
        await it.until(lambda: sum(isinstance(event, Removed) for event in it.events) == 2, "both are gone")


async def test_a_backlog_of_one_destination_is_leased_in_groups() -> None:
    async with scene(limits=Limits(initial=1, limit=1)) as it:
        await it.put("a.example", messages=300)
        await it.until(lambda: len(it.settled()) == 300, "all tried")
        assert it.hosts.most["a.example"] == 1
        assert it.store.asked <= 20


async def test_what_was_leased_ahead_is_given_back_at_the_stop() -> None:
    async with scene(limits=Limits(initial=1, limit=1)) as it:
        await it.put("a.example", messages=50)
        await it.until(lambda: len(it.settled()) == 10, "some tried")
        await it.worker.stop(PATIENCE)
        entries = await it.store.entries(limit=100)
        assert {(entry.state, entry.recipients[0].attempts) for entry in entries} == {(EntryState.INCOMING, 0)}
        assert it.store.leased > 50 - len(entries), "some were leased ahead"


async def test_what_was_leased_ahead_for_one_that_died_is_not_dialled() -> None:
    async with scene(limits=Limits(initial=1, limit=1)) as it:
        await it.put("a.example", messages=50)
        await it.until(lambda: len(it.settled()) == 10, "some tried")
        dialled = it.hosts.dialled("a.example")
        assert it.store.leased > dialled, "some were leased ahead"
        it.hosts.answers["a.example"] = lambda _: REFUSED
        await it.until(lambda: len(it.settled()) == 50, "the rest is put off")
        assert it.hosts.dialled("a.example") <= dialled + 2


async def test_what_was_leased_ahead_of_a_destination_that_hangs_comes_back() -> None:
    async with scene(limits=Limits(initial=1, limit=1)) as it:
        await it.put("a.example", messages=50)
        await it.until(lambda: len(it.settled()) == 10, "some tried")
        it.hosts.gates["a.example"] = asyncio.Event()
        await it.settle_down()
        it.seconds = 2.0
        it.worker.expect({"b.example"})
        await it.settle_down()
        entries = await it.store.entries(limit=100)
        assert sum(entry.state is EntryState.ACTIVE for entry in entries) == 1, "the one that is under way"
        it.hosts.gates.pop("a.example").set()
        await it.until(lambda: len(it.settled()) == 50, "all tried")
