from __future__ import annotations

import asyncio
import gc
import smtplib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_network

import pytest
import uvloop

from relay.log.events import (
    Accepted,
    ClientConnected,
    ClientDisconnected,
    ClientLost,
    Crashed,
    Noted,
    Rejected,
    Warned,
)
from relay.mail.envelope import NULL_SENDER, BodyType, Notify, Ret
from relay.mail.names import IpAddress
from relay.queue.store import StoreUnavailable
from relay.smtpd.conversation import Conversation
from relay.smtpd.incoming import Incoming
from relay.smtpd.session import Session
from tests.unit.smtpd.conftest import CertificateFiles
from tests.unit.smtpd.front_end import (
    BROKEN,
    FULL,
    HOSTNAME,
    Client,
    FrontEnd,
    RecordingStore,
    front_end,
    options,
    without_trace,
)

QUEUED = "250 2.0.0 Ok: queued as 4Q"
STRANGERS = (ip_network("192.0.2.0/24"),)


@pytest.fixture
async def relay() -> AsyncIterator[FrontEnd]:
    async with front_end() as running:
        yield running


@pytest.fixture
async def lenient() -> AsyncIterator[FrontEnd]:
    """One that lets a client send its content without waiting for 354."""
    async with front_end(options(forbid_unauth_pipelining=False)) as running:
        yield running


# --- a message ------------------------------------------------------------------------------------------------------


async def test_a_whole_session(relay: FrontEnd) -> None:
    async with relay.client() as client:
        assert (await client.message(b"Message-ID: <m@x>\r\n\r\nHello\r\n")) == f"{QUEUED}1"
        assert await client.say("QUIT") == "221 2.0.0 Bye"
        assert await client.rest() == b""
    assert relay.store.contents == [b"Message-ID: <m@x>\r\n\r\nHello\r\n"]
    (put,) = relay.store.puts
    assert [str(r.address) for r in put.envelope.recipients] == ["b@example.net"]
    assert put.envelope.client.helo == "client.example"
    assert put.envelope.client.name == "localhost"
    assert put.envelope.client.protocol == "ESMTP"
    assert len(relay.woken) == 1
    gone = await relay.seen(ClientDisconnected)
    assert gone.commands == {"ehlo": (1, 1), "mail": (1, 1), "rcpt": (1, 1), "data": (1, 1), "quit": (1, 1)}
    assert [type(event) for event in relay.events] == [ClientConnected, Accepted, ClientDisconnected]
    accepted = await relay.seen(Accepted)
    assert (accepted.message_id, accepted.recipients) == ("<m@x>", 1)


async def test_ehlo_names_what_there_is(relay: FrontEnd) -> None:
    async with relay.client() as client:
        assert await client.say("EHLO client.example") == "\n".join(
            [
                f"250-{HOSTNAME}",
                "250-PIPELINING",
                "250-SIZE 10240000",
                "250-ENHANCEDSTATUSCODES",
                "250-8BITMIME",
                "250-DSN",
                "250-SMTPUTF8",
                "250 CHUNKING",
            ]
        )
        assert await client.say("HELO client.example") == f"250 {HOSTNAME}"
        assert await client.say("EHLO") == "501 Syntax: EHLO hostname"
        assert await client.say("HELO") == "501 Syntax: HELO hostname"


async def test_the_envelope_carries_everything(relay: FrontEnd) -> None:
    async with relay.client(hello="EHLO [IPv6:::1]") as client:
        await client.say("MAIL FROM:<> SIZE=20 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ314159 AUTH=<>")
        await client.say("RCPT TO:<b@example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;B@example.net")
        await client.say("RCPT TO:<j\u00f8@example.net> NOTIFY=NEVER")
        await client.say("DATA")
        client.send(".")
        assert (await client.reply()).startswith(QUEUED)
    (put,) = relay.store.puts
    envelope = put.envelope
    assert envelope.sender is NULL_SENDER
    assert (envelope.body, envelope.smtputf8, envelope.ret, envelope.envid) == (
        BodyType.EIGHT_BIT_MIME,
        True,
        Ret.HDRS,
        "QQ314159",
    )
    first, second = envelope.recipients
    assert (first.id, first.notify, first.orcpt) == (1, Notify.SUCCESS | Notify.FAILURE, "rfc822;B@example.net")
    assert (second.id, second.notify, second.address.text) == (2, Notify.NEVER, "j\u00f8@example.net")
    assert put.destinations == {1: "example.net", 2: "example.net"}


