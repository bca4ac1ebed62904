"""Logging in at Postfix, with Dovecot and with Cyrus behind it, by every mechanism; client certificates; implicit TLS.

What Postfix logged of the session is the evidence, not what the relay says of itself.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import smtplib
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.app.relay import Relay, open_relay
from relay.config.load import read
from relay.lab.ca import Authority, CertificateKind
from relay.lab.nameserver import NameServer, Trust, Zone
from tests import pki
from tests.auth_scripts import PASSWORD, TOKEN, USER
from tests.interop import servers
from tests.interop.dovecot import dovecot
from tests.interop.nameservers import Endpoint
from tests.interop.postfix import Listener, Postfix, postfix
from tests.loopback import LoopbackNetwork, free_port
from tests.resolved_world import Log

pytestmark = pytest.mark.interop

HOSTS = ("dovecot", "cyrus", "wrapped", "expired", "ccert")
RECIPIENT = "bob@elsewhere.test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Postfix under several names, each with its own idea of whom to let in.

    :param client: key and certificate of the CA that ``ccert`` knows.
    """

    directory: Path
    network: LoopbackNetwork
    port: int
    authority: Authority
    client: Path
    postfix: Postfix

    def key(self, host: str) -> str:
        return f"[{host}.test]:{self.port}"

    def last_session(self, host: str, *, since: int) -> str:
        """What the listener logged of the session that ends next."""
        self.postfix.process.wait_for(rf" {host}/smtpd.*: disconnect from", since=since)
        return "\n".join(line for line in self.postfix.process.lines()[since:] if f" {host}/" in line)


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    for name in ("postfix", "dovecot", "saslpasswd2"):
        servers.require(name)
    directory = Path(tempfile.mkdtemp(prefix="dane-relay-"))  # not pytest's: Postfix's own users must get in
    directory.chmod(0o755)
    try:
        with ExitStack() as stack:
            yield _provider(directory, stack)
    except servers.UnavailableError as error:
        servers.leave_out("dovecot or postfix", str(error))
    finally:
        shutil.rmtree(directory)


def _provider(directory: Path, stack: ExitStack) -> Provider:
    for name in ("dovecot", "postfix", "cyrus"):
        (directory / name).mkdir()
    authority = Authority(directory, datetime.now(UTC))
    network = LoopbackNetwork()
    port = free_port(*(network.address(number) for number, _ in enumerate(HOSTS, 1)))
    sasl = stack.enter_context(dovecot(directory / "dovecot", user=USER, password=PASSWORD, tokens={TOKEN: USER}))
    by_dovecot = {
        "smtpd_sasl_auth_enable": "yes",
        "smtpd_sasl_type": "dovecot",
        "smtpd_sasl_path": str(sasl.socket),
        "smtpd_tls_auth_only": "yes",
        "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
    }
    options = {
        "dovecot": by_dovecot,
        "cyrus": {
            **by_dovecot,
            "smtpd_sasl_type": "cyrus",
            "smtpd_sasl_path": "smtpd",
            "cyrus_sasl_config_path": str(_cyrus(directory / "cyrus")),
        },
        "wrapped": {**by_dovecot, "smtpd_tls_wrappermode": "yes"},
        "expired": by_dovecot,
        "ccert": {
            "smtpd_tls_ask_ccert": "yes",
            "smtpd_tls_req_ccert": "yes",
            "smtpd_enforce_tls": "yes",
            "smtpd_tls_CAfile": str(directory / "clients.pem"),
            "smtpd_relay_restrictions": "permit_tls_all_clientcerts, reject",
        },
    }
    listeners = [
        Listener(
            host,
            Endpoint(network.address(number), port),
            authority.issue(
                CertificateKind.EXPIRED if host == "expired" else CertificateKind.GOOD, f"{host}.test"
            ).pem_file,
            options[host],
        )
        for number, host in enumerate(HOSTS, 1)
    ]
    receiver = stack.enter_context(postfix(listeners, directory / "postfix", virtual_domains=("elsewhere.test",)))
    # Debian's Postfix looks here, whatever cyrus_sasl_config_path says; nobody has connected yet.
    shutil.copytree(directory / "cyrus", directory / "postfix/conf/sasl")
    return Provider(
        directory=directory,
        network=network,
        port=port,
        authority=authority,
        client=_client_certificate(directory),
        postfix=receiver,
    )


