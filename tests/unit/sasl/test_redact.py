"""What a host quotes of our credentials does not reach a log."""

from __future__ import annotations

import base64

import pytest

from relay.sasl.redact import redacted
from relay.sasl.secret import Secret

WORD = "correct horse"
SENT = base64.b64encode(f"\0joe@example.com\0{WORD}".encode()).decode()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"5.5.2 Unknown command: AUTH PLAIN {SENT}", "5.5.2 Unknown command: AUTH PLAIN <secret>"),
        (f"5.5.2 Unknown command: AUTH PLAIN {SENT[:20]}...", "5.5.2 Unknown command: AUTH PLAIN <secret>..."),
        (f"unknown command: auth plain {SENT.lower()}", "unknown command: auth plain <secret>"),
        (f"5.7.8 {WORD.upper()} is wrong", "5.7.8 <secret> is wrong"),
        ("5.7.8 Error: authentication failed: UGFzc3dvcmQ6", "5.7.8 Error: authentication failed: UGFzc3dvcmQ6"),
        ("", ""),
    ],
)
def test_secrets_and_their_pieces_are_taken_out(text: str, left: str) -> None:
    assert redacted(text, Secret(WORD), [SENT]) == left


def test_a_very_short_secret_makes_no_holes() -> None:
    assert redacted("an answer", Secret("a"), []) == "an answer"
