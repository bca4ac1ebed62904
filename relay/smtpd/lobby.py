"""Who is inside: the sessions of a server, counted by client address, and asked to leave when it closes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from relay.mail.names import IpAddress
from relay.smtpd.access import is_in
from relay.smtpd.alarms import Alarms
from relay.smtpd.budget import Budget
from relay.smtpd.elsewhere import ALONE, FOREVER, Elsewhere
from relay.smtpd.options import SmtpdOptions
from relay.smtpd.rates import Counted, Rates, client_key

# The house counts as full from this part of connection_limit on; then nobody is waited for as long as usual.
_FULL = 0.9
# What other workers are told: sessions of a client, and of all; and that there is somebody who takes them.
_OPEN, _EVERYBODY, _SERVING = "OPEN", "*", "SERVING"


class Admission(Enum):
    """Whether a new session may begin."""

    ADMITTED = "admitted"
    TOO_MANY_OF_CLIENT = "too many sessions of this client"
    TOO_OFTEN = "too many sessions of this client of late"
    TOO_MANY = "too many sessions"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a client hears at the door; ``count`` is how many sessions of its own stand in its way."""

    admission: Admission
    count: int = 0

    @property
    def limit(self) -> str:
        """Postfix's name in the log for the limit that was reached."""
        too_often = self.admission is Admission.TOO_OFTEN
        return Counted.CONNECTION.value if too_often else "Connection concurrency"


class Guest(Protocol):
    """A session as the lobby sees it."""

    def stop(self) -> None:
        """End with a 421 as soon as nothing is half done."""
        ...

    def hurry(self) -> None:
        """Do not wait for the client as long as usual."""
        ...

    def abort(self) -> None:
        """End now."""
        ...


