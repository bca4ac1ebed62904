"""The relay in its lab: every destination as expected; red when the judge sleeps; content byte for byte."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest

from relay.cli.lab import Laboratory, open_laboratory, table
from relay.lab.mx import Receiver
from relay.lab.record import Received
from relay.policy.policy import TlsPolicy
from relay.tls.peer import CheckChain, PeerFacts
from relay.tls.verdict import Verdict, Verified

DEADLINE = 60.0
ANY_PORT = "127.0.0.1:0"
FROM, TO = "sender@return.lab.test", "user@good.lab.test"
HEADER = (
    b"From: <sender@return.lab.test>\r\nSubject: fidelity\r\nMessage-ID: <1@client.test>\r\n"
    b"Date: Fri, 21 Aug 2026 10:00:00 +0000\r\n\r\n"
)


@pytest.fixture
async def laboratory() -> AsyncIterator[Laboratory]:
    async with open_laboratory(listen=ANY_PORT, http=ANY_PORT, show=lambda _: None) as opened:
        yield opened


async def test_every_destination_is_as_expected(laboratory: Laboratory) -> None:
    rows, submission = await laboratory.play()
    assert not submission.refused
    assert {row.destination.domain: row.differences for row in rows if not row.as_expected} == {}
    assert len(rows) >= 24
    assert table(rows).row_count == len(rows)


async def test_a_judge_that_accepts_everything_is_caught(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def accept_everything(policy: TlsPolicy, peer: PeerFacts, check_chain: CheckChain, now: datetime) -> Verdict:
        return Verified(matched="anything")

    monkeypatch.setattr("relay.delivery.session.judge", accept_everything)
    rows, _ = await laboratory.play()
    red = {row.destination.name for row in rows if not row.as_expected}
    assert len(red) >= 6
    # Not only by what the log says: the message is at receivers where it must never be.
    leaked = {row.destination.name for row in rows if "got delivered" in "; ".join(row.differences)}
    assert {
        "mismatch",
        "expired-ta",
        "wrong-name-ta",
        "junk-ta",
        "two-hosts",
        "fingerprint-wrong",
        "secure-wrong-name",
        "secure-unknown-ca",
    } <= leaked
    assert "good" not in red


def dots() -> bytes:
    return b".\r\n..\r\n...three\r\n.a\r\na.\r\n \r\n.\r\n"


def eight_bit() -> bytes:
    octets = bytes(octet for octet in range(1, 256) if octet not in b"\r\n")
    return b"\r\n".join(octets[at : at + 64] for at in range(0, len(octets), 64)) + b"\r\n"


def long_lines() -> bytes:
    return b"".join(letter * 998 + b"\r\n" for letter in (b"a", b".", b"\xfc"))


def ten_million() -> bytes:
    chance = random.Random(2)
    line = bytes(octet for octet in range(32, 256))
    lines = [b"." * chance.randint(0, 2) + line[: chance.randint(0, len(line))] + b"\r\n" for _ in range(100_000)]
    content = b"".join(lines)[: 10_000_000 - len(HEADER) - 2].rstrip(b"\r\n")
    return content + b"x" * (10_000_000 - len(HEADER) - len(content) - 2) + b"\r\n"


@pytest.mark.parametrize("make", [dots, eight_bit, long_lines, ten_million])
async def test_content_arrives_byte_for_byte(laboratory: Laboratory, make: object) -> None:
    assert callable(make)
    content = HEADER + make()
    if make is ten_million:
        assert len(content) == 10_000_000

    def hand_over() -> None:
        with smtplib.SMTP(*laboratory.smtp, local_hostname="client.test", timeout=DEADLINE) as session:
            session.ehlo()
            session.sendmail(FROM, [TO], content, mail_options=("BODY=8BITMIME",))

    receiver = laboratory.world.receivers["mx.good.lab.test"]
    await asyncio.to_thread(hand_over)
    received = await arrival(receiver)
    assert received.encrypted
    trace, _, rest = received.content.partition(b"From: ")
    assert rest == content.removeprefix(b"From: ")  # bytes before the length: a diff of 10 MB helps nobody
    assert trace.startswith(b"Received: ")
    assert all(line.startswith((b"\t", b" ")) for line in trace.split(b"\r\n")[1:-1])
    assert b"\n" not in received.wire.replace(b"\r\n", b"")


async def arrival(receiver: Receiver) -> Received:
    async with asyncio.timeout(DEADLINE):
        while not receiver.received():
            receiver.changed.clear()
            await receiver.changed.wait()
    (received,) = receiver.received()
    return received


def test_the_command_ends_with_0_when_all_is_well() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "relay", "lab", "--once"],
        capture_output=True,
        text=True,
        timeout=DEADLINE * 2,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "destinations as expected." in done.stdout
    assert "Verified TLS connection established to mx.good.lab.test[127.0.0." in done.stdout
    assert not done.stderr


def test_a_port_in_use_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "relay", "lab", "--listen", address, "--http", ANY_PORT],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    assert done.returncode == 1
    assert f"cannot listen on {address}: Address already in use; choose another with --listen" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_once_it_keeps_serving_until_ctrl_c() -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "relay", "lab", "--listen", ANY_PORT, "--http", ANY_PORT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    ) as running:
        assert running.stdout is not None
        try:
            said = ""
            for line in running.stdout:
                said += line
                if "Ctrl-C ends" in line:
                    break
            assert "swaks --server 127.0.0.1:" in said, said[-2000:]
            server = said.rpartition("swaks --server ")[2].split()[0]
            host, port = server.split(":")
            with smtplib.SMTP(host, int(port), local_hostname="client.test", timeout=DEADLINE) as session:
                session.sendmail("you@return.lab.test", ["try@good.lab.test"], HEADER + b"hello\r\n")
            sent = next(line for line in running.stdout if "to=<try@good.lab.test>" in line)
            assert "tls=dane, dsn=2.0.0, status=sent" in sent
            running.send_signal(signal.SIGINT)
            assert running.wait(DEADLINE) == 0
            assert running.stderr is not None
            assert "Traceback" not in running.stderr.read()
        finally:
            running.kill()


def test_nothing_of_the_relay_is_imported_by_the_lab() -> None:
    """The lab must be able to judge the relay: it may share the ground floors, and nothing that decides or sends."""
    code = "import sys, relay.lab.world, relay.lab.scoreboard, relay.lab.client; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    rooms = {name.split(".")[1] for name in done.stdout.split() if name.startswith("relay.")}
    assert rooms == {"lab"}
