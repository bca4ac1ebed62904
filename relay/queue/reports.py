"""Which reports the results of an attempt cause, and the messages that they become."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address
from typing import Final

from relay.mail.envelope import (
    NULL_SENDER,
    Address,
    BodyType,
    Client,
    Envelope,
    Message,
    Notify,
    QueueId,
    Recipient,
    RecipientId,
    Ret,
    Sender,
)
from relay.outcome.dsn import (
    MAX_HEADER_OCTETS,
    Audience,
    Dsn,
    HeadersOnly,
    Kind,
    Occasion,
    Original,
    Reported,
    Whole,
    compose,
    header_section,
)
from relay.queue.notices import Wanted
from relay.queue.store import NewMessage, QueueStore, Report

OURSELVES: Final = Client(address=IPv4Address("127.0.0.1"), name="localhost")
_ONLY: Final = RecipientId(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Makes reports.

    :param size_limit: octets of a message that goes back whole.
    :param new_id: a new queue ID at each call.
    :param destination_of: the scheduling key of mail to an address from a sender.
    """

    store: QueueStore
    hostname: str
    size_limit: int
    new_id: Callable[[], QueueId]
    destination_of: Callable[[Address, Sender], str]

    async def report(
        self,
        wanted: Wanted,
        message: Message,
        recipients: Sequence[Reported],
        *,
        now: datetime,
        retry_until: datetime,
    ) -> Report:
        """One report on a message.

        :param recipients: those that are wanted, with what became of them.
        :raises StoreUnavailable: if the original cannot be read now.
        """
        report_id = self.new_id()
        occasion = Occasion(
            kind=wanted.kind,
            audience=wanted.audience,
            reader=wanted.reader,
            report=report_id,
            hostname=self.hostname,
            message=message,
            recipients=recipients,
            original=await self._original(wanted, message),
            retry_until=retry_until,
            made_at=now,
        )
        dsn = compose(occasion)
        return Report(
            message=NewMessage(
                queue_id=report_id,
                envelope=_envelope(wanted.reader, dsn),
                arrived_at=now,
                destinations={_ONLY: self.destination_of(wanted.reader, NULL_SENDER)},
            ),
            content=dsn.content,
        )

    async def _original(self, wanted: Wanted, message: Message) -> Original:
        """What goes back: all of a small message that could not be delivered, else the header section."""
        envelope = message.envelope
        # RFC 8689 section 5: a report may take a way that the message itself must not.
        whole = (
            wanted.kind is Kind.NON_DELIVERY
            and wanted.audience is Audience.SENDER
            and envelope.ret is not Ret.HDRS
            and not envelope.requiretls
            and message.size <= self.size_limit
        )
        try:
            if whole:
                return Whole(await _read(self.store.open_body(message.queue_id), self.size_limit))
            return HeadersOnly(header_section(await _read(self.store.open_body(message.queue_id), MAX_HEADER_OCTETS)))
        except KeyError:
            return HeadersOnly(b"")  # the content is gone, but its sender must hear of the failure all the same


async def _read(body: AsyncIterator[bytes], enough: int) -> bytes:
    content = bytearray()
    try:
        async for chunk in body:
            content += chunk
            if len(content) >= enough:
                break
    finally:
        if isinstance(body, AsyncGenerator):
            await body.aclose()
    return bytes(content)


def _envelope(reader: Address, dsn: Dsn) -> Envelope:
    """From the null sender, asking for no report of its own (RFC 3461 section 6.1)."""
    return Envelope(
        sender=NULL_SENDER,
        recipients=(Recipient(id=_ONLY, address=reader, notify=Notify.NEVER),),
        body=BodyType.SEVEN_BIT if dsn.content.isascii() else BodyType.EIGHT_BIT_MIME,
        smtputf8=dsn.smtputf8,
        client=OURSELVES,
    )
