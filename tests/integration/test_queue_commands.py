"""Queue commands as people give them, beside a relay that runs: holds, overrides, giving up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.loopback import LoopbackNetwork
from tests.recording_sink import RecordingSink
from tests.relay_process import RelayProcess, Setting

CONTENT = b"Subject: hello\r\n\r\nhello\r\n"


@dataclass
class Scene:
    """A relay that asks for TLS everywhere, and two hosts that have none: ``one.test`` and ``two.test``."""

    relay: RelayProcess
    one: RecordingSink
    two: RecordingSink

    def queue(self, *arguments: str, status: int = 0) -> str:
        """Give a command as people do; returns what it says."""
        command = [
            sys.executable,
            "-m",
            "relay",
            "queue",
            arguments[0],
            "-c",
            str(self.relay.configuration),
            *arguments[1:],
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == status, (done.stdout, done.stderr)
        return done.stdout + done.stderr

    def listed(self, *where: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.queue("list", "--json", *where).splitlines()]

    def submit(self, *recipients: str) -> str:
        return self.relay.send(CONTENT, sender="ann@one.test", recipients=list(recipients))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    network = LoopbackNetwork()
    with ExitStack() as stack:
        one = stack.enter_context(RecordingSink(network.address(11), 0))
        two = stack.enter_context(RecordingSink(network.address(12), 0))
        settings: dict[str, dict[str, Setting]] = {
            "smtp": {"tls_security_level": "encrypt", "transport_maps": ["texthash:transport"]},
            "bounce": {"size_limit": 10},
        }
        transport = f"one.test smtp:[{one.address}]:{one.port}\ntwo.test smtp:[{two.address}]:{two.port}\n"
        relay = stack.enter_context(RelayProcess(tmp_path, settings, {"transport": transport}))
        yield Scene(relay, one, two)


def test_an_override_is_for_what_was_meant_and_for_nothing_else(scene: Scene) -> None:
    """Two recipients wait for want of TLS; one is let go in the clear, with its reason in the log, and no other."""
    queue_id = scene.submit("x@one.test", "x@two.test")
    other = scene.submit("y@two.test")
    for waits in (queue_id, other):
        scene.relay.wait_for_status(waits, "y@two.test" if waits is other else "x@two.test")
    assert {str(entry["queue_id"]) for entry in scene.listed("status:4.7.4")} == {queue_id, other}

    said = scene.queue(
        "requeue", queue_id, "and", "domain:two.test", "--tls-level", "may", "--reason", "agreed by phone"
    )
    assert said == "1 recipient of 1 message is requeued.\n"
    (taken,) = scene.two.wait_for_messages(1)
    assert (taken.encrypted, taken.rcpts[0].split(b" ")[1]) == (False, b"TO:<x@two.test>")

    scene.relay.process.wait_for(
        rf"postsuper\[\d+\]: warning: {queue_id}: requeued, TLS level may instead of .* \(by \S+: agreed by phone\)"
    )
    scene.relay.process.wait_for(rf"qmgr\[\d+\]: {queue_id}: TLS level may: override by \S+ at \S+: agreed by phone")
    scene.relay.process.wait_for(rf"{queue_id}: to=<x@two.test>.* status=sent")
    left = scene.listed()
    assert [(entry["queue_id"], [one["address"] for one in entry["recipients"]]) for entry in left] == [  # type: ignore[attr-defined]
        (queue_id, ["x@one.test"]),
        (other, ["y@two.test"]),
    ]
    assert scene.one.messages() == ()


def test_an_override_that_refuses_says_whose_it_is(scene: Scene) -> None:
    queue_id = scene.submit("x@one.test")
    scene.relay.wait_for_status(queue_id)
    mark = scene.relay.process.mark()
    scene.queue("requeue", queue_id, "--tls-level", "secure", "--reason", "contract")
    line = scene.relay.process.wait_for(rf"{queue_id}: to=<x@one.test>.* status=deferred .*", since=mark)[0]
    assert "rule override by " in line
    (entry,) = scene.listed("reason:~override.by")
    assert entry["queue_id"] == queue_id


def test_what_is_held_waits_for_its_release(scene: Scene) -> None:
    scene.queue("hold", "--future", "domain:two.test", "--reason", "migration")
    queue_id = scene.submit("x@two.test")
    assert [entry["queue_name"] for entry in scene.listed()] == ["hold"]
    assert scene.queue("list", "--format", "postfix").splitlines()[1].startswith(f"{queue_id}!")
    scene.queue("flush")
    scene.queue("hold", "--remove", "1")
    assert scene.queue("release", queue_id) == "1 recipient of 1 message is released from hold.\n"
    scene.relay.wait_for_status(queue_id)
    for line in (rf"{queue_id}: released from hold \(by ", "Released from hold: 1 message", "hold rule 1 ended by "):
        scene.relay.process.wait_for(rf"postsuper\[\d+\]: .*{line}")
    statuses = [line for line in scene.relay.lines_of(queue_id) if "status=" in line]
    assert len(statuses) == 1  # nothing was tried before


def test_giving_up_tells_the_sender_why(scene: Scene) -> None:
    queue_id = scene.submit("x@two.test", "y@two.test")
    scene.relay.wait_for_status(queue_id, "y@two.test")
    said = scene.queue("bounce", queue_id, "and", "rcpt:x@two.test", "--yes", "--reason", "their host is gone")
    assert said == "1 recipient of 1 message is returned to sender.\n"
    status = scene.relay.process.wait_for(rf"{queue_id}: to=<x@two.test>.*status=bounced \((.*)\)")
    assert status[1].startswith(
        "returned to sender by the mail administrator: their host is gone: last attempt: TLS is required"
    )
    assert "relay=none" in status[0]
    assert "dsn=5.4.7" in status[0]
    report = scene.relay.process.wait_for(rf"{queue_id}: sender non-delivery notification: (\S+)")[1]
    shown = scene.queue("show", report)
    assert "recipient   ann@one.test" in shown
    assert "Subject: Undelivered Mail Returned to Sender" in shown
    (entry,) = scene.listed(queue_id)
    assert [one["address"] for one in entry["recipients"]] == ["y@two.test"]  # type: ignore[attr-defined]


def test_delete_is_silent_towards_senders_and_loud_in_the_log(scene: Scene) -> None:
    queue_id = scene.submit("x@two.test")
    scene.relay.wait_for_status(queue_id)
    scene.queue("delete", queue_id, status=2)
    assert scene.queue("delete", queue_id, "--yes", "--dry-run") == "1 recipient of 1 message would be deleted.\n"
    scene.queue("delete", queue_id, "--yes", "--reason", "spam")
    scene.relay.process.wait_for(rf"postsuper\[\d+\]: {queue_id}: removed \(by \S+: spam\)")
    assert scene.queue("list", "--format", "postfix") == "Mail queue is empty\n"
    assert not any("notification" in line for line in scene.relay.process.lines())


def test_who_has_it_never_gets_it_again(tmp_path: Path) -> None:
    """One recipient is taken, one is put off, over and over, also across a kill: the first is named to the host once."""
    named: list[bytes] = []

    def answer(line: bytes) -> str | None:
        if line.startswith(b"RCPT"):
            named.append(line.split(b" ")[1])
        return "451 4.3.0 come back later" if line.startswith(b"RCPT TO:<later@") else None

    address = LoopbackNetwork().address(11)
    with RecordingSink(address, 0, keywords=("8BITMIME",), answer=answer) as sink:
        settings: dict[str, dict[str, Setting]] = {
            "smtp": {"tls_security_level": "may", "relayhost": [f"[{address}]:{sink.port}"]}
        }
        with RelayProcess(tmp_path, settings) as relay:
            scene = Scene(relay, sink, sink)
            queue_id = scene.submit("ann@one.test", "later@one.test")
            relay.wait_for_status(queue_id, "later@one.test")
            for _ in range(2):
                mark = relay.process.mark()
                scene.queue("flush", queue_id)
                relay.process.wait_for(rf"{queue_id}: to=<later@one.test>.* status=deferred", since=mark)
            relay.kill()
            relay.start()
            mark = relay.process.mark()
            scene.queue("flush", queue_id)
            relay.process.wait_for(rf"{queue_id}: to=<later@one.test>.* status=deferred", since=mark)
    assert named == [b"TO:<ann@one.test>"] + [b"TO:<later@one.test>"] * 4
    assert len(sink.messages()) == 1
