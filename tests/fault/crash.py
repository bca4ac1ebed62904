"""Kill -9 under load, again and again: nothing that was answered 250 is lost, and what comes twice is excused.

    python -m tests.fault.crash --rounds 200 --seed 7 --tally figures.json

A round: clients hand in mail for receivers of all manners, the relay is killed at a moment drawn by chance, started again
(now and then killed once more while it starts or drains), and drains its queue. Then each message is looked up in the
receivers' records. A second copy is excused only if the first was answered to a relay that was killed before it had
logged, and so committed, the result. How far it had come, the receiver's record says: the relay was dead when the 250 was
written; or it was killed within so long after that, and nobody can tell from outside whether it had read it; or the session
went on after the 250, so that it had.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path

from relay.control import client
from relay.control.protocol import QueueCount
from tests.fault.receivers import Manners, Receiver, Taken, letter
from tests.loopback import LoopbackNetwork, free_port
from tests.watched_process import PATIENCE, WatchedProcess

SENDERS = 6
RECEIVERS: dict[str, Manners] = {
    "fast.test": Manners(),
    "quick.test": Manners(),
    "slow.test": Manners(slowness=0.2),
    "slower.test": Manners(slowness=0.5),
    "grey.test": Manners(reluctant=0.4),
    "busy.test": Manners(busy=0.4),
    "forgetful.test": Manners(forgetful=0.3, slowness=0.1),
}
SENT = re.compile(r": ([0-9A-Za-z]+): to=<([^>]*)>.* status=sent")


@dataclass(slots=True)
class Figures:
    """What came of all rounds."""

    rounds: int = 0
    kills: int = 0
    accepted: int = 0
    unanswered: int = 0
    recipients: int = 0
    arrived_unanswered: int = 0
    deferrals: int = 0
    lost: int = 0
    damaged: int = 0
    duplicates_reply_to_come: int = 0
    duplicates_reply_10_ms_old: int = 0
    duplicates_reply_100_ms_old: int = 0
    duplicates_reply_older: int = 0
    duplicates_reply_read: int = 0
    duplicates_inexcusable: int = 0
    seconds: float = 0.0

    def add(self, other: Figures) -> None:
        """Add another run's."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


@dataclass(slots=True)
class Sent:
    """A message that a client began to hand in; ``queue_id`` is empty until it was told 250."""

    token: str
    recipients: tuple[str, ...]
    queue_id: str = ""


