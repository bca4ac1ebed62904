"""Scripted hosts, the zone that leads to them, and the two that walk there: an explainer and a delivery, of the same parts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from relay.delivery.attempt import Deliverer
from relay.delivery.delivery import Delivery, Policies
from relay.delivery.gather import Gatherer
from relay.delivery.options import DeliveryOptions, Timeouts
from relay.delivery.reach import ANYWHERE, Reach
from relay.delivery.route import Router
from relay.delivery.session import SessionOpener
from relay.dns.answer import Answer, RRType
from relay.dns.probe import Validation
from relay.explain.explainer import Explainer, Rules, parse_destination
from relay.explain.story import Story
from relay.lab.ca import Authority, CertificateKind, tlsa_rdata
from relay.lab.mx import Receiver
from relay.lab.script import Script
from relay.mail.envelope import Client, Envelope, Message, QueueId, Recipient, RecipientId
from relay.mail.names import Domain, NextHop
from relay.outcome.result import Outcome
from relay.policy.level import Level
from relay.policy.policy import Defaults, Rule
from relay.policy.table import PolicyTables, parse_table
from relay.routing.transport import TransportTables, parse_transport
from relay.sasl.passwords import CredentialTables, parse_passwords
from relay.tls.chain import ChainChecker
from relay.tls.handshake import ClientContexts
from tests.zone import ZoneResolver, a, found, mx_rdata

DOMAIN = "example.test"
HOSTNAME = Domain("relay.test")


def named(number: int) -> str:
    """The name of the host with that number, from 1 on."""
    return f"mx{number}.{DOMAIN}"


@dataclass
class Scene:
    """All that a walk needs.

    :param policy: the policy map's text; ``transport`` that of the transport map, ``passwords`` that of the password map.
    """

    directory: Path
    stack: AsyncExitStack
    zone: dict[tuple[str, RRType], Answer] = field(default_factory=dict)
    hosts: list[Receiver] = field(default_factory=list)
    port: int = 25
    validating: bool = True
    policy: str = ""
    level: Level = Level.DANE
    relay_hosts: tuple[str, ...] = ()
    fallback: tuple[str, ...] = ()
    mx_address_limit: int = 5
    mx_session_limit: int = 2
    quit: float = 5
    reach: Reach = ANYWHERE
    transport: str = ""
    passwords: str = ""
    authority: Authority = field(init=False)

    def __post_init__(self) -> None:
        self.authority = Authority(self.directory, datetime.now(UTC))

    async def host(
        self,
        script: Script | None = None,
        *,
        tlsa: bool = False,
        wrong_tlsa: bool = False,
        domain: str = DOMAIN,
        preferences: tuple[int, ...] = (10, 20, 30),
    ) -> Receiver:
        """Add an MX host of the domain, with TLSA records if asked for."""
        number = len(self.hosts) + 1
        name = named(number)
        credential = self.authority.issue(CertificateKind.GOOD, name)
        receiver = Receiver(name, f"127.0.0.{number + 1}", script or Script(), credential.pem_file)
        self.port = await receiver.start(self.port if self.hosts else 0)
        self.stack.push_async_callback(receiver.stop)
        self.hosts.append(receiver)
        self.zone[name, RRType.A] = found(name, a(receiver.address))
        records = [mx_rdata(preferences[n - 1], named(n)) for n in range(1, number + 1)]
        self.zone[domain, RRType.MX] = found(domain, *records)
        if tlsa or wrong_tlsa:
            owner = f"_{self.port}._tcp.{name}"
            rdata = tlsa_rdata(3, 1, 1, credential.leaf) if tlsa else b"\3\1\1" + b"x" * 32
            self.zone[owner, RRType.TLSA] = found(owner, rdata)
        return receiver

    async def explain(self, destination: str = DOMAIN, *, live: bool = False, sender: str = "") -> Story:
        """Have the story told."""
        explainer = Explainer(
            rules=Rules(
                policies=self._policies(),
                router=self._router(),
                options=self._options(),
                context_for=ClientContexts().client_context,
                check_chain=ChainChecker.load(cafile=str(self.authority.ca_file)),
                hostname=HOSTNAME,
            ),
            resolver=ZoneResolver(self.zone),
            validation=self._validation,
            clock=lambda: datetime.now(UTC),
            monotonic=time.monotonic,
        )
        return await explainer.explain(
            parse_destination(destination), live=live, sender=parse_destination(sender) if sender else None
        )

    async def deliver(self) -> Outcome:
        """Have a fresh message delivered to the same place."""
        address = parse_destination(DOMAIN)
        recipient = Recipient(id=RecipientId(7), address=address)
        envelope = Envelope(sender=address, recipients=(recipient,), client=Client(address=ip_address("127.0.0.1")))
        now = datetime.now(UTC)
        options = self._options()
        deliverer = Deliverer(
            gatherer=Gatherer(ZoneResolver(self.zone), shuffle=lambda records: None, reach=self.reach),
            opener=SessionOpener(
                options,
                context_for=ClientContexts().client_context,
                check_chain=ChainChecker.load(cafile=str(self.authority.ca_file)),
                clock=lambda: datetime.now(UTC),
                observe=lambda event: None,
            ),
            validation=self._validation,
            options=options,
            clock=lambda: datetime.now(UTC),
            monotonic=time.monotonic,
            observe=lambda event: None,
        )
        delivery = Delivery(
            message=Message(queue_id=QueueId("4XYZ"), envelope=envelope, size=0, arrived_at=now),
            route=self._router().route(address, envelope.sender),
            recipients=(recipient,),
            leased_at=now,
            configured=bool(self.relay_hosts),
            fallback=self._router().fallback,
            body=_content,
        )
        return (await deliverer.attempt(delivery, self._policies())).outcomes[recipient.id]

    async def _validation(self) -> Validation:
        return Validation(self.validating, "as the test says")

    def _policies(self) -> Policies:
        tables = PolicyTables((parse_table(self.policy, "tls_policy"),))
        return Policies(
            lookup=tables.lookup,
            defaults=Defaults(level=self.level, level_rule=Rule("relay.toml:7", "the level")),
            credentials=CredentialTables(tables=(parse_passwords(self.passwords, "sasl_passwd"),), by_sender=True),
        )

    def _router(self) -> Router:
        hosts = tuple(NextHop.parse(text, default_port=self.port) for text in self.relay_hosts)
        transports = TransportTables((parse_transport(self.transport, "transport", port=self.port),))
        fallback = tuple(NextHop.parse(text, default_port=self.port) for text in self.fallback)
        return Router(relay_hosts=hosts, port=self.port, transports=transports, fallback=fallback)

    def _options(self) -> DeliveryOptions:
        return DeliveryOptions(
            helo_name="relay.test",
            mx_address_limit=self.mx_address_limit,
            mx_session_limit=self.mx_session_limit,
            reach=self.reach,
            timeouts=Timeouts(
                helo=5, starttls=5, mail=5, rcpt=5, data_init=5, data_xfer=5, data_done=5, quit=self.quit
            ),
        )


async def _content() -> AsyncIterator[bytes]:
    yield b"Subject: hello\r\n\r\nhello\r\n"
