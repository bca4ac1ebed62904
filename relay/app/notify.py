"""What the service manager is told: ready, reloading, stopping, a line of status, and that the relay is alive (sd_notify(3)).

The protocol is a datagram of ``NAME=VALUE`` lines to the socket that the environment names; there is nothing to be read.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

# The status line is refreshed so often, and more often where a watchdog waits.
STATUS_SECONDS = 10.0
_MICROSECONDS = 1_000_000


class Notifier:
    """Tells the service manager; one without an address tells nobody.

    :param address: of its socket; empty for none, ``@NAME`` for one in the abstract namespace.
    :param watchdog: seconds within which it wants to hear that we are alive; 0 for no watchdog.
    """

    def __init__(self, address: str = "", *, watchdog: float = 0.0) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog = watchdog

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], pid: int) -> Notifier:
        """The one that ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` describe; anything odd counts as none."""
        address = environment.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls()
        wanted, of = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", str(pid))
        usable = wanted.isascii() and wanted.isdigit() and of == str(pid)
        return cls(address, watchdog=int(wanted) / _MICROSECONDS if usable else 0.0)

    @property
    def listens(self) -> bool:
        """Whether there is somebody to tell."""
        return bool(self._address)

    def tell(self, *lines: str) -> None:
        """Send some assignments; a manager that is gone or slow is no reason to stop relaying mail."""
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)
            manager.sendto("\n".join(lines).encode(), self._address)

    def ready(self) -> None:
        """Mail is taken."""
        self.tell("READY=1", "STATUS=ready")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """The configuration is read anew; whatever comes of it, the relay goes on."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")
        try:
            yield
        finally:
            self.tell("READY=1")

    def stopping(self, patience: float) -> None:
        """The end has begun, and takes so many seconds at most."""
        self.tell("STOPPING=1", "STATUS=stopping", f"EXTEND_TIMEOUT_USEC={int((patience + 10) * _MICROSECONDS)}")

    async def keep_telling(self, alive: Callable[[], Awaitable[object]], status: Callable[[], str]) -> None:
        """Say that we are alive as long as we are: the loop runs this, and ``alive`` returns in time.

        :param alive: goes through what must not be stuck; what it raises, and its not returning, mean that we are not.
        :param status: one line for people.
        """
        if not self._address:
            return
        interval = min(STATUS_SECONDS, self._watchdog / 2) if self._watchdog else STATUS_SECONDS
        while True:
            if await _returns(alive, interval):
                self.tell(f"STATUS={status()}", *(["WATCHDOG=1"] if self._watchdog else []))
            await asyncio.sleep(interval)


async def _returns(alive: Callable[[], Awaitable[object]], seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await alive()
    except TimeoutError:
        return False
    return True
