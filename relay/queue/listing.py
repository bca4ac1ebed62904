"""What the reader's thread asks the SQLite queue: listings, counts and contents, each over one snapshot."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import apsw

from relay.mail.envelope import QueueId
from relay.queue.acts import Found, Group, GroupBy, Tallied
from relay.queue.filter import Filter, ids_of
from relay.queue.matching import Condition, Value, check, condition
from relay.queue.rows import Body, InFile, InRow, micros, moment, number, override_of, recipient_of, text
from relay.queue.store import EntryState, PendingRecipient, QueueCounts, QueueEntry
from relay.queue.transactions import read_message


def entries(connection: apsw.Connection, *, limit: int, after: QueueId | None, now: datetime) -> list[QueueEntry]:
    """Messages in the order of their queue IDs."""
    rows = connection.execute(
        "SELECT id FROM message WHERE queue_id > ? ORDER BY queue_id LIMIT ?", (after or "", limit)
    ).fetchall()
    return [_entry(connection, number(row), micros(now)) for (row,) in rows]


def entries_of(
    connection: apsw.Connection, *, ids: Collection[QueueId], where: Filter, now: datetime
) -> list[QueueEntry]:
    """These messages in the order of their queue IDs, each with the recipients that the filter means; none without any."""
    at = micros(now)
    rows = connection.execute(
        "SELECT id FROM message WHERE queue_id IN (SELECT value FROM json_each(?)) ORDER BY queue_id",
        (json.dumps(sorted(ids)),),
    ).fetchall()
    found = (_entry(connection, number(row), at, condition(where, at)) for (row,) in rows)
    return [entry for entry in found if entry.recipients]


@dataclass(frozen=True, slots=True)
class _Step:
    """Which messages one step looks at: SQL beside ``queue_id > ?``, and the values of all of it."""

    only: str
    values: tuple[Value, ...]


_SELECTED = (
    "(SELECT * FROM message WHERE queue_id > ?{} ORDER BY queue_id LIMIT ?) AS m"
    " JOIN recipient AS r ON r.message = m.id AND r.state = 'pending'"
    " JOIN delivery AS d ON d.message = m.id AND d.number = r.delivery"
)


def find(connection: apsw.Connection, *, where: Filter, after: QueueId | None, looking: int, now: datetime) -> Found:
    """One step through the queue: see ``QueueActs.find``."""
    check(connection, where)
    step = _step(where, after, looking)
    sql, values = condition(where, micros(now))
    rows = connection.execute(
        f"SELECT m.queue_id, count(*) FROM {_SELECTED.format(step.only)}"  # noqa: S608 - constant text; condition() puts values beside it
        f" WHERE {sql} GROUP BY m.queue_id ORDER BY m.queue_id",
        (*step.values, *values),
    ).fetchall()
    looked, last = _look(connection, step, looking)
    return Found(
        ids=tuple(QueueId(text(queue_id)) for queue_id, _ in rows),
        recipients=sum(number(people) for _, people in rows),
        looked=looked,
        last=last,
    )


def _step(where: Filter, after: QueueId | None, looking: int) -> _Step:
    named = ids_of(where)
    if named is None:
        return _Step("", (after or "", looking))
    return _Step(" AND queue_id IN (SELECT value FROM json_each(?))", (after or "", json.dumps(sorted(named)), looking))


def _look(connection: apsw.Connection, step: _Step, looking: int) -> tuple[int, QueueId | None]:
    """How many messages a step looks at, and after which the next begins, if there is one."""
    ((looked, last),) = connection.execute(
        "SELECT count(*), max(queue_id) FROM"  # noqa: S608 - constant text
        f" (SELECT queue_id FROM message WHERE queue_id > ?{step.only} ORDER BY queue_id LIMIT ?)",
        step.values,
    ).fetchall()
    return number(looked), QueueId(text(last)) if number(looked) == looking else None


# The columns of the groupings; a message's texts are the same for all of its recipients.
_COLUMNS = {
    GroupBy.DOMAIN: "r.domain",
    GroupBy.DESTINATION: "d.destination",
    GroupBy.SENDER: "m.sender",
    GroupBy.STATUS: "r.status",
    GroupBy.REASON: "r.reason",
}


def tally(
    connection: apsw.Connection, *, where: Filter, by: GroupBy, after: QueueId | None, looking: int, now: datetime
) -> Tallied:
    """One step of counting: see ``QueueActs.tally``."""
    check(connection, where)
    step = _step(where, after, looking)
    sql, values = condition(where, micros(now))
    rows = connection.execute(
        f"SELECT {_COLUMNS[by]}, count(*), min(m.arrived_at) FROM"  # noqa: S608 - constant text; condition() puts values beside it
        f" {_SELECTED.format(step.only)} WHERE {sql} GROUP BY 1",
        (*step.values, *values),
    ).fetchall()
    return Tallied(
        groups={text(key): Group(number(people), moment(oldest)) for key, people, oldest in rows},
        last=_look(connection, step, looking)[1],
    )


def counts(connection: apsw.Connection, *, now: datetime) -> QueueCounts:
    """Counts by state, read from the indexes alone."""
    ((messages, oldest),) = connection.execute("SELECT count(*), min(arrived_at) FROM message").fetchall()
    ((waiting, fresh),) = connection.execute(
        "SELECT count(*), coalesce(sum(attempts = 0), 0) FROM delivery WHERE state = 'waiting'"
    ).fetchall()
    ((leased, active),) = connection.execute(
        "SELECT count(*), coalesce(sum(lease_until > ?), 0) FROM delivery WHERE state = 'leased'", (micros(now),)
    ).fetchall()
    ((held,),) = connection.execute("SELECT count(*) FROM delivery WHERE state = 'held'").fetchall()
    return QueueCounts(
        messages=number(messages),
        deliveries={
            EntryState.ACTIVE: number(active),
            EntryState.INCOMING: number(fresh),
            EntryState.DEFERRED: number(waiting) - number(fresh) + number(leased) - number(active),
            EntryState.HOLD: number(held),
        },
        oldest_arrival=None if oldest is None else moment(oldest),
    )


def body(connection: apsw.Connection, queue_id: QueueId) -> Body:
    """Where a message's content is; the content itself if it is in the row.

    :raises KeyError: if the message is gone.
    """
    rows = connection.execute(
        "SELECT content, spool FROM body WHERE message = (SELECT id FROM message WHERE queue_id = ?)", (queue_id,)
    ).fetchall()
    if not rows:
        raise KeyError(queue_id)
    ((content, spool),) = rows
    return InRow(content) if isinstance(content, bytes) else InFile(text(spool))


def _entry(connection: apsw.Connection, row: int, now: int, means: Condition = ("1", ())) -> QueueEntry:
    sql, values = means
    rows = connection.execute(
        "SELECT r.id, r.address, r.domain, r.notify, r.orcpt, r.reason,"  # noqa: S608 - as above
        " d.destination, d.state, d.next_attempt, d.attempts, d.lease_until, d.began_at, r.status, d.tls_override"
        " FROM recipient AS r JOIN delivery AS d ON d.message = r.message AND d.number = r.delivery"
        " JOIN message AS m ON m.id = r.message"
        f" WHERE r.message = ? AND r.state = 'pending' AND {sql} ORDER BY r.position",
        (row, *values),
    )
    return QueueEntry(
        message=read_message(connection, row),
        recipients=tuple(
            PendingRecipient(
                recipient=recipient_of(one[:5]),
                destination=text(one[6]),
                state=_state(text(one[7]), number(one[9]), number(one[10]), now),
                reason=text(one[5]),
                next_attempt=moment(one[8]),
                attempts=number(one[9]),
                last_attempt=moment(one[11]) if one[11] else None,
                status=text(one[12]),
                override=override_of(one[13]),
            )
            for one in rows
        ),
    )


def _state(state: str, attempts: int, lease_until: int, now: int) -> EntryState:
    if state == "held":
        return EntryState.HOLD
    if state == "leased" and lease_until > now:
        return EntryState.ACTIVE
    return EntryState.DEFERRED if attempts else EntryState.INCOMING
