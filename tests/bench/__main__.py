"""Messages a second from smtp-source through a relay to a lean sink, ours and Postfix's in turn, in the same run.

With DANE and in the clear, from clients that open a connection for each message and from clients that keep theirs.
``make bench`` runs it; ``BENCH_ARGS="--messages 2000 --runs 5"``. Prints a table and writes bench-result.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.contenders import CONTENDERS, DOMAIN, Contender, arena
from tests.interop import servers
from tests.interop.postfix import library_path
from tests.watched_process import WatchedProcess

RESULT = Path("bench-result.json")
WARM_UP = 100
PATIENCE = 180.0
CLIENTS = {"reused": ["-d"], "fresh": []}


@dataclass(slots=True)
class Score:
    """What a contender did, one figure a run.

    :param rate: messages a second, from the start of the clients to the sink's last answer.
    :param processor: microseconds a message, of all its processes.
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
            "delay_p50_s": round(statistics.median(self.p50), 2),
            "delay_p99_s": round(statistics.median(self.p99), 2),
        }


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
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="%(default)s")
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to be used (the temporary directory)")
    arguments = parser.parse_args()
    names = arguments.contenders.split(",")
    for given, known in (
        (names, CONTENDERS),
        (arguments.tls.split(","), ("dane", "clear")),
        (arguments.clients.split(","), CLIENTS),
    ):
        if unknown := set(given) - set(known):
            parser.error(f"no such choice: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    result: dict[str, object] = {
        "what": "smtp-source -> relay -> lean sink that offers PIPELINING and CHUNKING",
        **{name: getattr(arguments, name) for name in ("messages", "runs", "size", "sessions", "destinations")},
        "processors": os.cpu_count(),
    }
    cases: dict[str, dict[str, object]] = {}
    for tls in arguments.tls.split(","):
        directory = Path(tempfile.mkdtemp(prefix="dane-relay-bench-", dir=arguments.directory))
        directory.chmod(0o755)
        # In the clear Postfix keeps connections as it comes.
        entered = [name for name in names if tls == "dane" or name != "postfix-reuse"]
        try:
            with arena(directory, entered, dane=tls == "dane") as (sink, contenders):
                for clients in arguments.clients.split(","):
                    scores = measure(sink, contenders, clients, arguments)
                    cases[f"{tls}, {clients}"] = {name: score.summary() for name, score in scores.items()}
                sessions = {one.name: one.sessions() for one in contenders}
                assert tls == "clear" or all(sessions.values()), f"no TLS session in a log: {sessions}"
                cases[f"{tls}, TLS sessions"] = dict(sessions)
                result["disk_sync_ms"] = round(1000 * disk_sync_seconds(directory), 3)
        except servers.UnavailableError as error:
            sys.stderr.write(f"make bench: {error}\n")
            return 1
        finally:
            shutil.rmtree(directory)
    result["cases"] = cases
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    show(result, cases)
    return 0


def measure(
    sink: WatchedProcess, contenders: Sequence[Contender], clients: str, arguments: argparse.Namespace
) -> dict[str, Score]:
    """Interleave the runs, so that whatever else the machine does falls on all."""
    scores = {one.name: Score() for one in contenders}
    for one in contenders:
        one_run(sink, one, f"{clients}-warm", min(WARM_UP, arguments.messages), arguments)
    for number in range(arguments.runs):
        for one in contenders:
            score, before, line = scores[one.name], one.processor_seconds(), len(one.process.lines())
            seconds, messages = one_run(sink, one, f"{clients}-{number}", arguments.messages, arguments)
            delays = until_logged(one, line, messages)
            score.rate.append(messages / seconds)
            score.processor.append((one.processor_seconds() - before) / messages)
            score.memory.append(one.memory_mib())
            score.p50.append(statistics.median(delays))
            score.p99.append(delays[int(len(delays) * 0.99)])
    return scores


def until_logged(contender: Contender, line: int, messages: int) -> list[float]:
    """The delays of a run's messages, ascending, as soon as all of them are logged."""
    deadline = time.monotonic() + PATIENCE
    while len(delays := contender.delays(line)) < messages:
        assert time.monotonic() < deadline, f"{contender.name} logged {len(delays)} of {messages} deliveries"
        time.sleep(0.05)
    return sorted(delays)


def one_run(
    sink: WatchedProcess, contender: Contender, run: str, messages: int, arguments: argparse.Namespace
) -> tuple[float, int]:
    """Seconds from the start of the clients to the sink's answer to the last message, and how many there were.

    :param run: how the clients use connections, and which run it is: ``reused-1``.
    :raises AssertionError: if not all messages arrive.
    """
    destinations = arguments.destinations
    each = max(1, messages // destinations)
    sessions = max(1, arguments.sessions // destinations)
    name = f"{contender.name}-{run}"
    program, options = str(servers.find("smtp-source")), CLIENTS[run.partition("-")[0]]
    begin = time.monotonic()
    running = [
        subprocess.Popen(
            [
                *(program, *options, "-s", str(sessions), "-m", str(each), "-l", str(arguments.size)),
                *("-f", f"{name}.{each * destinations}@client.test", "-t", f"user@d{number}.{DOMAIN}"),
                str(contender.endpoint),
            ],
            env={**os.environ, **library_path(servers.find("smtp-source"))},
            stdout=subprocess.DEVNULL,
        )
        for number in range(destinations)
    ]
    for process in running:
        assert process.wait(PATIENCE) == 0, f"smtp-source to {contender.name} failed; see above"
    found = sink.wait_for(rf"^done {name} (\S+)$", patience=PATIENCE)
    return float(found[1]) - begin, each * destinations


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


def show(result: dict[str, object], cases: dict[str, dict[str, object]]) -> None:
    """Print the table."""
    heads = (
        "delivery, clients' connections",
        "",
        "messages/s",
        "runs",
        "ours is",
        "CPU us/message",
        "MiB",
        "delay p50, p99",
    )
    table = Table(*heads, title=str(result["what"]))
    for case, scores in cases.items():
        ours = scores.get("relay")
        for name, score in scores.items():
            if not isinstance(score, dict):
                continue
            rate = score["messages_per_second"]
            ratio = (
                f"{ours['messages_per_second'] / rate:.2f} times" if isinstance(ours, dict) and name != "relay" else ""
            )
            runs = ", ".join(map(str, score["runs"]))
            delay = f"{score['delay_p50_s']} s, {score['delay_p99_s']} s"
            table.add_row(
                case,
                name,
                str(rate),
                runs,
                ratio,
                str(score["processor_us_per_message"]),
                str(score["memory_mib"]),
                delay,
            )
    console = Console(width=max(140, Console().width))
    console.print(table)
    console.print(
        f"{result['messages']} messages of {result['size']} octets a run to {result['destinations']} destinations, "
        f"{result['sessions']} client sessions, {result['processors']} processors, disk sync {result['disk_sync_ms']} ms; "
        f"written to {RESULT}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
