"""What a client's session costs by itself: the front end alone, with its log and metrics, over a store that keeps nothing.

``make bench BENCH=tests.bench.door``: messages from smtp-source, with a connection for each and with connections that are kept,
in turn; the front end's processor time for one, of its own (user) and in the kernel (system). Prints a table and writes
bench-door-result.json. What is left of a message's cost in ``tests.bench`` is the queue, the delivery, and what they make of
the front end's caches.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import uvloop

from relay.lanes import Lanes
from relay.log.metrics import Metrics
from relay.log.postfix import PostfixLines
from relay.log.sink import Sink, compose
from relay.mail.envelope import Message, new_queue_id
from relay.mail.names import Domain
from relay.queue.store import NOBODY, NewMessage, QueueStore, Taker
from relay.sasl.users import Users
from relay.smtpd.authentication import Authenticator
from relay.smtpd.conversation import Service
from relay.smtpd.intake import Intake, IntakeOptions
from relay.smtpd.options import SmtpdOptions
from relay.smtpd.server import SmtpServer
from relay.smtpd.session import Session
from tests.bench.runs import CLIENTS, print_table
from tests.interop import servers
from tests.interop.postfix import library_path

RESULT = Path("bench-door-result.json")
HEADS = ("clients' connections", "CPU a message", "user", "system", "runs")
HOSTNAME = "relay.test"
WARM_UP = 300
# Seconds between two writes of the log, as in the relay.
_LOG_LAG = 0.005


class Nowhere:
    """A store that reads a message to its end and answers in the next turn of the loop, as a commit would."""

    refusal = None

    async def put(self, message: NewMessage, body: AsyncIterator[bytes], taker: Taker = NOBODY) -> Message:
        """Take one and forget it."""
        size = 0
        async for chunk in body:
            size += len(chunk)
        await asyncio.sleep(0)
        return Message(queue_id=message.queue_id, envelope=message.envelope, size=size, arrived_at=message.arrived_at)


async def serve() -> None:
    """Say the port, then answer each line of standard input with the processor time up to now, until it ends."""
    loop = asyncio.get_running_loop()
    options = SmtpdOptions(hostname=Domain(HOSTNAME))
    words, serial = PostfixLines(hostname=HOSTNAME, pid=os.getpid()), itertools.count()
    later = functools.partial(loop.call_later, _LOG_LAG)
    sink = Sink(words, Path(os.devnull), clock=lambda: datetime.now(UTC), later=later)
    observe = compose(sink.observe, Metrics("bench").observe)
    nobody: Users | None = None
    intake = Intake(
        cast(QueueStore, Nowhere()),
        options=IntakeOptions(hostname=HOSTNAME),
        destination_of=lambda address, sender: str(address.domain),
        clock=lambda: datetime.now(UTC),
        new_id=lambda: new_queue_id(time.time_ns() // 1000, next(serial)),
        observe=observe,
        accepted=lambda destinations: None,
    )
    service = Service(
        options=options,
        accept=intake.accept,
        refusal=intake.refusal,
        observe=observe,
        authenticator=Authenticator(lambda: nobody, observe=observe),
        lanes=Lanes(),
    )
    server = SmtpServer([("127.0.0.1", 0)], functools.partial(Session, service=service), options)
    await server.start()
    sys.stdout.write(f"{server.addresses[0][1]}\n")
    sys.stdout.flush()
    while await loop.run_in_executor(None, sys.stdin.readline):
        spent = os.times()
        sys.stdout.write(f"{spent.user} {spent.system}\n")
        sys.stdout.flush()
    await server.close(grace=0)


class Door:
    """The front end in a process of its own."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.bench.door", "--serve"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._port = int(self._said())

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def _spent(self) -> tuple[float, float]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        user, system = map(float, self._said().split())
        return user, system

    def run(self, clients: str, messages: int, size: int, sessions: int) -> tuple[float, float]:
        """Have messages sent; user and system time for one, in microseconds."""
        program = servers.find("smtp-source")
        counts = ("-s", str(sessions), "-m", str(messages), "-l", str(size))
        addresses = ("-f", "a@client.test", "-t", "user@d0.bench.test", f"127.0.0.1:{self._port}")
        environment = {**os.environ, **library_path(program)}
        before = self._spent()
        subprocess.run([str(program), *CLIENTS[clients], *counts, *addresses], env=environment, check=True)
        after = self._spent()
        return 1e6 * (after[0] - before[0]) / messages, 1e6 * (after[1] - before[1]) / messages

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> int:
    """Run the bench."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.door", description=__doc__)
    parser.add_argument("--messages", type=int, default=2000, help="messages a run (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each, in turn (%(default)s)")
    parser.add_argument("--size", type=int, default=10240, help="octets a message (%(default)s)")
    parser.add_argument("--sessions", type=int, default=20, help="parallel client sessions (%(default)s)")
    parser.add_argument("--markdown", action="store_true", help="print the table as docs/performance.md has it")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        uvloop.run(serve())
        return 0
    try:
        servers.find("smtp-source")
    except servers.UnavailableError as error:
        sys.stderr.write(f"make bench: {error}\n")
        return 1
    found: dict[str, list[tuple[float, float]]] = {clients: [] for clients in CLIENTS}
    door = Door()
    try:
        for clients in CLIENTS:
            door.run(clients, WARM_UP, arguments.size, arguments.sessions)
        for _ in range(arguments.runs):
            for clients, runs in found.items():
                runs.append(door.run(clients, arguments.messages, arguments.size, arguments.sessions))
    finally:
        door.close()
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    facts = f"{arguments.runs} runs of {arguments.messages} messages of {arguments.size} octets, {arguments.sessions} sessions"
    rows = [_row(clients, runs) for clients, runs in found.items()]
    print_table("the front end alone", HEADS, rows, facts, None if arguments.markdown else RESULT)
    return 0


def _row(clients: str, runs: list[tuple[float, float]]) -> tuple[str, ...]:
    both, user, system = [sum(one) for one in runs], [one[0] for one in runs], [one[1] for one in runs]
    medians = (f"{statistics.median(series):.0f} us" for series in (both, user, system))
    return clients, *medians, ", ".join(f"{one:.0f}" for one in both)


if __name__ == "__main__":
    raise SystemExit(main())