def _client_certificate(directory: Path) -> Path:
    """Key and certificate for us, of a CA whose certificate is ``clients.pem``."""
    now = datetime.now(UTC)
    dates = (now - pki.DAY, now + pki.DAY)
    authority = pki.make("Clients", dates=dates, ca=True)
    leaf = authority.issue("relay.test", dates=dates, eku=[pki.CLIENT_AUTH])
    (directory / "clients.pem").write_bytes(authority.pem)
    (directory / "client.pem").write_bytes(leaf.key_pem + leaf.pem)
    (directory / "other.pem").write_bytes(authority.key_pem + leaf.pem)
    return directory / "client.pem"


def _cyrus(directory: Path) -> Path:
    """A directory with smtpd.conf and the account in a sasldb that Postfix may read."""
    user, _, realm = USER.partition("@")
    database = directory / "sasldb2"
    command: list[str | Path] = [servers.find("saslpasswd2"), "-c", "-p", "-f", database, "-u", realm, user]
    subprocess.run(command, input=PASSWORD, text=True, check=True, capture_output=True, timeout=60)
    database.chmod(0o644)
    (directory / "smtpd.conf").write_text(
        f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {database}\nmech_list: PLAIN LOGIN SCRAM-SHA-256\n"
    )
    return directory


@asynccontextmanager
async def relaying(provider: Provider, tmp_path: Path, host: str, smtp: str = "") -> AsyncIterator[tuple[Relay, Log]]:
    """A relay that sends all mail to one of the hosts, with a password and, if a file ``token`` is there, a token."""
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "sasl_passwd").write_text(f"{provider.key(host)} {USER}:{PASSWORD}\n")
    records = {(f"{name}.test.", "A"): (provider.network.address(number),) for number, name in enumerate(HOSTS, 1)}
    root = Zone(".", Trust.SECURE, {(".", "NS"): ("ns.test.",)})
    server = NameServer((root, Zone("test.", Trust.SECURE, records)))
    address, port = await server.start()
    config = read(
        '[relay]\nmyhostname = "relay.test"\nstate_dir = "state"\n[smtpd]\nlisten = ["127.0.0.1:0"]\n'
        f'[smtp]\nrelayhost = "{provider.key(host)}"\ntls_CAfile = "{provider.authority.ca_file}"\n{smtp}\n'
        f'[dns]\nmode = "trust-ad"\nnameservers = ["{address}:{port}"]\n[http]\nlisten = ""\n',
        name="relay.toml",
        base=tmp_path,
        environ={},
        hostname="relay.test",
    )
    log = Log()
    try:
        async with open_relay(config, write_line=log.write) as relay:
            yield relay, log
    finally:
        await server.stop()
        assert not re.search(re.escape(PASSWORD) + "|" + re.escape(TOKEN), "\n".join(log.lines))


async def send(relay: Relay, log: Log) -> str:
    """Hand in a message and wait for its status line."""

    def talk() -> str:
        with smtplib.SMTP(*relay.smtp_addresses[0], local_hostname="client.test", timeout=60) as client:
            client.sendmail("ann@client.test", [RECIPIENT], b"Subject: hello\r\n\r\nhello\r\n")
            return ""

    seen = len(log.lines)
    await asyncio.to_thread(talk)
    return await log.wait_for(rf"to=<{re.escape(RECIPIENT)}>.* status=", since=seen)


PASSWORDS = 'sasl_password_maps = ["sasl_passwd"]\n'


@pytest.mark.parametrize("host", ["dovecot", "cyrus"])
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "PLAIN", "LOGIN"])
async def test_each_mechanism_logs_in(provider: Provider, tmp_path: Path, host: str, mechanism: str) -> None:
    since = provider.postfix.process.mark()
    async with relaying(provider, tmp_path, host, f'{PASSWORDS}sasl_mechanism_filter = "{mechanism}"') as (relay, log):
        status = await send(relay, log)
        assert re.search(r"tls=secure, dsn=2\.0\.0, status=sent \(250 2\.0\.0 Ok: (\d+ bytes )?queued as", status)
        session = await asyncio.to_thread(provider.last_session, host, since=since)
    assert f"sasl_method={mechanism}, sasl_username={USER}" in session
    assert "ehlo=2 starttls=1 auth=1 mail=1 rcpt=1 bdat=1 quit=1" in session


