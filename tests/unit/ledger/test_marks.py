"""Marks: they rise, are bounded, outlive the relay, and go when somebody says so."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

import relay.ledger.marks as marks_module
from relay.ledger.commands import FORGET_MARK, RATCHET, best_of
from relay.ledger.file import LedgerFile
from relay.ledger.ledger import Ledger
from relay.ledger.marks import KEPT, Marks
from relay.log.events import Event, Warned
from relay.policy.ratchet import UNSEEN, Mark

DAY = date(2026, 11, 26)


def test_they_rise_and_never_fall() -> None:
    marks = Marks({}, today=DAY)
    assert marks.saw("a", Mark.NOTHING, "h", DAY) is None
    assert marks.best("a") == UNSEEN
    assert marks.saw("a", Mark.ENCRYPTED, "h1", DAY) is not None
    assert marks.saw("a", Mark.ENCRYPTED, "h2", DAY) is None
    risen = marks.saw("a", Mark.DANE, "h3", DAY + timedelta(days=1))
    assert risen is not None
    assert (risen.host, risen.since) == ("h3", DAY + timedelta(days=1))
    assert marks.saw("a", Mark.ENCRYPTED, "h4", DAY + timedelta(days=2)) is None
    again = marks.saw("a", Mark.DANE, "h5", DAY + timedelta(days=2))
    assert again is not None
    assert (again.host, again.since, again.last) == ("h3", risen.since, DAY + timedelta(days=2))


def test_what_is_new_never_pushes_out_what_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks_module, "MAX_MARKS", 2)
    marks = Marks({}, today=DAY)
    for name in "abc":
        marks.saw(name, Mark.ENCRYPTED, "h", DAY)
    assert [marks.best(name).mark for name in "abc"] == [Mark.ENCRYPTED, Mark.ENCRYPTED, Mark.NOTHING]
    assert marks.full
    assert marks.saw("a", Mark.DANE, "h", DAY) is not None  # what is known may still rise
    marks.forget(["b"])
    assert marks.saw("c", Mark.ENCRYPTED, "h", DAY) is not None


def test_a_mark_that_nothing_was_worth_for_a_year_goes() -> None:
    marks = Marks({}, today=DAY)
    best = marks.saw("a", Mark.DANE, "h", DAY)
    assert best is not None
    assert Marks({"a": best}, today=DAY + KEPT).best("a").mark is Mark.DANE
    assert Marks({"a": best}, today=DAY + KEPT + timedelta(days=1)).best("a") == UNSEEN


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 26, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


async def test_they_outlive_the_relay_and_can_be_forgotten(tmp_path: Path) -> None:
    clock, said, path = Clock(), list[Event](), tmp_path / "policy.sqlite"
    ledger = await Ledger.open(path, clock=clock, warn=said.append)
    ledger.saw("a.example", Mark.ENCRYPTED, "mx[192.0.2.1]:25")
    ledger.saw("a.example", Mark.DANE, "mx[192.0.2.1]:25")
    ledger.saw("b.example", Mark.ENCRYPTED, "mx[192.0.2.2]:25")
    await ledger.close()
    ledger = await Ledger.open(path, clock=clock, warn=said.append)
    assert ledger.best("a.example").mark is Mark.DANE
    listed = await ledger.ask(RATCHET, "")
    assert [(one["destination"], best_of(one)) for one in listed] == [
        (name, ledger.best(name)) for name in ("a.example", "b.example")
    ]
    assert await ledger.ask(FORGET_MARK, "a.example") == [{"forgotten": 1}]
    assert ledger.best("a.example") == UNSEEN
    assert await ledger.ask(FORGET_MARK, "a.example") == [{"forgotten": 0}]
    await ledger.close()
    clock.now += KEPT + timedelta(days=1)
    ledger = await Ledger.open(path, clock=clock, warn=said.append)
    assert await ledger.ask(RATCHET, "") == []
    await ledger.close()
    assert not said


async def test_a_mark_that_could_not_be_written_is_tried_again(tmp_path: Path) -> None:
    said: list[Event] = []
    path = tmp_path / "policy.sqlite"
    ledger = await Ledger.open(path, clock=Clock(), warn=said.append)
    ledger._file._connection.execute("ALTER TABLE ratchet RENAME TO away")
    ledger.saw("a.example", Mark.DANE, "mx[192.0.2.1]:25")
    await ledger.write()
    await ledger.write()
    (warned,) = said
    assert isinstance(warned, Warned)
    ledger._file._connection.execute("ALTER TABLE away RENAME TO ratchet")
    await ledger.close()
    file = LedgerFile(path)
    assert file.marks()["a.example"].mark is Mark.DANE
    file.close()


def test_a_file_of_the_first_version_is_carried_on(tmp_path: Path) -> None:
    path = tmp_path / "policy.sqlite"
    file = LedgerFile(path)
    file._connection.execute("DROP TABLE ratchet; PRAGMA user_version=1")
    file.close()
    file = LedgerFile(path)
    assert not file.marks()
    file.close()
