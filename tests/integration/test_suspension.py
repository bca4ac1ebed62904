"""A destination that is down, by the whole relay: suspended, told so, and brought back by ``dane-relay queue flush``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.loopback import free_port
from tests.recording_sink import RecordingSink
from tests.relay_process import RelayProcess, Settings

CONTENT = b"Subject: hello\r\n\r\nhello\r\n"
MESSAGES = 6


def test_a_flush_brings_a_suspended_destination_back(tmp_path: Path) -> None:
    port = free_port()
    settings: Settings = {
        "smtp": {
            "relayhost": [f"[127.0.0.1]:{port}"],
            "tls_security_level": "none",
            "initial_destination_concurrency": 1,
        },
        "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
        "queue": {"minimal_backoff_time": "1h", "maximal_backoff_time": "1h"},
    }
    refused = f"connect to 127.0.0.1[127.0.0.1]:{port}: Connection refused"
    with RelayProcess(tmp_path, settings) as relay:
        ids = [relay.send(CONTENT, sender="a@client.test", recipients=["b@down.test"]) for _ in range(MESSAGES)]
        lines = [relay.wait_for_status(queue_id) for queue_id in ids]
        assert f"status=deferred ({refused})" in lines[0]
        assert all(f"status=deferred (delivery temporarily suspended: {refused})" in line for line in lines[1:])
        assert sum(f"connect to 127.0.0.1[127.0.0.1]:{port}" in line for line in relay.process.lines()) == 1 + MESSAGES
        with RecordingSink("127.0.0.1", port) as sink:
            flushed = subprocess.run(
                [sys.executable, "-m", "relay", "queue", "flush", "-c", relay.configuration],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            assert f"{MESSAGES} messages are to be tried now" in flushed.stdout
            assert len(sink.wait_for_messages(MESSAGES)) == MESSAGES
