"""Which destinations have due mail, as far as is known, and when to look at the whole queue for more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from relay.queue.store import QueueStore
from relay.scheduling.destinations import Destinations
from relay.scheduling.turns import MAX_IN_LINE, Turns
from relay.scheduling.window import Suspension

IDLE_SECONDS = 60.0
# While deliveries are under way the whole queue is looked at so often: retries that became due start then.
BUSY_SECONDS = 1.0
# Looking at the whole queue takes longer the more destinations it has; it never takes more than this part of the time.
LOOKING_SHARE = 0.05
# A look that took long on a slow disk must not hold up retries: seconds between two looks, at most.
LONGEST_REST = 10.0
# So many destinations are learned of in one look, the longest due first.
HEADS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Dealt:
    """Whose turn it is.

    :param rooms: how many deliveries may be leased, by destination.
    :param dead: those among them that nobody dials, and why.
    """

    rooms: Mapping[str, int]
    dead: Mapping[str, Suspension]


class Lookout:
    """Knows destinations with due mail, alive in line or dead, and learns of more.

    :param reserve: so many slots go only to destinations with nothing under way.
    :param monotonic: seconds on a clock that nobody sets.
    """

    def __init__(
        self,
        store: QueueStore,
        destinations: Destinations,
        *,
        reserve: int,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._store = store
        self._destinations = destinations
        self._turns = Turns(reserve=reserve)
        self._clock = clock
        self._monotonic = monotonic
        self._reserve = reserve
        self._dead: dict[str, None] = {}
        # Left the line, having no room; they may have due mail that the end of a delivery is to bring to mind.
        self._owed: set[str] = set()
        self._expected: set[str] = set()
        self._look = True
        self._may_look_at = 0.0
        self._looked_at = 0.0
        self._next_due: datetime | None = None

    def wake(self) -> None:
        """Anything may be due, and is wanted now: look everywhere, at dead destinations too."""
        self._destinations.revive()
        self._look = True
        self._may_look_at = 0.0

    def expect(self, destinations: Collection[str]) -> None:
        """There may be due mail for these destinations, which is cheaper to find than by looking everywhere."""
        self._expected.update(destinations)

    @property
    def in_line(self) -> int:
        """How many destinations wait for their turn, or may come to."""
        return len(self._turns) + len(self._expected)

    def may_start(self, destination: str, free: int) -> bool:
        """Whether mail that just came in may be tried at once: no other of its destination waits, and none of others is kept out.

        :param free: attempts that may begin.
        """
        if any(destination in waiting for waiting in (self._turns, self._expected, self._dead, self._owed)):
            return False
        beyond = free - self.in_line
        if beyond <= 0 or (beyond <= self._reserve and not self._destinations.is_idle(destination)):
            return False
        return self._destinations.room(destination, self._monotonic()) > 0

    def ended(self, destination: str) -> bool:
        """A delivery ended.

        :returns: whether somebody's turn may have come by that.
        """
        if destination in self._owed or destination in self._dead:
            self._owed.discard(destination)
            self._expected.add(destination)
        elif destination not in self._turns and destination not in self._expected:
            self._destinations.forget(destination, self._monotonic())
        return bool(self.in_line)

    def look_everywhere(self) -> None:
        """Look at the whole queue as soon as that may be done again."""
        self._look = True

    def is_time(self, *, busy: bool) -> bool:
        """Whether to look at the whole queue now; being woken all the time must not put that off.

        :param busy: whether the end of a delivery will wake us.
        """
        due = self._next_due is not None and self._next_due <= self._clock()
        self._look = self._look or not busy or due or self._monotonic() >= self._looked_at + BUSY_SECONDS
        return self._look and self._monotonic() >= self._may_look_at

    def patience(self, *, busy: bool) -> float:
        """Seconds until something is to be done again if nothing wakes us before."""
        now = self._monotonic()
        waits = [BUSY_SECONDS if busy or self._look else IDLE_SECONDS]
        if self._next_due is not None:
            waits.append((self._next_due - self._clock()).total_seconds())
        if (rest := self._destinations.next_rest()) is not None:
            waits.append(rest - now)
        return max(min(waits), self._may_look_at - now, 0.0)

    async def look_around(self) -> None:
        """Learn which destinations have mail that is due, beside those that are known to; nothing is leased yet."""
        began = self._monotonic()
        self._look = False
        held_back = self._destinations.held_back(began)
        self._owed.update(held_back)  # for all we know
        known = {*held_back, *self._turns, *self._dead}
        now = self._clock()
        heads = await self._store.heads(now=now, limit=HEADS, busy=known)
        due = [head.destination for head in heads if head.due <= now]
        self._next_due = heads[len(due)].due if len(due) < len(heads) else None
        self._look = self._look or len(due) == HEADS
        self._looked_at = ended = self._monotonic()
        self._may_look_at = ended + min((ended - began) * (1 / LOOKING_SHARE - 1), LONGEST_REST)
        for destination in due:
            self._join(destination)

    def deal(self, free: int, spare: int) -> Dealt:
        """Deal what is free to those whose turn it is.

        :param free: attempts that may begin.
        :param spare: deliveries to dead destinations that may be deferred; those take no slot.
        """
        now = self._monotonic()
        self._expected.update(self._destinations.rested(now))
        expected, self._expected = self._expected, set()
        for destination in expected:
            self._join(destination)
        dead = self._suspended(now, spare)
        rooms = self._turns.deal(
            free,
            room=lambda name: self._destinations.room(name, now),
            is_idle=self._destinations.is_idle,
            leaves=self._owed.add,
        )
        rooms = self._claimed(rooms, now)
        return Dealt(rooms={**rooms, **dict.fromkeys(dead, max(1, spare // max(1, len(dead))))}, dead=dead)

    def _claimed(self, rooms: Mapping[str, int], now: float) -> dict[str, int]:
        """What may be had of these rooms, where other processes deliver too; who gets less is brought to mind later."""
        claimed = {}
        for name, room in rooms.items():
            got = self._destinations.claim(name, room, now)
            if got < room:
                self._turns.leave(name)
                self._owed.add(name)
            if got:
                claimed[name] = got
        return claimed

    def had(self, rooms: Mapping[str, int], leased: Counter[str]) -> None:
        """What was leased of what was dealt: who had less than that has no due mail any more."""
        now = self._monotonic()
        for destination, room in rooms.items():
            if leased[destination] < room:
                # What came in meanwhile is in ``_expected``.
                self._turns.leave(destination)
                self._owed.discard(destination)
                self._dead.pop(destination, None)
                if not leased[destination]:
                    self._destinations.forget(destination, now)

    def _join(self, destination: str) -> None:
        """A destination has due mail, as far as is known: it stands in line, unless it is dead."""
        if self._destinations.suspension(destination, self._monotonic()) is None:
            if not self._turns.join(destination):
                self._look = True
        elif len(self._dead) < MAX_IN_LINE:
            self._dead[destination] = None
        else:
            self._look = True

    def _suspended(self, now: float, most: int) -> dict[str, Suspension]:
        """The dead destinations whose mail is deferred next; those that are dead no more go back in line."""
        found: dict[str, Suspension] = {}
        for name in list(self._dead):
            suspension = self._destinations.suspension(name, now)
            if suspension is None:
                del self._dead[name]
                self._join(name)
            elif len(found) < most:
                found[name] = suspension
                self._dead[name] = self._dead.pop(name)  # to the end of the line
        return found
