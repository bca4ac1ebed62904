"""Credentials for a host: a user, what proves that it is them, and where that was written. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from relay.sasl.secret import Secret


class Owner(Enum):
    """What the key of credentials names, and so to whom they may be shown."""

    HOST = "host"
    NEXT_HOP = "next-hop"
    SENDER = "sender"


@dataclass(frozen=True, slots=True)
class Password:
    """Proof by password."""

    secret: Secret


@dataclass(frozen=True, slots=True)
class TokenFile:
    """Proof by an OAuth 2 access token that another program keeps fresh in a file; an absolute path."""

    path: str


@dataclass(frozen=True, slots=True)
class TokenCommand:
    """Proof by an OAuth 2 access token that a command prints; ``argv`` begins with an absolute path."""

    argv: tuple[str, ...]


TokenSource = TokenFile | TokenCommand


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who we say we are, to whom.

    :param place: ``FILE:LINE`` of the map entry.
    :param owner: what the key of the entry names.
    """

    user: str
    proof: Password | TokenSource
    place: str
    owner: Owner


@dataclass(frozen=True, slots=True)
class NoCredentials:
    """No map has an entry: we and the host talk as strangers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadCredentials:
    """There is an entry and it cannot be understood: its mail waits.

    :param expected: what the line should say; ``found`` what is wrong with it, never its text.
    """

    place: str
    owner: Owner
    expected: str
    found: str


Standing = Credentials | BadCredentials | NoCredentials
"""How we stand with a host."""


@dataclass(frozen=True, slots=True)
class AtStake:
    """There are credentials, so the host must prove who it is before it may see them: what a decision needs to know.

    :param place: ``FILE:LINE`` of the map entry.
    :param owner: what the key of the entry names.
    """

    place: str
    owner: Owner


Stake = AtStake | BadCredentials | NoCredentials
"""A standing without its secret."""


def stake_of(standing: Standing) -> Stake:
    """What a decision may know of credentials."""
    return AtStake(standing.place, standing.owner) if isinstance(standing, Credentials) else standing
