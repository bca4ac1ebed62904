"""What a long queue costs: 10,000, 100,000 and 1,000,000 messages for 1,000 destinations.

``make bench BENCH=tests.bench.million``; ``BENCH_ARGS="--sizes 10000 100000"`` for other lengths. For each length:

* everything due: from the start of the process to its greeting, to the first delivery, and the CPU of each of the next
  deliveries (the relay's own, from /proc);
* nothing due: memory, the CPU of taking and delivering one message more, ``queue summary``, ``queue list`` with a filter,
  and a backup.

Everything is on loopback: 1,000 addresses of 127.0.0.0/8, one for each destination, and a sink that takes all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import apsw
from rich.console import Console
from rich.table import Table

from relay.queue.sqlite import SqliteStore
from tests.loopback import free_port

DESTINATIONS = 1_000
RESULT = Path("bench-million-result.json")
_TICKS = os.sysconf("SC_CLK_TCK")
_CLIENT = '{"address":"192.0.2.1","port":0,"name":"","helo":"","protocol":"","user":"","tls":["","",0,0]}'
_BODY = b"Subject: waiting\r\n\r\n" + b"A line of sixty octets, more or less, to fill the body up..\r\n" * 16
_DUE_MICROS = 1_600_000_000_000_000
_LATER_MICROS = 4_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one length of the queue; seconds, MiB and microseconds."""

    messages: int
    database_mib: float
    greeting_s: float
    first_delivery_s: float
    deliver_cpu_us: float
    idle_greeting_s: float
    memory_mib: float
    accept_deliver_cpu_us: float
    summary_s: float
    list_domain_s: float
    list_rcpt_s: float
    list_age_s: float
    backup_s: float


