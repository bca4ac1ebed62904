"""Destinations do not share, are held back for one reason at a time, and the memory of them is bounded."""

from __future__ import annotations

from relay.mail.reply import EnhancedStatus
from relay.scheduling.destinations import MAX_REMEMBERED, Destinations
from relay.scheduling.window import Failing, Limits

FAILING = Failing(status=EnhancedStatus(4, 4, 1), reason="connect to mx[192.0.2.1]:25: Connection refused")


def kill(destinations: Destinations, name: str, now: float = 0) -> None:
    for _ in range(4):
        destinations.begin(name)
        destinations.end(name, now, FAILING)


def test_destinations_do_not_share() -> None:
    destinations = Destinations(Limits(initial=1, limit=1))
    destinations.begin("a")
    assert (destinations.room("a", 0), destinations.room("b", 0)) == (0, 1)
    assert destinations.held_back(0) == ["a"]
    assert (destinations.is_idle("a"), destinations.is_idle("b")) == (False, True)


def test_the_dead_get_nothing_and_why_is_known() -> None:
    destinations = Destinations(Limits(initial=2))
    for _ in range(3):
        destinations.begin("a")
    destinations.end("a", 0, FAILING)
    assert destinations.suspension("a", 0) is None
    destinations.end("a", 0, FAILING)
    suspension = destinations.suspension("a", 0)
    assert suspension is not None
    assert suspension.why is FAILING
    assert destinations.room("a", 0) == 0


def test_a_dead_destination_comes_back_when_its_pause_is_over() -> None:
    destinations = Destinations(Limits())
    kill(destinations, "a")
    assert destinations.suspension("a", 299.9) is not None
    assert destinations.held_back(0) == []  # its mail is deferred, it does not wait
    assert destinations.suspension("a", 300) is None
    assert destinations.room("a", 300) == 5


def test_an_administrator_brings_all_back_at_once() -> None:
    destinations = Destinations(Limits())
    kill(destinations, "a")
    destinations.revive()
    assert destinations.room("a", 0) == 5


def test_a_rate_holds_back_until_its_time() -> None:
    destinations = Destinations(Limits(rate_delay=10))
    destinations.begin("a")
    destinations.end("a", 5)
    assert destinations.room("a", 14.9) == 0
    assert destinations.held_back(14.9) == ["a"]
    assert destinations.next_rest() == 15
    assert destinations.rested(14.9) == []
    assert destinations.rested(15) == ["a"]
    assert destinations.next_rest() is None
    assert destinations.room("a", 15) == 1


def test_an_administrator_does_not_break_a_rate() -> None:
    destinations = Destinations(Limits(rate_delay=10))
    destinations.begin("a")
    destinations.end("a", 0)
    destinations.revive()
    assert destinations.room("a", 5) == 0


def test_who_has_no_mail_left_begins_anew_but_for_the_dead_and_the_resting() -> None:
    destinations = Destinations(Limits())
    kill(destinations, "dead")
    for _ in range(2):
        destinations.begin("a")
        destinations.end("a", 0, FAILING)
    assert destinations.room("a", 0) == 2
    destinations.forget("a", 0)
    destinations.forget("dead", 0)
    destinations.forget("never seen", 0)
    assert destinations.room("a", 0) == 5
    assert destinations.suspension("dead", 0) is not None
    destinations.begin("busy")
    destinations.forget("busy", 0)
    assert not destinations.is_idle("busy")
    slow = Destinations(Limits(rate_delay=10))
    slow.begin("a")
    slow.end("a", 0)
    slow.forget("a", 5)
    assert slow.room("a", 5) == 0


def test_memory_is_bounded_and_what_is_under_way_or_dead_is_kept() -> None:
    destinations = Destinations(Limits(initial=1, limit=1))
    destinations.begin("busy")
    kill(destinations, "dead")
    for number in range(MAX_REMEMBERED + 50):
        destinations.begin(str(number))
        destinations.end(str(number), 0)
    assert destinations.room("busy", 0) == 0
    assert destinations.suspension("dead", 0) is not None
    assert len(destinations._windows) <= MAX_REMEMBERED


def test_memory_is_bounded_even_if_all_are_dead() -> None:
    destinations = Destinations(Limits(initial=1))
    for number in range(MAX_REMEMBERED + 50):
        destinations.begin(str(number))
        destinations.end(str(number), 0, FAILING)
    assert len(destinations._windows) <= MAX_REMEMBERED
