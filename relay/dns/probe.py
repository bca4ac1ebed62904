"""Does the resolver validate? Asked at start, regularly, and again before an old answer is relied on (DESIGN section 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import assert_never

from relay.dns.answer import Answer, Bogus, Found, LookupFailed, LookupFault, NoData, NxDomain, RRType
from relay.dns.message import ROOT
from relay.dns.resolver import Resolver
from relay.mail.names import Domain

FRESH_SECONDS = 60.0
_BETWEEN_FAILURES = 5.0


@dataclass(frozen=True, slots=True)
class Validation:
    """Whether the resolver validates, and how that was seen, in Postfix's words where it has some.

    :param resolver: which one, where there is a choice.
    :param kind: what sort of resolver that is, for metrics.
    :param serial: counts the changes; what was learned under one serial number does not count under another.
    """

    validating: bool
    why: str
    resolver: str = ""
    kind: str = ""
    serial: int = 0


async def examine(resolver: Resolver, bogus_name: Domain | None = None) -> Validation:
    """Find out whether a resolver validates.

    The question is Postfix's (``dnssec_probe = ns:.``): the NS records of the root, which are signed; a resolver that does
    not mark them authentic validates nothing.

    :param resolver: asked directly, never through a cache.
    :param bogus_name: a name whose signatures are wrong on purpose; only a resolver that refuses it validates.
    """
    opinion = _of_root(await resolver.query(ROOT, RRType.NS))
    if not opinion.validating or bogus_name is None:
        return opinion
    return _of_bogus(await resolver.query(bogus_name, RRType.A), bogus_name, opinion)


def _of_root(answer: Answer) -> Validation:
    match answer:
        case Found(secure=True):
            return Validation(True, "dnssec_probe 'ns:.' received a DNSSEC validated response")
        case Found() | NoData() | NxDomain():
            return Validation(False, "dnssec_probe 'ns:.' received a response that is not DNSSEC validated")
        case Bogus(why):
            return Validation(False, f"dnssec_probe 'ns:.' received a response that does not validate: {why}")
        case LookupFailed(_, why):
            return Validation(False, f"dnssec_probe 'ns:.' received no response: {why}")
        case _:
            assert_never(answer)


def _of_bogus(answer: Answer, name: Domain, opinion: Validation) -> Validation:
    asked = f"dns.probe_bogus_name '{name}'"
    match answer:
        case Bogus() | LookupFailed(LookupFault.SERVFAIL):
            # A validator that gives no reason says SERVFAIL and nothing else (RFC 4035 section 5.5).
            return replace(opinion, why=f"{opinion.why}, and refused {asked}")
        case Found() | NoData() | NxDomain():
            return Validation(False, f"{asked} received an answer, which a resolver that validates refuses to give")
        case LookupFailed(_, why):
            return Validation(False, f"{asked} received no response: {why}")
        case _:
            assert_never(answer)


class ValidationProbe:
    """Keeps a fresh opinion.

    :param look: finds out.
    :param changed: called with each new opinion that differs from the last, in validity or in the resolver.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[Validation]],
        *,
        monotonic: Callable[[], float],
        changed: Callable[[Validation], None],
    ) -> None:
        self._look = look
        self._monotonic = monotonic
        self._changed = changed
        self._opinion = Validation(False, "not probed yet")
        self._until = float("-inf")
        self._lock = asyncio.Lock()

    @property
    def last(self) -> Validation:
        """The last opinion, however old."""
        return self._opinion

    async def current(self) -> Validation:
        """An opinion at most a minute old (five seconds, if it is a bad one)."""
        if self._monotonic() >= self._until:
            async with self._lock:
                if self._monotonic() >= self._until:
                    await self._probe()
        return self._opinion

    async def _probe(self) -> None:
        before, opinion = self._opinion, await self._look()
        self._until = self._monotonic() + (FRESH_SECONDS if opinion.validating else _BETWEEN_FAILURES)
        news = not before.serial or (before.validating, before.resolver) != (opinion.validating, opinion.resolver)
        self._opinion = replace(opinion, serial=before.serial + news)
        if news:
            self._changed(self._opinion)
