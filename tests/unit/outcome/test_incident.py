"""A message to the postmaster, read by Python's own parser."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime

from relay.mail.envelope import Address, QueueId
from relay.mail.names import Domain
from relay.outcome.incident import Bulletin, Incident, compose_bulletin

ONE = Incident(
    classes=("policy",),
    about="SMTP server: errors from a[192.0.2.7]",
    lines=("Transcript of session follows.", " In:  X"),
)


def bulletin(*incidents: Incident, **untold: int) -> Bulletin:
    return Bulletin(
        incidents=incidents,
        untold=untold,
        hostname="relay.test",
        reader=Address("postmaster@relay.test", Domain.parse("relay.test")),
        report=QueueId("Q1"),
        made_at=datetime(2026, 11, 26, 8, 0, tzinfo=UTC),
    )


def test_one_incident() -> None:
    found = email.message_from_bytes(compose_bulletin(bulletin(ONE)), policy=email.policy.default)
    assert found["Subject"] == "dane-relay SMTP server: errors from a[192.0.2.7]"
    assert found["To"] == "postmaster@relay.test"
    assert found["From"] == "Mail Delivery System <MAILER-DAEMON@relay.test>"
    assert found["Auto-Submitted"] == "auto-generated"
    assert found["Message-ID"] == "<20261126080000.Q1@relay.test>"
    assert "\r\n In:  X\r\n" in found.get_content()


def test_several_and_those_that_are_only_counted() -> None:
    found = email.message_from_bytes(compose_bulletin(bulletin(ONE, ONE, policy=40)), policy=email.policy.default)
    assert found["Subject"] == "dane-relay: 42 errors"
    assert found.get_content().count("Transcript of session follows.") == 2
    assert "40 more of class policy in the same time are not shown." in found.get_content()


def test_a_stranger_writes_no_line_and_no_field_of_it() -> None:
    evil = Incident(classes=("protocol",), about="x\r\nBcc: all@b.example", lines=("\r\n.\r\nQUIT", "ü\x00" * 9_000))
    content = compose_bulletin(bulletin(evil))
    assert content.isascii()
    assert all(len(line) <= 500 and not line.startswith((b"Bcc", b".", b"QUIT")) for line in content.split(b"\r\n"))
    assert b"\n" not in content.replace(b"\r\n", b"")
    assert b"\0" not in content
