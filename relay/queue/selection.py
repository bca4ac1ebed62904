"""Which deliveries to lease: the longest due first, of destinations that are not busy.

Both ways of looking read only index entries. By time is the quick one unless busy destinations hold most of what is due;
then the destinations are looked at one by one, each by its longest due.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Collection, Mapping
from typing import NamedTuple

import apsw

from relay.queue.rows import number, text

# How far down the due index to look past busy destinations before going by destination.
_LOOK = 5_000


_WAITING_OF_ONE = (
    "SELECT next_attempt, message, number FROM delivery WHERE state = 'waiting' AND destination = ?"
    " AND next_attempt <= ? ORDER BY next_attempt LIMIT ?"
)
_LAPSED_OF_ONE = (
    "SELECT next_attempt, message, number FROM delivery WHERE state = 'leased' AND held = 0 AND lease_until <= ?"
    " AND next_attempt <= ? AND destination = ?"
)


class Candidate(NamedTuple):
    """A delivery that may be leased; candidates sort by how long they have been due, as tuples do, since they are many.

    :param next_attempt: microseconds since the epoch.
    """

    next_attempt: int
    message: int
    number: int


def choose(connection: apsw.Connection, *, now: int, limit: int, busy: Collection[str]) -> list[Candidate]:
    """The up to ``limit`` longest due deliveries.

    :param now: microseconds since the epoch; a lease that ended by then counts as given back.
    """
    busy_json = json.dumps(list(busy))
    lapsed = _candidates(
        connection.execute(
            "SELECT next_attempt, message, number FROM delivery WHERE state = 'leased' AND held = 0 AND lease_until <= ?"
            " AND next_attempt <= ? AND destination NOT IN (SELECT value FROM json_each(?))",
            (now, now, busy_json),
        )
    )
    return heapq.nsmallest(limit, [*lapsed, *_waiting(connection, now, limit, busy_json)])


def choose_at(connection: apsw.Connection, *, now: int, rooms: Mapping[str, int]) -> list[Candidate]:
    """The longest due deliveries of each of these destinations, at most so many of each."""
    return [
        candidate
        for destination, room in rooms.items()
        for candidate in heapq.nsmallest(
            room,
            [
                *_candidates(connection.execute(_LAPSED_OF_ONE, (now, now, destination))),
                *_candidates(connection.execute(_WAITING_OF_ONE, (destination, now, room))),
            ],
        )
    ]


def heads(connection: apsw.Connection, *, now: int, limit: int, busy: Collection[str]) -> list[tuple[int, str]]:
    """Destinations that are not busy, each with the time of its longest due delivery that is not leased, sorted."""
    busy_json = json.dumps(list(busy))
    rows = connection.execute(
        "SELECT min(next_attempt), destination FROM delivery WHERE state = 'leased' AND held = 0 AND lease_until <= ?"
        " AND destination NOT IN (SELECT value FROM json_each(?)) GROUP BY destination",
        (now, busy_json),
    )
    lapsed = {text(destination): number(due) for due, destination in rows}
    if not lapsed:
        return _heads(connection, busy_json, limit)
    found = {destination: due for due, destination in _heads(connection, busy_json)}
    both = ((min(due, found.get(name, due)), name) for name, due in (found | lapsed).items())
    return heapq.nsmallest(limit, both)


def next_due(connection: apsw.Connection, *, now: int, busy: Collection[str]) -> int | None:
    """When the first delivery is due that is neither leased (at ``now``) nor of a busy destination."""
    busy_json = json.dumps(list(busy))
    (lapsed,) = connection.execute(
        "SELECT min(next_attempt) FROM delivery WHERE state = 'leased' AND held = 0 AND lease_until <= ?"
        " AND destination NOT IN (SELECT value FROM json_each(?))",
        (now, busy_json),
    ).fetchall()[0]
    times = [] if lapsed is None else [number(lapsed)]
    looked, found = _by_time(connection, None, 1, busy_json)
    if found:
        times.append(found[0].next_attempt)
    elif looked == _LOOK:
        times.extend(head for head, _ in _heads(connection, busy_json)[:1])
    return min(times, default=None)


def _waiting(connection: apsw.Connection, now: int, limit: int, busy_json: str) -> list[Candidate]:
    looked, found = _by_time(connection, now, limit, busy_json)
    if len(found) == limit or looked < _LOOK:
        return found
    return _by_destination(connection, now, limit, busy_json)


def _by_time(connection: apsw.Connection, now: int | None, limit: int, busy_json: str) -> tuple[int, list[Candidate]]:
    """How many index entries were looked at, at most, and the deliveries found among them."""
    if busy_json == "[]":
        rows = connection.execute(
            "SELECT next_attempt, message, number FROM delivery WHERE state = 'waiting' AND next_attempt <= ?"
            " ORDER BY next_attempt LIMIT ?",
            (_ever(now), limit),
        )
        return 0, _candidates(rows)
    rows = connection.execute(
        "SELECT next_attempt, message, number FROM"
        " (SELECT next_attempt, message, number, destination FROM delivery"
        "  WHERE state = 'waiting' AND next_attempt <= ? ORDER BY next_attempt LIMIT ?)"
        " WHERE destination NOT IN (SELECT value FROM json_each(?)) ORDER BY next_attempt LIMIT ?",
        (_ever(now), _LOOK, busy_json, limit),
    )
    found = _candidates(rows)
    if len(found) == limit:
        return 0, found
    (looked,) = connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM delivery WHERE state = 'waiting' AND next_attempt <= ? LIMIT ?)",
        (_ever(now), _LOOK),
    ).fetchall()[0]
    return number(looked), found


def _by_destination(connection: apsw.Connection, now: int, limit: int, busy_json: str) -> list[Candidate]:
    best: list[Candidate] = []
    bound = now
    for head, destination in _heads(connection, busy_json):
        if head > bound:
            break
        rows = connection.execute(_WAITING_OF_ONE, (destination, bound, limit))
        best = heapq.nsmallest(limit, [*best, *_candidates(rows)])
        if len(best) == limit:
            bound = best[-1].next_attempt
    return best


def _heads(connection: apsw.Connection, busy_json: str, limit: int = -1) -> list[tuple[int, str]]:
    """Each destination that is not busy with the time of its longest due, sorted; two index seeks a destination."""
    rows = connection.execute(
        "WITH RECURSIVE name (destination) AS ("
        " SELECT min(destination) FROM delivery WHERE state = 'waiting'"
        " UNION ALL"
        " SELECT (SELECT min(destination) FROM delivery WHERE state = 'waiting' AND destination > name.destination)"
        " FROM name WHERE name.destination IS NOT NULL)"
        " SELECT (SELECT min(next_attempt) FROM delivery WHERE state = 'waiting' AND destination = name.destination),"
        " destination FROM name"
        " WHERE destination IS NOT NULL AND destination NOT IN (SELECT value FROM json_each(?))"
        " ORDER BY 1, 2 LIMIT ?",
        (busy_json, limit),
    )
    return [(number(head), text(destination)) for head, destination in rows]


def _ever(now: int | None) -> int:
    return (1 << 62) if now is None else now


def _candidates(rows: apsw.Cursor) -> list[Candidate]:
    return [Candidate(number(due), number(message), number(part)) for due, message, part in rows]
