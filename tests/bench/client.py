"""A client of the benches: asyncio, one write an envelope, with or without STARTTLS."""

from __future__ import annotations

import asyncio
import ssl


class RefusedError(Exception):
    """The relay said no; the text is its reply."""


class Client:
    """One session; ``send`` any number of messages, then ``quit``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, address: str, port: int, *, tls: ssl.SSLContext | None = None) -> Client:
        """Open a session and say EHLO, over TLS if a context is given.

        :raises OSError: if it cannot be had; RefusedError if the relay does not want one.
        """
        self = cls(*await asyncio.open_connection(address, port))
        try:
            await self._expect(b"2")
            await self._ask(b"EHLO bench.test\r\n", b"2")
            if tls is not None:
                await self._ask(b"STARTTLS\r\n", b"2")
                await self._writer.start_tls(tls)
                await self._ask(b"EHLO bench.test\r\n", b"2")
        except BaseException:
            self.abort()
            raise
        return self

    async def send(self, sender: str, recipient: str, content: bytes) -> str:
        """Hand in one message and return its queue ID.

        :param content: with CRLF at every line's end, and no line that begins with a dot.
        :raises RefusedError: if it is not taken; the session is of no further use. OSError if it breaks.
        """
        self._writer.write(f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())
        for code in (b"250", b"250", b"354"):
            await self._expect(code)
        self._writer.write(content)
        self._writer.write(b".\r\n")
        await self._writer.drain()
        return (await self._expect(b"250")).split()[-1].decode()

    async def quit(self) -> None:
        """Say goodbye and close."""
        try:
            await self._ask(b"QUIT\r\n", b"2")
        finally:
            self.abort()

    def abort(self) -> None:
        """Close without a word."""
        self._writer.transport.abort()

    async def _ask(self, said: bytes, code: bytes) -> bytes:
        self._writer.write(said)
        return await self._expect(code)

    async def _expect(self, code: bytes) -> bytes:
        while True:
            line = await self._reader.readline()
            if not line:
                raise ConnectionResetError("the relay closed the session")
            if line[3:4] != b"-":
                break
        if not line.startswith(code):
            raise RefusedError(line.decode("utf-8", "replace").strip())
        return line
