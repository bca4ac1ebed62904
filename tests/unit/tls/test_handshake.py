"""Contexts for policies, and facts read from real handshakes on loopback, on both event loops."""

from __future__ import annotations

import asyncio
import gc
import ssl
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from relay.policy.level import Level
from relay.policy.parameters import InvalidTlsParameter
from relay.policy.policy import Rule, TlsPolicy
from relay.tls.handshake import MAX_PRESENTED, ClientContext, ClientContexts, peer_facts
from relay.tls.own_certificate import ClientCertificateError
from relay.tls.peer import PeerFacts
from tests import pki
from tests.pki import Cert

ROOT = pki.authority("Root")
INTER = ROOT.issue("Inter", ca=True)
LEAF = INTER.issue("leaf", dns=["mx.example"])
MAY = TlsPolicy(level=Level.MAY, asked=Level.MAY, rule=Rule("default"), protocols="", sni="mx.example")
DANE = replace(MAY, level=Level.DANE, protocols=">=TLSv1.2")

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]


def run(new_loop: Callable[[], asyncio.AbstractEventLoop], main: Callable[[], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_whole(main))


async def _whole(main: Callable[[], Awaitable[None]]) -> None:
    await main()


def server_context(directory: Path, leaf: Cert, *chain: Cert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*leaf.write(directory, *chain))
    return context


class Server:
    """A TLS server on loopback that shakes hands and waits for the end."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.client_certificate: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.client_certificate.done():
            self.client_certificate.set_result(writer.get_extra_info("ssl_object").getpeercert(True))
        await reader.read()
        writer.close()


async def facts_of(port: int, context: ssl.SSLContext, sni: str = "mx.example") -> PeerFacts:
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=sni)
    try:
        return peer_facts(writer.get_extra_info("ssl_object"), context, sni)
    finally:
        writer.close()
        await writer.wait_closed()


def handshake(
    server: ssl.SSLContext,
    policy: TlsPolicy = DANE,
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> PeerFacts:
    facts: list[PeerFacts] = []

    async def main() -> None:
        async with Server(server) as running:
            facts.append(await facts_of(running.port, ClientContexts().client_context(policy)))

    run(new_loop, main)
    return facts[0]


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize(
    ("key", "signature", "digest"),
    [
        (pki.ec_key(), "ECDSA (prime256v1)", "SHA256"),
        (pki.ec_key(ec.SECP384R1()), "ECDSA (secp384r1)", "SHA384"),
        (pki.rsa_key(2048), "RSA-PSS (2048 bits)", "SHA256"),
        (ed25519.Ed25519PrivateKey.generate(), "ED25519", ""),
    ],
)
def test_a_full_summary_of_tls_1_3(
    tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop], key: pki.PrivateKey, signature: str, digest: str
) -> None:
    leaf = INTER.issue("leaf", dns=["mx.example"], key=key)
    facts = handshake(server_context(tmp_path, leaf, INTER), DANE, new_loop)
    assert [each.der for each in facts.chain] == [leaf.der, INTER.der]
    assert facts.protocol == "TLSv1.3"
    assert (facts.cipher, facts.bits, facts.algorithm_bits) == ("TLS_AES_256_GCM_SHA384", 256, 256)
    assert facts.key_exchange in {"X25519", "X25519MLKEM768"}
    assert (facts.signature, facts.digest) == (signature, digest)
    assert facts.sni == "mx.example"


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_retried_hello_shows_the_final_group(
    tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    server = server_context(tmp_path, LEAF)
    server.set_ecdh_curve("secp521r1")
    assert handshake(server, DANE, new_loop).key_exchange == "ECDHE (P-521)"


@pytest.mark.parametrize("new_loop", LOOPS)
def test_tls_1_2_has_no_tail(tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    server = server_context(tmp_path, LEAF)
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    facts = handshake(server, DANE, new_loop)
    assert facts.protocol == "TLSv1.2"
    assert (facts.key_exchange, facts.signature, facts.digest) == ("", "", "")
    assert facts.bits == facts.algorithm_bits == 256


@pytest.mark.parametrize("new_loop", LOOPS)
def test_the_chain_is_as_sent(tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    junk = pki.authority("Junk")
    facts = handshake(server_context(tmp_path, LEAF, junk, ROOT, INTER), DANE, new_loop)
    assert [each.subject for each in facts.chain] == ["CN=leaf", "CN=Junk", "CN=Root", "CN=Inter"]


@pytest.mark.parametrize("new_loop", LOOPS)
def test_connections_at_once_are_not_mixed_up(
    tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = server_context(tmp_path / "a", LEAF)
    second = server_context(tmp_path / "b", INTER.issue("leaf", key=pki.rsa_key()))
    second.set_ecdh_curve("secp384r1")

    async def main() -> None:
        context = ClientContexts().client_context(DANE)
        async with Server(first) as one, Server(second) as other:
            facts = await asyncio.gather(*(facts_of(server.port, context) for server in (one, other) * 8))
        for each in facts[::2]:
            assert (each.key_exchange, each.signature) == ("X25519", "ECDSA (prime256v1)")
        for each in facts[1::2]:
            assert (each.key_exchange, each.signature) == ("ECDHE (P-384)", "RSA-PSS (2048 bits)")
        assert isinstance(context, ClientContext)
        del facts
        await asyncio.sleep(0)
        gc.collect()
        assert len(context.noted) == 0, "notes go with their connections"

    run(new_loop, main)


def test_an_anonymous_peer_shows_nothing(tmp_path: Path) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    server.set_ciphers("aNULL:@SECLEVEL=0")
    facts = handshake(server, MAY)
    assert facts.chain == ()
    assert facts.leaf is None
    assert facts.cipher.startswith(("ADH", "AECDH"))


@pytest.mark.parametrize("level", [each for each in Level if each.requires_match])
def test_no_anonymous_ciphers_where_the_peer_must_match(tmp_path: Path, level: Level) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    server.set_ciphers("aNULL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(server, replace(DANE, level=level))


def test_old_versions_only_where_nothing_is_proved_and_they_are_asked_for(tmp_path: Path) -> None:
    server = server_context(tmp_path, pki.make("leaf", key=pki.rsa_key()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        server.minimum_version = server.maximum_version = ssl.TLSVersion.TLSv1
    server.set_ciphers("ALL:@SECLEVEL=0")
    assert handshake(server, replace(MAY, protocols=">=TLSv1")).protocol == "TLSv1"
    for policy in (replace(MAY, protocols=">=TLSv1.2"), DANE, replace(DANE, protocols=">=TLSv1")):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            handshake(server, policy)


def test_a_hole_in_the_list_of_versions(tmp_path: Path) -> None:
    context = ClientContexts().client_context(replace(DANE, protocols="TLSv1.1 TLSv1.3"))
    assert context.options & ssl.Options.OP_NO_TLSv1_2
    assert not context.options & ssl.Options.OP_NO_TLSv1_3


def test_more_certificates_than_are_looked_at(tmp_path: Path) -> None:
    junk = [pki.authority(f"{number}") for number in range(MAX_PRESENTED + 10)]
    facts = handshake(server_context(tmp_path, LEAF, *junk))
    assert len(facts.chain) == MAX_PRESENTED
    assert facts.chain[0].der == LEAF.der


def test_contexts_verify_nothing_and_are_kept() -> None:
    contexts = ClientContexts()
    context = contexts.client_context(DANE)
    assert context.verify_mode is ssl.CERT_NONE
    assert not context.check_hostname
    assert contexts.client_context(replace(DANE, sni="other.example")) is context
    assert contexts.client_context(replace(DANE, level=Level.SECURE)) is context
    assert contexts.client_context(replace(DANE, ciphers="high")) is not context
    assert contexts.client_context(replace(DANE, protocols="TLSv1.3")) is not context
    assert contexts.client_context(replace(DANE, exclude="AES256")) is not context
    assert contexts.client_context(MAY) is not context


def test_parameters_that_cannot_be_used() -> None:
    contexts = ClientContexts()
    for policy in (
        replace(DANE, protocols="TLSv9"),
        replace(DANE, ciphers="strong"),
        replace(DANE, ciphers="null"),
        replace(DANE, exclude="!aRSA"),
        replace(DANE, ciphers="high", exclude="HIGH"),
    ):
        with pytest.raises(InvalidTlsParameter):
            contexts.client_context(policy)


@pytest.mark.parametrize("protocols", ["TLSv1.2", "TLSv1.3"])
def test_a_client_certificate_is_shown_when_asked_for(tmp_path: Path, protocols: str) -> None:
    (tmp_path / "client").mkdir()
    ours = pki.authority("Ours")
    cert_file, key_file = ours.write(tmp_path / "client")
    server = server_context(tmp_path, LEAF)
    server.verify_mode = ssl.CERT_OPTIONAL
    server.load_verify_locations(cadata=ours.pem.decode())
    server.verify_flags |= ssl.VerifyFlags(0x200000)  # our test certificates live at one fixed time

    async def main() -> None:
        async with Server(server) as running:
            context = ClientContexts(cert_file=cert_file, key_file=key_file).client_context(
                replace(DANE, protocols=protocols)
            )
            await facts_of(running.port, context)
            assert await running.client_certificate == ours.der

    run(asyncio.new_event_loop, main)


def test_a_pair_that_was_read_stays_whatever_becomes_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "client").mkdir()
    cert_file, key_file = LEAF.write(tmp_path / "client")
    contexts = ClientContexts(cert_file=cert_file, key_file=key_file)
    contexts.check()
    Path(key_file).write_bytes(INTER.key_pem)
    contexts.client_context(DANE)
    with pytest.raises(ClientCertificateError, match="cannot be used"):
        ClientContexts(cert_file=cert_file, key_file=key_file).check()


def test_client_certificates_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    cert_file, key_file = LEAF.write(tmp_path)
    other_key = tmp_path / "other.pem"
    other_key.write_bytes(INTER.key_pem)
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(pki.encrypted_key_pem(LEAF))
    for cert, key in (
        (str(tmp_path / "none.pem"), key_file),
        (cert_file, str(tmp_path / "none.pem")),
        (key_file, cert_file),
        (cert_file, str(other_key)),
        (cert_file, str(encrypted)),
        (cert_file, ""),
    ):
        with pytest.raises(ClientCertificateError) as caught:
            ClientContexts(cert_file=cert, key_file=key).client_context(DANE)
        assert cert in str(caught.value)


def test_facts_without_our_own_context(tmp_path: Path) -> None:
    """What only our contexts note is left out, all else is there."""
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    plain.check_hostname = False
    plain.verify_mode = ssl.CERT_NONE

    async def main() -> None:
        async with Server(server_context(tmp_path, LEAF)) as running:
            facts = await facts_of(running.port, plain)
        assert (facts.protocol, facts.bits, facts.algorithm_bits) == ("TLSv1.3", 256, 256)
        assert facts.chain[0].der == LEAF.der
        assert (facts.key_exchange, facts.signature, facts.digest) in {
            ("", "", ""),
            ("X25519", "ECDSA (prime256v1)", "SHA256"),
        }

    run(asyncio.new_event_loop, main)
