"""SMTP replies: code and enhanced status code, which cannot disagree (RFC 5321 section 4.2, RFC 3463, RFC 2034)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

_STATUS = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})", re.ASCII)
_LEADING_STATUS = re.compile(_STATUS.pattern + r"(?:\s|$)", re.ASCII)


class Severity(Enum):
    """What a reply means for the sender, from its first digit."""

    SUCCESS = 2
    INTERMEDIATE = 3
    TRANSIENT = 4
    PERMANENT = 5


_SEVERITIES = {severity.value: severity for severity in Severity}


@dataclass(frozen=True, slots=True)
class EnhancedStatus:
    """An enhanced mail system status code ``class.subject.detail`` (RFC 3463)."""

    klass: int
    subject: int
    detail: int

    @classmethod
    def parse(cls, text: str) -> EnhancedStatus:
        """Read ``4.7.5``.

        :raises ValueError: if the text is not a status code of class 2, 4 or 5.
        """
        match = _STATUS.fullmatch(text)
        if match is None:
            raise ValueError(f"not an enhanced status code: {text[:40]!r}")
        return cls(int(match[1]), int(match[2]), int(match[3]))

    def softened(self) -> EnhancedStatus:
        """The same subject and detail as a transient failure (class 4)."""
        return EnhancedStatus(4, self.subject, self.detail)

    def hardened(self) -> EnhancedStatus:
        """The same subject and detail as a permanent failure (class 5)."""
        return EnhancedStatus(5, self.subject, self.detail)

    def __str__(self) -> str:
        return f"{self.klass}.{self.subject}.{self.detail}"


@dataclass(frozen=True, slots=True)
class Reply:
    """One SMTP reply, its lines without code and without line ends.

    :param code: 200 to 599.
    :param lines: at least one text, of an enhanced status code (where the peer sent one) and words.
    """

    code: int
    lines: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 200 <= self.code <= 599 or not self.lines:
            raise ValueError(f"not an SMTP reply: {self.code} {self.lines!r}")

    @property
    def severity(self) -> Severity:
        """The meaning of the first digit."""
        return _SEVERITIES[self.code // 100]

    @property
    def status(self) -> EnhancedStatus:
        """The enhanced status of the first line if its class agrees with the code, else ``class.0.0``."""
        klass = self.code // 100
        match = _LEADING_STATUS.match(self.lines[0])
        if match is not None and int(match[1]) == klass:
            return EnhancedStatus(klass, int(match[2]), int(match[3]))
        return EnhancedStatus(klass, 0, 0)

    @property
    def one_line(self) -> str:
        """The reply as the log shows it: code and lines, newlines folded to spaces."""
        return f"{self.code} {' '.join(self.lines)}".rstrip()

    def __str__(self) -> str:
        return self.one_line
