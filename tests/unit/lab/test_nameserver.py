"""The lab's name server, asked by dnspython over UDP and TCP as a stub resolver would."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import dns.asyncquery
import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.lab.nameserver import Fault, NameServer, Query, Trust, Zone, asked

DEADLINE = 10.0
LONG_TXT = tuple(f'"{"x" * 200}{number}"' for number in range(20))
ZONES = (
    Zone(".", Trust.SECURE, {(".", "NS"): ("ns.lab.test.",)}),
    Zone(
        "good.test.",
        Trust.SECURE,
        {
            ("good.test.", "MX"): ("10 mx.good.test.", "20 mx2.good.test."),
            ("mx.good.test.", "A"): ("127.0.0.11",),
            ("_25._tcp.mx.good.test.", "TLSA"): (f"3 1 1 {'ab' * 32}",),
            ("alias.good.test.", "CNAME"): ("MX.good.test.",),
            ("out.good.test.", "CNAME"): ("mx.unsigned.test.",),
            ("to-bogus.good.test.", "CNAME"): ("mx.bogus.test.",),
            ("loop.good.test.", "CNAME"): ("loop.good.test.",),
            ("long.good.test.", "TXT"): LONG_TXT,
            ("null.good.test.", "MX"): ("0 .",),
        },
        {
            ("_26._tcp.mx.good.test.", "TLSA"): Fault.SERVFAIL,
            ("_27._tcp.mx.good.test.", "TLSA"): Fault.SILENCE,
            ("_28._tcp.mx.good.test.", "TLSA"): Fault.GARBAGE,
            ("_29._tcp.mx.good.test.", "TLSA"): Fault.REFUSED,
        },
    ),
    Zone(
        "unsigned.test.",
        Trust.INSECURE,
        {("mx.unsigned.test.", "A"): ("127.0.0.12",), ("in.unsigned.test.", "CNAME"): ("mx.good.test.",)},
    ),
    Zone("bogus.test.", Trust.BOGUS, {("mx.bogus.test.", "A"): ("127.0.0.13",)}),
)


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    nameserver = NameServer(ZONES)
    await nameserver.start()
    yield nameserver
    await nameserver.stop()


async def ask(
    server: NameServer,
    name: str,
    rrtype: str,
    *,
    ad: bool = True,
    do: bool = False,
    tcp: bool = False,
    cd: bool = False,
) -> dns.message.Message:
    query = dns.message.make_query(name, rrtype, use_edns=0, want_dnssec=do, payload=1232)
    query.flags |= (dns.flags.AD if ad else 0) | (dns.flags.CD if cd else 0)
    host, port = server.address
    over = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return await over(query, host, timeout=DEADLINE, port=port)


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize(
    ("name", "rrtype", "rcode", "secure", "records"),
    [
        (".", "NS", dns.rcode.NOERROR, True, 1),
        ("good.test.", "MX", dns.rcode.NOERROR, True, 2),
        ("GOOD.TEST.", "MX", dns.rcode.NOERROR, True, 2),
        ("null.good.test.", "MX", dns.rcode.NOERROR, True, 1),
        ("_25._tcp.mx.good.test.", "TLSA", dns.rcode.NOERROR, True, 1),
        ("mx.good.test.", "AAAA", dns.rcode.NOERROR, True, 0),
        ("_tcp.mx.good.test.", "A", dns.rcode.NOERROR, True, 0),
        ("nobody.good.test.", "A", dns.rcode.NXDOMAIN, True, 0),
        ("mx.unsigned.test.", "A", dns.rcode.NOERROR, False, 1),
        ("nobody.unsigned.test.", "A", dns.rcode.NXDOMAIN, False, 0),
        ("alias.good.test.", "A", dns.rcode.NOERROR, True, 2),
        ("alias.good.test.", "CNAME", dns.rcode.NOERROR, True, 1),
        ("out.good.test.", "A", dns.rcode.NOERROR, False, 2),
        ("in.unsigned.test.", "A", dns.rcode.NOERROR, False, 2),
        ("mx.bogus.test.", "A", dns.rcode.SERVFAIL, False, 0),
        ("to-bogus.good.test.", "A", dns.rcode.SERVFAIL, False, 0),
        ("loop.good.test.", "A", dns.rcode.SERVFAIL, False, 0),
        ("_26._tcp.mx.good.test.", "TLSA", dns.rcode.SERVFAIL, False, 0),
        ("_29._tcp.mx.good.test.", "TLSA", dns.rcode.REFUSED, False, 0),
        ("nowhere.example.", "A", dns.rcode.NXDOMAIN, True, 0),
    ],
)
async def test_answers(
    server: NameServer, *, name: str, rrtype: str, rcode: dns.rcode.Rcode, secure: bool, records: int, tcp: bool
) -> None:
    response = await ask(server, name, rrtype, tcp=tcp)
    assert response.rcode() == rcode
    assert bool(response.flags & dns.flags.AD) is secure
    assert sum(map(len, response.answer)) == records
    negative = not records and rcode in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
    assert len(response.authority) == (1 if negative else 0)  # the SOA
    assert (
        list(server.queries) == [Query(name.lower().rstrip(".") or "@", rrtype, dns.rcode.to_text(rcode), secure, tcp)]
        or name == "."
    )


@pytest.mark.parametrize(("ad", "do", "secure"), [(True, False, True), (False, True, True), (False, False, False)])
async def test_ad_is_set_only_for_those_who_understand_it(server: NameServer, ad: bool, do: bool, secure: bool) -> None:
    response = await ask(server, "good.test.", "MX", ad=ad, do=do)
    assert bool(response.flags & dns.flags.AD) is secure


async def test_bogus_says_why_and_gives_the_data_to_who_checks_for_himself(server: NameServer) -> None:
    refused = await ask(server, "mx.bogus.test.", "A")
    (error,) = refused.extended_errors()
    assert error.code == dns.edns.EDECode.SIGNATURE_EXPIRED
    assert "mx.bogus.test. A IN" in (error.text or "")
    unchecked = await ask(server, "mx.bogus.test.", "A", cd=True)
    assert unchecked.answer
    assert not unchecked.flags & dns.flags.AD


async def test_a_long_answer_is_truncated_over_udp_and_whole_over_tcp(server: NameServer) -> None:
    short = await ask(server, "long.good.test.", "TXT")
    assert short.flags & dns.flags.TC
    whole = await ask(server, "long.good.test.", "TXT", tcp=True)
    assert sum(map(len, whole.answer)) == len(LONG_TXT)


async def test_several_questions_on_one_tcp_connection(server: NameServer) -> None:
    reader, writer = await asyncio.open_connection(*server.address)
    for name in ("good.test.", "mx.good.test."):
        wire = dns.message.make_query(name, "MX").to_wire()
        writer.write(len(wire).to_bytes(2, "big") + wire)
    for _ in range(2):
        async with asyncio.timeout(DEADLINE):
            length = int.from_bytes(await reader.readexactly(2), "big")
            assert dns.message.from_wire(await reader.readexactly(length)).rcode() == dns.rcode.NOERROR
    writer.close()
    await writer.wait_closed()


def test_silence_and_garbage() -> None:
    server = NameServer(ZONES)
    assert server.respond(dns.message.make_query("_27._tcp.mx.good.test.", "TLSA").to_wire()) is None
    garbage = server.respond(dns.message.make_query("_28._tcp.mx.good.test.", "TLSA").to_wire())
    assert garbage is not None
    with pytest.raises(dns.exception.DNSException):
        dns.message.from_wire(garbage)
    assert [query.rcode for query in server.queries] == ["", ""]
    assert asked(server.queries, "_27._tcp.mx.good.test", "TLSA")
    assert not asked(server.queries, "_27._tcp.mx.good.test", "A")


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=600))
def test_garbage_never_raises(packet: bytes) -> None:
    NameServer(ZONES).respond(packet)


@given(st.data())
def test_damaged_queries_never_raise(data: st.DataObject) -> None:
    packet = bytearray(dns.message.make_query("_25._tcp.mx.good.test.", "TLSA", use_edns=0, want_dnssec=True).to_wire())
    for _ in range(data.draw(st.integers(1, 6))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    NameServer(ZONES).respond(bytes(packet[: data.draw(st.integers(0, len(packet)))]))


async def test_it_goes_on_after_garbage(server: NameServer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(server.address)
        for packet in (b"", b"\0", b"\xff" * 40, b"\0" * 12):
            sock.send(packet)
    response = await ask(server, "good.test.", "MX")
    assert response.answer


def test_a_lab_without_a_root_is_refused() -> None:
    with pytest.raises(ValueError, match="root zone"):
        NameServer([Zone("test.", Trust.SECURE)])
