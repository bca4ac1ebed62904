"""What the writer's thread does to the SQLite queue: each function is one job, run inside a transaction.

They may be run twice (see ``writer.commit_together``), so they change nothing but the database.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Protocol, assert_never

import apsw

from relay.mail.envelope import Message, QueueId, Recipient, RecipientId
from relay.outcome.result import Bounced, Deferred, Sent
from relay.queue import arrivals, selection
from relay.queue.rows import (
    MESSAGE_COLUMNS,
    RECIPIENT_COLUMNS,
    InRow,
    Value,
    message_of,
    micros,
    moment,
    number,
    override_of,
    recipient_of,
    text,
)
from relay.queue.store import Lease, LeaseLost, LeaseToken, Report, Settlement

# One transaction of a flush; so a million deliveries do not hold up everyone else.
FLUSH_AT_ONCE = 5_000

# The one statement that settles most mail: all of a message's last delivery is done, and its content is no file. It changes
# nothing unless the lease is held and its recipients are just these, in the order of the index; then the long way decides.
_END_WHOLE = (
    "DELETE FROM message WHERE id = ?1"
    " AND EXISTS (SELECT 1 FROM delivery WHERE message = ?1 AND number = ?2 AND lease = ?3 AND state = 'leased')"
    " AND NOT EXISTS (SELECT 1 FROM delivery WHERE message = ?1 AND number <> ?2)"
    " AND EXISTS (SELECT 1 FROM body WHERE message = ?1 AND spool = '')"
    " AND ?4 = (SELECT group_concat(id) FROM recipient WHERE message = ?1 AND delivery = ?2 AND state = 'pending')"
)

# A delivery taken, with those of its recipients that are not settled, those of them whose delay was told, and how many the
# message has.
_MARK = (
    "UPDATE delivery SET state = 'leased', lease = ?, lease_until = ?, attempts = attempts + 1, began_at = ?"
    " WHERE message = ? AND number = ? RETURNING destination, attempts, tls_override,"
    " (SELECT group_concat(id) FROM recipient AS one WHERE one.message = delivery.message"
    " AND one.delivery = delivery.number AND one.state = 'pending'),"
    " (SELECT group_concat(id) FROM recipient AS one WHERE one.message = delivery.message"
    " AND one.delivery = delivery.number AND one.state = 'pending' AND one.delay_told),"
    " (SELECT count(*) FROM recipient AS one WHERE one.message = delivery.message)"
)

# Where a delivery goes when nobody delivers it any more: an administrator's hold outlasts attempts.
_REST = "CASE held WHEN 1 THEN 'held' ELSE 'waiting' END"


class Choose(Protocol):
    """Finds candidates for leases, given the microseconds since the epoch."""

    def __call__(self, connection: apsw.Connection, /, *, now: int) -> Sequence[selection.Candidate]:
        """Look into the database."""
        ...


@dataclass(frozen=True, slots=True)
class Settled:
    """What settling left behind: whether the message is gone, and the spool file that nobody needs then (or empty)."""

    last: bool
    spool: str


def withdraw(connection: apsw.Connection, queue_id: QueueId) -> None:
    """Take back a message that its client never heard to be queued; by its name, because row numbers are used again."""
    connection.execute("DELETE FROM message WHERE queue_id = ?", (queue_id,))


def lease(
    connection: apsw.Connection,
    choose: Choose,
    *,
    now: datetime,
    until: datetime,
    serial: int,
    recipient_limit: int = 0,
    kept: Callable[[QueueId], Message | None] = lambda queue_id: None,
) -> list[Lease]:
    """Mark chosen deliveries as leased, their attempt as begun.

    :param choose: finds candidates at a time, the longest due first.
    :param serial: of this call, unique in this process: it makes the tokens unlike all others.
    :param recipient_limit: at most so many recipients in a lease; 0 for no limit.
    :param kept: a message that is in memory, as it was put, so that it need not be read.
    """
    known: dict[int, Message] = {}
    leases = []
    for chosen in choose(connection, now=micros(now)):
        key = (chosen.message, chosen.number)
        message = known.get(chosen.message) or kept(chosen.queue_id)
        if message is None:
            message = read_message(connection, chosen.message)
        if 0 < recipient_limit < len(message.envelope.recipients):
            _split(connection, key, recipient_limit)
        ((destination, attempts, override, people, told, in_all),) = connection.execute(
            _MARK, (serial, micros(until), micros(now), *key)
        ).fetchall()
        if len(message.envelope.recipients) != in_all:
            message = read_message(connection, chosen.message)  # an administrator deleted some
        known[chosen.message] = message
        leases.append(
            Lease(
                token=arrivals.token_of(chosen.message, chosen.number, serial),
                message=message,
                destination=text(destination),
                recipients=_named(people, message.envelope.recipients),
                attempts=number(attempts) - 1,
                leased_at=now,
                due_at=moment(chosen.next_attempt),
                total_recipients=len(message.envelope.recipients),
                delay_told=_ids(told),
                override=override_of(override),
            )
        )
    return leases


def _ids(listed: Value) -> frozenset[RecipientId]:
    """What group_concat made of ids."""
    return frozenset() if listed is None else frozenset(RecipientId(int(id_)) for id_ in str(listed).split(","))


def _named(listed: Value, recipients: tuple[Recipient, ...]) -> tuple[Recipient, ...]:
    """Those of a message's recipients whose ids are listed, in the order of the envelope."""
    ids = _ids(listed)
    return recipients if len(ids) == len(recipients) else tuple(one for one in recipients if one.id in ids)


