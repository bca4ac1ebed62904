"""An access token as files and commands give it: bare, or as a JSON object. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from relay.sasl.secret import Secret

MAX_OCTETS = 64 * 1024
_NEVER = datetime.max.replace(tzinfo=UTC)


class NoToken(Exception):  # noqa: N818 - it names what is missing
    """There is no token in a text; the message says what is there instead, without quoting it."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token.

    :param expires: when it does, aware; ``knows_expiry`` says whether anybody knows.
    """

    secret: Secret
    expires: datetime = _NEVER

    @property
    def knows_expiry(self) -> bool:
        """Whether the text said when the token expires."""
        return self.expires != _NEVER


def parse_token(text: bytes, now: datetime) -> Token:
    """Read a token: one line, or an object with ``access_token`` and, if it says so, its expiry.

    The expiry is ``expires_at`` or ``expiry`` (seconds since 1970, or a time in ISO 8601) or ``expires_in`` (seconds from
    now); 0 says that nobody knows.

    :raises NoToken: if there is none.
    """
    if len(text) > MAX_OCTETS:
        raise NoToken(f"more than {MAX_OCTETS} octets")
    try:
        written = text.decode("ascii").strip()
    except UnicodeDecodeError:
        raise NoToken("octets that stand in no token") from None
    if not written:
        raise NoToken("nothing")
    if not written.startswith("{"):
        if len(written.split()) != 1:
            raise NoToken("more than one word")
        return Token(Secret(written))
    try:
        found: Any = json.loads(written)
    except (ValueError, RecursionError):
        raise NoToken("an object that is no JSON") from None
    token = found.get("access_token")
    if not isinstance(token, str) or not token:
        raise NoToken("a JSON object without access_token")
    return Token(Secret(token), _expiry(found, now))


def _expiry(found: dict[str, Any], now: datetime) -> datetime:
    for name in ("expires_at", "expiry"):
        if found.get(name):
            return _moment(found[name])
    if found.get("expires_in"):
        try:
            return now + timedelta(seconds=float(found["expires_in"]))
        except (TypeError, ValueError, OverflowError):
            raise NoToken("an expires_in that is no number of seconds") from None
    return _NEVER


def _moment(written: object) -> datetime:
    try:
        if isinstance(written, str) and not written.replace(".", "", 1).isdigit():
            moment = datetime.fromisoformat(written)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        if isinstance(written, str | int | float):
            return datetime.fromtimestamp(float(written), UTC)
    except (ValueError, OverflowError, OSError):
        pass  # no time that a clock could show
    raise NoToken("an expiry that is no time")
