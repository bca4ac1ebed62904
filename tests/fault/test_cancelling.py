"""Cancellation at every await, of a delivery and of an acceptance: nothing lost, nobody served twice.

A stopping relay cancels what does not end in time. Each run cancels one step later than the run before; then the relay is
stopped, started again on the same queue, and drains.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from relay.app import open_relay
from relay.config.load import load
from relay.queue.sqlite import SqliteStore
from tests.fault.receivers import Manners, Receiver, Taken, letter
from tests.loopback import LoopbackNetwork, free_port
from tests.unit.queue.samples import T0, Hands, chunks, new, read
from tests.watched_process import PATIENCE

FIRST, SECOND = "one@mail.test", "two@mail.test"


class CancelledAt(Coroutine[Any, Any, Any]):
    """A coroutine whose task is cancelled as it waits for the n-th time; 0 for never."""

    def __init__(self, inner: Coroutine[Any, Any, Any], at: int) -> None:
        self._inner = inner
        self._at = at
        self.waits = 0

    def send(self, value: Any) -> Any:
        return self._waiting(self._inner.send(value))

    def throw(self, *error: Any) -> Any:
        return self._waiting(self._inner.throw(*error))

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, None, Any]:
        raise NotImplementedError

    def _waiting(self, on: Any) -> Any:
        self.waits += 1
        if self.waits == self._at:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        return on


@dataclass
class Cancelling:
    """Cancels the first delivery of a loop at one of its waits."""

    at: int
    first: CancelledAt | None = None
    task: asyncio.Task[Any] | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        """A task factory."""
        if self.first is None and getattr(work, "__qualname__", "") == "Carrier.deliver":
            self.first = CancelledAt(work, self.at)
            self.task = asyncio.Task(self.first, loop=loop, **options)
            self.begun.set()
            return self.task
        return asyncio.Task(work, loop=loop, **options)


class Place:
    """A relay's directory, a host that takes one recipient and defers the other, and a fallback relay that takes both."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.life = 0
        network = LoopbackNetwork()
        chance = random.Random(1)
        self.addresses = (network.address(1), network.address(2))
        self.port = free_port(*self.addresses)
        manners = (Manners(refuses=frozenset({SECOND})), Manners())
        self.receivers = [Receiver(each, chance, lambda: self.life) for each in manners]
        self.configuration = directory / "relay.toml"
        (directory / "transport").write_text(f"mail.test smtp:[{self.addresses[0]}]:{self.port}\n")
        self.configuration.write_text(
            f"""
[relay]
myhostname = "relay.test"
state_dir = "state"
[smtpd]
listen = ["127.0.0.1:0"]
[smtp]
tls_security_level = "may"
transport_maps = ["transport"]
fallback_relay = ["[{self.addresses[1]}]:{self.port}"]
[http]
listen = ""
[dns]
mode = "trust-ad"
nameservers = ["127.0.0.1:{free_port()}"]
timeout = "1s"
[queue]
minimal_backoff_time = "0.05s"
maximal_backoff_time = "0.05s"
"""
        )

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        for receiver, address in zip(self.receivers, self.addresses, strict=True):
            await receiver.start(address, self.port)
        try:
            yield
        finally:
            for receiver in self.receivers:
                await receiver.stop()

    def copies(self, person: str) -> list[Taken]:
        return [taken for receiver in self.receivers for taken in receiver.taken if person in taken.recipients]

    async def hand_in(self, address: tuple[str, int]) -> None:
        reader, writer = await asyncio.open_connection(*address)
        try:
            await reader.readline()
            people, reply = (b"RCPT TO:<%s>" % one.encode() for one in (FIRST, SECOND)), b""
            for line in (b"EHLO c", b"MAIL FROM:<>", *people, b"DATA", letter("t1", 500, random.Random(1)) + b"."):
                writer.write(line + b"\r\n")
                while (reply := await reader.readline())[3:4] == b"-":
                    pass
            assert b"queued as" in reply
        finally:
            writer.close()

    async def run(self, at: int) -> int:
        """One life in which the delivery is cancelled, one in which it is not; how often the delivery waited."""
        config = load(self.configuration, {}, hostname="relay.test")
        async with self.listening():
            cancelling = Cancelling(at)
            self.life = 1
            async with open_relay(config, write_line=lambda line: None) as relay:
                asyncio.get_running_loop().set_task_factory(cancelling)
                await self.hand_in(relay.smtp_addresses[0])
                await asyncio.wait_for(cancelling.begun.wait(), PATIENCE)
                assert cancelling.task is not None
                await asyncio.wait([cancelling.task], timeout=PATIENCE)
                asyncio.get_running_loop().set_task_factory(None)
            self.life = 2
            async with open_relay(config, write_line=lambda line: None) as relay, asyncio.timeout(PATIENCE):
                while (await relay.store.counts()).messages:
                    await asyncio.sleep(0.005)
        assert cancelling.first is not None
        return cancelling.first.waits


