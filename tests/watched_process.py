"""A program that a test starts, and whose output it reads line by line while waiting for things to happen."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

LINES_SHOWN = 40
PATIENCE = 60.0
"""Seconds before a test gives up waiting: long, because a slow machine is no failure."""


class WatchedProcess:
    """One child in a process group of its own.

    :param command: program and arguments; its standard output and error are read as one stream of lines.
    :param log: where the same lines are kept, so that other programs can read them; appended to.
    :param commands: whether it is told lines (``say``); else its standard input is empty.
    :param descriptors: open files that it shares, under the same numbers.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        commands: bool = False,
        descriptors: Sequence[int] = (),
    ) -> None:
        self.name = Path(command[0]).name
        self.log = log
        self._lines: list[str] = []
        self._ended = False
        self._grew = threading.Condition()
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE if commands else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=directory,
            start_new_session=True,
            pass_fds=descriptors,
        )
        self._reader = threading.Thread(target=self._read, name=f"reader of {self.name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream, self.log.open("ab") as log:
            for raw in stream:
                log.write(raw)
                log.flush()
                with self._grew:
                    self._lines.append(raw.decode("utf-8", "backslashreplace").rstrip("\r\n"))
                    self._grew.notify_all()
        with self._grew:
            self._ended = True
            self._grew.notify_all()

    def say(self, line: str) -> None:
        """Give it a line on its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def end_input(self) -> None:
        """Close its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def lines(self) -> tuple[str, ...]:
        """Everything it has written up to now."""
        with self._grew:
            return tuple(self._lines)

    def mark(self) -> int:
        """A place in the output; ``wait_for(..., since=mark)`` looks only at what comes after it."""
        with self._grew:
            return len(self._lines)

    def wait_for(self, pattern: str, *, since: int = 0, patience: float = PATIENCE) -> re.Match[str]:
        """Return the first line on which the pattern is found, waiting for it to be written.

        :raises AssertionError: if the program ends, or the patience does, before it was seen; shows the last lines.
        """
        wanted = re.compile(pattern)
        deadline = time.monotonic() + patience
        seen = since
        with self._grew:
            while True:
                for line in self._lines[seen:]:
                    if found := wanted.search(line):
                        return found
                seen = len(self._lines)
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    why = f"ended with status {self._process.poll()}" if self._ended else f"did not in {patience:.0f} s"
                    tail = "\n".join(self._lines[-LINES_SHOWN:])
                    raise AssertionError(f"{self.name} {why}; expected a line with {pattern!r}; it said last:\n{tail}")
                self._grew.wait(left)

    def wait(self, *, patience: float = PATIENCE) -> int:
        """Wait until it ends by itself and return its exit status (negative: the signal that ended it)."""
        status = self._process.wait(patience)
        self._reader.join(patience)
        return status

    def signal(self, number: int) -> None:
        """Send a signal to the child alone."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, as a crash would, with everything it started."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ask it to end, and make it end if it does not; returns its exit status."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE / 2)
            except subprocess.TimeoutExpired:
                pass
        status = self._process.poll()
        self._end(signal.SIGKILL)
        return self._process.returncode if status is None else status

    def _end(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)  # the group may outlive its leader
        except ProcessLookupError:
            pass
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        if self._process.stdin is not None:
            self._process.stdin.close()

    def __enter__(self) -> WatchedProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
