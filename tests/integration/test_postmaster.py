"""The postmaster hears of sessions in which something went wrong, from a running relay."""

from __future__ import annotations

import email
import email.policy
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback import free_port
from tests.recording_sink import RecordingSink
from tests.relay_process import RelayProcess, Settings


@pytest.fixture
def sink() -> Iterator[RecordingSink]:
    with RecordingSink("127.0.0.1", 0) as sink:
        yield sink


def settings(sink: RecordingSink, *classes: str) -> Settings:
    return {
        "smtpd": {"peername_lookup": False},
        "bounce": {"notify_classes": list(classes), "error_notice_recipient": "ops@sink.test"},
        "smtp": {"relayhost": [f"[{sink.address}]:{sink.port}"], "tls_security_level": "none"},
        "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
    }


def misbehave(relay: RelayProcess) -> None:
    with smtplib.SMTP(relay.address, relay.port, "client.test") as client:
        client.ehlo()
        client.docmd("FROBNICATE")
        client.docmd("AUTH", "PLAIN AHRpbQBzZWNyZXQ=")
        client.docmd("AHRpbQBzZWNyZXQ=")  # as one that goes on though it was refused
        client.docmd("RCPT", "TO:<x@y.example>")


def test_a_transcript_arrives_and_a_flood_does_not(tmp_path: Path, sink: RecordingSink) -> None:
    with RelayProcess(tmp_path, settings(sink, "policy", "protocol")) as relay:
        misbehave(relay)
        sink.wait_for_messages(1)
        for _ in range(20):
            misbehave(relay)
        assert relay.stop() == 0
        relay.start()  # the rest was queued as one message when the relay ended
        sink.wait_for_messages(2)
        assert relay.stop() == 0
    first, second = (email.message_from_bytes(one.content, policy=email.policy.default) for one in sink.messages())
    assert first["To"] == "ops@sink.test"
    assert first["Subject"].startswith("dane-relay SMTP server: errors from ")
    text = first.get_content()
    assert " In:  AUTH PLAIN ..." in text
    assert "AHRp" not in text
    assert " In:  FROBNICATE" in text
    assert " Out: 500 5.5.2 Error: command not recognized" in text
    assert " Out: 503 5.5.1 Error: need MAIL command" in text
    assert second["Subject"] == "dane-relay: 20 errors"
    assert "15 more of class protocol in the same time are not shown." in second.get_content()


def test_nobody_hears_of_classes_that_are_not_named(tmp_path: Path, sink: RecordingSink) -> None:
    with RelayProcess(tmp_path, settings(sink, "policy")) as relay:
        misbehave(relay)
        assert relay.stop() == 0
        relay.start()
        assert relay.stop() == 0
    assert not sink.messages()
