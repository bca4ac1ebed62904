"""Sessions that stay open from one message to the next, for a short while.

The law: a session carries mail only on the terms that it was opened and judged for. Terms are compared whole, after the
decision for the message was made anew from the rules and DNS answers in force; what is not equal is dialled anew, and so is what
is in doubt.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from relay.delivery.opening import Session
from relay.mail.names import NextHop
from relay.outcome.result import RelayHost
from relay.policy.policy import TlsPolicy
from relay.sasl.credentials import Credentials, NoCredentials

MAX_REFUSALS: Final = 5
"""Of commands in one session; hosts that count errors slow down or hang up after more (postfix smtpd: 10)."""
_GOODBYE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Everything that a session was opened for. Compared and never hashed: there may be a secret in it.

    :param policy: as decided, with its TLSA records, names, parameters and the rule that it came from.
    :param login: who we are there.
    :param edition: of the rules: their trust anchors, client certificate and credentials go with it.
    """

    relay: RelayHost
    next_hop: NextHop
    edition: object
    policy: TlsPolicy
    login: Credentials | NoCredentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The ``[smtp]`` options ``connection_*``; times are seconds.

    :param idle: how long a session waits for the next message (``connection_cache_time_limit``); 0 keeps none.
    :param age: how old a session may be and still take a message (``connection_reuse_time_limit``); 0 for no limit.
    :param messages: how many a session takes (``connection_reuse_count_limit``); 0 for no limit.
    :param sessions: how many wait at a time; the one that has waited longest makes room.
    """

    idle: float = 2.0
    age: float = 300.0
    messages: int = 0
    sessions: int = 200


KEEP_NONE: Final = Limits(idle=0.0)


@dataclass(slots=True, eq=False)
class _Idle:
    """A session that waits.

    :param until: on the loop's clock.
    """

    session: Session
    terms: Terms
    until: float


class Pool:
    """Idle sessions by next-hop, each the property of whoever takes it; everything but ``close`` happens at once.

    :param clock: the time, aware.
    """

    def __init__(self, limits: Limits, *, clock: Callable[[], datetime]) -> None:
        self._limits = limits
        self._clock = clock
        self._waiting: dict[NextHop, list[_Idle]] = {}
        self._by_age: OrderedDict[_Idle, None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._by_age)

    def hosts(self, next_hop: NextHop) -> tuple[RelayHost, ...]:
        """Where sessions for a next-hop wait: a reason to try those first, and no promise."""
        return tuple(idle.terms.relay for idle in self._waiting.get(next_hop, ()))

    def take(self, terms: Terms) -> Session | None:
        """A session on exactly these terms, the one that was used last; None if there is none."""
        now = self._clock()
        for idle in reversed(self._waiting.get(terms.next_hop, ())):
            if idle.terms == terms:
                self._remove(idle)
                idle.session.connection.resting = False
                if self._may_carry_more(idle.session, now):
                    return idle.session
                idle.session.finish()
        return None

    def give(self, terms: Terms, session: Session) -> None:
        """Keep a session for the next message on these terms, or end it."""
        if self._closed or not self._limits.idle or not self._may_carry_more(session, self._clock()):
            session.finish()
            return
        loop = asyncio.get_running_loop()
        idle = _Idle(session, terms, loop.time() + self._limits.idle)
        session.connection.resting = True
        self._waiting.setdefault(terms.next_hop, []).append(idle)
        self._by_age[idle] = None
        if len(self._by_age) > self._limits.sessions:
            self._end(next(iter(self._by_age)))
        if self._timer is None:
            self._timer = loop.call_at(idle.until, self._expire)

    def make_room(self, next_hop: NextHop) -> None:
        """Before a dial: what waits for the same next-hop on other terms gives way, so that its sessions do not add up."""
        if waiting := self._waiting.get(next_hop):
            self._end(waiting[0])

    async def close(self) -> None:
        """Say QUIT in all idle sessions, keep no more, and give the hosts a moment to close."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        idle = list(self._by_age)
        for each in idle:
            self._end(each)
        await asyncio.gather(*(each.session.connection.wait_closed(_GOODBYE_SECONDS) for each in idle))

    def _may_carry_more(self, session: Session, now: datetime) -> bool:
        """Whether nothing speaks against another message: neither the connection, nor its use so far, nor the time."""
        wear, limits = session.wear, self._limits
        return (
            session.policy.reuse
            and session.connection.is_quiet
            and not wear.unwelcome
            and wear.refusals < MAX_REFUSALS
            and (not limits.messages or wear.messages < limits.messages)
            and session.opened_at <= now  # else the clock was set back, and nothing is known of its age
            and (not limits.age or (now - session.opened_at).total_seconds() < limits.age)
            and now < session.good_until
        )

    def _remove(self, idle: _Idle) -> None:
        del self._by_age[idle]
        waiting = self._waiting[idle.terms.next_hop]
        waiting.remove(idle)
        if not waiting:
            del self._waiting[idle.terms.next_hop]

    def _end(self, idle: _Idle) -> None:
        self._remove(idle)
        idle.session.finish()

    def _expire(self) -> None:
        """End what has waited long enough; the first in the line is always the one that began to wait first."""
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._by_age:
            oldest = next(iter(self._by_age))
            if oldest.until > loop.time():
                self._timer = loop.call_at(oldest.until, self._expire)
                return
            self._end(oldest)
