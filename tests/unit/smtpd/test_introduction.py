"""Connections of proxies: nothing happens before the header, and the client that it names is the client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_network

import pytest

from relay.log.events import ClientConnected, ClientDisconnected, Rejected, Warned
from relay.mail.names import IpAddress
from relay.smtpd import introduction
from tests.unit.smtpd.conftest import CertificateFiles
from tests.unit.smtpd.front_end import HOSTNAME, PATIENCE, Client, FrontEnd, front_end, options

PROXY = "127.0.0.9"
NETWORKS = (ip_network(f"{PROXY}/32"),)
GREETING = f"220 {HOSTNAME} ESMTP dane-relay"
HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 25\r\n"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"


@asynccontextmanager
async def behind(relay: FrontEnd, header: bytes, *, door: int = 0) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(*relay.server.addresses[door], local_addr=(PROXY, 0))
    writer.write(header)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


async def warned(relay: FrontEnd) -> str:
    return (await relay.seen(Warned)).text


async def test_the_client_is_the_one_that_the_header_names() -> None:
    settings = options(proxy_networks=NETWORKS, mynetworks=(ip_network("192.0.2.7/32"),))
    async with front_end(settings) as relay, behind(relay, HEADER + b"EHLO early"):
        connected = await relay.seen(ClientConnected)
        assert (str(connected.client), connected.client.port) == ("unknown[192.0.2.7]", 56324)
    async with front_end(settings) as relay, behind(relay, HEADER) as client:
        assert await client.reply() == GREETING
        await client.say("EHLO client.example")
        assert (await client.message(b"hello\r\n")).startswith("250")
        (content,) = relay.store.messages.values()
        assert content.startswith(b"Received: from client.example (unknown [192.0.2.7])\r\n")


@pytest.mark.parametrize("piece", [1, 5])
async def test_a_header_may_come_in_pieces(piece: int) -> None:
    async with front_end(options(proxy_networks=NETWORKS)) as relay, behind(relay, b"") as client:
        for start in range(0, len(HEADER), piece):
            client.writer.write(HEADER[start : start + piece])
            await client.writer.drain()
            await asyncio.sleep(0)
        assert await client.reply() == GREETING


async def test_its_networks_do_not_make_the_client_one_of_ours() -> None:
    settings = options(proxy_networks=NETWORKS)  # mynetworks has all of 127.0.0.0/8
    async with front_end(settings) as relay:
        for header, code in (
            (HEADER, "454"),
            (b"PROXY UNKNOWN\r\n", "454"),
            (LOCAL, "454"),
            (b"PROXY TCP4 127.0.0.1 192.0.2.1 1 25\r\n", "250"),
        ):
            async with behind(relay, header) as client:
                assert await client.reply() == GREETING
                await client.say("EHLO client.example")
                await client.say("MAIL FROM:<a@example.org>")
                assert (await client.say("RCPT TO:<b@example.net>")).startswith(code), header


async def test_what_is_no_header_gets_no_word() -> None:
    async with front_end(options(proxy_networks=NETWORKS)) as relay:
        async with behind(relay, b"EHLO client.example\r\nMAIL FROM:<a@example.org>\r\n") as client:
            assert await client.rest() == b""
        assert await warned(relay) == (
            f"PROXY protocol: connection from {PROXY} of [smtpd] proxy_protocol_networks dropped: "
            "it does not begin with a PROXY header"
        )
        assert not [event for event in relay.events if isinstance(event, ClientConnected)]


async def test_who_says_nothing_is_dropped_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # Long enough to read what was sent: who is cut off with something unread hears a reset.
    monkeypatch.setattr(introduction, "WAIT_SECONDS", 0.1)
    async with front_end(options(proxy_networks=NETWORKS)) as relay, behind(relay, b"PROXY ") as client:
        assert await client.rest() == b""
        assert "timeout" in await warned(relay)


@pytest.mark.parametrize("said", [b"", b"PROXY TCP4 ", LOCAL[:-1]])
async def test_who_goes_before_the_header_is_whole_was_not_here(said: bytes) -> None:
    async with front_end(options(proxy_networks=NETWORKS)) as relay:
        async with behind(relay, said) as client:
            client.writer.write_eof()
            assert await client.rest() == b""
        assert "lost connection" in await warned(relay)


async def test_a_second_header_is_a_bad_command() -> None:
    async with front_end(options(proxy_networks=NETWORKS)) as relay, behind(relay, HEADER) as client:
        assert await client.reply() == GREETING
        assert (await client.say(HEADER.removesuffix(b"\r\n"))).startswith("50")


async def test_from_any_other_network_a_header_is_a_bad_command() -> None:
    settings = options(proxy_networks=NETWORKS, forbid_unauth_pipelining=False)
    async with front_end(settings) as relay, relay.client(hello="") as client:
        client.writer.write(HEADER)
        assert await client.reply() == GREETING
        assert (await client.reply()).startswith("50")
        connected = await relay.seen(ClientConnected)
        assert str(connected.client.address) == "127.0.0.1"


async def test_behind_the_header_tls_may_come_at_once(certificate: CertificateFiles) -> None:
    settings = options(proxy_networks=NETWORKS, tls_cert_file=certificate.cert_file, tls_key_file=certificate.key_file)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with front_end(settings) as relay, behind(relay, HEADER, door=1) as client, asyncio.timeout(PATIENCE):
        await client.writer.start_tls(context)
        assert await client.reply() == GREETING
        await client.say("EHLO client.example")
        connected = await relay.seen(ClientConnected)
        assert str(connected.client.address) == "192.0.2.7"


async def test_limits_are_the_clients_not_the_proxys() -> None:
    settings = options(proxy_networks=NETWORKS, client_connection_count_limit=1, connection_limit=4)
    other = HEADER.replace(b"192.0.2.7", b"192.0.2.8")
    async with front_end(settings) as relay, behind(relay, HEADER) as first, behind(relay, other) as second:
        assert await first.reply() == GREETING
        assert await second.reply() == GREETING
        assert relay.server.sessions == 2
        async with behind(relay, HEADER) as third:
            assert "too many connections from 192.0.2.7" in await third.reply()
            assert (await relay.seen(Rejected)).reply.code == 421
        await first.say("QUIT")
        await relay.seen(ClientDisconnected, lambda event: "quit" in event.commands)


async def test_those_who_wait_for_a_header_count() -> None:
    async with (
        front_end(options(proxy_networks=NETWORKS, connection_limit=1)) as relay,
        behind(relay, b"PROXY ") as first,
        asyncio.timeout(PATIENCE),
    ):
        while not relay.server.sessions:
            await asyncio.sleep(0)
        async with behind(relay, b"") as second:
            assert await second.rest() == b""
        assert "too many connections" in await warned(relay)
        first.writer.write(HEADER.removeprefix(b"PROXY "))
        assert await first.reply() == GREETING


async def test_who_is_turned_away_costs_no_questions() -> None:
    asked = []

    async def name_of(address: IpAddress) -> str:
        asked.append(str(address))
        return "a.client.test"

    async with (
        front_end(options(proxy_networks=NETWORKS, connection_limit=1), name_of=name_of) as relay,
        behind(relay, HEADER) as first,
    ):
        assert await first.reply() == GREETING
        async with relay.client(hello="") as second:
            assert (await second.reply()).startswith("421")
        assert (await relay.seen(Rejected)).client.name == "localhost"
    assert asked == ["192.0.2.7"]


async def test_the_end_does_not_wait_for_a_header() -> None:
    async with front_end(options(proxy_networks=NETWORKS)) as relay, behind(relay, b"PROXY ") as client:
        async with asyncio.timeout(PATIENCE):
            while not relay.server.sessions:
                await asyncio.sleep(0)
            await relay.server.close(grace=PATIENCE)
        with suppress(ConnectionResetError):
            assert await client.rest() == b""
