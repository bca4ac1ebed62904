"""The front door under a crowd: what good clients notice of it, and how much memory the relay takes.

``python -m tests.bench.crowd`` (or ``make bench BENCH=tests.bench.crowd``) starts a relay, measures good clients alone, then with
2,000 idle connections, 200 that send an octet a second, and 100 messages of 25 MB at once, and once more when those are over.
It prints a table and writes bench-crowd-result.json, where the slowest messages are told stage by stage; exit status 0 if memory
and latency stayed within their bounds.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.loopback import free_port
from tests.relay_process import RelayProcess, Settings

RESULT = Path("bench-crowd-result.json")
MAX_RSS_MB = 400
MAX_RATIO = 3.0
LARGE = 25 * 1024 * 1024
# Niceness of good clients, and of those who make load, beside the relay's.
_AHEAD = -5
_BEHIND = 5
_LINE = b"x" * 76 + b"\r\n"
_SMALL = b"Subject: good\r\n\r\n" + _LINE * 50
_ENVELOPE = b"MAIL FROM:<%b@client.test>\r\nRCPT TO:<x@sink.test>\r\n"


def main() -> int:
    """Run the bench, or one of its client processes."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.crowd", description=__doc__)
    parser.add_argument("--idle", type=int, default=2000, help="idle connections (%(default)s)")
    parser.add_argument("--slow", type=int, default=200, help="connections that trickle (%(default)s)")
    parser.add_argument("--large", type=int, default=100, help="messages of 25 MB at once (%(default)s)")
    parser.add_argument("--rate", type=float, default=100.0, help="messages of good clients a second (%(default)s)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement (%(default)s)")
    parser.add_argument(
        "--keep", action="store_true", help="deliver nothing meanwhile: what the front door costs by itself"
    )
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to be used (the temporary directory)")
    parser.add_argument(
        "--niceness", type=int, default=0, help="of the relay; root gives -10 beside other work (%(default)s)"
    )
    parser.add_argument("--role", choices=("bench", "good", "large"), default="bench", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    match arguments.role:
        case "good":
            json.dump(asyncio.run(good_clients(arguments.port, arguments.rate)), sys.stdout)
            return 0
        case "large":
            json.dump(asyncio.run(large_messages(arguments.port, arguments.large)), sys.stdout)
            return 0
    return bench(arguments)


def bench(arguments: argparse.Namespace) -> int:
    """Start the relay and the crowd, and judge; SIGTERM ends all of them."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    directory = Path(tempfile.mkdtemp(prefix="dane-relay-crowd-", dir=arguments.directory))
    try:
        with sink(arguments.niceness) as port, RelayProcess(directory, settings(port, keep=arguments.keep)) as relay:
            set_apart(relay.process.pid, arguments.niceness)
            result = measure(relay, arguments)
    finally:
        shutil.rmtree(directory)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    show(result)
    return 0 if result["rss_mb"]["highest"] <= MAX_RSS_MB and result["p99_ratio"] <= MAX_RATIO else 1


def settings(sink_port: int, *, keep: bool) -> Settings:
    """A relay that takes the crowd in and hands everything to a sink, or finds nobody there and waits."""
    sink_port = free_port() if keep else sink_port
    return {
        "smtpd": {"connection_limit": 5000, "message_size_limit": "50MiB"},
        "smtp": {"relayhost": [f"[127.0.0.1]:{sink_port}"], "tls_security_level": "may"},
        "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
    }


def measure(relay: RelayProcess, arguments: argparse.Namespace) -> dict[str, Any]:
    """Good clients alone, within the crowd, and alone again."""
    pid = relay.process.pid
    memory = Memory(pid)
    good_run(relay.port, arguments, 3.0)  # what the relay does but once
    memory.mark("before")
    alone = good_run(relay.port, arguments, arguments.seconds)
    memory.mark("good clients")
    with crowd(relay.port, arguments.idle, arguments.slow):
        memory.mark("idle and slow clients too")
        quiet = good_run(relay.port, arguments, arguments.seconds)
        began = time.monotonic()
        large = start("large", relay.port, arguments)
        busy_clients = start("good", relay.port, arguments)
        taken = json.loads(large.communicate(timeout=280)[0])
        seconds = time.monotonic() - began
        busy = stop(busy_clients)
        memory.mark("large messages too")
    again = good_run(relay.port, arguments, arguments.seconds)
    memory.mark("after")
    return {
        "what": "good clients beside idle, slow and large ones",
        "delivered meanwhile": not arguments.keep,
        "idle": arguments.idle,
        "slow": arguments.slow,
        "offered_a_second": arguments.rate,
        "large": arguments.large,
        "large_taken": taken,
        "large_seconds": round(seconds, 1),
        "good": {"alone": alone, "idle and slow": quiet, "all": busy, "after": again},
        "p99_ratio": round(busy["p99_ms"] / alone["p99_ms"], 2),
        "rss_mb": {**memory.marks, "highest": memory.stop()},
    }


# --- clients --------------------------------------------------------------------------------------------------------


def start(role: str, port: int, arguments: argparse.Namespace) -> subprocess.Popen[str]:
    """A client process, apart from this one so that neither waits for the other."""
    options = ["--port", str(port), "--rate", str(arguments.rate), "--large", str(arguments.large)]
    command = [sys.executable, "-m", "tests.bench.crowd", "--role", role, *options]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    atexit.register(process.kill)  # does nothing to one that has ended
    set_apart(process.pid, arguments.niceness + (_AHEAD if role == "good" else _BEHIND))
    return process


def set_apart(pid: int, niceness: int) -> None:
    """Let a process, the first of its session, stand for a machine of its own as far as the scheduler can do that: who measures
    does not wait for a processor that others have, and who makes load takes none from the relay."""
    with contextlib.suppress(OSError):  # ahead of others goes root only
        os.setpriority(os.PRIO_PROCESS, pid, niceness)
        Path(f"/proc/{pid}/autogroup").write_text(str(niceness))  # where there is one, it counts for the session


def good_run(port: int, arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Good clients for so long."""
    clients = start("good", port, arguments)
    time.sleep(seconds)
    return stop(clients)


def stop(clients: subprocess.Popen[str]) -> dict[str, Any]:
    """End good clients; what they measured."""
    out, _ = clients.communicate(timeout=60)  # closes their standard input, which tells them
    found: dict[str, Any] = json.loads(out)
    return found


async def good_clients(port: int, rate: float) -> dict[str, Any]:
    """Send small messages, each over a connection of its own, at a rate that does not wait for answers, until standard
    input is closed. A message's time runs from when its connection is begun; how late that is, is this process's own affair, and
    told as a stage."""
    loop = asyncio.get_running_loop()
    over = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    messages: list[dict[str, float]] = []
    first = loop.time()

    async def message(due: float) -> None:
        spans: dict[str, float] = {}
        began = note(spans, "(begun late)", due, loop.time())
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        connected = note(spans, "connect", began, loop.time())
        await expect(reader, b"220")
        last = note(spans, "greeting", connected, loop.time())
        for stage, said, code in (
            ("EHLO", b"EHLO good.test\r\n", b"250"),
            ("MAIL", _ENVELOPE % b"good", b"250"),
            ("RCPT", b"", b"250"),
            ("DATA", b"DATA\r\n", b"354"),
            ("content", _SMALL + b".\r\n", b"250"),
        ):
            writer.write(said)
            await expect(reader, code)
            last = note(spans, stage, last, loop.time())
        messages.append({"began": began - first, "took": last - began, **spans})
        writer.write(b"QUIT\r\n")
        await expect(reader, b"221")
        writer.close()

    async with asyncio.TaskGroup() as group:
        due = loop.time()
        while not over.is_set():
            group.create_task(message(due))
            due += 1 / rate
            await asyncio.sleep(due - loop.time())
    stages = {name: figures([one[name] for one in messages]) for name in messages[0] if name not in {"began", "took"}}
    slowest = sorted(messages, key=lambda one: one["took"], reverse=True)[: max(1, len(messages) // 100)]
    return {
        **figures([one["took"] for one in messages]),
        "median_ms_of_stages": {name: found["median_ms"] for name, found in stages.items()},
        "p99_ms_of_stages": {name: found["p99_ms"] for name, found in stages.items()},
        "slowest_ms": [{name: round(1000 * span, 1) for name, span in one.items()} for one in slowest],
    }


def note(spans: dict[str, float], stage: str, begin: float, end: float) -> float:
    """Take note of how long a stage of a message took; returns its end."""
    spans[stage] = end - begin
    return end


def figures(times: list[float]) -> dict[str, float]:
    """What is told of some spans of time, in seconds."""
    times = sorted(times)
    return {
        "messages": len(times),
        "median_ms": round(1000 * statistics.median(times), 1),
        "p99_ms": round(1000 * times[int(len(times) * 0.99)], 1),
        "most_ms": round(1000 * times[-1], 1),
    }


async def expect(reader: asyncio.StreamReader, code: bytes) -> None:
    """Read one whole reply, which must be this one."""
    while True:
        line = await reader.readuntil(b"\n")
        assert line.startswith(code), line
        if line[3:4] == b" ":
            return


async def large_messages(port: int, count: int) -> dict[str, int]:
    """Send large messages at once; how many were taken, and what the others heard."""
    content = b"Subject: large\r\n\r\n" + _LINE * (LARGE // len(_LINE))

    async def client() -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await expect(reader, b"220")
        for said, code in ((b"EHLO large.test\r\n", b"250"), (_ENVELOPE % b"large", b"250"), (b"", b"250")):
            writer.write(said)
            await expect(reader, code)
        writer.write(b"DATA\r\n")
        await expect(reader, b"354")
        for place in range(0, len(content), 262_144):
            writer.write(content[place : place + 262_144])
            await writer.drain()
        writer.write(b".\r\n")
        reply = (await reader.readline())[:9].decode()
        writer.close()
        return reply

    replies = await asyncio.gather(*(client() for _ in range(count)))
    return {reply: replies.count(reply) for reply in sorted(set(replies))}


@contextlib.contextmanager
def crowd(port: int, idle: int, slow: int) -> Iterator[None]:
    """Connections that are only there, and connections that send an octet a second."""
    sockets = []
    for _ in range(idle + slow):
        peer = socket.create_connection(("127.0.0.1", port), timeout=60)
        peer.recv(1000)
        peer.sendall(b"EHLO crowd.test\r\n")
        peer.recv(1000)
        sockets.append(peer)
    trickling = sockets[idle:]
    for number, peer in enumerate(trickling):  # half of them in a command, half in a content
        if number % 2:
            peer.sendall(_ENVELOPE % b"slow")
            peer.recv(1000)
            peer.sendall(b"DATA\r\n")
            peer.recv(1000)
    over = threading.Event()

    def trickle() -> None:
        while not over.wait(1.0):
            for peer in trickling:
                with contextlib.suppress(OSError):
                    peer.send(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for peer in sockets:
            peer.close()


@contextlib.contextmanager
def sink(niceness: int = 0) -> Iterator[int]:
    """A receiver of everything, in a process of its own; gives its port."""
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.swallow", str(port)]
    with subprocess.Popen(command, start_new_session=True) as process:
        set_apart(process.pid, niceness + _BEHIND)
        try:
            for _ in range(600):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()


# --- figures --------------------------------------------------------------------------------------------------------


class Memory:
    """The resident memory of a process, looked at ten times a second."""

    def __init__(self, pid: int) -> None:
        self.marks: dict[str, float] = {}
        self._file = Path(f"/proc/{pid}/statm")
        self._highest = 0.0
        self._recent = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            resident = int(self._file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
            self._highest = max(self._highest, resident)
            self._recent = max(self._recent, resident)

    def mark(self, name: str) -> None:
        """Name the highest value since the last mark."""
        time.sleep(0.3)
        self.marks[name], self._recent = round(self._recent), 0.0

    def stop(self) -> float:
        """End, and give the highest of all, in MB."""
        self._over.set()
        self._thread.join()
        return round(self._highest)


def show(result: dict[str, Any]) -> None:
    """Print the figures as a table."""
    table = Table(
        title=f"{result['idle']} idle, {result['slow']} slow clients, {result['large']} messages of 25 MB at once"
    )
    for heading in ("beside good clients", "messages", "median ms", "p99 ms", "longest ms", "p99 ms of each stage"):
        table.add_column(heading)
    for name, found in result["good"].items():
        stages = ", ".join(f"{stage} {span}" for stage, span in found["p99_ms_of_stages"].items())
        table.add_row(name, *(str(found[key]) for key in ("messages", "median_ms", "p99_ms", "most_ms")), stages)
    console = Console()
    console.print(table)
    console.print(f"large messages: {result['large_taken']} in {result['large_seconds']} s")
    console.print(f"p99 within the crowd / alone: {result['p99_ratio']}; resident memory, MB: {result['rss_mb']}")


if __name__ == "__main__":
    sys.exit(main())
