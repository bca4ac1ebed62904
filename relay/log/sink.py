"""Where log lines go: standard output or a file, what happens at about the same time in one write.

A log that cannot be written never stops mail: the first failure is told on standard error, and when writing works again
the number of lines lost is told there too.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TextIO

from relay.log.events import Event, Observer

_MODE = 0o640  # addresses of people are in it


class Lines(Protocol):
    """Words events: ``PostfixLines`` or ``JsonLines``."""

    def lines(self, event: Event, at: datetime) -> tuple[str, ...]:
        """The lines of one event, without line ends."""
        ...


class LogFailed(Exception):  # noqa: N818 - it names what happened, not the handling
    """The log file cannot be opened; the message names it and says why."""


class StandardOutput(Enum):
    """The destination that is no file."""

    STANDARD_OUTPUT = "standard output"

    def __str__(self) -> str:
        return self.value


STANDARD_OUTPUT: Final = StandardOutput.STANDARD_OUTPUT


def destination(file: str) -> Path | StandardOutput:
    """Where ``log.file`` points: the empty text means standard output."""
    return Path(file) if file else STANDARD_OUTPUT


class Sink:
    """Writes each event's lines as they happen; ``observe`` is an Observer.

    :param to: a file to append to, or ``STANDARD_OUTPUT``.
    :param clock: gives the time of the event, aware.
    :param complaints: where a failing log is reported.
    :param later: has lines written, together with what else happens before it calls; None to write those of each event at once.
    :param shared: whether other processes write there too: then what is written at once is no more than a pipe takes whole.
        (What is added to a file is whole anyway.)
    :raises LogFailed: if the file cannot be opened.
    """

    def __init__(
        self,
        words: Lines,
        to: Path | StandardOutput,
        *,
        clock: Callable[[], datetime],
        output: BinaryIO | None = None,
        complaints: TextIO | None = None,
        later: Callable[[Callable[[], None]], object] | None = None,
        shared: bool = False,
    ) -> None:
        self._words = words
        self._path = to
        self._clock = clock
        self._complaints = sys.stderr if complaints is None else complaints
        self._output = output if output is not None else self._open()
        self._later = later
        self._shared = shared and isinstance(to, StandardOutput)
        self._unwritten: list[str] = []
        self._lost = 0
        self._torn = False

    def _open(self) -> BinaryIO:
        if isinstance(self._path, StandardOutput):
            return sys.stdout.buffer
        try:
            return open(self._path, "ab", buffering=0, opener=_private)
        except OSError as error:
            raise LogFailed(f"log.file {self._path}: cannot open it for appending: {error.strerror}") from error

    def observe(self, event: Event) -> None:
        """Write the event's lines; a failing write is reported once and lost."""
        lines = self._words.lines(event, self._clock())
        if not lines:
            return
        if self._later is not None and not self._unwritten:
            self._later(self.flush)
        self._unwritten += lines
        if self._later is None:
            self.flush()

    def flush(self) -> None:
        """Write what was observed."""
        lines, self._unwritten = self._unwritten, []
        if lines and self._shared:
            for piece in _pieces(lines):
                self._write(b"".join(piece), len(piece))
        elif lines:
            lines.append("")
            self._write("\n".join(lines).encode("utf-8", "backslashreplace"), len(lines) - 1)

    def _write(self, data: bytes, count: int) -> None:
        rest = memoryview(b"\n" + data if self._torn else data)
        try:
            while rest:
                # A nonblocking descriptor answers None where it would block.
                written = self._output.write(rest) or 0
                if not written:
                    raise BlockingIOError(errno.EAGAIN, "the reader of the log does not read")
                rest = rest[written:]
                self._torn = bool(rest)
            self._output.flush()
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            self._lost += count
            if self._lost == count:
                self._complain(f"cannot write the log to {self._path}: {error}; mail goes on without it")
            return
        if self._lost:
            self._complain(f"the log to {self._path} can be written again; {self._lost} lines were lost")
            self._lost = 0

    def _complain(self, text: str) -> None:
        try:
            self._complaints.write(f"dane-relay: {text}\n")
            self._complaints.flush()
        except (OSError, ValueError):
            return  # nowhere left to say it

    def reopen(self) -> None:
        """Go on in a new file of the same name (logrotate moved the old one); if that fails, keep the old one."""
        self.flush()
        if isinstance(self._path, StandardOutput):
            return
        try:
            fresh = self._open()
        except LogFailed as error:
            self._complain(f"{error}; the old file goes on")
            return
        old, self._output, self._torn = self._output, fresh, False
        old.close()

    def close(self) -> None:
        """Write what was observed and close the file; standard output stays open."""
        self.flush()
        if not isinstance(self._path, StandardOutput):
            self._output.close()


def _pieces(lines: Iterable[str]) -> Iterator[list[bytes]]:
    """Lines in groups that a pipe takes whole (PIPE_BUF, pipe(7)); a line that is longer stands alone."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        encoded = line.encode("utf-8", "backslashreplace") + b"\n"
        if piece and size + len(encoded) > select.PIPE_BUF:
            yield piece
            piece, size = [], 0
        piece.append(encoded)
        size += len(encoded)
    if piece:
        yield piece


def compose(*observers: Observer) -> Observer:
    """One Observer that tells all of these; a failing one neither stops the others nor whoever told of the event."""

    def tell(event: Event) -> None:
        for observer in observers:
            try:
                observer(event)
            except Exception:  # telling of an event must not change what happens to mail
                with suppress(OSError, ValueError):
                    traceback.print_exc(file=sys.stderr)

    return tell


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, _MODE)
