"""Half an hour of mail to receivers that go up and down: does memory, or anything else that a relay holds, grow?

``make bench BENCH=tests.bench.soak BENCH_ARGS="--minutes 30 --rate 100"``. Clients that keep their connection, that open one
for each message and that use STARTTLS hand in small and large messages at a steady rate; twenty destinations with DANE change
between up, down, busy, silent, without STARTTLS and cutting sessions off (tests/bench/churn.py); what is deferred is tried
again after seconds. Every ten seconds it notes memory, threads, file descriptors, tasks, open sessions and the size of the
database's log. Every few minutes the load ends and all receivers behave; the queue must run empty, and when sessions have ended
too, the relay *at rest* must hold what it held at the rests before: a leak shows there, whatever the load was. Writes
bench-soak-result.json; exit status 0 if nothing grew and nothing was left over.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from relay.lab.ca import Authority, CertificateKind, tlsa_rdata
from tests.bench.client import Client, RefusedError
from tests.bench.trend import Trend, trend
from tests.interop import servers
from tests.interop.nameservers import Endpoint, name_service
from tests.interop.zones import Zone, sign_tree
from tests.loopback import LoopbackNetwork, free_port
from tests.relay_process import RelayProcess, Settings
from tests.watched_process import WatchedProcess

RESULT = Path("bench-soak-result.json")
DOMAIN = "soak.test"
SKIPPED = 2
"""Rests that do not count: caches fill, and the allocator is laid out for the most that has been under way at a time."""
AT_ONCE = 60
KEPT = 8
DRAIN_PATIENCE = 300.0
COUNTED_ANEW, SESSIONS_END = 5.5, 10.0
"""Seconds: the desk counts the queue every five; sessions are kept for two, and what is left after ten is left for good."""
SIZES = (700, 4_000, 10_240, 30_000)
LARGE, ONE_IN_LARGE = 2_000_000, 500
ONE_IN_NOBODY = 50
_METRIC = re.compile(r"^dane_relay_(\w+) (\S+)$", re.MULTILINE)
# name: how much more at the later rests than at the earlier ones is not called growth
TOLERANCES = {
    "pss_mib": 6.0,
    "rss_mib": 6.0,
    "private_mib": 6.0,
    "threads": 2.0,
    "descriptors": 3.0,
    "tasks": 3.0,
    "wal_mib": 4.0,
}


@dataclass(frozen=True, slots=True)
class Sample:
    """The relay at one moment.

    :param second: since the beginning.
    :param pss_mib: resident, what it shares divided among those that share it; private_mib is its alone.
    :param tasks: of its event loop, by ``/metrics``; queued are messages.
    """

    second: float
    pss_mib: float
    rss_mib: float
    private_mib: float
    threads: int
    descriptors: int
    tasks: int
    wal_mib: float
    database_mib: float
    clients: int
    queued: int
    accepted: int
    removed: int
    cpu_s: float


class Watch:
    """Takes samples of a relay."""

    def __init__(self, relay: RelayProcess, desk: Endpoint) -> None:
        self._relay = relay
        self._desk = desk
        self._began = time.monotonic()

    async def sample(self) -> Sample:
        """How it is now."""
        proc = Path(f"/proc/{self._relay.process.pid}")
        memory = dict(re.findall(r"^(\w+):\s+(\d+) kB", (proc / "smaps_rollup").read_text(), re.MULTILINE))
        fields = (proc / "stat").read_text().rpartition(")")[2].split()
        numbers = await self._metrics()
        state = self._relay.directory / "state"
        return Sample(
            second=round(time.monotonic() - self._began, 1),
            pss_mib=int(memory["Pss"]) / 1024,
            rss_mib=int(memory["Rss"]) / 1024,
            private_mib=(int(memory["Private_Clean"]) + int(memory["Private_Dirty"])) / 1024,
            threads=int(fields[17]),
            descriptors=len(os.listdir(proc / "fd")),
            tasks=int(numbers["tasks"]),
            wal_mib=size_mib(state / "queue.sqlite-wal"),
            database_mib=size_mib(state / "queue.sqlite"),
            clients=int(numbers["client_connections_open"]),
            queued=int(numbers["queue_messages"]),
            accepted=int(numbers["accepted_messages_total"]),
            removed=int(numbers["removed_messages_total"]),
            cpu_s=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        )

    async def _metrics(self) -> dict[str, float]:
        reader, writer = await asyncio.open_connection(self._desk.address, self._desk.port)
        writer.write(f"GET /metrics HTTP/1.0\r\nHost: {self._desk}\r\n\r\n".encode())
        text = (await reader.read()).decode()
        writer.transport.abort()
        return {name: float(value) for name, value in _METRIC.findall(text)}


def size_mib(file: Path) -> float:
    """A file's size in MiB, 0 if there is none."""
    return file.stat().st_size / 1048576 if file.exists() else 0.0


