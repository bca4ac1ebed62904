from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from ipaddress import ip_address
from typing import Any, cast

import pytest

from relay.log.events import Accepted, Event, Rejected, Warned
from relay.mail.envelope import Address, Client, Envelope, QueueId, Recipient, RecipientId
from relay.mail.names import Domain
from relay.mail.reply import Reply
from relay.queue.store import Lease, QueueStore, Reservation
from relay.smtpd.intake import Intake, IntakeOptions
from tests.unit.queue.memory import MemoryStore
from tests.unit.queue.samples import Hands
from tests.unit.smtpd.front_end import BROKEN, FULL, NOW, RecordingStore

SENDER = Address("a@example.org", Domain("example.org"))
ENVELOPE = Envelope(
    sender=SENDER,
    recipients=(
        Recipient(id=RecipientId(1), address=Address("b@one.example", Domain("one.example"))),
        Recipient(id=RecipientId(2), address=Address("c@two.example", Domain("two.example"))),
    ),
    client=Client(address=ip_address("127.0.0.1"), name="localhost", helo="client.example"),
)


class Counter:
    """An intake with what it told others."""

    def __init__(self, store: RecordingStore, *, local: bool = False, **limits: Any) -> None:
        self.events: list[Event] = []
        self.woken = 0
        self.store = store
        self.intake = Intake(
            cast(QueueStore, store),
            options=IntakeOptions(hostname="relay.example", **limits),
            destination_of=lambda address, sender: f"via-{address.domain}",
            clock=lambda: NOW,
            new_id=lambda: QueueId("4Q1"),
            observe=self.events.append,
            accepted=self._wake,
            adds_missing=lambda client: local,
        )

    def _wake(self, destinations: Collection[str]) -> None:
        assert destinations
        assert self.store.messages, "woken before the commit"
        self.woken += 1

    async def accept(self, *chunks: bytes) -> Reply:
        return await self.intake.accept(ENVELOPE, stream(*chunks))


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def test_a_message_goes_in_behind_one_field() -> None:
    counter = Counter(RecordingStore())
    content = (b"Message-ID: <x@y>\r\nSubject: \xff\r\n", b"\r\nbody\r\n")
    assert str(await counter.accept(*content)) == "250 2.0.0 Ok: queued as 4Q1"
    (octets,) = counter.store.messages.values()
    assert octets == (
        b"Received: from client.example (localhost [127.0.0.1])\r\n"
        b"\tby relay.example (dane-relay) with ESMTP id 4Q1;\r\n"
        b"\tFri, 21 Aug 2026 10:00:00 +0000 (UTC)\r\n" + b"".join(content)
    )
    (put,) = counter.store.puts
    assert put.destinations == {1: "via-one.example", 2: "via-two.example"}
    assert put.arrived_at == NOW
    assert counter.woken == 1
    assert counter.events == [
        Accepted(queue_id=QueueId("4Q1"), client=ENVELOPE.client, message_id="<x@y>", size=len(octets), recipients=2)
    ]


async def test_what_is_taken_over_begins_after_its_acceptance_was_told_and_wakes_nobody() -> None:
    heard: list[str] = []

    class Taking(Hands):
        def begin(self, reservation: Reservation, leases: Sequence[Lease]) -> None:
            super().begin(reservation, leases)
            heard.append("begun")

    store = MemoryStore(lambda: NOW)
    hands = Taking("via-one.example", at=NOW)
    intake = Intake(
        store,
        options=IntakeOptions(hostname="relay.example"),
        destination_of=lambda address, sender: f"via-{address.domain}",
        clock=lambda: NOW,
        new_id=lambda: QueueId("4Q1"),
        observe=lambda event: heard.append(type(event).__name__),
        accepted=heard.extend,
        taker=hands,
    )
    assert (await intake.accept(ENVELOPE, stream(b"x\r\n"))).code == 250
    assert heard == ["Accepted", "begun", "via-two.example"]


async def test_an_empty_content_is_a_message() -> None:
    counter = Counter(RecordingStore())
    assert (await counter.accept()).code == 250
    (octets,) = counter.store.messages.values()
    assert octets.endswith(b"(UTC)\r\n")


