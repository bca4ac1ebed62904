"""A relay of two workers: mail through both, a worker that is killed, commands over both queues, and fewer workers later."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.loopback import free_port
from tests.recording_sink import RecordingSink
from tests.relay_process import RelayProcess, Setting, Settings

CONTENT = b"Subject: hello\r\n\r\nhello\r\n"


def settings(port: int, workers: int = 2, smtp: Mapping[str, Setting] | None = None) -> Settings:
    return {
        "relay": {"myhostname": "relay.test", "state_dir": "state", "workers": workers},
        "smtp": {
            "relayhost": [f"[127.0.0.1]:{port}"],
            "tls_security_level": "none",
            "initial_destination_concurrency": 100,
            "destination_concurrency_limit": 100,
            **(smtp or {}),
        },
        "queue": {"minimal_backoff_time": "1h", "maximal_backoff_time": "1h"},
    }


def command(relay: RelayProcess, *words: str) -> str:
    """Give a command as people do; returns what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "relay", *words, "-c", str(relay.configuration)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def listed(relay: RelayProcess) -> dict[str, Any]:
    entries = [json.loads(line) for line in command(relay, "queue", "list", "--json").splitlines()]
    assert [each["queue_id"] for each in entries] == sorted(each["queue_id"] for each in entries)
    return {each["queue_id"]: each for each in entries}


def workers_of(relay: RelayProcess) -> dict[int, int]:
    """The process of each worker, by its number, once all are up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.settimeout(60)
        control.connect(str(relay.directory / "state" / "control"))
        control.sendall(b'{"v":1,"command":"status"}\n')
        with control.makefile("rb") as answers:
            done = json.loads(answers.readline())
    return {each["worker"]: each["pid"] for each in done["done"]["workers"]}


def send_to_both(relay: RelayProcess, each: int = 2) -> dict[str, int]:
    """Mail into both queues, one after the other, the other worker being stopped; returns the worker that has each message."""
    found: dict[str, int] = {}
    pids = workers_of(relay)
    for number in pids:
        others = [pid for other, pid in pids.items() if other != number]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(each):
                found[relay.send(CONTENT, sender="a@client.test", recipients=["b@far.test"])] = number
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)
    return found


def started(relay: RelayProcess) -> None:
    relay.start()
    relay.process.wait_for(r"daemon started -- version \S+, \d workers")


def test_mail_goes_through_both_and_commands_see_both_queues(tmp_path: Path) -> None:
    port = free_port()
    with RelayProcess(tmp_path, settings(port)) as relay:
        relay.process.wait_for(r"daemon started -- version \S+, 2 workers")
        sent = send_to_both(relay)
        for queue_id in sent:
            assert "status=deferred" in relay.wait_for_status(queue_id)
        assert set(listed(relay)) == set(sent)
        one = {number: queue_id for queue_id, number in sent.items()}
        for queue_id in one.values():
            assert queue_id in command(relay, "queue", "show", queue_id)
        held = command(relay, "queue", "hold", one[1], one[2], "--reason", "to look at")
        assert held == "2 recipients of 2 messages are placed on hold.\n"
        deleted = command(relay, "queue", "delete", one[2], "--yes")
        assert deleted == "1 recipient of 1 message is deleted.\n"
        assert set(listed(relay)) == set(sent) - {one[2]}
        with RecordingSink("127.0.0.1", port) as sink:
            command(relay, "queue", "release", one[1])
            command(relay, "queue", "flush")
            assert len(sink.wait_for_messages(len(sent) - 1)) == len(sent) - 1
            for queue_id in set(sent) - {one[2]}:
                relay.process.wait_for(f"{queue_id}: removed")
        assert listed(relay) == {}


def test_a_rule_for_what_comes_in_holds_at_both_and_at_one_that_was_killed(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, settings(free_port())) as relay:
        relay.process.wait_for(r"daemon started -- version \S+, 2 workers")
        command(relay, "queue", "hold", "--future", "domain:far.test", "--reason", "wait")
        os.kill(workers_of(relay)[2], signal.SIGKILL)
        relay.process.wait_for(r"worker 2 ended \(killed by SIGKILL\); it is started again")
        mark = relay.process.mark()
        relay.process.wait_for(r"daemon started -- version \S+, SMTP on .*worker-2", since=mark)
        sent = send_to_both(relay)
        states = {recipient["state"] for entry in listed(relay).values() for recipient in entry["recipients"]}
        assert states == {"hold"}, "and nothing was tried"
        assert len(listed(relay)) == len(sent)
        command(relay, "queue", "hold", "--remove", "1")
        assert command(relay, "queue", "hold", "--rules") == "Mail that comes in is not held.\n"


def test_a_killed_worker_comes_back_and_what_it_had_goes_out(tmp_path: Path) -> None:
    with RecordingSink("127.0.0.1", 0) as sink, RelayProcess(tmp_path, settings(sink.port)) as relay:
        relay.process.wait_for(r"daemon started -- version \S+, 2 workers")
        sink.close_gate()
        sent = send_to_both(relay)
        sink.wait_for_body(len(sent))
        before = workers_of(relay)
        for number in (1, 2):
            mark = relay.process.mark()
            os.kill(before[number], signal.SIGKILL)
            relay.process.wait_for(rf"worker {number} ended \(killed by SIGKILL\); it is started again", since=mark)
            relay.process.wait_for(r"daemon started -- version \S+, SMTP on", since=mark)
        sink.open_gate.set()
        for queue_id in sent:
            relay.process.wait_for(f"{queue_id}: removed")
        assert set(workers_of(relay).values()).isdisjoint(before.values())
        assert listed(relay) == {}


def test_fewer_workers_deliver_what_the_others_had(tmp_path: Path) -> None:
    """A relay of one, whose second worker's queue has mail: it is listed without a relay, and delivered by the next."""
    port = free_port()
    relay = RelayProcess(tmp_path, settings(port))
    with relay:
        relay.process.wait_for(r"daemon started -- version \S+, 2 workers")
        sent = send_to_both(relay)
        for queue_id in sent:
            relay.wait_for_status(queue_id)
    text = relay.configuration.read_text()
    relay.configuration.write_text(text.replace("workers = 2", "workers = 1"))
    assert set(listed(relay)) == set(sent)
    assert "are to be tried now" in command(relay, "queue", "flush")
    with RecordingSink("127.0.0.1", port) as sink, relay:
        for queue_id in sent:
            relay.process.wait_for(f"{queue_id}: removed")
        assert len(sink.messages()) == len(sent)
        relay.process.wait_for("worker 2 has no mail left and is needed no more")
        assert listed(relay) == {}
    with relay:
        line = relay.process.wait_for("daemon started -- .*")[0]
        assert ", SMTP on " in line, "the relay is one process again"


