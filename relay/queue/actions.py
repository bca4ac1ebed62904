"""What administrators do, as jobs of the SQLite writer's thread: each is one transaction over some messages.

A delivery of which only some recipients are meant is split first: those that are not meant stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import assert_never

import apsw

from relay.mail.envelope import Address, QueueId
from relay.queue.acts import Act, Acted, Delete, Flush, Hold, HoldRule, Release, Requeue
from relay.queue.filter import Everything, Filter
from relay.queue.filter_text import FilterError, parse_filter
from relay.queue.matching import check, condition
from relay.queue.rows import micros, moment, number, override_text, recipient_of, sender_of, text
from relay.queue.selection import Candidate


@dataclass(frozen=True, slots=True)
class Done:
    """What an act changed, and the spool files that nobody needs then."""

    acted: Acted
    spooled: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """A delivery and those of its recipients that are meant.

    :param whole: whether those are all that are not settled.
    """

    queue_id: QueueId
    message: int
    number: int
    state: str
    held: bool
    next_attempt: int
    ids: tuple[int, ...]
    whole: bool


def act(connection: apsw.Connection, *, what: Act, where: Filter, ids: Collection[QueueId], now: datetime) -> Done:
    """Do something to the recipients of these messages that the filter means."""
    changed: dict[QueueId, int] = {}
    spooled: list[str] = []
    busy = 0
    for chosen in _chosen(connection, where, ids, micros(now)):
        if chosen.state == "leased" and not _can_wait(what, chosen):
            busy += len(chosen.ids)
            continue
        if _apply(connection, what, chosen, micros(now)):
            changed[chosen.queue_id] = changed.get(chosen.queue_id, 0) + len(chosen.ids)
            if isinstance(what, Delete):
                spooled += _end_of(connection, chosen.message)
    return Done(Acted(recipients=changed, busy=busy), tuple(spooled))


def take(connection: apsw.Connection, /, *, where: Filter, ids: Collection[QueueId], now: int) -> Sequence[Candidate]:
    """The deliveries of these messages that the filter means and nobody holds, split where it means some recipients only."""
    return [
        Candidate(chosen.next_attempt, chosen.message, _split(connection, chosen), chosen.queue_id)
        for chosen in list(_chosen(connection, where, ids, now))
        if chosen.state != "leased"
    ]


def hold_rules(connection: apsw.Connection) -> list[HoldRule]:
    """The rules for mail that comes in."""
    rows = connection.execute("SELECT id, filter, reason, made_by, made_at FROM hold_rule ORDER BY id")
    return [
        HoldRule(number=number(id_), filter=text(where), reason=text(reason), by=text(by), at=moment(at))
        for id_, where, reason, by, at in rows
    ]


def add_hold_rule(connection: apsw.Connection, *, filter_text: str, reason: str, by: str, now: datetime) -> HoldRule:
    """Hold what comes in from now on and fits."""
    check(connection, parse_filter(filter_text))
    connection.execute(
        "INSERT INTO hold_rule (filter, reason, made_by, made_at) VALUES (?, ?, ?, ?)",
        (filter_text, reason, by, micros(now)),
    )
    return HoldRule(number=connection.last_insert_rowid(), filter=filter_text, reason=reason, by=by, at=now)


def remove_hold_rule(connection: apsw.Connection, *, rule: int) -> bool:
    """End a rule."""
    connection.execute("DELETE FROM hold_rule WHERE id = ?", (rule,))
    return connection.changes() > 0


def hold_new(connection: apsw.Connection, message: int, now: datetime) -> None:
    """Hold those recipients of a message just put in that a rule means."""
    rules = connection.execute("SELECT filter FROM hold_rule ORDER BY id").fetchall()
    if not rules:
        return
    ((queue_id,),) = connection.execute("SELECT queue_id FROM message WHERE id = ?", (message,)).fetchall()
    for (rule,) in rules:
        act(connection, what=Hold(), where=_rule(text(rule)), ids=(QueueId(text(queue_id)),), now=now)


def _rule(filter_text: str) -> Filter:
    """A rule that this release cannot read, for it was made by another, holds everything: doubt delivers nothing."""
    try:
        return parse_filter(filter_text)
    except FilterError:
        return Everything()


def _chosen(connection: apsw.Connection, where: Filter, ids: Collection[QueueId], now: int) -> Iterator[_Chosen]:
    check(connection, where)
    sql, values = condition(where, now)
    rows = connection.execute(
        "SELECT m.queue_id, m.id, d.number, d.state, d.held, d.next_attempt, r.id,"  # noqa: S608 - constant
        f" {sql} FROM message AS m JOIN recipient AS r ON r.message = m.id AND r.state = 'pending'"
        " JOIN delivery AS d ON d.message = m.id AND d.number = r.delivery"
        " WHERE m.queue_id IN (SELECT value FROM json_each(?)) ORDER BY m.queue_id, d.number",
        (*values, json.dumps(sorted(ids))),
    ).fetchall()
    for _, group in groupby(rows, key=lambda row: row[:3]):
        members = list(group)
        meant = tuple(number(row[6]) for row in members if row[7])
        if meant:
            queue_id, message, part, state, held, next_attempt = members[0][:6]
            # A lease that ended counts as given back, but its holder may yet settle it: it is not ours to take apart.
            yield _Chosen(
                queue_id=QueueId(text(queue_id)),
                message=number(message),
                number=number(part),
                state=text(state),
                held=bool(held),
                next_attempt=number(next_attempt),
                ids=meant,
                whole=len(meant) == len(members),
            )


def _can_wait(what: Act, chosen: _Chosen) -> bool:
    """Whether an act on what is being delivered can be noted now and come true afterwards."""
    return chosen.whole and isinstance(what, Hold | Release)


def _apply(connection: apsw.Connection, what: Act, chosen: _Chosen, now: int) -> bool:
    """Do it; returns whether anything is different now."""
    match what:
        case Flush():
            if chosen.state != "waiting" or chosen.next_attempt <= now:
                return False
            _update(connection, chosen, "next_attempt = ?", now)
        case Hold():
            if chosen.held:
                return False
            _update(connection, chosen, "held = 1, state = CASE state WHEN 'leased' THEN state ELSE 'held' END")
        case Release():
            if not chosen.held:
                return False
            _update(
                connection,
                chosen,
                "held = 0, state = CASE state WHEN 'leased' THEN state ELSE 'waiting' END, next_attempt = ?",
                now,
            )
        case Delete():
            _delete(connection, chosen)
        case Requeue():
            _requeue(connection, what, chosen, now)
        case _:
            assert_never(what)
    return True


def _update(connection: apsw.Connection, chosen: _Chosen, assignments: str, *values: int | str) -> None:
    part = _split(connection, chosen)
    connection.execute(
        f"UPDATE delivery SET {assignments} WHERE message = ? AND number = ?",  # noqa: S608 - constant assignments
        (*values, chosen.message, part),
    )


def _split(connection: apsw.Connection, chosen: _Chosen) -> int:
    """The number of a delivery that has the chosen recipients and no others."""
    return chosen.number if chosen.whole else _move(connection, chosen, chosen.ids)


def _move(connection: apsw.Connection, chosen: _Chosen, ids: Sequence[int]) -> int:
    """Give some recipients of a delivery that nobody holds a delivery of their own, like the one they were in."""
    ((part,),) = connection.execute(
        "INSERT INTO delivery (message, number, destination, state, next_attempt, attempts, lease, lease_until, held,"
        " tls_override, began_at)"
        " SELECT message, (SELECT max(number) + 1 FROM delivery WHERE message = ?), destination, state, next_attempt,"
        " attempts, lease, lease_until, held, tls_override, began_at FROM delivery WHERE message = ? AND number = ?"
        " RETURNING number",
        (chosen.message, chosen.message, chosen.number),
    ).fetchall()
    connection.executemany(
        "UPDATE recipient SET delivery = ? WHERE message = ? AND id = ?",
        [(number(part), chosen.message, id_) for id_ in ids],
    )
    return number(part)


def _delete(connection: apsw.Connection, chosen: _Chosen) -> None:
    connection.executemany(
        "DELETE FROM recipient WHERE message = ? AND id = ?", [(chosen.message, id_) for id_ in chosen.ids]
    )
    if chosen.whole:
        connection.execute("DELETE FROM delivery WHERE message = ? AND number = ?", (chosen.message, chosen.number))


def _end_of(connection: apsw.Connection, message: int) -> list[str]:
    """Remove a message without deliveries; its spool file, if it had one."""
    if connection.execute("SELECT 1 FROM delivery WHERE message = ? LIMIT 1", (message,)).fetchall():
        return []
    ((spool,),) = connection.execute("SELECT spool FROM body WHERE message = ?", (message,)).fetchall()
    connection.execute("DELETE FROM message WHERE id = ?", (message,))
    return [text(spool)] if spool else []


def _requeue(connection: apsw.Connection, what: Requeue, chosen: _Chosen, now: int) -> None:
    """Each destination's recipients in a delivery of their own; the old delivery serves the first of them."""
    ((sender, domain),) = connection.execute(
        "SELECT sender, domain FROM message WHERE id = ?", (chosen.message,)
    ).fetchall()
    groups: dict[str, list[int]] = {}
    for id_ in chosen.ids:
        address = _address(connection, chosen.message, id_)
        groups.setdefault(what.destination_of(address, sender_of(text(sender), text(domain))), []).append(id_)
    whole = chosen.whole
    for destination, ids in groups.items():
        last = whole and destination == list(groups)[-1]
        part = chosen.number if last else _move(connection, chosen, ids)
        connection.execute(
            "UPDATE delivery SET destination = ?, state = 'waiting', held = 0, next_attempt = ?, tls_override = ?"
            " WHERE message = ? AND number = ?",
            (destination, now, override_text(what.override), chosen.message, part),
        )


def _address(connection: apsw.Connection, message: int, id_: int) -> Address:
    (row,) = connection.execute(
        "SELECT id, address, domain, notify, orcpt FROM recipient WHERE message = ? AND id = ?", (message, id_)
    ).fetchall()
    return recipient_of(row).address
