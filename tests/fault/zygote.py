"""Relays that start at once: a process that has imported the relay and forks ``dane-relay serve`` on demand.

``python -m tests.fault.zygote`` reads ``start CONFIG LOG`` lines, answers each with the child's process id, and says
``ended PID`` when one is gone. Each child is a whole relay in a process of its own; only the imports are shared.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import relay.app
import relay.cli.serve


def main() -> None:
    """Serve standard input until it ends, then end what still runs."""
    children: set[int] = set()
    for line in sys.stdin:
        _, config, log = line.split()
        pid = os.fork()
        if pid == 0:
            _become_relay(config, log)
        children.add(pid)
        sys.stdout.write(f"started {pid}\n")
        sys.stdout.flush()
        threading.Thread(target=_reap, args=(pid, children.discard), daemon=True).start()
    for pid in tuple(children):
        os.kill(pid, signal.SIGKILL)


def _become_relay(config: str, log: str) -> None:
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    status = 1
    try:
        relay.cli.serve.command(["-c", config], standalone_mode=False)
        status = 0
    finally:
        sys.stdout.flush()
        os._exit(status)


def _reap(pid: int, forget: Callable[[int], None]) -> None:
    os.waitpid(pid, 0)
    forget(pid)
    sys.stdout.write(f"ended {pid}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    assert Path(relay.app.__file__).exists()
    main()