def excused(copies: list[Taken]) -> bool:
    """One copy; or two, where the first was answered to a session that never read the answer."""
    return len(copies) == 1 or (len(copies) == 2 and copies[0].life == 1 and not copies[0].followed)


async def test_a_delivery_is_cancelled_at_every_await(tmp_path: Path) -> None:
    waits = await Place(tmp_path / "0").run(0)
    assert waits > 10
    twice = 0
    for at in range(1, waits + 1):
        place = Place(tmp_path / str(at))
        await place.run(at)
        for person in (FIRST, SECOND):
            copies = sorted(place.copies(person), key=lambda copy: copy.life)
            assert copies, f"{person} lost, cancelled at wait {at} of {waits}"
            assert excused(copies), f"{person} served twice, cancelled at wait {at} of {waits}: {copies}"
            twice += len(copies) > 1
    assert twice <= 4, "each of the two sessions has one wait in which its final reply is in flight"


@pytest.mark.parametrize("size", [500, 200_000])
async def test_an_acceptance_is_cancelled_at_every_await(tmp_path: Path, size: int) -> None:
    """A put that does not return keeps nothing, neither a row nor a file; one that returns is there."""
    body = b"x" * size

    async def put_on(store: SqliteStore, at: int) -> tuple[bool, int]:
        hands = Hands("a.example")
        work = CancelledAt(store.put(new("A1"), chunks(body[:100_000], body[100_000:]), hands), at)
        task: asyncio.Task[Any] = asyncio.Task(work)
        await asyncio.wait([task], timeout=PATIENCE)
        returned = not task.cancelled() and task.exception() is None
        assert hands.open == 0
        assert len(hands.leases) == returned, "delivered is what was promised"
        return returned, work.waits

    waits, at, outcomes = 1, 1, set[bool]()
    while at <= waits + 1:
        store = await SqliteStore.open(tmp_path / f"q{at}", clock=lambda: T0)
        returned, waits = await put_on(store, at)
        outcomes.add(returned)
        await store.close()
        store = await SqliteStore.open(tmp_path / f"q{at}", clock=lambda: T0)
        assert (await store.counts()).messages == returned, f"cancelled at wait {at}"
        if returned:
            assert await read(store, "A1") == body
        else:
            assert list((tmp_path / f"q{at}.spool").iterdir()) == []
        await store.close()
        at += 1
    assert outcomes == {True, False}


def test_cancelled_at() -> None:
    """The tool cancels where it says."""
    reached: list[int] = []

    async def steps() -> None:
        for number in range(5):
            reached.append(number)
            await asyncio.sleep(0)

    async def run(start: Callable[[], CancelledAt]) -> bool:
        task: asyncio.Task[Any] = asyncio.Task(start())
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(run(lambda: CancelledAt(steps(), 3)))
    assert reached == [0, 1, 2]
    assert not asyncio.run(run(lambda: CancelledAt(steps(), 0)))