@pytest.mark.parametrize(
    ("failure", "reply"),
    [(FULL, "452 4.3.1 Insufficient system storage"), (BROKEN, "451 4.3.0 Error: queue file write error")],
)
async def test_a_store_that_cannot_is_a_soft_refusal(failure: Exception, reply: str) -> None:
    counter = Counter(RecordingStore(failure=failure))
    assert str(await counter.accept(b"a\r\n")) == reply
    assert counter.woken == 0
    warned, rejected = counter.events
    assert isinstance(warned, Warned)
    assert str(failure) in warned.text
    assert isinstance(rejected, Rejected)
    assert (rejected.where, rejected.queue_id, rejected.sender) == ("END-OF-MESSAGE", "4Q1", "a@example.org")


@pytest.mark.parametrize(("octets", "code"), [(1000, 250), (1001, 552)])
async def test_size_is_limited(octets: int, code: int) -> None:
    counter = Counter(RecordingStore(), message_size_limit=1000)
    assert (await counter.accept(b"x" * 500, b"x" * (octets - 500))).code == code
    assert len(counter.store.messages) == (code == 250)


async def test_zero_is_no_limit() -> None:
    assert (await Counter(RecordingStore(), message_size_limit=0).accept(b"x" * 20_000_000)).code == 250


@pytest.mark.parametrize(("received", "code"), [(48, 250), (49, 554), (80, 554)])
async def test_hops_are_limited_ours_included(received: int, code: int) -> None:
    counter = Counter(RecordingStore(), hopcount_limit=50)
    reply = await counter.accept(b"Received: x\r\n" * received + b"\r\nReceived: body\r\n" * 3)
    assert reply.code == code
    assert bool(counter.store.messages) is (code == 250)
    if code == 554:
        assert str(reply) == "554 5.4.0 Error: too many hops"
        assert isinstance(counter.events[-1], Rejected)


async def test_what_the_content_raises_passes_through_and_nothing_is_kept() -> None:
    class GoneError(Exception):
        pass

    async def broken() -> AsyncIterator[bytes]:
        yield b"half\r\n"
        raise GoneError

    counter = Counter(RecordingStore())
    with pytest.raises(GoneError):
        await counter.intake.accept(ENVELOPE, broken())
    assert not counter.store.messages
    assert not counter.events
    assert counter.woken == 0


async def test_what_a_local_client_left_out_is_added_and_logged() -> None:
    counter = Counter(RecordingStore(), local=True)
    assert (await counter.accept(b"Subject: x\r\n", b"\r\nbody\r\n")).code == 250
    (octets,) = counter.store.messages.values()
    assert octets.endswith(
        b"Subject: x\r\n"
        b"Message-Id: <20260821100000.4Q1@relay.example>\r\n"
        b"Date: Fri, 21 Aug 2026 10:00:00 +0000 (UTC)\r\n"
        b"\r\nbody\r\n"
    )
    (accepted,) = counter.events
    assert isinstance(accepted, Accepted)
    assert accepted.message_id == "<20260821100000.4Q1@relay.example>"


async def test_an_empty_message_of_a_local_client_is_completed_too() -> None:
    counter = Counter(RecordingStore(), local=True)
    assert (await counter.accept()).code == 250
    (octets,) = counter.store.messages.values()
    assert octets.endswith(b"Date: Fri, 21 Aug 2026 10:00:00 +0000 (UTC)\r\n")


async def test_fields_are_dropped_and_cut_as_asked() -> None:
    counter = Counter(RecordingStore(), drop_headers=frozenset({b"bcc"}), header_size_limit=100)
    assert (await counter.accept(b"Bcc: x\r\nTo: " + b"y" * 200 + b"\r\n\r\nbody\r\n")).code == 250
    (octets,) = counter.store.messages.values()
    assert octets.endswith(b"(UTC)\r\nTo: " + b"y" * 96 + b"\r\n\r\nbody\r\n")
    assert isinstance(counter.events[0], Warned)
    assert counter.events[0].text == "header field cut to 100 bytes"
