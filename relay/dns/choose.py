"""Which resolver is asked: the first of several candidates that is seen to validate (DESIGN section 6, ``auto``).

That a library loads or a server answers is no proof: a candidate is chosen only after the probe of ``relay.dns.probe``
passed, and dropped as soon as it fails. While none passes, the first one that answers at all serves look-ups that need no
DNSSEC, and nothing it says counts as secure. The other modes are choices with one candidate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Protocol, assert_never

from relay.dns.answer import Answer, Bogus, Found, LookupFailed, LookupFault, NoData, NxDomain, RRType
from relay.dns.probe import Validation, examine
from relay.dns.resolver import Resolver
from relay.mail.names import Domain

# How long a candidate stays chosen before the ones that come before it in the list are looked at again.
RECONSIDER_SECONDS: Final = 600.0


class Kind(Enum):
    """What sort of resolver a candidate is; the value labels metrics."""

    FORWARDING = "libunbound-forwarding"
    RECURSION = "libunbound-recursion"
    TRUST_AD = "trust-ad"


class CandidateUnavailable(Exception):  # noqa: N818 - it names the state of the candidate
    """A candidate cannot be opened on this machine now; the message says why."""


class ClosableResolver(Resolver, Protocol):
    """A resolver that holds something open."""

    async def close(self) -> None:
        """Let go of it, once the look-ups under way have ended."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A resolver that may be chosen.

    :param name: for people, with its addresses.
    :param open: makes it; raises ``CandidateUnavailable``.
    """

    name: str
    kind: Kind
    open: Callable[[], Awaitable[ClosableResolver]]


@dataclass(slots=True)
class _Opened:
    candidate: Candidate
    resolver: ClosableResolver
    answers: bool = False


class Choice:
    """A ``Resolver`` that asks the chosen candidate.

    :param candidates: in the order in which they are preferred.
    :param bogus_name: as in ``relay.dns.probe.examine``.
    :param monotonic: seconds that only ever grow.
    """

    def __init__(
        self, candidates: Sequence[Candidate], *, bogus_name: Domain | None, monotonic: Callable[[], float]
    ) -> None:
        self._candidates = tuple(candidates)
        self._bogus_name = bogus_name
        self._monotonic = monotonic
        self._opened: dict[Candidate, _Opened] = {}
        self._using: _Opened | None = None
        self._validating = False
        self._looked = False
        self._why_not = "no resolver was configured"
        self._reconsider_at = float("-inf")
        self._lock = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def chosen(self) -> Candidate | None:
        """The candidate that validates, None while there is none."""
        return self._using.candidate if self._using is not None and self._validating else None

    async def query(self, name: Domain, rrtype: RRType) -> Answer:
        """See ``Resolver.query``; secure only what a chosen candidate called secure."""
        if not self._looked:
            async with self._lock:
                if not self._looked:
                    await self._look()
        # Both are read now: an answer counts as what its resolver was worth when it was asked.
        using, validating = self._using, self._validating
        if using is None:
            return LookupFailed(LookupFault.NO_VALIDATION, self._why_not)
        answer = await using.resolver.query(name, rrtype)
        return answer if validating else _not_secure(answer)

    async def look(self) -> Validation:
        """Probe, and choose again where the chosen one failed; what ``ValidationProbe`` calls."""
        async with self._lock:
            return await self._look()

    async def renew(self) -> None:
        """Open all candidates anew at the next look, because what they read when they were opened has changed."""
        async with self._lock:
            for opened in list(self._opened.values()):
                if opened is not self._using:
                    self._drop(opened)
            if self._using is not None and not self._closed:
                await self._replace(self._using)

    async def close(self) -> None:
        """Close everything; look-ups fail from now on."""
        async with self._lock:
            self._closed = self._looked = True
            self._using, self._validating, self._why_not = None, False, "the resolver is closed"
            for opened in list(self._opened.values()):
                self._drop(opened)
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def _look(self) -> Validation:
        if self._closed:
            return Validation(False, self._why_not)
        reasons = []
        for candidate in self._in_order():
            opinion = await self._probe(candidate)
            if opinion.validating:
                self._choose(self._opened[candidate])
                return replace(opinion, resolver=candidate.name, kind=candidate.kind.value)
            reasons.append(opinion.why if len(self._candidates) == 1 else f"{candidate.name}: {opinion.why}")
        return await self._without_choice("; ".join(reasons) or self._why_not)

    def _in_order(self) -> Sequence[Candidate]:
        """The chosen one first, so that another one's slow failure holds nothing up; now and then those before it."""
        chosen = self.chosen
        if chosen is None or self._monotonic() >= self._reconsider_at:
            return self._candidates
        return (chosen, *(candidate for candidate in self._candidates if candidate is not chosen))

    async def _probe(self, candidate: Candidate) -> Validation:
        opened = self._opened.get(candidate)
        if opened is None:
            try:
                opened = _Opened(candidate, await candidate.open())
            except CandidateUnavailable as error:
                return Validation(False, str(error))
            self._opened[candidate] = opened
        noting = _Noting(opened.resolver)
        opinion = await examine(noting, self._bogus_name)
        opened.answers = noting.answered
        return opinion

    def _choose(self, opened: _Opened) -> None:
        if opened.candidate is not self.chosen or self._monotonic() >= self._reconsider_at:
            self._reconsider_at = self._monotonic() + RECONSIDER_SECONDS
        self._using, self._validating, self._looked = opened, True, True
        for other in list(self._opened.values()):
            if other is not opened:
                self._drop(other)

    async def _without_choice(self, why: str) -> Validation:
        """Serve what needs no DNSSEC; open anew what failed, so that nothing it remembers outlives its trouble."""
        self._why_not, self._looked, self._validating = why, True, False
        opened = [self._opened[candidate] for candidate in self._candidates if candidate in self._opened]
        self._using = next((one for one in opened if one.answers), opened[0] if opened else None)
        for one in opened:
            if one is not self._using:
                self._drop(one)
        if self._using is not None:
            await self._replace(self._using)
        return Validation(False, why, resolver=self._using.candidate.name if self._using is not None else "")

    async def _replace(self, opened: _Opened) -> None:
        """Put a fresh resolver in the place of a used one; the used one stays if there can be no other."""
        with suppress(CandidateUnavailable):
            fresh = _Opened(opened.candidate, await opened.candidate.open(), opened.answers)
            self._drop(opened)
            self._opened[opened.candidate] = fresh
            if self._using is opened:
                self._using = fresh

    def _drop(self, opened: _Opened) -> None:
        del self._opened[opened.candidate]
        task = asyncio.get_running_loop().create_task(opened.resolver.close(), name=f"close {opened.candidate.name}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _Noting:
    """Notes whether a resolver gave an answer that could be used."""

    def __init__(self, inner: Resolver) -> None:
        self._inner = inner
        self.answered = False

    async def query(self, name: Domain, rrtype: RRType) -> Answer:
        answer = await self._inner.query(name, rrtype)
        self.answered = self.answered or not isinstance(answer, Bogus | LookupFailed)
        return answer


def _not_secure(answer: Answer) -> Answer:
    match answer:
        case Found() | NoData() | NxDomain():
            return replace(answer, secure=False) if answer.secure else answer
        case Bogus() | LookupFailed():
            return answer
        case _:
            assert_never(answer)
