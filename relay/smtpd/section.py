"""The header section of a message on its way in: fields added, dropped and bounded, the body untouched. Pure.

As Postfix's cleanup(8) does: what is missing is added at the end of the section (``always_add_missing_headers``), fields are
dropped with the lines that continue them (``message_drop_headers``), and what a field has beyond ``header_size_limit`` is
cut off. A section without an empty line behind it gets one if something is added.

How the input is cut into blocks changes nothing; of the section only the beginning of a line is ever held back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# So much of a line tells what it is: a field's name is 78 octets at most, and blanks may stand before its colon.
_TELLING_OCTETS = 1024
_FIELD_NAME = re.compile(rb"([!-9;-~]{1,78})[ \t]*:")
_CRLF = b"\r\n"
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionRules:
    """What is done to one section.

    :param add: fields by lower-case name, whole, with their CRLF, in the order in which those that are missing are added.
    :param drop: lower-case names.
    :param size_limit: octets of one field, its name, its folded lines and their line ends included; 0 for no limit.
    """

    add: tuple[tuple[bytes, bytes], ...] = ()
    drop: frozenset[bytes] = frozenset()
    size_limit: int = 0


class HeaderSection:
    """Edits one message as it streams by; ``cut`` tells that a field was longer than its limit."""

    __slots__ = (
        "_ended",
        "_field_octets",
        "_first",
        "_held",
        "_in_field",
        "_keeps",
        "_mid_line",
        "_open",
        "_rules",
        "_seen",
        "cut",
    )

    def __init__(self, rules: SectionRules) -> None:
        self.cut = False
        self._rules = rules
        self._ended = False
        self._seen: set[bytes] = set()
        self._held = b""
        self._first = True  # no line was seen yet
        self._in_field = False
        self._keeps = True
        self._field_octets = 0
        self._mid_line = False
        self._open = False  # what was given last lacks its line end

    def feed(self, chunk: bytes) -> bytes:
        """Take the next piece of a message with CRLF line ends and give what is certain of it."""
        if self._ended:
            return chunk
        if self._first and not self._held and self._has_nothing_to_do(chunk):
            self._ended = True
            return chunk
        data = self._held + chunk
        self._held = b""
        out: list[bytes] = []
        place = 0
        while place < len(data):
            end = data.find(_CRLF, place)
            if not self._mid_line and end < 0 and len(data) - place < _TELLING_OCTETS:
                break
            if not self._mid_line and not self._begins(data[place : end if end >= 0 else None][:_TELLING_OCTETS]):
                self._ended = True
                return b"".join(
                    (*out, self._added(), *(() if data.startswith(_CRLF, place) else self._gap()), data[place:])
                )
            if end < 0:
                # A CR at the end stays: the LF that makes a line end of it may be on its way.
                stop = len(data) - data.endswith(b"\r")
                out.append(self._kept(data[place:stop], ends=False))
                place = stop
                self._mid_line = True
                break
            out.append(self._kept(data[place : end + 2], ends=True))
            place = end + 2
            self._mid_line = False
        self._held = data[place:]
        return b"".join(out)

    def end(self) -> bytes:
        """What is left when the message is over."""
        if self._ended:
            return b""
        self._ended = True
        rest, self._held = self._held, b""
        if rest and not self._mid_line and not self._begins(rest[:_TELLING_OCTETS]):
            return b"".join((self._added(), *self._gap(), rest))
        added = self._added()
        rest = self._kept(rest, ends=False)
        return rest + (_CRLF if added and self._open else b"") + added

    def _has_nothing_to_do(self, chunk: bytes) -> bool:
        rules = self._rules
        if rules.add or rules.drop:
            return False
        return not rules.size_limit or 0 <= chunk.find(_END) < rules.size_limit

    def _begins(self, line: bytes) -> bool:
        """Take note of a new line; False if it is none of the section's."""
        first, self._first = self._first, False
        if line[:1] in (b" ", b"\t") and self._in_field:
            return True
        match = _FIELD_NAME.match(line)
        if match is not None:
            name = match[1].lower()
            self._in_field = True
            self._keeps = name not in self._rules.drop
            self._seen.add(name if len(self._seen) < 1000 else b"")
            self._field_octets = 0
            return True
        return first and line.startswith((b"From ", b">From "))

    def _kept(self, piece: bytes, *, ends: bool) -> bytes:
        """What stays of a piece of a line, which ends the line or not."""
        if not self._keeps or not piece:
            return b""
        limit, before = self._rules.size_limit, self._field_octets
        self._field_octets += len(piece)
        if not limit or self._field_octets <= limit:
            self._open = not ends
            return piece
        text = piece[: -len(_CRLF)] if ends else piece
        stays = text[: max(0, limit - before)]
        self.cut = self.cut or stays != text
        was_open, self._open = self._open, not ends and (self._open or bool(stays))
        return stays + _CRLF if ends and (stays or was_open) else stays

    def _added(self) -> bytes:
        return b"".join(field for name, field in self._rules.add if name not in self._seen)

    def _gap(self) -> tuple[bytes, ...]:
        """The empty line that a section lacks."""
        return (_CRLF,) if self._added() else ()
