"""Deliveries leased a little before their turn, so that a destination that takes mail quickly waits for no commit between two.

A lease costs a commit, whether it is of one delivery or of fifty. A destination that had its turn twice within a moment is
leased as much beyond its turn as it took in such a moment; slow ones are leased what is begun at once and no more. What is
not begun shortly is given back.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from relay.queue.store import Lease, LeaseToken, QueueStore

LEASE = timedelta(minutes=30)
# Leased is what a destination takes in so many seconds.
MOMENT_SECONDS = 0.25
# Whoever asks to hold or delete mail finds it under way once it is leased: that must not be so for long.
STALE_SECONDS = 1.0
# So many share a lease's commit well enough: where as many begin at once, nothing is leased ahead.
ENOUGH = 50
# In hand at a time, of all destinations together.
MOST = 200


@dataclass(slots=True)
class _Stock:
    """What was leased of a destination last.

    :param at: when, on a clock that nobody sets.
    :param number: how many, those that were begun at once included.
    :param in_hand: those that were not begun yet, the longest due first.
    """

    at: float
    number: int
    in_hand: deque[Lease] = field(default_factory=deque)


class Ahead:
    """Leases for those whose turn it is, some of them taken before.

    :param recipient_limit: of a lease, see ``QueueStore.lease_at``.
    :param clock: the time, aware.
    :param monotonic: seconds on a clock that nobody sets.
    """

    def __init__(
        self,
        store: QueueStore,
        *,
        recipient_limit: int,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._store = store
        self._recipient_limit = recipient_limit
        self._clock = clock
        self._monotonic = monotonic
        # By the time of the lease: whoever was leased to last is last.
        self._stocks: OrderedDict[str, _Stock] = OrderedDict()
        self._in_hand = 0
        self._returning: list[LeaseToken] = []

    def __len__(self) -> int:
        return self._in_hand + len(self._returning)

    def take(self, rooms: Mapping[str, int]) -> list[Lease]:
        """What is in hand for these destinations, at most so many of each; nothing waits for the queue."""
        taken: list[Lease] = []
        for name, room in rooms.items() if self._in_hand else ():
            stock = self._stocks.get(name)
            if stock is not None:
                taken.extend(stock.in_hand.popleft() for _ in range(min(room, len(stock.in_hand))))
        self._in_hand -= len(taken)
        return taken

    async def lease(self, rooms: Mapping[str, int], *, slow: Collection[str] = ()) -> Sequence[Lease]:
        """Lease what is due of these destinations, of which nothing is in hand: what begins now, at most so many of each.

        :param slow: of these no more than that.
        """
        now, at = self._clock(), self._monotonic()
        self._forget_the_slow(at)
        more = self._more({name: room for name, room in rooms.items() if name not in slow}, at)
        wanted = {name: room + more.get(name, 0) for name, room in rooms.items()}
        leases = await self._store.lease_at(wanted, now=now, until=now + LEASE, recipient_limit=self._recipient_limit)
        begun: Counter[str] = Counter()
        at_once = []
        for name, number in Counter(lease.destination for lease in leases).items():
            self._stocks[name] = _Stock(at, number)
            self._stocks.move_to_end(name)
        for lease in leases:
            name = lease.destination
            if begun[name] < rooms[name]:
                begun[name] += 1
                at_once.append(lease)
            else:
                self._stocks[name].in_hand.append(lease)
                self._in_hand += 1
        return at_once

    async def give_back(self, *, all_of_it: bool = False) -> bool:
        """Give back what was not begun in time, or whatever is in hand; what cannot be given back now is not begun either.

        :returns: whether there was any.
        """
        at = self._monotonic()
        while self._in_hand:
            name, stock = next(iter(self._stocks.items()))
            if at - stock.at < STALE_SECONDS and not all_of_it:
                break
            self._in_hand -= len(stock.in_hand)
            self._returning.extend(lease.token for lease in stock.in_hand)
            del self._stocks[name]
        if not self._returning:
            return False
        returned = tuple(self._returning)
        await self._store.release(returned)
        del self._returning[: len(returned)]
        return True

    def _more(self, rooms: Mapping[str, int], at: float) -> dict[str, int]:
        """How many beyond those that begin at once: what a destination took in a moment, at most twice as many as last time."""
        left = min(MOST - self._in_hand, ENOUGH - sum(rooms.values()))
        more = {}
        for name in rooms if left > 0 else ():
            stock = self._stocks.get(name)
            if stock is not None:
                in_a_moment = stock.number * MOMENT_SECONDS / max(at - stock.at, MOMENT_SECONDS / 2)
                more[name] = min(int(in_a_moment), left)
                left -= more[name]
        return more

    def _forget_the_slow(self, at: float) -> None:
        """Of whom nothing was leased for a while, nothing is remembered."""
        while self._stocks:
            name, stock = next(iter(self._stocks.items()))
            if stock.in_hand or at - stock.at < STALE_SECONDS:
                return
            del self._stocks[name]
