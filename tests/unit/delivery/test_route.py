"""Routes: what stands above what, what the queue keeps together, and what ends without a next-hop."""

from __future__ import annotations

import pytest

from relay.delivery.route import Ends, Router
from relay.mail.envelope import NULL_SENDER, Address, Recipient, RecipientId
from relay.mail.names import Domain, NextHop
from relay.outcome.result import Bounced, Deferred, Sent
from relay.routing.relayhosts import SenderTables, parse_relayhosts
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


SENDER = Address("joe@client.test", Domain("client.test"))
UNAVAILABLE = "mail transport unavailable: expected one of the transports "


def router(*relay_hosts: str, transport: str = TRANSPORT, senders: str = "") -> Router:
    return Router(
        relay_hosts=tuple(NextHop.parse(host, default_port=24) for host in relay_hosts),
        port=24,
        transports=TransportTables((parse_transport(transport, "conf/transport", port=24),)),
        senders=SenderTables((parse_relayhosts(senders, "conf/senders", port=24),)),
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
    assert router().destination(to(domain), SENDER) == alone
    assert router("[smart.example]").destination(to(domain), SENDER) == behind_relayhost


def test_ports() -> None:
    assert [hop.port for hop in router().route(to("routed.example"), SENDER)] == [2525, 24]
    assert [hop.port for hop in router().route(to("direct.example"), SENDER)] == [24]


def test_only_relayhost_is_ours_to_keep_in_order() -> None:
    smart = router("[smart.example]")
    assert all(map(smart.is_configured, smart.route(to("other.example"), SENDER)))
    assert not any(map(smart.is_configured, smart.route(to("routed.example"), SENDER)))


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
    route = router("[smart.example]").route(to(domain), SENDER)
    assert isinstance(route, Ends)
    assert isinstance(route.result, kind)
    assert (str(route.result.status), route.result.reason) == (status, reason)
    assert list(route) == []
    assert router("[smart.example]").destination(to(domain), SENDER) == key


def test_what_is_thrown_away_is_never_reported_as_relayed() -> None:
    route = router().route(to("thrown.example"), SENDER)
    assert isinstance(route, Ends)
    assert isinstance(route.result, Sent)
    assert route.result.dsn_passed_on


def test_recipients_of_one_route_stay_together() -> None:
    domains = ("routed.example", "refused.example", "other.example", "routed.example", "refused.example")
    people = [Recipient(id=RecipientId(n), address=to(domain)) for n, domain in enumerate(domains)]
    assert [[int(one.id) for one in some] for some in router().group(people, SENDER).values()] == [[0, 3], [1, 4], [2]]


def test_a_text_of_many_lines_is_one_line() -> None:
    route = router(transport="a.example error:no\n  way\x07\n").route(to("a.example"), SENDER)
    assert isinstance(route, Ends)
    assert route.result.reason == "no  way?; rule conf/transport:1"


SENDERS = """\
joe@client.test    [joes.example]:587, spare.example
@client.test       [all.example]
ann@client.test    DUNNO
<>                 [reports.example]
@broken.test       [half.example
"""


@pytest.mark.parametrize(
    ("sender", "domain", "alone", "behind_relayhost"),
    [
        ("joe@client.test", "other.example", "[joes.example]:587, spare.example", "[joes.example]:587, spare.example"),
        ("Joe@Client.test", "other.example", "[joes.example]:587, spare.example", "[joes.example]:587, spare.example"),
        ("bob@client.test", "other.example", "[all.example]", "[all.example]"),
        ("ann@client.test", "other.example", "other.example", "[smart.example]"),
        ("joe@deep.client.test", "other.example", "other.example", "[smart.example]"),
        ("", "other.example", "[reports.example]", "[reports.example]"),
        (
            "joe@client.test",
            "as-ever.example",
            "[joes.example]:587, spare.example",
            "[joes.example]:587, spare.example",
        ),
        ("joe@client.test", "direct.example", "direct.example", "direct.example"),
        ("joe@client.test", "routed.example", "[in.example]:2525, backup.example", "[in.example]:2525, backup.example"),
    ],
)
def test_senders_stand_between_transport_maps_and_relayhost(
    sender: str, domain: str, alone: str, behind_relayhost: str
) -> None:
    envelope_sender = Address(sender, Domain.parse(sender.partition("@")[2])) if sender else NULL_SENDER
    assert router(senders=SENDERS).destination(to(domain), envelope_sender) == alone
    assert router("[smart.example]", senders=SENDERS).destination(to(domain), envelope_sender) == behind_relayhost


def test_mail_of_a_sender_whose_line_nobody_understands_waits() -> None:
    route = router("[smart.example]", senders=SENDERS).route(
        to("other.example"), Address("joe@broken.test", Domain("broken.test"))
    )
    assert isinstance(route, Ends)
    assert isinstance(route.result, Deferred)
    assert route.result.reason.startswith("mail transport unavailable: expected domain, domain:port, [host] or")
    assert route.result.reason.endswith("; rule conf/senders:5")
