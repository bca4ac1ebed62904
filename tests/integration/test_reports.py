"""A relay as users run it, a host that refuses and one that is the sender's: what comes back, read by others' programs."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage, Message
from pathlib import Path
from typing import cast

import pytest
from flufl.bounce import all_failures

from tests.loopback import LoopbackNetwork
from tests.recording_sink import Recorded, RecordingSink
from tests.relay_process import RelayProcess, Setting

Sections = dict[str, dict[str, Setting]]
ORIGINAL = b"Message-ID: <m1@source.test>\r\nReferences: <m0@source.test>\r\nSubject: hello\r\n\r\nSecret words.\r\n"
NO_SUCH_USER = "550 5.1.1 <nobody@away.test>: no such user here"


@dataclass
class Scene:
    """``away.test`` is one sink, ``source.test`` another; ``keywords`` is what the first offers."""

    relay: RelayProcess
    away: RecordingSink
    home: RecordingSink

    def submit(self, recipients: dict[str, list[str]], *, options: list[str] | None = None) -> str:
        """Hand in a message with DSN parameters for the message and for each recipient."""
        with smtplib.SMTP(self.relay.address, self.relay.port, local_hostname="client.test", timeout=60) as client:
            client.ehlo()
            assert client.has_extn("dsn")
            assert client.mail("Ann@source.test", options or [])[0] == 250
            for recipient, parameters in recipients.items():
                assert client.rcpt(recipient, parameters)[0] == 250
            code, text = client.data(ORIGINAL)
        assert code == 250
        return text.decode().rpartition(" ")[2]

    def report(self) -> tuple[Recorded, Message]:
        """What came back to the sender."""
        (report,) = self.home.wait_for_messages(1)
        return report, message_from_bytes(report.content)


def answer(line: bytes) -> str | None:
    if line.startswith(b"RCPT TO:<nobody@"):
        return NO_SUCH_USER
    return "451 4.3.0 come back later" if line.startswith(b"RCPT TO:<later@") else None


@pytest.fixture
def keywords() -> tuple[str, ...]:
    return ("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES")


@pytest.fixture
def extra() -> Sections:
    return {}


@pytest.fixture
def scene(tmp_path: Path, keywords: tuple[str, ...], extra: Sections) -> Iterator[Scene]:
    network = LoopbackNetwork()
    with ExitStack() as stack:
        away = stack.enter_context(RecordingSink(network.address(11), 0, keywords=keywords, answer=answer))
        home = stack.enter_context(RecordingSink(network.address(12), 0))
        smtp: dict[str, Setting] = {"tls_security_level": "may", "transport_maps": ["texthash:transport"]}
        settings: Sections = {"smtp": smtp, **extra}
        transport = f"away.test smtp:[{away.address}]:{away.port}\nsource.test smtp:[{home.address}]:{home.port}\n"
        relay = stack.enter_context(RelayProcess(tmp_path, settings, {"transport": transport}))
        yield Scene(relay, away, home)


def failures(mail: Message) -> tuple[list[bytes], list[bytes]]:
    """Temporary and permanent failures as flufl.bounce finds them."""
    temporary, permanent = all_failures(mail)
    return sorted(temporary), sorted(permanent)


def status_blocks(mail: Message) -> list[Message]:
    """The fields of the message, then of each recipient, as Python's parser reads message/delivery-status."""
    part = cast(list[Message], mail.get_payload())[1]
    assert part.get_content_type() == "message/delivery-status"
    return cast(list[Message], part.get_payload())


def test_a_bounce_is_read_by_others(scene: Scene) -> None:
    """Python's email package and flufl.bounce: the recipient, the status, the diagnostic, the thread."""
    queue_id = scene.submit({"nobody@away.test": ["ORCPT=rfc822;No+2BBody@away.test"]}, options=["ENVID=QQ+2B7"])
    recorded, mail = scene.report()
    assert recorded.mail.startswith(b"MAIL FROM:<>")
    assert recorded.rcpts[0].startswith(b"RCPT TO:<Ann@source.test>")

    assert failures(mail) == ([], [b"No+Body@away.test"])  # flufl.bounce prefers the name that the sender knows

    message, recipient = status_blocks(mail)
    assert message["Reporting-MTA"] == "dns; relay.test"
    assert message["Original-Envelope-Id"] == "QQ+7"
    assert message["X-Relay-Queue-ID"] == queue_id
    assert recipient["Final-Recipient"] == "rfc822; nobody@away.test"
    assert recipient["Original-Recipient"] == "rfc822;No+Body@away.test"
    assert recipient["Action"] == "failed"
    assert recipient["Status"] == "5.1.1"
    assert recipient["Remote-MTA"] == f"dns; {scene.away.address}"
    assert recipient["Diagnostic-Code"] == f"smtp; {NO_SUCH_USER}"

    modern = message_from_bytes(recorded.content, policy=policy.SMTP)
    assert modern.defects == []
    assert modern["In-Reply-To"] == "<m1@source.test>"
    assert str(modern["References"]).split() == ["<m0@source.test>", "<m1@source.test>"]
    assert modern["Auto-Submitted"] == "auto-replied"
    returned = cast(list[EmailMessage], modern.get_payload())[2]
    assert returned.get_content_type() == "message/rfc822"
    assert "Secret words." in returned.as_string()


