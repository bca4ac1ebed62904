"""BDAT (RFC 3030): the command, and the line ends of a content that comes in chunks. Pure.

A chunk is so many octets: no dots are stuffed and nothing in it can end it. Where chunks are cut has no meaning, so a CR at
the end of one may belong to the LF that begins the next.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from relay.smtpd.content import with_crlf

_ARGUMENT = re.compile(r"(?P<size>[0-9]{1,18})(?P<last>[ \t]+LAST)?", re.IGNORECASE | re.ASCII)
_CRLF = b"\r\n"


@dataclass(frozen=True, slots=True)
class Chunk:
    """One BDAT command: how many octets follow it, and whether they end the message."""

    octets: int
    last: bool

    @property
    def is_null(self) -> bool:
        """Whether it moves nothing and ends nothing."""
        return not self.octets and not self.last


def parse_bdat(argument: str) -> Chunk | None:
    """Read ``COUNT`` or ``COUNT LAST``; None if it is neither, and how much follows cannot be known."""
    match = _ARGUMENT.fullmatch(argument)
    return None if match is None else Chunk(int(match["size"]), match["last"] is not None)


class ChunkDecoder:
    """Makes every bare CR and LF a CRLF, across the borders of chunks; ``bare`` tells that there was one."""

    __slots__ = ("_held", "_line_open", "bare")

    def __init__(self) -> None:
        self.bare = False
        self._held = False
        self._line_open = False

    def feed(self, octets: bytes) -> bytes:
        """Take the next octets as received and give the content that is certain so far."""
        block = b"\r" + octets if self._held else octets
        self._held = block.endswith(b"\r")
        if self._held:
            block = block[:-1]
        return self._normalized(block)

    def end(self) -> bytes:
        """What is left after the last chunk; a last line without its end gets one, as with Postfix."""
        rest = self._normalized(b"\r") if self._held else b""
        self._held = False
        return rest + _CRLF if self._line_open else rest

    def _normalized(self, block: bytes) -> bytes:
        if not block:
            return b""
        line_ends = block.count(_CRLF)
        if block.count(b"\n") != line_ends or block.count(b"\r") != line_ends:
            self.bare = True
            block = with_crlf(block)
        self._line_open = not block.endswith(_CRLF)
        return block
