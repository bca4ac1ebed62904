"""Who takes a connection, and how many at once: two workers' doors at one socket, in one process."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address
from typing import Any

import pytest

from relay.smtpd import accepting
from relay.smtpd.accepting import AT_ONCE, Doors
from relay.smtpd.elsewhere import ALONE, Elsewhere, SharedCounts, SharedMemory
from relay.smtpd.lobby import Lobby
from tests.unit.smtpd.front_end import options

HERE = ip_address("127.0.0.1")
NEVER = 1000.0


class Guest(asyncio.Protocol):
    """A session that is in the lobby for as long as its connection lasts."""

    def __init__(self, lobby: Lobby) -> None:
        self._lobby = lobby

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._lobby.enter(self, HERE)

    def connection_lost(self, error: Exception | None) -> None:
        self._lobby.leave(self)

    def stop(self) -> None:
        self.abort()

    def hurry(self) -> None:
        return

    def abort(self) -> None:
        assert isinstance(self._transport, asyncio.Transport)
        self._transport.abort()


class Worker:
    """One worker's lobby and doors."""

    def __init__(self, elsewhere: Elsewhere = ALONE) -> None:
        self.lobby = Lobby(options(), elsewhere=elsewhere)
        self.warned: list[str] = []
        self.doors = Doors(self.lobby, self.warned.append)

    def open(self, listener: socket.socket, factory: Callable[[], asyncio.BaseProtocol] | None = None) -> None:
        self.doors.open(listener, factory or (lambda: Guest(self.lobby)))

    async def close(self) -> None:
        await self.doors.close()
        await self.lobby.close(grace=1.0)


class Refusing(socket.socket):
    """A listening socket whose accept(2) first fails."""

    def __init__(self, *errors: int) -> None:
        super().__init__()
        self.errors = list(errors)
        self.bind(("127.0.0.1", 0))
        self.listen(64)

    def accept(self) -> tuple[socket.socket, Any]:
        if self.errors:
            raise OSError(self.errors.pop(0), "this is how it failed")
        return super().accept()


@contextmanager
def visitors(listener: socket.socket, number: int) -> Iterator[list[socket.socket]]:
    """Clients who have connected and wait."""
    clients = [socket.socket(listener.family) for _ in range(number)]
    try:
        for client in clients:
            client.connect(listener.getsockname())
        yield clients
    finally:
        for client in clients:
            client.close()


@asynccontextmanager
async def opened(*workers: Worker) -> AsyncIterator[socket.socket]:
    """Their common socket, at which nobody looks yet."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        try:
            yield listener
        finally:
            for worker in workers:
                await worker.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


async def some_turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    memory = SharedMemory.made(2)
    yield memory
    memory.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who leaves somebody to the others does so for good."""
    monkeypatch.setattr(accepting, "MOMENT_SECONDS", NEVER)


@pytest.mark.usefixtures("patient")
async def test_a_worker_takes_its_share_and_leaves_the_rest_to_the_other(memory: SharedMemory) -> None:
    one, two = (Worker(SharedCounts(memory, number)) for number in range(2))
    async with opened(one, two) as listener:
        with visitors(listener, 12) as clients:
            one.open(listener)
            await until(lambda: len(one.lobby) == 6)
            await some_turns()
            assert len(one.lobby) == 6, "half of those who came are the other's, who does not look just now"
            for client in clients[:2]:  # the first that wait are the first that are taken
                client.close()
            await until(lambda: len(one.lobby) == 5)
            await some_turns()
            assert len(one.lobby) == 5, "four stay, and of the six who wait one more is its share"
            with listener.dup() as inherited:
                two.open(inherited)
                await until(lambda: len(one.lobby) + len(two.lobby) == 10)
                assert len(two.lobby) == 5
                await two.doors.close()


@pytest.mark.usefixtures("patient")
async def test_who_is_just_beginning_is_not_counted_twice_for_long(memory: SharedMemory) -> None:
    one, _two = (Worker(SharedCounts(memory, number)) for number in range(2))
    async with opened(one) as listener:
        with visitors(listener, 2):
            one.open(listener)
            while not one.doors._beginning:
                await asyncio.sleep(0)
            with visitors(listener, 1):
                await until(lambda: len(one.lobby) == 2)


async def test_whom_nobody_takes_for_a_moment_is_taken_all_the_same(memory: SharedMemory) -> None:
    one, _two = (Worker(SharedCounts(memory, number)) for number in range(2))
    async with opened(one) as listener:
        one.open(listener)
        with visitors(listener, 12):
            await until(lambda: len(one.lobby) == 12)