async def test_one_session_many_messages(relay: FrontEnd) -> None:
    async with relay.client() as client:
        for number in range(1, 4):
            assert await client.message(b"%d\r\n" % number) == f"{QUEUED}{number}"
    assert relay.store.contents == [b"1\r\n", b"2\r\n", b"3\r\n"]


async def test_pipelined_from_mail_to_quit(lenient: FrontEnd) -> None:
    async with lenient.client() as client:
        one = ["MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>", "DATA", "Subject: x", "", "..dot", "."]
        client.send(*one, "NOOP", *one, "QUIT")
        codes = [line[:3] for line in (await client.rest()).decode().splitlines()]
    assert codes == ["250", "250", "354", "250", "250", "250", "250", "354", "250", "221"]
    assert lenient.store.contents == [b"Subject: x\r\n\r\n.dot\r\n"] * 2


@pytest.mark.parametrize("piece", [1, 2, 7, 4096])
async def test_how_the_network_cuts_it_changes_nothing(lenient: FrontEnd, piece: int) -> None:
    said = (
        b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
        b"Subject: x\r\n\r\n..\r\n.\n\r\nbye\r\n.\r\nNOOP\nQUIT\r\n"
    )
    async with lenient.client() as client:
        for start in range(0, len(said), piece):
            client.writer.write(said[start : start + piece])
            await client.writer.drain()
        codes = [line[:3] for line in (await client.rest()).decode().splitlines()]
    assert codes == ["250", "250", "354", "250", "250", "221"]
    assert lenient.store.contents == [b"Subject: x\r\n\r\n.\r\n.\r\n\r\nbye\r\n"]


@pytest.mark.parametrize("end", [b"\n.\n", b"\r.\r", b"\r\n.\n", b"\n.\r\n", b"\r.\r\n", b"\r\n.\r"])
async def test_nothing_is_smuggled(relay: FrontEnd, end: bytes) -> None:
    inner = b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\nevil\r\n"
    async with relay.client() as client:
        assert await client.message(b"a" + end + inner) == f"{QUEUED}1"
        assert await client.say("QUIT") == "221 2.0.0 Bye"
    assert relay.store.contents == [b"a\r\n.\r\n" + inner]


async def test_eight_bit_and_long_lines_are_kept(relay: FrontEnd) -> None:
    content = b"X: \xff\xfe\x00\x80\r\n\r\n" + b"y" * 998 + b"\r\n" + b"z" * 70000 + b"\r\n"
    async with relay.client() as client:
        assert (await client.message(content)).startswith(QUEUED)
    assert relay.store.contents == [content]


async def test_ten_million_octets_are_kept(relay: FrontEnd) -> None:
    lines = [bytes([32 + (n * 7) % 95]) * (n % 70) + b"%d\xe9\r\n" % n for n in range(250_000)]
    content = b"".join(lines)[:9_999_998].replace(b"\r", b"").replace(b"\n", b"\r\n")[:9_999_998] + b"\r\n"
    assert len(content) == 10_000_000
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    assert len(stuffed) > len(content)
    async with relay.client() as client:
        assert (await client.message(stuffed)).startswith(QUEUED)
    assert relay.store.contents == [content]


async def test_a_foreign_client(relay: FrontEnd) -> None:
    text = "Subject: hello\n\n.dot\nj\u00f8rgen\n".encode()

    def send() -> None:
        with smtplib.SMTP(*relay.address, timeout=20) as smtp:
            smtp.ehlo_or_helo_if_needed()
            assert smtp.has_extn("pipelining")
            assert smtp.has_extn("8bitmime")
            refused = smtp.sendmail("a@example.org", ["b@example.net", "c@example.net"], text, ["BODY=8BITMIME"])
            assert refused == {}
            with pytest.raises(smtplib.SMTPSenderRefused):
                smtp.sendmail("a@example.org", ["b@example.net"], b"x" * 10_240_001)

    await asyncio.to_thread(send)
    # Given bytes, smtplib leaves bare LFs, stuffs behind them, and adds the CRLF that it does not find at the end.
    assert relay.store.contents == [text.replace(b"\n", b"\r\n") + b"\r\n"]


