"""Large policy maps: how long they take to read and check, what they keep in memory, and how long a look-up takes.

``python -m tests.bench.maps [ENTRIES...]`` prints a table; each size is measured in a process of its own.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from relay.config.maps import load_policy_maps
from relay.mail.names import NextHop

SIZES = (1_000, 100_000, 1_000_000)
LOOKUPS = 20_000
VALUES = ("dane", "secure", "dane-only", "encrypt", "secure match=mx{n}.example.net:.mail.example.net", "may", "verify")


def main(arguments: list[str]) -> None:
    """Measure one size, or all of them, each in a process of its own."""
    if arguments[:1] == ["--one"]:
        sys.stdout.write(measured(int(arguments[1])) + "\n")
        return
    sys.stdout.write(
        "| entries | file | read and checked in | memory kept | a look-up that finds | one that finds nothing |" + "\n"
    )
    sys.stdout.write("|---|---|---|---|---|---|" + "\n")
    for size in arguments or map(str, SIZES):
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.maps", "--one", size], capture_output=True, text=True, check=True
        )
        sys.stdout.write(f"{done.stdout.strip()}\n")


def measured(size: int) -> str:
    """One row. Times are of the processor; memory is what the process has more after than before."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "tls_policy"
        with file.open("w") as out:
            for number in range(size):
                out.write(f"customer-{number}.example.com\t{VALUES[number % len(VALUES)].format(n=number)}\n")
        before, started = resident(), time.process_time()
        tables = load_policy_maps((str(file),), Path(directory))
        seconds = time.process_time() - started
        gc.collect()
        kept = resident() - before
        assert not tables.problems
        found = [f"customer-{number * 7919 % size}.example.com" for number in range(LOOKUPS)]
        missed = [f"a.b.none-{number}.example.org" for number in range(LOOKUPS)]
        times = []
        for names in (found, missed):
            hops = [NextHop.parse(name, default_port=25) for name in names]
            started = time.process_time()
            for hop in hops:
                tables.lookup(hop)
            times.append((time.process_time() - started) / LOOKUPS)
        megabytes = file.stat().st_size / 1e6
    return (
        f"| {size:,} | {megabytes:.1f} MB | {seconds:.2f} s | {kept / 1e6:.0f} MB"
        f" | {times[0] * 1e6:.0f} µs | {times[1] * 1e6:.0f} µs |"
    )


def resident() -> int:
    """The octets of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    main(sys.argv[1:])
