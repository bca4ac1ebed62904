"""Looking over a queue database before it is trusted, no longer than the time given."""

from __future__ import annotations

import time
from collections.abc import Callable

import apsw

from relay.outcome.wording import one_line
from relay.queue.rows import text
from relay.queue.store import StoreUnavailable

# Small and vital first: contents are most of the file.
_TABLES = ("delivery", "recipient", "message", "body")
# SQLite's steps between two looks at the clock; a step of a check is a page, which a slow disk takes 10 ms to find.
_STEPS = 50


def quick_check(
    connection: apsw.Connection, name: str, seconds: float, *, monotonic: Callable[[], float] = time.monotonic
) -> bool:
    """``PRAGMA quick_check``, table by table; returns whether it came to its end.

    :param name: of the file, for errors.
    :raises StoreUnavailable: if the file is damaged.
    """
    deadline = monotonic() + seconds
    connection.set_progress_handler(lambda: monotonic() > deadline, _STEPS)
    try:
        for table in _TABLES:
            if monotonic() > deadline:
                return False
            found = [text(line) for (line,) in connection.execute(f"PRAGMA quick_check({table})")]
            if found != ["ok"]:
                raise _damaged(name, found[0])
    except apsw.InterruptError:
        return False
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise _damaged(name, str(error)) from error
    finally:
        connection.set_progress_handler(None)
    return True


def _damaged(name: str, found: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"{name} is damaged: {one_line(found)}; keep a copy of it with its -wal file, then put a backup in its place "
        "(docs/reliability.md), or save what can be read with the sqlite3 shell's .recover"
    )
