from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.log.events import (
    Accepted,
    ClientConnected,
    ClientDisconnected,
    ClientLost,
    Crashed,
    Event,
    HostFailed,
    Noted,
    NotNotified,
    Program,
    Rejected,
    Settled,
    TlsRefused,
    Warned,
)
from relay.log.postfix import MAX_TRACEBACK_LINES, PostfixLines, seconds
from relay.mail.envelope import Address, Client
from relay.mail.reply import Reply
from relay.outcome.result import Delays, NoHost
from tests.unit.log.cases import AT, CASES, ID, MX, address, deferred, sent, settled

WORDS = PostfixLines(hostname="relay.example", pid=4242)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # reference/postfix.md section 3.3
        (0.004, "0"),
        (0.005, "0.01"),
        (0.05, "0.05"),
        (0.104, "0.1"),
        (0.105, "0.11"),
        (0.123, "0.12"),
        (0.125, "0.13"),
        (0.2, "0.2"),
        (0.994, "0.99"),
        (0.995, "1"),
        (1.04, "1"),
        (1.05, "1.1"),
        (1.25, "1.3"),
        (1.99, "2"),
        (9.94, "9.9"),
        (9.95, "10"),
        (10.4, "10"),
        (10.5, "11"),
        (123.5, "124"),
        (0.0, "0"),
        (-3.0, "0"),
        (100.0, "100"),
        (432000.0, "432000"),
    ],
)
def test_delays_are_rounded_as_postfix_rounds_them(value: float, expected: str) -> None:
    assert seconds(value) == expected


@given(st.floats(min_value=0, max_value=1e7))
def test_a_rounded_delay_is_near_and_short(value: float) -> None:
    text = seconds(value)
    assert re.fullmatch(r"0|[1-9][0-9]*|0\.0[1-9]|0\.[0-9][1-9]|[0-9]\.[1-9]", text), text
    assert abs(float(text) - value) <= max(0.005, value * 0.0501) + 1e-6


def test_the_delays_of_an_outcome_whose_clock_was_set_back() -> None:
    spans = Delays(before_queue=-5.0, in_queue=0.0, setup=0.0, transmission=0.0)
    (line,) = WORDS.lines(settled(sent(), delays=spans), AT)
    assert "delay=0, delays=0/0/0/0," in line


def test_timestamps_are_local_and_padded() -> None:
    words = PostfixLines(hostname="h", pid=1, tz=ZoneInfo("America/New_York"))
    at = datetime(2026, 3, 2, 4, 5, 6, tzinfo=ZoneInfo("UTC"))
    assert words.lines(CASES["removed"], at)[0].startswith("Mar  1 23:05:06 h postfix/qmgr[1]: ")


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as context:
        context.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("new_york")
def test_the_systems_zone_is_followed_through_summer_time() -> None:
    words = PostfixLines(hostname="h", pid=1, tz=None)
    for month, hour in ((1, "07"), (7, "08")):
        at = datetime(2026, month, 15, 12, 0, 0, tzinfo=UTC)
        assert f" 15 {hour}:00:00 h " in words.lines(CASES["removed"], at)[0]


def test_the_syslog_name_is_configurable() -> None:
    (line,) = PostfixLines(hostname="h", pid=1, syslog_name="postfix-out").lines(CASES["removed"], AT)
    assert line == f"Nov 22 05:32:05 h postfix-out/qmgr[1]: {ID}: removed"


def test_the_summary_of_a_session_needs_a_tls_loglevel() -> None:
    quiet = PostfixLines(hostname="h", pid=1, tls_loglevel=0)
    assert quiet.lines(CASES["TLS 1.3"], AT) == ()
    assert len(quiet.lines(CASES["TLS refused"], AT)) == 1


def test_the_tls_feature_can_be_left_out_for_old_readers() -> None:
    old = PostfixLines(hostname="h", pid=1, tls_feature_status=False)
    assert ", delays=0.1/0/0.2/0.11, dsn=2.0.0, status=sent" in old.lines(settled(sent()), AT)[0]


def test_only_a_suspended_destination_is_told_by_the_error_program() -> None:
    suspended = deferred("delivery temporarily suspended: x")
    assert " postfix/error[4242]: " in WORDS.lines(settled(suspended, relay=NoHost()), AT)[0]
    assert " postfix/smtp[4242]: " in WORDS.lines(settled(suspended, relay=MX), AT)[0]
    assert " postfix/smtp[4242]: " in WORDS.lines(settled(deferred("x"), relay=NoHost()), AT)[0]


def test_a_sender_may_be_null_from_mail_on_but_is_unknown_before() -> None:
    reply = Reply(450, ("4.7.1 no",))
    client = Client(address=ip_address("192.0.2.1"))
    for where in ("MAIL", "RCPT", "DATA", "END-OF-MESSAGE"):
        assert " from=<> " in WORDS.lines(Rejected(client=client, where=where, reply=reply), AT)[0]
    for where in ("CONNECT", "EHLO"):
        assert " from=<" not in WORDS.lines(Rejected(client=client, where=where, reply=reply), AT)[0]


def test_a_traceback_is_told_in_bounded_many_lines() -> None:
    lines = WORDS.lines(Crashed("here", "\n".join(f"line {n}" for n in range(10_000))), AT)
    assert len(lines) == 1 + MAX_TRACEBACK_LINES
    assert lines[0].endswith("warning: unexpected error in here: line 9999")


def hostile(text: str) -> list[tuple[Event, int]]:
    client = Client(address=ip_address("192.0.2.1"), name=text, helo=text, user=text)
    reply = Reply(550, (text, text))
    return [
        (ClientConnected(client), 1),
        (ClientDisconnected(client, {text: (1, 2)}), 1),
        (ClientLost(client, text, text), 1),
        (Rejected(client=client, where="RCPT", reply=reply, sender=text, recipient=text), 1),
        (Accepted(queue_id=ID, client=client, message_id=text, size=1, recipients=1), 2),
        (NotNotified(ID, text), 1),
        (TlsRefused(queue_id=ID, relay=MX, detail=text), 1),
        (HostFailed(ID, text), 1),
        (
            Settled(
                queue_id=ID, recipient=Address(text, address("a@b.example").domain), outcome=settled(sent(text)).outcome
            ),
            1,
        ),
        (settled(deferred(text)), 1),
        (Warned(Program.SMTP, text), 1),
        (Noted(Program.SMTP, text), 1),
    ]


@given(
    st.text(max_size=60)
    | st.sampled_from(["\r\n", "\x00", "\x85", "\u2028", "\ud800", "\x1b[2J", "{peer}", "a" * 5000])
)
def test_whatever_strangers_write_an_event_has_its_number_of_bounded_lines(text: str) -> None:
    for event, count in hostile(text):
        lines = WORDS.lines(event, AT)
        assert len(lines) == count
        for line in lines:
            assert len(line) <= 3000
            assert line.splitlines() == [line]
            assert not re.search(r"[\x00-\x1f\x7f-\x9f]", line)
            line.encode()
