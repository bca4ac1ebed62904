"""Answers live as long as their TTL, and one query serves all who ask at the same time."""

from __future__ import annotations

import asyncio

from relay.dns.answer import Answer, LookupFailed, LookupFault, NoData, RRType
from relay.dns.cache import FAILURE_SECONDS, CachingResolver
from relay.mail.names import Domain

NAME = Domain("mx.example")


class Counting:
    """Answers with what it is told, when it is told."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked = 0
        self.go = asyncio.Event()
        self.go.set()
        self.reached = asyncio.Event()

    async def query(self, name: Domain, rrtype: RRType) -> Answer:
        self.asked += 1
        self.reached.set()
        await self.go.wait()
        return self.answer


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_kept_until_the_ttl_ends_negative_answers_too() -> None:
    clock, inner = Clock(), Counting(NoData(canonical=NAME, secure=True, ttl=30))
    cache = CachingResolver(inner, monotonic=clock)
    for now, asked in ((100.0, 1), (129.9, 1), (130.0, 2)):
        clock.now = now
        assert await cache.query(NAME, RRType.TLSA) == inner.answer
        assert inner.asked == asked


async def test_types_are_kept_apart() -> None:
    inner = Counting(NoData(canonical=NAME, secure=True, ttl=30))
    cache = CachingResolver(inner, monotonic=Clock())
    await cache.query(NAME, RRType.A)
    await cache.query(NAME, RRType.AAAA)
    assert inner.asked == 2


async def test_failures_are_kept_for_a_moment_only() -> None:
    clock, inner = Clock(), Counting(LookupFailed(LookupFault.SERVFAIL, "SERVFAIL"))
    cache = CachingResolver(inner, monotonic=clock)
    await cache.query(NAME, RRType.A)
    await cache.query(NAME, RRType.A)
    clock.now += FAILURE_SECONDS
    await cache.query(NAME, RRType.A)
    assert inner.asked == 2


async def test_zero_ttl_is_never_kept() -> None:
    inner = Counting(NoData(canonical=NAME, secure=True, ttl=0))
    cache = CachingResolver(inner, monotonic=Clock())
    await cache.query(NAME, RRType.A)
    await cache.query(NAME, RRType.A)
    assert inner.asked == 2


async def test_one_query_for_many_and_cancelling_one_leaves_the_others() -> None:
    inner = Counting(NoData(canonical=NAME, secure=True, ttl=30))
    inner.go.clear()
    cache = CachingResolver(inner, monotonic=Clock())
    waiting = [asyncio.create_task(cache.query(NAME, RRType.A)) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    inner.go.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [inner.answer] * 4
    assert inner.asked == 1


async def test_least_recently_used_goes_first() -> None:
    inner = Counting(NoData(canonical=NAME, secure=True, ttl=30))
    cache = CachingResolver(inner, monotonic=Clock(), capacity=2)
    one, two, three = Domain("one"), Domain("two"), Domain("three")
    for name in (one, two, one, three):
        await cache.query(name, RRType.A)
    assert inner.asked == 3
    await cache.query(one, RRType.A)
    assert inner.asked == 3
    await cache.query(two, RRType.A)
    assert inner.asked == 4


async def test_what_is_under_way_when_everything_is_forgotten_is_not_kept() -> None:
    insecure, secure = (NoData(canonical=NAME, secure=value, ttl=30) for value in (False, True))
    inner = Counting(insecure)
    inner.go.clear()
    cache = CachingResolver(inner, monotonic=Clock())
    before = asyncio.create_task(cache.query(NAME, RRType.A))
    await inner.reached.wait()
    cache.clear()
    inner.go.set()
    assert await before == insecure
    inner.answer = secure
    assert await cache.query(NAME, RRType.A) == secure


async def test_who_asks_after_everything_is_forgotten_does_not_join_who_asked_before() -> None:
    inner = Counting(NoData(canonical=NAME, secure=True, ttl=30))
    inner.go.clear()
    cache = CachingResolver(inner, monotonic=Clock())
    before = asyncio.create_task(cache.query(NAME, RRType.A))
    await inner.reached.wait()
    cache.clear()
    after = asyncio.create_task(cache.query(NAME, RRType.A))
    inner.go.set()
    assert await before == await after == inner.answer
    assert inner.asked == 2
    assert await cache.query(NAME, RRType.A) == inner.answer
    assert inner.asked == 2
