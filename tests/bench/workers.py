"""One worker beside two: throughput and processor time a message, free and with each worker held to a part of a processor.

``make bench BENCH=tests.bench.workers``. Held means that a worker is stopped (SIGSTOP) for the rest of each tenth of a second,
so that the generator, the sink and the name server, which run on the same processors, do not decide the figure: what more
workers are worth where there are processors for them. Prints a table and writes bench-workers-result.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from relay.control.client import call
from relay.control.protocol import Numbers
from tests.bench.contenders import Contender, arena
from tests.bench.runs import Load, Score, markdown, measure
from tests.bench.sinks import Receiving
from tests.interop import servers

RESULT = Path("bench-workers-result.json")
HEADS = (
    "workers",
    "each may have",
    "messages/s",
    "times one worker",
    "us CPU/message",
    "times one worker",
    "MiB",
    "us of locks/message",
    "waits/message",
)
_COST = re.compile(r"^dane_relay_destination_place_(waits|lock_seconds) (\S+)$", re.MULTILINE)
PERIOD = 0.1


def main() -> int:
    """Run the bench; exit status 0 if every message arrived."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.workers", description=__doc__)
    parser.add_argument("--messages", type=int, default=2000, help="messages a run (%(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each, in turn (%(default)s)")
    parser.add_argument("--size", type=int, default=10240, help="octets a message (%(default)s)")
    parser.add_argument("--sessions", type=int, default=40, help="parallel client sessions (%(default)s)")
    parser.add_argument("--destinations", type=int, default=1, help="domains (%(default)s)")
    parser.add_argument("--clients", choices=("fresh", "reused"), default="fresh", help="(%(default)s)")
    parser.add_argument("--share", type=float, default=0.4, help="of a processor, for each worker (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="beside one (%(default)s)")
    parser.add_argument("--clear", action="store_true", help="deliver in the clear, not with DANE")
    parser.add_argument("--markdown", action="store_true", help="print the table as docs/performance.md has it")
    arguments = parser.parse_args()
    console = Console(width=130)
    try:
        found = run(arguments)
    except servers.UnavailableError as error:
        console.print(f"skipped: {error}")
        return 0
    rows = table(found, arguments)
    if arguments.markdown:
        console.out(markdown(HEADS, rows), end="", highlight=False)
    else:
        shown = Table(*HEADS)
        for row in rows:
            shown.add_row(*row)
        console.print(shown)
    facts = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "processors": os.cpu_count()}
    RESULT.write_text(json.dumps({**facts, "arguments": vars(arguments), "found": found}, indent=1) + "\n")
    return 0


def run(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Both relays by turns, free and held."""
    names = ("relay", f"relay-{arguments.workers}")
    load = Load(
        messages=arguments.messages,
        size=arguments.size,
        sessions=arguments.sessions,
        destinations=arguments.destinations,
    )
    scores: dict[str, Score] = {f"{name} {how}": Score() for name in names for how in ("free", "held")}
    locks: dict[str, Counter[str]] = {name: Counter() for name in scores}
    directory = Path(tempfile.mkdtemp(prefix="bench-"))
    directory.chmod(0o755)
    try:
        with arena(directory, names, dane=not arguments.clear, receiving=Receiving()) as (sink, contenders):
            for number in range(arguments.runs + 1):
                for how in ("free", "held"):
                    for contender in contenders:
                        score = scores[f"{contender.name} {how}"] if number else Score()  # the first warms up
                        share = arguments.share if how == "held" else 1.0
                        before = lock_costs(contender)
                        with held(workers_of(contender), share):
                            measure(sink, contender, score, f"{arguments.clients}-{how}-{number}", load)
                        if number:
                            after = Counter(lock_costs(contender))
                            after.subtract(before)
                            locks[f"{contender.name} {how}"].update(after)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    found: dict[str, dict[str, Any]] = {name: score.summary() for name, score in scores.items()}
    for name, costs in locks.items():
        found[name] |= {
            "lock_us_per_message": 1e6 * costs["lock_seconds"] / (arguments.runs * arguments.messages),
            "waits_per_message": costs["waits"] / (arguments.runs * arguments.messages),
        }
    return found


def workers_of(contender: Contender) -> list[int]:
    """The processes that carry mail: the relay itself, or its children."""
    pid = contender.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in children] or [pid]


def lock_costs(contender: Contender) -> Counter[str]:
    """What sharing places at destinations has cost all workers up to now: seconds in locks, and waits; nothing for one worker."""
    command = Path(f"/proc/{contender.process.pid}/cmdline").read_bytes().decode().split("\0")
    state = Path(command[command.index("-c") + 1]).parent / "state"
    costs: Counter[str] = Counter(waits=0, lock_seconds=0)
    for office in sorted(state.glob("worker-*")):
        text = str(call(office, Numbers()).get("numbers", ""))
        costs.update({name: float(value) for name, value in _COST.findall(text)})
    return costs


@contextmanager
def held(pids: Sequence[int], share: float) -> Iterator[None]:
    """Let each process run for that part of the time only."""
    if share >= 1:
        yield
        return
    over = threading.Event()
    threads = [
        threading.Thread(target=_hold, args=(pid, share, PERIOD * number / len(pids), over), daemon=True)
        for number, pid in enumerate(pids)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _hold(pid: int, share: float, phase: float, over: threading.Event) -> None:
    """Stop and continue a process that is ours; it runs in the end."""
    begin = time.monotonic() + phase
    turn = 0
    with suppress(ProcessLookupError):
        try:
            while not over.is_set():
                os.kill(pid, signal.SIGSTOP)
                over.wait(max(0.0, begin + (turn + 1 - share) * PERIOD - time.monotonic()))
                os.kill(pid, signal.SIGCONT)
                turn += 1
                over.wait(max(0.0, begin + turn * PERIOD - time.monotonic()))
        finally:
            os.kill(pid, signal.SIGCONT)


def table(found: dict[str, dict[str, Any]], arguments: argparse.Namespace) -> list[list[str]]:
    """Rows of words."""
    rows = []
    for how, may in (("free", "all there is"), ("held", f"{arguments.share:.0%} of a processor")):
        one = found[f"relay {how}"]
        for number in (1, arguments.workers):
            its = one if number == 1 else found[f"relay-{number} {how}"]
            rate, cost = its["messages_per_second"], its["processor_us_per_message"]
            rows.append(
                [
                    str(number),
                    may,
                    f"{rate:.0f}",
                    f"{rate / one['messages_per_second']:.2f}",
                    f"{cost}",
                    f"{cost / one['processor_us_per_message']:.2f}",
                    f"{its['memory_mib']:.0f}",
                    f"{its['lock_us_per_message']:.0f}",
                    f"{its['waits_per_message']:.2f}",
                ]
            )
    return rows


if __name__ == "__main__":
    sys.exit(main())
