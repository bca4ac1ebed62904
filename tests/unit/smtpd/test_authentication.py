"""AUTH at the door: over TLS only, once, not in a transaction; who fails too often is shut out; no secret in the log."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Network, ip_address

import pytest

from relay.log.events import Crashed, Rejected, Warned
from relay.maps.build import MapSpec, build_table
from relay.routing.relayhosts import read_key
from relay.sasl.scram import ScramClient
from relay.sasl.secret import Secret
from relay.sasl.users import Users
from relay.smtpd import authentication
from relay.smtpd.authentication import Lockout
from relay.smtpd.ownership import Owners
from tests.unit.sasl.users_of_tests import PASSWORD, USER, users
from tests.unit.smtpd.conftest import CertificateFiles
from tests.unit.smtpd.front_end import PATIENCE, Client, FrontEnd, front_end, options

MOST_FAILURES, LOCKOUT_SECONDS = 10, 600.0  # the defaults
FAILED = "535 5.7.8 Error: authentication failed: authentication failure"
TAKEN = "235 2.7.0 Authentication successful"
NEEDS_TLS = "538 5.7.0 Encryption required for requested authentication mechanism"
ABROAD = (IPv4Network("192.0.2.0/24"),)


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


GOOD = b64(f"\0{USER}\0{PASSWORD}")
BAD = b64(f"\0{USER}\0wrong")


@asynccontextmanager
async def door(certificate: CertificateFiles, **changes: object) -> AsyncIterator[FrontEnd]:
    """A door at which a client may do nothing unless it logs in."""
    settings = options(
        tls_cert_file=certificate.cert_file, tls_key_file=certificate.key_file, mynetworks=ABROAD, **changes
    )
    async with front_end(settings, users=users()) as relay:
        yield relay


async def encrypt(client: Client) -> str:
    """STARTTLS, and what EHLO says then."""
    assert (await client.say("STARTTLS")).startswith("220")
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    await client.writer.start_tls(context, server_hostname="relay.example")
    return await client.say("EHLO tls.example")


async def scram(client: Client, password: str) -> str:
    exchange = ScramClient(USER, Secret(password), nonce="abc")
    reply = await client.say(f"AUTH SCRAM-SHA-256 {b64(exchange.first())}")
    while reply.startswith("334 "):
        reply = await client.say(b64(exchange.next(base64.b64decode(reply[4:]))))
    assert exchange.proved == reply.startswith("235")
    return reply


async def log_in(client: Client, how: str, password: str) -> str:
    match how:
        case "PLAIN":
            return await client.say(f"AUTH PLAIN {b64(f'{chr(0)}{USER}{chr(0)}{password}')}")
        case "plain later":
            assert await client.say("auth plain") == "334 "
            return await client.say(b64(f"\0{USER}\0{password}"))
        case "LOGIN":
            assert await client.say("AUTH LOGIN") == f"334 {b64('Username:')}"
            assert await client.say(b64(USER)) == f"334 {b64('Password:')}"
            return await client.say(b64(password))
        case "login at once":
            assert await client.say(f"AUTH LOGIN {b64(USER)}") == f"334 {b64('Password:')}"
            return await client.say(b64(password))
        case _:
            return await scram(client, password)


@pytest.mark.parametrize("how", ["PLAIN", "plain later", "LOGIN", "login at once", "SCRAM-SHA-256"])
async def test_who_logs_in_may_relay(certificate: CertificateFiles, how: str) -> None:
    async with door(certificate) as relay, relay.client() as client:
        ehlo = await encrypt(client)
        assert "250-AUTH PLAIN LOGIN SCRAM-SHA-256\n250-ENHANCEDSTATUSCODES" in ehlo
        await client.say("MAIL FROM:<a@example.org>")
        assert (await client.say("RCPT TO:<b@example.net>")).startswith("454 4.7.1")
        assert await client.say(f"AUTH PLAIN {GOOD}") == "503 5.5.1 Error: MAIL transaction in progress"
        await client.say("RSET")
        assert await log_in(client, how, "wrong") == FAILED
        assert await log_in(client, how, PASSWORD) == TAKEN
        assert await client.say(f"AUTH PLAIN {GOOD}") == "503 5.5.1 Error: already authenticated"
        assert (await client.message(b"hello\r\n")).startswith("250 2.0.0 Ok: queued")
        envelope = relay.store.puts[0].envelope
        method = {"plain later": "PLAIN", "login at once": "LOGIN"}.get(how, how)
        assert (envelope.client.user, envelope.client.sasl_method) == (USER, method)
        (octets,) = relay.store.messages.values()
        assert b" with ESMTPSA id " in octets
        warned = await relay.seen(Warned)
        assert warned.text == (
            f"localhost[127.0.0.1]: SASL {method} authentication failed: authentication failure, sasl_username={USER}"
        )


async def test_nothing_is_taken_in_the_clear(certificate: CertificateFiles) -> None:
    async with door(certificate) as relay, relay.client() as client:
        assert "AUTH" not in await client.say("EHLO client.example")
        assert await client.say(f"AUTH PLAIN {GOOD}") == NEEDS_TLS
        assert await client.say("AUTH LOGIN") == NEEDS_TLS
        await client.say("MAIL FROM:<a@example.org>")
        assert (await client.say("RCPT TO:<b@example.net>")).startswith("454 4.7.1")
    async with door(certificate, tls_required=True) as relay, relay.client() as client:
        assert await client.say(f"AUTH PLAIN {GOOD}") == "530 5.7.0 Must issue a STARTTLS command first"


async def test_what_auth_does_not_know(certificate: CertificateFiles) -> None:
    async with door(certificate) as relay, relay.client() as client:
        await encrypt(client)
        assert (await client.say("AUTH CRAM-MD5")).startswith("504 5.5.4")
        assert await client.say("AUTH") == "501 5.5.4 Syntax: AUTH mechanism"
        assert await client.say("AUTH PLAIN a b") == "501 5.5.4 Syntax: AUTH mechanism"
        assert await client.say("AUTH PLAIN ?") == "501 5.5.2 Error: invalid base64 data"
        assert await client.say("AUTH PLAIN =") == FAILED
        assert (await client.say("AUTH LOGIN")).startswith("334")
        assert await client.say("*") == "501 5.7.0 Authentication aborted"
        assert (await client.say("AUTH LOGIN")).startswith("334")
        assert await client.say("x" * 5000) == "500 5.5.2 Error: line too long"
        assert await client.say("HELO old.example") == "250 relay.example"
        assert await client.say(f"AUTH PLAIN {GOOD}") == "503 5.5.1 Error: send HELO/EHLO first"
        await client.say("EHLO new.example")
        assert await client.say(f"AUTH PLAIN {GOOD}") == TAKEN


async def test_who_fails_too_often_is_shut_out_with_the_right_password_too(certificate: CertificateFiles) -> None:
    async with door(certificate, hard_error_limit=100) as relay:
        async with relay.client() as client:
            await encrypt(client)
            assert await client.say(f"AUTH PLAIN {GOOD}") == TAKEN
        async with relay.client() as client:
            await encrypt(client)
            assert {await client.say(f"AUTH PLAIN {BAD}") for _ in range(MOST_FAILURES)} == {FAILED}
            assert await client.say(f"AUTH PLAIN {GOOD}") == "450 4.7.1 Error: too many AUTH commands from 127.0.0.1"
        async with relay.client() as client:
            await encrypt(client)
            assert (await client.say(f"AUTH PLAIN {GOOD}")).startswith("450 4.7.1")
        async with relay.client(source="127.0.0.2") as client:
            await encrypt(client)
            assert await client.say(f"AUTH PLAIN {GOOD}") == TAKEN


@pytest.mark.parametrize("polite", [True, False])
async def test_no_log_line_has_what_follows_an_auth(certificate: CertificateFiles, polite: bool) -> None:
    secret = "1secret1"
    async with door(certificate, forbid_unauth_pipelining=polite) as relay:
        for lines in (
            ("EHLO x", f"AUTH PLAIN {secret}"),
            ("AUTH LOGIN", secret, secret),
            ("NOOP", f"AUTH LOGIN {secret}", secret),
            ("EHLO x", f"*UTH PLAIN {secret}"),
            ("EHLO x", "UTH LOGIN", secret, secret),
        ):
            async with relay.client() as client:
                client.send(*lines)
                client.writer.write_eof()
                await client.rest()
        warned = [event for event in relay.events if secret in repr(event)]
        assert not warned


async def test_passwords_wait_for_each_other_and_not_without_bound(
    certificate: CertificateFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "_WAITING", 0)
    async with door(certificate) as relay, relay.client() as client:
        await encrypt(client)
        for _ in range(MOST_FAILURES + 1):  # whose password was not looked at has not failed
            assert await client.say(f"AUTH PLAIN {GOOD}") == "454 4.7.0 Temporary authentication failure"
        monkeypatch.undo()
        assert await client.say(f"AUTH PLAIN {GOOD}") == TAKEN


async def test_a_sender_address_of_somebody_else(certificate: CertificateFiles) -> None:
    settings = options(tls_cert_file=certificate.cert_file, tls_key_file=certificate.key_file)
    owned = Owners((build_table(MapSpec("texthash", "map"), f"@example.org {USER}\n", read_key=read_key),))
    async with front_end(settings, users=users(), owners=owned) as relay, relay.client() as client:
        assert await client.say("MAIL FROM:<a@example.net>") == "250 2.1.0 Ok", "nobody has logged in"
        await client.say("RSET")
        await encrypt(client)
        assert await client.say(f"AUTH PLAIN {GOOD}") == TAKEN
        refused = f"553 5.7.1 <a@example.net>: Sender address rejected: not owned by user {USER}"
        assert await client.say("MAIL FROM:<a@example.net>") == refused
        rejected = await relay.seen(Rejected)
        assert (rejected.where, rejected.client.user, rejected.sender) == ("MAIL", USER, "a@example.net")
        assert (await client.message(b"hello\r\n")).startswith("250 2.0.0 Ok: queued")


async def test_a_fault_inside_is_no_login(certificate: CertificateFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Users, name: str, password: Secret) -> bool:
        raise MemoryError

    monkeypatch.setattr(Users, "is_password", broken)
    async with door(certificate) as relay, relay.client() as client:
        await encrypt(client)
        assert await client.say(f"AUTH PLAIN {GOOD}") == "451 4.3.0 Error: internal server error"
        await client.say("MAIL FROM:<a@example.org>")
        assert (await client.say("RCPT TO:<b@example.net>")).startswith("454 4.7.1")


def test_the_lockout_ends_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    lockout = Lockout(clock=lambda: now[0])
    bad, good = ip_address("192.0.2.1"), ip_address("192.0.2.2")
    assert [lockout.enter(bad) for _ in range(MOST_FAILURES + 1)] == [True] * MOST_FAILURES + [False]
    for _ in range(3 * MOST_FAILURES):
        assert lockout.enter(good)
        lockout.forgive(good)
    now[0] = LOCKOUT_SECONDS - 1
    assert not lockout.enter(bad)
    now[0] = LOCKOUT_SECONDS
    assert lockout.enter(bad)
    monkeypatch.setattr(authentication, "_REMEMBERED", 3)
    for number in range(10):
        lockout.enter(ip_address(f"198.51.100.{number}"))
    assert len(lockout) <= 3


def test_the_lockout_is_as_configured() -> None:
    now = [0.0]
    lockout = Lockout(2, 30.0, clock=lambda: now[0])
    bad = ip_address("192.0.2.1")
    assert [lockout.enter(bad) for _ in range(3)] == [True, True, False]
    now[0] = 30.0
    assert lockout.enter(bad)
    without = Lockout(0)
    assert all(without.enter(bad) for _ in range(100))
    assert not len(without)


async def test_the_door_keeps_to_the_lockout_that_it_is_given(certificate: CertificateFiles) -> None:
    settings = options(tls_cert_file=certificate.cert_file, tls_key_file=certificate.key_file, mynetworks=ABROAD)
    async with front_end(settings, users=users(), lockout=Lockout(1)) as relay, relay.client() as client:
        await encrypt(client)
        assert await client.say(f"AUTH PLAIN {BAD}") == FAILED
        assert (await client.say(f"AUTH PLAIN {GOOD}")).startswith("450 4.7.1")
    async with front_end(settings, users=users(), lockout=Lockout(0)) as relay, relay.client() as client:
        await encrypt(client)
        for _ in range(MOST_FAILURES + 1):
            assert await client.say(f"AUTH PLAIN {BAD}") == FAILED
        assert await client.say(f"AUTH PLAIN {GOOD}") == TAKEN


async def test_who_goes_before_the_answer_is_no_fault_of_ours(certificate: CertificateFiles) -> None:
    """A TLS transport that is closed twice forgets its protocol."""
    async with door(certificate) as relay:
        for _ in range(5):
            async with relay.client() as client:
                await encrypt(client)
                client.writer.close()
                async with asyncio.timeout(PATIENCE):
                    while relay.server.sessions:
                        await asyncio.sleep(0)
        assert not [event for event in relay.events if isinstance(event, Crashed)]


async def test_auth_commands_are_limited_by_the_minute(certificate: CertificateFiles) -> None:
    async with door(certificate, client_auth_rate_limit=2) as relay, relay.client() as client:
        await encrypt(client)
        assert [(await client.say(f"AUTH PLAIN {BAD}"))[:3] for _ in range(2)] == ["535", "535"]
        assert await client.say(f"AUTH PLAIN {GOOD}") == "450 4.7.1 Error: too many AUTH commands from 127.0.0.1"
        warned = await relay.seen(Warned, lambda event: "limit exceeded" in event.text)
        assert warned.text == "AUTH command rate limit exceeded: 3 from localhost[127.0.0.1] for service smtp"
