"""The ledger of a running relay: collects what events tell of destinations and writes it down, never in their way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

from relay.ledger.commands import FORGET_MARK, answer
from relay.ledger.file import LedgerFile, LedgerUnavailable
from relay.ledger.findings import AuditCount, one_session
from relay.ledger.marks import KEPT, MAX_MARKS, Marks
from relay.log.events import Event, Observer, Program, SessionAudited, Warned
from relay.policy.ratchet import Best, Mark

WRITE_SECONDS: Final = 1.0
MAX_WAITING: Final = 1000
T = TypeVar("T")


class Ledger:
    """Collects findings in memory and writes them once a second.

    A disk that fails loses findings and says so; it never holds mail.

    :param clock: aware UTC.
    """

    def __init__(self, file: LedgerFile, *, clock: Callable[[], datetime], warn: Observer) -> None:
        self._file = file
        self._clock = clock
        self._warn = warn
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._waiting: dict[tuple[str, str], AuditCount] = {}
        self._marks = Marks({}, today=clock().date())
        self._risen: dict[str, Best] = {}
        self._troubled = False
        self._told_full = False

    @classmethod
    async def open(cls, path: Path | str, *, clock: Callable[[], datetime], warn: Observer) -> Ledger:
        """Open the file.

        :raises LedgerUnavailable: if that cannot be done.
        """
        ledger = cls(await asyncio.to_thread(LedgerFile, path), clock=clock, warn=warn)
        await ledger._load_marks()
        return ledger

    async def _load_marks(self) -> None:
        today = self._clock().date()
        await self._call(lambda: self._file.forget_marks("", before=today - KEPT))
        self._marks = Marks(await self._call(self._file.marks), today=today)

    def best(self, destination: str) -> Best:
        """The best that was seen at a next-hop, by its key."""
        return self._marks.best(destination)

    def saw(self, destination: str, mark: Mark, host: str) -> None:
        """Mail went over a session that is worth so much."""
        risen = self._marks.saw(destination, mark, host, self._clock().date())
        if risen is not None:
            self._risen[destination] = risen
        elif self._marks.full and not self._told_full:
            self._told_full = True
            self._warn(Warned(Program.SMTP, f"the ratchet remembers {MAX_MARKS} destinations and has no room for more"))

    def observe(self, event: Event) -> None:
        """Take note of what concerns the ledger."""
        if not isinstance(event, SessionAudited):
            return
        one = one_session(event, self._clock())
        key = (one.destination, one.level)
        if key in self._waiting:
            self._waiting[key] = self._waiting[key].plus(one)
        elif len(self._waiting) < MAX_WAITING:
            self._waiting[key] = one

    async def run(self) -> None:
        """Write what was noted, once a second; raises nothing but cancellation."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self.write()

    async def write(self) -> None:
        """Write what was noted; findings that cannot be written are lost, marks are tried again."""
        waiting, self._waiting = self._waiting, {}
        risen, self._risen = self._risen, {}
        if not waiting and not risen:
            return
        try:
            if risen:
                await self._call(lambda: self._file.keep_marks(risen))
                risen = {}
            if waiting:
                await self._call(lambda: self._file.add(waiting.values()))
            self._troubled = False
        except LedgerUnavailable as error:
            self._risen = {**risen, **self._risen}
            if not self._troubled:
                self._warn(Warned(Program.SMTP, f"what was seen of destinations is not written down: {error}"))
            self._troubled = True

    async def ask(self, command: str, destination: str) -> Sequence[Mapping[str, object]]:
        """Carry out a command (``relay.ledger.commands``) on everything up to now.

        :raises LedgerUnavailable: if the file cannot be read or written.
        """
        await self.write()
        answered = await self._call(lambda: answer(self._file, command, destination))
        if command == FORGET_MARK:
            self._marks.forget((destination,))
        return answered

    async def close(self) -> None:
        """Write what is left, and close."""
        await self.write()
        try:
            await self._call(self._file.close)
        except LedgerUnavailable as error:
            self._warn(Warned(Program.SMTP, f"the ledger did not close: {error}"))
        self._thread.shutdown()

    async def _call(self, act: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, act)
