"""The AD resolver against name servers on loopback that we script, over UDP and TCP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from relay.dns.ad import AdResolver, NameServer, is_trusted
from relay.dns.answer import Found, LookupFailed, LookupFault, RRType
from relay.mail.names import Domain

Respond = Callable[[dns.message.Message, bool], bytes | None]
NAME = Domain("mx.example")


@asynccontextmanager
async def nameserver(respond: Respond, *, trusted: bool = True) -> AsyncIterator[NameServer]:
    """Serve one port over UDP and TCP; ``respond`` gets the query and whether it came over TCP."""
    loop = asyncio.get_running_loop()

    async def over_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        answer = respond(dns.message.from_wire(wire), True)
        if answer is not None:
            writer.write(len(answer).to_bytes(2, "big") + answer)
        writer.close()

    class OverUdp(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast("asyncio.DatagramTransport", transport)

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            answer = respond(dns.message.from_wire(data), False)
            if answer is not None:
                self.transport.sendto(answer, addr)

    server = await asyncio.start_server(over_tcp, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport, _ = await loop.create_datagram_endpoint(OverUdp, local_addr=("127.0.0.1", port))
    try:
        yield NameServer(ip_address("127.0.0.1"), port, trusted=trusted)
    finally:
        transport.close()
        server.close()
        await server.wait_closed()


def addresses(query: dns.message.Message, count: int = 1) -> dns.message.Message:
    response = dns.message.make_response(query)
    response.flags |= dns.flags.AD
    values = [f"192.0.2.{n}" for n in range(1, count + 1)]
    response.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", *values))
    return response


def failing(rcode: dns.rcode.Rcode) -> Respond:
    def respond(query: dns.message.Message, over_tcp: bool) -> bytes:
        response = dns.message.make_response(query)
        response.set_rcode(rcode)
        return response.to_wire()

    return respond


async def test_answer_over_udp() -> None:
    async with nameserver(lambda query, over_tcp: addresses(query).to_wire()) as server:
        answer = await AdResolver([server], timeout=5).query(NAME, RRType.A)
    assert answer == Found(canonical=NAME, rdata=(bytes([192, 0, 2, 1]),), secure=True, ttl=60)


async def test_untrusted_server_is_never_secure() -> None:
    async with nameserver(lambda query, over_tcp: addresses(query).to_wire(), trusted=False) as server:
        answer = await AdResolver([server], timeout=5).query(NAME, RRType.A)
    assert isinstance(answer, Found)
    assert not answer.secure


async def test_truncated_answer_is_asked_again_over_tcp() -> None:
    def respond(query: dns.message.Message, over_tcp: bool) -> bytes:
        if over_tcp:
            return addresses(query, 200).to_wire(max_size=65535)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.TC
        return response.to_wire()

    async with nameserver(respond) as server:
        answer = await AdResolver([server], timeout=5).query(NAME, RRType.A)
    assert isinstance(answer, Found)
    assert len(answer.rdata) == 200


async def test_silence_is_a_timeout() -> None:
    async with nameserver(lambda query, over_tcp: None) as server:
        answer = await AdResolver([server], timeout=0.1).query(NAME, RRType.A)
    assert isinstance(answer, LookupFailed)
    assert answer.fault is LookupFault.TIMEOUT
    assert str(server) in answer.why


async def test_forged_responses_are_passed_over_and_the_true_one_counts() -> None:
    """A packet with another id must neither answer nor end the wait."""

    class Forger(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast("asyncio.DatagramTransport", transport)

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            query = dns.message.from_wire(data)
            true = addresses(query).to_wire()
            self.transport.sendto(bytes([true[0] ^ 1]) + true[1:], addr)
            self.transport.sendto(true, addr)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Forger, local_addr=("127.0.0.1", 0))
    server = NameServer(ip_address("127.0.0.1"), transport.get_extra_info("sockname")[1], trusted=True)
    answer = await AdResolver([server], timeout=5).query(NAME, RRType.A)
    transport.close()
    assert isinstance(answer, Found)


async def test_second_server_answers_for_a_failing_first() -> None:
    async with (
        nameserver(failing(dns.rcode.SERVFAIL)) as broken,
        nameserver(lambda query, over_tcp: addresses(query).to_wire()) as working,
    ):
        answer = await AdResolver([broken, working], timeout=5).query(NAME, RRType.A)
    assert isinstance(answer, Found)


async def test_what_a_server_said_outweighs_anothers_silence() -> None:
    async with (
        nameserver(failing(dns.rcode.REFUSED)) as refusing,
        nameserver(lambda query, over_tcp: None) as silent,
    ):
        answer = await AdResolver([refusing, silent], timeout=0.4).query(NAME, RRType.A)
    assert isinstance(answer, LookupFailed)
    assert answer.fault is LookupFault.REFUSED


async def test_closed_port_fails_without_waiting_for_the_deadline() -> None:
    async with nameserver(lambda query, over_tcp: None) as server:
        pass
    async with asyncio.timeout(30):
        answer = await AdResolver([server], timeout=600).query(NAME, RRType.A)
    assert isinstance(answer, LookupFailed)


@pytest.mark.parametrize(
    ("address", "listed", "trusted"),
    [
        ("127.0.0.1", [], True),
        ("::1", [], True),
        ("127.0.0.53", [], False),
        ("127.0.0.11", [], False),
        ("127.0.0.11", ["127.0.0.11"], True),
        ("192.0.2.53", [], False),
        ("192.0.2.53", ["192.0.2.53"], True),
    ],
)
def test_whose_ad_bit_counts(address: str, listed: list[str], trusted: bool) -> None:
    assert is_trusted(ip_address(address), [ip_address(a) for a in listed]) is trusted


def test_no_server_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"dns\.nameservers"):
        AdResolver([], timeout=1)
