"""From next-hops to hosts, addresses and TLSA records: RFC 7672 section 2.2 and postfix tls_dane_resolve, row by row."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from relay.dane.tlsa import Absent, Failed, NotLookedUp, Unusable, Usable
from relay.delivery.gather import Destination, Gatherer, HostAddress, LookupTrouble
from relay.dns.answer import Answer, Bogus, LookupFailed, LookupFault, NoData, NxDomain, RRType
from relay.mail.names import Domain, IpLiteral, NextHop
from tests.zone import Zone, ZoneResolver, a, found, mx_rdata, name_rdata, tlsa_rdata

MX_HOST = Domain("mx.example")
EXPANDED = Domain("real.example")
TLSA_311 = tlsa_rdata(3, 1, 1, b"x" * 32)
SERVFAIL = LookupFailed(LookupFault.SERVFAIL, "SERVFAIL")


def gatherer(zone: Zone) -> tuple[Gatherer, ZoneResolver]:
    resolver = ZoneResolver(zone)
    return Gatherer(resolver, shuffle=lambda records: records.reverse()), resolver


def hop(text: str) -> NextHop:
    return NextHop.parse(text, default_port=25)


async def destination(zone: Zone, text: str = "example") -> Destination | LookupTrouble:
    return await gatherer(zone)[0].destination(hop(text))


async def test_hosts_by_preference_equal_ones_shuffled() -> None:
    rdata = [mx_rdata(20, "c.example"), mx_rdata(10, "a.example"), mx_rdata(10, "b.example")]
    got = await destination({("example", RRType.MX): found("example", *rdata)})
    assert isinstance(got, Destination)
    assert [str(host) for host in got.hosts] == ["b.example", "a.example", "c.example"]
    assert got.had_mx
    assert got.mx_secure
    assert got.expanded is None


async def test_alias_of_the_next_hop_domain_is_remembered() -> None:
    got = await destination(
        {("example", RRType.MX): found("example", mx_rdata(10, "mx.example"), canonical="other.example", secure=False)}
    )
    assert isinstance(got, Destination)
    assert got.expanded == Domain("other.example")
    assert not got.mx_secure


@pytest.mark.parametrize("denial", [NoData, NxDomain])
async def test_implicit_mx(denial: type[NoData | NxDomain]) -> None:
    got = await destination({("example", RRType.MX): denial(canonical=Domain("example"), secure=False, ttl=1)})
    assert isinstance(got, Destination)
    assert got.hosts == (Domain("example"),)
    assert not got.had_mx
    assert got.mx_secure


@pytest.mark.parametrize("text", ["[mx.example]", "[mx.example]:587", "[192.0.2.1]"])
async def test_brackets_ask_for_no_mx(text: str) -> None:
    gather, resolver = gatherer({})
    got = await gather.destination(hop(text))
    assert isinstance(got, Destination)
    assert resolver.asked == []
    assert not got.had_mx


async def test_null_mx_bounces() -> None:
    got = await destination({("example", RRType.MX): found("example", b"\0\0\0")})
    assert isinstance(got, LookupTrouble)
    assert (str(got.status), got.text) == ("5.1.0", "Domain example does not accept mail (nullMX)")


@pytest.mark.parametrize("failure", [SERVFAIL, Bogus("signature expired")])
async def test_mx_failure_defers_and_never_guesses(failure: Answer) -> None:
    got = await destination({("example", RRType.MX): failure, ("example", RRType.A): found("example", a("192.0.2.1"))})
    assert isinstance(got, LookupTrouble)
    assert str(got.status) == "4.4.3"
    assert got.text.startswith(
        "Host or domain name not found. Name service error for name=example type=MX: Host not found, try again"
    )


async def test_malformed_mx_records_defer() -> None:
    got = await destination({("example", RRType.MX): found("example", b"\0\x0a\x03a b\0", b"\0")})
    assert isinstance(got, LookupTrouble)
    assert got.status.klass == 4


async def addresses(zone: Zone, host: Domain | IpLiteral = MX_HOST) -> object:
    return await gatherer(zone)[0].addresses(host)


async def test_addresses_keep_the_status_of_their_own_answer() -> None:
    got = await addresses(
        {
            ("mx.example", RRType.A): found("mx.example", a("192.0.2.1"), secure=False),
            ("mx.example", RRType.AAAA): found("mx.example", a("2001:db8::1")),
        }
    )
    assert got == (
        HostAddress(ip_address("2001:db8::1"), secure=True, canonical=MX_HOST),
        HostAddress(ip_address("192.0.2.1"), secure=False, canonical=MX_HOST),
    )


async def test_one_family_failing_leaves_the_other() -> None:
    got = await addresses(
        {("mx.example", RRType.A): found("mx.example", a("192.0.2.1")), ("mx.example", RRType.AAAA): SERVFAIL}
    )
    assert isinstance(got, tuple)
    assert len(got) == 1


@pytest.mark.parametrize(
    ("v4", "v6", "status", "end"),
    [
        (NxDomain(canonical=MX_HOST, secure=True, ttl=1), None, "5.4.4", "type=A: Host not found"),
        (
            NoData(canonical=MX_HOST, secure=True, ttl=1),
            None,
            "5.4.4",
            "type=A: Host found but no data record of requested type",
        ),
        (NoData(canonical=MX_HOST, secure=True, ttl=1), SERVFAIL, "4.4.3", "found SERVFAIL"),
    ],
)
async def test_no_address(v4: Answer, v6: Answer | None, status: str, end: str) -> None:
    zone = {("mx.example", RRType.A): v4}
    if v6 is not None:
        zone["mx.example", RRType.AAAA] = v6
    got = await addresses(zone)
    assert isinstance(got, LookupTrouble)
    assert str(got.status) == status
    assert got.text.endswith(end)


def at(*, secure: bool = True, canonical: Domain = MX_HOST) -> HostAddress:
    return HostAddress(ip_address("192.0.2.1"), secure=secure, canonical=canonical)


async def test_secure_host_tlsa_at_its_name_and_real_port() -> None:
    gather, resolver = gatherer({("_2525._tcp.mx.example", RRType.TLSA): found("_2525._tcp.mx.example", TLSA_311)})
    got = await gather.tlsa(MX_HOST, 2525, at())
    assert isinstance(got, Usable)
    assert got.base == MX_HOST
    assert resolver.asked == [("_2525._tcp.mx.example", RRType.TLSA)]


async def test_insecure_host_is_not_asked_for_tlsa() -> None:
    gather, resolver = gatherer({})
    assert isinstance(await gather.tlsa(MX_HOST, 25, at(secure=False)), NotLookedUp)
    assert resolver.asked == []


async def test_secure_alias_expanded_name_first_then_the_original() -> None:
    zone = {("_25._tcp.mx.example", RRType.TLSA): found("_25._tcp.mx.example", TLSA_311)}
    gather, resolver = gatherer(zone)
    got = await gather.tlsa(MX_HOST, 25, at(canonical=EXPANDED))
    assert isinstance(got, Usable)
    assert got.base == MX_HOST
    assert [name for name, _ in resolver.asked] == ["_25._tcp.real.example", "_25._tcp.mx.example"]


async def test_secure_alias_with_records_at_the_expanded_name_stays_there() -> None:
    zone = {("_25._tcp.real.example", RRType.TLSA): found("_25._tcp.real.example", TLSA_311)}
    got = await gatherer(zone)[0].tlsa(MX_HOST, 25, at(canonical=EXPANDED))
    assert isinstance(got, Usable)
    assert got.base == EXPANDED


async def test_failure_at_the_expanded_name_is_final() -> None:
    gather, resolver = gatherer({("_25._tcp.real.example", RRType.TLSA): SERVFAIL})
    assert isinstance(await gather.tlsa(MX_HOST, 25, at(canonical=EXPANDED)), Failed)
    assert len(resolver.asked) == 1


@pytest.mark.parametrize(
    ("cname", "kind"),
    [
        (found("mx.example", name_rdata("real.example")), Usable),
        (found("mx.example", name_rdata("real.example"), secure=False), NotLookedUp),
        (SERVFAIL, Failed),
        (Bogus("bad signature"), Failed),
        (NoData(canonical=MX_HOST, secure=True, ttl=1), Failed),
    ],
)
async def test_insecure_alias_its_own_status_decides(cname: Answer, kind: type) -> None:
    zone = {
        ("mx.example", RRType.CNAME): cname,
        ("_25._tcp.mx.example", RRType.TLSA): found("_25._tcp.mx.example", TLSA_311),
    }
    assert isinstance(await gatherer(zone)[0].tlsa(MX_HOST, 25, at(secure=False, canonical=EXPANDED)), kind)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (NoData(canonical=MX_HOST, secure=True, ttl=1), Absent),
        (NxDomain(canonical=MX_HOST, secure=False, ttl=1), Absent),
        (found("x", TLSA_311, secure=False), Absent),
        (found("x", tlsa_rdata(1, 1, 1, b"x" * 32)), Unusable),
        (found("x", tlsa_rdata(3, 1, 1, b"short")), Unusable),
        (found("x", b"\3\1", TLSA_311), Usable),
        (SERVFAIL, Failed),
        (LookupFailed(LookupFault.TIMEOUT, "no answer"), Failed),
        (LookupFailed(LookupFault.MALFORMED, "malformed"), Failed),
        (Bogus("expired"), Failed),
    ],
)
async def test_tlsa_answers(answer: Answer, kind: type) -> None:
    zone = {("_25._tcp.mx.example", RRType.TLSA): answer}
    assert isinstance(await gatherer(zone)[0].tlsa(MX_HOST, 25, at()), kind)


async def test_literals_have_no_dane() -> None:
    literal = IpLiteral(ip_address("192.0.2.1"))
    gather, resolver = gatherer({})
    [address] = await gather.addresses(literal)  # type: ignore[misc]  # a literal always has its one address
    assert isinstance(await gather.tlsa(literal, 25, address), NotLookedUp)
    assert resolver.asked == []
