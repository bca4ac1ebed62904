"""Messages a second from smtp-source through a relay to a TLS sink with DANE, ours and Postfix's in turn.

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
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.contenders import CONTENDERS, DOMAIN, Contender, arena
from tests.interop import servers
from tests.interop.postfix import library_path
from tests.watched_process import WatchedProcess

RESULT = Path("bench-result.json")
WARM_UP = 40
PATIENCE = 180.0


def main() -> int:
    """Run the bench; exit status 0 if every message arrived over a verified session."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--messages", type=int, default=500, help="messages a run (%(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each contender, in turn (%(default)s)")
    parser.add_argument("--size", type=int, default=4096, help="octets a message (%(default)s)")
    parser.add_argument("--sessions", type=int, default=20, help="parallel client sessions (%(default)s)")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="%(default)s")
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to be used (the temporary directory)")
    arguments = parser.parse_args()
    names = arguments.contenders.split(",")
    unknown = set(names) - set(CONTENDERS)
    if unknown:
        parser.error(f"no such contender: {', '.join(sorted(unknown))}; there are {', '.join(CONTENDERS)}")
    directory = Path(tempfile.mkdtemp(prefix="dane-relay-bench-", dir=arguments.directory))
    directory.chmod(0o755)
    try:
        with arena(directory, names) as (sink, contenders):
            result = measure(sink, contenders, arguments)
            result["disk_sync_ms"] = round(1000 * disk_sync_seconds(directory), 3)
    except servers.UnavailableError as error:
        sys.stderr.write(f"make bench: {error}\n")
        return 1
    finally:
        shutil.rmtree(directory)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    show(result)
    return 0


def measure(sink: WatchedProcess, contenders: Sequence[Contender], arguments: argparse.Namespace) -> dict[str, object]:
    """Interleave the runs, so that whatever else the machine does falls on all; gives the result to be written."""
    rates: dict[str, list[float]] = {one.name: [] for one in contenders}
    processor: dict[str, list[float]] = {one.name: [] for one in contenders}
    for one in contenders:
        one_run(sink, one, "warm", min(WARM_UP, arguments.messages), arguments)
    for number in range(arguments.runs):
        for one in contenders:
            before = one.processor_seconds()
            seconds = one_run(sink, one, f"run{number}", arguments.messages, arguments)
            processor[one.name].append((one.processor_seconds() - before) / arguments.messages)
            rates[one.name].append(arguments.messages / seconds)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "what": "smtp-source -> relay -> TLS sink, DANE 3 1 1, every session verified",
        "messages": arguments.messages,
        "size": arguments.size,
        "sessions": arguments.sessions,
        "processors": os.cpu_count(),
        "messages_per_second": {name: [round(rate, 1) for rate in values] for name, values in rates.items()},
        "median": {name: round(rate, 1) for name, rate in medians.items()},
        "ratio_of_relay_to": {
            name: round(medians["relay"] / rate, 2)
            for name, rate in medians.items()
            if name != "relay" and "relay" in medians
        },
        "verified_sessions": {one.name: one.verified_sessions() for one in contenders},
        "relay_processor_us_per_message": round(1e6 * statistics.median(processor["relay"])) if "relay" in rates else 0,
    }


def one_run(
    sink: WatchedProcess, contender: Contender, run: str, messages: int, arguments: argparse.Namespace
) -> float:
    """Seconds from the start of the client to the sink's answer to the last message.

    :raises AssertionError: if not all messages arrive.
    """
    name = f"{contender.name}-{run}"
    program = servers.find("smtp-source")
    begin = time.monotonic()
    done = subprocess.run(
        [
            *(program, "-d", "-s", str(arguments.sessions), "-m", str(messages), "-l", str(arguments.size)),
            *("-f", f"{name}.{messages}@client.test", "-t", f"user@{DOMAIN}", str(contender.endpoint)),
        ],
        env={**os.environ, **library_path(program)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"smtp-source to {contender.name}: {done.stderr}"
    found = sink.wait_for(rf"^done {name} (\S+)$", patience=PATIENCE)
    return float(found[1]) - begin


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


def show(result: dict[str, object]) -> None:
    """Print the table."""
    rates, medians, ratios, sessions = (
        result[key] for key in ("messages_per_second", "median", "ratio_of_relay_to", "verified_sessions")
    )
    assert isinstance(rates, dict)
    assert isinstance(medians, dict)
    assert isinstance(ratios, dict)
    assert isinstance(sessions, dict)
    table = Table(
        "relay", "messages/s (median)", "runs", "ours is", "TLS sessions, all verified", title=str(result["what"])
    )
    for name, runs in rates.items():
        ratio = f"{ratios[name]} times" if name in ratios else ""
        table.add_row(name, str(medians[name]), ", ".join(map(str, runs)), ratio, str(sessions[name]))
    console = Console()
    console.print(table)
    console.print(
        f"{result['messages']} messages of {result['size']} octets a run, {result['sessions']} client sessions, "
        f"{result['processors']} processors, disk sync {result['disk_sync_ms']} ms, "
        f"our processor time a message {result['relay_processor_us_per_message']} us; written to {RESULT}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
