"""The text of Postfix's map files: logical lines of ``key whitespace value`` (postmap(1), readlline.c). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogicalLine:
    """A line with its continuations; ``number`` is that of its first line in the file."""

    number: int
    text: str


def logical_lines(text: str) -> Iterator[LogicalLine]:
    """Join continuation lines; comments and blank lines count for nothing, also between them (readlline.c)."""
    number, parts = 0, list[str]()
    for position, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not line[0].isspace() and parts:
            yield LogicalLine(number, "".join(parts))
            parts = []
        number = number if parts else position
        parts.append(line)
    if parts:
        yield LogicalLine(number, "".join(parts))
