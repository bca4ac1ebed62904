"""What settling writes, what it reports to the sender, what it tells and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from email import message_from_bytes
from email.message import Message as Mail
from ipaddress import ip_address

import pytest

from relay.log.events import Event, Expired, Noted, Notified, Removed, Settled, Warned
from relay.mail.envelope import (
    NULL_SENDER,
    BodyType,
    Envelope,
    Notify,
    QueueId,
    RecipientId,
    Ret,
)
from relay.mail.reply import EnhancedStatus, Reply
from relay.outcome.result import (
    AttemptResult,
    Bounced,
    Deferred,
    Delays,
    FromPeer,
    Outcome,
    RecipientResult,
    RelayHost,
)
from relay.queue.schedule import RetrySchedule
from relay.queue.settle import Settler
from relay.queue.store import EntryState, Lease, LeaseToken, Settlement, StoreUnavailable
from tests.unit.queue.memory import MemoryStore
from tests.unit.queue.samples import (
    BOUNCED,
    CLIENT,
    DEFERRED,
    FROM_NOBODY,
    LEASE,
    MINUTE,
    SENT,
    T0,
    address,
    lease,
    new,
    next_due,
    put,
    read,
    recipient,
)

MX = RelayHost("mx.a.example", ip_address("192.0.2.25"), 25)
BODY = b"Message-ID: <m1@source.example>\r\nSubject: x\r\n\r\nhello\r\n"


class Disk(MemoryStore):
    """A store that can be away; ``busy`` tells of each attempt to settle, ``gate`` holds them up."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__(clock)
        self.away = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.busy = asyncio.Event()
        self.extended: list[datetime] = []

    async def settle(self, settlement: Settlement) -> bool:
        self.busy.set()
        await self.gate.wait()
        if self.away:
            raise StoreUnavailable("disk full", full=True)
        return await super().settle(settlement)

    async def extend(self, tokens: Collection[LeaseToken], until: datetime) -> None:
        if self.away:
            raise StoreUnavailable("disk full", full=True)
        self.extended.append(until)
        await super().extend(tokens, until)


class World:
    """A store, a settler and what it told."""

    def __init__(self, schedule: RetrySchedule) -> None:
        self.now = T0 + MINUTE
        self.store = Disk(lambda: self.now)
        self.told: list[Event] = []
        self.queued: list[set[str]] = []
        self.pauses: list[float] = []
        self.on_pause: Callable[[], Awaitable[None]] | None = None
        self.ids = (QueueId(f"R{number}") for number in range(1, 100))
        self.settler = Settler(
            store=self.store,
            schedule=schedule,
            hostname="relay.example",
            clock=lambda: self.now,
            new_id=lambda: next(self.ids),
            destination_of=lambda to, sender: f"route-to-{to.domain}",
            observe=self.told.append,
            queued=lambda destinations: self.queued.append(set(destinations)),
            sleep=self.sleep,
        )

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if self.on_pause:
            await self.on_pause()

    async def leased(self, given: Envelope, body: bytes = BODY) -> Lease:
        await put(self.store, new("A1", given=given), body)
        (held,) = await lease(self.store, self.now)
        return held

    async def reports(self) -> list[Lease]:
        return [held for held in await lease(self.store, self.now) if held.message.queue_id.startswith("R")]

    async def mail(self, queue_id: str) -> Mail:
        return message_from_bytes(await read(self.store, queue_id))


@pytest.fixture
def world() -> World:
    return World(RetrySchedule())


def sample(
    *notify: Notify, sender: str = "sender@source.example", ret: Ret = Ret.UNSPECIFIED, requiretls: bool = False
) -> Envelope:
    people = notify or (Notify.UNSPECIFIED,)
    return Envelope(
        sender=address(sender),
        recipients=tuple(recipient(id_, f"r{id_}@a.example", notify=one) for id_, one in enumerate(people, 1)),
        ret=ret,
        requiretls=requiretls,
        client=CLIENT,
    )


def attempted(*results: RecipientResult) -> AttemptResult:
    """The results of recipients 1, 2, 3…"""
    delays = Delays(before_queue=0.1, in_queue=0.2, setup=0.3, transmission=0.4)
    return AttemptResult(
        outcomes={
            RecipientId(id_): Outcome(recipient=RecipientId(id_), result=one, relay=MX, delays=delays, tls="dane")
            for id_, one in enumerate(results, 1)
        },
    )


