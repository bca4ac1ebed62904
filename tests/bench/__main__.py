"""Messages a second from smtp-source through a relay to a sink, ours and Postfix's in turn, in the same run.

With DANE and in the clear, from clients that open a connection for each message and from clients that keep theirs.
``make bench`` runs it; ``BENCH_ARGS="--messages 2000 --runs 5"``. Prints a table and writes bench-result.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.contenders import CONTENDERS, MORE, Contender, arena
from tests.bench.runs import CLIENTS, Load, Score, choices, disk_sync_seconds, markdown, measure, one_run
from tests.bench.sinks import SINKS, Receiving, Sink
from tests.interop import servers
from tests.interop.postfix import version

RESULT = Path("bench-result.json")
WARM_UP = 100
MEMORY_DISK = Path("/dev/shm")
HEADS = (
    "delivery, clients' connections",
    "",
    "messages/s",
    "runs",
    "ours is",
    "CPU a message",
    "MiB",
    "delay p50, p99",
)


@dataclass(frozen=True, slots=True)
class Ground:
    """Where contenders meet.

    :param tls: dane or clear.
    :param sink: lean or postfix.
    :param directory: on the disk to be used, the temporary directory if None.
    :param durable: False for a file system in memory, where a sync does nothing and a crash loses all.
    """

    tls: str
    sink: str
    directory: Path | None
    durable: bool = True

    def __str__(self) -> str:
        sink = ", Postfix as sink" if self.sink == "postfix" else ""
        return f"{self.tls}{sink}{'' if self.durable else ', on tmpfs, unsafe'}"


def main() -> int:
    """Run the bench; exit status 0 if every message arrived, and with DANE over verified sessions only."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--messages", type=int, default=2000, help="messages a run (%(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each contender, in turn (%(default)s)")
    parser.add_argument("--size", type=int, default=10240, help="octets a message (%(default)s)")
    parser.add_argument("--sessions", type=int, default=20, help="parallel client sessions (%(default)s)")
    parser.add_argument("--destinations", type=int, default=1, help="domains, as many clients as these (%(default)s)")
    parser.add_argument("--tls", default="dane,clear", help="dane, clear or both (%(default)s)")
    parser.add_argument("--clients", default=",".join(CLIENTS), help="how they use connections (%(default)s)")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help=f"%(default)s; also {', '.join(MORE)}")
    parser.add_argument("--sink", default="lean", help=f"one or more of {', '.join(SINKS)} (%(default)s)")
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to be used (the temporary directory)")
    parser.add_argument("--unsafe", action="store_true", help="all of it once more on tmpfs, where nothing is durable")
    parser.add_argument("--markdown", action="store_true", help="print the table as docs/performance.md has it")
    arguments = parser.parse_args()
    names = choices(arguments.contenders, (*CONTENDERS, *MORE), parser.error)
    clients = choices(arguments.clients, tuple(CLIENTS), parser.error)
    grounds = [
        Ground(tls, sink, arguments.directory)
        for sink in choices(arguments.sink, SINKS, parser.error)
        for tls in choices(arguments.tls, ("dane", "clear"), parser.error)
    ]
    if arguments.unsafe:
        grounds += [Ground(ground.tls, ground.sink, MEMORY_DISK, durable=False) for ground in grounds]
    load = Load(
        messages=arguments.messages,
        size=arguments.size,
        sessions=arguments.sessions,
        destinations=arguments.destinations,
    )
    cases: dict[str, dict[str, Any]] = {}
    sync: dict[str, float] = {}
    try:
        for ground in grounds:
            # In the clear Postfix keeps connections as it comes.
            entered = [name for name in names if ground.tls == "dane" or name != "postfix-reuse"]
            with meeting(ground, entered) as (sink, contenders, directory):
                for kind in clients:
                    scores = interleave(sink, contenders, kind, load, arguments.runs)
                    cases[f"{ground}; {kind}"] = {name: score.summary() for name, score in scores.items()}
                sessions = {one.name: one.sessions() for one in contenders}
                assert ground.tls == "clear" or all(sessions.values()), f"no TLS session in a log: {sessions}"
                cases[f"{ground}; TLS sessions"] = dict(sessions)
                disk = "disk_sync_ms" if ground.durable else "tmpfs_sync_ms"
                sync[disk] = round(1000 * disk_sync_seconds(directory), 3)
    except servers.UnavailableError as error:
        sys.stderr.write(f"make bench: {error}\n")
        return 1
    result: dict[str, Any] = {
        "what": "smtp-source -> relay -> sink that offers PIPELINING and CHUNKING",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "postfix": version(),
        **asdict(load),
        "runs": arguments.runs,
        "processors": os.cpu_count(),
        **sync,
        "cases": cases,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    show(result, as_markdown=arguments.markdown)
    return 0


@contextmanager
def meeting(ground: Ground, names: Sequence[str]) -> Iterator[tuple[Sink, tuple[Contender, ...], Path]]:
    """Sink and contenders on a ground, in a directory that goes afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="dane-relay-bench-", dir=ground.directory))
    directory.chmod(0o755)
    try:
        with arena(directory, names, dane=ground.tls == "dane", receiving=Receiving(ground.sink)) as (sink, contenders):
            yield sink, contenders, directory
    finally:
        shutil.rmtree(directory)


def interleave(sink: Sink, contenders: Sequence[Contender], clients: str, load: Load, runs: int) -> dict[str, Score]:
    """Let them take turns, so that whatever else the machine does falls on all."""
    scores = {one.name: Score() for one in contenders}
    warm = Load(
        messages=min(WARM_UP, load.messages), size=load.size, sessions=load.sessions, destinations=load.destinations
    )
    for one in contenders:
        one_run(sink, one, f"{clients}-warm", warm)
    for number in range(runs):
        for one in contenders:
            measure(sink, one, scores[one.name], f"{clients}-{number}", load)
    return scores


def rows(cases: dict[str, dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """The table's, with how many times as fast ours is as each of the others."""
    for case, scores in cases.items():
        ours = scores.get("relay")
        for name, score in scores.items():
            if not isinstance(score, dict):
                continue  # counts of sessions
            rate = score["messages_per_second"]
            ratio = (
                f"{ours['messages_per_second'] / rate:.2f} times" if isinstance(ours, dict) and name != "relay" else ""
            )
            yield (
                case,
                name,
                f"{rate:.0f}",
                ", ".join(f"{one:.0f}" for one in score["runs"]),
                ratio,
                f"{score['processor_us_per_message']} us",
                f"{score['memory_mib']:.0f}",
                f"{score['delay_p50_ms']}, {score['delay_p99_ms']} ms",
            )


def show(result: dict[str, Any], *, as_markdown: bool) -> None:
    """Print the table and what it was measured with."""
    syncs = ", ".join(
        f"{name.partition('_')[0]} sync {result[name]} ms" for name in result if name.endswith("_sync_ms")
    )
    facts = (
        f"{result['date']}: {result['messages']} messages of {result['size']} octets a run to {result['destinations']} "
        f"destinations, {result['sessions']} client sessions, {result['runs']} runs (medians), {result['processors']} "
        f"processors, Postfix {result['postfix']}, {syncs}"
    )
    if as_markdown:
        sys.stdout.write(f"{markdown(HEADS, list(rows(result['cases'])))}\n{facts}\n")
        return
    table = Table(*HEADS, title=str(result["what"]))
    for row in rows(result["cases"]):
        table.add_row(*row)
    console = Console(width=max(140, Console().width))
    console.print(table)
    console.print(f"{facts}; written to {RESULT}")


if __name__ == "__main__":
    raise SystemExit(main())
