"""The mechanisms that show the password itself: PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login). Pure."""

from __future__ import annotations

from relay.sasl.mechanism import MechanismFailed
from relay.sasl.secret import Secret


def octets(text: str) -> bytes:
    """A text as UTF-8; octets of a map that are no UTF-8 as they stood there.

    :raises MechanismFailed: if it has a NUL, which would end it early.
    """
    if "\0" in text:
        raise MechanismFailed("a NUL in the user name or password")
    return text.encode("utf-8", "surrogateescape")


class Plain:
    """All in one message."""

    name = "PLAIN"
    speaks_first = True
    proved = True

    def __init__(self, user: str, password: Secret) -> None:
        self._user = user
        self._password = password

    def first(self) -> bytes:
        """No other identity to act as, the user, the password."""
        return b"\0" + octets(self._user) + b"\0" + octets(self._password.reveal())

    def next(self, challenge: bytes) -> bytes:
        """There is nothing more to say."""
        del challenge
        raise MechanismFailed("a challenge after all was said")


class Login:
    """The user where the server asks first, the password where it asks then; in what words does not matter."""

    name = "LOGIN"
    speaks_first = False
    proved = True

    def __init__(self, user: str, password: Secret) -> None:
        self._answers = [lambda: octets(user), lambda: octets(password.reveal())]

    def first(self) -> bytes:
        """The server speaks first."""
        raise MechanismFailed("LOGIN has no initial response")

    def next(self, challenge: bytes) -> bytes:
        """The user, then the password."""
        del challenge
        if not self._answers:
            raise MechanismFailed("a challenge after all was said")
        return self._answers.pop(0)()
