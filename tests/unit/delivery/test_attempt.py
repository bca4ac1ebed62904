"""Attempts against scripted hosts: who is tried next, what bounces, what defers, and what never leaves."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest

from relay.delivery.attempt import Deliverer
from relay.delivery.delivery import Delivery, Policies
from relay.delivery.gather import Gatherer
from relay.delivery.options import DeliveryOptions, Timeouts
from relay.delivery.pool import Pool
from relay.delivery.session import SessionOpener
from relay.dns.answer import Answer, LookupFailed, LookupFault, RRType
from relay.dns.probe import Validation
from relay.lab.ca import Authority, CertificateKind, Credential, tlsa_rdata
from relay.lab.mx import Receiver
from relay.lab.script import Rcpt, Script, Stage, StartTls
from relay.log.events import Event, HostFailed, Noted, TlsEstablished
from relay.mail.envelope import Address, Client, Envelope, Message, QueueId, Recipient, RecipientId
from relay.mail.names import Domain, NextHop
from relay.outcome.result import AttemptResult, Bounced, Deferred, Outcome, Sent
from relay.policy.level import Level
from relay.policy.policy import Defaults, InsecureMxPolicy, MalformedEntry, MapEntry, NoEntry, Rule
from relay.tls.chain import ChainChecker
from relay.tls.handshake import ClientContexts
from tests.zone import ZoneResolver, a, found, mx_rdata

EXAMPLE = Domain("example.test")
ARRIVED = datetime.now(UTC)
CONTENT = b"Subject: hello\r\n\r\n.hello\r\n"


def named(number: int) -> str:
    return f"mx{number}.example.test"


@dataclass
class Scene:
    """Scripted hosts, the zone that leads to them, and an attempt at them."""

    directory: Path
    stack: AsyncExitStack
    authority: Authority = field(init=False)
    zone: dict[tuple[str, RRType], Answer] = field(default_factory=dict)
    hosts: list[Receiver] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    port: int = 0
    validating: bool = True
    opinions: list[Validation] = field(default_factory=list)
    times: list[datetime] = field(default_factory=list)
    insecure_mx: InsecureMxPolicy = InsecureMxPolicy.DANE
    pool: Pool | None = None
    edition: object = None
    body: Callable[[], AsyncIterator[bytes]] | None = None
    options: DeliveryOptions = field(
        default_factory=lambda: DeliveryOptions(
            helo_name="relay.test",
            timeouts=Timeouts(helo=0.5, starttls=5, mail=0.5, rcpt=0.5, data_init=0.5, data_xfer=5, data_done=0.5),
        )
    )

    def __post_init__(self) -> None:
        self.authority = Authority(self.directory, ARRIVED)

    async def host(
        self, script: Script, *, tlsa: bool = False, wrong_tlsa: bool = False, preference: int = 0
    ) -> Receiver:
        """Add an MX host, at the next preference, with TLSA records if asked for."""
        number = len(self.hosts) + 1
        name = named(number)
        credential: Credential = self.authority.issue(CertificateKind.GOOD, name)
        receiver = Receiver(name, f"127.0.0.{number + 1}", script, credential.pem_file)
        self.port = await receiver.start(self.port)
        self.stack.push_async_callback(receiver.stop)
        self.hosts.append(receiver)
        self.zone[name, RRType.A] = found(name, a(receiver.address))
        records = [mx_rdata(preference or n * 10, named(n)) for n in range(1, number + 1)]
        self.zone[EXAMPLE.name, RRType.MX] = found(EXAMPLE.name, *records)
        if tlsa or wrong_tlsa:
            owner = f"_{self.port}._tcp.{name}"
            rdata = tlsa_rdata(3, 1, 1, credential.leaf) if tlsa else b"\3\1\1" + b"x" * 32
            self.zone[owner, RRType.TLSA] = found(owner, rdata)
        return receiver

    def clock(self) -> datetime:
        return self.times.pop(0) if self.times else datetime.now(UTC)

    async def attempt(
        self,
        level: Level = Level.DANE,
        *recipients: str,
        entry: MapEntry | MalformedEntry | NoEntry | None = None,
        waited: float = 0.0,
        message: Message | None = None,
        octets: bytes = CONTENT,
    ) -> AttemptResult:
        async def validation() -> Validation:
            return self.opinions.pop(0) if self.opinions else Validation(self.validating, "as the test says")

        deliverer = Deliverer(
            gatherer=Gatherer(ZoneResolver(self.zone), shuffle=lambda records: None),
            opener=SessionOpener(
                self.options,
                context_for=ClientContexts().client_context,
                check_chain=ChainChecker.load(cafile=str(self.authority.ca_file)),
                clock=lambda: datetime.now(UTC),
                observe=self.events.append,
            ),
            validation=validation,
            options=self.options,
            clock=self.clock,
            monotonic=time.monotonic,
            observe=self.events.append,
            pool=self.pool,
        )
        message = message or a_message()
        policies = Policies(
            lookup=lambda next_hop: entry or NoEntry(),
            defaults=Defaults(level=level, level_rule=Rule("relay.toml:7"), insecure_mx=self.insecure_mx),
            edition=self.edition,
        )
        delivery = Delivery(
            message=message,
            route=(NextHop.of_domain(EXAMPLE, self.port),),
            recipients=tuple(
                Recipient(id=RecipientId(n), address=Address(text, EXAMPLE))
                for n, text in enumerate(recipients or ("ann@example.test",), 1)
            ),
            leased_at=message.arrived_at + timedelta(seconds=waited),
            body=self.body or (lambda: content(octets)),
        )
        return await deliverer.attempt(delivery, policies)


def a_message(*, eight_bit: bool = False, smtputf8: bool = False, size: int = len(CONTENT)) -> Message:
    return Message(
        queue_id=QueueId("4XYZ"),
        envelope=Envelope(
            sender=Address("joe@sender.test", Domain("sender.test")),
            recipients=(),
            smtputf8=smtputf8,
            client=Client(address=ip_address("127.0.0.1")),
        ),
        size=size,
        arrived_at=ARRIVED,
        eight_bit=eight_bit,
    )


async def content(octets: bytes) -> AsyncIterator[bytes]:
    yield octets


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        yield Scene(tmp_path, stack)


def only(result: AttemptResult) -> Outcome:
    [outcome] = result.outcomes.values()
    return outcome


def saw_mail(host: Receiver) -> bool:
    return any(session.saw_mail for session in host.sessions)


def deferred(result: AttemptResult) -> tuple[str, str, str]:
    outcome = only(result)
    assert isinstance(outcome.result, Deferred), outcome
    return str(outcome.result.status), outcome.result.reason, outcome.tls


async def test_dane_verified(scene: Scene) -> None:
    host = await scene.host(Script(), tlsa=True)
    outcome = only(await scene.attempt())
    assert isinstance(outcome.result, Sent)
    assert (outcome.tls, str(outcome.relay)) == ("dane", f"mx1.example.test[127.0.0.2]:{scene.port}")
    [session] = host.sessions
    assert session.tls is not None
    assert session.tls.sni == "mx1.example.test"
    [received] = host.received()
    assert received.content == CONTENT
    assert [event.word.value for event in scene.events if isinstance(event, TlsEstablished)] == ["Verified"]


async def test_mismatch_defers_and_nothing_is_said(scene: Scene) -> None:
    host = await scene.host(Script(), wrong_tlsa=True)
    result = await scene.attempt()
    status, reason, tls = deferred(result)
    assert (status, tls) == ("4.7.5", "!dane")
    assert reason.startswith("Server certificate not verified: expected TLSA 3 1 1 7878")
    assert "; found " in reason
    assert reason.endswith(f"rule TLSA _{scene.port}._tcp.mx1.example.test by relay.toml:7")
    assert result.throttled_by is not None
    assert not saw_mail(host)


async def test_an_attempt_goes_by_the_day_on_which_it_began(scene: Scene) -> None:
    """The end of an exception while an attempt is under way must not leave it with a level and without its facts."""
    host = await scene.host(Script(), wrong_tlsa=True)
    exception = MapEntry(level=Level.MAY, rule=Rule("tls_policy:14"), until=date(2027, 1, 31), otherwise=NoEntry())
    midnight = datetime(2027, 2, 1, tzinfo=UTC)
    scene.times = [midnight - timedelta(microseconds=1), *[midnight] * 20]
    assert only(await scene.attempt(Level.DANE, entry=exception)).tls == "may"
    scene.times = [midnight] * 20
    status, reason, tls = deferred(await scene.attempt(Level.DANE, entry=exception))
    assert (status, tls) == ("4.7.5", "!dane")
    owner = f"_{scene.port}._tcp.mx1.example.test"
    assert reason.endswith(f"rule TLSA {owner} by relay.toml:7 since tls_policy:14 expired on 2027-01-31")
    assert len(host.received()) == 1


async def test_next_host_takes_what_the_first_may_not(scene: Scene) -> None:
    first, second = await scene.host(Script(), wrong_tlsa=True), await scene.host(Script(), tlsa=True)
    outcome = only(await scene.attempt())
    assert isinstance(outcome.result, Sent)
    assert not saw_mail(first)
    assert saw_mail(second)
    assert [event for event in scene.events if isinstance(event, HostFailed)]


@pytest.mark.parametrize(
    ("script", "status", "text"),
    [
        (Script(starttls=StartTls.ABSENT), "4.7.4", "TLS is required, but was not offered by host mx1"),
        (Script(starttls=StartTls.REFUSED_454), "4.7.", "TLS is required, but host mx1"),
        (Script(starttls=StartTls.REFUSED_554), "4.", "TLS is required, but host mx1"),
        (Script(starttls=StartTls.GARBAGE), "4.7.5", "Cannot start TLS: handshake failure"),
        (Script(starttls=StartTls.CUT), "4.7.5", "Cannot start TLS: handshake failure"),
        (Script(greeting="554 5.3.2 go away"), "4.3.2", "host mx1.example.test[127.0.0.2] refused to talk to me: 554"),
        (
            Script(hang=Stage.GREETING),
            "4.4.2",
            "conversation with mx1.example.test[127.0.0.2] timed out while receiving",
        ),
        (Script(hang=Stage.STARTTLS), "4.", ""),
    ],
)
async def test_before_the_verdict_nothing_bounces(scene: Scene, script: Script, status: str, text: str) -> None:
    scene.options = replace(scene.options, timeouts=replace(scene.options.timeouts, starttls=0.5))
    host = await scene.host(script, tlsa=True)
    # The hardest case: old enough for a retry in the clear, were this level may.
    got = deferred(await scene.attempt(waited=10_000))
    assert got[0].startswith(status)
    assert got[1].startswith(text)
    assert not saw_mail(host)


async def test_refused_recipient_bounces_at_once_and_alone(scene: Scene) -> None:
    await scene.host(Script(rcpt=Rcpt.REJECTED), tlsa=True)
    spare = await scene.host(Script(), tlsa=True)
    outcome = only(await scene.attempt())
    assert isinstance(outcome.result, Bounced)
    assert outcome.result.reason.endswith("(in reply to RCPT TO command)")
    assert not spare.sessions


async def test_soft_refusal_goes_on_to_the_next_host(scene: Scene) -> None:
    await scene.host(Script(rcpt=Rcpt.GREYLISTED), tlsa=True)
    spare = await scene.host(Script(), tlsa=True)
    outcome = only(await scene.attempt())
    assert isinstance(outcome.result, Sent)
    assert saw_mail(spare)


async def test_content_refused_for_good(scene: Scene) -> None:
    await scene.host(Script(end_of_data="554 5.7.1 spam"), tlsa=True)
    result = await scene.attempt(Level.DANE, "ann@example.test", "bob@example.test")
    assert [type(outcome.result) for outcome in result.outcomes.values()] == [Bounced, Bounced]
    assert result.throttled_by is None


async def test_recipients_of_one_next_hop_share_a_transaction(scene: Scene) -> None:
    host = await scene.host(Script(), tlsa=True)
    await scene.attempt(Level.DANE, "ann@example.test", "bob@example.test")
    [received] = host.received()
    assert len(received.recipients) == 2


@pytest.mark.parametrize("starttls", [StartTls.ABSENT, StartTls.REFUSED_454, StartTls.REFUSED_554])
async def test_at_may_starttls_missing_or_refused_goes_on_in_clear(scene: Scene, starttls: StartTls) -> None:
    host = await scene.host(Script(starttls=starttls))
    outcome = only(await scene.attempt(Level.MAY))
    assert isinstance(outcome.result, Sent)
    assert outcome.tls == "may:none"
    assert len(host.sessions) == 1


@pytest.mark.parametrize(("waited", "sent"), [(0.0, False), (299.0, False), (300.0, True)])
async def test_failed_handshake_at_may_waits_before_it_goes_in_clear(scene: Scene, waited: float, sent: bool) -> None:
    host = await scene.host(Script(starttls=StartTls.GARBAGE))
    result = await scene.attempt(Level.MAY, waited=waited)
    outcome = only(result)
    if sent:
        assert isinstance(outcome.result, Sent)
        assert outcome.tls == "may:none"
    else:
        assert deferred(result)[0] == "4.7.5"
        assert outcome.tls == "may?"
        assert not saw_mail(host)
        assert result.throttled_by is None


async def test_dane_that_came_to_may_for_want_of_records_may_go_in_clear(scene: Scene) -> None:
    await scene.host(Script(starttls=StartTls.ABSENT))
    assert only(await scene.attempt(Level.DANE)).tls == "may:none"


async def test_tlsa_failure_skips_the_host_only(scene: Scene) -> None:
    first = await scene.host(Script(), tlsa=True)
    second = await scene.host(Script(), tlsa=True)
    scene.zone[f"_{scene.port}._tcp.{named(1)}", RRType.TLSA] = LookupFailed(LookupFault.SERVFAIL, "SERVFAIL")
    assert isinstance(only(await scene.attempt()).result, Sent)
    assert not first.sessions
    assert saw_mail(second)


async def test_tlsa_failure_everywhere_defers(scene: Scene) -> None:
    host = await scene.host(Script(), tlsa=True)
    scene.zone[f"_{scene.port}._tcp.{named(1)}", RRType.TLSA] = LookupFailed(LookupFault.TIMEOUT, "no answer")
    status, reason, tls = deferred(await scene.attempt())
    assert (status, tls) == ("4.7.5", "unknown?")
    assert reason.startswith(f"TLSA lookup error for mx1.example.test:{scene.port}: expected")
    assert not host.sessions


async def test_host_without_address_does_not_bounce_what_another_defers(scene: Scene) -> None:
    await scene.host(Script(), wrong_tlsa=True)
    await scene.host(Script())
    del scene.zone[named(2), RRType.A]
    assert deferred(await scene.attempt())[0] == "4.7.5"


async def test_no_host_with_an_address_bounces(scene: Scene) -> None:
    await scene.host(Script())
    del scene.zone[named(1), RRType.A]
    outcome = only(await scene.attempt())
    assert isinstance(outcome.result, Bounced)
    assert str(outcome.result.status) == "5.4.4"


async def test_resolver_that_does_not_validate_defers_dane(scene: Scene) -> None:
    host = await scene.host(Script(), tlsa=True)
    scene.validating = False
    assert deferred(await scene.attempt())[1].startswith("resolver does not validate")
    assert not host.sessions


async def test_reason_says_what_the_probe_found(scene: Scene) -> None:
    await scene.host(Script(), tlsa=True)
    scene.validating = False
    assert "found as the test says; rule" in deferred(await scene.attempt())[1]


@pytest.mark.parametrize("policy", list(InsecureMxPolicy))
async def test_insecure_mx_of_a_resolver_that_does_not_validate_is_no_licence(
    scene: Scene, policy: InsecureMxPolicy
) -> None:
    host = await scene.host(Script())
    scene.zone[EXAMPLE.name, RRType.MX] = found(EXAMPLE.name, mx_rdata(10, named(1)), secure=False)
    scene.validating, scene.insecure_mx = False, policy
    assert deferred(await scene.attempt())[1].startswith("resolver does not validate")
    assert not host.sessions


@pytest.mark.parametrize(
    "opinions",
    [
        (Validation(False, "not yet", serial=1), Validation(True, "now", serial=2)),
        (Validation(True, "before", serial=1), Validation(False, "no more", serial=2)),
        (Validation(True, "one", serial=1), Validation(True, "another", serial=3)),
    ],
)
async def test_what_was_learned_under_another_opinion_does_not_weaken(
    scene: Scene, opinions: tuple[Validation, ...]
) -> None:
    host = await scene.host(Script())
    scene.zone[named(1), RRType.A] = found(named(1), a(host.address), secure=False)
    scene.opinions = list(opinions)
    assert deferred(await scene.attempt())[1].startswith("resolver does not validate")
    assert not host.sessions


async def test_validation_is_not_waited_for_where_nothing_hangs_on_it(scene: Scene) -> None:
    host = await scene.host(Script())
    scene.opinions = [Validation(False, "never asked for")]
    assert all(isinstance(o.result, Sent) for o in (await scene.attempt(Level.MAY)).outcomes.values())
    assert scene.opinions
    assert host.received()


@pytest.mark.parametrize("gone", [(EXAMPLE.name, RRType.MX), (named(1), RRType.A)])
async def test_what_a_resolver_that_does_not_validate_denies_bounces_nothing(
    scene: Scene, gone: tuple[str, RRType]
) -> None:
    await scene.host(Script(), tlsa=True)
    del scene.zone[gone]
    scene.validating = False
    assert "; found as the test says" in deferred(await scene.attempt())[1]
    scene.validating = True
    assert isinstance(only(await scene.attempt()).result, Bounced)


async def test_malformed_entry_defers_and_dials_nobody(scene: Scene) -> None:
    host = await scene.host(Script())
    entry = MalformedEntry(key="example.test", rule=Rule("tls_policy:3"), warning='invalid security level "dnae"')
    status, reason, tls = deferred(await scene.attempt(entry=entry))
    assert (status, tls) == ("4.7.5", "unknown?")
    assert reason == (
        "client TLS configuration problem: expected a valid policy entry; "
        'found invalid security level "dnae"; rule tls_policy:3'
    )
    assert not host.sessions


async def test_address_and_session_limits(scene: Scene) -> None:
    busy = Script(refused=(("RCPT", "450 4.2.0 not now"),))
    hosts = [await scene.host(busy, tlsa=True) for _ in range(3)]
    await scene.attempt()
    assert [len(host.sessions) for host in hosts] == [1, 1, 0]
    scene.options = replace(scene.options, mx_address_limit=1)
    await scene.attempt()
    assert [len(host.sessions) for host in hosts] == [2, 1, 0]


async def test_sessions_that_were_refused_do_not_count_towards_the_limit(scene: Scene) -> None:
    bad = [await scene.host(Script(), wrong_tlsa=True) for _ in range(3)]
    good = await scene.host(Script(), tlsa=True)
    assert isinstance(only(await scene.attempt()).result, Sent)
    assert [len(host.sessions) for host in bad] == [1, 1, 1]
    assert saw_mail(good)
    assert not any(map(saw_mail, bad))


SIGNED = (
    b"Content-Type: multipart/signed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xc3\xbc\r\n--b--\r\n"
)
EIGHT_BIT_HEADER = b"Subject: \xc3\xbc\r\n\r\nx\r\n"
EIGHT_BIT = b"Subject: x\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xc3\xbc\r\n"


@pytest.mark.parametrize(
    ("message", "octets", "status", "why"),
    [
        (a_message(eight_bit=True), SIGNED, "5.6.3", "it cannot be converted: a part that is signed or encrypted"),
        (a_message(eight_bit=True, smtputf8=True), EIGHT_BIT_HEADER, "5.6.7", "message requires SMTPUTF8, but no"),
        (a_message(size=1001), CONTENT, "5.3.4", "message size 1001 exceeds size limit 1000 of server mx1"),
    ],
)
async def test_unfit_messages_bounce_after_the_last_host(
    scene: Scene, message: Message, octets: bytes, status: str, why: str
) -> None:
    host = await scene.host(Script(extensions=("SIZE 1000", "PIPELINING")), tlsa=True)
    outcome = only(await scene.attempt(message=message, octets=octets))
    assert isinstance(outcome.result, Bounced)
    assert str(outcome.result.status) == status
    assert why in outcome.result.reason
    assert not saw_mail(host)


async def test_another_host_takes_what_the_first_cannot(scene: Scene) -> None:
    await scene.host(Script(extensions=("PIPELINING",)), tlsa=True)
    able = await scene.host(Script(), tlsa=True)
    assert isinstance(only(await scene.attempt(message=a_message(eight_bit=True), octets=SIGNED)).result, Sent)
    assert saw_mail(able)


@pytest.mark.parametrize("smtputf8", [False, True])
async def test_a_host_without_8bitmime_gets_quoted_printable(scene: Scene, smtputf8: bool) -> None:
    host = await scene.host(Script(extensions=("SIZE 1000", "PIPELINING")), tlsa=True)
    message = a_message(eight_bit=True, smtputf8=smtputf8, size=len(EIGHT_BIT))
    assert isinstance(only(await scene.attempt(message=message, octets=EIGHT_BIT)).result, Sent)
    (received,) = host.received()
    assert received.content == (
        b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=BC\r\n"
    )
    (mail,) = (command.line for command in host.sessions[0].commands if command.verb == "MAIL")
    assert mail == "MAIL FROM:<joe@sender.test>"


async def test_a_host_with_8bitmime_gets_the_message_as_it_is(scene: Scene) -> None:
    host = await scene.host(Script(), tlsa=True)
    message = a_message(eight_bit=True, smtputf8=True, size=len(EIGHT_BIT))
    assert isinstance(only(await scene.attempt(message=message, octets=EIGHT_BIT)).result, Sent)
    (received,) = host.received()
    assert received.content == EIGHT_BIT


@pytest.mark.parametrize(("limit", "breaks"), [(998, True), (0, False)])
async def test_lines_that_are_too_long_are_broken_unless_that_is_off(scene: Scene, limit: int, breaks: bool) -> None:
    host = await scene.host(Script(), tlsa=True)
    scene.options = replace(scene.options, line_length_limit=limit)
    octets = b"Subject: x\r\n\r\n" + (b"y" * 999 + b"\r\n") * 2
    assert isinstance(only(await scene.attempt(octets=octets)).result, Sent)
    (received,) = host.received()
    assert received.content == (octets.replace(b"y" * 999, b"y" * 998 + b"\r\n y") if breaks else octets)
    noted = [event.text for event in scene.events if isinstance(event, Noted) and event.queue_id == "4XYZ"]
    assert noted == (["breaking line > 998 bytes with <CR><LF>SPACE"] if breaks else [])


async def test_refused_connection(scene: Scene) -> None:
    host = await scene.host(Script())
    await host.stop()
    status, reason, tls = deferred(await scene.attempt(Level.ENCRYPT))
    assert (status, tls) == ("4.4.1", "encrypt?")
    assert reason == f"connect to mx1.example.test[127.0.0.2]:{scene.port}: Connection refused"


async def test_hang_at_the_end_of_data_defers(scene: Scene) -> None:
    await scene.host(Script(hang=Stage.END_OF_DATA), tlsa=True)
    status, reason, _ = deferred(await scene.attempt())
    assert status == "4.4.2"
    assert "message may be sent more than once" in reason