class Sink:
    """Takes whatever is sent to any of its addresses, and counts."""

    def __init__(self, addresses: Sequence[str], port: int) -> None:
        self._addresses = addresses
        self._port = port
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self.taken = 0
        self.grew = asyncio.Condition()

    async def start(self) -> None:
        """Listen on all of them."""
        self._servers = [
            await asyncio.start_server(self._serve, address, self._port, backlog=100) for address in self._addresses
        ]

    async def stop(self) -> None:
        """Stop listening, and wait for what is open to be cut off."""
        for server in self._servers:
            server.close()
        for writer in self._writers:
            writer.transport.abort()
        while self._writers:
            await asyncio.sleep(0.01)

    async def until(self, count: int) -> None:
        """Wait until so many messages were taken."""
        async with self.grew:
            await self.grew.wait_for(lambda: self.taken >= count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            writer.write(b"220 sink.test ESMTP\r\n")
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    writer.write(b"250-sink.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
                elif verb == b"DATA":
                    writer.write(b"354 go on\r\n")
                    await reader.readuntil(b"\r\n.\r\n")
                    writer.write(b"250 2.0.0 Ok\r\n")
                    async with self.grew:
                        self.taken += 1
                        self.grew.notify_all()
                else:
                    writer.write(b"250 2.0.0 Ok\r\n" if verb != b"QUIT" else b"221 2.0.0 bye\r\n")
                    if verb == b"QUIT":
                        break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)


class Arena:
    """A relay's directory, its routes and its queue."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        first = random.SystemRandom().randint(20, 240)
        self.addresses = [f"127.{first}.{number // 250}.{number % 250 + 1}" for number in range(DESTINATIONS)]
        self.sink_port = free_port(self.addresses[0], self.addresses[-1])
        self.port = free_port()
        self.queue = directory / "state" / "queue.sqlite"
        self.configuration = directory / "relay.toml"
        self.process: subprocess.Popen[bytes] | None = None
        routes = (
            f"d{number}.test smtp:[{self.addresses[number]}]:{self.sink_port}\n" for number in range(DESTINATIONS)
        )
        (directory / "transport").write_text("".join(routes))
        (directory / "state").mkdir()
        self.configuration.write_text(
            f"""
[relay]
myhostname = "relay.test"
state_dir = "state"
[smtpd]
listen = ["127.0.0.1:{self.port}"]
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
maximal_queue_lifetime = "3650d"
[log]
file = "relay.log"
"""
        )

    async def fill(self, messages: int, *, due: bool) -> None:
        """A queue of so many messages, taking turns between the destinations."""
        for old in (self.directory / "state").glob("queue.sqlite*"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        store = await SqliteStore.open(self.queue, clock=lambda: datetime.now(UTC))
        await store.close()
        connection = apsw.Connection(str(self.queue))
        connection.execute("PRAGMA synchronous = OFF; PRAGMA cache_size = -200000")
        numbers = f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {messages})"
        when = _DUE_MICROS if due else _LATER_MICROS
        attempts, reason = (0, "''") if due else (1, "'no answer'")
        with connection:
            connection.execute(
                "INSERT INTO message (id, queue_id, sender, domain, arrived_at, size, eight_bit, body_type, smtputf8, ret,"
                f" envid, requiretls, client) {numbers} SELECT i, 'B' || printf('%08d', i), 's@source.test', 'source.test',"
                f" {_DUE_MICROS} + i, {len(_BODY)}, 0, '7BIT', 0, '', '', 0, ? FROM n",
                (_CLIENT,),
            )
            connection.execute(f"INSERT INTO body (message, content, spool) {numbers} SELECT i, ?, '' FROM n", (_BODY,))
            connection.execute(
                f"INSERT INTO delivery (message, number, destination, state, next_attempt, attempts, lease, lease_until)"
                f" {numbers} SELECT i, 0, '[' || {self._address_sql()} || ']:{self.sink_port}', 'waiting', {when} + i,"
                f" {attempts}, 0, 0 FROM n"
            )
            connection.execute(
                "INSERT INTO recipient (message, id, delivery, position, address, domain, notify, orcpt, state, reason)"
                f" {numbers} SELECT i, 1, 0, 0, 'u' || i || '@d' || (i % {DESTINATIONS}) || '.test',"
                f" 'd' || (i % {DESTINATIONS}) || '.test', 0, '', 'pending', {reason} FROM n"
            )
        connection.pragma("synchronous", 2)
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        connection.close()

    def _address_sql(self) -> str:
        first = self.addresses[0].split(".")[1]
        return f"'127.{first}.' || (i % {DESTINATIONS} / 250) || '.' || (i % {DESTINATIONS} % 250 + 1)"

    # --- the relay --------------------------------------------------------------------------------------------------

    async def start(self) -> float:
        """Start the relay; seconds until it greets."""
        began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "relay", "serve", "-c", str(self.configuration)], start_new_session=True
        )
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                assert self.process.poll() is None, "the relay ended"
                await asyncio.sleep(0.01)
                continue
            writer.close()
            return time.monotonic() - began

    def kill(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory(self) -> float:
        """MiB that are its own now."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def command(self, *words: str) -> float:
        """Seconds that a command takes, most of one of them for Python to start."""
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "relay", "queue", *words, "-c", str(self.configuration)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return time.monotonic() - began

    async def send(self, count: int, sessions: int = 10) -> None:
        """Hand in messages, each for the next destination."""

        async def one(numbers: Sequence[int]) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            await reader.readline()
            writer.write(b"EHLO bench.test\r\n")
            while not (await reader.readline()).startswith(b"250 "):
                pass
            for number in numbers:
                domain = f"d{number % DESTINATIONS}.test"
                writer.write(f"MAIL FROM:<s@source.test>\r\nRCPT TO:<u@{domain}>\r\nDATA\r\n".encode())
                for _ in range(3):
                    await reader.readline()
                writer.write(_BODY + b".\r\n")
                assert b"queued as" in await reader.readline()
            writer.close()

        await asyncio.gather(*(one(range(start, count, sessions)) for start in range(sessions)))


async def measure(arena: Arena, sink: Sink, messages: int, warm: int, counted: int) -> Figures:
    """All figures of one length."""
    await arena.fill(messages, due=True)
    taken = sink.taken
    began = time.monotonic()
    greeting = await arena.start()
    await sink.until(taken + 1)
    first = time.monotonic() - began
    await sink.until(taken + warm)
    cpu, counted_from = arena.cpu(), sink.taken
    await sink.until(taken + warm + counted)
    deliver = (arena.cpu() - cpu) / (sink.taken - counted_from)
    arena.kill()

    await arena.fill(messages, due=False)
    idle_greeting = await arena.start()
    taken = sink.taken
    await arena.send(warm)
    await sink.until(taken + warm)
    cpu = arena.cpu()
    await arena.send(counted)
    await sink.until(taken + warm + counted)
    accept_deliver = (arena.cpu() - cpu) / counted
    memory = arena.memory()
    target = arena.directory / "backup.tar"

    def timed(*words: str) -> float:
        return statistics.median(arena.command(*words) for _ in range(3))

    summary, domain, rcpt = timed("summary"), timed("list", "domain:d500.test"), timed("list", "rcpt:u500@d500.test")
    age = timed("list", "age<1s")
    backup = arena.command("backup", str(target))
    target.unlink()
    size = arena.queue.stat().st_size / 1048576
    arena.kill()
    return Figures(
        messages=messages,
        database_mib=size,
        greeting_s=greeting,
        first_delivery_s=first,
        deliver_cpu_us=deliver * 1e6,
        idle_greeting_s=idle_greeting,
        memory_mib=memory,
        accept_deliver_cpu_us=accept_deliver * 1e6,
        summary_s=summary,
        list_domain_s=domain,
        list_rcpt_s=rcpt,
        list_age_s=age,
        backup_s=backup,
    )


async def run(sizes: Sequence[int], directory: Path, warm: int, counted: int) -> list[Figures]:
    """Measure each length in turn."""
    arena = Arena(directory)
    sink = Sink(arena.addresses, arena.sink_port)
    await sink.start()
    found = []
    try:
        for size in sizes:
            found.append(await measure(arena, sink, size, warm, counted))
            sys.stdout.write(f"{found[-1]}\n")
    finally:
        arena.kill()
        await sink.stop()
    return found


def main() -> None:
    """Run the bench; writes a table and bench-million-result.json."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.million", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--warm", type=int, default=500, help="deliveries before counting begins (%(default)s)")
    parser.add_argument("--counted", type=int, default=3_000, help="deliveries that are counted (%(default)s)")
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to be used (the temporary directory)")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="dane-relay-million-", dir=arguments.directory))
    try:
        found = asyncio.run(run(arguments.sizes, directory, arguments.warm, arguments.counted))
    finally:
        shutil.rmtree(directory)
    RESULT.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    table = Table()
    table.add_column("")
    for one in found:
        table.add_column(f"{one.messages:,}", justify="right")
    for name in list(asdict(found[0]))[1:]:
        table.add_row(name, *(f"{getattr(one, name):,.2f}" for one in found))
    Console().print(table)


if __name__ == "__main__":
    main()