def _split(connection: apsw.Connection, key: tuple[int, int], limit: int) -> None:
    """Leave a delivery its first recipients; the others become one that waits, as due, as untried as before."""
    others = connection.execute(
        "SELECT message, id FROM recipient WHERE message = ? AND delivery = ? AND state = 'pending'"
        " ORDER BY position LIMIT -1 OFFSET ?",
        (*key, limit),
    ).fetchall()
    if not others:
        return
    ((last,),) = connection.execute("SELECT max(number) FROM delivery WHERE message = ?", key[:1]).fetchall()
    rest = number(last) + 1
    connection.execute(
        "INSERT INTO delivery (message, number, destination, state, next_attempt, attempts, lease, lease_until, held,"
        " tls_override, began_at) SELECT message, ?, destination, CASE held WHEN 1 THEN 'held' ELSE 'waiting' END,"
        " next_attempt, attempts, 0, 0, held, tls_override, began_at FROM delivery WHERE message = ? AND number = ?",
        (rest, *key),
    )
    connection.executemany(
        "UPDATE recipient SET delivery = ? WHERE message = ? AND id = ?", [(rest, *other) for other in others]
    )


def read_message(connection: apsw.Connection, row: int) -> Message:
    """A message with all recipients of its envelope, settled ones included."""
    rows = connection.execute(
        f"SELECT position, {RECIPIENT_COLUMNS} FROM recipient WHERE message = ?",  # noqa: S608 - constant columns
        (row,),
    ).fetchall()
    rows.sort(key=itemgetter(0))  # SQLite takes longer to sort one row than to find it
    (message,) = connection.execute(
        f"SELECT {MESSAGE_COLUMNS} FROM message WHERE id = ?",  # noqa: S608 - constant columns
        (row,),
    ).fetchall()
    return message_of(message, tuple(recipient_of(columns) for _, *columns in rows))


def _pending(connection: apsw.Connection, message: int, part: int) -> dict[RecipientId, bool]:
    """The recipients of a delivery that are not settled, each with whether its delay was reported."""
    rows = connection.execute(
        "SELECT id, delay_told FROM recipient WHERE message = ? AND delivery = ? AND state = 'pending'", (message, part)
    )
    return {RecipientId(number(id_)): bool(told) for id_, told in rows}


def extend(connection: apsw.Connection, tokens: Collection[LeaseToken], until: datetime) -> None:
    """Hold leases until later; one that was lost stays so."""
    connection.executemany(
        "UPDATE delivery SET lease_until = ? WHERE message = ? AND number = ? AND lease = ? AND state = 'leased'",
        [(micros(until), *_parts(token)) for token in tokens],
    )


def release(connection: apsw.Connection, tokens: Collection[LeaseToken]) -> None:
    """Give leases back: no attempt was made after all."""
    connection.executemany(
        f"UPDATE delivery SET state = {_REST}, lease = 0, lease_until = 0, attempts = attempts - 1"  # noqa: S608 - constant
        " WHERE message = ? AND number = ? AND lease = ? AND state = 'leased'",
        [_parts(token) for token in tokens],
    )


def release_all(connection: apsw.Connection, serial: int) -> None:
    """Give back whatever one call of ``lease`` took, if it took anything."""
    connection.execute(
        f"UPDATE delivery SET state = {_REST}, lease = 0, lease_until = 0, attempts = attempts - 1"  # noqa: S608 - constant
        " WHERE state = 'leased' AND lease = ?",
        (serial,),
    )


def clear_leases(connection: apsw.Connection) -> None:
    """End the leases of a process that is gone; its attempts were begun and stay counted, and it shows that they broke off."""
    connection.execute(
        "UPDATE recipient SET reason = 'the attempt begun at ' || strftime('%Y-%m-%dT%H:%M:%SZ', began_at / 1000000,"
        " 'unixepoch') || ' broke off: the relay ended in the middle of it' FROM delivery WHERE delivery.state = 'leased'"
        " AND recipient.message = delivery.message AND recipient.delivery = delivery.number AND recipient.state = 'pending'"
    )
    connection.execute(
        f"UPDATE delivery SET state = {_REST}, lease = 0, lease_until = 0 WHERE state = 'leased'"  # noqa: S608 - constant
    )


