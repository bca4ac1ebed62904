"""Attributes in comments: ``#: until=2027-01-31 audit=dane`` above an entry, which Postfix reads over. Pure.

So one file serves Postfix and us. The law: such a comment belongs to the entry whose first line comes next. Where it
cannot, because a blank line, another comment or a continued line stands there, or the file ends, nobody knows what it was
written for: the entry that it might have been for (the next one, the one around it, the last one) has a fault.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MARK = "#:"
_WRITTEN = re.compile(rf"{MARK}\s*[A-Za-z{{]")  # anything else behind the sign is somebody's ornament


@dataclass(frozen=True, slots=True)
class Comment:
    """What ``#:`` comments say of one entry.

    :param text: without the signs; several comments joined by blanks.
    :param fault: why it cannot be known that they are this entry's, empty if they are.
    """

    text: str = ""
    fault: str = ""


NO_COMMENT = Comment()


def attribute_comments(text: str) -> Mapping[int, Comment]:
    """Find the ``#:`` comments of a map file, by the number of the first line of the entry that they belong to."""
    found: dict[int, Comment] = {}
    if MARK not in text:
        return found
    waiting: list[tuple[int, str]] = []
    entry = parted = 0
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if _WRITTEN.match(stripped):
            parted = parted if waiting else 0
            waiting.append((number, stripped.removeprefix(MARK).strip()))
        elif not stripped or stripped.startswith("#"):
            parted = parted or (number if waiting else 0)
        elif line[0].isspace() and entry:
            if waiting:
                found[entry] = _faulty(waiting, "it stands within the entry; write it above the entry's first line")
            waiting = []
        else:
            entry = number
            if waiting:
                found[entry] = _comment(waiting, parted)
            waiting = []
    if waiting and entry:
        found[entry] = _faulty(waiting, "no entry follows it; write it above the entry")
    return found


def _comment(waiting: list[tuple[int, str]], parted: int) -> Comment:
    if parted:
        return _faulty(waiting, f"line {parted} parts it from the entry; write it directly above the entry")
    return Comment(" ".join(words for _, words in waiting))


def _faulty(waiting: list[tuple[int, str]], why: str) -> Comment:
    return Comment(fault=f'malformed "{MARK}" comment in line {waiting[0][0]}: {why}')
