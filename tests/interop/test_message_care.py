"""What a message is when it arrives at a Postfix that lacks an extension and is strict about what it gets instead."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage

import pytest

from tests.interop import servers
from tests.interop.nameservers import Endpoint
from tests.interop.places import places
from tests.interop.postfix import Listener, Postfix, postfix
from tests.loopback import LoopbackNetwork, free_port
from tests.relay_process import RelayProcess, Settings

pytestmark = pytest.mark.interop

TEXT = "Grüße aus Köln, 日本語\n\nein langes Wort: " + "ä" * 400 + "\n.\nFrom hier an\n"


@dataclass
class World:
    """A relay before a Postfix."""

    relay: RelayProcess
    receiver: Postfix

    def through(self, content: bytes, name: str, *, body: str = "8BITMIME") -> bytes:
        """Send a message and give what is in the mailbox."""
        queue_id = self.relay.send(content, sender="joe@client.test", recipients=["ann@strict.test"], body=body)
        assert "status=sent" in self.relay.wait_for_status(queue_id)
        named = self.receiver.process.wait_for(rf".* (\S+): message-id=<{name}>")
        self.receiver.process.wait_for(rf".* {named[1]}: removed")
        (found,) = [one for one in self.receiver.delivered() if f"<{name}>".encode() in one]
        return found


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    endpoint = Endpoint(LoopbackNetwork().address(1), free_port())
    strict = {"strict_8bitmime_body": "yes", "strict_7bit_headers": "yes", "strict_mime_encoding_domain": "yes"}
    listener = Listener("mx", endpoint, options={"smtpd_discard_ehlo_keywords": "8bitmime, smtputf8"})
    settings: Settings = {
        "smtp": {"relayhost": [f"[{endpoint.address}]:{endpoint.port}"], "tls_security_level": "may"},
        "smtpd": {"local_header_rewrite_clients": "permit_mynetworks", "message_drop_headers": ["bcc"]},
        "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
    }
    try:
        with (
            places("postfix", "relay") as (mailbox, place),
            postfix([listener], mailbox, virtual_domains=["strict.test"], settings=strict) as receiver,
            RelayProcess(place, settings) as relay,
        ):
            yield World(relay, receiver)
    except servers.UnavailableError as error:
        servers.leave_out("postfix", str(error))


def message(name: str) -> EmailMessage:
    made = EmailMessage(policy=email.policy.SMTP.clone(cte_type="8bit"))
    made["From"], made["To"], made["Message-ID"] = "joe@client.test", "ann@strict.test", f"<{name}>"
    return made


def test_a_strict_host_without_8bitmime_reads_the_same(world: World) -> None:
    sent = message("plain")
    sent.set_content(TEXT, cte="8bit")
    arrived = email.message_from_bytes(world.through(sent.as_bytes(), "plain"), policy=email.policy.default)
    assert arrived["content-transfer-encoding"] == "quoted-printable"
    assert arrived.get_content() == TEXT


def as_text(part: EmailMessage) -> object:
    """A part's content; a mailbox has LF where the wire had CRLF."""
    content = part.get_content()
    return content.replace("\r\n", "\n") if isinstance(content, str) else content


def test_parts_within_parts(world: World) -> None:
    inner = message("inner")
    inner.set_content(TEXT, cte="8bit")
    sent = message("parts")
    sent.set_content("plain = ascii\n")
    sent.add_alternative("<p>Grüße</p>\n", subtype="html", cte="8bit")
    sent.add_attachment(bytes(range(256)), maintype="application", subtype="octet-stream")
    sent.add_attachment(inner)
    octets = sent.as_bytes()
    assert not octets.isascii()
    arrived = email.message_from_bytes(world.through(octets, "parts"), policy=email.policy.default)
    again = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(arrived, EmailMessage)
    assert isinstance(again, EmailMessage)
    assert [part.get_content_type() for part in arrived.walk()] == [part.get_content_type() for part in again.walk()]
    for one, other in zip(arrived.walk(), again.walk(), strict=True):
        if not one.is_multipart():
            assert as_text(one) == as_text(other)
    assert "8bit" not in arrived.as_string().lower().replace("8bitmime", "")


def test_what_is_signed_comes_back(world: World) -> None:
    part = "--b\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n--b\r\n\r\nsignature\r\n--b--\r\n"
    octets = f"Content-Type: multipart/signed; boundary=b\r\nMessage-ID: <signed>\r\n\r\n{part}".encode()
    queue_id = world.relay.send(octets, sender="joe@client.test", recipients=["ann@strict.test"], body="8BITMIME")
    line = world.relay.wait_for_status(queue_id)
    assert "dsn=5.6.3" in line
    assert "cannot be converted: a part that is signed or encrypted has 8-bit data" in line


def test_lines_that_are_too_long_arrive_broken(world: World) -> None:
    octets = b"Message-ID: <long>\r\nBcc: hidden@client.test\r\n\r\n" + b"x" * 3000 + b"\r\nend\r\n"
    arrived = world.through(octets, "long", body="")
    assert max(map(len, arrived.split(b"\n"))) == 998
    assert b"x" * 998 + b"\n " + b"x" * 997 + b"\n " + b"x" * 997 + b"\n " + b"x" * 8 + b"\nend\n" in arrived
    assert b"hidden@" not in arrived
    assert b"\nDate: " in arrived
    world.relay.process.wait_for(r"breaking line > 998 bytes with <CR><LF>SPACE")


def test_the_log_of_the_receiver_has_no_complaint(world: World) -> None:
    assert not [line for line in world.receiver.process.lines() if "reject" in line or "improper" in line]
