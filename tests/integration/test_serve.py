"""``dane-relay serve`` as an administrator meets it: what it refuses to start on, reload, readiness, the control socket."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback import free_port
from tests.recording_sink import RecordingSink
from tests.relay_process import RelayProcess, Settings

CONTENT = b"Subject: hello\r\n\r\nhello\r\n"


def settings(sink: RecordingSink, http: int) -> Settings:
    return {
        "smtp": {
            "relayhost": [f"[{sink.address}]:{sink.port}"],
            "tls_security_level": "may",
            "tls_policy_maps": ["tls_policy"],
        },
        "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
        "http": {"listen": f"127.0.0.1:{http}"},
        "queue": {"minimal_backoff_time": "1h", "maximal_backoff_time": "1h"},
    }


@pytest.fixture
def sink() -> Iterator[RecordingSink]:
    with RecordingSink("127.0.0.1", 0) as sink:
        yield sink


@pytest.fixture
def relay(tmp_path: Path, sink: RecordingSink) -> Iterator[RelayProcess]:
    with RelayProcess(tmp_path, settings(sink, free_port()), {"tls_policy": "# nothing yet\n"}) as relay:
        yield relay


def run(relay: RelayProcess, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "relay", *words, "-c", relay.configuration],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def send(relay: RelayProcess) -> str:
    queue_id = relay.send(CONTENT, sender="joe@client.test", recipients=["ann@sink.test"])
    return relay.wait_for_status(queue_id)


def test_second_instance_on_the_same_state_is_refused_by_name(relay: RelayProcess) -> None:
    second = run(relay, "serve")
    assert second.returncode == 1
    assert re.search(r"state_dir .*state is in use by process \d+", second.stderr)
    assert "status=sent" in send(relay)


def test_port_in_use_is_named(relay: RelayProcess, tmp_path: Path, sink: RecordingSink) -> None:
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    other = RelayProcess(elsewhere, settings(sink, free_port()), {"tls_policy": ""})
    text = other.configuration.read_text()
    other.configuration.write_text(text.replace(f":{other.port}", f":{relay.port}"))
    refused = run(other, "serve")
    assert refused.returncode == 1
    assert f"127.0.0.1:{relay.port}" in refused.stderr
    assert "in use" in refused.stderr


def test_broken_configuration_names_every_problem_and_starts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text("[smtp]\nprot = 25\n[smpt]\n")
    refused = subprocess.run(
        [sys.executable, "-m", "relay", "serve", "-c", path], capture_output=True, text=True, timeout=60, check=False
    )
    assert refused.returncode == 1
    assert [line.partition(": ")[0] for line in refused.stderr.splitlines()] == [f"{path}:2", f"{path}:3"]
    assert not (tmp_path / "state").exists()


def test_reload_takes_new_maps_and_keeps_the_old_ones_on_error(relay: RelayProcess, sink: RecordingSink) -> None:
    assert "tls=may:none" in send(relay)
    key = f"[{sink.address}]:{sink.port}"
    policy = relay.directory / "tls_policy"
    policy.write_text(f"{key} encrypt\n")
    assert run(relay, "reload").returncode == 0
    assert re.search(r"TLS is required, but was not offered.*rule tls_policy:1\)$", send(relay))
    policy.unlink()
    refused = run(relay, "reload")
    assert refused.returncode == 1
    assert "tls_policy" in refused.stderr + refused.stdout
    assert "TLS is required" in send(relay)


def test_sighup_reloads_and_a_malformed_line_defers_and_shouts(relay: RelayProcess, sink: RecordingSink) -> None:
    (relay.directory / "tls_policy").write_text(f"[{sink.address}]:{sink.port} encrpyt\n")
    os.kill(relay.process.pid, signal.SIGHUP)
    relay.process.wait_for(r"warning: .*tls_policy:1: .*invalid security level")
    assert "status=deferred (client TLS configuration problem: expected" in send(relay)
    assert not sink.messages()


def test_queue_commands_reach_the_running_relay(relay: RelayProcess, sink: RecordingSink) -> None:
    policy = relay.directory / "tls_policy"
    policy.write_text(f"[{sink.address}]:{sink.port} encrypt\n")
    run(relay, "reload")
    assert "status=deferred" in send(relay)
    [listed] = [json.loads(line) for line in run(relay, "queue", "list", "--json").stdout.splitlines()]
    assert listed["queue_name"] == "deferred"
    assert listed["recipients"][0]["delay_reason"].startswith("TLS is required")
    policy.write_text("")
    run(relay, "reload")
    assert run(relay, "queue", "flush").returncode == 0
    relay.process.wait_for(rf": {listed['queue_id']}: removed$")
    assert len(sink.messages()) == 1
    assert run(relay, "queue", "list").stdout.strip() == "The queue is empty."


def test_queue_commands_work_without_a_relay(relay: RelayProcess) -> None:
    (relay.directory / "tls_policy").write_text(". x\n")
    relay.stop()
    listed = run(relay, "queue", "list")
    assert listed.returncode == 0
    relay.start()


def test_health_readiness_and_metrics(relay: RelayProcess) -> None:
    send(relay)
    http = re.search(r'^listen = "(127\.0\.0\.1:\d+)"$', relay.configuration.read_text(), re.MULTILINE)
    assert http is not None

    def get(page: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{http[1]}{page}", timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    assert get("/healthz")[0] == 200
    # Level may: that no resolver answers holds no mail up.
    assert get("/readyz")[0] == 200
    status, metrics = get("/metrics")
    assert status == 200
    assert 'dane_relay_deliveries_total{status="sent"} 1.0' in metrics
    assert "dane_relay_resolver_validating 0.0" in metrics


def test_stop_ends_it_cleanly(relay: RelayProcess) -> None:
    stopped = run(relay, "stop")
    assert stopped.returncode == 0
    relay.process.wait_for("terminating -- ")