class Lobby:
    """Admits sessions within the limits of their number and rate, and keeps what they share.

    ``budget`` is the memory of all contents, and ``alarms`` are the time limits of all sessions.

    :param clock: seconds that never go back.
    :param elsewhere: what other workers count: the limits are those of all together.
    """

    def __init__(
        self, options: SmtpdOptions, clock: Callable[[], float] = time.monotonic, elsewhere: Elsewhere = ALONE
    ) -> None:
        self._options = options
        self.budget = Budget(options.content_memory_limit)
        self.alarms = Alarms()
        self._rates = Rates(clock, elsewhere)
        self._elsewhere = elsewhere
        self._sessions_elsewhere = 0
        self._clock = clock
        self._hurried_at = float("-inf")
        self._full_at = options.connection_limit * _FULL
        self._limits = {
            Counted.CONNECTION: options.client_connection_rate_limit,
            Counted.MESSAGE: options.client_message_rate_limit,
            Counted.RECIPIENT: options.client_recipient_rate_limit,
            Counted.AUTH: options.client_auth_rate_limit,
        }
        self._guests: dict[Guest, str] = {}
        self._by_client: Counter[str] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()
        self._closing = False
        self._somebody_left: Callable[[], None] | None = None
        elsewhere.tell(_SERVING, _EVERYBODY, 1, FOREVER, clock())

    def __len__(self) -> int:
        return len(self._guests)

    @property
    def workers(self) -> int:
        """How many processes take sessions now, this one included."""
        return 1 + self._elsewhere.count(_SERVING, _EVERYBODY, self._clock())

    @property
    def sessions_elsewhere(self) -> int:
        """How many sessions the other workers have."""
        return self._elsewhere.count(_OPEN, _EVERYBODY, self._clock())

    def when_somebody_left(self, call: Callable[[], None] | None) -> None:
        """Have this called after each session's end."""
        self._somebody_left = call

    def wait(self, guest: Guest) -> bool:
        """Count in a session of which nobody knows yet whose it is, if there is room; it must ``enter``, or ``leave``."""
        self._make_room()
        room = not self._exceeds_all(len(self._guests) + 1)
        if room:
            self._count_in(guest, "")
        else:
            self._tell_what_is("")
        return room

    def enter(self, guest: Guest, address: IpAddress) -> Entry:
        """Count a session in, unless a limit is reached; who is counted in must ``leave``."""
        entry = self._entry(guest, address)
        if entry.admission is Admission.ADMITTED:
            self._count_in(guest, client_key(address))
        else:
            self.leave(guest)
            self._tell_what_is(client_key(address))
        return entry

    def _entry(self, guest: Guest, address: IpAddress) -> Entry:
        options = self._options
        self._make_room()
        if count := self.exceeds(Counted.CONNECTION, address):
            return Entry(Admission.TOO_OFTEN, count)
        if self._exceeds_all(len(self._guests) + (guest not in self._guests)):
            return Entry(Admission.TOO_MANY)
        of_client, client = options.client_connection_count_limit, client_key(address)
        if of_client and not self._is_exempt(address):
            count = self._by_client[client] + 1
            self._tell(client, count)
            count += self._elsewhere.count(_OPEN, client, self._clock())
            if count > of_client:
                return Entry(Admission.TOO_MANY_OF_CLIENT, count)
        return Entry(Admission.ADMITTED)

    def _exceeds_all(self, sessions: int) -> bool:
        """Whether there are too many, of all clients, with so many here."""
        limit = self._options.connection_limit
        if not limit:
            return False
        self._tell(_EVERYBODY, sessions)
        self._sessions_elsewhere = self._elsewhere.count(_OPEN, _EVERYBODY, self._clock())
        return sessions + self._sessions_elsewhere > limit

    def _tell(self, client: str, count: int) -> None:
        """Tell the others a count, before theirs is asked for: of two who take the last place at least one sees the other."""
        if self._elsewhere is not ALONE:
            self._elsewhere.tell(_OPEN, client, count, FOREVER, self._clock())

    def _tell_what_is(self, client: str) -> None:
        self._tell(client, self._by_client[client])
        self._tell(_EVERYBODY, len(self._guests))

    def _count_in(self, guest: Guest, client: str) -> None:
        if guest in self._guests:
            self._forget(guest)
        self._guests[guest] = client
        self._by_client[client] += 1
        self._tell_what_is(client)
        self._empty.clear()
        if self._closing:
            guest.stop()

    @property
    def is_full(self) -> bool:
        """Whether there is little or no room for others (Postfix calls it stress)."""
        return 0 < self._full_at <= len(self._guests) + self._sessions_elsewhere

    def _make_room(self) -> None:
        """In a full house, have those who are silent leave sooner; once a second is enough."""
        now = self._clock()
        if self.is_full and now - self._hurried_at >= 1.0:
            self._hurried_at = now
            for guest in tuple(self._guests):
                guest.hurry()

    def exceeds(self, event: Counted, address: IpAddress) -> int:
        """Count what a client does; returns 0, or how often it did that of late if that is too often."""
        limit = self._limits[event]
        if not limit or self._is_exempt(address):
            return 0
        count = self._rates.count(event, address)
        return count if count > limit else 0

    def _is_exempt(self, address: IpAddress) -> bool:
        return is_in(address, self._options.client_event_limit_exceptions)

    def leave(self, guest: Guest) -> None:
        """Count a session out; one that was not admitted is none."""
        if guest not in self._guests:
            return
        self._forget(guest)
        if not self._guests:
            self._empty.set()
        if self._somebody_left is not None:
            self._somebody_left()

    def _forget(self, guest: Guest) -> None:
        client = self._guests.pop(guest)
        self._by_client[client] -= 1
        if not self._by_client[client]:
            del self._by_client[client]
        self._tell_what_is(client)

    async def close(self, *, grace: float) -> None:
        """Ask every session to stop, wait for that, and end those that did not.

        :param grace: seconds.
        """
        self._closing = True
        self._elsewhere.tell(_SERVING, _EVERYBODY, 0, FOREVER, self._clock())
        for guest in tuple(self._guests):
            guest.stop()
        try:
            async with asyncio.timeout(grace):
                await self._empty.wait()
        except TimeoutError:
            for guest in tuple(self._guests):
                guest.abort()
            await self._empty.wait()