class Clients:
    """Hand in mail at a steady rate, come what may."""

    def __init__(self, relay: RelayProcess, destinations: int, seed: int) -> None:
        self._relay = relay
        self._chance = random.Random(seed)
        self._recipients = [f"d{number}.{DOMAIN}" for number in range(destinations)]
        self._contents = {size: content(size) for size in (*SIZES, LARGE)}
        self._kept: asyncio.Queue[Client] = asyncio.Queue()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE
        self.seen: Counter[str] = Counter()

    async def run(self, rate: float, seconds: float) -> None:
        """Offer so many a second for so long."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        until = due + seconds
        async with asyncio.TaskGroup() as group:
            while due < until:
                await self._room.acquire()
                group.create_task(self._one())
                due = max(due + 1 / rate, loop.time() - 1.0)  # a standstill is not made up for by a flood
                await asyncio.sleep(due - loop.time())
        while not self._kept.empty():
            await self._kept.get_nowait().quit()

    async def _one(self) -> None:
        how = self._chance.choices(("kept", "fresh", "tls"), (5, 4, 1))[0]
        name = "nobody" if self._chance.randrange(ONE_IN_NOBODY) == 0 else "user"
        size = LARGE if self._chance.randrange(ONE_IN_LARGE) == 0 else self._chance.choice(SIZES)
        recipient = f"{name}@{self._chance.choice(self._recipients)}"
        sender = f"sender@{self._chance.choice(self._recipients)}"  # whom the bounces go to
        client: Client | None = None
        try:
            if how == "kept" and not self._kept.empty():
                client = self._kept.get_nowait()
            else:
                tls = self._tls if how == "tls" else None
                client = await Client.connect(self._relay.address, self._relay.port, tls=tls)
            await client.send(sender, recipient, self._contents[size])
            self.seen[how] += 1
            if how == "kept" and self._kept.qsize() < KEPT:
                self._kept.put_nowait(client)
            elif self._chance.randrange(10):
                await client.quit()
            else:
                client.abort()  # as clients do that crash
        except (OSError, RefusedError) as error:
            self.seen[f"failed: {str(error)[:60]}"] += 1
            if client is not None:
                client.abort()
        finally:
            self._room.release()


def content(size: int) -> bytes:
    """A message of about that many octets."""
    line = b"A line of sixty octets, more or less, to fill the body up..\r\n"
    return b"Subject: soak\r\nFrom: <sender@soak.test>\r\n\r\n" + line * max(1, size // len(line))


@dataclass(frozen=True, slots=True)
class Soaked:
    """What was noted: under load, and at each rest."""

    loaded: list[Sample]
    rests: list[Sample]
    seen: Counter[str]


async def soak(relay: RelayProcess, desk: Endpoint, receivers: WatchedProcess, arguments: argparse.Namespace) -> Soaked:
    """Load and rest in turn."""
    watch, clients = Watch(relay, desk), Clients(relay, arguments.destinations, arguments.seed)
    found = Soaked([], [], clients.seen)
    for _ in range(arguments.rests):
        receivers.say("churn")
        load = asyncio.create_task(clients.run(arguments.rate, 60 * arguments.minutes / arguments.rests))
        while not load.done():
            await asyncio.wait([load], timeout=arguments.interval)
            found.loaded.append(await watch.sample())
            if len(found.loaded) % 6 == 1:
                tell("load", found.loaded[-1])
        await load
        receivers.say("calm")
        deadline = time.monotonic() + DRAIN_PATIENCE
        while (await watch.sample()).queued and time.monotonic() < deadline:
            await asyncio.sleep(COUNTED_ANEW)
        await asyncio.sleep(SESSIONS_END)
        found.rests.append(await watch.sample())
        tell("rest", found.rests[-1])
    return found


def tell(when: str, sample: Sample) -> None:
    """Say how it is going."""
    sys.stdout.write(f"{when} {line_of(sample)}\n")
    sys.stdout.flush()


def line_of(sample: Sample) -> str:
    """A sample for people."""
    return (
        f"{sample.second:6.0f} s: {sample.pss_mib:.1f} MiB, {sample.threads} threads, {sample.descriptors} descriptors, "
        f"{sample.tasks} tasks, log {sample.wal_mib:.1f} MiB, {sample.queued} queued, {sample.accepted} accepted"
    )


def main() -> int:
    """Run the soak."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="of load (%(default)s)")
    parser.add_argument("--rests", type=int, default=8, help="parts, each with a rest at its end (%(default)s)")
    parser.add_argument("--rate", type=float, default=100, help="messages a second (%(default)s)")
    parser.add_argument("--destinations", type=int, default=20, help="each with a host of its own (%(default)s)")
    parser.add_argument("--interval", type=float, default=10, help="seconds between samples (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of what is by chance (%(default)s)")
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to be used (the temporary directory)")
    parser.add_argument("--result", type=Path, default=RESULT, help="%(default)s")
    arguments = parser.parse_args()
    if arguments.rests < SKIPPED + 3:
        parser.error(f"--rests: {SKIPPED + 3} or more; the first {SKIPPED} do not count, and a trend needs three")
    directory = Path(tempfile.mkdtemp(prefix="dane-relay-soak-", dir=arguments.directory))
    directory.chmod(0o755)
    try:
        with ExitStack() as running:
            relay, desk, receivers = start(directory, arguments, running)
            soaked = asyncio.run(soak(relay, desk, receivers, arguments))
            status = relay.stop()
            receivers_saw = finish(receivers)
    except servers.UnavailableError as error:
        sys.stderr.write(f"make bench: {error}\n")
        return 1
    finally:
        shutil.rmtree(directory)
    found, last = trends(soaked.rests), soaked.rests[-1]
    result = {
        "what": "steady load, receivers that go up and down",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **{name: getattr(arguments, name) for name in ("minutes", "rests", "rate", "destinations", "seed")},
        "clients": dict(soaked.seen),
        "receivers": receivers_saw,
        "exit_status": status,
        "trends": {name: asdict(one) for name, one in found.items()},
        "at_rest": [asdict(one) for one in soaked.rests],
        "samples": [asdict(one) for one in soaked.loaded],
    }
    arguments.result.write_text(json.dumps(result, indent=1) + "\n")
    show(found, soaked, receivers_saw)
    left = any(one.queued for one in soaked.rests) or last.accepted == 0 or status
    return 1 if left or any(one.grows for one in found.values()) else 0