class Harness:
    """One relay, its receivers and its clients.

    :param directory: gets the configuration, the state and a log for each life.
    :param manners: of the receivers, by domain.
    """

    def __init__(self, directory: Path, seed: int, manners: Mapping[str, Manners] = RECEIVERS) -> None:
        self.directory = directory
        self.seed = seed
        self.figures = Figures()
        self.troubles: list[str] = []
        self.life = 0
        self.killed: dict[int, float] = {}
        self.pid = 0
        self.chance = random.Random(seed)
        network = LoopbackNetwork()
        self.addresses = {name: network.address(number) for number, name in enumerate(manners, 1)}
        self.port, self.receiver_port = free_port(), free_port(*self.addresses.values())
        self.receivers = {name: Receiver(each, self.chance, lambda: self.life) for name, each in manners.items()}
        self.logged: set[tuple[int, str, str]] = set()
        self._serial = 0
        (directory / "state").mkdir()
        routes = "".join(f"{name} smtp:[{self.addresses[name]}]:{self.receiver_port}\n" for name in manners)
        (directory / "transport").write_text(routes)
        (directory / "relay.toml").write_text(self.configuration())
        self.zygote = WatchedProcess(
            [sys.executable, "-m", "tests.fault.zygote"],
            log=self.directory / "zygote.log",
            commands=True,
        )

    def configuration(self) -> str:
        """What ``relay.toml`` says."""
        return f"""
[relay]
myhostname = "relay.test"
state_dir = "state"
[smtpd]
listen = ["127.0.0.1:{self.port}"]
mynetworks = ["127.0.0.0/8"]
client_connection_count_limit = 0
[smtp]
tls_security_level = "may"
transport_maps = ["transport"]
[http]
listen = ""
[dns]
mode = "trust-ad"
nameservers = ["127.0.0.1:{free_port()}"]
timeout = "1s"
[queue]
minimal_backoff_time = "0.1s"
maximal_backoff_time = "0.1s"
"""

    # --- the relay --------------------------------------------------------------------------------------------------

    @property
    def log(self) -> Path:
        """Of this life."""
        return self.directory / f"life-{self.life}.log"

    async def start(self, *, wait: bool = True) -> None:
        """Begin another life; wait until it greets."""
        self.life += 1
        mark = self.zygote.mark()
        self.zygote.say(f"start {self.directory / 'relay.toml'} {self.log}")
        self.pid = int((await asyncio.to_thread(self.zygote.wait_for, r"^started (\d+)$", since=mark))[1])
        while wait:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                assert Path(f"/proc/{self.pid}").exists(), f"the relay ended: {self.log.read_text()[-3000:]}"
                await asyncio.sleep(0.01)  # a closed port answers at once and tells nobody when it opens
                continue
            writer.close()
            return

    async def kill(self) -> None:
        """End this life with SIGKILL, and read what it logged."""
        mark = self.zygote.mark()
        os.kill(self.pid, signal.SIGKILL)
        self.killed[self.life] = time.monotonic()
        self.figures.kills += 1
        await asyncio.to_thread(self.zygote.wait_for, rf"^ended {self.pid}$", since=mark)
        self.read_log()

    def read_log(self) -> None:
        """Take in what this life logged."""
        if self.log.exists():
            for found in SENT.finditer(self.log.read_text(errors="replace")):
                self.logged.add((self.life, found[1], found[2]))

    async def drain(self) -> None:
        """Wait until the queue is empty."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                counts = await asyncio.to_thread(client.call, self.directory / "state", QueueCount())
                if not counts["messages"]:
                    break
            except (client.NoRelay, client.CallFailed):
                counts = {}
            assert time.monotonic() < deadline, (
                f"seed {self.seed}: not drained: {counts}: {self.log.read_text()[-3000:]}"
            )
            await asyncio.sleep(0.02)
        self.read_log()

    # --- clients ----------------------------------------------------------------------------------------------------

    async def send_on(self, sent: list[Sent], stop: asyncio.Event) -> None:
        """One client: messages one after the other, until the relay is gone."""
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            await _reply(reader)
            await _say(reader, writer, b"EHLO client.test")
            while not stop.is_set():
                await self._send_one(reader, writer, sent)
        except (OSError, EOFError):
            pass  # it was killed
        finally:
            if writer is not None:
                writer.transport.abort()

    async def _send_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: list[Sent]) -> None:
        self._serial += 1
        token = f"t{self.seed}-{self._serial}"
        domains = self.chance.sample(list(self.receivers), self.chance.choice([1, 1, 1, 2, 3]))
        people = tuple(f"u{n}@{domain}" for domain in domains for n in range(self.chance.choice([1, 1, 2])))
        await _say(reader, writer, b"MAIL FROM:<sender@source.test>")
        for person in people:
            await _say(reader, writer, f"RCPT TO:<{person}>".encode())
        await _say(reader, writer, b"DATA")
        one = Sent(token, people)
        sent.append(one)
        octets = self.chance.choice([200, 1_000, 5_000, 20_000, 150_000])
        reply = await _say(reader, writer, letter(token, octets, self.chance) + b".")
        if reply.startswith(b"250 "):
            one.queue_id = reply.split()[-1].decode()

    # --- rounds -----------------------------------------------------------------------------------------------------

    async def round(self) -> None:
        """Load, kill, start again, drain, count."""
        sent: list[Sent] = []
        stop = asyncio.Event()
        clients = [asyncio.create_task(self.send_on(sent, stop)) for _ in range(SENDERS)]
        await asyncio.sleep(self.chance.uniform(0.01, 0.5))
        await self.kill()
        stop.set()
        await asyncio.gather(*clients)
        while self.chance.random() < 0.2:
            await self.start(wait=False)
            await asyncio.sleep(self.chance.uniform(0.05, 0.8))
            await self.kill()
        await self.start()
        await self.drain()
        await asyncio.gather(*(receiver.bury(self.life) for receiver in self.receivers.values()))
        self.count(sent)

    def count(self, sent: list[Sent]) -> None:
        """Look up in the receivers' records what became of each message, and clear them."""
        figures = self.figures
        figures.rounds += 1
        copies: defaultdict[tuple[str, str], list[Taken]] = defaultdict(list)
        for receiver in self.receivers.values():
            for taken in receiver.taken:
                figures.damaged += not taken.whole
                for person in taken.recipients:
                    copies[taken.token, person].append(taken)
            receiver.taken.clear()
            figures.deferrals += receiver.deferred
            receiver.deferred = 0
        for one in sent:
            if one.queue_id:
                figures.accepted += 1
                figures.recipients += len(one.recipients)
            else:
                figures.unanswered += 1
                figures.arrived_unanswered += any((one.token, person) in copies for person in one.recipients)
            for person in one.recipients:
                self.judge(one, person, copies.pop((one.token, person), []))
        for token, person in copies:
            self.trouble(f"{token} came to {person}, whom nobody had named")
            figures.damaged += 1

    def judge(self, one: Sent, person: str, copies: list[Taken]) -> None:
        """What became of one recipient of one message: ``copies`` are those that came."""
        if one.queue_id and not copies:
            self.figures.lost += 1
            self.trouble(f"lost: {one.queue_id} {one.token} to {person}")
        for earlier, later in pairwise(sorted(copies, key=lambda copy: copy.life)):
            logged = (earlier.life, earlier.queue_id, person) in self.logged
            if earlier.life == later.life or logged:
                self.figures.duplicates_inexcusable += 1
                self.trouble(f"twice: {earlier} and {later} to {person}")
            else:
                kind = self._how_far(earlier)
                setattr(self.figures, kind, getattr(self.figures, kind) + 1)

    def _how_far(self, copy: Taken) -> str:
        """How far the relay was with a message that it had not logged as sent: which of the figures counts it."""
        age = self.killed[copy.life] - copy.answered
        if copy.followed:
            return "duplicates_reply_read"
        if age <= 0:
            return "duplicates_reply_to_come"
        if age <= 0.01:
            return "duplicates_reply_10_ms_old"
        return "duplicates_reply_100_ms_old" if age <= 0.1 else "duplicates_reply_older"

    def trouble(self, text: str) -> None:
        """Note what must not be."""
        self.troubles.append(f"seed {self.seed}, round {self.figures.rounds}: {text}")

    async def finish(self) -> None:
        """What is to be tried once behind all rounds."""

    async def run(self, rounds: int, *, until: float = float("inf")) -> None:
        """So many rounds, or as many as begin before ``until`` (``time.monotonic``)."""
        began = time.monotonic()
        for name, receiver in self.receivers.items():
            await receiver.start(self.addresses[name], self.receiver_port)
        try:
            await self.start()
            for _ in range(rounds):
                if time.monotonic() > until:
                    break
                await self.round()
                for old in self.directory.glob("life-*.log"):
                    if old != self.log:
                        old.unlink()
                self.logged.clear()
            await self.finish()
        finally:
            for receiver in self.receivers.values():
                await receiver.stop()
            self.zygote.kill()
            if self.pid and Path(f"/proc/{self.pid}").exists():
                os.kill(self.pid, signal.SIGKILL)
            self.figures.seconds = time.monotonic() - began


