"""An SMTP session towards one host, bound to aiosmtplib's protocol class.

What the library does not do is added by overriding its public asyncio callbacks: replies are queued, so that commands may
be pipelined; bodies are streamed with back-pressure; each stage has its own deadline; octets that arrive between the reply
to STARTTLS and the handshake end the session (RFC 3207 section 4.2).

Private names of aiosmtplib.protocol.SMTPProtocol used here, guarded by ``tests/unit/delivery/test_private_names.py``:
``_drain_helper``, ``_loop``, ``_over_ssl``.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

from aiosmtplib.errors import SMTPServerDisconnected
from aiosmtplib.protocol import SMTPProtocol

from relay.delivery.options import Timeouts
from relay.delivery.plan import DotStuffer, Extensions
from relay.delivery.replies import MalformedReply, ReplyReader
from relay.mail.reply import Reply, Severity

# A host may send this many replies ahead of our asking (RFC 2920 allows none), before it counts as hostile.
MAX_UNREAD_REPLIES = 2_100


class Stage(Enum):
    """Where a session was when it ended, in Postfix's words (smtp_trouble.c)."""

    GREETING = "receiving the initial server greeting"
    EHLO = "performing the EHLO handshake"
    HELO = "performing the HELO handshake"
    STARTTLS = "receiving the STARTTLS response"
    AUTH = "performing SASL authentication"
    MAIL = "sending MAIL FROM"
    RCPT = "sending RCPT TO"
    DATA = "sending DATA command"
    BODY = "sending message body"
    END = "sending end of data -- message may be sent more than once"
    QUIT = "sending QUIT"


class ConnectError(Exception):
    """No TCP connection; the message is the operating system's, as ``Connection refused``."""


class SessionEnded(Exception):  # noqa: N818 - it names what happened
    """The session is over: connection lost, deadline passed, or a reply that was none.

    :param how: ``lost connection``, ``timed out`` or ``protocol error``.
    :param detail: what came instead of a reply; empty for the first two.
    """

    def __init__(self, stage: Stage, how: str, detail: str = "") -> None:
        super().__init__(f"{how} while {stage.value}" + (f": {detail}" if detail else ""))
        self.stage = stage
        self.how = how
        self.detail = detail

    def reason(self, host: str) -> str:
        """Postfix's text for it."""
        match self.how:
            case "timed out":
                return f"conversation with {host} timed out while {self.stage.value}"
            case "lost connection":
                return f"lost connection with {host} while {self.stage.value}"
            case _:
                return f"{self.how} with {host} while {self.stage.value}: {self.detail}"


