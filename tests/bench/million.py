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
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.backlog import Arena, Sink

DESTINATIONS = 1_000
RESULT = Path("bench-million-result.json")


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one length of the queue; seconds, MiB and microseconds."""

    messages: int
    database_mib: float
    greeting_s: float
    first_delivery_s: float
    deliver_cpu_us: float
    deliver_peak_mib: float
    idle_greeting_s: float
    memory_mib: float
    accept_deliver_cpu_us: float
    summary_s: float
    list_domain_s: float
    list_rcpt_s: float
    list_age_s: float
    backup_s: float


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
    deliver_peak = arena.memory()[1]
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
    memory = arena.memory()[1]
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
        deliver_peak_mib=deliver_peak,
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
    sink = Sink()
    arena = Arena(directory, sink, DESTINATIONS)
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
