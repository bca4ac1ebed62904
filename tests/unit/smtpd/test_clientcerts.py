"""Clients are asked for a certificate: any is taken, those that are known may relay, and nothing else changes."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from relay.config.errors import ConfigErrors
from relay.config.maps import load_clientcert_maps
from relay.log.events import ClientLost, Crashed, Noted
from relay.mail.envelope import Client as Who
from relay.mail.envelope import ClientCertificate, ClientTls, NoCertificate
from relay.smtpd.clientcerts import KnownCertificates
from relay.smtpd.server import CannotServe
from relay.smtpd.server_tls import server_tls_context
from tests import pki
from tests.unit.smtpd.conftest import CertificateFiles
from tests.unit.smtpd.front_end import PATIENCE, Client, FrontEnd, front_end, options

ELSEWHERE = (ip_network("192.0.2.0/24"),)
SHOWN = ClientCertificate(fingerprint=":".join(["AB"] * 32), key_fingerprint=":".join(["CD"] * 32))


def digest(octets: bytes) -> str:
    return hashlib.sha256(octets).digest().hex(":").upper()


class Own:
    """A client's certificate, which its own key signed."""

    def __init__(self, directory: Path, name: str = 'joe "\\r\\n(x)', *, expired: bool = False) -> None:
        day, now = timedelta(days=1), datetime.now(UTC)
        leaf = pki.authority(name, dates=(now - 2 * day, now - day if expired else now + day))
        self.file = directory / f"client{expired}.pem"
        self.file.write_bytes(leaf.key_pem + leaf.pem)
        loaded = x509.load_pem_x509_certificate(leaf.pem)
        self.fingerprint = digest(loaded.public_bytes(serialization.Encoding.DER))
        self.key_fingerprint = digest(
            loaded.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )


def known(directory: Path, *prints: str) -> KnownCertificates:
    (directory / "known").write_text("".join(f"{each} somebody\n" for each in prints))
    return KnownCertificates(load_clientcert_maps(["texthash:known"], directory))


def context(own: Own | None, *, newest: bool = True) -> ssl.SSLContext:
    made = ssl.create_default_context()
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    if not newest:
        made.maximum_version = ssl.TLSVersion.TLSv1_2
    if own is not None:
        made.load_cert_chain(own.file)
    return made


@asynccontextmanager
async def session(
    certificate: CertificateFiles, certificates: KnownCertificates, client_context: ssl.SSLContext, *, wrapped: bool
) -> AsyncIterator[tuple[FrontEnd, Client]]:
    settings = options(
        tls_cert_file=certificate.cert_file,
        tls_key_file=certificate.key_file,
        tls_ask_ccert=True,
        mynetworks=ELSEWHERE,
    )
    async with front_end(settings, certificates=certificates) as relay, asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(*relay.server.addresses[wrapped])
        client = Client(reader, writer)
        try:
            if not wrapped:
                await client.reply()
                await client.say("EHLO client.example")
                assert (await client.say("STARTTLS")).startswith("220")
            await writer.start_tls(client_context)
            if wrapped:
                await client.reply()
            await client.say("EHLO client.example")
            yield relay, client
        finally:
            writer.close()


async def may_relay(client: Client) -> bool:
    await client.say("MAIL FROM:<a@example.org>")
    code = (await client.say("RCPT TO:<b@example.net>"))[:3]
    assert code in {"250", "454"}
    return code == "250"


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize("expired", [False, True])
async def test_a_known_certificate_may_relay(
    certificate: CertificateFiles, tmp_path: Path, wrapped: bool, newest: bool, expired: bool
) -> None:
    own = Own(tmp_path, expired=expired)
    for prints, may in (
        ((own.fingerprint,), True),
        ((own.key_fingerprint.lower().replace(":", ""),), True),
        ((), False),
    ):
        async with session(certificate, known(tmp_path, *prints), context(own, newest=newest), wrapped=wrapped) as (
            relay,
            client,
        ):
            assert await may_relay(client) is may
            await client.say("RSET")
            noted = await relay.seen(Noted, lambda event: "fingerprint=" in event.text)
            assert f", cert fingerprint={own.fingerprint}, pkey fingerprint={own.key_fingerprint}" in noted.text
            await relay.seen(Noted, lambda event: event.text.startswith("Untrusted TLS connection established from"))


