from __future__ import annotations

from ipaddress import ip_address

from relay.log.events import Event
from relay.mail.envelope import Client, ClientTls, Envelope
from relay.mail.reply import Reply
from relay.smtpd import replies
from relay.smtpd.dialogue import Dialogue
from tests.unit.smtpd.front_end import options

TLS = ClientTls(protocol="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", bits=256, algorithm_bits=256)


def dialogue(address: str = "127.0.0.1", *, tls_available: bool = False) -> tuple[Dialogue, list[Event]]:
    events: list[Event] = []
    client = Client(address=ip_address(address))
    talk = Dialogue(
        client, options(), tls_available=tls_available, exceeds=lambda event, address: 0, observe=events.append
    )
    return talk, events


def envelope_of(talk: Dialogue) -> Envelope:
    envelope = talk.begin_data("")
    assert isinstance(envelope, Envelope)
    return envelope


def test_recipients_are_numbered_within_a_message() -> None:
    talk, events = dialogue()
    for _ in range(2):
        talk.answer("MAIL", "FROM:<a@example.org>")
        for name in "bcd":
            assert talk.answer("RCPT", f"TO:<{name}@example.net>") is replies.RECIPIENT_OK
        assert [(r.id, r.address.text) for r in envelope_of(talk).recipients] == [
            (1, "b@example.net"),
            (2, "c@example.net"),
            (3, "d@example.net"),
        ]
        talk.end_transaction()
    assert not events


def test_a_refused_recipient_leaves_no_trace() -> None:
    talk, _ = dialogue()
    talk.answer("MAIL", "FROM:<a@example.org>")
    talk.answer("RCPT", "TO:<b@example.net>")
    assert talk.answer("RCPT", "TO:<broken").code == 501
    talk.answer("RCPT", "TO:<c@example.net>")
    assert [r.id for r in envelope_of(talk).recipients] == [1, 2]


def test_the_word_of_the_protocol() -> None:
    talk, _ = dialogue()
    assert talk.client.protocol == "SMTP"
    talk.answer("EHLO", "x")
    assert talk.client.protocol == "ESMTP"
    talk.answer("HELO", "y")
    assert (talk.client.protocol, talk.client.helo) == ("SMTP", "y")


def test_tls_makes_everything_new() -> None:
    talk, _ = dialogue(tls_available=True)
    talk.answer("EHLO", "evil.example")
    assert talk.begin_tls("") is replies.START_TLS
    talk.answer("MAIL", "FROM:<evil@example.org>")
    talk.tls_began(TLS)
    assert (talk.client.helo, talk.client.protocol, talk.client.tls) == ("", "SMTP", TLS)
    assert talk.begin_data("") is replies.NEED_RCPT
    assert talk.begin_tls("") is replies.TLS_ALREADY_ACTIVE
    assert "STARTTLS" not in talk.answer("EHLO", "x").lines


def test_a_bare_postmaster_is_ours() -> None:
    talk, _ = dialogue()
    talk.answer("MAIL", "FROM:<>")
    talk.answer("RCPT", "TO:<Postmaster>")
    assert envelope_of(talk).recipients[0].address.text == "Postmaster@relay.example"


def test_a_stranger_gets_no_further() -> None:
    talk, events = dialogue("192.0.2.1")
    talk.answer("MAIL", "FROM:<a@example.org>")
    assert talk.answer("RCPT", "TO:<b@example.net>").code == 454
    assert talk.answer("RCPT", "TO:<postmaster>").code == 454
    assert isinstance(talk.begin_data(""), Reply)
    assert len(events) == 2


def test_what_is_known() -> None:
    talk, _ = dialogue()
    known = {"HELO", "EHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "VRFY", "STARTTLS", "AUTH"}
    assert all(talk.knows(verb) for verb in known)
    assert not any(talk.knows(verb) for verb in ("HELP", "ETRN", "EXPN", "", "mail"))


def test_where_tls_is_required_nothing_is_taken_in_the_clear() -> None:
    events: list[Event] = []
    client = Client(address=ip_address("127.0.0.1"))
    talk = Dialogue(
        client,
        options(tls_required=True),
        tls_available=True,
        exceeds=lambda event, address: 0,
        observe=events.append,
    )
    assert talk.answer("EHLO", "x").code == 250
    assert talk.answer("NOOP", "").code == 250
    for verb, argument in (("MAIL", "FROM:<a@example.org>"), ("RCPT", "TO:<b@example.net>"), ("RSET", "")):
        assert talk.answer(verb, argument) is replies.MUST_START_TLS
    assert talk.begin_data("") is replies.MUST_START_TLS
    assert talk.begin_tls("") is replies.START_TLS
    talk.tls_began(TLS)
    talk.answer("EHLO", "x")
    assert talk.answer("MAIL", "FROM:<a@example.org>") is replies.SENDER_OK
