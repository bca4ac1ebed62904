"""Where a bench's mail ends: a lean sink of our own, the same behind a slow link, or Postfix that throws it away.

Each counts by envelope sender: a run's is ``NAME.COUNT@client.test``.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.bench import wire
from tests.interop import servers
from tests.interop.nameservers import Endpoint
from tests.interop.postfix import Listener, postfix
from tests.loopback import free_port
from tests.watched_process import WatchedProcess

PATIENCE = 180.0
SINKS = ("lean", "postfix")


class Sink(Protocol):
    """A running receiver."""

    @property
    def process(self) -> WatchedProcess:
        """Its process."""
        ...

    def done(self, name: str, messages: int) -> float:
        """When the last message of a run had been answered, on the monotonic clock; waits for it.

        :raises AssertionError: if that does not happen in time.
        """
        ...


@dataclass(frozen=True, slots=True)
class LeanSink:
    """``tests.bench.sink``."""

    process: WatchedProcess

    def done(self, name: str, messages: int) -> float:
        """As the sink says it."""
        return float(self.process.wait_for(rf"^done {name} (\S+)$", patience=PATIENCE)[1])


@dataclass(frozen=True, slots=True)
class PostfixSink:
    """Postfix's smtpd, whose queue manager hands everything to discard(8)."""

    process: WatchedProcess

    def done(self, name: str, messages: int) -> float:
        """When its queue manager has logged as many, which comes just after smtpd's answer."""
        wanted = re.compile(rf"/qmgr\[\d+\]: \w+: from=<{re.escape(name)}\.")
        deadline = time.monotonic() + PATIENCE
        found, seen = 0, 0
        while True:
            lines = self.process.lines()
            found += sum(1 for line in lines[seen:] if wanted.search(line))
            seen = len(lines)
            if found >= messages:
                return time.monotonic()
            assert time.monotonic() < deadline, f"Postfix as sink has {found} of {messages} messages of {name}"
            time.sleep(0.005)


@dataclass(frozen=True, slots=True)
class Receiving:
    """What a bench's mail is to be received by.

    :param kind: lean or postfix.
    :param delay: milliseconds each way of a link before it, 0 for none; only with a lean one, and in a network namespace
        of the bench's own.
    """

    kind: str = "lean"
    delay: float = 0.0

    def endpoint(self, loopback: str, name_server: str) -> Endpoint:
        """Where it is to listen, at a port that is free there and at the name server's address."""
        if self.delay:
            return Endpoint(wire.FAR, free_port(name_server))
        return Endpoint(loopback, free_port(name_server, loopback))

    @contextmanager
    def start(self, endpoint: Endpoint, pem_file: Path | None, directory: Path) -> Iterator[Sink]:
        """Run it.

        :param pem_file: key and chain; None takes mail in the clear.
        :param directory: empty, and open to other users.
        """
        if self.kind == "postfix":
            with _discarding(endpoint, pem_file, directory) as process:
                yield PostfixSink(process)
            return
        command: list[str | Path] = [sys.executable, "-m", "tests.bench.sink", endpoint.address, str(endpoint.port)]
        command += [] if pem_file is None else [pem_file]
        log = directory / "sink.log"
        if not self.delay:
            with WatchedProcess(command, log=log) as process:
                process.wait_for("^ready$")
                yield LeanSink(process)
            return
        near = wire.open_tun("near", wire.NEAR, wire.FAR)
        carrier: list[str | Path] = [servers.find("unshare"), "--net", "--", sys.executable, "-m", "tests.bench.wire"]
        try:
            line = [*carrier, str(near), str(self.delay), *command]
            with WatchedProcess(line, log=log, commands=True, descriptors=(near,)) as process:
                process.wait_for("^ready$")
                yield LeanSink(process)
        finally:
            os.close(near)


@contextmanager
def _discarding(endpoint: Endpoint, pem_file: Path | None, directory: Path) -> Iterator[WatchedProcess]:
    settings: Mapping[str, str] = {
        "mynetworks": "127.0.0.0/8",
        "in_flow_delay": "0",
        "default_transport": "discard",
        "smtpd_peername_lookup": "no",
        "smtpd_client_connection_count_limit": "0",
    }
    directory.chmod(0o755)
    with postfix([Listener("sink", endpoint, pem_file)], directory, settings=settings) as running:
        yield running.process
