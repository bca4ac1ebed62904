"""Reads SMTP replies from octets in any pieces, within limits. Pure."""

from __future__ import annotations

from relay.mail.reply import Reply

MAX_LINE_OCTETS = 4096
MAX_REPLY_OCTETS = 65_536
MAX_LINES = 512


class MalformedReply(Exception):  # noqa: N818 - it names the state of the octets
    """The peer does not speak SMTP, or says too much; the session cannot go on."""


class ReplyReader:
    """Collects octets and gives whole replies (RFC 5321 section 4.2)."""

    __slots__ = ("_buffer", "_code", "_lines", "_octets")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._lines: list[str] = []
        self._code = 0
        self._octets = 0

    @property
    def is_empty(self) -> bool:
        """Whether no octet waits to become part of a reply; must hold when TLS begins (RFC 3207 section 4.2)."""
        return not self._buffer and not self._lines

    def feed(self, data: bytes) -> list[Reply]:
        """Take octets and give the replies that they complete.

        :raises MalformedReply: for a line that is no reply line, or beyond the limits.
        """
        self._buffer += data
        replies: list[Reply] = []
        start = 0
        while (end := self._buffer.find(b"\n", start)) >= 0:
            line = bytes(self._buffer[start:end]).rstrip(b"\r")
            start = end + 1
            if self._take(line):
                replies.append(Reply(self._code, tuple(self._lines)))
                self._lines, self._octets = [], 0
        del self._buffer[:start]
        if len(self._buffer) > MAX_LINE_OCTETS:
            raise MalformedReply(f"a reply line of more than {MAX_LINE_OCTETS} octets")
        return replies

    def _take(self, line: bytes) -> bool:
        """Add one line; True if it was the last of its reply."""
        self._octets += len(line)
        if len(line) > MAX_LINE_OCTETS or self._octets > MAX_REPLY_OCTETS or len(self._lines) >= MAX_LINES:
            raise MalformedReply(f"a reply of more than {MAX_LINES} lines or {MAX_REPLY_OCTETS} octets")
        digits, separator = line[:3], line[3:4]
        code = int(digits) if len(digits) == 3 and digits.isdigit() else 0
        if not 200 <= code <= 599 or separator not in (b" ", b"-", b""):
            raise MalformedReply(f"not an SMTP reply: {line[:80].decode('ascii', 'backslashreplace')}")
        self._code = code
        self._lines.append(line[4:].decode("utf-8", "backslashreplace").strip())
        return separator != b"-"
