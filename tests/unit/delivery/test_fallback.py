"""Fallback relays: when they are asked, and that mail never leaves through them under less than its policy."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest

from relay.delivery.attempt import Deliverer
from relay.delivery.delivery import Delivery, Policies
from relay.delivery.gather import Gatherer
from relay.delivery.options import DeliveryOptions
from relay.delivery.reach import ANYWHERE, Ourselves, Reach
from relay.delivery.session import SessionOpener
from relay.dns.answer import Answer, LookupFailed, LookupFault, RRType
from relay.dns.probe import Validation
from relay.lab.ca import Authority, CertificateKind, tlsa_rdata
from relay.lab.mx import Receiver
from relay.lab.script import Rcpt, Script, StartTls
from relay.log.postfix import status_word
from relay.mail.envelope import Address, Client, Envelope, Message, QueueId, Recipient, RecipientId
from relay.mail.names import Domain, NextHop
from relay.outcome.result import Bounced, Deferred, Outcome, Sent
from relay.policy.level import Level
from relay.policy.policy import Defaults, Rule
from relay.policy.table import PolicyTables, parse_table
from relay.tls.chain import ChainChecker
from relay.tls.handshake import ClientContexts
from tests.zone import ZoneResolver, a, found, mx_rdata

NOW = datetime.now(UTC)
NO_STARTTLS = Script(starttls=StartTls.ABSENT)
DOWN = Script(greeting="421 4.3.2 down")


@dataclass
class Scene:
    """A destination ``example`` with one MX host ``mx.example``, and a fallback relay ``[relay.example]``."""

    directory: Path
    stack: AsyncExitStack
    zone: dict[tuple[str, RRType], Answer] = field(default_factory=dict)
    port: int = 0

    def __post_init__(self) -> None:
        self.authority = Authority(self.directory, NOW)

    async def host(
        self,
        name: str,
        script: Script,
        *,
        tlsa: str = "",
        certificate: CertificateKind = CertificateKind.GOOD,
    ) -> Receiver:
        """Start one of them; ``tlsa`` is ``good``, ``wrong`` or empty."""
        credential = self.authority.issue(certificate, name)
        receiver = Receiver(name, f"127.0.0.{len(self.zone) + 2}", script, credential.pem_file)
        self.port = await receiver.start(self.port)
        self.stack.push_async_callback(receiver.stop)
        self.zone[name, RRType.A] = found(name, a(receiver.address))
        if tlsa:
            owner = f"_{self.port}._tcp.{name}"
            rdata = tlsa_rdata(3, 1, 1, credential.leaf) if tlsa == "good" else b"\3\1\1" + b"x" * 32
            self.zone[owner, RRType.TLSA] = found(owner, rdata)
        return receiver

    async def mx(self, script: Script, *, tlsa: str = "") -> Receiver:
        receiver = await self.host("mx.example", script, tlsa=tlsa)
        self.zone["example", RRType.MX] = found("example", mx_rdata(10, "mx.example"))
        return receiver

    async def attempt(
        self,
        level: Level = Level.DANE,
        *,
        policy: str = "",
        fallback: str = "[relay.example]",
        reach: Reach = ANYWHERE,
        soft_bounce: bool = False,
    ) -> Outcome:
        async def validation() -> Validation:
            return Validation(True, "as the test says")

        options = DeliveryOptions(helo_name="client.example", reach=reach, soft_bounce=soft_bounce)
        deliverer = Deliverer(
            gatherer=Gatherer(ZoneResolver(self.zone), shuffle=lambda records: None, reach=reach),
            opener=SessionOpener(
                options,
                context_for=ClientContexts().client_context,
                check_chain=ChainChecker.load(cafile=str(self.authority.ca_file)),
                clock=lambda: datetime.now(UTC),
                observe=lambda event: None,
            ),
            validation=validation,
            options=options,
            clock=lambda: datetime.now(UTC),
            monotonic=time.monotonic,
            observe=lambda event: None,
        )
        example = Domain("example")
        relays = tuple(NextHop.parse(text, default_port=self.port) for text in fallback.split())
        tables = PolicyTables((parse_table(policy, "tls_policy"),))
        delivery = Delivery(
            message=Message(
                queue_id=QueueId("4XYZ"),
                envelope=Envelope(
                    sender=Address("joe@sender.test", Domain("sender.test")),
                    recipients=(),
                    client=Client(address=ip_address("127.0.0.1")),
                ),
                size=10,
                arrived_at=NOW,
            ),
            route=(NextHop.of_domain(example, self.port),),
            recipients=(Recipient(id=RecipientId(1), address=Address("ann@example", example)),),
            leased_at=NOW,
            fallback=relays,
            body=content,
        )
        policies = Policies(
            lookup=tables.lookup,
            defaults=Defaults(level=level, level_rule=Rule("relay.toml:7")),
            written_for_fallback=frozenset(line.rule.place for relay in relays for line in tables.written_for(relay)),
        )
        [outcome] = (await deliverer.attempt(delivery, policies)).outcomes.values()
        return outcome


async def content() -> AsyncIterator[bytes]:
    yield b"Subject: x\r\n\r\n"


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        yield Scene(tmp_path, stack)


def took_mail(host: Receiver) -> bool:
    return any(session.saw_mail for session in host.sessions)


def held(outcome: Outcome) -> tuple[str, str]:
    assert isinstance(outcome.result, Deferred), outcome
    return str(outcome.result.status), outcome.result.reason


@pytest.mark.parametrize(
    "script", [DOWN, Script(rcpt=Rcpt.GREYLISTED), Script(refused=(("MAIL", "451 4.3.0 not now"),))]
)
async def test_it_takes_what_the_hosts_of_a_destination_refuse_for_now(scene: Scene, script: Script) -> None:
    await scene.mx(script)
    relay = await scene.host("relay.example", Script())
    outcome = await scene.attempt(Level.MAY)
    assert isinstance(outcome.result, Sent)
    assert str(outcome.relay).startswith("relay.example[")
    assert took_mail(relay)


async def test_it_takes_mail_of_a_destination_that_does_not_exist(scene: Scene) -> None:
    await scene.host("relay.example", Script())
    assert isinstance((await scene.attempt()).result, Sent)


async def test_what_a_host_refuses_for_good_bounces(scene: Scene) -> None:
    await scene.mx(Script(rcpt=Rcpt.REJECTED))
    relay = await scene.host("relay.example", Script())
    assert isinstance((await scene.attempt(Level.MAY)).result, Bounced)
    assert not relay.sessions


async def test_one_that_cannot_be_found_is_a_fault_of_the_configuration(scene: Scene) -> None:
    await scene.mx(DOWN)
    status, reason = held(await scene.attempt())
    assert status == "4.3.5"
    assert reason.startswith("smtp_fallback_relay configuration problem: Host or domain name not found. ")


async def test_where_we_are_the_destination_ourselves_nobody_else_is_asked(scene: Scene) -> None:
    relay = await scene.host("relay.example", Script())
    await scene.mx(DOWN)
    scene.zone["example", RRType.MX] = found("example", mx_rdata(10, "mx.example"), mx_rdata(20, "me.example"))
    ourselves = Ourselves(names=frozenset({Domain("me.example")}), port=scene.port)
    reach = Reach(ourselves=ourselves)
    assert held(await scene.attempt(reach=reach))[0] == "4.3.2"
    scene.zone["example", RRType.MX] = found("example", mx_rdata(10, "me.example"))
    assert isinstance((await scene.attempt(reach=reach)).result, Bounced)
    assert not relay.sessions


@pytest.mark.parametrize(
    ("certificate", "script"),
    [
        (CertificateKind.GOOD, NO_STARTTLS),
        (CertificateKind.SELF_SIGNED, Script()),
        (CertificateKind.WRONG_NAME, Script()),
    ],
)
async def test_mail_that_somebody_keeps_from_its_host_does_not_leave_through_an_unproved_relay(
    scene: Scene, certificate: CertificateKind, script: Script
) -> None:
    host = await scene.mx(Script(), tlsa="wrong")
    relay = await scene.host("relay.example", script, certificate=certificate)
    status, reason = held(await scene.attempt())
    assert status.startswith("4.7.")
    assert reason.endswith("; rule relay.toml:7")
    assert not took_mail(host)
    assert not took_mail(relay)
    assert relay.sessions


@pytest.mark.parametrize(("tlsa", "level"), [("good", "dane"), ("", "secure")])
async def test_a_relay_that_proves_itself_takes_it(scene: Scene, tlsa: str, level: str) -> None:
    await scene.mx(Script(), tlsa="wrong")
    await scene.host("relay.example", Script(), tlsa=tlsa)
    outcome = await scene.attempt()
    assert isinstance(outcome.result, Sent)
    assert outcome.tls == level


def lookup_fails(scene: Scene) -> None:
    scene.zone["example", RRType.MX] = LookupFailed(LookupFault.TIMEOUT, "no answer")


def address_fails(scene: Scene) -> None:
    scene.zone["mx.example", RRType.A] = LookupFailed(LookupFault.TIMEOUT, "no answer")


def records_fail(scene: Scene) -> None:
    scene.zone[f"_{scene.port}._tcp.mx.example", RRType.TLSA] = LookupFailed(LookupFault.TIMEOUT, "no answer")


@pytest.mark.parametrize("failure", [lookup_fails, address_fails, records_fail])
async def test_what_nobody_could_find_out_counts_as_strict(scene: Scene, failure: Callable[[Scene], None]) -> None:
    await scene.mx(Script())
    relay = await scene.host("relay.example", NO_STARTTLS)
    failure(scene)
    assert held(await scene.attempt())[0].startswith("4.7.")
    assert not took_mail(relay)
    # Where nothing but TLS if it is there was asked for, nothing is lost.
    if failure is not records_fail:
        assert isinstance((await scene.attempt(Level.MAY)).result, Sent)


async def test_a_line_for_the_destination_binds_and_one_for_the_relay_is_the_last_word(scene: Scene) -> None:
    await scene.mx(DOWN)
    relay = await scene.host("relay.example", NO_STARTTLS)
    status, reason = held(await scene.attempt(Level.MAY, policy="example encrypt\n"))
    assert status == "4.7.4"
    assert reason.endswith("; rule tls_policy:1 for example")
    assert not took_mail(relay)
    explicit = await scene.attempt(Level.MAY, policy="example encrypt\n[relay.example] may\n")
    assert isinstance(explicit.result, Sent)
    assert explicit.tls == "may:none"


async def test_a_line_for_all_below_a_domain_was_not_written_for_the_relay(scene: Scene) -> None:
    await scene.mx(DOWN)
    relay = await scene.host("relay.example", NO_STARTTLS)
    policy = "example encrypt\n.example may\n"
    assert held(await scene.attempt(Level.MAY, policy=policy, fallback="relay.example"))[0] == "4.7.4"
    assert not took_mail(relay)
    both = f"{policy}relay.example may\n"
    assert isinstance((await scene.attempt(Level.MAY, policy=both, fallback="relay.example")).result, Sent)


async def test_under_soft_bounce_what_is_hard_is_tried_elsewhere_and_waits(scene: Scene) -> None:
    host = await scene.mx(Script(rcpt=Rcpt.REJECTED))
    relay = await scene.host("relay.example", Script())
    assert isinstance((await scene.attempt(Level.MAY, soft_bounce=True)).result, Sent)
    relay.script = Script(refused=(("MAIL", "554 5.7.1 not you"),))
    outcome = await scene.attempt(Level.MAY, soft_bounce=True)
    assert isinstance(outcome.result, Deferred)
    assert outcome.result.softened
    assert (str(outcome.result.status), status_word(outcome.result)) == ("4.7.1", "SOFTBOUNCE")
    assert len(host.sessions) == len(relay.sessions) == 2


async def test_under_soft_bounce_a_destination_that_does_not_exist_waits(scene: Scene) -> None:
    outcome = await scene.attempt(Level.MAY, soft_bounce=True, fallback="")
    assert isinstance(outcome.result, Deferred)
    assert outcome.result.softened
    assert str(outcome.result.status) == "4.4.4"
