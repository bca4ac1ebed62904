"""A TLS level that an administrator asks for, for some queued mail alone: an explicit rule that says whose it is. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from relay.policy.level import CONFIGURABLE, Level
from relay.policy.policy import MapEntry, Rule

# A fingerprint would need its digests; a line in a policy map says those.
OVERRIDABLE = tuple(word for word in CONFIGURABLE if word != Level.FINGERPRINT.word)


class AsConfigured(Enum):
    """No override: maps and defaults decide."""

    AS_CONFIGURED = "as configured"


AS_CONFIGURED: Final = AsConfigured.AS_CONFIGURED


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOverride:
    """The level that takes the place of every map entry and default, for the mail that carries it.

    :param by: who asked for it; ``at`` is when, aware; ``reason`` is why, in their words, never empty.
    """

    level: Level
    by: str
    at: datetime
    reason: str

    @property
    def place(self) -> str:
        """Where this rule stands, in the words of every explanation."""
        return f"override by {self.by} at {self.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"

    @property
    def entry(self) -> MapEntry:
        """The override as ``decide`` takes rules."""
        return MapEntry(level=self.level, rule=Rule(self.place, f"{self.level.word}: {self.reason}"))


def parse_level(word: str) -> Level:
    """Read the level of an override.

    :raises ValueError: if it is no level that can be asked for so.
    """
    level = Level.parse(word)
    if level is Level.FINGERPRINT:
        raise ValueError(
            f"level {level.word!r} needs fingerprints, which only a policy map gives; one of {OVERRIDABLE}"
        )
    return level
