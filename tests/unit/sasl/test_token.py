"""What files and commands may say for a token, and what they may not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from relay.sasl.token import MAX_OCTETS, NoToken, parse_token

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "expires"),
    [
        (b"tok\n", None),
        (b'  {"access_token": "tok"}\n', None),
        (b'{"access_token": "tok", "expiry": "0"}', datetime.fromtimestamp(0, UTC)),
        (b'{"access_token": "tok", "expiry": 0}', None),
        (b'{"access_token": "tok", "expires_in": 3600}', NOW + HOUR),
        (b'{"access_token": "tok", "expires_in": "3600"}', NOW + HOUR),
        (b'{"access_token": "tok", "expires_at": 1795698000}', datetime.fromtimestamp(1795698000, UTC)),
        (b'{"access_token": "tok", "expiry": "1795698000"}', datetime.fromtimestamp(1795698000, UTC)),
        (b'{"access_token": "tok", "expiry": "2026-11-26T13:00:00Z"}', NOW + HOUR),
        (b'{"access_token": "tok", "expiry": "2026-11-26T13:00:00"}', NOW + HOUR),
        (b'{"access_token": "tok", "expiry": "2026-11-26T14:00:00+01:00"}', NOW + HOUR),
    ],
)
def test_a_token_with_or_without_its_expiry(text: bytes, expires: datetime | None) -> None:
    token = parse_token(text, NOW)
    assert token.secret.reveal() == "tok"
    assert token.knows_expiry is (expires is not None)
    assert expires is None or token.expires == expires


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" \n",
        b"two words",
        b"\xff",
        b"{",
        b"{}",
        b'{"access_token": 7}',
        b'{"access_token": ""}',
        b'{"access_token": "hush", "expires_in": "soon"}',
        b'{"access_token": "hush", "expiry": "never"}',
        b'{"access_token": "hush", "expiry": 1e300}',
        b'{"access_token": "hush", "expiry": [1]}',
        b'{"access_token": "hush", "expires_in": 1e300}',
        b"{" * 5000,
        b"x" * (MAX_OCTETS + 1),
    ],
)
def test_what_is_no_token_is_said_without_quoting_it(text: bytes) -> None:
    with pytest.raises(NoToken) as caught:
        parse_token(text, NOW)
    assert "hush" not in str(caught.value)
