"""The mechanisms that show an OAuth 2 access token: OAUTHBEARER (RFC 7628) and XOAUTH2 (Google, Microsoft). Pure.

A server that refuses a token says why in a challenge and gives its negative reply only after an answer to that.
"""

from __future__ import annotations

import json
import re
from typing import Any

from relay.sasl.mechanism import MechanismFailed
from relay.sasl.secret import Secret

_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*", re.ASCII)
"""``b64token`` of RFC 6750 section 2.1."""
_STATUS = re.compile(r"[A-Za-z0-9_\-]{1,40}", re.ASCII)


class _Bearer:
    """What both have in common."""

    speaks_first = True
    proved = True
    # The answer to the challenge that carries an error.
    _after_error = b""

    def __init__(self, user: str, token: Secret) -> None:
        if not _TOKEN.fullmatch(token.reveal()):
            raise MechanismFailed("a token with characters that may not stand in one (RFC 6750)")
        if any(unfit in user for unfit in "\0\x01"):
            raise MechanismFailed("a control character in the user name")
        self._user = user
        self._token = token
        self.error = ""

    def next(self, challenge: bytes) -> bytes:
        """The server found fault with the token: note the fault and let it say no."""
        if self.error:
            raise MechanismFailed("a challenge after the token was refused")
        self.error = error_status(challenge)
        return self._after_error


class OAuthBearer(_Bearer):
    """RFC 7628.

    :param host: the server's name; with ``port`` it tells the server which service the token is meant for.
    """

    name = "OAUTHBEARER"
    _after_error = b"\x01"

    def __init__(self, user: str, token: Secret, *, host: str, port: int) -> None:
        super().__init__(user, token)
        self._host = host
        self._port = port

    def first(self) -> bytes:
        """The GS2 header with the user, then host, port and token."""
        name = self._user.replace("=", "=3D").replace(",", "=2C")
        text = f"n,a={name},\x01host={self._host}\x01port={self._port}\x01auth=Bearer {self._token.reveal()}\x01\x01"
        return text.encode("utf-8", "surrogateescape")


class XOAuth2(_Bearer):
    """Google's and Microsoft's elder form."""

    name = "XOAUTH2"

    def first(self) -> bytes:
        """User and token."""
        return f"user={self._user}\x01auth=Bearer {self._token.reveal()}\x01\x01".encode("utf-8", "surrogateescape")


def error_status(challenge: bytes) -> str:
    """The ``status`` of an error challenge, ``invalid_token`` or ``401``; a word of ours if it has none that is fit to show."""
    try:
        said: Any = json.loads(challenge[:4096])
    except (ValueError, RecursionError):
        said = None
    status = str(said.get("status", "")) if isinstance(said, dict) else ""
    return status if _STATUS.fullmatch(status) else "unknown error"
