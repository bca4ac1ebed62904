"""TLS from the first octet on: what a client sent before TLS could begin belongs to TLS."""

from __future__ import annotations

import asyncio
from typing import cast


class Hello:
    """What came first; while it is kept, no more is read."""

    def __init__(self) -> None:
        self._octets = b""

    def keep(self, octets: bytes, transport: asyncio.BaseTransport | None) -> None:
        """Take octets of a connection in the clear."""
        self._octets += octets
        _reading(transport).pause_reading()

    def give(self, tls: asyncio.BufferedProtocol | None, transport: asyncio.BaseTransport | None) -> None:
        """Hand them to TLS, as its transport would have, and let the rest come; nothing where TLS did not begin."""
        if tls is None or transport is None or transport.is_closing():
            return
        octets, self._octets = self._octets, b""
        while octets:
            buffer = memoryview(tls.get_buffer(len(octets)))
            count = min(len(buffer), len(octets))
            buffer[:count] = octets[:count]
            tls.buffer_updated(count)
            octets = octets[count:]
        _reading(transport).resume_reading()


def _reading(transport: asyncio.BaseTransport | None) -> asyncio.Transport:
    return cast("asyncio.Transport", transport)  # uvloop's classes do not say that they are one