def names(events: Sequence[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


# --- results --------------------------------------------------------------------------------------------------------


async def test_delivered_mail_is_told_and_gone(world: World) -> None:
    held = await world.leased(sample())
    result = attempted(SENT)
    await world.settler.settle(held, result)
    (outcome,) = result.outcomes.values()
    assert world.told == [
        Settled(queue_id=QueueId("A1"), recipient=address("r1@a.example"), outcome=outcome),
        Removed(QueueId("A1")),
    ]
    assert (await world.store.counts()).messages == 0


async def test_deferred_mail_is_due_again_by_the_schedule(world: World) -> None:
    world.now = T0 + 20 * MINUTE
    held = await world.leased(sample())
    await world.settler.settle(held, attempted(DEFERRED))
    assert names(world.told) == ["Settled"]
    assert await next_due(world.store, world.now) == T0 + 40 * MINUTE


async def test_only_those_not_settled_are_tried_again(world: World) -> None:
    held = await world.leased(sample(Notify.UNSPECIFIED, Notify.UNSPECIFIED, Notify.UNSPECIFIED))
    await world.settler.settle(held, attempted(SENT, DEFERRED))
    assert names(world.told) == ["Settled", "Settled"]
    (again,) = await lease(world.store, world.now + LEASE)
    assert [one.id for one in again.recipients] == [2, 3]


# --- non-delivery reports -------------------------------------------------------------------------------------------


async def test_a_bounce_is_reported_to_the_sender(world: World) -> None:
    held = await world.leased(sample())
    await world.settler.settle(held, attempted(BOUNCED))
    assert names(world.told) == ["Settled", "Notified", "Removed"]
    assert world.told[1] == Notified(QueueId("A1"), "non-delivery", QueueId("R1"))
    assert world.queued == [{"route-to-source.example"}]
    (report,) = await world.reports()
    envelope = report.message.envelope
    assert envelope.sender is NULL_SENDER
    assert [one.address for one in envelope.recipients] == [address("sender@source.example")]
    assert [one.notify for one in envelope.recipients] == [Notify.NEVER]
    assert envelope.body is BodyType.SEVEN_BIT
    assert report.destination == "route-to-source.example"
    assert report.message.arrived_at == world.now
    mail = await world.mail("R1")
    assert mail["Subject"] == "Undelivered Mail Returned to Sender"
    assert mail["In-Reply-To"] == "<m1@source.example>"
    assert (await read(world.store, "R1")).count(BODY) == 1


async def test_one_report_tells_of_all_that_bounced(world: World) -> None:
    held = await world.leased(sample(Notify.UNSPECIFIED, Notify.FAILURE, Notify.UNSPECIFIED))
    await world.settler.settle(held, attempted(BOUNCED, BOUNCED, SENT))
    text = (await read(world.store, "R1")).decode()
    assert text.count("Final-Recipient:") == 2
    assert "r3@a.example" not in text
    assert names(world.told).count("Notified") == 1


async def test_the_null_sender_is_never_told(world: World) -> None:
    held = await world.leased(FROM_NOBODY)
    await world.settler.settle(held, attempted(BOUNCED))
    assert names(world.told) == ["Settled", "NotNotified", "Removed"]
    assert "null sender" in str(world.told[1])
    assert (await world.store.counts()).messages == 0


@pytest.mark.parametrize("notify", [Notify.NEVER, Notify.SUCCESS, Notify.DELAY, Notify.SUCCESS | Notify.DELAY])
async def test_whoever_did_not_ask_for_failures_is_not_told(world: World, notify: Notify) -> None:
    held = await world.leased(sample(notify))
    await world.settler.settle(held, attempted(BOUNCED))
    assert names(world.told) == ["Settled", "NotNotified", "Removed"]
    assert "<r1@a.example>" in str(world.told[1])
    assert (await world.store.counts()).messages == 0


async def test_some_asked_and_some_did_not(world: World) -> None:
    held = await world.leased(sample(Notify.NEVER, Notify.FAILURE))
    await world.settler.settle(held, attempted(BOUNCED, BOUNCED))
    assert names(world.told) == ["Settled", "Settled", "Notified", "NotNotified", "Removed"]
    text = (await read(world.store, "R1")).decode()
    assert "r2@a.example" in text
    assert "r1@a.example" not in text


@pytest.mark.parametrize(
    ("given", "size", "whole"),
    [
        (sample(), 50_000, True),
        (sample(), 50_001, False),
        (sample(ret=Ret.FULL), 50_000, True),
        (sample(ret=Ret.FULL), 50_001, False),
        (sample(ret=Ret.HDRS), 100, False),
        (sample(requiretls=True), 100, False),
    ],
)
async def test_how_much_is_returned(world: World, given: Envelope, size: int, whole: bool) -> None:
    body = BODY + b"x" * (size - len(BODY) - 2) + b"\r\n"
    held = await world.leased(given, body)
    await world.settler.settle(held, attempted(BOUNCED))
    content = await read(world.store, "R1")
    assert (body in content) is whole
    assert (b"Content-Type: text/rfc822-headers" in content) is not whole
    assert (await world.reports())[0].message.envelope.requiretls is False
    assert b"Subject: x\r\n" in content


async def test_an_8_bit_original_makes_an_8_bit_report(world: World) -> None:
    held = await world.leased(sample(), BODY + b"\xe4\r\n")
    await world.settler.settle(held, attempted(BOUNCED))
    (report,) = await world.reports()
    assert report.message.envelope.body is BodyType.EIGHT_BIT_MIME


async def test_a_lost_original_is_reported_all_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    held = await world.leased(sample())
    monkeypatch.setattr(world.store, "open_body", lambda queue_id: MemoryStore.open_body(world.store, QueueId("gone")))
    await world.settler.settle(held, attempted(BOUNCED))
    assert names(world.told) == ["Settled", "Notified", "Removed"]


# --- expiry ---------------------------------------------------------------------------------------------------------


async def test_what_is_deferred_after_its_lifetime_is_returned_for_its_last_reason(world: World) -> None:
    world.now = T0 + timedelta(days=5)
    held = await world.leased(sample())
    await world.settler.settle(held, attempted(DEFERRED))
    sender = held.message.envelope.sender
    assert names(world.told) == ["Settled", "Expired", "Notified", "Removed"]
    assert isinstance(world.told[0], Settled)
    assert isinstance(world.told[0].outcome.result, Deferred)  # as Postfix logs it: deferred, then expired
    assert world.told[1] == Expired(QueueId("A1"), sender)
    text = (await read(world.store, "R1")).decode()
    assert "Action: failed\r\nStatus: 4.7.5\r\n" in text
    assert "Server certificate not verified" in text
    assert (await world.store.counts()).messages == 1


async def test_nothing_expires_a_moment_early(world: World) -> None:
    world.now = T0 + timedelta(days=5) - timedelta(microseconds=1)
    held = await world.leased(sample())
    await world.settler.settle(held, attempted(DEFERRED))
    assert names(world.told) == ["Settled"]


async def test_what_is_delivered_after_its_lifetime_did_not_expire(world: World) -> None:
    world.now = T0 + timedelta(days=9)
    held = await world.leased(sample(Notify.UNSPECIFIED, Notify.UNSPECIFIED))
    await world.settler.settle(held, attempted(SENT, BOUNCED))
    assert names(world.told) == ["Settled", "Settled", "Notified", "Removed"]


async def test_a_report_expires_by_its_own_lifetime_and_is_dropped() -> None:
    world = World(RetrySchedule(bounce_queue_lifetime=60))
    held = await world.leased(FROM_NOBODY)
    await world.settler.settle(held, attempted(DEFERRED))
    assert names(world.told) == ["Settled", "Expired", "NotNotified", "Removed"]
    assert (await world.store.counts()).messages == 0


# --- success reports ------------------------------------------------------------------------------------------------


async def test_a_wanted_success_that_the_next_host_will_not_report_is_reported(world: World) -> None:
    held = await world.leased(sample(Notify.SUCCESS, Notify.SUCCESS, Notify.UNSPECIFIED))
    await world.settler.settle(held, attempted(SENT, replace(SENT, dsn_passed_on=True), SENT))
    assert names(world.told) == ["Settled"] * 3 + ["Notified", "Removed"]
    assert world.told[3] == Notified(QueueId("A1"), "delivery status", QueueId("R1"))
    text = (await read(world.store, "R1")).decode()
    assert text.count("Final-Recipient:") == 1
    assert "Action: relayed\r\nStatus: 2.0.0\r\nRemote-MTA: dns; mx.a.example\r\n" in text
    assert "hello" not in text


async def test_the_null_sender_gets_no_success_report(world: World) -> None:
    given = replace(FROM_NOBODY, recipients=(recipient(1, "r1@a.example", notify=Notify.SUCCESS),))
    await world.settler.settle(await world.leased(given), attempted(SENT))
    assert names(world.told) == ["Settled", "Removed"]


async def test_failure_and_success_are_two_reports(world: World) -> None:
    held = await world.leased(sample(Notify.SUCCESS, Notify.FAILURE))
    await world.settler.settle(held, attempted(SENT, BOUNCED))
    assert [event.kind for event in world.told if isinstance(event, Notified)] == ["non-delivery", "delivery status"]
    assert (await world.store.counts()).messages == 2


# --- a store that is away -------------------------------------------------------------------------------------------


async def test_a_result_is_kept_until_it_can_be_written(world: World) -> None:
    held = await world.leased(sample())
    world.store.away = True

    async def come_back() -> None:
        world.store.away = len(world.pauses) < 9

    world.on_pause = come_back
    await world.settler.settle(held, attempted(BOUNCED))
    assert world.pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert names(world.told) == ["Warned", "Noted", "Settled", "Notified", "Removed"]
    assert isinstance(world.told[0], Warned)
    assert "disk full" in world.told[0].text
    assert isinstance(world.told[1], Noted)
    assert world.store.extended == [world.now + LEASE]
    assert [entry.message.queue_id for entry in await world.store.entries(limit=9)] == ["R1"]


async def test_nothing_is_told_before_it_is_written(world: World) -> None:
    held = await world.leased(sample())
    world.store.gate.clear()
    task = asyncio.create_task(world.settler.settle(held, attempted(SENT)))
    await world.store.busy.wait()
    assert world.told == []
    world.store.gate.set()
    await task
    assert names(world.told) == ["Settled", "Removed"]


async def test_cancellation_does_not_lose_a_result(world: World) -> None:
    held = await world.leased(sample())
    world.store.gate.clear()
    task = asyncio.create_task(world.settler.settle(held, attempted(SENT)))
    await world.store.busy.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
    world.store.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(world.told) == ["Settled", "Removed"]
    assert (await world.store.counts()).messages == 0


async def test_at_the_stop_a_store_that_is_still_away_is_tried_once_more(world: World) -> None:
    held = await world.leased(sample())
    world.store.away = True
    pausing = asyncio.Event()

    async def for_ever() -> None:
        pausing.set()
        await asyncio.Event().wait()

    world.on_pause = for_ever
    task = asyncio.create_task(world.settler.settle(held, attempted(SENT)))
    await pausing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(task), 20)
    assert names(world.told) == ["Warned", "Warned"]
    assert (await world.store.counts()).deliveries[EntryState.ACTIVE] == 1


async def test_a_lost_lease_is_told(world: World) -> None:
    held = await world.leased(sample())
    await lease(world.store, world.now + LEASE)
    await world.settler.settle(held, attempted(SENT))
    assert names(world.told) == ["Warned"]
    assert (await world.store.counts()).messages == 1


# --- what the peer said ---------------------------------------------------------------------------------------------


async def test_the_peers_words_are_in_the_report(world: World) -> None:
    reply = Reply(550, ("5.1.1 <r1@a.example>: no such user", "5.1.1 sorry"))
    bounced = Bounced(
        status=EnhancedStatus(5, 1, 1),
        reason=f"host {MX.namaddr} said: {reply} (in reply to RCPT TO command)",
        diagnostic=FromPeer(reply=reply, mta="mx.a.example"),
    )
    await world.settler.settle(await world.leased(sample()), attempted(bounced))
    mail = await world.mail("R1")
    status = mail.get_payload(1)
    assert isinstance(status, Mail)
    block = status.get_payload(1)
    assert isinstance(block, Mail)
    assert block["Remote-MTA"] == "dns; mx.a.example"
    assert " ".join(str(block["Diagnostic-Code"]).split()) == (
        "smtp; 550 5.1.1 <r1@a.example>: no such user 5.1.1 sorry"
    )


async def test_a_wait_that_the_host_named_is_kept(world: World) -> None:
    held = await world.leased(sample(Notify.UNSPECIFIED, Notify.UNSPECIFIED))
    reply = Reply(450, ("4.7.1 Greylisted, try again in 900 seconds",))
    grey = Deferred(status=reply.status, reason=reply.one_line, diagnostic=FromPeer(reply=reply, mta="mx.a.example"))
    await world.settler.settle(held, attempted(grey, DEFERRED))
    (entry,) = await world.store.entries(limit=1)
    assert {one.next_attempt for one in entry.recipients} == {world.now + timedelta(seconds=900)}