# --- refusals -------------------------------------------------------------------------------------------------------


async def test_strangers_may_not_relay() -> None:
    async with front_end(options(mynetworks=STRANGERS)) as relay, relay.client() as client:
        await client.say("MAIL FROM:<a@example.org>")
        assert await client.say("RCPT TO:<b@example.net>") == "454 4.7.1 <b@example.net>: Relay access denied"
        assert await client.say("DATA") == "554 5.5.1 Error: no valid recipients"
        rejected = await relay.seen(Rejected)
        assert (rejected.where, rejected.sender, rejected.recipient, rejected.queue_id) == (
            "RCPT",
            "a@example.org",
            "b@example.net",
            "NOQUEUE",
        )
        assert rejected.client.helo == "client.example"


async def test_under_soft_bounce_nobody_is_refused_for_good() -> None:
    async with front_end(options(soft_bounce=True)) as relay, relay.client() as client:
        assert await client.say("NONSENSE") == "400 4.5.2 Error: command not recognized"


async def test_the_order_of_commands(relay: FrontEnd) -> None:
    async with relay.client() as client:
        assert await client.say("RCPT TO:<b@example.net>") == "503 5.5.1 Error: need MAIL command"
        assert await client.say("DATA") == "503 5.5.1 Error: need RCPT command"
        assert await client.say("MAIL FROM:<a@example.org>") == "250 2.1.0 Ok"
        assert await client.say("MAIL FROM:<a@example.org>") == "503 5.5.1 Error: nested MAIL command"
        assert await client.say("DATA") == "554 5.5.1 Error: no valid recipients"
        assert await client.say("RCPT TO:<b@example.net>") == "250 2.1.5 Ok"
        assert await client.say("DATA now") == "501 5.5.4 Syntax: DATA"
        assert await client.say("RSET now") == "501 5.5.4 Syntax: RSET"
        assert await client.say("RSET") == "250 2.0.0 Ok"
        assert await client.say("DATA") == "503 5.5.1 Error: need RCPT command"
        await client.say("MAIL FROM:<a@example.org>")
        await client.say("EHLO again.example")
        assert await client.say("RCPT TO:<b@example.net>") == "503 5.5.1 Error: need MAIL command"
        assert await client.say("STARTTLS") == "502 5.5.1 Error: command not implemented"


async def test_what_needs_nobody_else_is_answered_as_it_comes(relay: FrontEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Session] = []
    begin = Session.connection_made

    def connection_made(self: Session, transport: asyncio.BaseTransport) -> None:
        made.append(self)
        begin(self, transport)

    monkeypatch.setattr(Session, "connection_made", connection_made)
    async with relay.client():
        said: list[bytes] = []
        monkeypatch.setattr(made[0].transport, "write", said.append)
        for line in (b"MAIL FROM:<a@example.org>", b"RCPT TO:<b@example.net>", b"RCPT", b"NOOP"):
            made[0].data_received(line + b"\r\n")  # and the loop does not turn
        assert [reply[:3] for reply in said] == [b"250", b"250", b"501", b"250"]
        made[0].data_received(b"DATA\r\n")
        assert len(said) == 4


async def test_other_commands(relay: FrontEnd) -> None:
    async with relay.client() as client:
        assert await client.say("VRFY postmaster") == "502 5.5.1 VRFY command is disabled"
        assert await client.say("NOOP whatever") == "250 2.0.0 Ok"
        assert await client.say("AUTH PLAIN AGEAYg==") == "503 5.5.1 Error: authentication not enabled"
        for unknown in ("ETRN example.org", "EXPN list", "HELP", "XCLIENT NAME=x", "FOO"):
            assert await client.say(unknown) == "500 5.5.2 Error: command not recognized"