def start(
    directory: Path, arguments: argparse.Namespace, running: ExitStack
) -> tuple[RelayProcess, Endpoint, WatchedProcess]:
    """Name servers, receivers and the relay."""
    network = LoopbackNetwork()
    hosts = [network.address(20 + number) for number in range(arguments.destinations)]
    port = free_port(network.address(1), *hosts)
    resolver, name_server = (
        Endpoint(network.address(2), free_port(network.address(2))),
        Endpoint(network.address(1), port),
    )
    credential = Authority(directory, datetime.now(UTC)).issue(CertificateKind.GOOD, f"mx.{DOMAIN}")
    data = tlsa_rdata(3, 1, 1, credential.leaf)[3:].hex()
    records = [
        line
        for number, host in enumerate(hosts)
        for line in (
            f"d{number} IN MX 10 mx{number}",
            f"mx{number} IN A {host}",
            f"_{port}._tcp.mx{number} IN TLSA 3 1 1 {data}",
        )
    ]
    folders = {name: directory / name for name in ("dns", "relay")}
    for folder in folders.values():
        folder.mkdir()
    zones = [Zone("."), Zone("test."), Zone(f"{DOMAIN}.", records=records)]
    tree = sign_tree(zones, name_server.address, folders["dns"])
    running.enter_context(name_service(tree, name_server, (resolver,), folders["dns"]))
    command = [sys.executable, "-m", "tests.bench.churn", str(port), str(credential.pem_file), str(arguments.seed)]
    receivers = running.enter_context(WatchedProcess([*command, *hosts], log=directory / "churn.log", commands=True))
    receivers.wait_for("^ready$")
    desk = Endpoint("127.0.0.1", free_port())
    pem = str(credential.pem_file)
    settings: Settings = {
        "smtpd": {"tls_security_level": "may", "tls_cert_file": pem, "tls_key_file": pem},
        "smtp": {
            "port": port,
            "tls_security_level": "dane",
            "connect_timeout": "5s",
            **{f"{stage}_timeout": "5s" for stage in ("helo", "starttls", "mail", "rcpt", "data_init", "data_xfer")},
            "data_done_timeout": "10s",
        },
        "dns": {"nameservers": [str(resolver)]},
        "queue": {"minimal_backoff_time": "2s", "maximal_backoff_time": "10s", "transport_retry_time": "5s"},
        "http": {"listen": [str(desk)]},
        "log": {"file": str(directory / "mail.log")},  # not through this process, which would keep every line
    }
    return running.enter_context(RelayProcess(folders["relay"], settings)), desk, receivers


def finish(receivers: WatchedProcess) -> str:
    """End the receivers; what they saw."""
    receivers.end_input()
    return receivers.wait_for("^taken (.*)$")[1]


def trends(rests: Sequence[Sample]) -> dict[str, Trend]:
    """The trend of each figure over the rests that count."""
    counted = rests[SKIPPED:]
    times = [one.second for one in counted]
    return {
        name: trend(times, [float(getattr(one, name)) for one in counted], tolerance=tolerance)
        for name, tolerance in TOLERANCES.items()
    }


def show(found: dict[str, Trend], soaked: Soaked, receivers: str) -> None:
    """Print the tables."""
    table = Table("", "highest under load", "at the rests", "slope an hour", "grows")
    for name, one in found.items():
        highest = max(getattr(sample, name) for sample in soaked.loaded)
        rests = " ".join(f"{getattr(rest, name):.0f}" for rest in soaked.rests)
        table.add_row(name, f"{highest:.0f}", rests, f"{one.slope:.1f}", "YES" if one.grows else "no")
    console = Console(width=max(120, Console().width))
    console.print(table)
    last = soaked.rests[-1]
    console.print(
        f"{last.accepted} messages in {last.second:.0f} s, {1e6 * last.cpu_s / max(1, last.accepted):.0f} us of CPU each; "
        f"at most {max(one.queued for one in soaked.loaded)} queued; {last.queued} left at the end; receivers: {receivers}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
