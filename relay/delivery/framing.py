"""Content as BDAT wants it: octets as they are behind their number, and no dots (RFC 3030). Pure."""

from __future__ import annotations


class Chunks:
    """Frames content that comes in pieces; the last piece is held back, since it must be announced as such."""

    __slots__ = ("_held", "sent")

    def __init__(self) -> None:
        self._held = b""
        self.sent = 0

    def feed(self, piece: bytes) -> bytes:
        """Take the next piece and give the one before it, with its command; nothing for the first."""
        held, self._held = self._held, piece or self._held
        return self._framed(held, b"") if held and piece else b""

    def end(self) -> bytes:
        """The last piece with its command; a line end is added where the content lacks one, as DATA would."""
        if not self._held.endswith(b"\r\n"):
            self._held += b"\n" if self._held.endswith(b"\r") else b"\r\n"
        return self._framed(self._held, b" LAST")

    def _framed(self, piece: bytes, last: bytes) -> bytes:
        self.sent += 1
        return b"BDAT %d%b\r\n%b" % (len(piece), last, piece)
