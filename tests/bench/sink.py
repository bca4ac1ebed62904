"""A receiver that costs as little as possible: TLS, PIPELINING, CHUNKING, one event loop, nothing kept.

It counts by envelope sender. A run's sender is ``NAME.COUNT@…``; when COUNT messages of it have been taken, one line
``done NAME MONOTONIC-SECONDS`` is printed.

Run as ``python -m tests.bench.sink ADDRESS PORT PEM-FILE``; without the file there is no TLS, and mail is taken in the clear.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import sys
import time
from collections import Counter
from typing import cast

import uvloop

_SENDER = re.compile(rb"MAIL FROM:<([^.>@]+)\.(\d+)@", re.IGNORECASE)
_EHLO = (b"PIPELINING", b"SIZE 52428800", b"8BITMIME", b"ENHANCEDSTATUSCODES", b"SMTPUTF8", b"CHUNKING")


class Sink(asyncio.Protocol):
    """One session."""

    def __init__(self, context: ssl.SSLContext | None, counts: Counter[bytes]) -> None:
        self._context = context
        self._counts = counts
        self._transport: asyncio.Transport
        self._buffer = bytearray()
        self._in_data = False
        self._chunk_left = 0
        self._last_chunk = False
        self._encrypted = False
        self._sender = b""
        self._expected = 0
        self._upgrade: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet; after STARTTLS the same session goes on over another transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._transport.write(b"220 sink.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        """Answer everything that is whole, in one write."""
        self._buffer += data
        replies: list[bytes] = []
        while self._in_data or self._chunk_left or b"\r\n" in self._buffer:
            if self._chunk_left:
                taken = min(self._chunk_left, len(self._buffer))
                del self._buffer[:taken]
                self._chunk_left -= taken
                if self._chunk_left:
                    break
                replies.append(self._chunk_taken())
            elif self._in_data:
                end = self._buffer.find(b"\r\n.\r\n")
                if end < 0:
                    break
                del self._buffer[: end + 5]
                self._in_data = False
                self._count()
                replies.append(b"250 2.0.0 Ok: counted")
            else:
                line, _, rest = self._buffer.partition(b"\r\n")
                self._buffer = rest
                if line[:8].upper() == b"STARTTLS":
                    self._upgrade = asyncio.get_running_loop().create_task(self._start_tls())
                    return
                if line[:4].upper() == b"BDAT":
                    words = line.split()
                    self._chunk_left, self._last_chunk = int(words[1]), len(words) > 2
                    if not self._chunk_left:
                        replies.append(self._chunk_taken())
                else:
                    replies.append(self._command(bytes(line)))
        if replies:
            self._transport.write(b"\r\n".join(replies) + b"\r\n")

    def _command(self, line: bytes) -> bytes:
        word = line[:4].upper()
        if word == b"MAIL":
            if self._context is not None and not self._encrypted:
                return b"530 5.7.0 Must issue a STARTTLS command first"
            found = _SENDER.match(line)
            self._sender, self._expected = (found[1], int(found[2])) if found else (b"", 0)
        elif word == b"DATA":
            self._in_data = True
            self._buffer[:0] = b"\r\n"  # so that the end is found in an empty message too
            return b"354 Go on"
        elif word == b"EHLO":
            offers = self._context is not None and not self._encrypted
            words = (b"sink.test", *_EHLO, b"STARTTLS") if offers else (b"sink.test", *_EHLO)
            return b"\r\n".join([b"250-" + one for one in words[:-1]] + [b"250 " + words[-1]])
        elif word == b"QUIT":
            asyncio.get_running_loop().call_soon(self._transport.close)
            return b"221 2.0.0 Bye"
        return b"250 2.0.0 Ok"

    def _chunk_taken(self) -> bytes:
        if self._last_chunk:
            self._count()
        return b"250 2.0.0 Ok: counted"

    async def _start_tls(self) -> None:
        assert self._context is not None
        self._buffer.clear()
        self._transport.write(b"220 2.0.0 Ready to start TLS\r\n")
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(self._transport, self, self._context, server_side=True)
        except (OSError, ssl.SSLError):
            return
        if transport is not None:
            self._transport, self._encrypted = transport, True

    def _count(self) -> None:
        self._counts[self._sender] += 1
        if self._counts[self._sender] == self._expected:
            sys.stdout.write(f"done {self._sender.decode()} {time.monotonic()}\n")
            sys.stdout.flush()


async def serve(address: str, port: int, pem_file: str) -> None:
    """Listen until killed."""
    context = None
    if pem_file:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem_file)
    counts: Counter[bytes] = Counter()
    server = await asyncio.get_running_loop().create_server(lambda: Sink(context, counts), address, port, backlog=1000)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""))
