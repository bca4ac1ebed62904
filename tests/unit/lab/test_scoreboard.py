"""The scoreboard is green for a relay that does what it must, and red for each way of not doing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from relay.lab.destination import Asked, Destination, Ending, Session, Status
from relay.lab.logbook import SessionLine, StatusLine, read_log
from relay.lab.nameserver import Query
from relay.lab.record import Command, Reach, Received, SessionRecord, TlsSeen
from relay.lab.scenarios import DESTINATIONS, RETURN_ADDRESS, UNSEEN
from relay.lab.scoreboard import Evidence, complete, score
from relay.lab.zones import Placement

PORT = 40025
TRACE = b"Received: from client.lab.test (unknown [127.0.0.1])\r\n\tby relay.lab.test; now\r\n"
BY_NAME = {one.name: one for one in DESTINATIONS}


def content_of(one: Destination) -> bytes:
    return f"Subject: {one.name}\r\n\r\nhello\r\n".encode()


def log_of(one: Destination, ending: Ending) -> list[str]:
    prefix = "Nov 22 05:32:05 relay postfix/smtp[7]:"
    where = "none" if ending.relay == "none" else f"{ending.relay}[127.0.0.9]:{PORT}"
    lines = []
    if ending.session not in (Session.CLEAR, Session.NONE):
        lines.append(
            f"{prefix} {ending.session.value} TLS connection established to {where}: TLSv1.3 with cipher X (256/256 bits)"
        )
    lines.append(
        f"{prefix} 4abcdz1: to=<{one.recipient}>, relay={where}, delay=0.1, delays=0/0/0.1/0, tls={ending.tls}, "
        f"dsn={ending.dsn}, status={ending.status.value} ({ending.reason})"
    )
    return lines


def session_of(one: Destination) -> SessionRecord:
    encrypted = one.endings[-1].session is not Session.CLEAR
    record = SessionRecord(("127.0.0.1", 1))
    if one.reach >= Reach.ENVELOPE:
        record.commands = [Command("EHLO relay", encrypted), Command("MAIL FROM:<x>", encrypted)]
    if one.reach >= Reach.CONTENT:
        accepted = one.reach is Reach.DELIVERED
        record.received = [Received("x", (one.recipient,), TRACE + content_of(one), encrypted, accepted)]
    return record


def report_of(one: Destination) -> Received:
    text = f"Final-Recipient: rfc822; {one.recipient}\r\nAction: failed\r\nStatus: {one.endings[-1].dsn}\r\n"
    return Received("", (RETURN_ADDRESS,), text.encode(), encrypted=True, accepted=True)


def perfect() -> Evidence:
    placement = Placement(port=PORT, addresses={}, tlsa={})
    sessions = {}
    queries = []
    for one in DESTINATIONS:
        delivering = [host for host in one.hosts if host.shown_name == one.endings[-1].relay]
        sessions.update({host.name: [session_of(one)] for host in delivering})
        if one.tlsa is Asked.YES:
            queries.append(Query(placement.tlsa_owner(one.hosts[0].tlsa_base), "TLSA", "NOERROR", secure=True))
    return Evidence(
        log=[line for one in DESTINATIONS for ending in one.endings for line in log_of(one, ending)],
        sessions=sessions,
        queries=queries,
        reports=[report_of(one) for one in DESTINATIONS if one.bounces],
        sent={one.name: content_of(one) for one in DESTINATIONS},
        placement=placement,
    )


def differences(name: str, evidence: Evidence) -> str:
    (row,) = score([BY_NAME[name]], evidence)
    return "; ".join(row.differences)


def test_a_perfect_run_is_green() -> None:
    evidence = perfect()
    assert [row.differences for row in score(DESTINATIONS, evidence) if not row.as_expected] == []
    assert complete(DESTINATIONS, evidence)


def relog(evidence: Evidence, old: str, new: str, name: str) -> Evidence:
    recipient = f"to=<{BY_NAME[name].recipient}>"
    host = f"mx.{name}.lab.test["
    changed = [line.replace(old, new) if recipient in line or host in line else line for line in evidence.log]
    assert changed != list(evidence.log)
    return replace(evidence, log=changed)


@pytest.mark.parametrize(
    ("name", "old", "new", "difference"),
    [
        ("good", "Verified TLS", "Untrusted TLS", "session: expected Verified; got Untrusted"),
        ("good", "tls=dane", "tls=may", "tls: expected dane; got may"),
        ("good", "dsn=2.0.0", "dsn=2.5.0", "dsn: expected 2.0.0; got 2.5.0"),
        ("good", "relay=mx.good", "relay=mx.other", "relay: expected mx.good.lab.test; got mx.other.lab.test"),
        ("mismatch", "status=deferred", "status=bounced", "status: expected deferred; got bounced"),
        ("mismatch", "not verified", "not liked", "reason: expected"),
        ("tlsa-servfail", "tls=unknown?, ", "", "tls: expected unknown?; got none"),
    ],
)
def test_a_log_that_says_otherwise_is_red(name: str, old: str, new: str, difference: str) -> None:
    assert difference in differences(name, relog(perfect(), old, new, name))


def resession(name: str, change: Callable[[SessionRecord], None]) -> Evidence:
    evidence = perfect()
    record = session_of(BY_NAME[name])
    change(record)
    return replace(evidence, sessions={**evidence.sessions, f"mx.{name}.lab.test": [record]})


def add_mail(record: SessionRecord) -> None:
    record.commands.append(Command("MAIL FROM:<x>", encrypted=True))


def add_mail_in_clear(record: SessionRecord) -> None:
    record.commands.append(Command("MAIL FROM:<x>", encrypted=False))


def deliver_twice(record: SessionRecord) -> None:
    record.received *= 2


def deliver_nothing(record: SessionRecord) -> None:
    record.received.clear()


def alter(record: SessionRecord) -> None:
    record.received = [replace(one, wire=one.wire.replace(b"hello", b"hallo")) for one in record.received]


def add_a_field(record: SessionRecord) -> None:
    record.received = [replace(one, wire=b"X-Added: 1\r\n" + one.wire) for one in record.received]


def add_a_line(record: SessionRecord) -> None:
    record.received = [replace(one, wire=one.wire + b"added\r\n") for one in record.received]


@pytest.mark.parametrize(
    ("name", "change", "difference"),
    [
        ("mismatch", add_mail, "at mx.mismatch.lab.test: expected nothing; got envelope"),
        ("good", add_mail_in_clear, "session: expected Verified; got in clear"),
        ("good", deliver_twice, "delivered 2 times"),
        ("good", deliver_nothing, "expected delivered; got envelope"),
        ("good", alter, "the content differs"),
        ("good", add_a_field, "the content differs"),
        ("good", add_a_line, "the content differs"),
    ],
)
def test_receivers_are_believed_over_the_log(
    name: str, change: Callable[[SessionRecord], None], difference: str
) -> None:
    assert difference in differences(name, resession(name, change))


def test_mail_at_the_host_that_does_not_verify_is_red() -> None:
    evidence = perfect()
    good = evidence.sessions["mx2.two-hosts.lab.test"]
    at_both = replace(evidence, sessions={**evidence.sessions, "mx1.two-hosts.lab.test": good})
    assert "at mx1.two-hosts.lab.test: expected nothing; got delivered" in differences("two-hosts", at_both)


def test_questions_to_the_name_server_count() -> None:
    evidence = perfect()
    assert differences("good", replace(evidence, queries=[])) == "TLSA records: expected asked; got not asked"
    owner = evidence.placement.tlsa_owner("mx.insecure.lab.test")
    asked_too_much = replace(evidence, queries=[Query(owner, "TLSA", "NOERROR", secure=False)])
    assert differences("insecure", asked_too_much) == "TLSA records: expected not asked; got asked"


@pytest.mark.parametrize("name", [one.name for one in DESTINATIONS if one.bounces])
def test_a_bounce_must_come_back_with_the_null_sender(name: str) -> None:
    evidence = perfect()
    assert differences(name, evidence) == ""
    assert differences(name, replace(evidence, reports=[])) == "no report came back to the sender"
    own = report_of(BY_NAME[name])
    assert differences(name, replace(evidence, reports=[replace(own, sender="postmaster@lab.test")]))
    others = [report_of(one) for one in DESTINATIONS if one.bounces and one.name != name]
    assert differences(name, replace(evidence, reports=others))
    assert not complete([BY_NAME[name]], replace(evidence, reports=others))


def test_what_was_not_logged_is_red_and_not_complete() -> None:
    nothing = replace(perfect(), log=[])
    assert "attempt 1 was not logged" in differences("good", nothing)
    assert not complete([BY_NAME["good"]], nothing)
    only_first = replace(perfect(), log=log_of(BY_NAME["greylist"], BY_NAME["greylist"].endings[0]))
    assert not complete([BY_NAME["greylist"]], only_first)
    assert "attempt 2 was not logged" in differences("greylist", only_first)


def test_lines_of_the_log_are_read() -> None:
    lines = [
        "Nov 22 05:32:05 h postfix/smtpd[1]: connect from unknown[127.0.0.1]",
        (
            "Nov 22 05:32:05 h postfix/smtp[1]: 4gLqz8v1zB: to=<a,b@c.test>, orig_to=<x@c.test>, relay=none, conn_use=2,"
            " delay=10, delays=9/0.01/1/0, dsn=4.4.1, status=deferred (connect to x (y): refused)"
        ),
        (
            "Nov 22 05:32:05 h postfix/smtp[1]: Trusted TLS connection reused to mx.c.test[127.0.0.11]:25: TLSv1.2 with"
            " cipher ECDHE-RSA-AES256-GCM-SHA384 (256/256 bits)"
        ),
        "Nov 22 05:32:05 h postfix/smtp[1]: 4gLqz8v1zB: to=<a@c.test>, relay=none, delay=1, delays=1/0/0/0, dsn=oops",
    ]
    assert list(read_log(lines)) == [
        StatusLine("4gLqz8v1zB", "a,b@c.test", "none", "", "4.4.1", "deferred", "connect to x (y): refused"),
        SessionLine("Trusted", "mx.c.test", "127.0.0.11", "TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384"),
    ]


SEVERAL_HOSTS = ("two-hosts", "preference", "tlsa-skip", "host-bogus")


def test_every_requirement_that_can_be_seen_has_a_scenario() -> None:
    shown = {number for one in DESTINATIONS for number in one.proves}
    assert {number for number in range(1, 46) if number not in shown} == set(UNSEEN)
    assert all("RFC" in one.rule or one.policy or "DESIGN" in one.rule for one in DESTINATIONS)


def test_another_sni_than_the_base_domain_is_red() -> None:
    evidence = perfect()
    seen = evidence.sessions["mx.good.lab.test"][0]
    seen.tls = TlsSeen("TLSv1.3", "X", "mx.good.lab.test")
    assert not differences("good", evidence)
    seen.tls = TlsSeen("TLSv1.3", "X", "good.lab.test")
    assert "SNI expected mx.good.lab.test; got good.lab.test" in differences("good", evidence)


def test_the_scenarios_hold_together() -> None:
    assert len(DESTINATIONS) >= 60
    assert len(BY_NAME) == len(DESTINATIONS)
    hosts = [host.name for one in DESTINATIONS for host in one.hosts]
    assert len(set(hosts)) == len(hosts)
    for one in DESTINATIONS:
        last = one.endings[-1]
        assert one.name in SEVERAL_HOSTS or len(one.hosts) <= 1
        assert (one.reach is Reach.DELIVERED) == (last.status is Status.SENT)
        assert last.relay == "none" or last.relay in {host.shown_name for host in one.hosts}
        assert all(
            ending.dsn[0] == {"sent": "2", "deferred": "4", "bounced": "5"}[ending.status.value]
            for ending in one.endings
        )
