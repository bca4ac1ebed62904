"""Filters as SQL conditions on the tables ``message AS m``, ``recipient AS r`` and ``delivery AS d``."""

from __future__ import annotations

import json
from typing import assert_never

import apsw
import apsw.sqlite_extra

from relay.queue.filter import (
    Age,
    And,
    At,
    Everything,
    Filter,
    FromDomain,
    FromSender,
    HasId,
    InDomain,
    IsRecipient,
    LastStatus,
    Not,
    Or,
    ReasonHas,
    ReasonLike,
    Size,
    Term,
    ToDestination,
)
from relay.queue.filter_text import FilterError
from relay.queue.store import EntryState

Value = str | int
Condition = tuple[str, tuple[Value, ...]]
"""SQL with question marks, and the values for them in order."""

_WAITS = "(d.state = 'waiting' OR (d.state = 'leased' AND d.lease_until <= ?))"


def condition(where: Filter, now: int) -> Condition:
    """A filter as SQL.

    :param now: microseconds since the epoch.
    """
    match where:
        case Not(inner):
            sql, values = condition(inner, now)
            return f"NOT {sql}", values
        case And(inner):
            return _joined(" AND ", [condition(one, now) for one in inner])
        case Or(inner):
            return _joined(" OR ", [condition(one, now) for one in inner])
        case _:
            return _of_recipient(where, now)


def check(connection: apsw.Connection, where: Filter) -> None:
    """See that the engine can use a filter's regular expressions.

    They are those of SQLite's own extension, whose time grows only with the length of the text.

    :raises FilterError: if not.
    """
    match where:
        case Not(inner):
            check(connection, inner)
        case And(inner) | Or(inner):
            for one in inner:
                check(connection, one)
        case ReasonLike(pattern, position):
            try:
                _load_regular_expressions(connection)
                connection.execute("SELECT regexpi(?, '')", (pattern,)).fetchall()
            except apsw.Error as error:
                raise FilterError(position, f"this regular expression cannot be used: {error}") from None
        case _:
            return


def _load_regular_expressions(connection: apsw.Connection) -> None:
    """The extension, once a connection; a build of apsw without it makes the first use say so."""
    if (
        apsw.sqlite_extra.has("regexp")
        and not connection.execute("SELECT 1 FROM pragma_function_list WHERE name = 'regexpi' LIMIT 1").fetchall()
    ):
        apsw.sqlite_extra.load(connection, "regexp")


def _joined(word: str, conditions: list[Condition]) -> Condition:
    return f"({word.join(sql for sql, _ in conditions)})", tuple(value for _, values in conditions for value in values)


def _of_recipient(term: Term, now: int) -> Condition:
    match term:
        case Everything():
            return "1", ()
        case InDomain(name, below=True):
            return "(substr(r.domain, -?) = ?)", (len(name) + 1, f".{name}")
        case InDomain(name):
            return "(r.domain = ?)", (name,)
        case IsRecipient(address):
            return "(lower(r.address) = ?)", (address,)
        case LastStatus(prefix):
            return "(substr(r.status || '.', 1, ?) = ?)", (len(prefix) + 1, f"{prefix}.")
        case ReasonHas(text):
            return "(instr(lower(r.reason), ?) > 0)", (text,)
        case ReasonLike(pattern):
            return "regexpi(?, r.reason)", (pattern,)
        case ToDestination(key):
            return "(d.destination = ?)", (key,)
        case At(place):
            return _at(place, now)
        case _:
            return _of_message(term, now)


def _of_message(term: FromSender | FromDomain | Age | Size | HasId, now: int) -> Condition:
    match term:
        case FromSender(address):
            return "(lower(m.sender) = ?)", (address,)
        case FromDomain(name):
            return "(m.domain = ?)", (name,)
        case Age(sign, seconds):
            return f"(? - m.arrived_at {sign.value} ?)", (now, seconds * 1_000_000)
        case Size(sign, octets):
            return f"(m.size {sign.value} ?)", (octets,)
        case HasId(ids):
            return "(m.queue_id IN (SELECT value FROM json_each(?)))", (json.dumps(sorted(ids)),)
        case _:
            assert_never(term)


def _at(place: EntryState, now: int) -> Condition:
    match place:
        case EntryState.HOLD:
            return "(d.state = 'held')", ()
        case EntryState.ACTIVE:
            return "(d.state = 'leased' AND d.lease_until > ?)", (now,)
        case EntryState.DEFERRED:
            return f"({_WAITS} AND d.attempts > 0)", (now,)
        case EntryState.INCOMING:
            return f"({_WAITS} AND d.attempts = 0)", (now,)
        case _:
            assert_never(place)