async def test_garbage_is_answered_and_the_session_goes_on(relay: FrontEnd) -> None:
    async with relay.client() as client:
        assert await client.say(b"X\x16\x03\x01\x02") == "500 5.5.2 Error: command not recognized"
        assert await client.say(b"\xff\xfe\xfd") == "500 5.5.2 Error: bad UTF-8 syntax"
        assert await client.say(b"") == "500 5.5.2 Error: bad syntax"
        assert await client.say(b"MAIL FROM:<\xff@x>") == "500 5.5.2 Error: bad UTF-8 syntax"
        assert await client.say(b"NOOP \x00x") == "500 5.5.2 Error: bad syntax"
        for size in (2050, 65530, 200_000):
            assert await client.say(b"NOOP " + b"x" * size) == "500 5.5.2 Error: line too long"
        assert (await client.message(b"still here\r\n")).startswith(QUEUED)
    gone = await relay.seen(ClientDisconnected)
    assert gone.commands["unknown"] == (0, 8)


@pytest.mark.parametrize(
    "verb", ["GET / HTTP/1.1", "POST /x HTTP/1.0", "CONNECT h:25 HTTP/1.1", "get / HTTP/1.1", "Host: x", "\x16\x03"]
)
async def test_other_protocols_are_cut_off(relay: FrontEnd, verb: str) -> None:
    async with relay.client(hello="") as client:
        await client.reply()
        client.send(verb, "Host: x", "MAIL FROM:<a@example.org>")
        assert await client.rest() == b"221 2.7.0 Error: I can break rules, too. Goodbye.\r\n"
    warned = await relay.seen(Warned)
    assert warned.text == f"non-SMTP command from localhost[127.0.0.1]: {ascii(verb)[1:-1]}"


async def test_size_is_refused_early_and_late() -> None:
    async with front_end(options(message_size_limit=1000)) as relay, relay.client() as client:
        assert await client.say("MAIL FROM:<a@example.org> SIZE=1001") == "552 5.3.4 Message size exceeds fixed limit"
        assert (await relay.seen(Rejected)).where == "MAIL"
        # The rest of a content that is too big is still read, so that what follows is a command again.
        assert await client.message(b"x" * 300_000 + b"\r\n") == "552 5.3.4 Error: message file too big"
        assert await client.say("NOOP") == "250 2.0.0 Ok"
        assert (await client.message(b"x" * 998 + b"\r\n")).startswith(QUEUED)
    assert len(relay.store.messages) == 1


async def test_hops_are_limited() -> None:
    async with front_end(options(hopcount_limit=5)) as relay, relay.client() as client:
        looped = b"Received: x\r\n" * 5 + b"\r\n" + b"body\r\n" * 50_000
        assert await client.message(looped) == "554 5.4.0 Error: too many hops"
        assert (await client.message(looped[len(b"Received: x\r\n") * 2 :])).startswith(QUEUED)


async def test_recipients_are_limited() -> None:
    async with front_end(options(recipient_limit=2, hard_error_limit=3)) as relay, relay.client() as client:
        await client.say("MAIL FROM:<a@example.org>")
        replies = [await client.say(f"RCPT TO:<b{n}@example.net>") for n in range(7)]
        assert replies == ["250 2.1.5 Ok"] * 2 + ["452 4.5.3 Error: too many recipients"] * 5
        await client.say("DATA")
        client.send(b"x", b".")
        assert (await client.reply()).startswith(QUEUED)
    assert len(relay.store.puts[0].envelope.recipients) == 2


@pytest.mark.parametrize(
    ("failure", "reply"),
    [(FULL, "452 4.3.1 Insufficient system storage"), (BROKEN, "451 4.3.0 Error: queue file write error")],
)
@pytest.mark.parametrize("early", [True, False])
async def test_a_failing_store_is_a_soft_refusal(failure: Exception, reply: str, early: bool) -> None:
    store = RecordingStore(failure=failure, fail_before_reading=early)
    async with front_end(store=store) as relay, relay.client() as client:
        assert await client.message(b"x" * 200_000 + b"\r\n") == reply
        store.failure = None
        assert (await client.message(b"x\r\n")).startswith(QUEUED)
        assert not any(isinstance(event, Crashed) for event in relay.events)


@pytest.mark.parametrize(
    ("refusal", "reply"),
    [(FULL, "452 4.3.1 Insufficient system storage"), (BROKEN, "451 4.3.0 Error: queue file write error")],
)
async def test_a_store_that_takes_no_mail_is_told_at_mail(refusal: StoreUnavailable, reply: str) -> None:
    async with front_end(store=RecordingStore(refusal=refusal)) as relay, relay.client() as client:
        assert await client.say("MAIL FROM:<a@example.org>") == reply
        assert (await relay.seen(Rejected)).where == "MAIL"
        relay.store.refusal = None
        assert (await client.message(b"x\r\n")).startswith(QUEUED)


