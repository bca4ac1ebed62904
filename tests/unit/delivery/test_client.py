"""One connection against hosts that answer octet by octet what the test says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from relay.delivery.client import (
    ConnectError,
    HandshakeFailed,
    SessionEnded,
    SmtpConnection,
    Stage,
    connect,
)
from relay.delivery.conversation import transact
from relay.delivery.options import Timeouts
from relay.delivery.plan import Extensions
from relay.mail.reply import Reply

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PIPELINING = Extensions({"PIPELINING": ""})
PLAIN = Extensions({})
MAIL, RCPT = b"MAIL FROM:<a@example>", b"RCPT TO:<b@example>"


@asynccontextmanager
async def against(script: Script) -> AsyncIterator[SmtpConnection]:
    """A connection to a host that runs ``script``; what goes wrong there fails the test."""
    failed: list[BaseException] = []

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except BaseException as error:
            failed.append(error)
        finally:
            writer.close()

    server = await asyncio.start_server(run, "127.0.0.1", 0, limit=2**24)
    connection = await connect("127.0.0.1", server.sockets[0].getsockname()[1], local_address="", timeout=5)
    try:
        yield connection
    finally:
        connection.abort()
        server.close()
        await server.wait_closed()
    assert not failed, failed


async def content(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def send(
    connection: SmtpConnection, extensions: Extensions, *rcpts: bytes, body: bytes = b"hello\r\n"
) -> list[Reply]:
    got = await transact(
        connection,
        mail=MAIL,
        rcpts=rcpts or (RCPT,),
        body=content(body),
        extensions=extensions,
        timeouts=Timeouts(mail=5, rcpt=5, data_init=5, data_xfer=5, data_done=5),
    )
    return [got.mail, *got.rcpt, *(reply for reply in (got.data, got.final) if reply is not None)]


def codes(replies: list[Reply]) -> list[int]:
    return [reply.code for reply in replies]


@pytest.mark.parametrize("extensions", [PIPELINING, PLAIN])
async def test_a_message(extensions: Extensions) -> None:
    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for line, reply in ((MAIL, b"250 ok"), (RCPT, b"250 ok"), (b"DATA", b"354 go")):
            assert (await reader.readline()).rstrip() == line
            writer.write(reply + b"\r\n")
        assert await reader.readuntil(b"\r\n.\r\n") == b"..dot\r\nend\r\n.\r\n"
        writer.write(b"250 2.0.0 queued\r\n")

    async with against(host) as connection:
        assert codes(await send(connection, extensions, body=b".dot\r\nend\r\n")) == [250, 250, 354, 250]


async def test_pipelined_commands_leave_before_any_reply() -> None:
    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        whole = b"\r\n".join((MAIL, RCPT, RCPT, b"DATA")) + b"\r\n"
        assert await reader.readexactly(len(whole)) == whole
        writer.write(b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n354 go\r\n")
        await reader.readuntil(b"\r\n.\r\n")
        writer.write(b"250 2.0.0 queued\r\n")

    async with against(host) as connection:
        assert codes(await send(connection, PIPELINING, RCPT, RCPT)) == [250, 250, 550, 354, 250]


async def test_no_content_without_a_recipient() -> None:
    """RFC 2920 section 3.1: DATA may be agreed to all the same; the content must not follow."""

    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            await reader.readline()
        writer.write(b"250 ok\r\n550 no\r\n354 go\r\n")
        assert await reader.readline() == b".\r\n"
        writer.write(b"554 no valid recipients\r\n")

    async with against(host) as connection:
        assert codes(await send(connection, PIPELINING)) == [250, 550, 554]


async def test_without_pipelining_nothing_follows_a_refusal() -> None:
    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"451 later\r\n")
        assert await reader.read() == b""

    async with against(host) as connection:
        assert codes(await send(connection, PLAIN)) == [451]


async def test_an_answer_before_the_end_of_the_content_is_heard() -> None:
    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in (b"250 ok", b"250 ok", b"354 go"):
            await reader.readline()
            writer.write(reply + b"\r\n")
        await reader.readexactly(1000)
        writer.write(b"552 5.3.4 too much\r\n")
        await writer.drain()
        writer.close()

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(10_000):
            yield b"x" * 65_536

    async with against(host) as connection:
        got = await transact(
            connection, mail=MAIL, rcpts=(RCPT,), body=endless(), extensions=PLAIN, timeouts=Timeouts()
        )
    assert got.final == Reply(552, ("5.3.4 too much",))


async def test_content_that_fails_never_ends() -> None:
    """Whatever breaks while we send, the host must not see an end of data."""
    seen = bytearray()
    gone = asyncio.Event()

    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in (b"250 ok", b"250 ok", b"354 go"):
            await reader.readline()
            writer.write(reply + b"\r\n")
        try:
            while data := await reader.read(65_536):
                seen.extend(data)
        finally:
            gone.set()

    async def broken() -> AsyncIterator[bytes]:
        yield b"half a line\r\n"
        raise OSError("disk")

    async with against(host) as connection:
        with pytest.raises(OSError, match="disk"):
            await transact(connection, mail=MAIL, rcpts=(RCPT,), body=broken(), extensions=PLAIN, timeouts=Timeouts())
        connection.abort()
        await gone.wait()
    assert b"\r\n.\r\n" not in seen


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"", "lost connection with mx while receiving the initial server greeting"),
        (
            b"SSH-2.0-OpenSSH\r\n",
            "protocol error with mx while receiving the initial server greeting: not an SMTP reply: SSH",
        ),
    ],
)
async def test_no_greeting(octets: bytes, reason: str) -> None:
    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(octets)

    async with against(host) as connection:
        with pytest.raises(SessionEnded) as ended:
            await connection.reply(Stage.GREETING, 5)
    assert ended.value.reason("mx").startswith(reason)


async def test_silence_times_out() -> None:
    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with against(host) as connection:
        with pytest.raises(SessionEnded) as ended:
            await connection.reply(Stage.EHLO, 0.05)
    assert ended.value.reason("mx") == "conversation with mx timed out while performing the EHLO handshake"


async def test_a_flood_of_replies_ends_the_session() -> None:
    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"250 ok\r\n" * 5000)
        await reader.read()

    async with against(host) as connection:
        async with asyncio.timeout(10):
            while connection.is_connected:
                await asyncio.sleep(0)
        with pytest.raises(SessionEnded, match="replies without commands"):
            await connection.reply(Stage.GREETING, 5)


async def test_large_replies_without_commands_end_the_session() -> None:
    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = b"250-" + b"x" * 1000 + b"\r\n"
        writer.write((line * 60 + b"250 ok\r\n") * 100)
        await reader.read()

    async with against(host) as connection:
        async with asyncio.timeout(10):
            while connection.is_connected:
                await asyncio.sleep(0)
        with pytest.raises(SessionEnded, match="replies without commands"):
            await connection.reply(Stage.GREETING, 5)


async def test_what_comes_while_a_connection_rests_ends_it() -> None:
    gone = asyncio.Event()

    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"421 4.4.2 bye\r\n")
        await reader.read()
        gone.set()

    async with against(host) as connection:
        connection.resting = True
        await asyncio.wait_for(gone.wait(), 10)
        assert not connection.is_quiet
        assert not connection.has_unread


async def test_octets_in_the_clear_after_the_starttls_reply_end_the_session() -> None:
    """RFC 3207 section 4.2, CVE-2011-0411: nothing said before TLS may count after it."""

    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 go\r\n250-injected\r\n250 8BITMIME\r\n")
        await reader.read()

    async with against(host) as connection:
        assert (await connection.command(b"STARTTLS", Stage.STARTTLS, 5)).code == 220
        with pytest.raises(HandshakeFailed, match="in the clear"):
            await connection.upgrade(ssl.create_default_context(), "mx.example", 5)


@pytest.mark.parametrize("octets", [b"250 what\r\n" * 3, b""])
async def test_garbage_instead_of_a_handshake(octets: bytes) -> None:
    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 go\r\n")
        await reader.read(1)
        writer.write(octets)

    context = ssl.create_default_context()
    async with against(host) as connection:
        await connection.command(b"STARTTLS", Stage.STARTTLS, 5)
        with pytest.raises(HandshakeFailed):
            await connection.upgrade(context, "mx.example", 5)


async def test_refused_connection_says_so_in_the_systems_words() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(ConnectError, match=r"^Connection refused$"):
        await connect("127.0.0.1", port, local_address="", timeout=5)


async def test_no_line_end_inside_a_command() -> None:
    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""

    async with against(host) as connection:
        with pytest.raises(ValueError, match="line end"):
            connection.send_lines([b"RCPT TO:<a>\r\nDATA"], Stage.RCPT)