class HandshakeFailed(Exception):  # noqa: N818 - it names what happened
    """The TLS handshake failed; the connection is gone. The message says how, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionReplies:
    """What a host said to each command of a transaction; a reply that was not asked for or not had is absent.

    :param rcpt: replies in the order of the RCPT commands, as far as they came.
    :param final: the reply to the end of data, None if the data was not sent.
    """

    mail: Reply
    rcpt: tuple[Reply, ...] = ()
    data: Reply | None = None
    final: Reply | None = None


class SmtpConnection(SMTPProtocol):
    """One connection. Not safe for use by several tasks at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._reader = ReplyReader()
        self._replies: deque[Reply] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._fault: Exception | None = None
        self._lost = asyncio.Event()

    # --- asyncio's side ---------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Queue whole replies; asyncio calls this."""
        if self._fault is not None:
            return
        try:
            self._replies.extend(self._reader.feed(data))
            if len(self._replies) > MAX_UNREAD_REPLIES:
                raise MalformedReply("replies without commands")
        except MalformedReply as error:
            self._replies.clear()
            self._end(error)
            self.abort()
            return
        self._wake()

    def eof_received(self) -> bool:
        """The host closed its side; replies that came before still count."""
        self._end(ConnectionResetError())
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._end(exc or ConnectionResetError())
        self._lost.set()
        super().connection_lost(exc)

    def _end(self, fault: Exception) -> None:
        if self._fault is None:
            self._fault = fault
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- our side ---------------------------------------------------------------------------------------------------

    @property
    def has_unread(self) -> bool:
        """Whether octets came that no command asked for."""
        return bool(self._replies) or not self._reader.is_empty

    @property
    def ssl_object(self) -> ssl.SSLObject | None:
        """The TLS session, None in the clear."""
        if self.transport is None:
            return None
        return cast("ssl.SSLObject | None", self.transport.get_extra_info("ssl_object"))

    async def reply(self, stage: Stage, timeout: float) -> Reply:
        """The next reply.

        :param timeout: seconds to wait for it.
        :raises SessionEnded: if none will come.
        """
        try:
            async with asyncio.timeout(timeout):
                while not self._replies:
                    if self._fault is not None:
                        raise self._ended(stage)
                    self._waiter = self._loop.create_future()
                    await self._waiter
        except TimeoutError:
            raise SessionEnded(stage, "timed out") from None
        return self._replies.popleft()

    def _ended(self, stage: Stage) -> SessionEnded:
        if isinstance(self._fault, MalformedReply):
            return SessionEnded(stage, "protocol error", str(self._fault))
        return SessionEnded(stage, "lost connection")

    def send_lines(self, lines: Sequence[bytes], stage: Stage) -> None:
        """Write commands, each without its line end, in one piece.

        :raises SessionEnded: if the connection is gone.
        :raises ValueError: if a command has a line end inside.
        """
        if any(b"\n" in line or b"\r" in line for line in lines):
            raise ValueError("line end inside an SMTP command")
        self.send_octets(b"".join(line + b"\r\n" for line in lines), stage)

    def send_octets(self, data: bytes, stage: Stage) -> None:
        """Write octets as they are."""
        try:
            self.write(data)
        except SMTPServerDisconnected:
            raise self._ended(stage) from None

    async def command(self, line: bytes, stage: Stage, timeout: float) -> Reply:
        """Send one command and await its reply."""
        self.send_lines([line], stage)
        return await self.reply(stage, timeout)

    async def drain(self, stage: Stage, timeout: float) -> None:
        """Wait until the peer has taken enough of what was written."""
        try:
            async with asyncio.timeout(timeout):
                await self._drain_helper()
        except TimeoutError:
            raise SessionEnded(stage, "timed out") from None
        except OSError:
            raise self._ended(stage) from None

    async def upgrade(self, context: ssl.SSLContext, server_name: str, timeout: float) -> ssl.SSLObject:
        """Do the TLS handshake, after a positive reply to STARTTLS.

        :param server_name: for SNI, empty for none.
        :raises HandshakeFailed: whatever went wrong; the connection is closed then.
        """
        transport = self.transport
        if self.has_unread:
            self.abort()
            raise HandshakeFailed("octets in the clear after the reply to STARTTLS")
        if transport is None or transport.is_closing():
            raise HandshakeFailed("lost connection")
        try:
            upgraded = await self._loop.start_tls(
                cast("asyncio.WriteTransport", transport),
                self,
                context,
                server_hostname=server_name or None,
                ssl_handshake_timeout=timeout,
            )
        except ConnectionAbortedError:
            raise HandshakeFailed("handshake timed out") from None
        except ssl.SSLError as error:
            raise HandshakeFailed(f"TLS library problem: {error.reason or error}") from None
        except (OSError, ValueError) as error:
            raise HandshakeFailed(f"lost connection: {str(error) or type(error).__name__}") from None
        if upgraded is None:
            raise HandshakeFailed("lost connection")
        self.transport = upgraded
        self._over_ssl = True
        tls = self.ssl_object
        if tls is None:
            raise HandshakeFailed("no TLS session")
        return tls

    def abort(self) -> None:
        """Drop the connection at once."""
        if self.transport is not None:
            cast("asyncio.Transport", self.transport).abort()

    def close(self) -> None:
        """Close the connection when what was written is gone."""
        if self.transport is not None:
            cast("asyncio.Transport", self.transport).close()

    async def wait_closed(self, timeout: float) -> None:
        """Wait until a connection that is being closed is gone; drop it if it takes too long.

        :param timeout: seconds for the peer to do its part.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._lost.wait()
        except TimeoutError:
            self.abort()
            await self._lost.wait()


@contextmanager
def abort_on_error(connection: SmtpConnection) -> Iterator[None]:
    """Drop the connection if the block is left by an exception, cancellation included: no dot, no QUIT."""
    clean = False
    try:
        yield
        clean = True
    finally:
        if not clean:
            connection.abort()


async def connect(address: str, port: int, *, local_address: str, timeout: float) -> SmtpConnection:
    """Open a TCP connection.

    :param local_address: to bind to, empty for any.
    :raises ConnectError: if there is none within ``timeout`` seconds.
    """
    loop = asyncio.get_running_loop()
    local: Any = (local_address, 0) if local_address else None
    try:
        async with asyncio.timeout(timeout):
            _, connection = await loop.create_connection(lambda: SmtpConnection(loop), address, port, local_addr=local)
    except TimeoutError:
        raise ConnectError("Connection timed out") from None
    except OSError as error:
        raise ConnectError(_os_error_text(error)) from None
    return connection


def _os_error_text(error: OSError) -> str:
    """The operating system's words, without what asyncio writes around them."""
    return str(error) if error.errno is None else os.strerror(error.errno)