@pytest.mark.parametrize("early", [True, False])
async def test_a_crash_is_ours_and_stays_in_our_log(early: bool) -> None:
    store = RecordingStore(failure=RuntimeError("secret /var/spool/x"), fail_before_reading=early)
    async with front_end(store=store) as relay, relay.client() as client:
        assert await client.message(b"x" * 200_000 + b"\r\n") == "451 4.3.0 Error: internal server error"
        store.failure = None
        assert (await client.message(b"x\r\n")).startswith(QUEUED)
        crashed = await relay.seen(Crashed)
        assert "secret /var/spool/x" in crashed.traceback


async def test_a_crash_before_the_greeting_ends_the_session() -> None:
    async def broken(address: IpAddress) -> str:
        raise RuntimeError(f"no name for {address}")

    async with front_end(name_of=broken) as relay:
        async with relay.client(hello="") as client:
            assert await client.rest() == b""
        assert "no name for 127.0.0.1" in (await relay.seen(Crashed)).traceback
        assert relay.server.sessions == 0


# --- limits ---------------------------------------------------------------------------------------------------------


async def test_too_many_errors_end_the_session() -> None:
    async with front_end(options(hard_error_limit=3)) as relay, relay.client() as client:
        client.send("FOO", "BAR", "BAZ", "QUIT")
        answers = (await client.rest()).decode().splitlines()
        assert answers == ["500 5.5.2 Error: command not recognized"] * 3 + [
            f"421 4.7.0 {HOSTNAME} Error: too many errors"
        ]
        lost = await relay.seen(ClientLost)
        assert (lost.how, lost.after) == ("too many errors", "UNKNOWN")
        assert (await relay.seen(ClientDisconnected)).commands == {"ehlo": (1, 1), "unknown": (0, 3)}


async def test_refusals_are_held_back_after_a_while() -> None:
    settings = options(soft_error_limit=1, error_sleep_time=3600.0)
    async with front_end(settings) as relay, relay.client() as client:
        assert (await client.say("FOO")).startswith("500")
        client.send("FOO")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.reply()
        await relay.server.close(grace=0)


async def test_a_message_is_worth_new_patience() -> None:
    async with front_end(options(hard_error_limit=3)) as relay, relay.client() as client:
        for _ in range(3):
            await client.say("FOO", "BAR")
            assert (await client.message(b"x\r\n")).startswith(QUEUED)


async def test_junk_ends_the_session() -> None:
    async with front_end(options(junk_command_limit=5, hard_error_limit=2)) as relay, relay.client() as client:
        client.send(*["RSET"] * 20)
        assert (await client.rest()).endswith(b"Error: too many errors\r\n")


async def test_one_client_has_so_many_sessions() -> None:
    async with front_end(options(client_connection_count_limit=1)) as relay, relay.client():
        async with relay.client(hello="") as second:
            assert await second.rest() == (
                f"421 4.7.0 {HOSTNAME} Error: too many connections from 127.0.0.1\r\n".encode()
            )
        assert (await relay.seen(Rejected)).where == "CONNECT"
        async with relay.client(source="127.0.0.2") as other:
            assert await other.say("NOOP") == "250 2.0.0 Ok"


async def test_all_clients_have_so_many_sessions() -> None:
    async with (
        front_end(options(connection_limit=1)) as relay,
        relay.client(),
        relay.client(hello="", source="127.0.0.2") as second,
    ):
        assert await second.rest() == f"421 4.3.2 {HOSTNAME} Error: too many connections\r\n".encode()


async def test_a_silent_client_is_told() -> None:
    async with front_end(options(timeout=0.05)) as relay:
        async with relay.client(hello="") as client:
            assert (await client.rest()).splitlines()[1:] == [f"421 4.4.2 {HOSTNAME} Error: timeout exceeded".encode()]
        lost = await relay.seen(ClientLost)
        assert (lost.how, lost.after) == ("timeout", "CONNECT")


