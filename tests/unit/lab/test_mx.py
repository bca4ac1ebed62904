"""The lab's mail hosts do what their script says and write down what they saw."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.lab.ca import Authority, CertificateKind
from relay.lab.mx import Receiver
from relay.lab.record import Received, SessionRecord
from relay.lab.script import Rcpt, Script, Stage, StartTls, TlsRange
from relay.lab.wire import Wire

DEADLINE = 20.0
FROM, TO = "sender@return.lab.test", "user@good.lab.test"
CONTENT = b"Subject: x\r\n\r\nhello\r\n"
T = TypeVar("T")


@pytest.fixture(scope="module")
def pem_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    authority = Authority(tmp_path_factory.mktemp("ca"), datetime.now(UTC))
    return authority.issue(CertificateKind.GOOD, "mx.good.lab.test").pem_file


@asynccontextmanager
async def running(pem_file: Path, script: Script) -> AsyncIterator[tuple[Receiver, int]]:
    receiver = Receiver("mx.good.lab.test", "127.0.0.1", script, pem_file)
    port = await receiver.start()
    try:
        yield receiver, port
    finally:
        await receiver.stop()


async def converse(pem_file: Path, script: Script, talk: Callable[[int], T]) -> tuple[T, SessionRecord]:
    """Run a blocking client against a host and give what it found and what the host recorded of its last session."""
    async with running(pem_file, script) as (receiver, port):
        found = await asyncio.to_thread(talk, port)
        record = receiver.sessions[-1]
        async with asyncio.timeout(DEADLINE):
            while not record.ended:
                receiver.changed.clear()
                await receiver.changed.wait()
        return found, record


def context() -> ssl.SSLContext:
    made = ssl.create_default_context()
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def client(port: int) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", port, local_hostname="client.test", timeout=DEADLINE)


def send_in_tls(port: int) -> None:
    with client(port) as smtp:
        smtp.starttls(context=context())
        smtp.sendmail(FROM, [TO], CONTENT)


async def test_refused_verbs_get_their_reply_and_nothing_else(pem_file: Path) -> None:
    def talk(port: int) -> list[int]:
        with client(port) as smtp:
            codes = [smtp.ehlo()[0], smtp.helo()[0], smtp.mail(FROM)[0], smtp.rcpt(TO)[0], smtp.mail(FROM)[0]]
            return [*codes, smtp.docmd("DATA")[0]]

    refused = (("EHLO", "554 5.7.1 no"), ("MAIL", "451 4.3.0 not now"))
    codes, record = await converse(pem_file, Script(refused=refused), talk)
    assert codes == [554, 250, 451, 503, 451, 554]
    assert record.saw_mail
    assert not record.received


async def test_a_message_over_tls_is_recorded_with_its_session(pem_file: Path) -> None:
    _, record = await converse(pem_file, Script(), send_in_tls)
    assert record.tls is not None
    assert record.tls.version == "TLSv1.3"
    assert record.tls.cipher.startswith("TLS_")
    assert record.tls.sni == ""  # smtplib was given an address
    assert record.received == [Received(FROM, (TO,), CONTENT, encrypted=True, accepted=True)]
    assert [(command.verb, command.encrypted) for command in record.commands] == [
        ("EHLO", False),
        ("STARTTLS", False),
        ("EHLO", True),
        ("MAIL", True),
        ("RCPT", True),
        ("DATA", True),
        ("QUIT", True),
    ]
    assert record.saw_mail


async def test_sni_is_recorded(pem_file: Path) -> None:
    def talk(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as raw:
            file = raw.makefile("rb")
            file.readline()
            raw.sendall(b"STARTTLS\r\n")
            file.readline()
            with context().wrap_socket(raw, server_hostname="mx.good.lab.test") as secured:
                secured.sendall(b"QUIT\r\n")
                secured.recv(100)

    _, record = await converse(pem_file, Script(), talk)
    assert record.tls is not None
    assert record.tls.sni == "mx.good.lab.test"
    assert not record.saw_mail


@pytest.mark.parametrize(("versions", "got"), [(TlsRange.ONLY_1_2, "TLSv1.2"), (TlsRange.ONLY_1_3, "TLSv1.3")])
async def test_tls_versions(pem_file: Path, versions: TlsRange, got: str) -> None:
    _, record = await converse(pem_file, Script(tls=versions), send_in_tls)
    assert record.tls is not None
    assert record.tls.version == got


@pytest.mark.parametrize(("versions", "ciphers"), [(TlsRange.ONLY_1_0, "DEFAULT"), (TlsRange.ANONYMOUS, "aNULL")])
async def test_sessions_that_a_careful_client_refuses(pem_file: Path, versions: TlsRange, ciphers: str) -> None:
    """Who takes everything gets a session: it is the client's care that ends it."""

    def careless(port: int) -> str:
        taking_all = context()
        taking_all.set_ciphers(f"{ciphers}:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            taking_all.minimum_version = ssl.TLSVersion.TLSv1
            taking_all.maximum_version = ssl.TLSVersion.TLSv1_2
        with client(port) as smtp:
            smtp.starttls(context=taking_all)
            assert isinstance(smtp.sock, ssl.SSLSocket)
            return str(smtp.sock.version())

    version, record = await converse(pem_file, Script(tls=versions), careless)
    assert version == ("TLSv1" if versions is TlsRange.ONLY_1_0 else "TLSv1.2")
    assert record.tls is not None

    def careful(port: int) -> None:
        smtp = client(port)
        try:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                smtp.starttls(context=context())
        finally:
            smtp.close()

    await converse(pem_file, Script(tls=versions), careful)


async def test_a_reply_in_clear_behind_the_220(pem_file: Path) -> None:
    def talk(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as raw, raw.makefile("rb") as lines:
            lines.readline()
            raw.sendall(b"STARTTLS\r\n")
            return lines.readline() + lines.readline()

    said, _ = await converse(pem_file, Script(starttls=StartTls.INJECTED), talk)
    assert said == b"220 2.0.0 ready\r\n250 2.0.0 this was not said under TLS\r\n"


@pytest.mark.parametrize(
    ("starttls", "offered", "code"),
    [(StartTls.ABSENT, False, 502), (StartTls.REFUSED_454, True, 454), (StartTls.REFUSED_554, True, 554)],
)
async def test_no_starttls_and_in_clear_after_it(pem_file: Path, starttls: StartTls, offered: bool, code: int) -> None:
    def talk(port: int) -> tuple[bool, int]:
        with client(port) as smtp:
            smtp.ehlo()
            found = smtp.has_extn("starttls"), smtp.docmd("STARTTLS")[0]
            smtp.sendmail(FROM, [TO], CONTENT)
            return found

    found, record = await converse(pem_file, Script(starttls=starttls), talk)
    assert found == (offered, code)
    assert record.tls is None
    assert [message.encrypted for message in record.received] == [False]


@pytest.mark.parametrize("starttls", [StartTls.GARBAGE, StartTls.CUT])
async def test_handshakes_that_fail(pem_file: Path, starttls: StartTls) -> None:
    def talk(port: int) -> None:
        smtp = client(port)
        try:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                smtp.starttls(context=context())
        finally:
            smtp.close()

    _, record = await converse(pem_file, Script(starttls=starttls), talk)
    assert record.tls is None
    assert not record.saw_mail


async def test_a_client_that_refuses_the_certificate_is_recorded(pem_file: Path) -> None:
    def talk(port: int) -> None:
        smtp = client(port)
        try:
            with pytest.raises(ssl.SSLCertVerificationError):
                smtp.starttls(context=ssl.create_default_context())
        finally:
            smtp.close()

    _, record = await converse(pem_file, Script(tls=TlsRange.ONLY_1_2), talk)
    assert record.tls_error
    assert record.tls is None


@pytest.mark.parametrize("greeting", ["421 4.3.2 too busy", "554 5.3.2 no"])
async def test_greetings_that_end_it(pem_file: Path, greeting: str) -> None:
    def talk(port: int) -> int:
        with pytest.raises(smtplib.SMTPConnectError) as caught:
            client(port)
        return int(caught.value.smtp_code)

    code, record = await converse(pem_file, Script(greeting=greeting), talk)
    assert code == int(greeting[:3])
    assert not record.commands


async def test_greylisting_is_once_for_each_pair(pem_file: Path) -> None:
    def attempt(port: int, recipient: str) -> int:
        with client(port) as smtp:
            smtp.ehlo()
            smtp.mail(FROM)
            return smtp.rcpt(recipient)[0]

    async with running(pem_file, Script(rcpt=Rcpt.GREYLISTED)) as (_, port):
        recipients = (TO, "other@good.lab.test", TO, "other@good.lab.test")
        assert [await asyncio.to_thread(attempt, port, one) for one in recipients] == [450, 450, 250, 250]


async def test_a_refused_recipient_and_pipelined_data(pem_file: Path) -> None:
    def talk(port: int) -> list[bytes]:
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as raw, raw.makefile("rb") as file:
            raw.sendall(b"HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\nDATA\r\nRSET\r\nQUIT\r\n")
            return [line[:3] for line in file.readlines()]

    codes, record = await converse(pem_file, Script(rcpt=Rcpt.REJECTED), talk)
    assert codes == [b"220", b"250", b"250", b"550", b"554", b"250", b"221"]
    assert not record.received
    assert record.saw_mail


async def test_content_refused_at_its_end_is_kept_and_not_accepted(pem_file: Path) -> None:
    def talk(port: int) -> None:
        with client(port) as smtp, pytest.raises(smtplib.SMTPDataError):
            smtp.sendmail(FROM, [TO], CONTENT)

    _, record = await converse(pem_file, Script(end_of_data="554 5.6.0 no"), talk)
    assert [(message.wire, message.accepted) for message in record.received] == [(CONTENT, False)]


SILENT_AT = [
    (Stage.GREETING, b""),
    (Stage.EHLO, b"EHLO c\r\n"),
    (Stage.STARTTLS, b"STARTTLS\r\n"),
    (Stage.MAIL, b"MAIL FROM:<>\r\n"),
    (Stage.RCPT, b"MAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\n"),
    (Stage.DATA, b"MAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\nDATA\r\n"),
    (Stage.END_OF_DATA, b"MAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\nDATA\r\nx\r\n.\r\n"),
]


@pytest.mark.parametrize(("stage", "commands"), SILENT_AT)
async def test_a_host_falls_silent_and_stays_so_until_the_client_goes(
    pem_file: Path, stage: Stage, commands: bytes
) -> None:
    """Everything before the stage is answered; then the client closes, and only that ends the session."""
    async with running(pem_file, Script(hang=stage)) as (receiver, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(commands)
        replies = len(commands.replace(b"x\r\n.", b"").split(b"\r\n")) - 1 if stage is not Stage.GREETING else 0
        async with asyncio.timeout(DEADLINE):
            for _ in range(replies):
                assert await reader.readline()
        record = receiver.sessions[-1]
        assert not record.ended
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(DEADLINE):
            await receiver.changed.wait()
            while not record.ended:
                receiver.changed.clear()
                await receiver.changed.wait()


async def test_ten_million_octets_arrive_byte_for_byte(pem_file: Path) -> None:
    line = bytes(range(1, 256)).replace(b"\r", b"").replace(b"\n", b"") * 3
    content = (b".\r\n..\r\n" + line + b"\r\n") * (10_000_000 // (len(line) + 9) + 1)
    stuffed = b"".join(b"." + one if one.startswith(b".") else one for one in content.splitlines(keepends=True))
    assert len(content) >= 10_000_000

    def talk(port: int) -> None:
        with client(port) as smtp:
            smtp.starttls(context=context())
            smtp.ehlo()
            smtp.mail(FROM)
            smtp.rcpt(TO)
            assert smtp.docmd("DATA")[0] == 354
            assert smtp.sock is not None
            smtp.sock.sendall(stuffed + b".\r\n")
            assert smtp.getreply()[0] == 250

    _, record = await converse(pem_file, Script(), talk)
    assert record.received[0].wire == stuffed
    assert record.received[0].content == content


async def test_an_empty_message(pem_file: Path) -> None:
    def talk(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as raw, raw.makefile("rb") as file:
            raw.sendall(b"HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\nDATA\r\n.\r\nQUIT\r\n")
            file.read()

    _, record = await converse(pem_file, Script(), talk)
    assert [message.wire for message in record.received] == [b""]


def test_dots_are_undone_as_rfc_5321_says() -> None:
    wire = b"..\r\n...a\r\n.b\r\nc.\r\n"
    assert Received("", (TO,), wire, encrypted=True, accepted=True).content == b".\r\n..a\r\nb\r\nc.\r\n"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([b".", b"\r\n", b"a", b"\r", b"\n"]), max_size=30), st.integers(1, 7))
def test_end_of_data_is_found_however_octets_are_cut(pieces: list[bytes], size: int) -> None:
    content = b"".join(pieces) + b"\r\n"
    if b"\r\n.\r\n" in b"\r\n" + content:
        return
    stream = content + b".\r\nNEXT\r\n"

    async def read() -> tuple[bytes, bytes]:
        wire = Wire(lambda _: None)
        for at in range(0, len(stream), size):
            asyncio.get_running_loop().call_soon(wire.data_received, stream[at : at + size])
        return await wire.content(10_000), await wire.line()

    assert asyncio.run(read()) == (content, b"NEXT")


async def test_what_came_in_the_clear_before_the_handshake_is_dropped(pem_file: Path) -> None:
    def talk(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as raw:
            file = raw.makefile("rb")
            file.readline()
            raw.sendall(b"STARTTLS\r\nMAIL FROM:<injected@evil.test>\r\n")
            file.readline()
            with context().wrap_socket(raw, server_hostname="x.test") as secured:
                secured.sendall(b"NOOP\r\nQUIT\r\n")
                return secured.recv(1000)

    replies, record = await converse(pem_file, Script(), talk)
    assert replies.startswith(b"250 2.0.0 Ok")
    assert not record.saw_mail


async def test_limits(pem_file: Path) -> None:
    def talk(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as raw, raw.makefile("rb") as file:
            file.readline()
            raw.sendall(b"\xff\x00garbage\r\n")
            assert file.readline().startswith(b"502")
            raw.sendall(b"X" * 5000)
            return file.readline()

    reply, record = await converse(pem_file, Script(), talk)
    assert reply.startswith(b"500")
    assert record.commands[0].line == "\\xff\x00garbage"


async def test_stop_cuts_open_sessions(pem_file: Path) -> None:
    async with running(pem_file, Script()) as (receiver, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readline()
        await receiver.stop()
        async with asyncio.timeout(DEADLINE):
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
