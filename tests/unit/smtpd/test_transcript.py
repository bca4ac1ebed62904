"""What the postmaster gets to read of a session, and what nobody does."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from relay.mail.envelope import Client
from relay.mail.reply import Reply
from relay.queue.notices import OF_INCIDENTS, NoticeClass
from relay.smtpd import replies
from relay.smtpd.commands import Command
from relay.smtpd.transcript import Transcript, class_of

CLIENT = Client(address=IPv4Address("192.0.2.7"), name="host.example")
POLICY, PROTOCOL = NoticeClass.POLICY, NoticeClass.PROTOCOL
RESOURCE, SOFTWARE = NoticeClass.RESOURCE, NoticeClass.SOFTWARE


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (replies.OK, None),
        (replies.BYE, None),
        (replies.START_DATA, None),
        (replies.AUTH_FAILED, None),
        (replies.AUTH_BUSY, None),
        (replies.timeout_exceeded("relay.test"), None),
        (replies.too_busy("relay.test"), None),
        (replies.shutting_down("relay.test"), None),
        (replies.relay_denied("a@b.example"), POLICY),
        (replies.not_owned("a@b.example", "tim"), POLICY),
        (replies.too_much_mail("192.0.2.7"), POLICY),
        (replies.too_many_connections("relay.test", "192.0.2.7"), POLICY),
        (replies.too_many_errors("relay.test"), POLICY),
        (replies.TOO_MANY_RECIPIENTS, POLICY),
        (replies.DECLARED_TOO_BIG, POLICY),
        (replies.TOO_MANY_HOPS, POLICY),
        (replies.MUST_START_TLS, POLICY),
        (replies.FORBIDDEN_COMMAND, POLICY),
        (replies.NOT_RECOGNIZED, PROTOCOL),
        (replies.BAD_SENDER, PROTOCOL),
        (replies.NESTED_MAIL, PROTOCOL),
        (replies.UNDECLARED_UNICODE, PROTOCOL),
        (replies.NOT_SYNCHRONIZED, PROTOCOL),
        (replies.BDAT_SYNTAX, PROTOCOL),
        (replies.unsupported_option("X=1"), PROTOCOL),
        (replies.NO_SPACE, RESOURCE),
        (replies.NOT_WRITTEN, RESOURCE),
        (replies.LOCAL_PROBLEM, SOFTWARE),
        (replies.lookup_failed("a@b.example"), SOFTWARE),
    ],
)
def test_the_class_of_a_reply(reply: Reply, found: NoticeClass | None) -> None:
    assert class_of(reply) is found


def say(transcript: Transcript, reply: Reply) -> None:
    transcript.said(reply, reply)


def test_a_session_as_the_postmaster_reads_it() -> None:
    transcript = Transcript(OF_INCIDENTS)
    say(transcript, replies.greeting("relay.test"))
    transcript.heard(Command("EHLO", "client.example"))
    say(transcript, Reply(250, ("relay.test", "SIZE")))
    transcript.heard_else("RCTP TO:<x>")
    say(transcript, replies.NOT_RECOGNIZED)
    transcript.heard(Command("RCPT", "TO:<x@y.example>"))
    transcript.said(replies.relay_denied("x@y.example"), Reply(450, ("4.7.1 softly",)))
    incident = transcript.incident(CLIENT)
    assert incident is not None
    assert incident.classes == ("policy", "protocol")
    assert incident.about == "SMTP server: errors from host.example[192.0.2.7]"
    assert incident.lines == (
        "Transcript of session follows.",
        "",
        " Out: 220 relay.test ESMTP dane-relay",
        " In:  EHLO client.example",
        " Out: 250-relay.test",
        " Out: 250 SIZE",
        " In:  RCTP TO:<x>",
        " Out: 500 5.5.2 Error: command not recognized",
        " In:  RCPT TO:<x@y.example>",
        " Out: 450 4.7.1 softly",
    )


def test_only_what_is_wanted_makes_an_incident() -> None:
    for wanted in (frozenset[NoticeClass](), frozenset({NoticeClass.SOFTWARE})):
        transcript = Transcript(wanted)
        transcript.heard(Command("RCPT", "TO:<x>"))
        say(transcript, replies.NEED_MAIL)
        assert transcript.incident(CLIENT) is None


@pytest.mark.parametrize("argument", ["PLAIN AHRpbQBzZWNyZXQ=", "AHRpbQBzZWNyZXQ=", "plain AHRpbQBzZWNyZXQ="])
def test_no_password_is_in_it(argument: str) -> None:
    transcript = Transcript(OF_INCIDENTS)
    transcript.heard(Command("AUTH", argument))
    say(transcript, replies.AUTH_DISABLED)
    incident = transcript.incident(CLIENT)
    assert incident is not None
    assert "AHR" not in "".join(incident.lines)


def test_of_a_long_session_the_beginning_and_the_end() -> None:
    transcript = Transcript(OF_INCIDENTS)
    for number in range(10_000):
        transcript.heard_else(f"{number} " + "x" * 5_000)
    say(transcript, replies.NOT_RECOGNIZED)
    incident = transcript.incident(CLIENT)
    assert incident is not None
    assert len(incident.lines) < 80
    assert max(map(len, incident.lines)) <= 200
    assert incident.lines[2].startswith(" In:  0 x")
    assert "      (9931 lines left out)" in incident.lines
    assert incident.lines[-1] == " Out: 500 5.5.2 Error: command not recognized"
