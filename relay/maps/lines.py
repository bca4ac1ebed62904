"""The text of Postfix's map files: logical lines (postmap(1), readlline.c). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from relay.maps.comments import NO_COMMENT, Comment, attribute_comments


@dataclass(frozen=True, slots=True)
class LogicalLine:
    """A line with its continuations.

    :param number: that of its first line in the file.
    :param note: what ``#:`` comments above it say.
    """

    number: int
    text: str
    note: Comment = NO_COMMENT


def logical_lines(text: str) -> Iterator[LogicalLine]:
    """Join continuation lines; comments and blank lines count for nothing, also between them (readlline.c)."""
    comments = attribute_comments(text)
    number, parts = 0, list[str]()
    for position, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not line[0].isspace() and parts:
            yield LogicalLine(number, "".join(parts), comments.get(number, NO_COMMENT))
            parts = []
        number = number if parts else position
        parts.append(line)
    if parts:
        yield LogicalLine(number, "".join(parts), comments.get(number, NO_COMMENT))


def fault_of(line: LogicalLine) -> str:
    """Why a line can be no entry of any table, whatever it says; empty if it can."""
    if any("\ud800" <= character <= "\udfff" for character in line.text):
        return "non-UTF-8 input"  # the line itself may hold a password
    if line.text[0].isspace():
        return "logical line must not start with whitespace"
    return ""
