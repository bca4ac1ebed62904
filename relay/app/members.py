"""A worker as its parent sees it: a process that is started, and started again when it ends without being asked to."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from relay.app.posts import EMPTY, EMPTY_MARK, READY, RELOAD, STOP, Post, name_of
from relay.log.events import Noted, Observer, Program, Warned

# Seconds before a worker that ended is started again: so long at first, twice as long each time, at most so long.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
# Seconds of work after which an end counts as the first.
_STEADY = 60.0
# Seconds beyond the time to drain after which a worker that does not end is killed.
_GRACE = 15.0
CANNOT_START = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Starting:
    """How workers are started.

    :param source: the configuration's file.
    :param descriptors: what they inherit besides: the lock of the state directory, listening sockets.
    :param environment: theirs.
    """

    source: Path
    descriptors: Sequence[int]
    environment: Mapping[str, str]


class Member:
    """One worker.

    :param post: its descriptor ``parent`` is filled in at each start.
    :param patience: seconds that it has to end (``relay.drain_time``).
    :param ended: called when its process has ended, before another is started.

    ``ready`` is set while it is up, ``failed`` when it ended before it ever was; ``needed`` until its queue is given up.
    """

    def __init__(
        self,
        post: Post,
        starting: Starting,
        *,
        patience: float,
        monotonic: Callable[[], float],
        observe: Observer,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self.post = post
        self._starting = starting
        self._patience = patience
        self._monotonic = monotonic
        self._observe = observe
        self._ended = ended
        self._line: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._stops = 0
        self.ready = asyncio.Event()
        self.failed = asyncio.Event()
        self.needed = True
        self._found_empty = False
        self._was_up = False

    @property
    def name(self) -> str:
        """What people call it."""
        return name_of(self.post.number)

    @property
    def pid(self) -> int:
        """Of its process; 0 where there is none."""
        return 0 if self._process is None else self._process.pid

    async def run(self) -> None:
        """Keep it running until ``stop``, or until its queue is empty where it is there for that."""
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = self._monotonic()
            try:
                status = await self.run_once()
            except OSError as error:  # no process can be made now
                self._observe(Warned(Program.MASTER, f"{self.name} cannot be started: {error}"))
                self.failed.set()
                status = CANNOT_START
            if self._stopping.is_set():
                return
            if self.post.drains and status == 0:
                if self._found_empty:
                    self.needed = False
                    with suppress(OSError):  # then it is looked at again at the next start
                        (self.post.office / EMPTY_MARK).touch()
                    self._observe(Noted(Program.MASTER, f"{self.name} has no mail left and is needed no more"))
                    return
                # It saw its queue become empty: that is looked at once more, by a process that changes nothing in it.
                self._observe(Noted(Program.MASTER, f"{self.name} has delivered what it had"))
            else:
                pause = FIRST_PAUSE if self._monotonic() - began > _STEADY else pause
                text = f"{self.name} ended ({_status(status)}); it is started again in {pause:g} s"
                self._observe(Warned(Program.MASTER, text))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            pause = min(2 * pause, LONGEST_PAUSE)

    async def run_once(self) -> int:
        """Start it and wait for its end; returns its exit status, negative for a signal."""
        process = await self._start()
        waiting = asyncio.ensure_future(process.wait())
        try:
            stopping = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            done, _ = await asyncio.wait((waiting,), timeout=self._patience + _GRACE if not waiting.done() else None)
            if not done:
                self._observe(Warned(Program.MASTER, f"{self.name} does not end, and is killed"))
                process.kill()
            return await waiting
        finally:
            if not self._was_up:
                self.failed.set()
            self.ready.clear()
            self._hang_up()
            self._process = None
            self._ended()

    def replace(self, reason: str) -> None:
        """End its process at once, and start another.

        :param reason: why, for the log.
        """
        if self._process is not None and self._process.returncode is None:
            self._observe(Warned(Program.MASTER, f"{self.name} {reason}, and is killed"))
            self._process.kill()

    def stop(self) -> None:
        """Have it end; asked again, at once."""
        self._stopping.set()
        self._stops += 1
        self._tell(STOP)

    def reload(self) -> None:
        """Have it read its rules anew, and open its log."""
        self._tell(RELOAD)

    async def _start(self) -> asyncio.subprocess.Process:
        await asyncio.to_thread(_unmark, self.post.office / EMPTY_MARK)
        ours, its = socket.socketpair()
        ours.setblocking(False)
        self._line, self._found_empty = ours, False
        post = replace(self.post, parent=its.fileno())
        command = [sys.executable, "-m", "relay", "serve", "-c", str(self._starting.source), "--post", post.written()]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(its.fileno(), *self._starting.descriptors),
                env=dict(self._starting.environment),
                start_new_session=True,  # a terminal's ^C is for the parent
            )
        except OSError:
            self._line = None
            ours.close()
            raise
        finally:
            its.close()
        asyncio.get_running_loop().add_reader(ours, self._hear)
        for _ in range(self._stops):
            self._tell(STOP)
        self._process = process
        return process

    def _hear(self) -> None:
        if self._line is None:
            return
        try:
            said = self._line.recv(64)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            asyncio.get_running_loop().remove_reader(self._line)
        if READY in said:
            self._was_up = True
            self.ready.set()
        if EMPTY in said:
            self._found_empty = True

    def _tell(self, word: bytes) -> None:
        if self._line is not None:
            with suppress(OSError):  # it is gone, and its end is waited for elsewhere
                self._line.send(word)

    def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            self._hear_last(line)
            asyncio.get_running_loop().remove_reader(line)
            line.close()

    def _hear_last(self, line: socket.socket) -> None:
        with suppress(OSError):
            self._found_empty = self._found_empty or EMPTY in line.recv(64)


def _status(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def _unmark(mark: Path) -> None:
    """Remove it for good: after a crash of the machine it must not say that mail which came in since is not there."""
    if not mark.exists():
        return
    mark.unlink()
    directory = os.open(mark.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def environment_of_workers() -> dict[str, str]:
    """Ours, but for the service manager's socket, which is the parent's alone."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
    }
