"""What one large message costs while it passes through: memory, and how long everybody else waits.

``make bench BENCH=tests.bench.passing``: a relay that has warmed up takes and delivers a message of 25 MB while another
client says RSET again and again. Prints and writes bench-passing-result.json; exit status 0 if the message adds less than
5 MB and nobody waits 10 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.bench.crowd import settings, sink
from tests.relay_process import RelayProcess, Settings

RESULT = Path("bench-passing-result.json")
SIZE = 25 * 1024 * 1024
MAX_ADDED_MB = 5.0
MAX_WAIT_MS = 10.0
_LINE = b"x" * 76 + b"\r\n"


class Asker:
    """A client that says RSET every two milliseconds and times the answers."""

    def __init__(self, relay: RelayProcess) -> None:
        self._peer = relay.connect()
        self._peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peer.recv(1000)
        self._peer.sendall(b"EHLO asker.test\r\n")
        self._peer.recv(1000)
        self._statm = Path(f"/proc/{relay.process.pid}/statm")
        self.waits: list[float] = []
        self.memory: list[float] = []
        self._over = threading.Event()
        self._cut_off: bytes | None = None
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        while not self._over.wait(0.002):
            began = time.perf_counter()
            self._peer.sendall(b"RSET\r\n")
            answer = self._peer.recv(100)
            if not answer.startswith(b"250"):
                self._cut_off = answer
                return
            self.waits.append(time.perf_counter() - began)
            self.memory.append(int(self._statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6)

    def stop(self) -> dict[str, float]:
        """What it saw, in milliseconds and MB."""
        self._over.set()
        self._thread.join()
        self._peer.close()
        assert self._cut_off is None, f"the relay would not go on answering RSET: {self._cut_off!r}"
        waits = sorted(self.waits)
        return {
            "asked": len(waits),
            "p50_ms": round(1000 * waits[len(waits) // 2], 2),
            "p99_ms": round(1000 * waits[int(len(waits) * 0.99)], 2),
            "most_ms": round(1000 * waits[-1], 2),
            "rss_mb": round(max(self.memory), 1),
        }


def one(relay: RelayProcess, content: bytes) -> dict[str, float]:
    """Send a message, wait until it is delivered; what another client saw meanwhile."""
    asker = Asker(relay)
    with relay.connect() as peer:
        peer.recv(1000)
        for said in (
            b"EHLO large.test\r\n",
            b"MAIL FROM:<a@client.test>\r\n",
            b"RCPT TO:<x@sink.test>\r\n",
            b"DATA\r\n",
        ):
            peer.sendall(said)
            peer.recv(1000)
        peer.sendall(content)  # as it is: nothing here may hold up the asker's thread
        found = re.match(rb"250 2\.0\.0 Ok: queued as (\S+)", peer.recv(1000))
    assert found is not None
    relay.wait_for_status(found[1].decode())
    return asker.stop()


def patient(sections: Settings) -> Settings:
    """The same relay, but one that RSET may be said to as often as one likes."""
    return {**sections, "smtpd": {**sections["smtpd"], "junk_command_limit": 100_000}}


def main() -> int:
    """Run the bench."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.passing", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="large messages, one after another (%(default)s)")
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to be used (the temporary directory)")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="dane-relay-passing-", dir=arguments.directory))
    small, large = (b"Subject: x\r\n\r\n" + _LINE * (size // len(_LINE)) + b".\r\n" for size in (10_240, SIZE))
    try:
        with sink() as port, RelayProcess(directory, patient(settings(port, keep=False))) as relay:
            quiet = [one(relay, small) for _ in range(200)][-1]
            runs = [one(relay, large) for _ in range(arguments.runs)]
    finally:
        shutil.rmtree(directory)
    added = round(max(run["rss_mb"] for run in runs) - quiet["rss_mb"], 1)
    longest = max(run["most_ms"] for run in runs)
    result = {"size": SIZE, "quiet": quiet, "large": runs, "added_mb": added, "longest_wait_ms": longest}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 0 if added < MAX_ADDED_MB and longest < MAX_WAIT_MS else 1


if __name__ == "__main__":
    sys.exit(main())