async def transact(
    connection: SmtpConnection,
    *,
    mail: bytes,
    rcpts: Sequence[bytes],
    body: AsyncIterator[bytes],
    extensions: Extensions,
    timeouts: Timeouts,
) -> TransactionReplies:
    """Send one message.

    With PIPELINING the commands up to DATA leave in one write; the data follows only if the host agreed to DATA and took at
    least one recipient.

    :raises SessionEnded: if the session broke; the caller knows by its stage what may have been taken.
    """
    if "PIPELINING" in extensions:
        connection.send_lines([mail, *rcpts, b"DATA"], Stage.MAIL)
        replies = TransactionReplies(
            mail=await connection.reply(Stage.MAIL, timeouts.mail),
            rcpt=tuple([await connection.reply(Stage.RCPT, timeouts.rcpt) for _ in rcpts]),
            data=await connection.reply(Stage.DATA, timeouts.data_init),
        )
    else:
        replies = await _one_by_one(connection, mail, rcpts, timeouts)
    if replies.data is None or replies.data.severity is not Severity.INTERMEDIATE:
        return replies
    if not _taken(replies):
        # RFC 2920 section 3.1: a host that agreed to DATA without recipients gets an empty message, which it must refuse.
        final = await connection.command(b".", Stage.END, timeouts.data_done)
        return TransactionReplies(mail=replies.mail, rcpt=replies.rcpt, data=final)
    try:
        await _send_body(connection, body, timeouts)
    except SessionEnded:
        if not connection.has_unread:
            raise
        # The host answered before it had heard all, and hung up: its answer is the better reason.
    final = await connection.reply(Stage.END, timeouts.data_done)
    return TransactionReplies(mail=replies.mail, rcpt=replies.rcpt, data=replies.data, final=final)


def _taken(replies: TransactionReplies) -> bool:
    return replies.mail.severity is Severity.SUCCESS and any(
        reply.severity is Severity.SUCCESS for reply in replies.rcpt
    )


async def _one_by_one(
    connection: SmtpConnection, mail: bytes, rcpts: Sequence[bytes], timeouts: Timeouts
) -> TransactionReplies:
    mail_reply = await connection.command(mail, Stage.MAIL, timeouts.mail)
    if mail_reply.severity is not Severity.SUCCESS:
        return TransactionReplies(mail=mail_reply)
    rcpt = [await connection.command(line, Stage.RCPT, timeouts.rcpt) for line in rcpts]
    replies = TransactionReplies(mail=mail_reply, rcpt=tuple(rcpt))
    if not _taken(replies):
        return replies
    data = await connection.command(b"DATA", Stage.DATA, timeouts.data_init)
    return TransactionReplies(mail=mail_reply, rcpt=tuple(rcpt), data=data)


async def _send_body(connection: SmtpConnection, body: AsyncIterator[bytes], timeouts: Timeouts) -> None:
    stuffer = DotStuffer()
    async for chunk in body:
        connection.send_octets(stuffer.feed(chunk), Stage.BODY)
        await connection.drain(Stage.BODY, timeouts.data_xfer)
    connection.send_octets(stuffer.end(), Stage.BODY)
