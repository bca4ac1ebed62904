"""Reports as bytes: their form, what they say, and that nothing that strangers write changes their form."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.message import Message as Mail
from ipaddress import ip_address
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.envelope import Address, Client, Envelope, Message, QueueId, Recipient, RecipientId
from relay.mail.names import Domain
from relay.mail.reply import EnhancedStatus, Reply
from relay.outcome.dsn import (
    MAX_HEADER_OCTETS,
    Audience,
    HeadersOnly,
    Kind,
    Occasion,
    Reported,
    Whole,
    compose,
    header_section,
)
from relay.outcome.result import FromPeer, Local

ORIGINAL = b"From: s@source.example\r\nMessage-ID: <m1@source.example>\r\nSubject: x\r\n\r\nhello\r\n"
MADE_AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
SENDER = Address("s@source.example", Domain("source.example"))
REPLY = Reply(550, ("5.1.1 <r1@a.example>: no such user here",))
LOCAL = "Server certificate not verified: expected DANE-EE 3 1 1 ab12; found 3 1 1 cd34; rule /etc/relay/tls_policy:7"


def recipient(id_: int = 1, text: str = "r1@a.example", orcpt: str = "") -> Recipient:
    return Recipient(id=RecipientId(id_), address=Address(text, Domain("a.example")), orcpt=orcpt)


FAILED = Reported(
    recipient=recipient(),
    status=EnhancedStatus(5, 1, 1),
    reason="host mx.a.example[192.0.2.25] said: 550 5.1.1 <r1@a.example>: no such user here (in reply to RCPT TO command)",
    diagnostic=FromPeer(reply=REPLY, mta="mx.a.example"),
)
REFUSED = Reported(
    recipient=recipient(2, "r2@a.example", "rfc822;R2+2Bx@a.example"),
    status=EnhancedStatus(4, 7, 5),
    reason=LOCAL,
    diagnostic=Local(LOCAL),
)


def occasion(*recipients: Reported, content: bytes = ORIGINAL, smtputf8: bool = False, envid: str = "") -> Occasion:
    people = recipients or (FAILED,)
    envelope = Envelope(
        sender=SENDER,
        recipients=tuple(one.recipient for one in people),
        smtputf8=smtputf8,
        envid=envid,
        client=Client(address=ip_address("192.0.2.7")),
    )
    return Occasion(
        kind=Kind.NON_DELIVERY,
        audience=Audience.SENDER,
        reader=SENDER,
        report=QueueId("REPORT1"),
        hostname="relay.example",
        message=Message(
            queue_id=QueueId("ORIG1"),
            envelope=envelope,
            size=len(content),
            arrived_at=datetime(2026, 3, 4, 5, 0, 0, tzinfo=UTC),
        ),
        recipients=people,
        original=Whole(content),
        retry_until=MADE_AT + timedelta(days=5),
        made_at=MADE_AT,
    )


def parsed(what: Occasion) -> Mail:
    mail = message_from_bytes(compose(what).content)
    assert mail.defects == []
    return mail


def parts(mail: Mail) -> list[Mail]:
    return cast(list[Mail], mail.get_payload())


def status_blocks(mail: Mail) -> list[Mail]:
    return parts(parts(mail)[1])


def raw_parts(content: bytes) -> list[bytes]:
    """Cut by hand at the boundary, to see octets that a parser would tidy."""
    match = re.search(rb'boundary="([^"]+)"', content)
    assert match is not None
    pieces = content.split(b"\r\n--" + match[1])
    assert pieces[-1] == b"--\r\n"
    return [piece.removeprefix(b"\r\n") for piece in pieces[1:-1]]


# --- the form -------------------------------------------------------------------------------------------------------


def test_the_header() -> None:
    mail = parsed(occasion())
    assert dict(mail.items()) == {
        "Date": "Wed, 04 Mar 2026 05:06:07 +0000",
        "From": "Mail Delivery System <MAILER-DAEMON@relay.example>",
        "Subject": "Undelivered Mail Returned to Sender",
        "To": "s@source.example",
        "Message-ID": "<20260304050607.REPORT1@relay.example>",
        "In-Reply-To": "<m1@source.example>",
        "References": "<m1@source.example>",
        "Auto-Submitted": "auto-replied",
        "MIME-Version": "1.0",
        "Content-Type": (
            "multipart/report; report-type=delivery-status;\r\n"
            f'\tboundary="ORIG1.{int(MADE_AT.timestamp())}/relay.example"'
        ),
    }
    assert mail.get_content_type() == "multipart/report"
    assert mail.get_param("report-type") == "delivery-status"
    assert mail.preamble == "This is a MIME-encapsulated message.\r\n"


def test_the_three_parts() -> None:
    kinds = [(part["Content-Description"], part["Content-Type"]) for part in parts(parsed(occasion()))]
    assert kinds == [
        ("Notification", "text/plain; charset=us-ascii"),
        ("Delivery report", "message/delivery-status"),
        ("Undelivered Message", "message/rfc822"),
    ]


def test_headers_only() -> None:
    what = replace(occasion(), original=HeadersOnly(header_section(ORIGINAL)))
    part = parts(parsed(what))[2]
    assert (part["Content-Description"], part["Content-Type"]) == ("Undelivered Message Headers", "text/rfc822-headers")
    assert raw_parts(compose(what).content)[2].endswith(
        b"\r\n\r\nReturn-Path: <s@source.example>\r\n" + header_section(ORIGINAL)
    )
    assert b"hello" not in compose(what).content


def test_a_success_report() -> None:
    what = replace(occasion(), kind=Kind.SUCCESS, original=HeadersOnly(header_section(ORIGINAL)))
    mail = parsed(what)
    assert mail["Subject"] == "Successful Mail Delivery Report"
    assert parts(mail)[2]["Content-Description"] == "Message Headers"
    assert status_blocks(mail)[1]["Action"] == "relayed"


def test_the_notification_names_us_and_each_recipient_wrapped() -> None:
    text = parts(parsed(occasion(FAILED, REFUSED)))[0].get_payload()
    assert isinstance(text, str)
    assert text.startswith("This is the mail system at host relay.example.\r\n")
    paragraphs = text.split("\r\n\r\n")
    assert paragraphs[-2].startswith("<r1@a.example>: host mx.a.example[192.0.2.25] said: 550")
    assert " ".join(paragraphs[-1].split()) == f"<r2@a.example>: {LOCAL}"
    assert all(len(line) <= 79 for line in text.split("\r\n"))
    assert all(line.startswith("    ") for line in paragraphs[-1].strip().split("\r\n")[1:])


def test_the_delivery_status() -> None:
    message, first, second = status_blocks(parsed(occasion(FAILED, REFUSED, envid="ID+2B1")))
    assert message.items() == [
        ("Reporting-MTA", "dns; relay.example"),
        ("Original-Envelope-Id", "ID+1"),
        ("X-Relay-Queue-ID", "ORIG1"),
        ("X-Relay-Sender", "rfc822; s@source.example"),
        ("Arrival-Date", "Wed, 04 Mar 2026 05:00:00 +0000"),
    ]
    assert first.items() == [
        ("Final-Recipient", "rfc822; r1@a.example"),
        ("Action", "failed"),
        ("Status", "5.1.1"),
        ("Remote-MTA", "dns; mx.a.example"),
        ("Diagnostic-Code", "smtp; 550 5.1.1 <r1@a.example>: no such user here"),
    ]
    assert [(name, " ".join(value.split())) for name, value in second.items()] == [
        ("Final-Recipient", "rfc822; r2@a.example"),
        ("Original-Recipient", "rfc822;R2+x@a.example"),
        ("Action", "failed"),
        ("Status", "4.7.5"),
        ("Diagnostic-Code", f"X-Relay; {LOCAL}"),
    ]


def test_no_envelope_id_no_field() -> None:
    assert "Original-Envelope-Id" not in status_blocks(parsed(occasion()))[0]


# --- the original ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        ORIGINAL,
        b"\r\nno header\r\n",
        b"",
        b"Subject: x\r\n\r\n",
        b"Subject: x\r\n\r\n\xff\xfe 8 bit\r\n.\r\n..\r\n",
        b"Subject: x\r\n\r\nno line end at the end",
        b"Subject: x\r\n\r\n" + b"y" * 5000 + b"\r\n\r\n\r\n",
    ],
)
def test_the_original_goes_back_octet_for_octet(content: bytes) -> None:
    part = raw_parts(compose(occasion(content=content)).content)[2]
    header, _, returned = part.partition(b"\r\n\r\n")
    assert b"Content-Type: message/rfc822" in header
    assert returned == b"Return-Path: <s@source.example>\r\n" + content


def test_an_8_bit_original_is_declared() -> None:
    mail = parsed(occasion(content=b"Subject: x\r\n\r\n\xe4\r\n"))
    assert mail["Content-Transfer-Encoding"] == "8bit"
    assert [part["Content-Transfer-Encoding"] for part in parts(mail)] == [None, None, "8bit"]
    assert parsed(occasion())["Content-Transfer-Encoding"] is None


def test_the_boundary_does_not_occur_in_the_original() -> None:
    boundary = f"ORIG1.{int(MADE_AT.timestamp())}/relay.example"
    body = f"Subject: x\r\n\r\n--{boundary}\r\n\r\nforged\r\n--{boundary.replace('/', '.1/')}--\r\n".encode()
    content = compose(occasion(content=body)).content
    mail = message_from_bytes(content)
    assert len(parts(mail)) == 3
    assert raw_parts(content)[2].endswith(body)


def test_a_boundary_is_never_longer_than_may_be() -> None:
    what = replace(occasion(), hostname="a" * 60 + "." + "b" * 60 + ".example")
    boundary = parsed(what).get_boundary()
    assert boundary is not None
    assert len(boundary) <= 70


def test_header_sections() -> None:
    assert header_section(ORIGINAL) == ORIGINAL[: ORIGINAL.index(b"\r\n\r\n") + 2]
    assert header_section(b"\r\nbody\r\n") == b""
    assert header_section(b"") == b""
    assert header_section(b"no line end") == b""
    assert header_section(b"Subject: only\r\n") == b"Subject: only\r\n"
    endless = b"X: y\r\n" * 100_000
    section = header_section(endless)
    assert MAX_HEADER_OCTETS - 6 <= len(section) <= MAX_HEADER_OCTETS
    assert section.endswith(b"y\r\n")


# --- threading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "reply_to", "references"),
    [
        (b"Subject: x", None, None),
        (b"message-id:<a@b>", "<a@b>", ["<a@b>"]),
        (b"Message-ID:\r\n <a@b>\r\nReferences: <c@d>\r\n\t<e@f>", "<a@b>", ["<c@d>", "<e@f>", "<a@b>"]),
        (b"References: <c@d>", None, None),
        (b"Message-ID: not one", None, None),
        (b"Message-ID: <a@b\r\nBcc: victim@example>", None, None),
    ],
)
def test_a_report_joins_the_thread_of_its_original(
    header: bytes, reply_to: str | None, references: list[str] | None
) -> None:
    mail = parsed(occasion(content=header + b"\r\n\r\nbody\r\n"))
    assert mail["In-Reply-To"] == reply_to
    assert (str(mail["References"]).split() if mail["References"] else None) == references
    assert mail["Bcc"] is None


def test_endless_references_are_shortened() -> None:
    header = b"Message-ID: <last@b>\r\nReferences:" + b"".join(b"\r\n <%d@b>" % number for number in range(100))
    references = str(parsed(occasion(content=header + b"\r\n\r\n"))["References"]).split()
    assert len(references) == 20
    assert (references[0], references[-1]) == ("<0@b>", "<last@b>")


# --- UTF-8 (RFC 6533) -----------------------------------------------------------------------------------------------


def test_a_report_of_international_mail() -> None:
    person = Reported(
        recipient=recipient(1, "zwölf@a.example", "utf-8;zw\\x{F6}lf@a.example"),
        status=EnhancedStatus(5, 6, 7),
        reason="nicht möglich",
        diagnostic=Local("nicht möglich"),
    )
    dsn = compose(occasion(person, smtputf8=True))
    assert dsn.smtputf8
    kinds = [part["Content-Type"] for part in parts(message_from_bytes(dsn.content))]
    assert kinds == ["text/plain; charset=utf-8", "message/global-delivery-status", "message/global"]
    text = dsn.content.decode("utf-8")
    assert "Final-Recipient: utf-8; zwölf@a.example\r\nOriginal-Recipient: utf-8;zw\\x{F6}lf@a.example\r\n" in text
    assert "<zwölf@a.example>: nicht möglich" in text
    headers = replace(occasion(person, smtputf8=True), original=HeadersOnly(header_section(ORIGINAL)))
    assert b"Content-Type: message/global-headers\r\n" in compose(headers).content


def test_international_mail_that_is_ascii_after_all_makes_a_report_for_any_host() -> None:
    dsn = compose(occasion(smtputf8=True))
    assert not dsn.smtputf8
    assert dsn.content.isascii()


def test_what_must_be_ascii_is() -> None:
    dsn = compose(occasion(replace(FAILED, reason="d\u00e9sol\u00e9")))
    assert dsn.content.isascii()
    assert b"d?sol?" in dsn.content


# --- hostile input --------------------------------------------------------------------------------------------------

HOSTILE = st.text(
    alphabet=st.one_of(st.sampled_from("\r\n\t :;<>-=+\"'\x00\x85\u2028é.ab"), st.characters(codec="utf-8")),
    max_size=2000,
)


@given(text=HOSTILE, mta=HOSTILE, reply=HOSTILE, envid=HOSTILE, orcpt=HOSTILE, address=HOSTILE, utf8=st.booleans())
def test_no_text_changes_the_form(
    *, text: str, mta: str, reply: str, envid: str, orcpt: str, address: str, utf8: bool
) -> None:
    check_form(text=text, mta=mta, reply=reply, envid=envid, orcpt=orcpt, address=address, utf8=utf8)


@pytest.mark.parametrize("field", ["text", "mta", "reply", "envid", "orcpt", "address"])
@pytest.mark.parametrize("utf8", [False, True])
@pytest.mark.parametrize(
    "evil",
    [
        "a\r\nBcc: victim@b.example\r\n\r\nforged",
        "a\nBcc: victim@b.example",
        "a\rBcc: victim@b.example",
        "a+0D+0ABcc:victim@b.example",
        "\r\n--ORIG1.1772600767/relay.example--\r\n",
        "x" * 5000,
        "ü" * 5000,
        "\U0001f4a9" * 5000,
        "ü " * 5000,
    ],
    ids=lambda evil: evil[:12].encode("unicode_escape").decode(),
)
def test_no_injection_and_no_long_line_in_any_field(field: str, evil: str, utf8: bool) -> None:
    plain = {"text": "t", "mta": "m", "reply": "r", "envid": "e", "orcpt": "o", "address": "a"}
    check_form(**{**plain, field: evil}, utf8=utf8)


def check_form(*, text: str, mta: str, reply: str, envid: str, orcpt: str, address: str, utf8: bool) -> None:
    """Whatever stands in the fields: the same parts and field names, CRLF line ends, lines short enough."""
    hostile = Reported(
        recipient=recipient(1, address or "x", orcpt and "rfc822;" + orcpt),
        status=EnhancedStatus(5, 0, 0),
        reason=text,
        diagnostic=FromPeer(reply=Reply(550, (reply,)), mta=mta),
    )
    what = replace(
        occasion(hostile, REFUSED, smtputf8=utf8, envid=envid and "e" + envid),
        reader=Address(address or "x", Domain("source.example")),
    )
    content = compose(what).content
    assert b"\n" not in content.replace(b"\r\n", b"")
    assert b"\r" not in content.replace(b"\r\n", b"")
    assert max(map(len, content.split(b"\r\n"))) <= 998
    pieces = raw_parts(content)
    assert len(pieces) == 3
    assert pieces[2].endswith(ORIGINAL)
    header = content.partition(b"\r\n\r\n")[0]
    assert _names(header) == [
        *(b"Date", b"From", b"Subject", b"To", b"Message-ID", b"In-Reply-To", b"References", b"Auto-Submitted"),
        *(b"MIME-Version", b"Content-Type", *([b"Content-Transfer-Encoding"] if compose(what).smtputf8 else [])),
    ]
    _, message, first, second = pieces[1].split(b"\r\n\r\n")
    assert _names(message) == [
        b"Reporting-MTA",
        *([b"Original-Envelope-Id"] if envid else []),
        *(b"X-Relay-Queue-ID", b"X-Relay-Sender", b"Arrival-Date"),
    ]
    assert _names(first) == [
        b"Final-Recipient",
        *([b"Original-Recipient"] if orcpt else []),
        *(b"Action", b"Status", b"Remote-MTA", b"Diagnostic-Code"),
    ]
    assert len(_names(second)) == 5


def _names(block: bytes) -> list[bytes]:
    """The field names; a line that is neither a field nor a continuation fails."""
    names = []
    for line in block.strip(b"\r\n").split(b"\r\n"):
        if not line.startswith((b" ", b"\t")):
            name, colon, _ = line.partition(b":")
            assert colon, line
            names.append(name)
    return names


def test_the_modern_parser_finds_no_fault() -> None:
    mail = message_from_bytes(compose(occasion(FAILED, REFUSED)).content, policy=policy.SMTP)
    assert isinstance(mail, EmailMessage)
    assert [part.defects for part in mail.walk()] == [[] for _ in mail.walk()]
    assert all(not value.defects for part in mail.walk() for value in part.values() if hasattr(value, "defects"))
