"""Which deliveries to lease: the longest due first of each destination, and which destinations have any.

Both read only index entries: destinations are looked at one by one, each by its longest due.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Collection, Mapping
from typing import NamedTuple

import apsw

from relay.mail.envelope import QueueId
from relay.queue.rows import number, text

_CANDIDATE = "SELECT next_attempt, message, number, (SELECT queue_id FROM message WHERE id = delivery.message)"
_WAITING_OF_ONE = (
    f"{_CANDIDATE} FROM delivery WHERE state = 'waiting' AND destination = ?"
    " AND next_attempt <= ? ORDER BY next_attempt LIMIT ?"
)
_LAPSED_OF_ONE = (
    f"{_CANDIDATE} FROM delivery WHERE state = 'leased' AND held = 0 AND lease_until <= ?"
    " AND next_attempt <= ? AND destination = ?"
)


class Candidate(NamedTuple):
    """A delivery that may be leased; candidates sort by how long they have been due, as tuples do, since they are many.

    :param next_attempt: microseconds since the epoch.
    """

    next_attempt: int
    message: int
    number: int
    queue_id: QueueId


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


def _candidates(rows: apsw.Cursor) -> list[Candidate]:
    return [
        Candidate(number(due), number(message), number(part), QueueId(text(queue_id)))
        for due, message, part, queue_id in rows
    ]
