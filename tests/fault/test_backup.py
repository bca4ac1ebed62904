"""``queue backup`` beside a running relay: another relay that is given the archive delivers what was queued."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.fault.test_kill import RECIPIENT, SENDER, from_subject, message
from tests.loopback import LoopbackNetwork, free_port
from tests.recording_sink import RecordingSink
from tests.relay_process import RelayProcess, Settings


def settings(sink: RecordingSink) -> Settings:
    return {
        "smtp": {"relayhost": [f"[{sink.address}]:{sink.port}"], "tls_security_level": "may"},
        "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
        "queue": {"minimal_backoff_time": "1s", "maximal_backoff_time": "1s"},
    }


def test_a_backup_is_a_queue_again(tmp_path: Path) -> None:
    contents = [message(number, 200_000 if number % 3 == 0 else 500) for number in range(9)]
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
    archive = tmp_path / "queue.tar"
    with (
        RecordingSink(LoopbackNetwork().address(1), 0, answer=lambda command: "421 4.3.2 Not now") as closed,
        RelayProcess(first, settings(closed)) as relay,
    ):
        queued = [relay.send(content, sender=SENDER, recipients=[RECIPIENT]) for content in contents]
        command = [sys.executable, "-m", "relay", "queue", "backup", str(archive), "-c", str(relay.configuration)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert "9 messages, 3 of them in files of their own" in done.stdout
        relay.process.wait_for(rf"9 messages backed up to {archive} by ")
        again = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert again.returncode == 1
        assert "is there already" in again.stderr
    (second / "state").mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", second / "state"], check=True)
    with RecordingSink(LoopbackNetwork().address(1), 0) as sink, RelayProcess(second, settings(sink)) as relay:
        for queue_id in queued:
            relay.process.wait_for(rf": {queue_id}: removed$")
        arrived = sorted(from_subject(one.content) for one in sink.messages())
    assert arrived == sorted(from_subject(content) for content in contents)
