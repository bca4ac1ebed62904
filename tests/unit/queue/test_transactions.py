"""The jobs of the SQLite queue by the statements that they take: each costs a wait for Python's lock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw
import pytest

from relay.mail.envelope import Message, RecipientId
from relay.queue import arrivals, selection, transactions
from relay.queue.connecting import Connecting
from relay.queue.rows import Body, InFile, InRow
from relay.queue.store import Lease, Settlement
from tests.unit.queue.samples import DEFERRED, LEASE, SENT, T0, new

ROW = InRow(b"Subject: x\r\n\r\nhello\r\n")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[apsw.Connection]:
    connection, _ = Connecting(path=tmp_path / "q").first(lambda _: None)
    yield connection
    connection.close()


def put(connection: apsw.Connection, queue_id: str, *recipients: str, body: Body = ROW) -> Message:
    message = new(queue_id, *recipients)
    stored = arrivals.stored(message, 22, eight_bit=False)
    arrivals.put(connection, stored, message.destinations, body)
    return stored


def lease(connection: apsw.Connection, *rooms: str, kept: Sequence[Message] = (), limit: int = 0) -> list[Lease]:
    def choose(connection: apsw.Connection, /, *, now: int) -> list[selection.Candidate]:
        return selection.choose_at(connection, now=now, rooms=dict.fromkeys(rooms, 9))

    until, memory = T0 + LEASE, {message.queue_id: message for message in kept}
    return transactions.lease(connection, choose, now=T0, until=until, serial=1, recipient_limit=limit, kept=memory.get)


def said(connection: apsw.Connection) -> list[str]:
    """The first words of statements from now on."""
    words: list[str] = []

    def hear(cursor: apsw.Cursor, statement: str, bindings: object) -> bool:
        words.append(statement.split(maxsplit=1)[0])
        return True

    connection.exec_trace = hear
    return words


def settlement(held: Lease, *results: object) -> Settlement:
    pairs = zip(held.recipients, results, strict=False)
    return Settlement(lease=held, results={one.id: result for one, result in pairs}, next_attempt=T0)  # type: ignore[misc]


def rows(connection: apsw.Connection) -> list[int]:
    tables = ("message", "body", "delivery", "recipient")
    return [connection.execute(f"SELECT count(*) FROM {table}").get for table in tables]


@pytest.mark.parametrize("recipients", [("one@a.example",), ("one@a.example", "two@a.example", "three@a.example")])
def test_a_message_that_is_done_whole_goes_with_one_statement(
    connection: apsw.Connection, recipients: tuple[str]
) -> None:
    put(connection, "A", *recipients)
    put(connection, "B", *recipients)
    held = lease(connection, "a.example")
    words = said(connection)
    assert transactions.settle(connection, settlement(held[0], *[SENT] * 3)) == transactions.Settled(
        last=True, spool=""
    )
    assert words == ["DELETE"]
    assert rows(connection) == [1, 1, 1, len(recipients)]


def test_what_is_more_than_that_goes_the_long_way(connection: apsw.Connection) -> None:
    kept = transactions.Settled(last=False, spool="")
    put(connection, "A", "one@a.example", "two@a.example", "three@b.example")
    first, other = lease(connection, "a.example", "b.example")
    assert transactions.settle(connection, settlement(first, SENT, DEFERRED)) == kept
    assert rows(connection) == [1, 1, 2, 3]
    (again,) = lease(connection, "a.example")
    assert [one.id for one in again.recipients] == [RecipientId(2)]
    assert transactions.settle(connection, settlement(other, SENT)) == kept
    assert transactions.settle(connection, settlement(again, SENT)) == transactions.Settled(last=True, spool="")
    assert rows(connection) == [0, 0, 0, 0]


def test_the_file_of_a_large_body_is_named(connection: apsw.Connection) -> None:
    put(connection, "A", "one@a.example", body=InFile("file"))
    (held,) = lease(connection, "a.example")
    assert transactions.settle(connection, settlement(held, SENT)) == transactions.Settled(last=True, spool="file")


def test_a_lease_takes_three_statements(connection: apsw.Connection) -> None:
    put(connection, "A", "one@a.example", "two@a.example")
    words = said(connection)
    assert len(lease(connection, "a.example")) == 1
    assert words == ["SELECT", "SELECT", "SELECT", "SELECT", "UPDATE"], "two of them look for what is due"


def test_what_is_in_memory_is_not_read(connection: apsw.Connection) -> None:
    put(connection, "A", "one@a.example", "two@b.example")
    put(connection, "B", "three@a.example")
    message = arrivals.stored(new("A", "one@a.example", "two@b.example"), 22, eight_bit=False)
    words = said(connection)
    in_memory, read = lease(connection, "a.example", kept=[message])
    assert words == ["SELECT", "SELECT", "UPDATE", "SELECT", "SELECT", "UPDATE"]
    assert in_memory.message is message
    assert [str(one.address) for one in in_memory.recipients] == ["one@a.example"]
    assert in_memory.total_recipients == 2
    assert str(read.message.queue_id) == "B"


def test_the_database_knows_better_than_memory_who_is_left(connection: apsw.Connection) -> None:
    people = ("one@a.example", "two@a.example", "three@a.example")
    message = put(connection, "A", *people)
    connection.execute("DELETE FROM recipient WHERE address = 'two@a.example'")
    connection.execute("UPDATE recipient SET delay_told = 1 WHERE address = 'three@a.example'")
    (held,) = lease(connection, "a.example", kept=[message])
    assert [str(one.address) for one in held.message.envelope.recipients] == ["one@a.example", "three@a.example"]
    assert held.recipients == held.message.envelope.recipients
    assert held.delay_told == {RecipientId(3)}


def test_memory_of_another_message_in_the_same_row_is_no_matter(connection: apsw.Connection) -> None:
    before = put(connection, "A", "one@a.example")
    transactions.withdraw(connection, before.queue_id)
    after = put(connection, "B", "two@a.example")
    (held,) = lease(connection, "a.example", kept=[before])
    assert held.message == after


def test_a_delivery_of_too_many_is_split_though_it_is_in_memory(connection: apsw.Connection) -> None:
    message = put(connection, "A", *(f"{number}@a.example" for number in range(5)))
    parts = [lease(connection, "a.example", kept=[message], limit=2)[0].recipients for _ in range(3)]
    assert [[one.id for one in part] for part in parts] == [[1, 2], [3, 4], [5]]
