"""TLS security levels, ordered as in Postfix's tls/tls.h, and the questions that code asks of them."""

from __future__ import annotations

from enum import IntEnum


class Level(IntEnum):
    """A TLS security level; compare levels only through the predicates below."""

    NONE = 0
    MAY = 1
    ENCRYPT = 2
    FINGERPRINT = 3
    HALFDANE = 4
    DANE = 5
    DANE_ONLY = 6
    VERIFY = 7
    SECURE = 8

    @classmethod
    def parse(cls, text: str) -> Level:
        """Read a level as written in configuration, any case; ``halfdane`` is a result and cannot be asked for.

        :raises ValueError: if it is no level.
        """
        for level in cls:
            if level.word == text.lower() and level is not cls.HALFDANE:
                return level
        raise ValueError(f"invalid security level {text!r}; one of {', '.join(CONFIGURABLE)}")

    @property
    def word(self) -> str:
        """The level as Postfix writes it."""
        return self.name.lower().replace("_", "-")

    @property
    def uses_tls(self) -> bool:
        """Whether STARTTLS is ever sent."""
        return self >= Level.MAY

    @property
    def requires_tls(self) -> bool:
        """Whether a session in the clear is refused."""
        return self > Level.MAY

    @property
    def requires_match(self) -> bool:
        """Whether the peer must prove who it is."""
        return self > Level.ENCRYPT

    @property
    def is_dane(self) -> bool:
        """Whether the peer is authenticated by TLSA records."""
        return Level.HALFDANE <= self <= Level.DANE_ONLY

    @property
    def asks_for_dane(self) -> bool:
        """Whether TLSA records are to be looked up."""
        return self in (Level.DANE, Level.DANE_ONLY)

    @property
    def is_pkix(self) -> bool:
        """Whether a chain to a trusted CA and a name are required."""
        return self >= Level.VERIFY


CONFIGURABLE = tuple(level.word for level in Level if level is not Level.HALFDANE)
