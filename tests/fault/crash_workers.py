"""Kill -9 of workers and of their parent under load, while the number of workers changes; one worker in the end.

    python -m tests.fault.crash_workers --rounds 40 --seed 7

A round: clients hand in mail, to whichever worker answers; some workers are killed at moments drawn by chance, and every other
time the parent, after which the relay is started again with as many workers as chance will have it. It drains, and each
message is looked up in the receivers' records:

* what was answered 250 came, whole; a second copy only if a process was killed between the two and the first copy's session had
  not gone on, and nothing was logged as sent twice
* to the guarded receiver it came over that one's own certificate only, though half of its sessions show another one or none
* no receiver had more transactions at a time than a destination may have of all workers together; those of a killed process
  count up to the kill

In the end all are killed under load, and one worker delivers what is in the queues of all.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import logging
import os
import select
import signal
import ssl
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import accumulate, pairwise
from pathlib import Path
from typing import cast

from relay.control import client
from relay.control.protocol import Status
from tests import pki
from tests.fault.crash import SENDERS, SENT, Harness, Sent
from tests.fault.receivers import Guard, Manners, Receiver, Stay, Taken
from tests.watched_process import PATIENCE

WORKERS = 3
LIMIT = 4
"""Deliveries to one destination at a time."""
GUARDED = "guarded.test"
OWN, ANOTHER = "its own", "another"
RECEIVERS = {
    "fast.test": Manners(),
    "slow.test": Manners(slowness=0.3),
    "busy.test": Manners(busy=0.3, reluctant=0.2),
    "forgetful.test": Manners(forgetful=0.3, slowness=0.1),
    GUARDED: Manners(slowness=0.1),
}


class WorkersHarness(Harness):
    """A relay of workers. A life ends whenever a process of it is killed.

    ``worker_kills`` are kills of workers alone, ``most`` is the most transactions that a receiver had at a time, ``guarded``
    what came to the guarded receiver, ``refusals`` how many of its sessions showed another certificate or none.
    """

    def __init__(self, directory: Path, seed: int) -> None:
        self.workers = WORKERS
        self.worker_kills, self.most, self.guarded = 0, 0, 0
        self._starts = 0
        self._own = _guard(directory, OWN)
        super().__init__(directory, seed, RECEIVERS)
        guards = (self._own, self._own, _guard(directory, ANOTHER), None)
        self.receivers[GUARDED] = Receiver(RECEIVERS[GUARDED], self.chance, lambda: self.life, guards)

    def configuration(self) -> str:
        """With workers, a limit, and a policy for the guarded receiver."""
        der = ssl.PEM_cert_to_DER_cert((self.directory / OWN / "cert.pem").read_text())
        digest = ":".join(f"{octet:02X}" for octet in hashlib.sha256(der).digest())
        next_hop = f"[{self.addresses[GUARDED]}]:{self.receiver_port}"
        (self.directory / "policy").write_text(f"{next_hop} fingerprint match={digest}\n")
        limits = f"destination_concurrency_limit = {LIMIT}\ninitial_destination_concurrency = {LIMIT}\n"
        return (
            super()
            .configuration()
            .replace("[relay]\n", f"[relay]\nworkers = {self.workers}\n")
            .replace("[smtp]\n", f'[smtp]\ntls_policy_maps = ["policy"]\n{limits}')
        )

    # --- the relay --------------------------------------------------------------------------------------------------

    @property
    def log(self) -> Path:
        """Of all that one parent started."""
        return self.directory / f"life-of-parent-{self._starts}.log"

    async def start(self, *, wait: bool = True) -> None:
        """Begin another life with another parent."""
        self._starts += 1
        await super().start(wait=wait)

    async def kill(self) -> None:
        """End the parent, and return when the workers have ended, which hold the state directory until then."""
        workers = _children(self.pid)
        await super().kill()
        for pid in workers:
            await _until_gone(pid)

    async def kill_worker(self) -> None:
        """End one of the workers that are up, and with it this life."""
        try:
            status = await asyncio.to_thread(client.call, self.directory / "state", Status())
        except (client.NoRelay, client.CallFailed):
            return  # one is just starting
        workers = cast("list[dict[str, int]]", status.get("workers", []))
        if up := [each["pid"] for each in workers if each["up"]]:
            pid = self.chance.choice(up)
            os.kill(pid, signal.SIGKILL)
            self.killed[self.life] = time.monotonic()
            self.worker_kills += 1
            await _until_gone(pid)
            await asyncio.sleep(0.05)  # what it had connected to is accepted by now, as of this life
            self.life += 1

    def read_log(self) -> None:
        """Nothing: all lives of one parent have one log, which is read when a round ends."""

    # --- rounds -----------------------------------------------------------------------------------------------------

    async def round(self) -> None:
        """Load, kill some, perhaps start all again, drain, count."""
        sent = await self._struck()
        if self.chance.random() < 0.5:
            await self._anew(self.chance.choice((WORKERS, WORKERS, 2, 1)))
        await self._settle(sent)

    async def finish(self) -> None:
        """Kill all under load, and have one worker deliver everything."""
        sent = await self._struck()
        await self._anew(1)
        await self._settle(sent)

    async def _struck(self) -> list[Sent]:
        sent: list[Sent] = []
        stop = asyncio.Event()
        clients = [asyncio.create_task(self._send_until(sent, stop)) for _ in range(SENDERS)]
        for _ in range(self.chance.randint(1, 3)):
            await asyncio.sleep(self.chance.uniform(0.05, 0.5))
            await self.kill_worker()
        await asyncio.sleep(self.chance.uniform(0.0, 0.3))
        stop.set()
        await asyncio.gather(*clients)
        return sent

    async def _send_until(self, sent: list[Sent], stop: asyncio.Event) -> None:
        """One client, which connects again when its worker is killed."""
        while not stop.is_set():
            await self.send_on(sent, stop)
            await asyncio.sleep(0.02)

    async def _anew(self, workers: int) -> None:
        await self.kill()
        self.workers = workers
        (self.directory / "relay.toml").write_text(self.configuration())
        while self.chance.random() < 0.3:
            await self.start(wait=False)
            await asyncio.sleep(self.chance.uniform(0.3, 3.0))
            await self.kill()
        await self.start()

    async def _settle(self, sent: list[Sent]) -> None:
        await self.drain()
        await asyncio.gather(*(receiver.bury(self.life) for receiver in self.receivers.values()))
        self.look()
        self.count(sent)

    def look(self) -> None:
        """See how mail came to the receivers, and how often it was logged as sent."""
        kills = sorted(self.killed.values())
        for name, receiver in self.receivers.items():
            for taken in receiver.taken:
                self.guarded += name == GUARDED
                if name == GUARDED and taken.guard != OWN:
                    self.trouble(f"weaker: {taken} came over {taken.guard or 'no TLS'}")
            most = most_at_a_time(receiver.stays, kills)
            receiver.stays.clear()
            self.most = max(self.most, most)
            if most > LIMIT:
                self.trouble(f"{most} transactions at a time at {name}")
        for (queue_id, person), times in self._sent_lines().items():
            if times > 1:
                self.trouble(f"{queue_id} to {person} was logged as sent {times} times")

    def _sent_lines(self) -> Counter[tuple[str, str]]:
        texts = [path.read_text(errors="replace") for path in self.directory.glob("life-*.log")]
        return Counter((found[1], found[2]) for text in texts for found in SENT.finditer(text))

    def judge(self, one: Sent, person: str, copies: list[Taken]) -> None:
        """What became of one recipient of one message."""
        if one.queue_id and not copies:
            self.figures.lost += 1
            self.trouble(f"lost: {one.queue_id} {one.token} to {person}")
        for earlier, later in pairwise(sorted(copies, key=lambda copy: copy.life)):
            if earlier.life >= later.life or earlier.followed:
                self.figures.duplicates_inexcusable += 1
                self.trouble(f"twice: {earlier} and {later} to {person}")
            else:
                self.figures.duplicates_reply_to_come += 1


def most_at_a_time(stays: list[Stay], kills: list[float]) -> int:
    """How many transactions there were at a time, at most; one whose client was cut off ended at the next kill.

    :param kills: in their order.
    """
    steps: list[tuple[float, int]] = []
    for stay in stays:
        killed = next((at for at in kills if at > stay.began), stay.ended) if stay.cut else stay.ended
        steps += [(stay.began, 1), (min(stay.ended, killed), -1)]
    return max(accumulate(step for _, step in sorted(steps)), default=0)


def _guard(directory: Path, name: str) -> Guard:
    now = datetime.now(UTC)
    certificate = pki.make(GUARDED, dates=(now - timedelta(days=1), now + timedelta(days=1)))
    (directory / name).mkdir()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate.write(directory / name))
    return Guard(name=name, context=context)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for task in tasks for word in task.read_text().split()]


async def _until_gone(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = await asyncio.to_thread(select.select, [descriptor], [], [], PATIENCE)
        assert ready, f"process {pid} did not end"
    finally:
        os.close(descriptor)


def run(rounds: int, seed: int, directory: Path) -> WorkersHarness:
    """Run a harness to its end."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of each session that ends in TLS
    harness = WorkersHarness(directory, seed)
    asyncio.run(harness.run(rounds))
    return harness


def main() -> None:
    """Run rounds and say what came of them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        harness = run(arguments.rounds, arguments.seed, Path(directory))
    more = f"kills of workers {harness.worker_kills}, most at a time {harness.most}, guarded {harness.guarded}"
    said = (*harness.troubles, json.dumps(asdict(harness.figures)), more)
    sys.stdout.write("".join(f"{line}\n" for line in said))
    sys.exit(bool(harness.troubles))


if __name__ == "__main__":
    main()
