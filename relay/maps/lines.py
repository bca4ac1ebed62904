"""The text of Postfix's map files: logical lines (postmap(1), readlline.c). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from relay.maps.comments import NO_COMMENT, Comment, attribute_comments

_SURROGATE = re.compile(r"[\ud800-\udfff]")


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
    for number, _, line in spans(text):
        yield LogicalLine(number, line, comments.get(number, NO_COMMENT))


def spans(text: str, start: int = 0, number: int = 1) -> Iterator[tuple[int, int, str]]:
    """The same, one at a time from somewhere on: number of the first line, where it begins, and all of it joined.

    :param start: the beginning of a line.
    :param number: of that line.
    """
    begun, place, joined = 0, 0, ""
    size = len(text)
    while start < size:
        end = text.find("\n", start)
        end = size if end < 0 else end
        line = text[start:end]
        bare = line.lstrip()
        if bare and bare[0] != "#":
            if joined and bare is not line and line[0].isspace():
                joined += line
            else:
                if joined:
                    yield begun, place, joined
                begun, place, joined = number, start, line
        start, number = end + 1, number + 1
    if joined:
        yield begun, place, joined


def fault_of(text: str) -> str:
    """Why a logical line can be no entry of any table, whatever it says; empty if it can."""
    if not text.isascii() and _SURROGATE.search(text):
        return "non-UTF-8 input"  # the line itself may hold a password
    if text[0].isspace():
        return "logical line must not start with whitespace"
    return ""
