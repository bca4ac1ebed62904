"""Answers kept for as long as they say they may be, and one query for all who ask the same at the same time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from relay.dns.answer import Answer, Bogus, LookupFailed, RRType
from relay.dns.resolver import Resolver
from relay.mail.names import Domain

# A failure is worth remembering only for the recipients of one burst of mail.
FAILURE_SECONDS = 1.0
_Question = tuple[Domain, RRType]


class CachingResolver:
    """A ``Resolver`` before another one.

    :param inner: who is asked when nothing is known.
    :param monotonic: seconds that only ever grow.
    :param capacity: answers kept at most; the least recently used goes first.
    :param max_ttl: seconds after which even a longer-lived answer is asked for again.
    """

    def __init__(
        self, inner: Resolver, *, monotonic: Callable[[], float], capacity: int = 20_000, max_ttl: float = 3600.0
    ) -> None:
        self._inner = inner
        self._monotonic = monotonic
        self._capacity = capacity
        self._max_ttl = max_ttl
        self._answers: OrderedDict[_Question, tuple[float, Answer]] = OrderedDict()
        self._asking: dict[_Question, asyncio.Task[Answer]] = {}
        self._clearings = 0

    async def query(self, name: Domain, rrtype: RRType) -> Answer:
        """See ``Resolver.query``."""
        if (kept := self.known(name, rrtype)) is not None:
            return kept
        question = (name, rrtype)
        task = self._asking.get(question)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask(question), name=f"dns {rrtype.name} {name}")
            self._asking[question] = task
            task.add_done_callback(lambda done: self._done(question, done))
        # One of several who wait may be cancelled without spoiling it for the others.
        return await asyncio.shield(task)

    def known(self, name: Domain, rrtype: RRType) -> Answer | None:
        """The answer that is kept, if it may still be given."""
        question = (name, rrtype)
        kept = self._answers.get(question)
        if kept is None:
            return None
        until, answer = kept
        if self._monotonic() < until:
            self._answers.move_to_end(question)
            return answer
        del self._answers[question]
        return None

    def _done(self, question: _Question, task: asyncio.Task[Answer]) -> None:
        if self._asking.get(question) is task:
            del self._asking[question]

    def clear(self) -> None:
        """Forget everything; for when the resolver behind has changed its mind about validation.

        What is being asked now is answered under the old opinion: it is not kept, and who asks from now on asks anew.
        """
        self._answers.clear()
        self._asking.clear()
        self._clearings += 1

    async def _ask(self, question: _Question) -> Answer:
        clearings = self._clearings
        answer = await self._inner.query(*question)
        if clearings != self._clearings:
            return answer
        ttl = FAILURE_SECONDS if isinstance(answer, Bogus | LookupFailed) else min(answer.ttl, self._max_ttl)
        if ttl > 0:
            self._answers[question] = (self._monotonic() + ttl, answer)
            if len(self._answers) > self._capacity:
                self._answers.popitem(last=False)
        return answer
