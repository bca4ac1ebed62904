"""Messages, bodies and results that the queue's tests put in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from relay.mail.envelope import (
    NULL_SENDER,
    Address,
    BodyType,
    Client,
    ClientCertificate,
    ClientTls,
    Envelope,
    LocalUser,
    Notify,
    QueueId,
    Recipient,
    RecipientId,
    Ret,
)
from relay.mail.names import Domain, IpLiteral
from relay.mail.reply import EnhancedStatus, Reply
from relay.outcome.result import Bounced, Deferred, Local, Sent
from relay.queue.store import Lease, NewMessage, QueueStore, Reservation, Settlement

T0 = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LEASE = timedelta(minutes=30)

CLIENT = Client(address=ip_address("192.0.2.7"), name="app.example", helo="app", port=40001)

SENT = Sent(status=EnhancedStatus(2, 0, 0), reply=Reply(250, ("2.0.0 Ok",)))
DEFERRED = Deferred(status=EnhancedStatus(4, 7, 5), reason="Server certificate not verified", diagnostic=Local("no"))
BOUNCED = Bounced(status=EnhancedStatus(5, 1, 1), reason="no such user", diagnostic=Local("no such user"))


def address(text: str) -> Address:
    domain = text.rpartition("@")[2]
    return Address(text, IpLiteral.parse(domain[1:-1]) if domain.startswith("[") else Domain.parse(domain))


def recipient(number: int, text: str, *, notify: Notify = Notify.UNSPECIFIED, orcpt: str = "") -> Recipient:
    return Recipient(id=RecipientId(number), address=address(text), notify=notify, orcpt=orcpt)


def envelope(*recipients: str) -> Envelope:
    return Envelope(
        sender=address("sender@source.example"),
        recipients=tuple(recipient(number, text) for number, text in enumerate(recipients, 1)),
        client=CLIENT,
    )


def new(
    queue_id: str,
    *recipients: str,
    given: Envelope | None = None,
    arrived_at: datetime = T0,
    destinations: Mapping[RecipientId, str] | None = None,
) -> NewMessage:
    """A message whose recipients' destinations are their domains."""
    what = given or envelope(*(recipients or ("one@a.example",)))
    return NewMessage(
        queue_id=QueueId(queue_id),
        envelope=what,
        arrived_at=arrived_at,
        destinations=destinations or {one.id: str(one.address.domain) for one in what.recipients},
    )


RICH = Envelope(
    sender=address("Sender.Name+tag@source.example"),
    recipients=(
        recipient(7, "one@a.example", notify=Notify.SUCCESS | Notify.DELAY, orcpt="rfc822;One+40a.example"),
        recipient(3, "zwölf@a.example", notify=Notify.NEVER),
        recipient(5, "user@[IPv6:2001:db8::1]"),
    ),
    body=BodyType.EIGHT_BIT_MIME,
    smtputf8=True,
    ret=Ret.HDRS,
    envid="ID+2B1",
    requiretls=True,
    client=Client(
        address=ip_address("2001:db8::7"),
        port=4711,
        name="app.example",
        helo='[odd" \u00e9',
        protocol="SMTP",
        tls=ClientTls(
            protocol="TLSv1.3",
            cipher="TLS_AES_256_GCM_SHA384",
            bits=256,
            algorithm_bits=256,
            certificate=ClientCertificate(
                fingerprint="AB:CD", key_fingerprint="EF:01", subject="joe", issuer="ca \u00e9"
            ),
        ),
        user="alice",
        unnamed=True,
        local=LocalUser(uid=1000, name="joe"),
    ),
)
FROM_NOBODY = Envelope(sender=NULL_SENDER, recipients=(recipient(1, "one@a.example"),), client=CLIENT)


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


class Hands:
    """A taker that wants mail for some destinations, and notes what it is told."""

    def __init__(self, *wants: str, at: datetime = T0) -> None:
        self.wants = frozenset(wants)
        self.at = at
        self.asked: list[Mapping[str, int]] = []
        self.open = 0
        self.leases: list[Lease] = []

    def reserve(self, destinations: Mapping[str, int]) -> Reservation | None:
        self.asked.append(dict(destinations))
        wanted = self.wants & destinations.keys()
        self.open += bool(wanted)
        return Reservation(destinations=wanted, at=self.at, until=self.at + LEASE) if wanted else None

    def begin(self, reservation: Reservation, leases: Sequence[Lease]) -> None:
        self.open -= 1
        self.leases += leases

    def give_back(self, reservation: Reservation) -> None:
        self.open -= 1


async def put(store: QueueStore, message: NewMessage, body: bytes = b"Subject: x\r\n\r\nhello\r\n") -> None:
    await store.put(message, chunks(body))


async def lease(store: QueueStore, now: datetime = T0, limit: int = 10, busy: tuple[str, ...] = ()) -> list[Lease]:
    """Up to ``limit`` due deliveries of destinations that are not busy, the longest due first."""
    leases: list[Lease] = []
    while len(leases) < limit:
        heads = await store.heads(now=now, limit=1, busy=busy)
        if not heads or heads[0].due > now:
            break
        leases += await store.lease_at({heads[0].destination: 1}, now=now, until=now + LEASE)
    return leases


async def next_due(store: QueueStore, now: datetime = T0) -> datetime | None:
    """When the next unleased delivery is due; None if there is none."""
    heads = await store.heads(now=now, limit=1)
    return heads[0].due if heads else None


async def read(store: QueueStore, queue_id: str) -> bytes:
    return b"".join([chunk async for chunk in store.open_body(QueueId(queue_id))])


def settlement(held: Lease, result: Sent | Deferred | Bounced, next_attempt: datetime = T0 + 5 * MINUTE) -> Settlement:
    """The same result for each recipient."""
    return Settlement(lease=held, results={one.id: result for one in held.recipients}, next_attempt=next_attempt)