def settle(connection: apsw.Connection, settlement: Settlement) -> Settled:
    """Write the results of an attempt and queue its reports.

    :raises LeaseLost: if somebody else took the delivery over, or the message is gone.
    :raises ValueError: if a result is not for a recipient of the lease.
    """
    message, part, serial = _parts(settlement.lease.token)
    done = sorted(id_ for id_, result in settlement.results.items() if not isinstance(result, Deferred))
    if len(done) == len(settlement.results) and not settlement.reports:
        connection.execute(_END_WHOLE, (message, part, serial, ",".join(map(str, done))))
        if connection.changes():
            return Settled(last=True, spool="")
    held = connection.execute(
        "SELECT 1 FROM delivery WHERE message = ? AND number = ? AND lease = ? AND state = 'leased'",
        (message, part, serial),
    ).fetchall()
    if not held:
        raise LeaseLost(settlement.lease.message.queue_id)
    pending = _pending(connection, message, part).keys()
    if not settlement.results.keys() <= pending:
        raise ValueError(f"{settlement.lease.message.queue_id}: results for others than the recipients of the lease")
    connection.executemany(
        "UPDATE recipient SET state = ?, reason = ?, status = ?, delay_told = delay_told OR ? WHERE message = ? AND id = ?",
        [
            (_state(result), result.reason, str(result.status), int(id_ in settlement.delay_told), message, id_)
            for id_, result in settlement.results.items()
        ],
    )
    for report in settlement.reports:
        _put_report(connection, report)
    if set(done) == pending:
        return _remove_delivery(connection, message, part)
    connection.execute(
        f"UPDATE delivery SET state = {_REST}, lease = 0, lease_until = 0, next_attempt = ?"  # noqa: S608 - constant
        " WHERE message = ? AND number = ?",
        (micros(settlement.next_attempt), message, part),
    )
    return Settled(last=False, spool="")


def found_settled(connection: apsw.Connection, settlement: Settlement) -> Settled:
    """What ``settle`` gave, if the database shows that it was done already.

    :raises LeaseLost: if it does not.
    """
    message, _, _ = _parts(settlement.lease.token)
    queue_id = settlement.lease.message.queue_id
    if not connection.execute("SELECT 1 FROM message WHERE id = ? AND queue_id = ?", (message, queue_id)).fetchall():
        return Settled(last=True, spool="")  # a file of its own is swept at the next start
    rows = connection.execute("SELECT id, state, reason FROM recipient WHERE message = ?", (message,))
    found = {number(id_): (text(state), text(reason)) for id_, state, reason in rows}
    if any(found.get(id_) != (_state(result), result.reason) for id_, result in settlement.results.items()):
        raise LeaseLost(queue_id)
    return Settled(last=False, spool="")


def flush(connection: apsw.Connection, *, now: datetime, ids: Sequence[QueueId]) -> int:
    """Make up to ``FLUSH_AT_ONCE`` waiting deliveries due now; 0 when there are none left."""
    due = micros(now)
    if not ids:
        connection.execute(
            "UPDATE delivery SET next_attempt = ? WHERE (message, number) IN (SELECT message, number FROM delivery"
            " WHERE state = 'waiting' AND next_attempt > ? ORDER BY next_attempt LIMIT ?)",
            (due, due, FLUSH_AT_ONCE),
        )
        return connection.changes()
    changed = 0
    for queue_id in ids:
        connection.execute(
            "UPDATE delivery SET next_attempt = ? WHERE message = (SELECT id FROM message WHERE queue_id = ?)"
            " AND state = 'waiting' AND next_attempt > ?",
            (due, queue_id, due),
        )
        changed += connection.changes()
    return changed


def _put_report(connection: apsw.Connection, report: Report) -> None:
    message = arrivals.stored(report.message, len(report.content), eight_bit=not report.content.isascii())
    arrivals.put(connection, message, report.message.destinations, InRow(report.content))


def _remove_delivery(connection: apsw.Connection, message: int, part: int) -> Settled:
    connection.execute("DELETE FROM delivery WHERE message = ? AND number = ?", (message, part))
    if connection.execute("SELECT 1 FROM delivery WHERE message = ? LIMIT 1", (message,)).fetchall():
        return Settled(last=False, spool="")
    ((spool,),) = connection.execute("SELECT spool FROM body WHERE message = ?", (message,)).fetchall()
    connection.execute("DELETE FROM message WHERE id = ?", (message,))
    return Settled(last=True, spool=text(spool))


def _state(result: Sent | Deferred | Bounced) -> str:
    match result:
        case Sent():
            return "sent"
        case Bounced():
            return "bounced"
        case Deferred():
            return "pending"
        case _:
            assert_never(result)


def _parts(token: LeaseToken) -> tuple[int, int, int]:
    """Row and number of the delivery and serial number of the lease."""
    message, part, serial = token.split(".")
    return int(message), int(part), int(serial)
