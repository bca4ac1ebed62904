r"""The content phase of DATA: where it ends, its dots undone, its line ends made CRLF. Pure.

Three laws (RFC 5321 sections 2.3.8, 4.1.1.4 and 4.5.2):

* Only ``CRLF . CRLF``, in these five octets, ends the content; the CRLF that ended the DATA command counts as the first.
* A dot is taken off at the start of a line, which is after a true CRLF. After a bare LF it is taken off only where
  another follows: some clients end their lines so and stuff there too (Python's smtplib with bytes), others do not.
* Then every bare CR and bare LF becomes CRLF, as with Postfix's ``smtpd_forbid_bare_newline = normalize``. So a line of
  one dot that was hidden behind ``\n.\n``, ``\r.\r``, ``\r\n.\n`` or ``\n.\r\n`` is content here, and is stuffed when we
  send it on: what is one message to us is one message to whoever comes next (no SMTP smuggling).

``BareLineEnds`` changes none of the first and third: ``REJECT`` refuses what had one (``bare`` tells), and ``NO`` trusts that
a client stuffs behind a bare LF as behind CRLF, as Postfix does. Unlike Postfix's ``no``, ``LF . LF`` ends nothing.

How the input is cut into blocks changes nothing (``tests/unit/smtpd/test_content.py`` holds that as a property).
"""

from __future__ import annotations

import re
from enum import Enum
from io import IncrementalNewlineDecoder

_CRLF = b"\r\n"
_END = b"\r\n.\r\n"
# Begins with the dot, so that the search goes from dot to dot.
_STUFFED = re.compile(rb"\.(?:(?<=\r\n\.)(?=[^\r\n])|(?<=\n\.)(?=\.))")
_STUFFED_AFTER_LF = re.compile(rb"\.(?<=\n\.)(?=[^\r\n])")


class BareLineEnds(Enum):
    """What becomes of a message with a bare CR or LF: Postfix's ``smtpd_forbid_bare_newline``."""

    NORMALIZE = "normalize"
    REJECT = "reject"
    NO = "no"


def with_crlf(octets: bytes) -> bytes:
    """Every bare CR and bare LF made CRLF; a CR at the end counts as bare."""
    return octets.replace(_CRLF, b"\n").replace(b"\r", b"\n").replace(b"\n", _CRLF)


def has_bare(octets: bytes) -> bool:
    """Whether there is a CR or LF that is not part of CRLF; a CR at the end counts.

    ``newlines`` tells which line ends a text had: one pass in C, a quarter of what it takes to count CR, LF and CRLF.
    """
    seen = IncrementalNewlineDecoder(None, translate=False)
    seen.decode(octets.decode("latin-1"), final=True)
    return seen.newlines not in (None, "\r\n")


class ContentDecoder:
    """Turns what a client sends after ``354`` into content.

    ``finished`` tells that the end was seen; ``leftover`` then holds what the client sent after it. ``bare`` tells that
    there was a bare CR or LF so far.

    :param stuffed_after_lf: whether a dot behind a bare LF is taken off whatever follows but a line end.
    """

    __slots__ = ("_after", "_held", "_stuffed_after_lf", "bare", "finished", "leftover")

    def __init__(self, *, stuffed_after_lf: bool = False) -> None:
        self.finished = False
        self.leftover = b""
        self.bare = False
        self._stuffed_after_lf = stuffed_after_lf
        self._held = b""
        self._after = _CRLF  # the last two octets before the next block

    def feed(self, data: bytes) -> bytes:
        """Take a block as received and give the content that is certain so far (CRLF line ends, possibly empty).

        :raises ValueError: if the content has ended before.
        """
        if self.finished:
            raise ValueError("content after its end")
        block = self._held + data if self._held else data
        raw = self._up_to_end(block)
        if not self.finished:
            self._held = self._undecided(block)
            raw = block[: len(block) - len(self._held)] if self._held else block
        if not raw:
            return b""
        content = self._decoded(raw)
        self._after = raw[-2:]
        return content

    def _up_to_end(self, block: bytes) -> bytes:
        if self._after == _CRLF and block.startswith(_END[2:]):
            end = 0
            after = 3
        else:
            # Looked for from behind first, since that is quicker, and in most blocks there is none.
            if b"." not in block or block.rfind(_END) < 0:
                return b""
            found = block.find(_END)
            end = found + 2
            after = found + 5
        self.finished = True
        self.leftover = block[after:]
        self._held = b""
        return block[:end]

    def _undecided(self, block: bytes) -> bytes:
        """The end of a block that may turn out, with the next octets, to be a part of the end or a stuffed dot."""
        recent = self._after + block[-4:]
        if recent.endswith(b"\r\n.\r"):
            return b".\r"
        if recent.endswith(b"\n."):
            return b"."
        return b"\r" if recent.endswith(b"\r") else b""

    def _decoded(self, raw: bytes) -> bytes:
        following = raw[1:2]
        line_starts = self._after == _CRLF or (self._stuffed_after_lf and self._after.endswith(b"\n"))
        stuffed = raw[:1] == b"." and (
            (line_starts and following not in (b"\r", b"\n")) or (self._after.endswith(b"\n") and following == b".")
        )
        if stuffed:
            raw = raw[1:]
        if not has_bare(raw):
            # A dot at the start of a line is rare, and looked for from behind that is seen in half the time.
            return raw.replace(b"\r\n.", _CRLF) if b"." in raw and raw.rfind(b"\r\n.") >= 0 else raw
        self.bare = True
        return with_crlf((_STUFFED_AFTER_LF if self._stuffed_after_lf else _STUFFED).sub(b"", raw))
