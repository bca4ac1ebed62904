"""The ledger's file, ``policy.sqlite`` in the state directory: bounded tables, one writer, plain calls that block."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Final, TypeVar

import apsw

from relay.ledger.findings import AuditCount, count_object, count_of
from relay.policy.ratchet import Best, Mark

FILE_NAME: Final = "policy.sqlite"
MAX_AUDITED: Final = 10_000
_VERSION: Final = 2
_SCHEMA: Final = (
    """
CREATE TABLE audit (
    destination TEXT NOT NULL,
    level TEXT NOT NULL,
    last_at INTEGER NOT NULL,
    count TEXT NOT NULL,
    PRIMARY KEY (destination, level)
) WITHOUT ROWID;
CREATE INDEX audit_last ON audit (last_at);
""",
    """
CREATE TABLE ratchet (
    destination TEXT PRIMARY KEY,
    mark INTEGER NOT NULL,
    host TEXT NOT NULL,
    since TEXT NOT NULL,
    last TEXT NOT NULL
) WITHOUT ROWID;
""",
)
"""What each version adds to the one before."""
T = TypeVar("T")


class LedgerUnavailable(Exception):  # noqa: N818 - it names the state, not the handling
    """The file cannot be read or written; the message names it and says why and what to do."""


class LedgerFile:
    """An open ledger; used by one thread at a time.

    :param path: the file, or ``:memory:``.
    :raises LedgerUnavailable: if it cannot be opened, is damaged or of a later release.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._connection = self._guarded(self._open)

    def _open(self) -> apsw.Connection:
        with ExitStack() as stack:
            connection = apsw.Connection(str(self._path))
            stack.callback(connection.close)
            connection.set_busy_timeout(5000)
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
            connection.execute("PRAGMA synchronous=FULL")
            ((version,),) = connection.execute("PRAGMA user_version").fetchall()
            if not isinstance(version, int) or version > _VERSION:
                raise LedgerUnavailable(f"{self._path} is of a later release (version {version}): use that release")
            for number, addition in enumerate(_SCHEMA[version:], version + 1):
                with connection:
                    connection.execute(addition)
                    connection.execute(f"PRAGMA user_version={number}")
            stack.pop_all()
        return connection

    def close(self) -> None:
        """Close it; what was added is kept."""
        self._guarded(self._connection.close)

    def add(self, counts: Iterable[AuditCount]) -> None:
        """Add findings to those that are there; the destinations that were audited longest ago make room."""
        self._guarded(lambda: self._add(tuple(counts)))

    def _add(self, counts: tuple[AuditCount, ...]) -> None:
        with self._connection as connection:
            for count in counts:
                key = (count.destination, count.level)
                rows = connection.execute("SELECT count FROM audit WHERE destination=? AND level=?", key).fetchall()
                whole = _read(str(rows[0][0])).plus(count) if rows else count
                connection.execute(
                    "INSERT OR REPLACE INTO audit VALUES (?, ?, ?, ?)",
                    (*key, int(whole.last.timestamp()), json.dumps(count_object(whole))),
                )
            connection.execute(
                "DELETE FROM audit WHERE (destination, level) IN (SELECT destination, level FROM audit "
                "ORDER BY last_at LIMIT max(0, (SELECT count(*) FROM audit) - ?))",
                (MAX_AUDITED,),
            )

    def audits(self) -> tuple[AuditCount, ...]:
        """All findings, by destination and level."""
        rows = self._guarded(
            lambda: self._connection.execute("SELECT count FROM audit ORDER BY destination, level").fetchall()
        )
        return tuple(_read(str(row[0])) for row in rows)

    def forget_audits(self, destination: str = "") -> int:
        """Begin anew, for one destination or for all; returns how many counts were dropped."""
        return self._guarded(lambda: self._forget_audits(destination))

    def _forget_audits(self, destination: str) -> int:
        with self._connection as connection:
            if destination:
                connection.execute("DELETE FROM audit WHERE destination=?", (destination,))
            else:
                connection.execute("DELETE FROM audit")
        return int(self._connection.changes())

    def keep_marks(self, marks: Mapping[str, Best]) -> None:
        """Write down what was seen."""
        rows = [
            (key, int(best.mark), best.host, best.since.isoformat(), best.last.isoformat())
            for key, best in marks.items()
        ]

        def keep() -> None:
            with self._connection as connection:
                connection.executemany("INSERT OR REPLACE INTO ratchet VALUES (?, ?, ?, ?, ?)", rows)

        self._guarded(keep)

    def marks(self) -> Mapping[str, Best]:
        """Everything that was seen, by destination."""

        def read() -> Mapping[str, Best]:
            rows = self._connection.execute(
                "SELECT destination, mark, host, since, last FROM ratchet ORDER BY destination"
            )
            return {
                str(key): Best(
                    mark=Mark(int(str(mark))),
                    host=str(host),
                    since=date.fromisoformat(str(since)),
                    last=date.fromisoformat(str(last)),
                )
                for key, mark, host, since, last in rows
            }

        return self._guarded(read)

    def forget_marks(self, destination: str, *, before: date = date.min) -> int:
        """Drop the mark of a destination, or all that were seen last before a day; returns how many there were."""

        return self._guarded(lambda: self._forget_marks(destination, before))

    def _forget_marks(self, destination: str, before: date) -> int:
        with self._connection as connection:
            connection.execute("DELETE FROM ratchet WHERE destination=? OR last<?", (destination, before.isoformat()))
        return int(self._connection.changes())

    def _guarded(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except (apsw.Error, ValueError, KeyError, TypeError) as error:
            raise LedgerUnavailable(
                f"{self._path}: {error}; if it is damaged, move it away (what was remembered of destinations is lost then)"
            ) from error


def _read(text: str) -> AuditCount:
    return count_of(json.loads(text))
