"""What is remembered of destinations: counted, bounded, written down, and never in the way."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest

import relay.ledger.file as ledger_file
from relay.ledger.commands import AUDITS, COMMANDS, FORGET_AUDITS, answer
from relay.ledger.file import LedgerFile, LedgerUnavailable
from relay.ledger.findings import AuditCount, count_object, count_of, one_session, totals
from relay.ledger.ledger import MAX_WAITING, Ledger
from relay.log.events import Event, Removed, SessionAudited, Warned
from relay.mail.envelope import QueueId
from relay.outcome.result import RelayHost
from relay.policy.audit import Finding
from relay.policy.level import Level

AT = datetime(2026, 11, 26, 12, tzinfo=UTC)
MX = RelayHost("mx.example.com", ip_address("192.0.2.1"), 25)


def event(finding: Finding, destination: str = "example.com", text: str = "because") -> SessionAudited:
    return SessionAudited(
        queue_id=QueueId("4XYZ"),
        destination=destination,
        relay=MX,
        asked=Level.DANE,
        level=Level.MAY,
        finding=finding,
        text=text,
    )


def count(finding: Finding, destination: str = "example.com", at: datetime = AT, text: str = "because") -> AuditCount:
    return one_session(event(finding, destination, text), at)


def test_counts_add_up_and_keep_the_last_reason() -> None:
    whole = count(Finding.VERIFIED).plus(count(Finding.REFUSED, text="old"))
    whole = whole.plus(count(Finding.REFUSED, at=AT + timedelta(hours=1), text="new"))
    assert (whole.verified, whole.sessions) == (1, 3)
    assert whole.why[Finding.REFUSED].text == "new"
    assert (whole.first, whole.last) == (AT, AT + timedelta(hours=1))
    assert count_of(json.loads(json.dumps(count_object(whole)))) == whole
    assert totals([whole, count(Finding.VERIFIED, "b.example")]) == (2, 4, 1, 2)


def test_the_file_keeps_counts(tmp_path: Path) -> None:
    path = tmp_path / "policy.sqlite"
    for finding in (Finding.VERIFIED, Finding.REFUSED):
        file = LedgerFile(path)
        file.add([count(finding), count(finding, "b.example")])
        file.close()
    file = LedgerFile(path)
    assert [(one.destination, one.verified, one.sessions) for one in file.audits()] == [
        ("b.example", 1, 2),
        ("example.com", 1, 2),
    ]
    assert [one["destination"] for one in answer(file, AUDITS, "b.example")] == ["b.example"]
    assert answer(file, FORGET_AUDITS, "b.example") == [{"forgotten": 1}]
    assert answer(file, FORGET_AUDITS, "") == [{"forgotten": 1}]
    assert answer(file, AUDITS, "") == []
    with pytest.raises(ValueError, match="unknown command"):
        answer(file, "policy nonsense", "")
    assert {AUDITS, FORGET_AUDITS} <= set(COMMANDS)
    file.close()


def test_those_audited_longest_ago_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_file, "MAX_AUDITED", 3)
    file = LedgerFile(":memory:")
    for number in range(5):
        file.add([count(Finding.VERIFIED, f"d{number}.example", AT + timedelta(seconds=number))])
    assert [one.destination for one in file.audits()] == ["d2.example", "d3.example", "d4.example"]
    file.close()


def test_a_damaged_file_and_one_of_a_later_release_are_named(tmp_path: Path) -> None:
    path = tmp_path / "policy.sqlite"
    path.write_bytes(b"nothing like a database, and longer than a header of one" * 20)
    with pytest.raises(LedgerUnavailable, match=r"policy\.sqlite: .*not a database.*move it away"):
        LedgerFile(path)
    path.unlink()
    file = LedgerFile(path)
    file._connection.execute("PRAGMA user_version=99")
    file.close()
    with pytest.raises(LedgerUnavailable, match="later release"):
        LedgerFile(path)


async def opened(path: Path | str, said: list[Event]) -> Ledger:
    return await Ledger.open(path, clock=lambda: AT, warn=said.append)


async def test_what_was_observed_is_written_at_the_close(tmp_path: Path) -> None:
    said: list[Event] = []
    ledger = await opened(tmp_path / "policy.sqlite", said)
    for finding in (Finding.VERIFIED, Finding.UNKNOWN, Finding.UNKNOWN):
        ledger.observe(event(finding))
    ledger.observe(said_of_something_else())
    assert [one["unknown"] for one in await ledger.ask(AUDITS, "")] == [2]
    ledger.observe(event(Finding.VERIFIED))
    await ledger.close()
    file = LedgerFile(tmp_path / "policy.sqlite")
    assert [(one.verified, one.sessions) for one in file.audits()] == [(2, 4)]
    file.close()
    assert not said


def said_of_something_else() -> Event:
    return Removed(QueueId("4XYZ"))


async def test_a_disk_that_fails_is_told_once_and_holds_nothing(tmp_path: Path) -> None:
    said: list[Event] = []
    ledger = await opened(tmp_path / "policy.sqlite", said)
    ledger._file._connection.execute("DROP TABLE audit")
    for _ in range(2):
        ledger.observe(event(Finding.VERIFIED))
        await ledger.write()
    (warned,) = said
    assert isinstance(warned, Warned)
    assert "what was seen of destinations is not written down" in warned.text
    with pytest.raises(LedgerUnavailable):
        await ledger.ask(AUDITS, "")
    await ledger.close()


async def test_what_waits_is_bounded() -> None:
    ledger = await opened(":memory:", [])
    for number in range(MAX_WAITING + 10):
        ledger.observe(event(Finding.VERIFIED, f"d{number}.example"))
    assert len(await ledger.ask(AUDITS, "")) == MAX_WAITING
    await ledger.close()
