from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from relay.smtpd.elsewhere import SharedCounts, SharedMemory
from relay.smtpd.lobby import Admission, Entry, Lobby
from tests.unit.smtpd.front_end import options

A, B = ip_address("192.0.2.1"), ip_address("192.0.2.2")


class Someone:
    """A guest that notes what it is asked."""

    def __init__(self, lobby: Lobby, *, obedient: bool = True) -> None:
        self.lobby = lobby
        self.obedient = obedient
        self.asked: list[str] = []

    def stop(self) -> None:
        self.asked.append("stop")
        if self.obedient:
            self.lobby.leave(self)

    def hurry(self) -> None:
        self.asked.append("hurry")

    def abort(self) -> None:
        self.asked.append("abort")
        self.lobby.leave(self)


def is_full(lobby: Lobby) -> bool:
    return lobby.is_full


async def test_each_address_has_its_limit() -> None:
    lobby = Lobby(options(client_connection_count_limit=2))
    first, second, third, other = (Someone(lobby) for _ in range(4))
    assert lobby.enter(first, A) == lobby.enter(second, A) == Entry(Admission.ADMITTED)
    assert lobby.enter(third, A) == Entry(Admission.TOO_MANY_OF_CLIENT, 3)
    assert lobby.enter(other, B).admission is Admission.ADMITTED
    lobby.leave(third)
    assert len(lobby) == 3
    lobby.leave(first)
    lobby.leave(first)
    assert lobby.enter(third, A).admission is Admission.ADMITTED
    assert lobby.enter(first, A).admission is Admission.TOO_MANY_OF_CLIENT


async def test_all_addresses_have_a_limit_together() -> None:
    lobby = Lobby(options(connection_limit=2))
    assert lobby.enter(Someone(lobby), A).admission is Admission.ADMITTED
    assert lobby.enter(Someone(lobby), B).admission is Admission.ADMITTED
    assert lobby.enter(Someone(lobby), ip_address("192.0.2.3")).admission is Admission.TOO_MANY


async def test_in_a_full_house_everybody_is_hurried_once_a_second() -> None:
    now = 1000.0
    lobby = Lobby(options(connection_limit=10, client_connection_count_limit=0), clock=lambda: now)
    guests = [Someone(lobby) for _ in range(9)]
    for guest in guests:
        lobby.enter(guest, A)
    assert is_full(lobby)
    assert not any(guest.asked for guest in guests)
    for _ in range(3):
        lobby.enter(Someone(lobby), B)
    assert [guest.asked for guest in guests] == [["hurry"]] * 9
    now += 1
    lobby.enter(Someone(lobby), B)
    assert guests[0].asked == ["hurry"] * 2
    lobby.leave(guests.pop())
    lobby.leave(guests.pop())
    assert not is_full(lobby)
    assert not Lobby(options(connection_limit=0)).is_full


async def test_exceptions_and_zero_mean_no_limit() -> None:
    exempt = Lobby(
        options(client_connection_count_limit=1, client_event_limit_exceptions=(ip_network("192.0.2.1/32"),))
    )
    unlimited = Lobby(options(client_connection_count_limit=0, connection_limit=0))
    for lobby in (exempt, unlimited):
        for _ in range(3):
            assert lobby.enter(Someone(lobby), A).admission is Admission.ADMITTED


async def test_closing_asks_and_then_insists() -> None:
    lobby = Lobby(options())
    obedient, stubborn = Someone(lobby), Someone(lobby, obedient=False)
    lobby.enter(obedient, A)
    lobby.enter(stubborn, A)
    await lobby.close(grace=0)
    assert obedient.asked == ["stop"]
    assert stubborn.asked == ["stop", "abort"]
    late = Someone(lobby)
    lobby.enter(late, A)
    assert late.asked == ["stop"]
    assert len(lobby) == 0


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    memory = SharedMemory.made(2)
    yield memory
    memory.close()


def two_lobbies(memory: SharedMemory, **limits: int) -> tuple[Lobby, Lobby]:
    one, two = (Lobby(options(**limits), elsewhere=SharedCounts(memory, worker)) for worker in range(2))
    return one, two


async def test_a_client_has_one_limit_at_all_workers(memory: SharedMemory) -> None:
    one, two = two_lobbies(memory, client_connection_count_limit=3)
    here, there, more = Someone(one), Someone(two), Someone(two)
    assert one.enter(here, A).admission is one.enter(Someone(one), A).admission is Admission.ADMITTED
    assert two.enter(there, A).admission is Admission.ADMITTED
    for lobby in (one, two, one):
        assert lobby.enter(Someone(lobby), A) == Entry(Admission.TOO_MANY_OF_CLIENT, 4)
    assert two.enter(Someone(two), B).admission is Admission.ADMITTED
    one.leave(here)
    assert two.enter(more, A).admission is Admission.ADMITTED
    assert one.enter(here, A).admission is Admission.TOO_MANY_OF_CLIENT
    memory.clear(0)
    assert two.enter(Someone(two), A).admission is Admission.ADMITTED, (
        "the first worker is dead, and its clients are gone"
    )


async def test_all_clients_have_one_limit_at_all_workers(memory: SharedMemory) -> None:
    one, two = two_lobbies(memory, connection_limit=10, client_connection_count_limit=0)
    guests = [Someone(one) for _ in range(9)]
    assert {one.enter(guest, A).admission for guest in guests} == {Admission.ADMITTED}
    unknown = Someone(two)
    assert two.wait(unknown)
    assert is_full(two)
    assert not one.wait(Someone(one))
    assert one.enter(Someone(one), A).admission is Admission.TOO_MANY
    assert two.enter(Someone(two), B).admission is Admission.TOO_MANY
    assert two.enter(unknown, B).admission is Admission.ADMITTED, "it was counted when it came"
    two.leave(unknown)
    assert one.enter(Someone(one), A).admission is Admission.ADMITTED
    assert two.enter(Someone(two), B).admission is Admission.TOO_MANY


async def test_what_was_refused_takes_no_room(memory: SharedMemory) -> None:
    one, two = two_lobbies(memory, connection_limit=3, client_connection_count_limit=1)
    assert one.enter(Someone(one), A).admission is Admission.ADMITTED
    for _ in range(5):
        assert one.enter(Someone(one), A).admission is Admission.TOO_MANY_OF_CLIENT
    assert two.enter(Someone(two), B).admission is Admission.ADMITTED
    assert two.enter(Someone(two), ip_address("192.0.2.3")).admission is Admission.ADMITTED


async def test_a_rate_is_one_of_all_workers(memory: SharedMemory) -> None:
    one, two = two_lobbies(memory, client_connection_rate_limit=3, client_connection_count_limit=0)
    entries = [lobby.enter(Someone(lobby), A).admission for lobby in (one, two, one, two)]
    assert entries == [Admission.ADMITTED] * 3 + [Admission.TOO_OFTEN]
