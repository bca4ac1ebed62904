"""One run of the bench: smtp-source hands messages to a contender, and the sink says when the last one is there."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.contenders import DOMAIN, Contender
from tests.bench.sinks import PATIENCE, Sink
from tests.interop import servers
from tests.interop.postfix import library_path

CLIENTS = {"reused": ["-d"], "fresh": []}
"""How smtp-source uses connections: with -d it keeps them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the clients of a run do.

    :param messages: of all clients together.
    :param size: octets a message.
    :param sessions: parallel ones, of all clients together.
    :param destinations: domains; each has a client of its own.
    """

    messages: int
    size: int
    sessions: int
    destinations: int = 1


@dataclass(slots=True)
class Score:
    """What a contender did, one figure a run.

    :param rate: messages a second, from the start of the clients to the sink's last answer.
    :param processor: seconds a message, of all its processes.
    :param memory: MiB at the end of the run.
    :param p50: seconds from arrival to delivery, from its log; Postfix and we round to two places.
    """

    rate: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float | list[float]]:
        """Medians, the highest for memory, and the rates of the runs."""
        return {
            "messages_per_second": round(statistics.median(self.rate), 1),
            "runs": [round(one, 1) for one in self.rate],
            "processor_us_per_message": round(1e6 * statistics.median(self.processor)),
            "memory_mib": round(max(self.memory), 1),
            "delay_p50_ms": round(1000 * statistics.median(self.p50)),
            "delay_p99_ms": round(1000 * statistics.median(self.p99)),
        }


def measure(sink: Sink, contender: Contender, score: Score, run: str, load: Load) -> float:
    """Add a run to a score; its seconds."""
    before, line = contender.processor_seconds(), len(contender.process.lines())
    seconds, messages = one_run(sink, contender, run, load)
    delays = until_logged(contender, line, messages)
    score.rate.append(messages / seconds)
    score.processor.append((contender.processor_seconds() - before) / messages)
    score.memory.append(contender.memory_mib())
    score.p50.append(statistics.median(delays))
    score.p99.append(delays[int(len(delays) * 0.99)])
    return seconds


def until_logged(contender: Contender, line: int, messages: int) -> list[float]:
    """The delays of a run's messages, ascending, as soon as all of them are logged."""
    deadline = time.monotonic() + PATIENCE
    while len(delays := contender.delays(line)) < messages:
        assert time.monotonic() < deadline, f"{contender.name} logged {len(delays)} of {messages} deliveries"
        time.sleep(0.05)
    return sorted(delays)


def one_run(sink: Sink, contender: Contender, run: str, load: Load) -> tuple[float, int]:
    """Seconds from the start of the clients to the sink's answer to the last message, and how many there were.

    :param run: how the clients use connections, and which run it is: ``reused-1``.
    :raises AssertionError: if not all messages arrive.
    """
    each = max(1, load.messages // load.destinations)
    sessions = max(1, load.sessions // load.destinations)
    name = f"{contender.name}-{run}"
    program, options = str(servers.find("smtp-source")), CLIENTS[run.partition("-")[0]]
    begin = time.monotonic()
    running = [
        subprocess.Popen(
            [
                *(program, *options, "-s", str(sessions), "-m", str(each), "-l", str(load.size)),
                *("-f", f"{name}.{each * load.destinations}@client.test", "-t", f"user@d{number}.{DOMAIN}"),
                str(contender.endpoint),
            ],
            env={**os.environ, **library_path(servers.find("smtp-source"))},
            stdout=subprocess.DEVNULL,
        )
        for number in range(load.destinations)
    ]
    for process in running:
        assert process.wait(PATIENCE) == 0, f"smtp-source to {contender.name} failed; see above"
    return sink.done(name, each * load.destinations) - begin, each * load.destinations


def disk_sync_seconds(directory: Path, times: int = 200) -> float:
    """Median time to append 4 KiB to a file and sync it: what a durable queue pays at least once a commit."""
    taken = []
    with (directory / "sync").open("wb", buffering=0) as file:
        for _ in range(times):
            begin = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def choices(text: str, known: Sequence[str], refuse: Callable[[str], None]) -> list[str]:
    """The words of a list with commas; what is not known is refused with a sentence for people."""
    given = text.split(",")
    if unknown := set(given) - set(known):
        refuse(f"no such choice: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return given


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for docs/performance.md."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def print_table(
    title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], facts: str, result: Path | None
) -> None:
    """Print a table and what it was measured with: for people, or as docs/performance.md has it.

    :param result: the file with all of it; None for the document.
    """
    if result is None:
        sys.stdout.write(f"{markdown(heads, rows)}\n{facts}\n")
        return
    table = Table(*heads, title=title)
    for row in rows:
        table.add_row(*row)
    console = Console(width=max(130, Console().width))
    console.print(table)
    console.print(f"{facts}; written to {result}")