async def test_what_the_received_field_says(certificate: CertificateFiles, tmp_path: Path) -> None:
    own = Own(tmp_path)
    async with session(certificate, known(tmp_path, own.fingerprint), context(own), wrapped=False) as (relay, client):
        assert (await client.message(b"x" * 200_000 + b"\r\n")).startswith("250")
        (content,) = relay.store.messages.values()
        assert content.endswith(b"x" * 200_000 + b"\r\n")
        head = content[:600].decode()
        assert '\r\n\t(Client CN "joe ??r?n?x?", Issuer "joe ??r?n?x?" (not verified))\r\n' in head
        (put,) = relay.store.puts
        shown = put.envelope.client.tls.certificate
        assert isinstance(shown, ClientCertificate)
        assert (shown.fingerprint, shown.key_fingerprint) == (own.fingerprint, own.key_fingerprint)
        assert await client.say("QUIT") == "221 2.0.0 Bye"
        assert await client.rest() == b""


@pytest.mark.parametrize(
    "name",
    [
        "joe\r\nX-Evil: 1",
        "joe\r\n\r\nanother message",
        'joe", Issuer "root" (verified OK))\r\n\tby elsewhere',
        "\u202egro.elpmaxe\u2066",
        "\0",
        "\x1b[2J",
        "x" * 64,
        "\U0001f4a9" * 16,
    ],
)
async def test_names_of_a_certificate_bring_nothing_of_their_own(
    certificate: CertificateFiles, tmp_path: Path, name: str
) -> None:
    own = Own(tmp_path, name)
    async with session(certificate, known(tmp_path, own.fingerprint), context(own), wrapped=False) as (relay, client):
        assert (await client.message(b"hello\r\n")).startswith("250")
        (content,) = relay.store.messages.values()
        lines = content.split(b"\r\n")
        assert [line[:5] for line in lines] == [b"Recei", b"\t(usi", b"\t(Cli", b"\tby r", b"\tfor ", b"hello", b""]
        assert content.isascii()
        assert content.count(b'"') == 4
        assert b"(verified" not in content
        noted = await relay.seen(Noted, lambda event: "fingerprint=" in event.text)
        assert noted.text.isprintable()


@pytest.mark.parametrize("wrapped", [False, True])
async def test_who_shows_none_is_judged_by_the_other_rules(
    certificate: CertificateFiles, tmp_path: Path, wrapped: bool
) -> None:
    async with session(certificate, known(tmp_path), context(None), wrapped=wrapped) as (relay, client):
        assert not await may_relay(client)
        noted = await relay.seen(Noted, lambda event: "TLS connection established" in event.text)
        assert noted.text.startswith(
            "Anonymous TLS connection established from localhost[127.0.0.1]: TLSv1.3 with cipher"
        )
        assert not [event for event in relay.events if isinstance(event, Crashed)]


@pytest.mark.parametrize("said", [b"EHLO x\r\n", b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01\xff\xff", b""])
async def test_a_handshake_that_is_none(certificate: CertificateFiles, said: bytes) -> None:
    settings = options(tls_cert_file=certificate.cert_file, tls_key_file=certificate.key_file, tls_ask_ccert=True)
    async with front_end(settings) as relay:
        reader, writer = await asyncio.open_connection(*relay.server.addresses[1])
        writer.write(said)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            assert b"220" not in await reader.read()
        lost = await relay.seen(ClientLost)
        assert lost.after == "CONNECT"
        assert not [event for event in relay.events if isinstance(event, Crashed)]
        writer.close()


def test_which_keys_stand_for_a_certificate(tmp_path: Path) -> None:
    def permits(*prints: str, shown: ClientCertificate | NoCertificate = SHOWN) -> bool:
        tls = ClientTls(protocol="TLSv1.3", certificate=shown)
        return known(tmp_path, *prints).permit(Who(address=ip_address("192.0.2.1"), tls=tls))

    assert permits(SHOWN.fingerprint)
    assert permits(SHOWN.key_fingerprint.lower())
    assert not permits(":".join(["EF"] * 32))
    unreadable = ClientCertificate(fingerprint="", key_fingerprint="")
    assert not permits(SHOWN.fingerprint, shown=unreadable)
    assert not permits(SHOWN.fingerprint, shown=NoCertificate.NOT_PRESENTED)
    assert not permits(SHOWN.fingerprint, shown=NoCertificate.NOT_REQUESTED)


@pytest.mark.parametrize("key", ["ab:cd", "AB" * 20, "zz" * 32, "joe"])
def test_a_key_that_is_no_sha256_fingerprint_is_told(tmp_path: Path, key: str) -> None:
    (problem,) = known(tmp_path, key).problems
    assert problem.is_error
    assert problem.place.endswith("known:1")


def test_a_map_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match="client certificate map cannot be read"):
        load_clientcert_maps(["texthash:missing"], tmp_path)


def test_files_that_cannot_be_used(certificate: CertificateFiles, tmp_path: Path) -> None:
    own = Own(tmp_path)
    with pytest.raises(CannotServe, match="KEY_VALUES_MISMATCH"):
        server_tls_context(options(tls_cert_file=str(own.file), tls_key_file=certificate.key_file, tls_ask_ccert=True))
