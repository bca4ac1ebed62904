"""Commands with the parameters that a host understands, needs that it lacks, and dots."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.delivery.plan import DotStuffer, Extensions, Need, mail_command, rcpt_command, unmet_needs
from relay.mail.envelope import (
    NULL_SENDER,
    Address,
    BodyType,
    Client,
    Envelope,
    Message,
    Notify,
    QueueId,
    Recipient,
    RecipientId,
    Ret,
    Sender,
)
from relay.mail.names import Domain

EXAMPLE = Domain("example.com")
JOE = Address("Joe@Example.com", EXAMPLE)
ALL = Extensions({"SIZE": "1000", "8BITMIME": "", "SMTPUTF8": "", "DSN": "", "PIPELINING": ""})
NONE = Extensions({})


def message(
    *,
    sender: Sender = JOE,
    smtputf8: bool = False,
    eight_bit: bool = False,
    ret: Ret = Ret.UNSPECIFIED,
    envid: str = "",
) -> Message:
    envelope = Envelope(
        sender=sender,
        recipients=(),
        body=BodyType.EIGHT_BIT_MIME if eight_bit else BodyType.SEVEN_BIT,
        smtputf8=smtputf8,
        ret=ret,
        envid=envid,
        client=Client(address=ip_address("127.0.0.1")),
    )
    return Message(
        queue_id=QueueId("1"),
        envelope=envelope,
        size=42,
        arrived_at=datetime(2026, 1, 1, tzinfo=UTC),
        eight_bit=eight_bit,
    )


def recipient(text: str = "ann@example.com", *, notify: Notify = Notify.UNSPECIFIED, orcpt: str = "") -> Recipient:
    return Recipient(id=RecipientId(1), address=Address(text, EXAMPLE), notify=notify, orcpt=orcpt)


def test_parameters_only_where_offered() -> None:
    full = message(smtputf8=True, eight_bit=True, ret=Ret.HDRS, envid="a+2Bb")
    assert mail_command(full, NONE) == b"MAIL FROM:<Joe@Example.com>"
    assert mail_command(full, ALL) == b"MAIL FROM:<Joe@Example.com> SIZE=42 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb"
    assert mail_command(message(sender=NULL_SENDER), ALL) == b"MAIL FROM:<> SIZE=42"


def test_notify_and_orcpt_keep_their_case() -> None:
    asked = recipient(notify=Notify.SUCCESS | Notify.FAILURE, orcpt="rfc822;Ann@Example.com")
    assert rcpt_command(asked, NONE) == b"RCPT TO:<ann@example.com>"
    assert rcpt_command(asked, ALL) == b"RCPT TO:<ann@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Ann@Example.com"
    never = b"RCPT TO:<ann@example.com> NOTIFY=NEVER ORCPT=rfc822;ann@example.com"
    assert rcpt_command(recipient(notify=Notify.NEVER), ALL) == never


@pytest.mark.parametrize(
    ("address", "orcpt"),
    [
        ("a+b=c@example.com", "rfc822;a+2Bb+3Dc@example.com"),
        ('"a b"@example.com', 'rfc822;"a+20b"@example.com'),
        ("änn\\+@example.com", r"utf-8;\x{E4}nn\x{5C}\x{2B}@example.com"),
    ],
)
def test_an_original_recipient_is_made_where_none_was_given(address: str, orcpt: str) -> None:
    assert rcpt_command(recipient(address), ALL).decode() == f"RCPT TO:<{address}> ORCPT={orcpt}"


def test_unencoded_utf8_goes_only_to_hosts_that_take_it() -> None:
    given = recipient(orcpt="utf-8;änn@example.com")
    assert rcpt_command(given, ALL).decode() == "RCPT TO:<ann@example.com> ORCPT=utf-8;änn@example.com"
    without = rcpt_command(given, Extensions({"DSN": ""}))
    assert without == rb"RCPT TO:<ann@example.com> ORCPT=utf-8;\x{E4}nn@example.com"


@pytest.mark.parametrize("text", ["a\r\nDATA@example.com", "a\0@example.com", "a\x7f@example.com"])
def test_no_command_can_be_smuggled_in(text: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        rcpt_command(recipient(text), ALL)


@pytest.mark.parametrize(
    ("smtputf8", "eight_bit", "rcpt", "offered", "needs"),
    [
        (False, False, "ann@example.com", NONE, []),
        (False, True, "ann@example.com", NONE, [Need.EIGHT_BIT_MIME]),
        (False, True, "ann@example.com", Extensions({"8BITMIME": ""}), []),
        (True, False, "ann@example.com", NONE, []),
        (True, False, "änn@example.com", Extensions({"8BITMIME": ""}), [Need.SMTPUTF8]),
        (True, True, "ann@example.com", Extensions({"8BITMIME": ""}), [Need.SMTPUTF8]),
        (True, True, "änn@example.com", Extensions({"SMTPUTF8": ""}), []),
    ],
)
def test_needs(smtputf8: bool, eight_bit: bool, rcpt: str, offered: Extensions, needs: list[Need]) -> None:
    given = message(smtputf8=smtputf8, eight_bit=eight_bit)
    assert list(unmet_needs(given, [recipient(rcpt)], offered)) == needs


def test_what_is_discarded_counts_as_not_offered() -> None:
    extensions = Extensions.parse(("mx", "chunking", "PIPELINING", "SIZE 10"), discard=frozenset({"CHUNKING", "SIZE"}))
    assert ("CHUNKING" in extensions, "PIPELINING" in extensions, extensions.size_limit) == (False, True, 0)


def test_ehlo_lines() -> None:
    extensions = Extensions.parse(("mx.example hello", "SIZE 35651584", "pipelining", "", "AUTH PLAIN LOGIN"))
    assert extensions.size_limit == 35651584
    assert "PIPELINING" in extensions
    assert "mx.example" not in extensions
    for nonsense in ("SIZE", "SIZE -1", "SIZE x", "SIZE " + "9" * 400, "SIZE ²"):
        assert Extensions.parse(("mx", nonsense)).size_limit == 0


def stuffed(body: bytes) -> bytes:
    """The rule in its plainest form: line by line."""
    lines = body.split(b"\r\n")
    whole = b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)
    return whole + (b"" if body.endswith(b"\r\n") or not body else b"\r\n") + b".\r\n"


@given(st.lists(st.sampled_from([b".", b"\r\n", b"a", b"..", b"\r\n.", b"."]), max_size=30), st.data())
def test_dots_are_doubled_however_the_body_is_cut(parts: list[bytes], data: st.DataObject) -> None:
    body = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    stuffer, sent, at = DotStuffer(), b"", 0
    for cut in [*cuts, len(body)]:
        sent += stuffer.feed(body[at:cut])
        at = cut
    assert sent + stuffer.end() == stuffed(body)
