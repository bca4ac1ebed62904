"""A message with octets above 127, made one without for a host that does not offer 8BITMIME (RFC 6152 section 3). Pure.

Two passes over the content: ``Surveyor`` finds the parts that must be encoded, or that it cannot be done; ``Converter`` then
encodes these, and no others, as quoted-printable (RFC 2045 section 6.7) and corrects the labels of what encloses them. As
with Postfix (global/mime_state.c), header fields pass as they are. Unlike there, a part whose label does not admit its
octets is encoded too, and what cannot be encoded without breaking it is refused: what is signed or encrypted (RFC 1847),
and parts that already have an encoding or may have none (RFC 2046 section 5.2).

Memory is bounded by one line of 64 KiB, the header fields that matter, and the numbers of the parts to be encoded.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from email.message import Message as ParsedHeader
from enum import Enum

# mime_nesting_limit of Postfix, and bounds of our own on what a stranger can make us keep.
MAX_DEPTH = 100
MAX_PARTS = 10_000
_MAX_FIELD_OCTETS = 8192
_MAX_PIECE_OCTETS = 65536
_FIELD_NAME = re.compile(rb"([!-9;-~]{1,78})[ \t]*:")
_CRLF = b"\r\n"
_FIELDS = frozenset({b"content-type", b"content-transfer-encoding", b"mime-version"})
_IDENTITY = frozenset({"7bit", "8bit", "binary", ""})
# Other message/* types must not be encoded; of these RFC 6532 and 6533 say that they may.
_ENCODABLE_MESSAGES = frozenset(
    {"global", "global-headers", "global-delivery-status", "global-disposition-notification"}
)


class _Unreadable(Exception):  # noqa: N818 - it names the state, not the handling
    """A message whose parts cannot be told from each other; the text says why."""


class _Kind(Enum):
    """What the octets of a body are."""

    TEXT = "may be encoded"
    FIXED = "may not be encoded"
    PADDING = "before, between and behind parts, where nobody reads"


@dataclass(frozen=True, slots=True)
class Survey:
    """What the first pass found.

    :param parts: those to be encoded, by their number in the order of the message.
    :param eight_bit_headers: whether a header field has octets above 127, or may have.
    :param obstacle: why the message has no 7-bit form, as an end of ``it cannot be converted: ...``; empty if it has one.
    """

    parts: frozenset[int]
    eight_bit_headers: bool
    obstacle: str = ""


@dataclass(frozen=True, slots=True)
class _Frame:
    """A multipart that we are in."""

    delimiter: bytes
    digest: bool
    sealed: bool


class _Header:
    """The header section of one part, as far as it matters."""

    def __init__(self, default_type: str) -> None:
        self.type = default_type
        self.lines: dict[bytes, bytes] = {}
        self.field = b""

    def take(self, line: bytes) -> None:
        """Note a line that begins or continues a field that matters."""
        value = self.lines.get(self.field, b"") + line
        if len(value) > _MAX_FIELD_OCTETS:
            raise _Unreadable(f"a {self.field.decode()} field is longer than {_MAX_FIELD_OCTETS} bytes")
        self.lines[self.field] = value

    def parsed(self) -> ParsedHeader:
        """The fields as a library reads them."""
        header = ParsedHeader()
        header.set_default_type(self.type)
        for name, line in self.lines.items():
            header[name.decode()] = line.partition(b":")[2].decode("latin-1").replace(_CRLF.decode(), "").strip()
        return header

    @property
    def encoding(self) -> str:
        """The Content-Transfer-Encoding in lower case; empty if there is none."""
        return re.split(r"[;(\s]", str(self.parsed()["content-transfer-encoding"] or "").lower(), maxsplit=1)[0]


class _Walk:
    """Goes through a message line by line; what happens at each is for its subclasses."""

    def __init__(self) -> None:
        self.part = 0
        self._header: _Header | None = _Header("text/plain")
        self._kind = _Kind.TEXT
        self._frames: list[_Frame] = []
        self._rest = b""
        self._begins = True
        self._out: list[bytes] = []

    def feed(self, chunk: bytes) -> bytes:
        """Take the next piece of the content."""
        lines = (self._rest + chunk).split(_CRLF)
        self._rest = lines.pop()
        for line in lines:
            self._piece(line + _CRLF)
        while len(self._rest) > _MAX_PIECE_OCTETS:
            self._piece(self._rest[:_MAX_PIECE_OCTETS])
            self._rest = self._rest[_MAX_PIECE_OCTETS:]
        return self._taken()

    def end(self) -> bytes:
        """The content is over."""
        if self._rest:
            self._piece(self._rest)
        if self._header is not None:
            self._ends_header(b"")
        self._flush()
        return self._taken()

    def _taken(self) -> bytes:
        out, self._out = b"".join(self._out), []
        return out

    def _piece(self, piece: bytes) -> None:
        begins, self._begins = self._begins, piece.endswith(_CRLF)
        if self._header is not None:
            if not begins or self._goes_on(self._header, piece):
                self._header_line(self._header, piece)
                return
            blank = piece == _CRLF
            self._ends_header(piece if blank else b"")
            if blank:
                return
        frame = self._delimited(piece) if begins and piece.startswith(b"--") and self._frames else None
        if frame is None:
            self._body(piece)
        else:
            self._delimits(frame, piece)

    def _goes_on(self, header: _Header, line: bytes) -> bool:
        """Whether a line is one of a header section."""
        if line[:1] in (b" ", b"\t") and header.field:
            return True
        match = _FIELD_NAME.match(line)
        if match is None:
            return False
        header.field = match[1].lower()
        if header.field in header.lines:
            raise _Unreadable(f"one part has two {header.field.decode()} fields")
        return True

    def _header_line(self, header: _Header, piece: bytes) -> None:
        if header.field in _FIELDS:
            header.take(piece)

    def _ends_header(self, blank: bytes) -> None:
        """A header section is over, and with it is known what follows."""
        header, self._header = self._header, None
        if header is None:
            raise AssertionError("a header ended twice")
        try:
            parsed = header.parsed()
            kind, boundary = parsed.get_content_type(), parsed.get_boundary("")
        except (ValueError, LookupError, TypeError, AttributeError):
            raise _Unreadable("a Content-Type field cannot be read") from None
        main, _, sub = kind.partition("/")
        has_parts = main == "multipart" and bool(boundary)
        nested = kind == "message/rfc822" and header.encoding in _IDENTITY
        self._header_ends(header, blank, encloses=has_parts or nested)
        if has_parts:
            if len(self._frames) >= MAX_DEPTH:
                raise _Unreadable(f"its parts are nested more than {MAX_DEPTH} deep")
            sealed = sub in {"signed", "encrypted"} or any(frame.sealed for frame in self._frames)
            delimiter = b"--" + boundary.encode("latin-1", "replace")
            self._frames.append(_Frame(delimiter, digest=sub == "digest", sealed=sealed))
            self._kind = _Kind.PADDING
        elif nested:
            self._begin_part("text/plain")
        elif main == "multipart" or header.encoding not in _IDENTITY:
            self._kind = _Kind.FIXED
        else:
            self._kind = _Kind.FIXED if main == "message" and sub not in _ENCODABLE_MESSAGES else _Kind.TEXT

    def _begin_part(self, default_type: str) -> None:
        self.part += 1
        if self.part > MAX_PARTS:
            raise _Unreadable(f"it has more than {MAX_PARTS} parts")
        self._header = _Header(default_type)

    def _delimited(self, line: bytes) -> _Frame | None:
        """The multipart whose delimiter a line is: the one with the longest, as one may begin with another."""
        fitting = [frame for frame in self._frames if line.startswith(frame.delimiter)]
        return max(reversed(fitting), key=lambda frame: len(frame.delimiter)) if fitting else None

    def _delimits(self, frame: _Frame, line: bytes) -> None:
        self._flush()
        self._out.append(line)
        while self._frames[-1] is not frame:
            self._frames.pop()
        if line.startswith(b"--", len(frame.delimiter)):
            self._frames.pop()
            self._kind = _Kind.PADDING
        else:
            self._begin_part("message/rfc822" if frame.digest else "text/plain")

    def _header_ends(self, header: _Header, blank: bytes, *, encloses: bool) -> None:
        raise NotImplementedError

    def _body(self, piece: bytes) -> None:
        raise NotImplementedError

    def _flush(self) -> None:
        """The body of a part is over."""


class Surveyor(_Walk):
    """The first pass; its output is empty."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: set[int] = set()
        self._eight_bit_headers = False
        self._obstacle = ""
        self._lost = False

    def feed(self, chunk: bytes) -> bytes:
        """Take the next piece of the content."""
        if not self._lost:
            try:
                super().feed(chunk)
            except _Unreadable as unreadable:
                self._is_lost(str(unreadable))
        return b""

    def survey(self) -> Survey:
        """End, and tell what was found."""
        if not self._lost:
            try:
                self.end()
            except _Unreadable as unreadable:
                self._is_lost(str(unreadable))
        return Survey(frozenset(self._parts), self._eight_bit_headers, self._obstacle)

    def _is_lost(self, why: str) -> None:
        self._lost = True
        self._obstacle = self._obstacle or why
        self._eight_bit_headers = True

    def _header_line(self, header: _Header, piece: bytes) -> None:
        self._eight_bit_headers = self._eight_bit_headers or not piece.isascii()
        super()._header_line(header, piece)

    def _header_ends(self, header: _Header, blank: bytes, *, encloses: bool) -> None:
        pass

    def _taken(self) -> bytes:
        self._out.clear()
        return b""

    def _body(self, piece: bytes) -> None:
        if piece.isascii() or self._kind is _Kind.PADDING or self._obstacle:
            return
        if any(frame.sealed for frame in self._frames):
            self._obstacle = "a part that is signed or encrypted has 8-bit data, and would not be the same"
        elif self._kind is _Kind.FIXED:
            self._obstacle = "a part has 8-bit data that its type or its encoding does not allow"
        else:
            self._parts.add(self.part)


