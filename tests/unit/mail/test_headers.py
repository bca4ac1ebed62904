from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from ipaddress import ip_address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.envelope import NULL_SENDER, Address, Client, ClientTls, Envelope, QueueId, Recipient, RecipientId
from relay.mail.headers import MAX_SCANNED_OCTETS, HeaderScanner, protocol_word, received_field
from relay.mail.names import Domain

NOW = datetime(2026, 8, 21, 10, 0, 0, tzinfo=UTC)
TLS = ClientTls(protocol="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", bits=256, algorithm_bits=256)


def envelope(*recipients: str, client: Client, smtputf8: bool = False) -> Envelope:
    return Envelope(
        sender=NULL_SENDER,
        recipients=tuple(
            Recipient(id=RecipientId(n), address=Address(text, Domain("example.net")))
            for n, text in enumerate(recipients, 1)
        ),
        smtputf8=smtputf8,
        client=client,
    )


def field(*recipients: str, client: Client, smtputf8: bool = False, at: datetime = NOW) -> str:
    return received_field(
        envelope(*recipients, client=client, smtputf8=smtputf8),
        hostname="relay.example",
        queue_id=QueueId("4QwErTzXy"),
        arrived_at=at,
    ).decode()


CLIENT = Client(address=ip_address("192.0.2.7"), name="mail.example.org", helo="client.example")


def test_one_recipient_is_named() -> None:
    assert field("b@example.net", client=CLIENT) == (
        "Received: from client.example (mail.example.org [192.0.2.7])\r\n"
        "\tby relay.example (dane-relay) with ESMTP id 4QwErTzXy\r\n"
        "\tfor <b@example.net>; Fri, 21 Aug 2026 10:00:00 +0000 (UTC)\r\n"
    )


def test_several_recipients_are_not_told_of_each_other() -> None:
    assert field("b@example.net", "c@example.net", client=CLIENT) == (
        "Received: from client.example (mail.example.org [192.0.2.7])\r\n"
        "\tby relay.example (dane-relay) with ESMTP id 4QwErTzXy;\r\n"
        "\tFri, 21 Aug 2026 10:00:00 +0000 (UTC)\r\n"
    )


def test_tls_is_told() -> None:
    client = Client(address=ip_address("2001:db8::7"), helo="[IPv6:2001:db8::7]", tls=TLS)
    assert field("b@example.net", client=client) == (
        "Received: from [IPv6:2001:db8::7] (unknown [IPv6:2001:db8::7])\r\n"
        "\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))\r\n"
        "\t(No client certificate requested)\r\n"
        "\tby relay.example (dane-relay) with ESMTPS id 4QwErTzXy\r\n"
        "\tfor <b@example.net>; Fri, 21 Aug 2026 10:00:00 +0000 (UTC)\r\n"
    )


def test_the_day_has_two_digits_and_the_time_is_utc() -> None:
    east = datetime(2026, 9, 5, 1, 2, 3, tzinfo=timezone(timedelta(hours=2)))
    assert "; Fri, 04 Sep 2026 23:02:03 +0000 (UTC)\r\n" in field("b@example.net", client=CLIENT, at=east)


def test_without_helo_the_name_stands_in() -> None:
    client = Client(address=ip_address("127.0.0.1"), name="localhost", protocol="SMTP")
    assert field("b@example.net", client=client).startswith(
        "Received: from localhost (localhost [127.0.0.1])\r\n\tby relay.example (dane-relay) with SMTP id"
    )


@pytest.mark.parametrize(
    ("client", "smtputf8", "word"),
    [
        (Client(address=ip_address("::1"), protocol="SMTP"), False, "SMTP"),
        (Client(address=ip_address("::1")), False, "ESMTP"),
        (Client(address=ip_address("::1"), tls=TLS), False, "ESMTPS"),
        (Client(address=ip_address("::1"), user="u"), False, "ESMTPA"),
        (Client(address=ip_address("::1"), user="u", tls=TLS), False, "ESMTPSA"),
        (Client(address=ip_address("::1")), True, "UTF8SMTP"),
        (Client(address=ip_address("::1"), user="u", tls=TLS), True, "UTF8SMTPSA"),
    ],
)
def test_protocol_words(client: Client, smtputf8: bool, word: str) -> None:
    assert protocol_word(client, smtputf8=smtputf8) == word


