"""The relay is stopped in the middle of a message that goes over a session of one before it: nothing is lost or half recorded."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import apsw
import pytest

from relay.lab.ca import Authority, CertificateKind
from tests.loopback import LoopbackNetwork, free_port
from tests.recording_sink import RecordingSink, server_context
from tests.relay_process import RelayProcess, Settings
from tests.watched_process import PATIENCE

PEOPLE = ["ann@sink.test", "bob@sink.test"]


class Host:
    """What the host says; it refuses Ann, and falls silent at a command of the message that is to be broken off.

    ``silent_at`` begins the command that is not answered before ``speak`` is set; while it is empty nothing is held back.
    """

    def __init__(self) -> None:
        self.silent_at = b""
        self.waiting, self.speak = threading.Event(), threading.Event()

    def answer(self, command: bytes) -> str | None:
        if self.silent_at and command.startswith(self.silent_at) and not self.speak.is_set():
            self.waiting.set()
            self.speak.wait(PATIENCE)
        return "550 5.1.1 no such user" if b"<ann@" in command else None


def unsettled(directory: Path) -> list[tuple[str, str, str, int]]:
    """Recipients in the queue of a relay that does not run: address, state, reason, attempts counted."""
    with closing(apsw.Connection(str(directory / "state" / "queue.sqlite"))) as queue:
        return queue.execute(
            "SELECT r.address, r.state, r.reason, d.attempts FROM recipient AS r"
            " JOIN delivery AS d ON d.message = r.message AND d.number = r.delivery ORDER BY r.id"
        ).fetchall()  # type: ignore[return-value]


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.speak.set()


@pytest.mark.parametrize("silent_at", [b"RCPT TO:<bob", b"."])
def test_a_message_that_is_broken_off_in_a_warm_session_is_tried_whole_again(
    tmp_path: Path, host: Host, silent_at: bytes
) -> None:
    credential = Authority(tmp_path, datetime.now(UTC)).issue(CertificateKind.GOOD, "sink.test")
    context = server_context(credential.pem_file)
    with RecordingSink(LoopbackNetwork().address(1), 0, context=context, answer=host.answer) as sink:
        settings: Settings = {
            "smtp": {
                "relayhost": [f"[{sink.address}]:{sink.port}"],
                "tls_security_level": "encrypt",
                "connection_cache_time_limit": "60s",
            },
            "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
        }
        with RelayProcess(tmp_path, settings) as relay:
            first = relay.send(b"Subject: 1\r\n\r\n1\r\n", sender="joe@client.test", recipients=PEOPLE[1:])
            relay.process.wait_for(f"{first}: removed")
            host.silent_at = silent_at
            second = relay.send(b"Subject: 2\r\n\r\n2\r\n", sender="joe@client.test", recipients=PEOPLE)
            assert host.waiting.wait(PATIENCE)
            relay.process.signal(signal.SIGTERM)
            relay.process.wait_for("terminating -- ")
            relay.process.signal(signal.SIGTERM)
            assert relay.process.wait() == 0
            relay.process.wait_for("TLS connection reused to")
            greeted = [line for line, _ in sink.heard() if line.startswith(b"EHLO")]
            assert len(greeted) == 2, "one session, before TLS and in it"
            assert not any("status=" in line for line in relay.lines_of(second))
            assert unsettled(tmp_path) == [(one, "pending", "", 0) for one in PEOPLE]
            relay.stop()
            host.speak.set()
            relay.start()
            assert "status=bounced" in relay.wait_for_status(second, PEOPLE[0])
            assert "status=sent" in relay.wait_for_status(second, PEOPLE[1])
        copies = [one for one in sink.messages() if b"<joe@" in one.mail and b"Subject: 2\r\n" in one.content]
        # Behind the end of the data the host may have taken it, though nobody heard that.
        assert len(copies) in ((1, 2) if silent_at == b"." else (1,))
