"""Does a message cost more when many are queued, when they go to many destinations, or when the policy map is long?

``make bench BENCH=tests.bench.flat``; ``BENCH_ARGS="--series queued"`` for one of the three series. Of each point it measures
the relay's own CPU a message, and messages a second, of two things: taking mail and delivering it at once, and delivering what
is queued and due. In each series one thing grows and all else is the same; where destinations grow, each message has a session
of its own, since one can be kept only for a destination that gets more. Points take turns; medians, and ratios to the smallest.
Prints a table and writes bench-flat-result.json; exit status 0 if CPU a message is everywhere within a fifth, above or below, of
that of the first point of its series.

What shares a commit and a turn of the event loop is cheaper, so there are clients enough that the relay never waits for them. Of
what is due, 20 deliveries are under way at a time to one destination and 200 to many, as the relay comes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from tests.bench.backlog import Arena, Sink
from tests.bench.runs import choices, print_table

RESULT = Path("bench-flat-result.json")
FLAT = (0.80, 1.20)
SESSIONS = 40
HEADS = (
    "series",
    "",
    "taken and delivered: CPU",
    "ratio",
    "messages/s",
    "queued and due: CPU",
    "ratio",
    "messages/s",
    "most memory",
)


@dataclass(frozen=True, slots=True)
class Point:
    """One size of one thing.

    :param queued: messages in the queue; for the first measurement none of them is due, for the second all are.
    :param lines: of the policy map; each destination is in it.
    :param keep: whether sessions are kept for the next message.
    """

    series: str
    name: str
    queued: int = 2_000
    destinations: int = 100
    lines: int = 0
    keep: bool = True


POINTS = (
    Point("queued", "1,000", queued=1_000),
    Point("queued", "10,000", queued=10_000),
    Point("queued", "100,000", queued=100_000),
    Point("destinations", "1", queued=10_000, destinations=1, keep=False),
    Point("destinations", "100", queued=10_000, destinations=100, keep=False),
    Point("destinations", "10,000", queued=10_000, destinations=10_000, keep=False),
    Point("policy lines", "100", lines=100),
    Point("policy lines", "1,000,000", lines=1_000_000),
)
SERIES = tuple(dict.fromkeys(point.series.replace(" ", "-") for point in POINTS))


@dataclass(slots=True)
class Figures:
    """Of one point, one figure a run: microseconds of CPU a message, messages a second, MiB."""

    through_cpu: list[float] = field(default_factory=list)
    through_rate: list[float] = field(default_factory=list)
    due_cpu: list[float] = field(default_factory=list)
    due_rate: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Medians; the most for memory."""
        return {
            "through_cpu_us": round(statistics.median(self.through_cpu)),
            "through_per_second": round(statistics.median(self.through_rate)),
            "due_cpu_us": round(statistics.median(self.due_cpu)),
            "due_per_second": round(statistics.median(self.due_rate)),
            "memory_mib": round(max(self.memory), 1),
        }


async def measure(directory: Path, point: Point, figures: Figures, warm: int, counted: int) -> None:
    """Add a run of a point."""
    sink = Sink()
    lines = [] if point.keep else ['connection_cache_time_limit = "0s"']
    if point.lines:
        lines.append('tls_policy_maps = ["tls_policy"]')
        write_map(directory / "tls_policy", point.lines, point.destinations)
    arena = Arena(directory, sink, point.destinations, "\n".join(lines))
    await sink.start()
    try:
        await arena.fill(point.queued, due=True)
        await arena.start()
        await sink.until(warm)
        cpu, since, taken = arena.cpu(), time.monotonic(), sink.taken
        await sink.until(min(point.queued, warm + counted))
        figures.due_cpu.append(1e6 * (arena.cpu() - cpu) / (sink.taken - taken))
        figures.due_rate.append((sink.taken - taken) / (time.monotonic() - since))
        most = arena.memory()[1]
        arena.kill()

        await arena.fill(point.queued, due=False)
        await arena.start()
        taken = sink.taken
        await arena.send(warm, SESSIONS)
        await sink.until(taken + warm)
        cpu, since = arena.cpu(), time.monotonic()
        await arena.send(counted, SESSIONS)
        await sink.until(taken + warm + counted)
        figures.through_cpu.append(1e6 * (arena.cpu() - cpu) / counted)
        figures.through_rate.append(counted / (time.monotonic() - since))
        figures.memory.append(max(most, arena.memory()[1]))
    finally:
        arena.kill()
        await sink.stop()


