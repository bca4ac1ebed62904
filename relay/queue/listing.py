"""What the reader's thread asks the SQLite queue: listings, counts and contents, each over one snapshot."""

from __future__ import annotations

from datetime import datetime

import apsw

from relay.mail.envelope import QueueId
from relay.queue.rows import Body, InFile, InRow, micros, moment, number, recipient_of, text
from relay.queue.store import EntryState, PendingRecipient, QueueCounts, QueueEntry
from relay.queue.transactions import read_message


def entries(connection: apsw.Connection, *, limit: int, after: QueueId | None, now: datetime) -> list[QueueEntry]:
    """Messages in the order of their queue IDs."""
    rows = connection.execute(
        "SELECT id FROM message WHERE queue_id > ? ORDER BY queue_id LIMIT ?", (after or "", limit)
    ).fetchall()
    return [_entry(connection, number(row), micros(now)) for (row,) in rows]


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


def _entry(connection: apsw.Connection, row: int, now: int) -> QueueEntry:
    rows = connection.execute(
        "SELECT recipient.id, address, domain, notify, orcpt, reason,"
        " destination, delivery.state, next_attempt, attempts, lease_until, began_at"
        " FROM recipient JOIN delivery ON delivery.message = recipient.message AND delivery.number = recipient.delivery"
        " WHERE recipient.message = ? AND recipient.state = 'pending' ORDER BY position",
        (row,),
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
