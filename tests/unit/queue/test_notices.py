"""Delays told once, the postmaster's copies by class, and that no report ever breeds another for ever."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes
from email.message import Message as Mail
from itertools import count
from pathlib import Path

import pytest

from relay.log.events import Event, Notified, NotNotified
from relay.mail.envelope import NULL_SENDER, Notify, QueueId
from relay.outcome.dsn import Audience
from relay.outcome.result import AttemptResult, Delays, NoHost, Outcome, RecipientResult
from relay.queue.notices import NoticeClass, ReportOptions
from relay.queue.schedule import RetrySchedule
from relay.queue.settle import Settler
from relay.queue.sqlite import SqliteStore
from relay.queue.store import Lease, QueueStore
from tests.unit.queue.memory import MemoryStore
from tests.unit.queue.samples import (
    BOUNCED,
    DEFERRED,
    FROM_NOBODY,
    SENT,
    T0,
    address,
    envelope,
    lease,
    new,
    put,
    read,
    recipient,
)

HOUR = timedelta(hours=1)
POSTMASTER = address("Postmaster@relay.example")
EVERY_CLASS = dict.fromkeys(NoticeClass, POSTMASTER)


class World:
    """A store and a settler whose reports are options."""

    def __init__(self, store: QueueStore, options: ReportOptions) -> None:
        self.now = T0
        self.store = store
        self.told: list[Event] = []
        ids = count(1)
        self.settler = Settler(
            store=store,
            schedule=RetrySchedule(),
            hostname="relay.example",
            clock=lambda: self.now,
            new_id=lambda: QueueId(f"R{next(ids)}"),
            destination_of=lambda to, sender: str(to.domain),
            observe=self.told.append,
            reporting=options,
        )

    async def attempt(self, held: Lease, *results: RecipientResult) -> None:
        delays = Delays(before_queue=0, in_queue=0, setup=0, transmission=0)
        outcomes = {
            one.id: Outcome(recipient=one.id, result=result, relay=NoHost(), delays=delays, tls="")
            for one, result in zip(held.recipients, results, strict=True)
        }
        await self.settler.settle(held, AttemptResult(outcomes=outcomes))

    async def due(self, queue_id: str) -> Lease:
        """The one delivery of a message, leased."""
        held = [one for one in await lease(self.store, self.now, limit=100) if one.message.queue_id == queue_id]
        (mine,) = held
        return mine

    async def mail(self, queue_id: str) -> Mail:
        return message_from_bytes(await read(self.store, queue_id))

    def notified(self) -> list[tuple[str, str, str]]:
        return [(each.audience.value, each.kind, each.report) for each in self.told if isinstance(each, Notified)]


@pytest.fixture(params=["memory", "sqlite"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def world(engine: str, path: Path, **options: object) -> World:
    reporting = replace(ReportOptions(), **options)  # type: ignore[arg-type]
    store: QueueStore = MemoryStore(lambda: T0)
    if engine == "sqlite":
        store = await SqliteStore.open(path / "queue.sqlite", clock=lambda: T0)
    return World(store, reporting)


# --- delays ---------------------------------------------------------------------------------------------------------


async def test_a_delay_is_told_once_and_only_after_its_time(engine: str, tmp_path: Path) -> None:
    relay = await world(engine, tmp_path, delay_warning_time=10_800.0)
    await put(relay.store, new("A1"))
    for hours in (0, 2, 4, 6, 8):
        relay.now = T0 + hours * HOUR
        await relay.attempt(await relay.due("A1"), DEFERRED)
    assert relay.notified() == [("sender", "delay", "R1")]
    mail = await relay.mail("R1")
    assert mail["Subject"] == "Delayed Mail (still being retried)"
    assert mail["Auto-Submitted"] == "auto-replied"
    text = (await read(relay.store, "R1")).decode()
    assert "Action: delayed\r\nStatus: 4.7.5\r\n" in text
    assert "Will-Retry-Until: Mon, 09 Mar 2026 05:06:07 +0000\r\n" in text
    assert "Content-Type: text/rfc822-headers" in text
    assert "hello" not in text
    await relay.store.close()


async def test_no_delay_is_told_unless_configured(engine: str, tmp_path: Path) -> None:
    relay = await world(engine, tmp_path)
    await put(relay.store, new("A1"))
    relay.now = T0 + 100 * HOUR
    await relay.attempt(await relay.due("A1"), DEFERRED)
    assert relay.notified() == []
    await relay.store.close()


@pytest.mark.parametrize(
    ("notify", "is_told"),
    [
        (Notify.UNSPECIFIED, True),
        (Notify.DELAY, True),
        (Notify.FAILURE, False),
        (Notify.SUCCESS, False),
        (Notify.NEVER, False),
    ],
)
async def test_delays_are_told_as_notify_says(tmp_path: Path, notify: Notify, is_told: bool) -> None:
    relay = await world("memory", tmp_path, delay_warning_time=1.0)
    given = replace(envelope("one@a.example"), recipients=(recipient(1, "one@a.example", notify=notify),))
    await put(relay.store, new("A1", given=given))
    relay.now = T0 + HOUR
    await relay.attempt(await relay.due("A1"), DEFERRED)
    assert bool(relay.notified()) is is_told


async def test_only_those_who_still_wait_are_named_in_a_delay(tmp_path: Path) -> None:
    relay = await world("memory", tmp_path, delay_warning_time=1.0)
    await put(relay.store, new("A1", "one@a.example", "two@a.example", "three@a.example"))
    relay.now = T0 + HOUR
    await relay.attempt(await relay.due("A1"), SENT, DEFERRED, BOUNCED)
    assert relay.notified() == [("sender", "non-delivery", "R1"), ("sender", "delay", "R2")]
    text = (await read(relay.store, "R2")).decode()
    assert "two@a.example" in text
    assert "one@a.example" not in text
    assert "three@a.example" not in text


async def test_the_last_attempt_tells_of_the_failure_and_not_of_a_delay(tmp_path: Path) -> None:
    relay = await world("memory", tmp_path, delay_warning_time=1.0)
    await put(relay.store, new("A1"))
    relay.now = T0 + timedelta(days=6)
    await relay.attempt(await relay.due("A1"), DEFERRED)
    assert relay.notified() == [("sender", "non-delivery", "R1")]


async def test_a_report_that_is_late_is_told_to_nobody(tmp_path: Path) -> None:
    relay = await world("memory", tmp_path, delay_warning_time=1.0, notices=EVERY_CLASS)
    await put(relay.store, new("A1", given=FROM_NOBODY))
    relay.now = T0 + HOUR
    await relay.attempt(await relay.due("A1"), DEFERRED)
    assert relay.told[1:] == []


# --- the postmaster's copies ----------------------------------------------------------------------------------------


async def test_copies_by_class(engine: str, tmp_path: Path) -> None:
    relay = await world(engine, tmp_path, delay_warning_time=1.0, notices=EVERY_CLASS)
    await put(relay.store, new("A1", "one@a.example", "two@a.example"))
    relay.now = T0 + HOUR
    await relay.attempt(await relay.due("A1"), BOUNCED, DEFERRED)
    assert relay.notified() == [
        ("sender", "non-delivery", "R1"),
        ("sender", "delay", "R2"),
        ("postmaster", "non-delivery", "R3"),
        ("postmaster", "delay", "R4"),
    ]
    copy = await relay.due("R3")
    assert [one.address for one in copy.recipients] == [POSTMASTER]
    assert copy.message.envelope.sender is NULL_SENDER
    mail = await relay.mail("R3")
    assert (mail["Subject"], mail["To"], mail["Auto-Submitted"]) == (
        "Postmaster Copy: Undelivered Mail",
        "Postmaster@relay.example",
        "auto-generated",
    )
    text = (await read(relay.store, "R3")).decode()
    assert "X-Relay-Sender: rfc822; sender@source.example" in text
    assert "hello" not in text  # a copy has the header only
    assert (await relay.mail("R4"))["Subject"] == "Postmaster Warning: Delayed Mail"
    await relay.store.close()


async def test_only_the_classes_that_are_wanted(tmp_path: Path) -> None:
    relay = await world("memory", tmp_path, notices={NoticeClass.DELAY: POSTMASTER})
    await put(relay.store, new("A1"))
    await relay.attempt(await relay.due("A1"), BOUNCED)
    assert relay.notified() == [("sender", "non-delivery", "R1")]


async def test_the_postmaster_hears_of_failures_that_the_sender_did_not_ask_for(tmp_path: Path) -> None:
    relay = await world("memory", tmp_path, notices=EVERY_CLASS)
    given = replace(envelope("one@a.example"), recipients=(recipient(1, "one@a.example", notify=Notify.NEVER),))
    await put(relay.store, new("A1", given=given))
    await relay.attempt(await relay.due("A1"), BOUNCED)
    assert relay.notified() == [("postmaster", "non-delivery", "R1")]
    assert [each.audience for each in relay.told if isinstance(each, NotNotified)] == [Audience.SENDER]


# --- loops ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("notices", [{}, EVERY_CLASS, {NoticeClass.DOUBLE_BOUNCE: POSTMASTER}])
async def test_where_everything_bounces_it_ends(
    engine: str, tmp_path: Path, notices: dict[NoticeClass, object]
) -> None:
    """Whatever is queued bounces: message, report, copy, copy of the report's failure; then the queue is empty."""
    relay = await world(engine, tmp_path, notices=notices)
    await put(relay.store, new("A1"))
    rounds = 0
    while (await relay.store.counts()).messages:
        rounds += 1
        assert rounds < 10
        for held in await lease(relay.store, relay.now, limit=100):
            await relay.attempt(held, *[BOUNCED] * len(held.recipients))
    ends = [each for each in relay.told if isinstance(each, NotNotified)]
    assert ends
    if notices:
        assert ends[-1].audience is Audience.POSTMASTER
    else:
        assert ends == [NotNotified(QueueId("R1"), "the message has the null sender")]
    await relay.store.close()


async def test_a_report_that_fails_goes_to_the_postmaster_as_2bounce(tmp_path: Path) -> None:
    relay = await world("memory", tmp_path, notices={NoticeClass.DOUBLE_BOUNCE: POSTMASTER})
    await put(relay.store, new("A1", given=FROM_NOBODY))
    await relay.attempt(await relay.due("A1"), BOUNCED)
    assert relay.notified() == [("postmaster", "non-delivery", "R1")]
    text = (await read(relay.store, "R1")).decode()
    assert "X-Relay-Sender" not in text
    assert "Return-Path: <>\r\n" in text


async def test_two_postmasters_do_not_write_to_each_other_for_ever(tmp_path: Path) -> None:
    second = address("second@other.example")
    relay = await world("memory", tmp_path, notices={NoticeClass.BOUNCE: POSTMASTER, NoticeClass.DOUBLE_BOUNCE: second})
    await put(relay.store, new("A1"))
    for _ in range(6):
        for held in await lease(relay.store, relay.now, limit=100):
            await relay.attempt(held, *[BOUNCED] * len(held.recipients))
    assert (await relay.store.counts()).messages == 0
    assert len(relay.notified()) == 4  # to the sender, to each postmaster about that, and about the first one's failure
