"""The line of each key in a TOML document, which tomllib does not tell.

Works only on text that tomllib has accepted: then a scan that knows strings, comments, brackets and headers is enough.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field

Path = tuple[str, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY_PART = re.compile(r"[A-Za-z0-9_-]+|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'",
    re.DOTALL,
)


@dataclass(slots=True)
class _Scan:
    """A position in the text and what was found so far."""

    text: str
    at: int = 0
    lines: dict[Path, int] = field(default_factory=dict)

    def skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match[0]

    def note(self, path: Path, at: int) -> None:
        """Enter a key and, where a dotted key makes them, its tables; the first place of a table counts."""
        line = self.text.count("\n", 0, at) + 1
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)


def locate(text: str) -> Mapping[Path, int]:
    """Find where each key and table of a valid TOML document begins.

    :returns: line numbers from 1, by the path of the key; keys inside inline tables and arrays are not listed.
    """
    scan = _Scan(text)
    table: Path = ()
    scan.skip(_BLANK)
    while scan.at < len(text):
        start = scan.at
        if text[start] == "[":
            scan.at += 2 if text.startswith("[[", start) else 1
            table = _key(scan)
            scan.note(table, start)
            scan.at = min(len(text), text.index("]", scan.at) + 1)
            if text.startswith("]", scan.at):
                scan.at += 1
        else:
            scan.note(table + _key(scan), start)
            scan.at = text.index("=", scan.at) + 1
            _skip_value(scan)
        scan.skip(_BLANK)
    return scan.lines


def _key(scan: _Scan) -> Path:
    """A bare, quoted or dotted key."""
    parts: list[str] = []
    while True:
        scan.skip(_SPACE)
        part = scan.skip(_KEY_PART)
        parts.append(_unquoted(part))
        scan.skip(_SPACE)
        if not scan.text.startswith(".", scan.at):
            return tuple(parts)
        scan.at += 1


def _unquoted(part: str) -> str:
    if part[:1] in {'"', "'"}:
        return str(tomllib.loads(f"x = {part}")["x"])
    return part


def _skip_value(scan: _Scan) -> None:
    """Go to the end of the line on which the value ends."""
    depth = 0
    while scan.at < len(scan.text):
        character = scan.text[scan.at]
        if character in "\"'":
            if not scan.skip(_STRING):
                scan.at += 1
        elif character == "#":
            scan.skip(_BLANK if depth else re.compile(r"#[^\n]*"))
        elif character == "\n" and depth == 0:
            return
        else:
            depth += (character in "[{") - (character in "]}")
            scan.at += 1
