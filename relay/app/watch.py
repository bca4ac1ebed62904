"""Files looked at from outside, again and again, to tell when a change of them is complete."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

LOOK_SECONDS = 2.0

Look = Mapping[Path, tuple[int, int, int] | None]
"""What can be seen of each file: time of change, size and inode; None where there is none."""


def look_at(files: Iterable[Path]) -> Look:
    """Look at files without opening them."""
    return {file: _seen(file) for file in files}


def _seen(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


async def keep_watching(
    known: Callable[[], Look],
    reread: Callable[[tuple[Path, ...]], Awaitable[None]],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Look every two seconds until cancelled.

    A file that is being written is not read half: a change counts when the files look the same twice in a row.

    :param known: how the files looked when they were read last, for good or not; what is refused is not read again.
    :param reread: reads them, told which have changed.
    """
    last: Look = {}
    while True:
        await sleep(LOOK_SECONDS)
        before = known()
        now = await asyncio.to_thread(look_at, tuple(before))
        steady, last = now == last, now
        changed = tuple(file for file in now if now[file] != before[file])
        if steady and changed and known() is before:
            await reread(changed)
