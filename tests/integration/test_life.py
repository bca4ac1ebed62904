"""How the relay ends, and what the service manager hears of its life: real signals, a real socket of systemd's kind."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.loopback import free_port
from tests.recording_sink import RecordingSink
from tests.relay_process import RelayProcess, Settings
from tests.watched_process import PATIENCE

CONTENT = b"Subject: hello\r\n\r\nhello\r\n"


@pytest.fixture
def sink() -> Iterator[RecordingSink]:
    with RecordingSink("127.0.0.1", 0) as sink:
        yield sink


def settings(sink: RecordingSink, drain_time: str = "60s") -> Settings:
    return {
        "relay": {"drain_time": drain_time},
        "smtp": {"relayhost": [f"[{sink.address}]:{sink.port}"], "tls_security_level": "none"},
        "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
    }


def send(relay: RelayProcess) -> str:
    return relay.send(CONTENT, sender="joe@client.test", recipients=["ann@sink.test"])


def wait_until_refused(relay: RelayProcess) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            relay.connect().close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            continue  # it was still in the queue of a socket that was being closed
    raise AssertionError("it still takes connections")


def test_sigterm_takes_nothing_new_and_lets_what_is_under_way_finish(tmp_path: Path, sink: RecordingSink) -> None:
    with RelayProcess(tmp_path, settings(sink)) as relay:
        sink.close_gate()
        queue_id = send(relay)
        sink.wait_for_body()
        relay.process.signal(signal.SIGTERM)
        relay.process.wait_for(r"terminating -- sessions 0, deliveries 1, at most 60 s")
        wait_until_refused(relay)
        assert relay.process.running()
        sink.open_gate.set()
        assert relay.process.wait() == 0
        assert "status=sent" in relay.wait_for_status(queue_id)
        assert len(sink.messages()) == 1


@pytest.mark.parametrize("again", [True, False])
def test_what_does_not_finish_in_time_is_kept_for_the_next_start(
    tmp_path: Path, sink: RecordingSink, again: bool
) -> None:
    """In time: until a second SIGTERM, or until ``drain_time`` is over."""
    with RelayProcess(tmp_path, settings(sink, "60s" if again else "0.1s")) as relay:
        sink.close_gate()
        queue_id = send(relay)
        sink.wait_for_body()
        relay.process.signal(signal.SIGTERM)
        if again:
            relay.process.wait_for("terminating -- ")
            relay.process.signal(signal.SIGTERM)
        assert relay.process.wait() == 0
        relay.process.wait_for("is tried again at the next start")
        assert not any("status=" in line for line in relay.lines_of(queue_id))
        relay.stop()
        sink.open_gate.set()
        relay.start()
        assert "status=sent" in relay.wait_for_status(queue_id)


def test_the_service_manager_hears_of_it_all(tmp_path: Path, sink: RecordingSink) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)

        def hear(line: str) -> None:
            while line not in manager.recv(4096).decode().split("\n"):
                pass

        told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        with RelayProcess(tmp_path, settings(sink), environment=told) as relay:
            assert manager.recv(4096).startswith(b"READY=1\n")
            hear("WATCHDOG=1")
            relay.process.signal(signal.SIGHUP)
            hear("RELOADING=1")
            hear("READY=1")
            hear("WATCHDOG=1")
            relay.process.signal(signal.SIGTERM)
            hear("STOPPING=1")
            assert relay.process.wait() == 0


def test_sighup_while_it_starts_is_a_reload_when_it_is_up(tmp_path: Path, sink: RecordingSink) -> None:
    """A service manager need not know how far the start has come; here it waits for somebody to read its log, a pipe."""
    pipe = tmp_path / "pipe.log"
    os.mkfifo(pipe)
    relay = RelayProcess(tmp_path, {**settings(sink), "log": {"file": str(pipe)}})
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(relay.start)
        with pipe.open() as lines:
            relay.process.signal(signal.SIGHUP)
            said = list(itertools.takewhile(lambda line: "reload -- version" not in line, lines))
            starting.result()
            assert any("daemon started" in line for line in said)
            assert relay.stop() == 0
