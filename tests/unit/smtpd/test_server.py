from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from relay.log.events import ClientDisconnected, Crashed
from relay.smtpd.server import CannotServe, SmtpServer
from relay.smtpd.server_tls import server_tls_context
from tests.unit.smtpd.conftest import CertificateFiles
from tests.unit.smtpd.front_end import HOSTNAME, RecordingStore, front_end, options

GOODBYE = f"421 4.3.2 {HOSTNAME} Service shutting down"


def silent(_: object) -> asyncio.Protocol:
    return asyncio.Protocol()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    def run_on(scenario: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(scenario)

    return run_on


Run = Callable[[Coroutine[Any, Any, None]], None]


def test_idle_sessions_are_told_at_once(run: Run) -> None:
    async def scenario() -> None:
        async with front_end() as relay, relay.client() as idle, relay.client() as busy:
            address = relay.address
            await busy.say("MAIL FROM:<a@example.org>")
            await relay.server.close(grace=20)
            assert await idle.reply() == await busy.reply() == GOODBYE
            assert await idle.rest() == await busy.rest() == b""
            assert relay.server.sessions == 0
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*address)
        assert not any(isinstance(event, Crashed) for event in relay.events)

    run(scenario())


def test_a_message_under_way_is_finished_first(run: Run) -> None:
    async def scenario() -> None:
        store = RecordingStore(hold=asyncio.Event())
        assert store.hold is not None
        settings = options(forbid_unauth_pipelining=False)
        async with front_end(settings, store=store) as relay, relay.client() as client:
            client.send("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>", "DATA", "x")
            for code in ("250", "250", "354"):
                assert (await client.reply()).startswith(code)
            await store.begun.wait()
            closing = asyncio.create_task(relay.server.close(grace=20))
            client.send(".")
            store.hold.set()
            assert (await client.reply()).startswith("250 2.0.0 Ok: queued as")
            assert await client.reply() == GOODBYE
            await closing
            assert store.contents == [b"x\r\n"]

    run(scenario())


def test_who_does_not_finish_is_cut_off(run: Run) -> None:
    async def scenario() -> None:
        store = RecordingStore()
        settings = options(forbid_unauth_pipelining=False)
        async with front_end(settings, store=store) as relay, relay.client() as client:
            client.send("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>", "DATA", "x")
            await store.begun.wait()
            await relay.server.close(grace=0)
            assert relay.server.sessions == 0
            assert not store.messages

    run(scenario())


def test_tls_on_either_loop(run: Run, certificate: CertificateFiles) -> None:
    async def scenario() -> None:
        context = ssl.create_default_context(cafile=certificate.cert_file)
        context.check_hostname = False
        async with front_end(options(tls_cert_file=certificate.both_file)) as relay:
            async with relay.client() as client:
                assert (await client.say("STARTTLS")).startswith("220")
                await client.writer.start_tls(context, server_hostname="relay.example")
                await client.say("EHLO tls.example")
                content = b"\xff" * 900 + b"\r\n"
                assert (await client.message(content * 3000)).startswith("250")
                assert await client.say("QUIT") == "221 2.0.0 Bye"
            await relay.seen(ClientDisconnected)
            assert relay.store.contents == [content * 3000]
            assert relay.store.puts[0].envelope.client.tls.used

    run(scenario())


def test_those_who_come_together_are_taken_together(run: Run) -> None:
    async def scenario() -> None:
        turn, taken = 0, []

        class Noting(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                taken.append(turn)

        server = SmtpServer([("127.0.0.1", 0)], lambda _: Noting(), options())
        await server.start()
        clients = [socket.create_connection(server.addresses[0]) for _ in range(12)]  # the loop stands still meanwhile
        while len(taken) < len(clients):
            await asyncio.sleep(0)
            turn += 1
        for client in clients:
            client.close()
        await server.close(grace=0)
        assert len(set(taken)) <= 2, f"turns of the loop in which they were taken: {taken}"

    run(scenario())


def test_a_port_in_use_is_named(run: Run) -> None:
    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            server = SmtpServer([("127.0.0.1", 0), ("127.0.0.1", port)], silent, options())
            with pytest.raises(CannotServe, match=rf"cannot listen on 127\.0\.0\.1:{port}: the port is in use; stop"):
                await server.start()
            assert server.addresses == ()

    run(scenario())


def test_an_address_that_is_not_ours_is_named(run: Run) -> None:
    async def scenario() -> None:
        server = SmtpServer([("192.0.2.1", 2525)], silent, options())
        with pytest.raises(CannotServe, match=r"192\.0\.2\.1:2525: this machine does not have that address"):
            await server.start()

    run(scenario())


@pytest.mark.parametrize("port", [-1, 65536])
async def test_a_port_that_is_none_is_named(port: int) -> None:
    with pytest.raises(CannotServe, match=f"127.0.0.1:{port}: "):
        await SmtpServer([("127.0.0.1", port)], silent, options()).start()


async def test_a_session_per_connection_and_all_addresses() -> None:
    server = SmtpServer([("127.0.0.1", 0), ("127.0.0.2", 0)], silent, options())
    await server.start()
    assert [host for host, _ in server.addresses] == ["127.0.0.1", "127.0.0.2"]
    assert all(port > 0 for _, port in server.addresses)
    await server.close(grace=0)
    assert server.addresses == ()


def test_no_certificate_no_tls() -> None:
    assert server_tls_context(options()) is None


def test_bad_certificates_are_named(certificate: CertificateFiles, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("rubbish")
    for files, named in (
        ({"tls_cert_file": missing}, missing),
        ({"tls_cert_file": certificate.cert_file, "tls_key_file": missing}, missing),
        ({"tls_cert_file": str(rubbish)}, str(rubbish)),
        ({"tls_cert_file": certificate.cert_file}, certificate.cert_file),
    ):
        with pytest.raises(CannotServe, match=named):
            server_tls_context(options(**files))
