from __future__ import annotations

from relay.mail.envelope import QueueId
from relay.mail.reply import Reply
from relay.smtpd import replies


def test_one_line_and_several() -> None:
    assert replies.wire_form(replies.SENDER_OK) == b"250 2.1.0 Ok\r\n"
    assert replies.wire_form(Reply(250, ("a", "b", "c"))) == b"250-a\r\n250-b\r\n250 c\r\n"


def test_postfix_says_it_like_this() -> None:
    assert [
        str(reply)
        for reply in (
            replies.RECIPIENT_OK,
            replies.START_DATA,
            replies.queued(QueueId("4Qabc")),
            replies.BYE,
            replies.relay_denied("b@example.net"),
            replies.TOO_MANY_RECIPIENTS,
            replies.DECLARED_TOO_BIG,
            replies.TOO_MANY_HOPS,
            replies.NO_SPACE,
            replies.NOT_WRITTEN,
            replies.NOT_RECOGNIZED,
            replies.timeout_exceeded("h.example"),
            replies.too_many_errors("h.example"),
            replies.too_many_connections("h.example", "192.0.2.1"),
            replies.shutting_down("h.example"),
            replies.unsupported_option("X=1"),
        )
    ] == [
        "250 2.1.5 Ok",
        "354 End data with <CR><LF>.<CR><LF>",
        "250 2.0.0 Ok: queued as 4Qabc",
        "221 2.0.0 Bye",
        "454 4.7.1 <b@example.net>: Relay access denied",
        "452 4.5.3 Error: too many recipients",
        "552 5.3.4 Message size exceeds fixed limit",
        "554 5.4.0 Error: too many hops",
        "452 4.3.1 Insufficient system storage",
        "451 4.3.0 Error: queue file write error",
        "500 5.5.2 Error: command not recognized",
        "421 4.4.2 h.example Error: timeout exceeded",
        "421 4.7.0 h.example Error: too many errors",
        "421 4.7.0 h.example Error: too many connections from 192.0.2.1",
        "421 4.3.2 h.example Service shutting down",
        "555 5.5.4 Unsupported option: X=1",
    ]


def test_extensions_stand_in_postfix_order() -> None:
    assert replies.extensions("h.example", message_size_limit=10240000, starttls=True).lines == (
        "h.example",
        "PIPELINING",
        "SIZE 10240000",
        "STARTTLS",
        "ENHANCEDSTATUSCODES",
        "8BITMIME",
        "DSN",
        "SMTPUTF8",
        "CHUNKING",
    )
    without = replies.extensions("h.example", message_size_limit=0, starttls=False).lines
    assert "SIZE" in without
    assert "STARTTLS" not in without


def test_what_a_client_said_makes_no_second_reply() -> None:
    wire = replies.wire_form(replies.relay_denied("a\r\n250 2.0.0 Ok\x00\u2028@x"))
    assert wire == b"454 4.7.1 <a??250 2.0.0 Ok??@x>: Relay access denied\r\n"


def test_a_reply_line_is_bounded_without_half_characters() -> None:
    wire = replies.wire_form(replies.relay_denied("\u00fc" * 600))
    assert len(wire) <= 512
    wire.decode()


def test_enhanced_codes_agree_with_codes() -> None:
    for name, reply in vars(replies).items():
        if isinstance(reply, Reply) and reply.code != 354:
            assert reply.lines[0].startswith(f"{reply.code // 100}."), name
