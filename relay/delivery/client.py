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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any, cast

from aiosmtplib.errors import SMTPServerDisconnected
from aiosmtplib.protocol import SMTPProtocol

from relay.delivery.replies import MalformedReply, ReplyReader
from relay.mail.reply import Reply

# A host may send this many replies ahead of our asking (RFC 2920 allows none), before it counts as hostile.
MAX_UNREAD_REPLIES = 2_100
MAX_UNREAD_OCTETS = 4 * 1024 * 1024


class Stage(Enum):
    """Where a session was when it ended, in Postfix's words (smtp_trouble.c)."""

    GREETING = "receiving the initial server greeting"
    EHLO = "performing the EHLO handshake"
    HELO = "performing the HELO handshake"
    STARTTLS = "receiving the STARTTLS response"
    AUTH = "performing SASL authentication"
    RSET = "sending RSET"
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


class SmtpConnection(SMTPProtocol):
    """One connection. Not safe for use by several tasks at once.

    :param resting: whether nobody waits for anything; what comes then ends the connection.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._reader = ReplyReader()
        self._replies: deque[Reply] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._fault: Exception | None = None
        self._lost = asyncio.Event()
        self._unread = 0
        self._timed_out = False
        self.resting = False

    # --- asyncio's side ---------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Queue whole replies; asyncio calls this."""
        if self._fault is not None:
            return
        self._unread += len(data)
        try:
            if self.resting:
                raise MalformedReply("octets that nobody waits for")
            self._replies.extend(self._reader.feed(data))
            if len(self._replies) > MAX_UNREAD_REPLIES or self._unread > MAX_UNREAD_OCTETS:
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
    def has_reply(self) -> bool:
        """Whether a whole reply waits to be read."""
        return bool(self._replies)

    @property
    def is_quiet(self) -> bool:
        """Whether the connection stands and nothing came that was not asked for, such as a 421 before the host hangs up."""
        return (
            self._fault is None
            and not self.has_unread
            and self.transport is not None
            and not self.transport.is_closing()
        )

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
        if not self._replies:
            await self._wait_for_reply(stage, timeout)
        reply = self._replies.popleft()
        if not self._replies:
            self._unread = 0
        return reply

    async def _wait_for_reply(self, stage: Stage, timeout: float) -> None:
        late = self._loop.call_later(timeout, self._time_out)
        try:
            while not self._replies:
                if self._fault is not None:
                    raise self._ended(stage)
                if self._timed_out:
                    raise SessionEnded(stage, "timed out")
                self._waiter = self._loop.create_future()
                await self._waiter
        finally:
            late.cancel()
            self._timed_out = False

    def _time_out(self) -> None:
        self._timed_out = True
        self._wake()

    def _ended(self, stage: Stage) -> SessionEnded:
        if isinstance(self._fault, MalformedReply):
            return SessionEnded(stage, "protocol error", str(self._fault))
        return SessionEnded(stage, "lost connection")

    def send_lines(self, lines: Sequence[bytes], stage: Stage) -> None:
        """Write commands, each without its line end, in one piece.

        :raises SessionEnded: if the connection is gone.
        :raises ValueError: if a command has a line end inside.
        """
        self.send_octets(lines_of(lines), stage)

    def send_octets(self, data: bytes, stage: Stage) -> None:
        """Write octets as they are.

        :raises SessionEnded: if the connection is gone.
        """
        if not data:
            return
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


def lines_of(commands: Sequence[bytes]) -> bytes:
    """Commands as octets.

    :raises ValueError: if a command has a line end inside.
    """
    octets = b"\r\n".join((*commands, b""))
    if octets.count(b"\r") != len(commands) or octets.count(b"\n") != len(commands):
        raise ValueError("line end inside an SMTP command")
    return octets


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
