"""TLS from the first octet on: the session is encrypted before anything is said."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from relay.log.events import ClientLost, Noted, Rejected
from relay.mail.names import IpAddress
from relay.smtpd.wrapped import Hello
from tests.unit.smtpd.conftest import CertificateFiles
from tests.unit.smtpd.front_end import HOSTNAME, PATIENCE, Client, FrontEnd, front_end, options


@asynccontextmanager
async def door(certificate: CertificateFiles, **changes: object) -> AsyncIterator[FrontEnd]:
    settings = options(tls_cert_file=certificate.cert_file, tls_key_file=certificate.key_file, **changes)
    async with front_end(settings) as relay:
        yield relay


@asynccontextmanager
async def wrapped(relay: FrontEnd) -> AsyncIterator[Client]:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(*relay.server.addresses[1], ssl=context)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


@asynccontextmanager
async def bare(relay: FrontEnd) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(*relay.server.addresses[1])
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


async def test_a_message(certificate: CertificateFiles) -> None:
    async with door(certificate, tls_required=True) as relay, wrapped(relay) as client:
        assert await client.reply() == f"220 {HOSTNAME} ESMTP dane-relay"
        assert "STARTTLS" not in await client.say("EHLO client.example")
        assert await client.say("STARTTLS") == "554 5.5.1 Error: TLS already active"
        assert (await client.message(b"secret\r\n" * 50_000)).startswith("250 2.0.0 Ok: queued")
        assert await client.say("QUIT") == "221 2.0.0 Bye"
        assert await client.rest() == b""
        assert relay.store.puts[0].envelope.client.tls.protocol == "TLSv1.3"
        assert relay.store.contents == [b"secret\r\n" * 50_000]
        noted = await relay.seen(Noted)
        assert noted.text.startswith("Anonymous TLS connection established from localhost[127.0.0.1]: TLSv1.3 with")


async def test_octets_that_come_before_tls_can_begin_belong_to_it(
    certificate: CertificateFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    came = asyncio.Event()
    keep = Hello.keep

    def kept(self: Hello, octets: bytes, transport: asyncio.BaseTransport | None) -> None:
        keep(self, octets, transport)
        came.set()

    async def slow(address: IpAddress) -> str:
        await came.wait()
        return "localhost"

    monkeypatch.setattr(Hello, "keep", kept)
    settings = options(tls_cert_file=certificate.cert_file, tls_key_file=certificate.key_file)
    async with front_end(settings, name_of=slow) as relay, asyncio.timeout(PATIENCE), wrapped(relay) as client:
        assert await client.reply() == f"220 {HOSTNAME} ESMTP dane-relay"


@pytest.mark.parametrize(
    "said", [b"EHLO client.example\r\n", b"MAIL FROM:<a@example.org>\r\n" * 50, b"\x16\x03\x01\xff\xff"]
)
async def test_nothing_is_said_or_taken_in_the_clear(certificate: CertificateFiles, said: bytes) -> None:
    async with door(certificate) as relay, bare(relay) as client:
        client.writer.write(said)
        client.writer.write_eof()
        assert b"220" not in await client.rest()
        lost = await relay.seen(ClientLost)
        assert (lost.how, lost.after) == ("lost connection", "CONNECT")
        assert not relay.store.puts


async def test_limits_count_these_connections_with_the_others(certificate: CertificateFiles) -> None:
    async with door(certificate, client_connection_count_limit=1) as relay, relay.client(), bare(relay) as client:
        assert await client.rest() == b""
        rejected = await relay.seen(Rejected)
        assert rejected.reply.code == 421
    async with door(certificate, client_connection_count_limit=1) as relay, bare(relay):
        async with asyncio.timeout(PATIENCE):
            while not relay.server.sessions:  # the one that says nothing is a guest before any handshake
                await asyncio.sleep(0)
        async with bare(relay) as other:
            assert await other.rest() == b""
