"""Bringing a queue database to the version of the schema that this relay works with.

``sql/schema.sql`` makes a new file; ``sql/migrations/NNNN_what.sql`` leads a file of version NNNN - 1 to NNNN. The version
stands in ``PRAGMA user_version``, and ``PRAGMA application_id`` says whose file it is.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

import apsw

from relay.queue.rows import number
from relay.queue.store import StoreUnavailable

VERSION = 3
APPLICATION_ID = 0x44414E45  # "DANE"

_SQL = files("relay.queue") / "sql"


def bring_up_to_date(connection: apsw.Connection, name: str, *, sql: Traversable = _SQL, version: int = VERSION) -> int:
    """Make or migrate the schema, each step in a transaction of its own; returns the version that was found.

    :param name: of the file, for errors.
    :param sql: the folder of ``schema.sql`` and ``migrations``; the schema's version is ``version``.
    :raises StoreUnavailable: if the file belongs to a newer relay or to something else; it is left as it was.
    """
    found = _pragma(connection, "user_version")
    owner = _pragma(connection, "application_id")
    empty = not connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
    if owner != APPLICATION_ID and not (empty and owner == 0 and found == 0):
        raise StoreUnavailable(f"{name} is not a queue database of dane-relay; name another file in [queue] url")
    if found > version:
        raise StoreUnavailable(
            f"{name} has schema version {found}, made by a newer dane-relay; this one knows up to {version}: "
            "run the newer release, or start with another file in [queue] url"
        )
    if empty:
        _apply(connection, (sql / "schema.sql").read_text("utf-8"), version)
        return version
    for step in range(found + 1, version + 1):
        _apply(connection, _migration(sql, step), step)
    return found


def _migration(sql: Traversable, version: int) -> str:
    (script,) = (file for file in (sql / "migrations").iterdir() if file.name.startswith(f"{version:04}_"))
    return script.read_text("utf-8")


def _apply(connection: apsw.Connection, script: str, version: int) -> None:
    """Run a script and note the version, all or nothing."""
    with connection:
        connection.execute(script)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {version}")


def _pragma(connection: apsw.Connection, name: str) -> int:
    return number(connection.pragma(name))
