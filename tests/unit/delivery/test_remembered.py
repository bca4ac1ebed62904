"""What is remembered of one delivery for the next: it is what would be found out anew, and no longer than that."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from relay.dane.tlsa import Absent, Usable
from relay.delivery.delivery import Delivery, Policies
from relay.delivery.facts import FactFinder
from relay.delivery.gather import Destination, Gatherer, LookupTrouble
from relay.delivery.leg import legs
from relay.delivery.remembered import Remembered
from relay.dns.answer import NoData, RRType
from relay.dns.probe import Validation
from relay.mail.names import Domain, NextHop
from relay.policy.level import Level
from relay.policy.policy import Decision, Defaults, MapEntry, NoEntry, Rule, TlsPolicy, Withheld
from tests.unit.delivery.test_leg import delivery_to
from tests.zone import ZoneResolver, a, found, mx_rdata, tlsa_rdata

HOP = NextHop.parse("example", default_port=25)
OWNER = "_25._tcp.mx.example"


def test_a_result_stands_for_equal_facts_only() -> None:
    kept = Remembered[str, tuple[int, str], list[str]]()
    result = kept.keep("a", (1, "x"), ["first"])
    assert kept.get("a", (1, "x")) is result
    assert kept.get("a", (2, "x")) is None
    assert kept.get("b", (1, "x")) is None
    kept.keep("a", (2, "x"), ["second"])
    assert kept.get("a", (1, "x")) is None


def test_what_was_kept_first_makes_room() -> None:
    kept = Remembered[int, None, int](capacity=2)
    for number in (1, 2, 2, 3):
        kept.keep(number, None, number)
    assert [kept.get(number, None) for number in (1, 2, 3)] == [None, 2, 3]
    assert len(kept) == 2


class Course:
    """Deliveries to one domain, decided one after the other while its zone and its rules change."""

    def __init__(self) -> None:
        self.resolver = ZoneResolver(
            {
                ("example", RRType.MX): found("example", mx_rdata(10, "mx.example")),
                ("mx.example", RRType.A): found("mx.example", a("192.0.2.1")),
                (OWNER, RRType.TLSA): found(OWNER, tlsa_rdata(3, 1, 1, b"x" * 32)),
            }
        )
        self.gatherer = Gatherer(self.resolver, shuffle=Random(1).shuffle)
        self.facts = FactFinder(self.gatherer, self.validation)
        self.opinion = Validation(True, "as the test says")
        self.entry: MapEntry | NoEntry = NoEntry()
        self.defaults = Defaults(level=Level.DANE, level_rule=Rule("relay.toml:7"))

    async def validation(self) -> Validation:
        return self.opinion

    async def decide(self) -> Decision:
        delivery: Delivery = delivery_to(HOP)
        policies = Policies(lookup=lambda next_hop: self.entry, defaults=self.defaults)
        (leg,) = legs(delivery, policies)
        destination = await self.gatherer.destination(HOP)
        assert isinstance(destination, Destination)
        (host,) = destination.hosts
        addresses = await self.gatherer.addresses(host)
        assert not isinstance(addresses, LookupTrouble)
        return leg.decide(await self.facts.of(destination, host, addresses[0], leg, self.opinion))


async def test_the_same_answers_and_rules_give_the_same_decision() -> None:
    course = Course()
    assert await course.decide() is await course.decide()


async def test_records_that_roll_over_are_decided_on_anew() -> None:
    course = Course()
    before = await course.decide()
    course.resolver.zone[OWNER, RRType.TLSA] = found(OWNER, tlsa_rdata(3, 1, 1, b"y" * 32))
    after = await course.decide()
    assert isinstance(before, TlsPolicy)
    assert isinstance(after, TlsPolicy)
    assert (before.tlsa[0].data, after.tlsa[0].data) == (b"x" * 32, b"y" * 32)


async def test_records_that_go_away_and_come_back_are_decided_on_anew() -> None:
    course, levels = Course(), list[Level]()
    there = course.resolver.zone[OWNER, RRType.TLSA]
    gone = NoData(canonical=Domain(OWNER), secure=True, ttl=300)
    for answer in (there, gone, there):
        course.resolver.zone[OWNER, RRType.TLSA] = answer
        decision = await course.decide()
        assert isinstance(decision, TlsPolicy)
        levels.append(decision.level)
    assert levels == [Level.DANE, Level.MAY, Level.DANE]


async def test_an_mx_set_that_is_insecure_now_is_decided_on_anew() -> None:
    course = Course()
    await course.decide()
    course.resolver.zone["example", RRType.MX] = found("example", mx_rdata(10, "mx.example"), secure=False)
    decision = await course.decide()
    assert isinstance(decision, TlsPolicy)
    assert decision.level is Level.HALFDANE


async def test_rules_that_changed_and_a_resolver_that_validates_no_more_are_decided_on_anew() -> None:
    course = Course()
    await course.decide()
    course.entry = MapEntry(level=Level.ENCRYPT, rule=Rule("tls_policy:1"))
    decision = await course.decide()
    assert isinstance(decision, TlsPolicy)
    assert decision.level is Level.ENCRYPT
    course.entry, course.defaults = NoEntry(), replace(course.defaults, level=Level.MAY)
    decision = await course.decide()
    assert isinstance(decision, TlsPolicy)
    assert decision.level is Level.MAY
    course.defaults = replace(course.defaults, level=Level.DANE)
    course.opinion = Validation(False, "no AD bit", serial=1)
    assert isinstance(await course.decide(), Withheld)


async def test_hosts_of_equal_preference_are_shuffled_each_time() -> None:
    resolver = ZoneResolver(
        {("example", RRType.MX): found("example", *(mx_rdata(10, f"{n}.example") for n in "abcdef"))}
    )
    gatherer, orders = Gatherer(resolver, shuffle=Random(1).shuffle), set[tuple[object, ...]]()
    for _ in range(20):
        destination = await gatherer.destination(HOP)
        assert isinstance(destination, Destination)
        orders.add(destination.hosts)
    assert len(orders) > 1


async def test_records_at_two_ports_are_kept_apart() -> None:
    course = Course()
    host = Domain("mx.example")
    addresses = await course.gatherer.addresses(host)
    assert not isinstance(addresses, LookupTrouble)
    at_25 = await course.gatherer.tlsa(host, 25, addresses[0])
    at_26 = await course.gatherer.tlsa(host, 26, addresses[0])
    assert (type(at_25), type(at_26)) == (Usable, Absent)