async def _reply(reader: asyncio.StreamReader) -> bytes:
    while True:
        line = await reader.readline()
        if not line:
            raise EOFError
        if line[3:4] == b" ":
            return line


async def _say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> bytes:
    writer.write(line + b"\r\n")
    await writer.drain()
    return await _reply(reader)


def run(rounds: int, seed: int, directory: Path, *, seconds: float = float("inf")) -> Harness:
    """Run a harness to its end."""
    harness = Harness(directory, seed)
    asyncio.run(harness.run(rounds, until=time.monotonic() + seconds))
    return harness


def main() -> None:
    """Run rounds and add their figures to a file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no round after so many seconds")
    parser.add_argument("--tally", type=Path, help="JSON file that the figures are added to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        harness = run(arguments.rounds, arguments.seed, Path(directory), seconds=arguments.seconds)
    total = Figures()
    if arguments.tally and arguments.tally.exists():
        total = Figures(**json.loads(arguments.tally.read_text()))
    total.add(harness.figures)
    if arguments.tally:
        arguments.tally.write_text(json.dumps(asdict(total), indent=1) + "\n")
    said = (*harness.troubles, json.dumps(asdict(harness.figures)), f"all: {json.dumps(asdict(total))}")
    sys.stdout.write("".join(f"{line}\n" for line in said))
    sys.exit(bool(harness.troubles))


if __name__ == "__main__":
    main()
