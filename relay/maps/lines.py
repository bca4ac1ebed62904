"""The text of Postfix's map files: logical lines (postmap(1), readlline.c). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogicalLine:
    """A line with its continuations.

    :param number: that of its first line in the file.
    :param note: what ``#:`` comments above it say, without the signs.
    """

    number: int
    text: str
    note: str = ""


def logical_lines(text: str) -> Iterator[LogicalLine]:
    """Join continuation lines; comments and blank lines count for nothing, also between them (readlline.c)."""
    number, parts, notes, above = 0, list[str](), list[str](), ""
    for position, line in enumerate(text.split("\n"), 1):
        bare = line.strip()
        if not bare or bare[0] == "#":
            if bare.startswith("#:"):
                notes.append(bare[2:].strip())
            continue
        if not line[0].isspace() and parts:
            yield LogicalLine(number, "".join(parts), above)
            parts = []
        if not parts:
            number, above, notes = position, " ".join(notes), []
        parts.append(line)
    if parts:
        yield LogicalLine(number, "".join(parts), above)


def fault_of(line: LogicalLine) -> str:
    """Why a line can be no entry of any table, whatever it says; empty if it can."""
    if any("\ud800" <= character <= "\udfff" for character in line.text):
        return "non-UTF-8 input"  # the line itself may hold a password
    if line.text[0].isspace():
        return "logical line must not start with whitespace"
    return ""