@pytest.mark.parametrize("host", ["dovecot", "cyrus"])
async def test_the_best_of_what_is_offered_is_taken(provider: Provider, tmp_path: Path, host: str) -> None:
    since = provider.postfix.process.mark()
    async with relaying(provider, tmp_path, host, PASSWORDS) as (relay, log):
        assert "status=sent" in await send(relay, log)
        session = await asyncio.to_thread(provider.last_session, host, since=since)
    assert "sasl_method=SCRAM-SHA-256, " in session


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
async def test_a_token_logs_in_and_a_stale_one_is_fetched_anew(
    provider: Provider, tmp_path: Path, mechanism: str
) -> None:
    script = tmp_path / "get-token"
    script.write_text(
        f"#!/bin/sh\nif [ -e {tmp_path}/again ]; then echo {TOKEN}; else echo stale; fi\ntouch {tmp_path}/again\n"
    )
    script.chmod(0o755)
    (tmp_path / "sasl_tokens").write_text(f"{provider.key('dovecot')} {USER}:command:{script}\n")
    smtp = f'sasl_token_maps = ["sasl_tokens"]\nsasl_mechanism_filter = "{mechanism}"'
    since = provider.postfix.process.mark()
    async with relaying(provider, tmp_path, "dovecot", smtp) as (relay, log):
        assert "status=sent" in await send(relay, log)
        session = await asyncio.to_thread(provider.last_session, "dovecot", since=since)
    assert f"sasl_method={mechanism}, sasl_username={USER}" in session
    assert "auth=1/2" in session, "the stale one was refused first"


@pytest.mark.parametrize("host", ["dovecot", "cyrus"])
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "PLAIN", "LOGIN"])
async def test_a_wrong_password_defers(provider: Provider, tmp_path: Path, host: str, mechanism: str) -> None:
    (tmp_path / "wrong").write_text(f"{provider.key(host)} {USER}:wrong\n")
    smtp = f'sasl_password_maps = ["wrong"]\nsasl_mechanism_filter = "{mechanism}"'
    async with relaying(provider, tmp_path, host, smtp) as (relay, log):
        status = await send(relay, log)
    assert re.search(
        rf"dsn=4\.7\.8, status=deferred \(SASL authentication failed; server {host}\.test\[[\d.]+\] said: 535 5\.7\.8 ",
        status,
    )


async def test_implicit_tls(provider: Provider, tmp_path: Path) -> None:
    since = provider.postfix.process.mark()
    smtp = f"{PASSWORDS}tls_wrappermode_ports = [{provider.port}]"
    async with relaying(provider, tmp_path, "wrapped", smtp) as (relay, log):
        assert "tls=secure, dsn=2.0.0, status=sent" in await send(relay, log)
        session = await asyncio.to_thread(provider.last_session, "wrapped", since=since)
    assert f"sasl_username={USER}" in session
    assert "ehlo=1 auth=1 mail=1 rcpt=1 bdat=1 quit=1" in session


async def test_an_expired_certificate_is_shown_no_password(provider: Provider, tmp_path: Path) -> None:
    since = provider.postfix.process.mark()
    async with relaying(provider, tmp_path, "expired", PASSWORDS) as (relay, log):
        assert "status=deferred (Server certificate not verified: expected " in await send(relay, log)
        session = await asyncio.to_thread(provider.last_session, "expired", since=since)
    assert "auth" not in session.rpartition("disconnect from")[2]


async def test_without_a_login_the_server_refuses(provider: Provider, tmp_path: Path) -> None:
    """That the server lets in nobody else is what the others prove something by."""
    async with relaying(provider, tmp_path, "dovecot") as (relay, log):
        assert "dsn=5.7.1, status=bounced" in await send(relay, log)


async def test_a_client_certificate_lets_us_in_and_nobody_else(provider: Provider, tmp_path: Path) -> None:
    level = 'tls_security_level = "secure"\n'
    since = provider.postfix.process.mark()
    pem = provider.client
    async with relaying(provider, tmp_path, "ccert", f'{level}tls_cert_file = "{pem}"\ntls_key_file = "{pem}"') as (
        relay,
        log,
    ):
        assert "tls=secure, dsn=2.0.0, status=sent" in await send(relay, log)
    session = provider.last_session("ccert", since=since)
    assert "Trusted TLS connection established from" in session
    shutil.rmtree(tmp_path / "state")
    async with relaying(provider, tmp_path, "ccert", level) as (relay, log):
        assert "status=sent" not in await send(relay, log)


async def test_a_certificate_of_another_key_never_comes_into_use(provider: Provider, tmp_path: Path) -> None:
    mine = tmp_path / "mine.pem"
    shutil.copy(provider.client, mine)
    smtp = f'tls_security_level = "secure"\ntls_cert_file = "{mine}"\ntls_key_file = "{mine}"'
    async with relaying(provider, tmp_path, "ccert", smtp) as (relay, log):
        shutil.copy(provider.directory / "other.pem", mine)
        reloaded = await relay.reload()
        assert not reloaded.accepted
        assert "key values mismatch" in reloaded.messages[0]
        assert "status=sent" in await send(relay, log), "the old pair stays in use"
