"""A relay with a long queue, for benches: its directory, routes and queue, a client, and a sink that is every destination.

Everything is on loopback. Each destination has an address of 127.0.0.0/8 of its own; one listener, bound to the device ``lo``,
answers for all of them.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import apsw

from relay.queue.sqlite import SqliteStore
from tests.loopback import free_port

MOST_DESTINATIONS = 62_500
_TICKS = os.sysconf("SC_CLK_TCK")
_CLIENT = '{"address":"192.0.2.1","port":0,"name":"","helo":"","protocol":"","user":"","tls":["","",0,0]}'
_BODY = b"Subject: waiting\r\n\r\n" + b"A line of sixty octets, more or less, to fill the body up..\r\n" * 16
_DUE_MICROS = 1_600_000_000_000_000
_LATER_MICROS = 4_000_000_000_000_000


class Sink:
    """Takes whatever is sent to any address of this machine at its port, over loopback only, and counts."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        self._socket.bind(("0.0.0.0", 0))
        self.port: int = self._socket.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.taken = 0
        self.grew = asyncio.Condition()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, sock=self._socket, backlog=4096)

    async def stop(self) -> None:
        """Stop listening, and wait for what is open to be cut off."""
        if self._server is not None:
            self._server.close()
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
    """A relay's directory, its routes and its queue.

    :param sink: where all mail ends.
    :param destinations: how many domains, each with a route to an address of its own.
    :param smtp: lines of ``[smtp]`` besides.
    """

    def __init__(self, directory: Path, sink: Sink, destinations: int, smtp: str = "") -> None:
        assert destinations <= MOST_DESTINATIONS
        self.directory = directory
        self._destinations = destinations
        self._second = random.SystemRandom().randint(20, 240)
        self._sink_port = sink.port
        self.port = free_port()
        self.queue = directory / "state" / "queue.sqlite"
        self.configuration = directory / "relay.toml"
        self.process: subprocess.Popen[bytes] | None = None
        addresses = (f"127.{self._second}.{number // 250}.{number % 250 + 1}" for number in range(destinations))
        routes = (f"d{number}.test smtp:[{address}]:{sink.port}\n" for number, address in enumerate(addresses))
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
{smtp}
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
                f" {numbers} SELECT i, 0, '[' || {self._address_sql()} || ']:{self._sink_port}', 'waiting', {when} + i,"
                f" {attempts}, 0, 0 FROM n"
            )
            connection.execute(
                "INSERT INTO recipient (message, id, delivery, position, address, domain, notify, orcpt, state, reason)"
                f" {numbers} SELECT i, 1, 0, 0, 'u' || i || '@d' || (i % {self._destinations}) || '.test',"
                f" 'd' || (i % {self._destinations}) || '.test', 0, '', 'pending', {reason} FROM n"
            )
        connection.pragma("synchronous", 2)
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        connection.close()

    def _address_sql(self) -> str:
        return (
            f"'127.{self._second}.' || (i % {self._destinations} / 250) || '.' || (i % {self._destinations} % 250 + 1)"
        )

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

    def memory(self) -> tuple[float, float]:
        """MiB that are resident now, and the most that were."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        now, most = (int(status.partition(f"{name}:")[2].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
        return now, most

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
                domain = f"d{number % self._destinations}.test"
                writer.write(f"MAIL FROM:<s@source.test>\r\nRCPT TO:<u@{domain}>\r\nDATA\r\n".encode())
                for _ in range(3):
                    await reader.readline()
                writer.write(_BODY + b".\r\n")
                assert b"queued as" in await reader.readline()
            writer.close()

        await asyncio.gather(*(one(range(start, count, sessions)) for start in range(sessions)))