async def test_a_client_that_is_silent_in_its_content_is_told() -> None:
    async with front_end(options(timeout=0.2, forbid_unauth_pipelining=False)) as relay:
        async with relay.client() as client:
            client.send("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>", "DATA", "half")
            assert (await client.rest()).splitlines()[-1] == f"421 4.4.2 {HOSTNAME} Error: timeout exceeded".encode()
        lost = await relay.seen(ClientLost)
        assert lost.how == "timeout"
        assert lost.after.startswith("DATA (")
        assert not relay.store.messages


async def test_sessions_share_nothing(relay: FrontEnd) -> None:
    async with relay.client() as first, relay.client() as second:
        long = f"MAIL FROM:<{'a' * 64}@{'b' * 60}.{'c' * 60}.{'d' * 60}.example> ENVID={'x' * 100} AUTH={'y' * 300}"
        assert len(long) > 512 + 26
        assert await first.say(long) == "250 2.1.0 Ok"
        await first.say("RSET")
        async with relay.client():
            assert await first.say(long) == "250 2.1.0 Ok"
        assert await second.say("RCPT TO:<b@example.net>") == "503 5.5.1 Error: need MAIL command"


# --- ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "last", "after"),
    [
        ([], b"", "CONNECT"),
        (["EHLO x"], b"", "EHLO"),
        (["EHLO x"], b"MAIL FR", "EHLO"),
        (["EHLO x", "MAIL FROM:<a@b.example>"], b"", "MAIL"),
        (["EHLO x", "MAIL FROM:<a@b.example>", "RCPT TO:<b@example.net>"], b"BDAT 10\r\nhalf", "BDAT (4 bytes)"),
        (["EHLO x", "MAIL FROM:<a@b.example>", "RCPT TO:<b@example.net>"], b"BDAT 4\r\nhalf", "BDAT"),
    ],
)
async def test_a_client_that_goes_away(relay: FrontEnd, lines: list[str], last: bytes, after: str) -> None:
    async with relay.client(hello="") as client:
        await client.reply()
        for line in lines:
            await client.say(line)
        client.writer.write(last)
        client.writer.write_eof()
        await client.rest()
    lost = await relay.seen(ClientLost)
    assert (lost.how, lost.after) == ("lost connection", after)
    assert not relay.store.messages
    await relay.seen(ClientDisconnected)


@pytest.mark.parametrize("abort", [True, False])
async def test_half_a_content_is_nothing(relay: FrontEnd, abort: bool) -> None:
    async with relay.client() as client:
        for line in ("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>", "DATA"):
            await client.say(line)
        client.writer.write(b"half\r\n.\r")
        await client.writer.drain()
        await relay.store.begun.wait()
        if abort:
            client.writer.transport.abort()
        else:
            client.writer.close()
    lost = await relay.seen(ClientLost)
    assert lost.after.startswith("DATA (")
    assert not relay.store.messages
    assert not any(isinstance(event, Accepted | Crashed) for event in relay.events)


async def test_a_message_sent_to_its_end_is_committed_though_its_client_is_gone() -> None:
    store = RecordingStore(hold=asyncio.Event())
    async with front_end(options(forbid_unauth_pipelining=False), store=store) as relay:
        async with relay.client() as client:
            client.send("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>", "DATA", "whole", ".")
            await store.begun.wait()
            client.writer.transport.abort()
        assert store.hold is not None
        store.hold.set()
        await relay.seen(Accepted)
        assert (await relay.seen(ClientLost)).after == "END-OF-MESSAGE"
        assert store.contents == [b"whole\r\n"]


async def test_a_client_that_only_sends_is_answered(lenient: FrontEnd) -> None:
    async with lenient.client() as client:
        client.send("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>", "DATA", "whole", ".")
        client.writer.write_eof()
        assert (await client.rest()).splitlines()[-1].startswith(QUEUED.encode())
    assert lenient.store.contents == [b"whole\r\n"]


async def test_no_250_before_the_commit() -> None:
    store = RecordingStore(hold=asyncio.Event())
    async with front_end(options(forbid_unauth_pipelining=False), store=store) as relay, relay.client() as client:
        client.send("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>", "DATA", "x", ".")
        for code in ("250", "250", "354"):
            assert (await client.reply()).startswith(code)
        await store.begun.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.reader.read(1)
        assert not relay.woken
        assert store.hold is not None
        store.hold.set()
        assert (await client.reply()).startswith(QUEUED)