@pytest.mark.usefixtures("patient")
async def test_who_has_ended_or_takes_nobody_has_no_share(memory: SharedMemory) -> None:
    one, two = (Worker(SharedCounts(memory, number)) for number in range(2))
    async with opened(one) as listener:
        one.open(listener)
        assert one.lobby.workers == 2
        await two.close()
        assert one.lobby.workers == 1
        Lobby(options(), elsewhere=SharedCounts(memory, 1))
        assert one.lobby.workers == 2
        memory.clear(1)
        with visitors(listener, 12):
            await until(lambda: len(one.lobby) == 12)


async def test_one_worker_takes_all_who_wait() -> None:
    one = Worker()
    async with opened(one) as listener:
        with visitors(listener, 2 * AT_ONCE + 1):
            one.open(listener)
            await until(lambda: len(one.lobby) == 2 * AT_ONCE + 1)


async def test_without_descriptors_it_rests_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "_REST_SECONDS", 0.0)
    one = Worker()
    with Refusing(errno.EMFILE, errno.ENFILE) as listener, visitors(listener, 3):
        one.open(listener)
        await until(lambda: len(one.lobby) == 3)
        where = f"[127.0.0.1]:{listener.getsockname()[1]}"
        assert len(one.warned) == 2
        advice = "allow this process more open files and memory, or lower [smtpd] connection_limit"
        assert set(one.warned) == {f"no connections are taken at {where} for 0 s: this is how it failed; {advice}"}
        await one.close()


async def test_while_it_rests_it_does_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "_REST_SECONDS", NEVER)
    one = Worker()
    with Refusing(errno.EMFILE) as listener, visitors(listener, 3):
        one.open(listener)
        await until(lambda: bool(one.warned))
        await some_turns()
        assert len(one.lobby) == 0
        assert len(one.warned) == 1
        await one.close()


async def test_while_it_rests_it_does_not_look_for_those_it_had_left_either(
    monkeypatch: pytest.MonkeyPatch, memory: SharedMemory
) -> None:
    monkeypatch.setattr(accepting, "MOMENT_SECONDS", NEVER)
    monkeypatch.setattr(accepting, "_REST_SECONDS", NEVER)
    one, _two = (Worker(SharedCounts(memory, number)) for number in range(2))
    with Refusing() as listener, visitors(listener, 6) as clients:
        one.open(listener)
        await until(lambda: len(one.lobby) == 3)
        await some_turns()
        listener.errors.append(errno.EMFILE)
        for left, client in enumerate(clients[:3], start=1):
            client.close()
            await until(lambda: len(one.lobby) == 3 - left)  # noqa: B023 - it is over before the next round
            await some_turns()
        assert len(one.warned) == 1
        assert len(one.lobby) == 0
        await one.close()


async def test_what_one_connection_failed_of_is_nothing_to_the_next() -> None:
    one = Worker()
    with Refusing(errno.ECONNABORTED, errno.EHOSTUNREACH) as listener, visitors(listener, 3):
        one.open(listener)
        await until(lambda: len(one.lobby) == 3)
        assert not one.warned
        await one.close()


async def test_a_session_that_cannot_begin_is_told_and_the_next_begins() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    one = Worker()
    tries = iter(range(10))

    def factory() -> asyncio.BaseProtocol:
        if next(tries) == 0:
            raise RuntimeError("the first one fails")
        return Guest(one.lobby)

    async with opened(one) as listener:
        with visitors(listener, 3):
            one.open(listener, factory)
            await until(lambda: len(one.lobby) == 2)
            assert [str(context["exception"]) for context in told] == ["the first one fails"]


async def test_who_was_taken_is_in_the_lobby_when_the_doors_are_closed() -> None:
    one = Worker()
    async with opened(one) as listener:
        with visitors(listener, 3):
            one.open(listener)
            while not one.doors._beginning:
                await asyncio.sleep(0)
            assert len(one.lobby) == 0
            await one.doors.close()
            assert len(one.lobby) == 3


async def test_a_unix_socket_is_shared_too(memory: SharedMemory, tmp_path: Any) -> None:
    one, _two = (Worker(SharedCounts(memory, number)) for number in range(2))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "door"))
        listener.listen(64)
        one.open(listener)
        with visitors(listener, 3):
            await until(lambda: len(one.lobby) == 3)
        await one.close()