@pytest.mark.parametrize("extra", [{"queue": {"maximal_queue_lifetime": 0}}])
def test_a_deferral_after_the_last_attempt_is_read_as_a_failure(scene: Scene) -> None:
    scene.submit({"later@away.test": []})
    _, mail = scene.report()
    _, recipient = status_blocks(mail)
    assert (recipient["Action"], recipient["Status"]) == ("failed", "4.3.0")
    assert recipient["Diagnostic-Code"] == "smtp; 451 4.3.0 come back later"
    assert failures(mail) == ([], [b"later@away.test"])


def test_hdrs_returns_no_word_of_the_text(scene: Scene) -> None:
    scene.submit({"nobody@away.test": []}, options=["RET=HDRS"])
    recorded, _ = scene.report()
    assert b"Content-Type: text/rfc822-headers" in recorded.content
    assert b"Subject: hello" in recorded.content
    assert b"Secret words." not in recorded.content


def test_never_means_never(scene: Scene) -> None:
    queue_id = scene.submit({"nobody@away.test": ["NOTIFY=NEVER"]})
    scene.relay.process.wait_for(f"{queue_id}: sender notification not sent: NOTIFY does not ask for it: <nobody@")
    scene.relay.process.wait_for(f"{queue_id}: removed")
    assert scene.home.messages() == ()


def test_success_is_reported_where_the_next_host_has_no_dsn(scene: Scene) -> None:
    scene.submit({"ann@away.test": ["NOTIFY=SUCCESS"], "bob@away.test": ["NOTIFY=FAILURE"]})
    _, mail = scene.report()
    _, *recipients = status_blocks(mail)
    assert [(one["Final-Recipient"], one["Action"]) for one in recipients] == [("rfc822; ann@away.test", "relayed")]
    (taken,) = scene.away.wait_for_messages(1)
    assert not any(b"NOTIFY" in rcpt or b"ORCPT" in rcpt for rcpt in taken.rcpts)


@pytest.mark.parametrize("keywords", [("PIPELINING", "8BITMIME", "DSN")])
def test_what_was_asked_is_passed_on_to_a_host_with_dsn(scene: Scene) -> None:
    queue_id = scene.submit(
        {
            "Ann@away.test": ["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;Ann+2B1@Away.test"],
            "bob@away.test": ["NOTIFY=NEVER"],
        },
        options=["RET=HDRS", "ENVID=AbC+3D1"],
    )
    (taken,) = scene.away.wait_for_messages(1)
    assert taken.mail == b"MAIL FROM:<Ann@source.test> RET=HDRS ENVID=AbC+3D1"
    assert taken.rcpts == (
        b"RCPT TO:<Ann@away.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Ann+2B1@Away.test",
        b"RCPT TO:<bob@away.test> NOTIFY=NEVER ORCPT=rfc822;bob@away.test",
    )
    scene.relay.process.wait_for(f"{queue_id}: removed")
    assert scene.home.messages() == ()


def test_a_bounce_of_a_bounce_vanishes_with_a_line(tmp_path: Path) -> None:
    """The sender's host refuses the report: it ends there, in the log."""
    network = LoopbackNetwork()
    with RecordingSink(network.address(11), 0, answer=answer) as sink:
        settings: Sections = {"smtp": {"tls_security_level": "may", "relayhost": [f"[{sink.address}]:{sink.port}"]}}
        with RelayProcess(tmp_path, settings) as relay:
            first = relay.send(ORIGINAL, sender="nobody@away.test", recipients=["nobody@away.test"])
            report = relay.process.wait_for(rf"{first}: sender non-delivery notification: (\S+)")[1]
            relay.process.wait_for(f"{report}: sender notification not sent: the message has the null sender")
            relay.process.wait_for(f"{report}: removed")
            assert not any(one.rcpts for one in sink.messages())


@pytest.mark.parametrize(
    "extra",
    [
        {
            "queue": {"delay_warning_time": "0.001s", "minimal_backoff_time": "0.01s"},
            "bounce": {"notify_classes": "delay", "postmaster": "post@source.test"},
        }
    ],
)
def test_a_delay_is_told_once_to_the_sender_and_to_the_postmaster(scene: Scene) -> None:
    queue_id = scene.submit({"later@away.test": []})
    reports = scene.home.wait_for_messages(2)
    mark = 0
    for _ in range(4):
        scene.relay.process.wait_for(rf"{queue_id}: to=<later@away.test>", since=mark)
        mark = scene.relay.process.mark()
    assert len(scene.home.messages()) == 2
    by_reader = {one.rcpts[0].split(b" ")[1]: message_from_bytes(one.content) for one in reports}
    assert {reader: mail["Subject"] for reader, mail in by_reader.items()} == {
        b"TO:<Ann@source.test>": "Delayed Mail (still being retried)",
        b"TO:<post@source.test>": "Postmaster Warning: Delayed Mail",
    }
    for mail in by_reader.values():
        _, recipient = status_blocks(mail)
        assert (recipient["Action"], recipient["Status"]) == ("delayed", "4.3.0")
        assert recipient["Will-Retry-Until"]
        assert failures(mail) == ([b"later@away.test"], [])