# --- TLS ------------------------------------------------------------------------------------------------------------


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def start_tls(client: Client) -> None:
    await client.writer.start_tls(trusting(), server_hostname="relay.example")


async def test_a_message_over_tls(certificate: CertificateFiles) -> None:
    settings = options(tls_cert_file=certificate.cert_file, tls_key_file=certificate.key_file)
    async with front_end(settings) as relay:
        async with relay.client() as client:
            assert "250-STARTTLS\n250-ENHANCEDSTATUSCODES" in await client.say("EHLO a.example")
            assert await client.say("STARTTLS now") == "501 5.5.4 Syntax: STARTTLS"
            await client.say("MAIL FROM:<a@example.org>")
            assert await client.say("STARTTLS") == "503 5.5.1 Error: MAIL transaction in progress"
            await client.say("RSET")
            assert await client.say("STARTTLS") == "220 2.0.0 Ready to start TLS"
            await start_tls(client)
            assert await client.say("RCPT TO:<b@example.net>") == "503 5.5.1 Error: need MAIL command"
            assert "STARTTLS" not in await client.say("EHLO tls.example")
            assert await client.say("STARTTLS") == "554 5.5.1 Error: TLS already active"
            assert (await client.message(b"secret\r\n" * 50_000)).startswith(QUEUED)
            assert await client.say("QUIT") == "221 2.0.0 Bye"
        assert relay.store.contents == [b"secret\r\n" * 50_000]
        tls = relay.store.puts[0].envelope.client.tls
        assert tls.protocol == "TLSv1.3"
        assert tls.bits == tls.algorithm_bits > 0
        (octets,) = relay.store.messages.values()
        assert b" with ESMTPS id " in octets
        assert f"(using TLSv1.3 with cipher {tls.cipher}".encode() in octets
        noted = await relay.seen(Noted)
        assert noted.text.startswith("Anonymous TLS connection established from localhost[127.0.0.1]: TLSv1.3 with")
        assert (await relay.seen(ClientDisconnected)).commands["starttls"] == (1, 3 + 1)


async def test_what_is_said_ahead_of_tls_ends_the_session(certificate: CertificateFiles) -> None:
    async with front_end(options(tls_cert_file=certificate.both_file)) as relay, relay.client() as client:
        client.send("STARTTLS", "EHLO injected.example", "MAIL FROM:<evil@example.org>")
        assert await client.rest() == b"554 5.5.0 Error: SMTP protocol synchronization\r\n"
        noted = await relay.seen(Noted)
        assert noted.text == (
            "improper command pipelining after STARTTLS from localhost[127.0.0.1]: "
            "EHLO injected.example\\r\\nMAIL FROM:<evil@example.org>\\r\\n"
        )


async def test_what_is_said_ahead_of_tls_is_not_heard_in_it(certificate: CertificateFiles) -> None:
    settings = options(tls_cert_file=certificate.both_file, forbid_unauth_pipelining=False)
    async with front_end(settings) as relay, relay.client() as client:
        client.send("STARTTLS", "EHLO injected.example", "MAIL FROM:<evil@example.org>")
        assert await client.reply() == "220 2.0.0 Ready to start TLS"
        await start_tls(client)
        assert await client.say("RCPT TO:<b@example.net>") == "503 5.5.1 Error: need MAIL command"
        noted = await relay.seen(Noted)
        assert noted.text.startswith("improper command pipelining after STARTTLS from localhost[127.0.0.1]: EHLO")


