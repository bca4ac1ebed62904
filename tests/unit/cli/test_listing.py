from __future__ import annotations

import json
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from relay.cli.listing import as_json, as_postqueue, as_table, summary_lines
from relay.queue.showq import counts_object, entry_object
from relay.queue.store import EntryState, QueueCounts
from tests.unit.control.stores import NOW, entry, pending

REASON = "connect to mx.good.example[192.0.2.1]:25: Connection refused"


def test_as_postqueue_prints() -> None:
    entries = [
        entry(
            "4XYZ0z1hQz1mB2",
            pending(1, to="new@good.example"),
            pending(2, to="late@good.example", reason=REASON),
            pending(3, to="later@good.example", reason=REASON),
            size=1500,
        ),
        entry(
            "4XYZ0z1hQz1mB3",
            pending(1, state=EntryState.ACTIVE),
            sender="",
            size=600,
            at=datetime(2026, 3, 2, tzinfo=UTC),
        ),
        entry("4XYZ0z1hQz1mB4", pending(1, state=EntryState.HOLD), size=12345678),
    ]
    assert list(as_postqueue(map(entry_object, entries), UTC)) == [
        "----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------",
        "4XYZ0z1hQz1mB2        1500 Sun Nov 22 05:32:05 a@b.example",
        "                (connect to mx.good.example[192.0.2.1]:25: Connection refused)",
        "                                               late@good.example",
        "                                               later@good.example",
        "                                                          (reason unavailable)",
        "                                               new@good.example",
        "",
        "4XYZ0z1hQz1mB3*        600 Mon Mar  2 00:00:00 MAILER-DAEMON",
        "                                               user1@good.example",
        "",
        "4XYZ0z1hQz1mB4!   12345678 Sun Nov 22 05:32:05 a@b.example",
        "                                               user1@good.example",
        "",
        "-- 12058 Kbytes in 3 Requests.",
    ]


def test_a_reason_ends_at_the_column_where_postfix_ends_it() -> None:
    (_, _, line, *_) = as_postqueue([entry_object(entry("A", pending(1, reason="no")))], UTC)
    assert line == " " * 74 + "(no)"
    (_, _, line, *_) = as_postqueue([entry_object(entry("A", pending(1, reason="x" * 200)))], UTC)
    assert line == "(" + "x" * 200 + ")"


def test_one_request_and_none() -> None:
    assert list(as_postqueue([entry_object(entry("A"))], UTC))[-1] == "-- 1 Kbytes in 1 Request."
    assert list(as_postqueue([], UTC)) == ["Mail queue is empty"]


def test_times_are_local() -> None:
    lines = list(as_postqueue([entry_object(entry("A"))], ZoneInfo("Asia/Tokyo")))
    assert "Sun Nov 22 14:32:05" in lines[1]


def test_json_has_the_keys_of_postqueue_in_its_order_then_ours() -> None:
    (line,) = as_json([entry_object(entry("A", pending(1, reason="why"), sender=""))], None)
    told = json.loads(line)
    assert list(told)[:7] == [
        "queue_name",
        "queue_id",
        "arrival_time",
        "message_size",
        "forced_expire",
        "sender",
        "recipients",
    ]
    assert told["queue_name"] == "deferred"
    assert told["arrival_time"] == int(NOW.timestamp())
    assert told["forced_expire"] is False
    assert told["sender"] == "MAILER-DAEMON"
    (recipient,) = told["recipients"]
    assert list(recipient)[:3] == ["orig_address", "address", "delay_reason"]
    assert recipient["attempts"] == 1
    assert recipient["destination"] == "good.example"


def test_no_key_for_no_reason() -> None:
    (line,) = as_json([entry_object(entry("A"))], None)
    assert "delay_reason" not in line


def test_the_table_for_people() -> None:
    lines = list(as_table([entry_object(entry("A", pending(1, reason=REASON)))], UTC))
    assert lines[0].startswith("Queue ID")
    assert "2026-11-22 05:32:05" in lines[1]
    assert "2026-11-22 05:37:05" in lines[2]
    assert "user1@good.example" in lines[2]
    assert lines[3].strip() == REASON
    assert lines[-1] == "1 message, 1234 octets"
    assert list(as_table([], UTC)) == ["The queue is empty."]


def test_no_terminal_is_commanded_by_what_a_host_said() -> None:
    hostile = entry("A", pending(1, reason="\x1b[2J\rgone\nA*  1 x"))
    for listing in (as_postqueue, as_table, as_json):
        text = "\n".join(listing([entry_object(hostile)], UTC))
        assert "\x1b" not in text
        assert "\r" not in text
        assert not any(line.startswith("A*") for line in text.splitlines())


def test_objects_of_another_release_are_listed_as_far_as_they_are_understood() -> None:
    strange: list[dict[str, object]] = [
        {},
        {"queue_id": 7, "recipients": [3, {"address": None}], "arrived_at": "x" * 50},
    ]
    assert "2 Requests" in list(as_postqueue(strange, UTC))[-1]
    assert list(as_table(strange, UTC))[-1] == "2 messages, 0 octets"


def test_summary() -> None:
    counts = QueueCounts(messages=3, deliveries={EntryState.DEFERRED: 4}, oldest_arrival=NOW)
    assert list(summary_lines(counts_object(counts), UTC)) == [
        "messages    3",
        "active      0 deliveries",
        "incoming    0 deliveries",
        "deferred    4 deliveries",
        "hold        0 deliveries",
        "oldest      2026-11-22 05:32:05",
    ]
