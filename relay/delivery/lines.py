"""Lines that are longer than SMTP allows, broken as Postfix breaks them (smtp_proto.c ``smtp_text_out``). Pure.

RFC 5321 section 4.5.3.1.6 allows 998 octets and the line end. A longer line goes out in pieces, each but the first behind a
blank: in a header field that is a fold, and in a body the least that can be done to it.
"""

from __future__ import annotations

_BREAK = b"\r\n "


class LineBreaker:
    """Breaks the lines of one content whose line ends are CRLF; ``broke`` tells that there was one to break.

    :param limit: octets of a line without its end, at least 2.
    """

    __slots__ = ("_column", "_limit", "broke")

    def __init__(self, limit: int) -> None:
        self.broke = False
        self._limit = limit
        self._column = 0  # octets of the line that the next chunk goes on with

    def feed(self, chunk: bytes) -> bytes:
        """Take the next piece of the content, in whatever pieces it comes."""
        out: list[bytes] = []
        given = place = 0
        while True:
            room = max(0, self._limit - self._column)
            # The last line end within reach: no line before it is too long.
            end = chunk.rfind(b"\n", place, place + room + 2)
            if end >= 0:
                place = end + 1
                self._column = 0
                continue
            left = len(chunk) - place
            if left <= room or (left == room + 1 and chunk.endswith(b"\r")):
                self._column += left
                break
            place += room
            out += (chunk[given:place], _BREAK)
            given = place
            self._column = 1
            self.broke = True
        return b"".join((*out, chunk[given:])) if out else chunk
