"""Which addresses are tried, in which order, and which are our own."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from relay.delivery.gather import Gatherer, HostAddress, LookupTrouble
from relay.delivery.reach import Families, Ourselves, Preference, Reach
from relay.dns.answer import RRType
from relay.mail.names import Domain, IpLiteral
from tests.zone import Zone, ZoneResolver, a, found

MX = Domain("mx.example")
V4 = ["192.0.2.1", "192.0.2.2"]
V6 = ["2001:db8::1", "2001:db8::2", "2001:db8::3"]
ZONE: Zone = {
    (MX.name, RRType.A): found(MX.name, *map(a, V4)),
    (MX.name, RRType.AAAA): found(MX.name, *map(a, V6)),
}


async def addresses(reach: Reach, host: Domain | IpLiteral = MX) -> tuple[list[str], list[RRType]]:
    resolver = ZoneResolver(ZONE)
    got = await Gatherer(resolver, shuffle=lambda records: None, reach=reach).addresses(host)
    assert not isinstance(got, LookupTrouble), got
    assert all(isinstance(one, HostAddress) for one in got)
    return [str(one.address) for one in got], [rrtype for _, rrtype in resolver.asked]


@pytest.mark.parametrize(
    ("preference", "order"),
    [
        (Preference.ANY, [V6[0], V4[0], V6[1], V4[1], V6[2]]),
        (Preference.IPV4, V4 + V6),
        (Preference.IPV6, V6 + V4),
    ],
)
async def test_preference(preference: Preference, order: list[str]) -> None:
    assert (await addresses(Reach(preference=preference)))[0] == order


@pytest.mark.parametrize(
    ("families", "order", "asked"),
    [(Families.IPV4, V4, [RRType.A]), (Families.IPV6, V6, [RRType.AAAA])],
)
async def test_a_family_that_is_off_is_not_even_asked_for(
    families: Families, order: list[str], asked: list[RRType]
) -> None:
    assert await addresses(Reach(families=families)) == (order, asked)


async def test_a_host_of_the_other_family_only() -> None:
    resolver = ZoneResolver({key: answer for key, answer in ZONE.items() if key[1] is RRType.A})
    got = await Gatherer(resolver, shuffle=lambda records: None, reach=Reach(families=Families.IPV6)).addresses(MX)
    assert isinstance(got, LookupTrouble)
    assert "name=mx.example type=AAAA: Host not found" in got.text


async def test_a_literal_of_a_family_that_is_off_waits_for_a_better_configuration() -> None:
    literal = IpLiteral.parse("2001:db8::1")
    assert (await addresses(Reach(families=Families.IPV6), literal))[0] == ["2001:db8::1"]
    gatherer = Gatherer(ZoneResolver({}), shuffle=lambda records: None, reach=Reach(families=Families.IPV4))
    got = await gatherer.addresses(literal)
    assert isinstance(got, LookupTrouble)
    assert (str(got.status), got.text) == ("4.4.4", "[IPv6:2001:db8::1] is left out by inet_protocols = ipv4")


def test_endpoints_are_ours_at_their_port_only() -> None:
    ours = Ourselves(endpoints=frozenset({(ip_address("192.0.2.1"), 25)}))
    assert ours.take_mail_at(ip_address("192.0.2.1"), 25)
    assert not ours.take_mail_at(ip_address("192.0.2.1"), 26)
    assert not ours.take_mail_at(ip_address("192.0.2.2"), 25)
    assert ours.listen_at(25)
    assert not ours.listen_at(26)


def test_who_listens_everywhere_is_at_each_address_of_the_machine() -> None:
    ours = Ourselves(everywhere=frozenset({(4, 25)}), is_local=lambda address: str(address) in {"192.0.2.1", "::1"})
    assert ours.take_mail_at(ip_address("192.0.2.1"), 25)
    assert not ours.take_mail_at(ip_address("192.0.2.2"), 25)
    assert not ours.take_mail_at(ip_address("::1"), 25)
    assert not ours.take_mail_at(ip_address("192.0.2.1"), 26)
    assert ours.listen_at(25)


def test_names_are_ours_at_the_usual_port_only() -> None:
    ours = Ourselves(names=frozenset({MX}), port=25)
    assert ours.has_name(MX, 25)
    assert not ours.has_name(MX, 10025)
    assert not ours.has_name(Domain("other.example"), 25)
