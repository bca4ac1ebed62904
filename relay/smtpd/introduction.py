"""What a proxy says of a connection before anything else comes over it: gathered as it comes, within its time."""

from __future__ import annotations

import asyncio

from relay.smtpd.incoming import LOST, TIMED_OUT
from relay.smtpd.proxy import BadHeader, Header, Incomplete, read_header

WAIT_SECONDS = 5.0
"""Postfix's smtpd_upstream_proxy_timeout."""


class NotIntroduced(Exception):  # noqa: N818 - it names the state, not the handling
    """No header came that could be believed; the message says why."""


class Introduction:
    """The PROXY header of one connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._octets = b""
        self._header: asyncio.Future[Header] = loop.create_future()

    @property
    def over(self) -> bool:
        """Whether the header has come, or will not."""
        return self._header.done()

    def feed(self, octets: bytes) -> bytes:
        """Take what came; returns what stands behind the header. After a bad one, that is nothing."""
        self._octets += octets
        try:
            found = read_header(self._octets)
        except BadHeader as bad:
            return self._fail(str(bad))
        if isinstance(found, Incomplete):
            return b""
        header, length = found
        rest, self._octets = self._octets[length:], b""
        self._header.set_result(header)
        return rest

    def end(self) -> None:
        """Nothing more comes."""
        if not self.over:
            self._fail(LOST)

    def _fail(self, why: str) -> bytes:
        self._octets = b""
        self._header.set_exception(NotIntroduced(why))
        self._header.exception()  # is looked at, also where nobody waits any more
        return b""

    async def header(self) -> Header:
        """Wait for the header.

        :raises NotIntroduced: if none comes within ``WAIT_SECONDS``, or anything else.
        """
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return await self._header
        except TimeoutError:
            raise NotIntroduced(f"{TIMED_OUT}: none came within {WAIT_SECONDS:g} s") from None
