from __future__ import annotations

import errno
import io
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from relay.log.events import Event, Noted, Program
from relay.log.json import JsonLines
from relay.log.postfix import PostfixLines
from relay.log.sink import STANDARD_OUTPUT, LogFailed, Sink, compose
from tests.unit.log.cases import AT, CASES, ID

POSTFIX = PostfixLines(hostname="h", pid=1)


def clock() -> datetime:
    return AT


class Failing(io.BytesIO):
    """An output that can be told to fail, or to take only so many octets before it does."""

    def __init__(self) -> None:
        super().__init__()
        self.room: int | None = None

    def write(self, data: object) -> int:
        octets = bytes(data)  # type: ignore[call-overload]  # a buffer, as BytesIO.write takes it
        if self.room is None:
            return super().write(octets)
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = octets[: self.room]
        self.room -= len(taken)
        return super().write(taken)


@pytest.fixture
def failing() -> Failing:
    return Failing()


def note(text: str) -> Noted:
    return Noted(Program.MASTER, text)


def line(text: str) -> str:
    return f"Nov 22 05:32:05 h postfix/master[1]: {text}\n"


def test_a_file_is_appended_to_and_private(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    for text in ("one", "two"):
        sink = Sink(POSTFIX, path, clock=clock)
        sink.observe(note(text))
        sink.close()
    assert path.read_text() == line("one") + line("two")
    assert path.stat().st_mode & 0o007 == 0


def test_lines_are_in_the_file_when_observe_returns(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    sink = Sink(POSTFIX, path, clock=clock)
    sink.observe(CASES["accepted"])
    assert path.read_text().count("\n") == 2
    sink.close()


def test_lines_of_about_the_same_time_are_one_write_and_none_is_lost_at_the_end() -> None:
    class Output(io.BytesIO):
        writes = 0

        def write(self, data: object) -> int:
            self.writes += 1
            return super().write(bytes(data))  # type: ignore[call-overload]  # as above

    output, calls = Output(), list[Callable[[], None]]()
    sink = Sink(POSTFIX, STANDARD_OUTPUT, clock=clock, output=output, later=calls.append)
    for text in ("one", "two", "three"):
        sink.observe(note(text))
    assert (len(calls), output.writes) == (1, 0)
    calls.pop()()
    assert (output.getvalue().decode(), output.writes) == (line("one") + line("two") + line("three"), 1)
    sink.observe(note("four"))
    assert len(calls) == 1
    sink.close()
    assert output.getvalue().decode().endswith(line("four"))
    calls.pop()()
    assert output.writes == 2


def test_what_was_said_before_a_reopen_is_in_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    sink = Sink(POSTFIX, path, clock=clock, later=lambda write: None)
    sink.observe(note("one"))
    path.rename(tmp_path / "mail.log.1")
    sink.reopen()
    sink.observe(note("two"))
    sink.close()
    assert (tmp_path / "mail.log.1").read_text() == line("one")
    assert path.read_text() == line("two")


def test_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    sink = Sink(JsonLines(hostname="h", pid=1), STANDARD_OUTPUT, clock=clock)
    sink.observe(CASES["removed"])
    sink.close()
    assert b'"event":"removed","queue_id":"' + ID.encode() in capfdbinary.readouterr().out


def test_an_event_without_lines_writes_nothing(tmp_path: Path) -> None:
    sink = Sink(POSTFIX, tmp_path / "mail.log", clock=clock)
    sink.observe(CASES["no TLS"])
    assert (tmp_path / "mail.log").read_bytes() == b""
    sink.close()


def test_logrotate(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    sink = Sink(POSTFIX, path, clock=clock)
    sink.observe(note("one"))
    path.rename(tmp_path / "mail.log.1")
    sink.observe(note("two"))
    sink.reopen()
    sink.observe(note("three"))
    sink.close()
    assert (tmp_path / "mail.log.1").read_text() == line("one") + line("two")
    assert path.read_text() == line("three")


def test_a_reopen_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    said = io.StringIO()
    sink = Sink(POSTFIX, folder / "mail.log", clock=clock, complaints=said)
    folder.rename(tmp_path / "moved")
    sink.reopen()
    sink.observe(note("still here"))
    sink.close()
    assert (tmp_path / "moved" / "mail.log").read_text() == line("still here")
    assert "mail.log" in said.getvalue()
    assert "the old file goes on" in said.getvalue()


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogFailed, match=r"log\.file .*/nowhere/mail\.log: .*No such file or directory"):
        Sink(POSTFIX, tmp_path / "nowhere" / "mail.log", clock=clock)


def test_a_failing_write_is_reported_once_and_so_is_the_recovery(tmp_path: Path, failing: Failing) -> None:
    said = io.StringIO()
    sink = Sink(POSTFIX, tmp_path / "mail.log", clock=clock, output=failing, complaints=said)
    failing.room = 0
    sink.observe(note("lost"))
    sink.observe(note("lost too"))
    assert said.getvalue().count("\n") == 1
    assert "No space left on device" in said.getvalue()
    failing.room = None
    sink.observe(note("back"))
    assert failing.getvalue().decode() == line("back")
    assert "2 lines were lost" in said.getvalue()
    assert said.getvalue().count("\n") == 2


def test_a_torn_line_does_not_swallow_the_next(tmp_path: Path, failing: Failing) -> None:
    sink = Sink(POSTFIX, tmp_path / "mail.log", clock=clock, output=failing, complaints=io.StringIO())
    failing.room = 20
    sink.observe(note("torn"))
    failing.room = None
    sink.observe(note("whole"))
    assert failing.getvalue().decode() == line("torn")[:20] + "\n" + line("whole")


def test_nobody_left_to_complain_to(tmp_path: Path, failing: Failing) -> None:
    said = io.StringIO()
    said.close()
    sink = Sink(POSTFIX, tmp_path / "mail.log", clock=clock, output=failing, complaints=said)
    failing.room = 0
    sink.observe(note("lost"))


def test_a_closed_output_does_not_raise(tmp_path: Path) -> None:
    said = io.StringIO()
    sink = Sink(POSTFIX, tmp_path / "mail.log", clock=clock, complaints=said)
    sink.close()
    sink.observe(note("late"))
    assert "mail goes on without it" in said.getvalue()


def test_composed_observers_are_all_told_though_one_fails(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[Event] = []

    def broken(event: Event) -> None:
        raise ZeroDivisionError("broken observer")

    both: Callable[[Event], None] = compose(broken, told.append)
    both(CASES["removed"])
    assert told == [CASES["removed"]]
    assert "broken observer" in capsys.readouterr().err
