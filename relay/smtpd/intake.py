"""From the end of a dialogue into the queue: trace field, limits, commit, and only then 250."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from relay.log.events import Accepted, Observer, Program, Rejected, Warned
from relay.mail.envelope import Address, Client, Envelope, Message, QueueId, Sender, sender_text
from relay.mail.headers import HeaderScanner, missing_fields, received_field
from relay.mail.reply import Reply
from relay.queue.store import NOBODY, Lease, NewMessage, QueueStore, Reservation, StoreUnavailable, Taker
from relay.smtpd import replies
from relay.smtpd.section import HeaderSection, SectionRules


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeOptions:
    """Limits of a message.

    :param hostname: ours, for the Received field.
    :param message_size_limit: octets of content as decoded; 0 for no limit.
    :param hopcount_limit: Received fields, ours included, that are too many (as Postfix's cleanup counts).
    :param header_size_limit: octets of one header field; what is beyond is cut off. 0 for no limit.
    :param drop_headers: lower-case names of fields that are taken out.
    """

    hostname: str
    message_size_limit: int = 10_240_000
    hopcount_limit: int = 50
    header_size_limit: int = 102_400
    drop_headers: frozenset[bytes] = frozenset()


class Refused(Exception):  # noqa: N818 - the way to make put() keep nothing, not an error
    """Raised within a content: the message is refused for what came of it so far."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.reply = reply


def _nobodys(client: Client) -> bool:
    return False


class _HandOver:
    """One message's way to whoever delivers: taken over at its commit, begun when its acceptance was told."""

    def __init__(self, taker: Taker) -> None:
        self._taker = taker
        self._taken: tuple[Reservation, Sequence[Lease]] | None = None
        self.destinations: frozenset[str] = frozenset()

    def reserve(self, destinations: Mapping[str, int]) -> Reservation | None:
        return self._taker.reserve(destinations)

    def begin(self, reservation: Reservation, leases: Sequence[Lease]) -> None:
        self._taken = reservation, leases
        self.destinations = frozenset(lease.destination for lease in leases)

    def give_back(self, reservation: Reservation) -> None:
        self._taker.give_back(reservation)

    def go(self) -> None:
        """Begin what was taken, once."""
        taken, self._taken = self._taken, None
        if taken is not None:
            self._taker.begin(*taken)


class Intake:
    """Accepts messages into a store. Content goes in byte for byte, behind one Received field, but for what the options say.

    :param adds_missing: whether Message-Id and Date are added to a client's messages where they are missing.
    :param destination_of: the scheduling key of the next-hop of mail to a recipient from a sender.
    :param new_id: a queue ID that no other message has.
    :param taker: whoever delivers: takes over at each commit what may be delivered at once.
    :param accepted: called after each commit with the destinations that were not taken over, to wake whoever delivers.
    """

    def __init__(
        self,
        store: QueueStore,
        *,
        options: IntakeOptions,
        destination_of: Callable[[Address, Sender], str],
        clock: Callable[[], datetime],
        new_id: Callable[[], QueueId],
        observe: Observer,
        accepted: Callable[[Collection[str]], None],
        taker: Taker = NOBODY,
        adds_missing: Callable[[Client], bool] = _nobodys,
    ) -> None:
        self._store = store
        self._options = options
        self._destination_of = destination_of
        self._clock = clock
        self._new_id = new_id
        self._observe = observe
        self._accepted = accepted
        self._taker = taker
        self._adds_missing = adds_missing

    def refusal(self) -> Reply | None:
        """What MAIL is answered while no message could be taken anyway: 452 or 451; None while all is well."""
        unavailable = self._store.refusal
        return None if unavailable is None else _not_now(unavailable)

    async def accept(self, envelope: Envelope, content: AsyncIterator[bytes]) -> Reply:
        """Store one message and say what the client is to be told.

        :param content: CRLF line ends, dots undone. After a refusal it may not have been read to its end; the caller
            reads the rest before it answers.
        :return: 250 only if the message is committed; 452 or 451 if the store cannot take it now; 552 or 554 if it is
            too big or has made too many hops.

        What ``content`` raises passes through (but for ``Refused``, whose reply is given), and nothing is kept.
        """
        message = NewMessage(
            queue_id=self._new_id(),
            envelope=envelope,
            arrived_at=self._clock(),
            destinations={each.id: self._destination_of(each.address, envelope.sender) for each in envelope.recipients},
        )
        headers = HeaderScanner()
        section = HeaderSection(self._rules(message))
        body = self._body(message, headers, section, content)
        hand_over = _HandOver(self._taker)
        try:
            async with aclosing(body):
                stored = await self._store.put(message, body, hand_over)
        except Refused as refused:
            return self._rejected(message, refused.reply)
        except StoreUnavailable as unavailable:
            self._observe(Warned(Program.CLEANUP, f"write queue file: {unavailable}", message.queue_id))
            return self._rejected(message, _not_now(unavailable))
        try:
            self._tell(message, stored, headers, section)
        finally:
            hand_over.go()  # not before the log says where it came from
        if waiting := frozenset(message.destinations.values()) - hand_over.destinations:
            self._accepted(waiting)
        return replies.queued(message.queue_id)

    def _tell(self, message: NewMessage, stored: Message, headers: HeaderScanner, section: HeaderSection) -> None:
        if section.cut:
            limit = self._options.header_size_limit
            self._observe(Warned(Program.CLEANUP, f"header field cut to {limit} bytes", message.queue_id))
        self._observe(
            Accepted(
                queue_id=message.queue_id,
                client=message.envelope.client,
                message_id=headers.message_id,
                size=stored.size,
                recipients=len(message.envelope.recipients),
            )
        )

    def _rules(self, message: NewMessage) -> SectionRules:
        added: tuple[tuple[bytes, bytes], ...] = ()
        if self._adds_missing(message.envelope.client):
            at = message.arrived_at
            added = missing_fields(message.queue_id, hostname=self._options.hostname, arrived_at=at)
        return SectionRules(add=added, drop=self._options.drop_headers, size_limit=self._options.header_size_limit)

    async def _body(
        self, message: NewMessage, headers: HeaderScanner, section: HeaderSection, content: AsyncIterator[bytes]
    ) -> AsyncGenerator[bytes, None]:
        limit = self._options.message_size_limit
        trace = received_field(
            message.envelope, hostname=self._options.hostname, queue_id=message.queue_id, arrived_at=message.arrived_at
        )
        size = 0
        async for octets in content:
            size += len(octets)
            if 0 < limit < size:
                raise Refused(replies.CONTENT_TOO_BIG)
            chunk = section.feed(octets)
            headers.feed(chunk)
            if headers.received + 1 >= self._options.hopcount_limit:
                raise Refused(replies.TOO_MANY_HOPS)
            yield trace + chunk
            trace = b""
        rest = section.end()
        headers.feed(rest)
        if trace or rest:
            yield trace + rest

    def _rejected(self, message: NewMessage, reply: Reply) -> Reply:
        envelope = message.envelope
        sole = envelope.recipients[0].address.text if len(envelope.recipients) == 1 else ""
        self._observe(
            Rejected(
                client=envelope.client,
                where="END-OF-MESSAGE",
                reply=reply,
                sender=sender_text(envelope.sender),
                recipient=sole,
                queue_id=message.queue_id,
            )
        )
        return reply


def _not_now(unavailable: StoreUnavailable) -> Reply:
    return replies.NO_SPACE if unavailable.full else replies.NOT_WRITTEN
