"""What bad destinations cost 50 good ones: messages a second to the good ones, beside one that hangs and one that answers 450.

``make bench BENCH=tests.bench.neighbours``; ``BENCH_ARGS="--messages 40 --runs 5"``. Prints a table and writes
bench-neighbours-result.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.loopback import free_port
from tests.neighbourhood import BUSY, HANGS, SILENT, Neighbourhood, hand_in
from tests.relay_process import RelayProcess, Settings

RESULT = Path("bench-neighbours-result.json")
PATIENCE = 180.0
CLIENTS = 4


@dataclass(frozen=True, slots=True)
class Case:
    """Which bad destinations there are, and how long the relay waits for a reply."""

    name: str
    bad: tuple[str, ...]
    timeout: str = "300s"


CASES = (
    Case("the good ones alone", ()),
    Case("one hangs, at each stage in turn", (HANGS,)),
    Case("the same, given up after 1 s, so that it dies and comes back", (HANGS,), "1s"),
    Case("one never connects", (SILENT,)),
    Case("one answers 450, each message again after 2 s", (BUSY,)),
    Case("all of them, given up after 1 s", (HANGS, SILENT, BUSY), "1s"),
)


def settings(case: Case) -> Settings:
    """A relay that tries again soon, so that the bad ones come up again and again."""
    stages = ("connect", "helo", "starttls", "mail", "rcpt", "data_init", "data_xfer", "data_done")
    return {
        "relay": {"drain_time": "0.1s"},
        "smtp": {
            "transport_maps": ["texthash:transport"],
            "tls_security_level": "may",
            **{f"{stage}_timeout": case.timeout for stage in stages},
        },
        "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
        "queue": {"minimal_backoff_time": "2s", "maximal_backoff_time": "2s"},
    }


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: messages a second to the good destinations, and what the bad ones saw meanwhile."""

    rate: float
    hung: int
    refused: int
    most_at_once: int


def run(case: Case, good: int, each: int, backlog: int) -> Measured:
    """Queue a backlog for the bad destinations, then time the mail to the good ones.

    :param each: messages to each good destination.
    :param backlog: messages to each bad one, before.
    """
    directory = Path(tempfile.mkdtemp(prefix="dane-relay-bench-"))
    try:
        with (
            Neighbourhood(good) as hosts,
            RelayProcess(directory, settings(case), {"transport": hosts.transport_map()}) as relay,
        ):
            hand_in(relay.address, relay.port, case.bad * backlog)
            if HANGS in case.bad:
                hosts.wait_until(lambda: hosts.hung.total() > 0, "the one that hangs")
            if BUSY in case.bad:
                hosts.wait_until(lambda: hosts.refused > 0, "the one that answers 450")
            hung, refused = hosts.hung.total(), hosts.refused
            messages = hosts.good * each
            began = time.monotonic()
            with ThreadPoolExecutor(CLIENTS) as pool:
                parts = [messages[number::CLIENTS] for number in range(CLIENTS)]
                list(pool.map(lambda part: hand_in(relay.address, relay.port, part), parts))
            hosts.wait_until(lambda: hosts.delivered_to_good == len(messages), "all good mail", PATIENCE)
            assert {hosts.delivered[name] for name in hosts.good} == {each}
            return Measured(
                rate=len(messages) / (hosts.last_delivery - began),
                hung=hosts.hung.total() - hung,
                refused=hosts.refused - refused,
                most_at_once=hosts.most_at_once[HANGS],
            )
    finally:
        shutil.rmtree(directory)


def main(words: Sequence[str] | None = None) -> int:
    """Interleave the cases; print medians and ratios."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.neighbours", description=__doc__)
    parser.add_argument("--good", type=int, default=50, help="good destinations (%(default)s)")
    parser.add_argument("--messages", type=int, default=40, help="messages to each good destination (%(default)s)")
    parser.add_argument("--backlog", type=int, default=400, help="messages to each bad one, before (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each case, in turn (%(default)s)")
    arguments = parser.parse_args(words)
    measured: dict[str, list[Measured]] = {case.name: [] for case in CASES}
    for _ in range(arguments.runs):
        for case in CASES:
            measured[case.name].append(run(case, arguments.good, arguments.messages, arguments.backlog))
    alone = statistics.median(one.rate for one in measured[CASES[0].name])
    table = Table("beside", "messages/s to the good (median)", "runs", "ratio", "hung, refused meanwhile", "at once")
    result = {}
    for name, runs in measured.items():
        median = statistics.median(one.rate for one in runs)
        seen = (
            f"{statistics.median(one.hung for one in runs):.0f}, {statistics.median(one.refused for one in runs):.0f}"
        )
        rates = ", ".join(f"{one.rate:.0f}" for one in runs)
        most = str(max(one.most_at_once for one in runs))
        table.add_row(name, f"{median:.0f}", rates, f"{median / alone:.2f}", seen, most)
        result[name] = {"rates": [round(one.rate, 1) for one in runs], "ratio": round(median / alone, 3)}
    facts = {**vars(arguments), "processors": os.cpu_count()}
    RESULT.write_text(json.dumps({"what": __doc__, "facts": facts, "cases": result}, indent=2) + "\n")
    console = Console(width=160)
    console.print(table)
    sys.stdout.write(f"{facts}; written to {RESULT}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
