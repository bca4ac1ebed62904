from __future__ import annotations

from ipaddress import ip_address, ip_network

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
