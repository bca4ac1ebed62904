"""Octets to and from one client of a lab host: lines, message content, and the change to TLS, all bounded."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

MAX_LINE_OCTETS = 4096
HIGH_WATER_OCTETS = 2**20
END_OF_DATA = b"\r\n.\r\n"


class PeerGone(Exception):  # noqa: N818 - it names what happened
    """The client closed or lost the connection."""


class LineTooLong(Exception):  # noqa: N818 - it names what happened
    """A command line went over ``MAX_LINE_OCTETS``."""


class TooMuch(Exception):  # noqa: N818 - it names what happened
    """Message content went over the limit."""


class Wire(asyncio.Protocol):
    """One connection.

    :param connected: called with this object once the connection stands.
    """

    def __init__(self, connected: Callable[[Wire], None]) -> None:
        self._connected = connected
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._wake = asyncio.Event()
        self._lost = False
        self._paused = False
        self.peer = ("", 0)

    # --- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's classes do not say that they are one
        peer = transport.get_extra_info("peername") or ("", 0)
        self.peer = str(peer[0]), int(peer[1])
        self._connected(self)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._buffer += data
        if len(self._buffer) > HIGH_WATER_OCTETS and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._lost = True
        self._wake.set()

    # --- for the session ----------------------------------------------------------------------------------------------

    def send(self, octets: bytes) -> None:
        """Queue octets; a client that does not read them is not waited for."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(octets)

    def close(self) -> None:
        """Send what is queued, then close."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    async def something(self) -> None:
        """Wait until there is anything to read.

        :raises PeerGone: if there will not be.
        """
        while not self._buffer:
            await self._more()

    async def gone(self) -> None:
        """Wait until the client has gone, reading nothing but the end."""
        while not self._lost:
            self._take(len(self._buffer))
            self._wake.clear()
            await self._wake.wait()

    async def line(self) -> bytes:
        """One line without its line end (CRLF, or LF alone as some clients send).

        :raises PeerGone: if the connection ends before the line does.
        :raises LineTooLong: if it is too long for a command.
        """
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_LINE_OCTETS:
                raise LineTooLong
            await self._more()
        if end > MAX_LINE_OCTETS:
            raise LineTooLong
        return self._take(end + 1)[:-1].removesuffix(b"\r")

    async def content(self, limit: int) -> bytes:
        """What follows a 354 up to ``<CRLF>.<CRLF>``: everything before the final dot, exactly as sent.

        :raises PeerGone: if the connection ends first.
        :raises TooMuch: if it is longer than ``limit`` octets.
        """
        octets = bytearray(b"\r\n")  # so that a dot at the very beginning is at the beginning of a line
        while True:
            searched = max(0, len(octets) - len(END_OF_DATA) + 1)
            octets += self._take(len(self._buffer))
            end = octets.find(END_OF_DATA, searched)
            if end >= 0:
                self._buffer[:0] = octets[end + len(END_OF_DATA) :]
                return bytes(octets[2 : end + 2])
            if len(octets) > limit:
                raise TooMuch
            await self._more()

    async def start_tls(self, context: ssl.SSLContext, timeout: float) -> ssl.SSLObject:
        """Become the server of a TLS session; what came in the clear beforehand is dropped (CVE-2011-0411).

        :param timeout: seconds for the handshake.
        :raises OSError: if the handshake fails (``ssl.SSLError`` is one).
        :raises PeerGone: if there is no connection any more.
        """
        if self._transport is None or self._lost:
            raise PeerGone
        self._take(len(self._buffer))
        loop = asyncio.get_running_loop()
        transport = await loop.start_tls(
            self._transport, self, context, server_side=True, ssl_handshake_timeout=timeout, ssl_shutdown_timeout=1.0
        )
        if transport is None:
            raise PeerGone
        self._transport = transport
        return cast("ssl.SSLObject", transport.get_extra_info("ssl_object"))

    async def _more(self) -> None:
        if self._lost:
            raise PeerGone
        self._wake.clear()
        await self._wake.wait()

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        if self._paused and self._transport is not None and not self._lost:
            self._paused = False
            self._transport.resume_reading()
        return taken
