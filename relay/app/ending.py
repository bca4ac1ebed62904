"""The end of a relay's life: one deadline for the sessions of clients and for attempts, and a way to cut it short."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from relay.log.events import Noted, Observer, Program
from relay.smtpd.server import SmtpServer
from relay.worker.worker import Worker


class Ending:
    """When a relay ends, and how patiently.

    :param patience: seconds that what is under way has from the first request to end (``relay.drain_time``).
    :param monotonic: seconds on a clock that nobody sets.
    """

    def __init__(self, *, patience: float, monotonic: Callable[[], float]) -> None:
        self._patience = patience
        self._monotonic = monotonic
        self._deadline: float | None = None
        self.stopping = asyncio.Event()
        self.hurrying = asyncio.Event()

    def stop(self) -> None:
        """Begin the end; whoever asks again does not want to wait."""
        if self.stopping.is_set():
            self.hurrying.set()
        self.stopping.set()

    async def drain(self, servers: SmtpServer, worker: Worker, observe: Observer) -> None:
        """Take nothing new; wait for what is under way until the deadline, or until somebody asks again."""
        self.stopping.set()
        deadline = self._monotonic() + self._patience
        observe(
            Noted(
                Program.MASTER,
                f"terminating -- sessions {servers.sessions}, deliveries {worker.under_way}, at most {self._patience:g} s",
            )
        )
        hurry = asyncio.create_task(self._hurry(servers, worker), name="hurry the end")
        try:
            await asyncio.gather(servers.close(grace=self._patience), worker.stop(self._patience))
        finally:
            hurry.cancel()
            await asyncio.gather(hurry, return_exceptions=True)
        if self._monotonic() < deadline and not self.hurrying.is_set():
            return
        observe(Noted(Program.MASTER, "terminating -- what was not finished in time is tried again at the next start"))

    async def _hurry(self, servers: SmtpServer, worker: Worker) -> None:
        await self.hurrying.wait()
        worker.hurry()
        await servers.close(grace=0)
