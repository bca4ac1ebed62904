"""What we say to a client: replies gathered, and sent before we wait for it."""

from __future__ import annotations

import asyncio

from relay.mail.reply import Reply
from relay.smtpd import replies
from relay.smtpd.incoming import LOST, TIMED_OUT, ClientGone
from relay.smtpd.options import SmtpdOptions
from relay.smtpd.softening import softened

# A client that has so much to read yet is waited for.
_UNREAD_OCTETS = 16 * 1024


class Outgoing:
    """The replies of one session.

    :param writer: the connection, in the clear or encrypted.
    """

    def __init__(self, writer: asyncio.StreamWriter, options: SmtpdOptions) -> None:
        self._writer = writer
        self._options = options
        self._octets = bytearray()

    def answer(self, reply: Reply) -> Reply:
        """Say something; it leaves with what else is to be said before we wait for the client. Returns what is said."""
        said = softened(reply) if self._options.soft_bounce else reply
        self._octets += replies.wire_form(said)
        return said

    @property
    def flows(self) -> bool:
        """Whether what is said leaves without waiting for the client."""
        transport = self._writer.transport
        return not transport.is_closing() and transport.get_write_buffer_size() <= _UNREAD_OCTETS

    def send(self) -> None:
        """Send what was said, if it ``flows``; else it is kept in memory until the client takes it."""
        self._writer.write(bytes(self._octets))
        self._octets.clear()

    async def flush(self) -> None:
        """Send what was said.

        :raises ClientGone: if the client does not take it.
        """
        if not self._octets:
            return
        if self._writer.is_closing():
            raise ClientGone(LOST)
        self.send()
        if self._writer.transport.get_write_buffer_size() <= _UNREAD_OCTETS:
            return  # whoever is gone is missed when the next command is waited for
        try:
            async with asyncio.timeout(self._options.timeout):
                await self._writer.drain()
        except TimeoutError:
            raise ClientGone(TIMED_OUT) from None
        except OSError:
            raise ClientGone(LOST) from None
