"""Routes: what stands above what, what the queue keeps together, and what ends without a next-hop."""

from __future__ import annotations

import pytest

from relay.delivery.route import Ends, Router
from relay.mail.envelope import Address, Recipient, RecipientId
from relay.mail.names import Domain, NextHop
from relay.outcome.result import Bounced, Deferred, Sent
from relay.routing.transport import TransportTables, parse_transport

TRANSPORT = """\
routed.example     smtp:[in.example]:2525, backup.example
direct.example     smtp:
as-ever.example    :
refused.example    error:5.1.2 no such place
domain.example     error:
waiting.example    retry:4.2.1 come back
thrown.example     discard:into the bin
broken.example     lmtp:x
"""


UNAVAILABLE = "mail transport unavailable: expected one of the transports "


def router(*relay_hosts: str, transport: str = TRANSPORT) -> Router:
    return Router(
        relay_hosts=tuple(NextHop.parse(host, default_port=24) for host in relay_hosts),
        port=24,
        transports=TransportTables((parse_transport(transport, "conf/transport", port=24),)),
    )


def to(domain: str) -> Address:
    return Address(f"ann@{domain}", Domain(domain))


@pytest.mark.parametrize(
    ("domain", "alone", "behind_relayhost"),
    [
        ("routed.example", "[in.example]:2525, backup.example", "[in.example]:2525, backup.example"),
        ("direct.example", "direct.example", "direct.example"),
        ("as-ever.example", "as-ever.example", "[smart.example]"),
        ("other.example", "other.example", "[smart.example]"),
    ],
)
def test_transport_maps_stand_above_relayhost(domain: str, alone: str, behind_relayhost: str) -> None:
    assert router().destination(to(domain)) == alone
    assert router("[smart.example]").destination(to(domain)) == behind_relayhost


def test_ports() -> None:
    assert [hop.port for hop in router().route(to("routed.example"))] == [2525, 24]
    assert [hop.port for hop in router().route(to("direct.example"))] == [24]


def test_only_relayhost_is_ours_to_keep_in_order() -> None:
    smart = router("[smart.example]")
    assert all(map(smart.is_configured, smart.route(to("other.example"))))
    assert not any(map(smart.is_configured, smart.route(to("routed.example"))))


@pytest.mark.parametrize(
    ("domain", "kind", "status", "reason", "key"),
    [
        ("refused.example", Bounced, "5.1.2", "no such place; rule conf/transport:4", "error conf/transport:4"),
        ("domain.example", Bounced, "5.0.0", "domain.example; rule conf/transport:5", "error conf/transport:5"),
        ("waiting.example", Deferred, "4.2.1", "come back; rule conf/transport:6", "retry conf/transport:6"),
        ("thrown.example", Sent, "2.0.0", "into the bin", "discard conf/transport:7"),
        (
            "broken.example",
            Deferred,
            "4.3.5",
            f'{UNAVAILABLE}smtp, relay, error, retry, discard; found "lmtp:x"; rule conf/transport:8',
            "retry conf/transport:8",
        ),
    ],
)
def test_routes_that_end(domain: str, kind: type, status: str, reason: str, key: str) -> None:
    route = router("[smart.example]").route(to(domain))
    assert isinstance(route, Ends)
    assert isinstance(route.result, kind)
    assert (str(route.result.status), route.result.reason) == (status, reason)
    assert list(route) == []
    assert router("[smart.example]").destination(to(domain)) == key


def test_what_is_thrown_away_is_never_reported_as_relayed() -> None:
    route = router().route(to("thrown.example"))
    assert isinstance(route, Ends)
    assert isinstance(route.result, Sent)
    assert route.result.dsn_passed_on


def test_recipients_of_one_route_stay_together() -> None:
    domains = ("routed.example", "refused.example", "other.example", "routed.example", "refused.example")
    people = [Recipient(id=RecipientId(n), address=to(domain)) for n, domain in enumerate(domains)]
    assert [[int(one.id) for one in some] for some in router().group(people).values()] == [[0, 3], [1, 4], [2]]


def test_a_text_of_many_lines_is_one_line() -> None:
    route = router(transport="a.example error:no\n  way\x07\n").route(to("a.example"))
    assert isinstance(route, Ends)
    assert route.result.reason == "no  way?; rule conf/transport:1"
