"""Kill -9 between the 250 and the delivery: what was accepted arrives, and once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.loopback import LoopbackNetwork, free_port
from tests.recording_sink import RecordingSink
from tests.relay_process import RelayProcess, Settings
from tests.watched_process import PATIENCE

SENDER = "sender@client.test"
RECIPIENT = "user@sink.test"


class Obstacle:
    """A receiver's behaviour that a test switches: where it stands, sessions stop; taken away, they go on.

    :param stage: the command at which it stands; empty for the greeting, ``.`` for the end of the message.
    :param reply: what the receiver says to a session that was stopped, once it is let go.
    """

    def __init__(self, stage: bytes, reply: str) -> None:
        self._stage = stage
        self._reply = reply
        self._gone = threading.Event()
        self.reached = threading.Event()

    def __call__(self, command: bytes) -> str | None:
        """The receiver's answer to a command; None for the usual one."""
        if self._gone.is_set() or command[:4].upper() != self._stage:
            return None
        self.reached.set()
        self._gone.wait(PATIENCE)
        return self._reply

    def remove(self) -> None:
        """Let the stopped sessions go, with the reply, and stop no more."""
        self._gone.set()


@contextmanager
def relay_to(sink: RecordingSink, directory: Path) -> Iterator[RelayProcess]:
    """A relay that hands everything to the sink, by its address."""
    settings: Settings = {
        "smtp": {"relayhost": [f"[{sink.address}]:{sink.port}"], "tls_security_level": "may"},
        "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
        "queue": {"minimal_backoff_time": "1s", "maximal_backoff_time": "1s"},
    }
    with RelayProcess(directory, settings) as running:
        yield running


def message(number: int, size: int) -> bytes:
    return b"Subject: number %d\r\n\r\n" % number + b"A line of text.\r\n" * (size // 17)


def from_subject(content: bytes) -> bytes:
    """A message without what the relay put in front of it."""
    return content.partition(b"Subject: ")[2]


@pytest.mark.parametrize(
    ("stage", "reply"),
    [
        pytest.param(b"", "421 4.3.2 Not now", id="greeting"),
        pytest.param(b"MAIL", "451 4.3.0 Not now", id="MAIL"),
        pytest.param(b".", "451 4.3.0 Not now", id="end-of-data"),
    ],
)
def test_killed_between_250_and_delivery(stage: bytes, reply: str, tmp_path: Path) -> None:
    """Small messages lie in the database, large ones in spool files; all come back, none twice."""
    contents = [message(number, 200_000 if number % 3 == 0 else 500) for number in range(12)]
    obstacle = Obstacle(stage, reply)
    with (
        RecordingSink(LoopbackNetwork().address(1), 0, answer=obstacle) as sink,
        relay_to(sink, tmp_path) as relay,
    ):
        accepted = [relay.send(content, sender=SENDER, recipients=[RECIPIENT]) for content in contents]
        assert obstacle.reached.wait(PATIENCE)
        relay.kill()
        obstacle.remove()
        assert sink.messages() == ()
        relay.start()
        for queue_id in accepted:
            relay.process.wait_for(rf": {queue_id}: to=<{RECIPIENT}>.*status=sent")
            relay.process.wait_for(rf": {queue_id}: removed$")
        late = message(99, 500)
        relay.wait_for_status(relay.send(late, sender=SENDER, recipients=[RECIPIENT]))
        arrived = Counter(from_subject(one.content) for one in sink.messages())
    assert arrived == Counter(from_subject(content) for content in (*contents, late))


def test_killed_after_delivery(tmp_path: Path) -> None:
    """What was delivered and settled before the kill does not come again."""
    with RecordingSink(LoopbackNetwork().address(1), 0) as sink, relay_to(sink, tmp_path) as relay:
        first = relay.send(message(1, 500), sender=SENDER, recipients=[RECIPIENT])
        relay.process.wait_for(rf": {first}: removed$")
        relay.kill()
        relay.start()
        relay.wait_for_status(relay.send(message(2, 500), sender=SENDER, recipients=[RECIPIENT]))
        subjects = [from_subject(one.content).partition(b"\r")[0] for one in sink.messages()]
    assert subjects == [b"number 1", b"number 2"]