def write_map(file: Path, lines: int, destinations: int) -> None:
    """A policy map that has all destinations, evenly among so many lines."""
    every = max(1, lines // destinations)
    with file.open("w") as out:
        for number in range(lines):
            named = number % every == 0 and number // every < destinations
            name = f"d{number // every}.test" if named else f"customer-{number}.example.com"
            out.write(f"{name}\tmay\n")


def main() -> int:
    """Run the bench."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.flat", description=__doc__)
    parser.add_argument("--series", default=",".join(SERIES), help="%(default)s")
    parser.add_argument("--runs", type=int, default=5, help="runs of each point, in turn (%(default)s)")
    parser.add_argument("--warm", type=int, default=200, help="messages before counting begins (%(default)s)")
    parser.add_argument("--counted", type=int, default=1600, help="messages that are counted (%(default)s)")
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to be used (the temporary directory)")
    parser.add_argument("--markdown", action="store_true", help="print the table as docs/performance.md has it")
    arguments = parser.parse_args()
    series = choices(arguments.series, SERIES, parser.error)
    points = [point for point in POINTS if point.series.replace(" ", "-") in series]
    figures = {point: Figures() for point in points}
    for _ in range(arguments.runs):
        for point in points:
            directory = Path(tempfile.mkdtemp(prefix="dane-relay-flat-", dir=arguments.directory))
            try:
                uvloop.run(measure(directory, point, figures[point], arguments.warm, arguments.counted))
            finally:
                shutil.rmtree(directory)
    found = [(point, figures[point].summary()) for point in points]
    result = {
        "what": "CPU a message as one thing grows",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **{name: getattr(arguments, name) for name in ("runs", "warm", "counted")},
        "processors": os.cpu_count(),
        "points": [{"series": point.series, "size": point.name, **summary} for point, summary in found],
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    show(result, found, as_markdown=arguments.markdown)
    return 0 if is_flat(found) else 1


def is_flat(found: Sequence[tuple[Point, dict[str, float]]]) -> bool:
    """Whether CPU a message is within a fifth of that of the first point, in each series and for both things measured."""
    least, most = FLAT
    return all(least <= ratio <= most for name in ("through_cpu_us", "due_cpu_us") for ratio in ratios(found, name))


def ratios(found: Sequence[tuple[Point, dict[str, float]]], name: str) -> list[float]:
    """Each point's figure as a multiple of that of the first point of its series."""
    first: dict[str, float] = {}
    return [summary[name] / first.setdefault(point.series, summary[name]) for point, summary in found]


def show(result: dict[str, Any], found: Sequence[tuple[Point, dict[str, float]]], *, as_markdown: bool) -> None:
    """Print the table and what it was measured with."""
    rows = [
        (
            point.series,
            point.name,
            f"{summary['through_cpu_us']:.0f} us",
            f"{through:.2f}",
            f"{summary['through_per_second']:.0f}",
            f"{summary['due_cpu_us']:.0f} us",
            f"{due:.2f}",
            f"{summary['due_per_second']:.0f}",
            f"{summary['memory_mib']:.0f} MiB",
        )
        for (point, summary), through, due in zip(
            found, ratios(found, "through_cpu_us"), ratios(found, "due_cpu_us"), strict=True
        )
    ]
    facts = (
        f"{result['date']}: {result['counted']} messages of 1 KB a figure after {result['warm']} to warm up, {result['runs']} "
        f"runs (medians), {result['processors']} processors"
    )
    print_table(str(result["what"]), HEADS, rows, facts, None if as_markdown else RESULT)


if __name__ == "__main__":
    raise SystemExit(main())
