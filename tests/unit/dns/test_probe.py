"""The opinion on the resolver: what it is made from, fresh when asked for, told when it changes."""

from __future__ import annotations

import pytest

from relay.dns.answer import Answer, Bogus, Found, LookupFailed, LookupFault, NoData, NxDomain, RRType
from relay.dns.message import ROOT
from relay.dns.probe import FRESH_SECONDS, Validation, ValidationProbe, examine
from relay.mail.names import Domain

SECURE = Found(canonical=ROOT, rdata=(b"\0",), secure=True, ttl=60)
INSECURE = Found(canonical=ROOT, rdata=(b"\0",), secure=False, ttl=60)
SILENCE = LookupFailed(LookupFault.TIMEOUT, "no answer from 127.0.0.1:53")
BAD = Domain("bogus.example")


class Scripted:
    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[Domain, RRType]] = []

    async def query(self, name: Domain, rrtype: RRType) -> Answer:
        self.asked.append((name, rrtype))
        return self.answers.pop(0)


@pytest.mark.parametrize(
    ("answer", "validating", "why"),
    [
        (SECURE, True, "received a DNSSEC validated response"),
        (INSECURE, False, "not DNSSEC validated"),
        (NoData(canonical=ROOT, secure=True, ttl=0), False, "not DNSSEC validated"),
        (NxDomain(canonical=ROOT, secure=True, ttl=0), False, "not DNSSEC validated"),
        (Bogus("signature expired"), False, "does not validate: signature expired"),
        (SILENCE, False, "received no response: no answer from 127.0.0.1:53"),
    ],
)
async def test_the_root_shows_whether_it_validates(answer: Answer, validating: bool, why: str) -> None:
    resolver = Scripted(answer)
    opinion = await examine(resolver)
    assert (opinion.validating, resolver.asked) == (validating, [(ROOT, RRType.NS)])
    assert why in opinion.why


@pytest.mark.parametrize(
    ("answer", "validating", "why"),
    [
        (Bogus("signature expired"), True, "refused dns.probe_bogus_name 'bogus.example'"),
        (LookupFailed(LookupFault.SERVFAIL, "SERVFAIL"), True, "refused dns.probe_bogus_name 'bogus.example'"),
        (INSECURE, False, "received an answer"),
        (SECURE, False, "received an answer"),
        (NxDomain(canonical=BAD, secure=True, ttl=0), False, "received an answer"),
        (NoData(canonical=BAD, secure=False, ttl=0), False, "received an answer"),
        (SILENCE, False, "no answer from 127.0.0.1:53"),
    ],
)
async def test_bogus_name_must_be_refused(answer: Answer, validating: bool, why: str) -> None:
    resolver = Scripted(SECURE, answer)
    opinion = await examine(resolver, BAD)
    assert opinion.validating is validating
    assert why in opinion.why
    assert resolver.asked[1] == (BAD, RRType.A)


async def test_bogus_name_is_not_asked_of_a_resolver_that_fails_already() -> None:
    resolver = Scripted(INSECURE)
    assert not (await examine(resolver, BAD)).validating


def probe_of(*opinions: Validation, now: list[float], told: list[Validation]) -> ValidationProbe:
    coming = list(opinions)

    async def look() -> Validation:
        return coming.pop(0)

    return ValidationProbe(look, monotonic=lambda: now[0], changed=told.append)


async def test_good_opinion_is_kept_for_a_minute() -> None:
    now, told = [0.0], list[Validation]()
    probe = probe_of(Validation(True, "good"), Validation(False, "bad"), now=now, told=told)
    assert not probe.last.validating
    assert (await probe.current()).validating
    now[0] = FRESH_SECONDS - 0.1
    assert (await probe.current()).validating
    now[0] = FRESH_SECONDS
    assert not (await probe.current()).validating
    assert [(opinion.validating, opinion.serial) for opinion in told] == [(True, 1), (False, 2)]


async def test_bad_opinion_is_looked_at_again_soon() -> None:
    now, told = [0.0], list[Validation]()
    probe = probe_of(Validation(False, "bad"), Validation(False, "still"), Validation(True, "good"), now=now, told=told)
    assert (await probe.current()).why == "bad"
    now[0] = 5.0
    assert (await probe.current()).why == "still"
    now[0] = 10.0
    assert (await probe.current()).validating
    assert [opinion.why for opinion in told] == ["bad", "good"]


async def test_another_resolver_is_news_too() -> None:
    now, told = [0.0], list[Validation]()
    first, second = Validation(True, "good", resolver="a"), Validation(True, "good", resolver="b")
    probe = probe_of(first, first, second, now=now, told=told)
    for _ in range(3):
        await probe.current()
        now[0] += FRESH_SECONDS
    assert [(opinion.resolver, opinion.serial) for opinion in told] == [("a", 1), ("b", 2)]
