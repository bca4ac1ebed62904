"""Mail for a domain whose best host is this relay: hosts no better than we are left out (RFC 5321 section 5.1)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest

from relay.delivery.attempt import Deliverer
from relay.delivery.delivery import Delivery, Policies
from relay.delivery.gather import Destination, Gatherer, LookupTrouble
from relay.delivery.options import DeliveryOptions
from relay.delivery.reach import Ourselves, Reach
from relay.delivery.session import SessionOpener
from relay.dns.answer import LookupFailed, LookupFault, RRType
from relay.dns.probe import Validation
from relay.mail.envelope import Address, Client, Envelope, Message, QueueId, Recipient, RecipientId
from relay.mail.names import Domain, NextHop
from relay.outcome.result import Bounced, Deferred, RecipientResult
from relay.policy.level import Level
from relay.policy.policy import Defaults, NoEntry, Rule
from relay.tls.chain import ChainChecker
from relay.tls.handshake import ClientContexts
from tests.zone import Zone, ZoneResolver, a, found, mx_rdata

NOW = datetime.now(UTC)
PORT = 25
OURSELVES = Ourselves(
    names=frozenset({Domain("relay.example")}), port=PORT, endpoints=frozenset({(ip_address("192.0.2.25"), PORT)})
)


def mx(*hosts: tuple[int, str]) -> Zone:
    """``example`` with MX hosts; ``ours`` has our address among others, the rest have none of ours."""
    return {
        ("example", RRType.MX): found("example", *(mx_rdata(preference, host) for preference, host in hosts)),
        ("ours.example", RRType.A): found("ours.example", a("192.0.2.1"), a("192.0.2.25")),
        **{(f"{name}.example", RRType.A): found(f"{name}.example", a("192.0.2.1")) for name in ("a", "b", "c")},
    }


def gatherer(zone: Zone) -> Gatherer:
    return Gatherer(ZoneResolver(zone), shuffle=lambda records: None, reach=Reach(ourselves=OURSELVES))


async def hosts(zone: Zone, next_hop: str = "example") -> list[str]:
    got = await gatherer(zone).destination(NextHop.parse(next_hop, default_port=PORT))
    assert isinstance(got, Destination), got
    return [str(host) for host in got.hosts]


async def loops(zone: Zone, next_hop: str = "example") -> LookupTrouble:
    got = await gatherer(zone).destination(NextHop.parse(next_hop, default_port=PORT))
    assert isinstance(got, LookupTrouble), got
    assert got.loops
    return got


@pytest.mark.parametrize("ours", ["relay.example", "ours.example"])
async def test_hosts_at_our_preference_and_above_are_left_out(ours: str) -> None:
    zone = mx((10, "a.example"), (20, "b.example"), (20, ours), (30, "c.example"))
    got = await gatherer(zone).destination(NextHop.parse("example", default_port=PORT))
    assert isinstance(got, Destination)
    assert [str(host) for host in got.hosts] == ["a.example"]
    assert got.backup


@pytest.mark.parametrize("ours", ["relay.example", "ours.example"])
async def test_nothing_left_is_a_loop(ours: str) -> None:
    trouble = await loops(mx((10, ours), (10, "a.example"), (20, "b.example")))
    assert (str(trouble.status), trouble.text) == ("5.4.6", "mail for example loops back to myself")


async def test_without_ourselves_nothing_is_left_out() -> None:
    zone = mx((10, "a.example"), (20, "b.example"))
    assert await hosts(zone) == ["a.example", "b.example"]
    got = await gatherer(zone).destination(NextHop.parse("example", default_port=PORT))
    assert isinstance(got, Destination)
    assert not got.backup


async def test_another_port_is_another_server() -> None:
    zone = mx((10, "relay.example"), (10, "ours.example"))
    assert await hosts(zone, "example:10025") == ["relay.example", "ours.example"]
    assert await hosts(zone, "[ours.example]:10025") == ["ours.example"]


async def test_a_domain_that_is_its_own_host_and_a_host_in_brackets() -> None:
    assert (await loops(mx(), "ours.example")).text == "mail for ours.example loops back to myself"
    assert (await loops(mx(), "[ours.example]")).text == "mail for ours.example loops back to myself"
    assert (await loops({}, "relay.example")).text == "mail for relay.example loops back to myself"
    await loops({}, "[192.0.2.25]")


async def test_addresses_are_not_looked_up_where_we_listen_at_another_port() -> None:
    resolver = ZoneResolver(mx((10, "a.example")))
    gather = Gatherer(resolver, shuffle=lambda records: None, reach=Reach(ourselves=OURSELVES))
    await gather.destination(NextHop.parse("example:26", default_port=PORT))
    assert resolver.asked == [("example", RRType.MX)]


async def test_a_failed_look_up_makes_nobody_us() -> None:
    failed = LookupFailed(LookupFault.SERVFAIL, "SERVFAIL")
    zone = {**mx((10, "a.example"), (20, "x.example")), ("x.example", RRType.A): failed}
    assert await hosts(zone) == ["a.example", "x.example"]


async def attempt(zone: Zone, *next_hops: str, configured: bool = False) -> RecipientResult:
    async def validation() -> Validation:
        return Validation(True, "as the test says")

    options = DeliveryOptions(helo_name="relay.example")
    deliverer = Deliverer(
        gatherer=gatherer(zone),
        opener=SessionOpener(
            options,
            context_for=ClientContexts().client_context,
            check_chain=ChainChecker.load(),
            clock=lambda: NOW,
            observe=lambda event: None,
        ),
        validation=validation,
        options=options,
        clock=lambda: NOW,
        monotonic=time.monotonic,
        observe=lambda event: None,
    )
    message = Message(
        queue_id=QueueId("4XYZ"),
        envelope=Envelope(
            sender=Address("joe@sender.test", Domain("sender.test")),
            recipients=(),
            client=Client(address=ip_address("127.0.0.1")),
        ),
        size=10,
        arrived_at=NOW,
    )
    delivery = Delivery(
        message=message,
        route=tuple(NextHop.parse(text, default_port=PORT) for text in next_hops or ("example",)),
        recipients=(Recipient(id=RecipientId(1), address=Address("ann@example", Domain("example"))),),
        leased_at=NOW,
        configured=configured,
        body=no_body,
    )
    defaults = Defaults(level=Level.DANE, level_rule=Rule("relay.toml:7"))
    result = await deliverer.attempt(delivery, Policies(lookup=lambda next_hop: NoEntry(), defaults=defaults))
    [outcome] = result.outcomes.values()
    return outcome.result


def no_body() -> AsyncIterator[bytes]:
    raise AssertionError("a session was had")


async def test_a_loop_bounces_and_no_other_next_hop_is_asked_for() -> None:
    result = await attempt(mx((10, "relay.example")), "example", "other.example")
    assert isinstance(result, Bounced)
    assert (str(result.status), result.reason) == ("5.4.6", "mail for example loops back to myself")


async def test_a_relayhost_that_is_us_is_a_fault_of_the_configuration() -> None:
    result = await attempt({}, "[192.0.2.25]", configured=True)
    assert isinstance(result, Deferred)
    reason = "relayhost configuration problem: mail for [192.0.2.25] loops back to myself"
    assert (str(result.status), result.reason) == ("4.3.5", reason)


async def test_a_primary_without_an_address_does_not_bounce_what_we_are_backup_for() -> None:
    result = await attempt(mx((10, "gone.example"), (20, "relay.example")))
    assert isinstance(result, Deferred)
    assert str(result.status) == "4.4.4"
    assert result.reason.startswith("unable to find primary relay for example: Host or domain name not found. ")
    alone = await attempt(mx((10, "gone.example"), (20, "gone2.example")))
    assert isinstance(alone, Bounced)
    assert str(alone.status) == "5.4.4"
