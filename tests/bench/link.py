"""1,000 messages to one destination over a link of 50 ms: time, and round trips a message, ours and Postfix's.

``make bench BENCH=tests.bench.link``; needs root, for network namespaces and a tun device (tests/bench/wire.py, which says why
not netem). The link is between the relays and the sink; clients and name server are beside the relays. Packets are counted where
they enter the link (tests/bench/turns.py). Prints a table and writes bench-link-result.json.
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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.contenders import CONTENDERS, Contender, arena
from tests.bench.runs import Load, Score, choices, measure, print_table
from tests.bench.sinks import Receiving, Sink
from tests.interop import servers

RESULT = Path("bench-link-result.json")
SESSIONS_END = 6.0
"""Seconds after which both relays have ended every session of a run before, so that each begins with none."""
HEADS = ("delivery", "", "seconds", "messages/s", "round trips a message", "messages a connection", "packets a message")


@dataclass(slots=True)
class Trips:
    """What went over the link, one figure a run: seconds, connections, round trips and packets."""

    seconds: list[float] = field(default_factory=list)
    connections: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    packets: list[int] = field(default_factory=list)

    def summary(self, messages: int) -> dict[str, float]:
        """Medians."""
        seconds, connections = statistics.median(self.seconds), statistics.median(self.connections)
        return {
            "seconds": round(seconds, 2),
            "messages_per_second": round(messages / seconds, 1),
            "round_trips_per_message": round(statistics.median(self.turns) / messages, 2),
            "messages_per_connection": round(messages / connections, 1),
            "packets_per_message": round(statistics.median(self.packets) / messages, 1),
        }


def main() -> int:
    """Run the bench, in a network namespace of its own; exit status 0 if every message arrived."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.link", description=__doc__)
    parser.add_argument("--messages", type=int, default=1000, help="messages a run (%(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each contender, in turn (%(default)s)")
    parser.add_argument("--size", type=int, default=10240, help="octets a message (%(default)s)")
    parser.add_argument("--sessions", type=int, default=20, help="parallel client sessions (%(default)s)")
    parser.add_argument("--delay", type=float, default=25.0, help="milliseconds each way (%(default)s)")
    parser.add_argument("--tls", default="dane,clear", help="dane, clear or both (%(default)s)")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="%(default)s")
    parser.add_argument("--markdown", action="store_true", help="print the table as docs/performance.md has it")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = choices(arguments.contenders, CONTENDERS, parser.error)
    levels = choices(arguments.tls, ("dane", "clear"), parser.error)
    try:
        if not arguments.inside:
            command = [str(servers.find("unshare")), "--net", "--", sys.executable, "-m", "tests.bench.link"]
            return subprocess.call([*command, "--inside", *sys.argv[1:]])
        cases = {tls: one_case(names, arguments, tls) for tls in levels}
    except servers.UnavailableError as error:
        sys.stderr.write(f"make bench: {error}\n")
        return 1
    result = {
        "what": "messages to one destination over a link with a delay",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **{name: getattr(arguments, name) for name in ("messages", "runs", "size", "sessions", "delay")},
        "processors": os.cpu_count(),
        "cases": cases,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    show(result, as_markdown=arguments.markdown)
    return 0


def one_case(names: Sequence[str], arguments: argparse.Namespace, tls: str) -> dict[str, dict[str, float]]:
    """All contenders, with DANE or in the clear."""
    subprocess.run([servers.find("ip"), "link", "set", "lo", "up"], check=True)
    # In the clear Postfix keeps connections as it comes.
    entered = [name for name in names if tls == "dane" or name != "postfix-reuse"]
    directory = Path(tempfile.mkdtemp(prefix="dane-relay-link-"))
    directory.chmod(0o755)
    load = Load(messages=arguments.messages, size=arguments.size, sessions=arguments.sessions)
    found = {name: Trips() for name in entered}
    try:
        receiving = Receiving(delay=arguments.delay)
        with arena(directory, entered, dane=tls == "dane", receiving=receiving) as (sink, contenders):
            for number in range(arguments.runs):
                for one in contenders:
                    one_run(sink, one, f"reused-{number}", load, found[one.name])
            for one in contenders:
                assert one.sessions() or tls == "clear", f"no TLS session in the log of {one.name}"
    finally:
        shutil.rmtree(directory)
    return {name: trips.summary(arguments.messages) for name, trips in found.items()}


def one_run(sink: Sink, contender: Contender, run: str, load: Load, trips: Trips) -> None:
    """Add a run."""
    time.sleep(SESSIONS_END)
    counted(sink)
    trips.seconds.append(measure(sink, contender, Score(), run, load))
    connections, turns, packets, _ = counted(sink)
    trips.connections.append(connections)
    trips.turns.append(turns)
    trips.packets.append(packets)


def counted(sink: Sink) -> tuple[int, ...]:
    """Connections, round trips, packets and octets since the last time."""
    mark = sink.process.mark()
    sink.process.say("count")
    return tuple(map(int, sink.process.wait_for(r"^counted (.*)$", since=mark)[1].split()))


def show(result: dict[str, Any], *, as_markdown: bool) -> None:
    """Print the table and what it was measured with."""
    rows = [
        (case, name, f"{one['seconds']:.2f}", *(f"{one[key]:g}" for key in list(one)[1:]))
        for case, scores in result["cases"].items()
        for name, one in scores.items()
    ]
    facts = (
        f"{result['date']}: {result['messages']} messages of {result['size']} octets to one destination, "
        f"{2 * result['delay']:g} ms there and back, {result['runs']} runs (medians), {result['processors']} processors"
    )
    print_table(str(result["what"]), HEADS, rows, facts, None if as_markdown else RESULT)


if __name__ == "__main__":
    raise SystemExit(main())
