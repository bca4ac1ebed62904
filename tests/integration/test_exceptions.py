"""Exceptions that end, in a running relay: what it logs of them, and what becomes of mail before and after."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.loopback import free_port
from tests.recording_sink import RecordingSink
from tests.relay_process import RelayProcess, Settings

CONTENT = b"Subject: hello\r\n\r\nhello\r\n"
SOON = datetime.now(UTC).date() + timedelta(days=9)


@pytest.fixture
def sink() -> Iterator[RecordingSink]:
    with RecordingSink("127.0.0.1", 0) as sink:
        yield sink


@pytest.fixture
def relay(tmp_path: Path, sink: RecordingSink) -> Iterator[RelayProcess]:
    settings: Settings = {
        "smtp": {
            "relayhost": [f"[{sink.address}]:{sink.port}"],
            "tls_security_level": "encrypt",
            "tls_policy_maps": ["tls_policy"],
        },
        "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
    }
    policy = f"#: until={SOON}\n[{sink.address}]:{sink.port} may\n"
    with RelayProcess(tmp_path, settings, {"tls_policy": policy}) as relay:
        yield relay


def send(relay: RelayProcess) -> str:
    return relay.wait_for_status(relay.send(CONTENT, sender="joe@client.test", recipients=["ann@sink.test"]))


def test_an_exception_is_warned_of_holds_and_ends(relay: RelayProcess, sink: RecordingSink) -> None:
    relay.process.wait_for(
        rf'warning: tls_policy:2: \S+: the exception "may until={SOON}" ends in \d days .*; then \S+ \(encrypt\) applies'
    )
    status = send(relay)
    assert "tls=may:none" in status
    assert "status=sent" in status
    (relay.directory / "tls_policy").write_text(f"[{sink.address}]:{sink.port} may until=2026-01-31\n")
    os.kill(relay.process.pid, signal.SIGHUP)
    relay.process.wait_for(r"warning: tls_policy:1: .* has expired; \S+ \(encrypt\) applies: remove the line")
    relay.process.wait_for("reload -- version")
    ended = send(relay)
    assert re.search(
        r"tls=!encrypt, dsn=4\.7\.4, status=deferred \(TLS is required, but was not offered by host .*: expected STARTTLS "
        r"in the reply to EHLO; found none; rule \S+relay\.toml:\d+ since tls_policy:1 expired on 2026-01-31\)$",
        ended,
    ), ended
    assert len(sink.messages()) == 1


def test_diff_against_the_queue_of_a_real_relay_running_and_stopped(relay: RelayProcess, sink: RecordingSink) -> None:
    key = f"[{sink.address}]:{sink.port}"
    (relay.directory / "tls_policy").write_text("# nothing\n")
    reloaded = subprocess.run(
        [sys.executable, "-m", "relay", "reload", "-c", "relay.toml"], timeout=60, check=False, cwd=relay.directory
    )
    assert reloaded.returncode == 0
    assert "status=deferred" in send(relay)
    (relay.directory / "new").write_text(f"#: until={SOON}\n{key} may\n")
    command = [
        sys.executable,
        "-m",
        "relay",
        "policy",
        "diff",
        "tls_policy",
        "new",
        "--against",
        "queue",
        "-c",
        "relay.toml",
    ]

    def told() -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=relay.directory)
        assert done.returncode == 1, done.stderr
        return done.stdout

    running = told()
    assert running.startswith(f"{key}: encrypt -> may WEAKER (1 queued delivery)\n")
    assert f"  until  (none) -> {SOON}\n" in running
    relay.stop()
    assert told() == running