class Converter(_Walk):
    """The second pass, over a message without an obstacle."""

    def __init__(self, survey: Survey) -> None:
        super().__init__()
        self._parts = survey.parts
        self._held_label = b""  # of the part's header, as it was
        self._lines: list[bytes] = []
        self._octets = 0

    def _header_line(self, header: _Header, piece: bytes) -> None:
        super()._header_line(header, piece)
        if header.field == b"content-transfer-encoding":
            self._held_label += piece
        else:
            self._out.append(piece)

    def _header_ends(self, header: _Header, blank: bytes, *, encloses: bool) -> None:
        label, self._held_label = self._held_label, b""
        if self.part in self._parts:
            label = b"Content-Transfer-Encoding: quoted-printable\r\n"
            if self.part == 0 and b"mime-version" not in header.lines:
                label = b"MIME-Version: 1.0\r\n" + label
            blank = blank or _CRLF
        elif label and header.encoding in {"8bit", "binary"}:
            label = b"Content-Transfer-Encoding: 7bit\r\n"
        self._out += (label, blank)

    def _body(self, piece: bytes) -> None:
        if self._kind is _Kind.PADDING:
            self._out.append(piece if piece.isascii() else bytes(octet if octet < 128 else 63 for octet in piece))
        elif self.part not in self._parts:
            self._out.append(piece)
        else:
            self._lines.append(piece)
            self._octets += len(piece)
            if not piece.endswith(_CRLF) or self._octets > _MAX_PIECE_OCTETS:
                self._flush()

    def _flush(self) -> None:
        octets, self._lines, self._octets = b"".join(self._lines), [], 0
        if not octets:
            return
        encoded = binascii.b2a_qp(octets, istext=True)
        if _CRLF not in octets:  # from which the library would have learned how lines end
            encoded = encoded.replace(b"\n", _CRLF)
        self._out.append(encoded if octets.endswith(_CRLF) else encoded + b"=\r\n")  # a line that goes on