@pytest.mark.parametrize(
    "helo",
    [
        "evil\r\nBcc: x@example.org",
        "a) by forged (b",
        "a;b",
        "x\n\ty",
        'q"uo\\te',
        "a@b <c>",
        "\x00\x7f",
        "b\u00fccher",
        "x" * 2000,
    ],
)
def test_helo_brings_nothing_in(helo: str) -> None:
    client = Client(address=ip_address("192.0.2.7"), name="unknown", helo=helo)
    octets = field("b@example.net", client=client)
    assert octets.isascii()
    assert len(octets.split("\r\n")) == 4
    assert octets.count("\r") == octets.count("\n") == 3
    first = octets.split("\r\n")[0]
    assert first.endswith(" (unknown [192.0.2.7])")
    word = first.removeprefix("Received: from ").removesuffix(" (unknown [192.0.2.7])")
    assert not set(word) & set(' ()<>@,;\\"')
    assert len(word) <= 255


def test_an_international_recipient_is_written_in_utf8() -> None:
    assert "\tfor <j\u00f8@example.net>; " in field("j\u00f8@example.net", client=CLIENT, smtputf8=True)


HEADERS = (
    b"Received: from a\r\n\tby b; now\r\n"
    b"rEcEiVeD : from b\r\n"
    b"X-Received: no\r\n"
    b"Date: Fri, 21 Aug 2026 10:00:00 +0000\r\n"
    b"Message-ID:\r\n  <one@example.org>\r\n"
    b"Message-Id: <two@example.org>\r\n"
    b"Subject: Received: no\r\n Received: no\r\n"
)


def test_the_scanner_reads_along() -> None:
    scanner = HeaderScanner()
    states = []
    for chunk in (HEADERS, b"\r\nReceived: body\r\nDate: body\r\n"):
        scanner.feed(chunk)
        states.append(scanner.ended)
    assert states == [False, True]
    assert scanner.received == 2
    assert scanner.message_id == "<one@example.org>"
    assert scanner.has_date
    assert scanner.size == len(HEADERS)


def test_nothing_there() -> None:
    scanner = HeaderScanner()
    scanner.feed(b"\r\nReceived: body\r\n")
    assert (scanner.ended, scanner.received, scanner.message_id, scanner.has_date, scanner.size) == (
        True,
        0,
        "",
        False,
        0,
    )


def test_a_line_that_is_no_field_ends_the_section() -> None:
    scanner = HeaderScanner()
    scanner.feed(b"Received: one\r\nHello there\r\nReceived: two\r\n")
    assert scanner.ended
    assert scanner.received == 1


def test_an_mbox_line_is_passed_over() -> None:
    scanner = HeaderScanner()
    scanner.feed(b"From a@example.org Fri Aug 21 10:00:00 2026\r\nReceived: one\r\nFrom here on body\r\n")
    assert scanner.received == 1
    assert scanner.ended


def test_message_id_breaks_no_log_line() -> None:
    scanner = HeaderScanner()
    scanner.feed(b"Message-ID: <a\x07b\xff\r\n\tc@example.org>" + b"x" * 5000 + b"\r\n")
    assert scanner.message_id.startswith("<a?b\\xff c@example.org>x")
    assert len(scanner.message_id) <= 998


def test_the_look_is_bounded() -> None:
    folded = HeaderScanner()
    folded.feed(b"Subject: a\r\n")
    while not folded.ended:
        folded.feed(b" x\r\n" * 1000)
        assert folded.size <= MAX_SCANNED_OCTETS + 4
    endless = HeaderScanner()
    fed = 0
    while not endless.ended:
        endless.feed(b"Subject" + b"x" * 60000)
        fed += 60007
        assert fed <= MAX_SCANNED_OCTETS + 70000


@given(st.lists(st.integers(0, len(HEADERS)), max_size=8))
def test_how_the_content_is_split_changes_nothing(cuts: list[int]) -> None:
    stream = b"X-Long: " + b"y" * 9000 + b"\r\n" + HEADERS + b"\r\nbody"
    borders = [0, *sorted(cut + 9000 for cut in cuts), len(stream)]
    scanner = HeaderScanner()
    for a, b in pairwise(borders):
        scanner.feed(stream[a:b])
    assert (scanner.received, scanner.message_id, scanner.has_date) == (2, "<one@example.org>", True)
    assert scanner.size == len(stream) - len(b"\r\nbody")