async def test_what_is_said_while_the_client_takes_the_go_ahead_is_not_heard_in_tls(
    certificate: CertificateFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    push = Session.push

    async def slowly(session: Session, status: str) -> None:
        await push(session, status)
        session.data_received(b"EHLO injected.example\r\nMAIL FROM:<evil@example.org>\r\n")

    monkeypatch.setattr(Session, "push", slowly)
    async with front_end(options(tls_cert_file=certificate.both_file)) as relay, relay.client() as client:
        await client.say("EHLO a.example")
        assert await client.say("STARTTLS") == "220 2.0.0 Ready to start TLS"
        await start_tls(client)
        assert await client.say("RCPT TO:<b@example.net>") == "503 5.5.1 Error: need MAIL command"


async def test_a_failed_handshake_ends_the_session(certificate: CertificateFiles) -> None:
    async with front_end(options(tls_cert_file=certificate.both_file)) as relay:
        async with relay.client() as client:
            assert (await client.say("STARTTLS")).startswith("220")
            client.send("this is no client hello")
            await client.rest()
        lost = await relay.seen(ClientLost)
        assert (lost.how, lost.after) == ("lost connection", "STARTTLS")
        noted = await relay.seen(Noted)
        assert noted.text.startswith("SSL_accept error from localhost[127.0.0.1]: ")
        await relay.seen(ClientDisconnected)


async def test_a_client_that_hangs_up_after_starttls_is_not_waited_for(certificate: CertificateFiles) -> None:
    async with front_end(options(tls_cert_file=certificate.both_file)) as relay:
        async with relay.client() as client:
            client.send("STARTTLS")
            client.writer.write_eof()
            await client.rest()
        lost = await relay.seen(ClientLost)
        assert (lost.how, lost.after) == ("lost connection", "STARTTLS")


async def test_a_handshake_that_does_not_begin_ends_by_the_sessions_timeout(certificate: CertificateFiles) -> None:
    async with front_end(options(tls_cert_file=certificate.both_file, timeout=0.2)) as relay:
        async with relay.client() as client:
            assert (await client.say("STARTTLS")).startswith("220")
            await client.rest()
        lost = await relay.seen(ClientLost)
        assert (lost.how, lost.after) == ("timeout", "STARTTLS")


async def test_a_foreign_client_over_tls(certificate: CertificateFiles) -> None:
    async with front_end(options(tls_cert_file=certificate.both_file)) as relay:

        def send() -> None:
            with smtplib.SMTP(*relay.address, timeout=20) as smtp:
                smtp.starttls(context=trusting())
                smtp.sendmail("a@example.org", ["b@example.net"], b"Subject: x\r\n\r\ny\r\n")

        await asyncio.to_thread(send)
        assert relay.store.contents == [b"Subject: x\r\n\r\ny\r\n"]
        assert not any(isinstance(event, Crashed | ClientLost) for event in relay.events)


async def test_what_the_trace_says_is_what_was_said(relay: FrontEnd) -> None:
    async with relay.client(hello="HELO evil)\tby(x") as client:
        assert (await client.message(b"x\r\n")).startswith(QUEUED)
    (octets,) = relay.store.messages.values()
    assert octets.startswith(
        b"Received: from evil??by?x (localhost [127.0.0.1])\r\n\tby relay.example (dane-relay) with SMTP"
    )
    assert without_trace(octets) == b"x\r\n"


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("polite", [True, False])
def test_a_session_that_is_over_leaves_nothing_to_the_collector(
    make_loop: Callable[[], asyncio.AbstractEventLoop], polite: bool
) -> None:
    async def left() -> list[object]:
        async with front_end() as relay:
            async with relay.client() as client:
                await client.message(b"Subject: x\r\n\r\nbody\r\n")
                assert relay.server.sessions == 1
                if polite:
                    assert (await client.say("QUIT")).startswith("221")
            async with asyncio.timeout(60):
                while relay.server.sessions:
                    await asyncio.sleep(0)
            for _ in range(10):  # until the loop has told of the connection's end
                await asyncio.sleep(0)
            return parts()

    def parts() -> list[object]:
        return [one for one in gc.get_objects() if type(one) in {Session, Conversation, Incoming}]

    gc.collect()
    gc.disable()
    of_other_tests = parts()
    try:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            assert all(any(one is other for other in of_other_tests) for one in runner.run(left()))
    finally:
        gc.enable()


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_connection_that_is_reset_is_no_news_to_the_loop(
    make_loop: Callable[[], asyncio.AbstractEventLoop], caplog: pytest.LogCaptureFixture
) -> None:
    async def reset() -> None:
        async with front_end() as relay:
            async with relay.client() as client:
                connection = client.writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.writer.transport.abort()
            await relay.seen(ClientDisconnected)
            async with asyncio.timeout(60):
                while relay.server.sessions:
                    await asyncio.sleep(0)
            assert any(isinstance(event, ClientLost) for event in relay.events)

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(reset())
    gc.collect()
    assert not caplog.records
