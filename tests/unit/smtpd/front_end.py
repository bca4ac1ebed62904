"""A front end on a loopback socket over a store that records, and a client that speaks octets."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any, TypeVar, cast

from relay.lanes import Lanes
from relay.log.events import Event
from relay.mail.envelope import Address, Message, QueueId, Sender
from relay.mail.names import Domain
from relay.queue.store import NOBODY, NewMessage, QueueStore, StoreUnavailable, Taker
from relay.sasl.users import Users
from relay.smtpd.access import LocalUsers
from relay.smtpd.authentication import Authenticator, Lockout
from relay.smtpd.clientcerts import NO_CERTIFICATES, KnownCertificates
from relay.smtpd.conversation import Service
from relay.smtpd.intake import Intake, IntakeOptions
from relay.smtpd.local import NO_SOCKETS, LocalSockets
from relay.smtpd.naming import NameOf, name_without_dns
from relay.smtpd.options import SmtpdOptions
from relay.smtpd.ownership import NO_OWNERS, Owners
from relay.smtpd.server import SmtpServer
from relay.smtpd.server_tls import server_tls_context
from relay.smtpd.session import Session

HOSTNAME = "relay.example"
NOW = datetime(2026, 8, 21, 10, 0, 0, tzinfo=UTC)
PATIENCE = 20.0
NO_LOCAL_USERS = LocalUsers()
T = TypeVar("T", bound=Event)


def options(**changes: Any) -> SmtpdOptions:
    """Options of a test: refusals are not held back."""
    return SmtpdOptions(**{"hostname": Domain(HOSTNAME), "error_sleep_time": 0.0, **changes})


@dataclass
class RecordingStore:
    """Keeps what was put; can be told to fail, or to wait before it commits."""

    messages: dict[QueueId, bytes] = field(default_factory=dict)
    puts: list[NewMessage] = field(default_factory=list)
    failure: Exception | None = None
    fail_before_reading: bool = False
    hold: asyncio.Event | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    refusal: StoreUnavailable | None = None

    async def put(self, message: NewMessage, body: AsyncIterator[bytes], taker: Taker = NOBODY) -> Message:
        """Record a message, whole or not at all."""
        self.begun.set()
        if self.failure is not None and self.fail_before_reading:
            raise self.failure
        octets = b"".join([chunk async for chunk in body])
        if self.hold is not None:
            await self.hold.wait()
        if self.failure is not None:
            raise self.failure
        self.puts.append(message)
        self.messages[message.queue_id] = octets
        return Message(
            queue_id=message.queue_id, envelope=message.envelope, size=len(octets), arrived_at=message.arrived_at
        )

    @property
    def contents(self) -> list[bytes]:
        """What clients sent, without our Received field."""
        return [without_trace(octets) for octets in self.messages.values()]


def without_trace(octets: bytes) -> bytes:
    """The content behind our Received field."""
    assert octets.startswith(b"Received: from ")
    lines = octets.split(b"\r\n")
    own = 1
    while lines[own].startswith(b"\t"):
        own += 1
    return b"\r\n".join(lines[own:])


FULL = StoreUnavailable("no space left on device", full=True)
BROKEN = StoreUnavailable("I/O error on /var/secret/place")


class Client:
    """One connection, spoken by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def reply(self) -> str:
        """The next reply, lines joined by newlines."""
        lines = []
        async with asyncio.timeout(PATIENCE):
            while True:
                line = (await self.reader.readuntil(b"\n")).decode()
                assert line.endswith("\r\n")
                lines.append(line.removesuffix("\r\n"))
                if line[3] == " ":
                    return "\n".join(lines)

    async def say(self, *lines: bytes | str) -> str:
        """Send lines, all at once, and give the reply to the last of them."""
        self.send(*lines)
        reply = ""
        for _ in lines:
            reply = await self.reply()
        return reply

    def send(self, *lines: bytes | str) -> None:
        """Send lines with CRLF."""
        self.writer.write(b"".join((line.encode() if isinstance(line, str) else line) + b"\r\n" for line in lines))

    async def rest(self) -> bytes:
        """What comes until the server closes."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    async def chunks(self, *chunks: bytes, sender: str = "a@example.org", to: str = "b@example.net") -> list[str]:
        """A transaction in chunks, all pipelined; the replies to them."""
        assert (await self.say(f"MAIL FROM:<{sender}>")).startswith("250")
        assert (await self.say(f"RCPT TO:<{to}>")).startswith("250")
        for number, chunk in enumerate(chunks, 1):
            last = b" LAST" if number == len(chunks) else b""
            self.writer.write(b"BDAT %d%b\r\n%b" % (len(chunk), last, chunk))
        return [await self.reply() for _ in chunks]

    async def message(self, content: bytes, *, sender: str = "a@example.org", to: str = "b@example.net") -> str:
        """A whole transaction; the content is sent as it is given, the end added."""
        assert (await self.say(f"MAIL FROM:<{sender}>")).startswith("250")
        assert (await self.say(f"RCPT TO:<{to}>")).startswith("250")
        assert await self.say("DATA") == "354 End data with <CR><LF>.<CR><LF>"
        self.writer.write(content + b".\r\n")
        return await self.reply()


@dataclass
class FrontEnd:
    """A running server with what it did."""

    server: SmtpServer
    store: RecordingStore
    events: list[Event]
    woken: list[None]
    changed: asyncio.Event

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self.server.addresses[0]

    @asynccontextmanager
    async def client(self, *, hello: str = "EHLO client.example", source: str = "127.0.0.1") -> AsyncIterator[Client]:
        """A connection past the greeting and, unless ``hello`` is empty, past that."""
        reader, writer = await asyncio.open_connection(*self.address, local_addr=(source, 0))
        client = Client(reader, writer)
        try:
            if hello:
                assert await client.reply() == f"220 {HOSTNAME} ESMTP dane-relay"
                assert (await client.say(hello)).startswith("250")
            yield client
        finally:
            writer.close()

    async def seen(self, kind: type[T], where: Callable[[T], bool] = lambda _: True) -> T:
        """The first event of a kind, waited for."""
        async with asyncio.timeout(PATIENCE):
            while True:
                self.changed.clear()
                for event in self.events:
                    if isinstance(event, kind) and where(event):
                        return event
                await self.changed.wait()


@asynccontextmanager
async def front_end(
    settings: SmtpdOptions | None = None,
    *,
    store: RecordingStore | None = None,
    name_of: NameOf = name_without_dns,
    users: Users | None = None,
    owners: Owners = NO_OWNERS,
    certificates: KnownCertificates = NO_CERTIFICATES,
    local: LocalSockets = NO_SOCKETS,
    local_users: LocalUsers = NO_LOCAL_USERS,
    lockout: Lockout | None = None,
    lanes: Lanes | None = None,
) -> AsyncIterator[FrontEnd]:
    """A server on a free port of 127.0.0.1."""
    settings = settings or options()
    store = store or RecordingStore()
    events: list[Event] = []
    woken: list[None] = []
    changed = asyncio.Event()
    serial = count(1)

    def observe(event: Event) -> None:
        events.append(event)
        changed.set()

    def destination_of(address: Address, sender: Sender) -> str:
        del sender
        return str(address.domain)

    intake = Intake(
        cast(QueueStore, store),
        options=IntakeOptions(
            hostname=HOSTNAME,
            message_size_limit=settings.message_size_limit,
            hopcount_limit=settings.hopcount_limit,
        ),
        destination_of=destination_of,
        clock=lambda: NOW,
        new_id=lambda: QueueId(f"4Q{next(serial)}"),
        observe=observe,
        accepted=lambda destinations: woken.append(None),
    )
    service = Service(
        options=settings,
        accept=intake.accept,
        refusal=intake.refusal,
        observe=observe,
        name_of=name_of,
        permits=lambda client: local_users.permit(client) or certificates.permit(client),
        authenticator=Authenticator(lambda: users, observe=observe, owners=lambda: owners, lockout=lockout),
        lanes=lanes or Lanes(),
    )
    tls_context = server_tls_context(settings)
    session = functools.partial(Session, service=service, tls=lambda: tls_context)
    server = SmtpServer(
        [("127.0.0.1", 0)],
        session,
        settings,
        local=local,
        submissions=[("127.0.0.1", 0)],
        submissions_factory=functools.partial(session, wrapped=True),
    )
    await server.start()
    try:
        yield FrontEnd(server, store, events, woken, changed)
    finally:
        await server.close(grace=1.0)
