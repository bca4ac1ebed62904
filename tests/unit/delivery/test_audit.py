"""Audits beside deliveries: bounded, timed, and unable to hold anything up."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest

import relay.delivery.audit as auditing
from relay.delivery.audit import Auditor
from relay.delivery.gather import Gatherer
from relay.delivery.leg import Leg
from relay.delivery.trouble import Trouble
from relay.dns.answer import Answer, LookupFailed, LookupFault, RRType
from relay.dns.probe import Validation
from relay.log.events import Event, SessionAudited
from relay.mail.envelope import QueueId
from relay.mail.names import Domain, NextHop
from relay.mail.reply import EnhancedStatus
from relay.outcome.result import Local, RelayHost
from relay.policy.audit import Finding
from relay.policy.level import Level
from relay.policy.policy import Defaults, NoEntry, Rule
from relay.tls.chain import ChainChecker
from relay.tls.peer import NOT_SEEN, InClear, NotSeen, PeerFacts
from tests.zone import ZoneResolver, a, found, mx_rdata

MX = RelayHost("mx.example.test", ip_address("127.0.0.2"), 25)
DEFAULTS = Defaults(level=Level.MAY, level_rule=Rule("relay.toml:3"), audit=Level.DANE, audit_rule=Rule("relay.toml:4"))
LEG = Leg(next_hop=NextHop.of_domain(Domain("example.test"), 25), entry=NoEntry(), defaults=DEFAULTS)
ZONE: dict[tuple[str, RRType], Answer] = {
    ("example.test", RRType.MX): found("example.test", mx_rdata(10, "mx.example.test")),
    ("mx.example.test", RRType.A): found("mx.example.test", a("127.0.0.2")),
}


def session(seen: PeerFacts | InClear | NotSeen) -> Trouble:
    """A session as far as the auditor looks at it."""
    return Trouble(status=EnhancedStatus(4, 7, 5), reason="r", diagnostic=Local("r"), relay=MX, tls="may", seen=seen)


class Scene:
    def __init__(self, zone: dict[tuple[str, RRType], Answer]) -> None:
        self.events: list[Event] = []
        self.go = asyncio.Event()
        self.validating = True
        self.auditor = Auditor(
            gatherer=Gatherer(ZoneResolver(zone), shuffle=lambda records: None),
            validation=self.validation,
            check_chain=ChainChecker(),
            clock=lambda: datetime.now(UTC),
            observe=self.events.append,
        )

    async def validation(self) -> Validation:
        await self.go.wait()
        return Validation(self.validating, "as the test says")

    async def audited(self) -> SessionAudited:
        self.go.set()
        self.auditor.had(LEG, MX, session(InClear("STARTTLS not offered")), QueueId("4XYZ"))
        await self.auditor.finish(10)
        (event,) = self.events
        assert isinstance(event, SessionAudited)
        return event


async def test_a_host_without_records_would_go_out_unproved() -> None:
    event = await Scene(ZONE).audited()
    assert (event.finding, event.destination, event.asked, event.level) == (
        Finding.UNPROVED,
        "example.test",
        Level.DANE,
        Level.MAY,
    )


@pytest.mark.parametrize(
    ("name", "rrtype"),
    [
        ("example.test", RRType.MX),
        ("mx.example.test", RRType.A),
        ("_25._tcp.mx.example.test", RRType.TLSA),
    ],
)
async def test_a_look_up_that_fails_is_no_answer(name: str, rrtype: RRType) -> None:
    failed = LookupFailed(LookupFault.SERVFAIL, "SERVFAIL")
    event = await Scene({**ZONE, (name, rrtype): failed}).audited()
    assert event.finding is Finding.UNKNOWN
    assert "SERVFAIL" in event.text
    assert event.text.endswith("rule relay.toml:4")


async def test_a_resolver_that_does_not_validate_is_no_answer() -> None:
    scene = Scene(ZONE)
    scene.validating = False
    event = await scene.audited()
    assert (event.finding, event.text.partition(":")[0]) == (Finding.UNKNOWN, "resolver does not validate")


async def test_an_address_that_is_gone_is_no_answer() -> None:
    gone = found("mx.example.test", a("127.0.0.9"))
    event = await Scene({**ZONE, ("mx.example.test", RRType.A): gone}).audited()
    assert event.finding is Finding.UNKNOWN
    assert "is no address of mx.example.test any more" in event.text


async def test_what_was_not_seen_or_not_asked_for_is_not_audited() -> None:
    scene = Scene(ZONE)
    scene.go.set()
    scene.auditor.had(LEG, MX, session(NOT_SEEN), QueueId("4XYZ"))
    plain = Leg(next_hop=LEG.next_hop, entry=NoEntry(), defaults=Defaults(level=Level.MAY, level_rule=Rule("x")))
    scene.auditor.had(plain, MX, session(InClear("off")), QueueId("4XYZ"))
    await scene.auditor.finish(10)
    assert not scene.events


async def test_no_more_than_so_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "MAX_UNDER_WAY", 2)
    scene = Scene(ZONE)
    for _ in range(5):
        scene.auditor.had(LEG, MX, session(InClear("off")), QueueId("4XYZ"))
    assert scene.auditor.left_out == 3
    scene.go.set()
    await scene.auditor.finish(10)
    assert len(scene.events) == 2


async def test_one_that_takes_too_long_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "SECONDS", 0.0)
    scene = Scene(ZONE)
    scene.auditor.had(LEG, MX, session(InClear("off")), QueueId("4XYZ"))
    await scene.auditor.finish(10)
    (event,) = scene.events
    assert isinstance(event, SessionAudited)
    assert event.finding is Finding.UNKNOWN


async def test_at_the_end_what_is_left_is_given_up() -> None:
    scene = Scene(ZONE)
    scene.auditor.had(LEG, MX, session(InClear("off")), QueueId("4XYZ"))
    await scene.auditor.finish(0)
    assert not scene.events