def test_workers_end_with_their_parent_before_another_may_begin(tmp_path: Path) -> None:
    with RecordingSink("127.0.0.1", 0) as sink:
        relay = RelayProcess(tmp_path, settings(sink.port))
        with relay:
            relay.process.wait_for(r"daemon started -- version \S+, 2 workers")
            sink.close_gate()
            sent = send_to_both(relay)
            sink.wait_for_body(len(sent))
            pids = workers_of(relay).values()
            relay.kill()
            for pid in pids:
                wait_until_gone(pid)
            sink.open_gate.set()
            started(relay)
            for queue_id in sent:
                relay.process.wait_for(f"{queue_id}: removed")


def wait_until_gone(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    try:
        assert select.select([descriptor], [], [], 60)[0], f"process {pid} did not end"
    finally:
        os.close(descriptor)


def test_a_limit_is_one_of_both(tmp_path: Path) -> None:
    """Transactions under way at the sink, while it answers none of them: three, though each worker has more to send."""
    limit = 3
    with RecordingSink("127.0.0.1", 0) as sink:
        limits: dict[str, Setting] = {"destination_concurrency_limit": limit, "initial_destination_concurrency": limit}
        with RelayProcess(tmp_path, settings(sink.port, smtp=limits)) as relay:
            relay.process.wait_for(r"daemon started -- version \S+, 2 workers")
            sink.close_gate()
            sent = send_to_both(relay, limit)
            sink.wait_for_body(limit)
            # What is taken after this was tried by then: the queue of a worker is looked at each time that mail comes in.
            sent |= send_to_both(relay, limit)
            assert sink.most_waiting == limit
            sink.open_gate.set()
            for queue_id in sent:
                relay.process.wait_for(f"{queue_id}: removed")
            assert sink.most_waiting == limit


def test_a_rate_is_one_of_both(tmp_path: Path) -> None:
    """No delivery begins at the sink sooner after the end of the one before than the delay says, whichever worker it is of."""
    delay = 0.3
    steps: list[tuple[bytes, float]] = []

    def note(command: bytes) -> None:
        if command[:4].upper() in (b"MAIL", b"."):
            steps.append((command[:4].upper(), time.monotonic()))

    with RecordingSink("127.0.0.1", 0, answer=note) as sink:
        rate: dict[str, Setting] = {"destination_rate_delay": f"{delay}s"}
        with RelayProcess(tmp_path, settings(sink.port, smtp=rate)) as relay:
            relay.process.wait_for(r"daemon started -- version \S+, 2 workers")
            sink.close_gate()
            sent = send_to_both(relay, 4)
            sink.open_gate.set()  # both have mail from here on
            for queue_id in sent:
                relay.process.wait_for(f"{queue_id}: removed")
    assert [kind for kind, _ in steps] == [b"MAIL", b"."] * len(sent), "one at a time"
    gaps = [begun - ended for (_, ended), (_, begun) in zip(steps[1::2], steps[2::2], strict=False)]
    assert len(gaps) == len(sent) - 1
    assert min(gaps) >= delay
    found = [re.search(rb"\tby \S+ [^;]* id (\w+)", message.content) for message in sink.messages()]
    workers = [sent[one[1].decode()] for one in found if one]
    assert len(workers) == len(sent)
    assert workers not in (sorted(workers), sorted(workers, reverse=True)), "one after the other had it all"


def test_the_limits_of_a_client_are_those_of_both(tmp_path: Path) -> None:
    """Connections and their rate, whichever worker has them; those of a worker that was killed count no more."""
    limited: dict[str, Mapping[str, Setting]] = {
        **settings(free_port()),
        "smtpd": {"client_connection_count_limit": 4, "client_event_limit_exceptions": ["192.0.2.0/24"]},
    }
    with RelayProcess(tmp_path, limited) as relay, ExitStack() as open_ones:
        relay.process.wait_for(r"daemon started -- version \S+, 2 workers")

        def greeting() -> bytes:
            connection = open_ones.enter_context(relay.connect())
            return open_ones.enter_context(connection.makefile("rb")).readline()[:4]

        pids = workers_of(relay)
        for pid in pids.values():
            os.kill(pid, signal.SIGSTOP)
            try:
                assert [greeting(), greeting()] == [b"220 "] * 2
            finally:
                os.kill(pid, signal.SIGCONT)
        for pid in pids.values():
            os.kill(pid, signal.SIGSTOP)
            try:
                assert greeting() == b"421 "
            finally:
                os.kill(pid, signal.SIGCONT)
        relay.process.wait_for("Connection concurrency limit exceeded: 5 from")
        os.kill(pids[2], signal.SIGKILL)
        relay.process.wait_for(r"worker 2 ended \(killed by SIGKILL\); it is started again")
        assert [greeting(), greeting(), greeting()] == [b"220 ", b"220 ", b"421 "]


def test_who_has_fewer_clients_takes_those_who_come(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, settings(free_port())) as relay, ExitStack() as open_ones:
        relay.process.wait_for(r"daemon started -- version \S+, 2 workers")
        relay.process.wait_for(r"disconnect from")  # of whoever looked whether the relay was up
        pids, begin = workers_of(relay), len(relay.process.lines())

        def come(number: int, of: int) -> dict[int, int]:
            """So many clients more; returns how many of all who came each worker has taken."""
            for _ in range(number):
                connection = open_ones.enter_context(relay.connect())
                assert open_ones.enter_context(connection.makefile("rb")).readline().startswith(b"220 ")
            deadline = time.monotonic() + 60
            while True:  # the log comes a little later
                log = relay.process.lines()[begin:]
                taken = {
                    worker: sum(f"/smtpd[{pid}]: connect from" in line for line in log) for worker, pid in pids.items()
                }
                if sum(taken.values()) == of:
                    return taken
                assert time.monotonic() < deadline, taken
                time.sleep(0.05)

        os.kill(pids[2], signal.SIGSTOP)
        try:
            assert come(10, of=10) == {1: 10, 2: 0}
        finally:
            os.kill(pids[2], signal.SIGCONT)
        assert come(10, of=20)[2] >= 7, (
            "the first takes one only where the second is not given a processor for a moment"
        )
