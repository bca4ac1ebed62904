"""Which candidate is asked: proof before trust, and no trust without proof."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from relay.dns.answer import Answer, Bogus, Found, LookupFailed, LookupFault, NxDomain, RRType
from relay.dns.choose import RECONSIDER_SECONDS, Candidate, CandidateUnavailable, Choice, Kind
from relay.dns.message import ROOT
from relay.mail.names import Domain

HOST, BAD = Domain("host.example"), Domain("bogus.example")


def found(name: Domain, *, secure: bool) -> Found:
    return Found(canonical=name, rdata=(b"\x7f\0\0\1",), secure=secure, ttl=60)


VALIDATES: Mapping[Domain, Answer] = {ROOT: found(ROOT, secure=True), HOST: found(HOST, secure=True), BAD: Bogus("bad")}
BELIEVES: Mapping[Domain, Answer] = {name: found(name, secure=True) for name in (ROOT, HOST, BAD)}
INSECURE: Mapping[Domain, Answer] = {name: found(name, secure=False) for name in (ROOT, HOST, BAD)}
STRIPPED: Mapping[Domain, Answer] = {name: Bogus("no DNSKEY") for name in (ROOT, HOST, BAD)}
DEAD: Mapping[Domain, Answer] = {name: LookupFailed(LookupFault.TIMEOUT, "silence") for name in (ROOT, HOST, BAD)}


@dataclass
class Fake:
    """A resolver as scripted; the script may be changed while it is in use."""

    answers: Mapping[Domain, Answer]
    gate: asyncio.Event | None = None
    opened: int = 0
    closed: int = 0
    available: bool = True
    asked: list[Domain] = field(default_factory=list)

    def candidate(self, name: str, kind: Kind = Kind.FORWARDING) -> Candidate:
        async def open_it() -> Fake:
            if not self.available:
                raise CandidateUnavailable(f"{name} is not installed")
            self.opened += 1
            return self

        return Candidate(name=name, kind=kind, open=open_it)

    async def query(self, name: Domain, rrtype: RRType) -> Answer:
        self.asked.append(name)
        answer = self.answers[name]
        if self.gate is not None and name == HOST:
            await self.gate.wait()
        return answer

    async def close(self) -> None:
        self.closed += 1


class World:
    def __init__(self, *scripts: Mapping[Domain, Answer], bogus_name: Domain | None = None) -> None:
        self.now = 0.0
        self.fakes = [Fake(script) for script in scripts]
        candidates = [fake.candidate(f"c{number}") for number, fake in enumerate(self.fakes)]
        self.choice = Choice(candidates, bogus_name=bogus_name, monotonic=lambda: self.now)

    @property
    def chosen(self) -> str:
        return self.choice.chosen.name if self.choice.chosen is not None else ""

    async def ask(self) -> Answer:
        return await self.choice.query(HOST, RRType.A)


async def test_first_that_validates_is_taken_and_no_other_is_opened() -> None:
    world = World(STRIPPED, VALIDATES, BELIEVES)
    opinion = await world.choice.look()
    assert (opinion.validating, opinion.resolver, opinion.kind) == (True, "c1", "libunbound-forwarding")
    assert await world.ask() == found(HOST, secure=True)
    assert [fake.opened for fake in world.fakes] == [1, 1, 0]
    await world.choice.close()
    assert [fake.closed for fake in world.fakes] == [1, 1, 0]


async def test_question_before_any_probe_is_answered_by_a_probed_resolver() -> None:
    world = World(INSECURE, VALIDATES)
    assert await world.ask() == found(HOST, secure=True)
    assert world.chosen == "c1"
    assert world.fakes[0].asked == [ROOT]


async def test_resolver_that_answers_the_bogus_name_is_not_taken() -> None:
    world = World(BELIEVES, VALIDATES, bogus_name=BAD)
    assert (await world.choice.look()).resolver == "c1"


async def test_while_none_validates_plain_look_ups_work_and_nothing_is_secure() -> None:
    world = World(DEAD, STRIPPED, {**INSECURE, HOST: found(HOST, secure=True)})
    opinion = await world.choice.look()
    assert not opinion.validating
    assert all(f"c{number}: dnssec_probe 'ns:.'" in opinion.why for number in range(3))
    assert world.chosen == ""
    assert await world.ask() == found(HOST, secure=False)


async def test_absence_is_not_secure_either_while_none_validates() -> None:
    world = World({ROOT: found(ROOT, secure=False), HOST: NxDomain(canonical=HOST, secure=True, ttl=60)})
    assert await world.ask() == NxDomain(canonical=HOST, secure=False, ttl=60)


async def test_without_any_answer_the_first_candidate_gives_its_reason() -> None:
    world = World(DEAD, DEAD)
    assert await world.ask() == DEAD[HOST]
    assert world.fakes[0].asked == [ROOT, HOST]


async def test_candidates_that_cannot_be_opened_are_passed_over_and_named() -> None:
    world = World(VALIDATES, VALIDATES)
    world.fakes[0].available = False
    assert (await world.choice.look()).resolver == "c1"
    world.fakes[1].available = False
    other = World(VALIDATES)
    other.fakes[0].available = False
    opinion = await other.choice.look()
    assert (opinion.validating, opinion.why) == (False, "c0 is not installed")
    answer = await other.ask()
    assert isinstance(answer, LookupFailed)
    assert (answer.fault, answer.why) == (LookupFault.NO_VALIDATION, "c0 is not installed")


async def test_chosen_one_that_stops_validating_is_left_for_another() -> None:
    world = World(VALIDATES, VALIDATES)
    assert (await world.choice.look()).resolver == "c0"
    world.fakes[0].answers = INSECURE
    assert (await world.choice.look()).resolver == "c1"
    world.fakes[1].answers = INSECURE
    assert not (await world.choice.look()).validating
    world.fakes[1].answers = VALIDATES
    assert (await world.choice.look()).resolver == "c1"


async def test_better_candidate_is_taken_again_after_a_while() -> None:
    world = World(DEAD, VALIDATES)
    await world.choice.look()
    world.fakes[0].answers = VALIDATES
    world.now = RECONSIDER_SECONDS - 1
    assert (await world.choice.look()).resolver == "c1"
    assert world.fakes[0].asked == [ROOT]
    world.now = RECONSIDER_SECONDS
    assert (await world.choice.look()).resolver == "c0"


async def test_better_candidate_that_still_fails_is_left_alone_for_another_while() -> None:
    world = World(DEAD, VALIDATES)
    await world.choice.look()
    world.now = RECONSIDER_SECONDS
    assert (await world.choice.look()).resolver == "c1"
    world.now += 1
    await world.choice.look()
    assert world.fakes[0].asked == [ROOT, ROOT]


async def test_failed_candidate_is_opened_anew_for_the_next_look() -> None:
    world = World(STRIPPED)
    await world.choice.look()
    await world.choice.look()
    await asyncio.sleep(0)  # closing has a task of its own
    assert (world.fakes[0].opened, world.fakes[0].closed) == (3, 2)


async def test_answer_counts_as_its_resolver_was_worth_when_it_was_asked() -> None:
    world = World(INSECURE)
    await world.choice.look()
    fake = world.fakes[0]
    fake.answers, fake.gate = VALIDATES, asyncio.Event()
    asking = asyncio.create_task(world.ask())
    await asyncio.sleep(0)
    assert (await world.choice.look()).validating
    fake.gate.set()
    assert await asking == found(HOST, secure=False)
    assert await world.ask() == found(HOST, secure=True)


async def test_renewal_opens_anew_and_keeps_the_choice() -> None:
    world = World(STRIPPED, VALIDATES)
    await world.choice.look()
    await world.choice.renew()
    assert world.chosen == "c1"
    assert (world.fakes[1].opened, world.fakes[1].closed) == (2, 0)
    await asyncio.sleep(0)
    assert world.fakes[1].closed == 1
    world.fakes[1].available = False
    await world.choice.renew()
    assert await world.ask() == found(HOST, secure=True)


async def test_closed_choice_answers_softly() -> None:
    world = World(VALIDATES)
    await world.choice.look()
    await world.choice.close()
    answer = await world.ask()
    assert isinstance(answer, LookupFailed)
    assert not (await world.choice.look()).validating
    assert world.fakes[0].opened == world.fakes[0].closed == 1
