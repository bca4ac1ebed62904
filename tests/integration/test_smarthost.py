"""A relay that logs in at its smarthost, and hosts that make believe to be it: what they hear is on record."""

from __future__ import annotations

import asyncio
import base64
import smtplib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.app.relay import Relay, open_relay
from relay.config.load import read
from relay.lab.ca import Authority, CertificateKind, Credential, tlsa_rdata
from relay.lab.nameserver import Fault, NameServer, Trust, Zone
from tests.auth_scripts import PASSWORD, REFUSED, TAKEN, TOKEN, USER, Answer, Bearer, Plain, Scram, shows_credentials
from tests.loopback import LoopbackNetwork
from tests.recording_sink import RecordingSink, server_context
from tests.resolved_world import Log

NAME = "smtp.provider.test"
OTHER = "another password"


@dataclass
class Scene:
    """A smarthost at one address, and a relay that is told to send all mail there."""

    directory: Path
    stack: AsyncExitStack
    log: Log = field(default_factory=Log)
    records: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    faults: dict[tuple[str, str], Fault] = field(default_factory=dict)
    sink: RecordingSink = field(init=False)
    relay: Relay = field(init=False)
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.authority = Authority(self.directory, datetime.now(UTC))
        (self.directory / "state").mkdir(mode=0o700)

    def host(
        self,
        answer: Answer,
        *,
        kind: CertificateKind | None = CertificateKind.GOOD,
        auth: str = "PLAIN LOGIN",
        wrapped: bool = False,
    ) -> Credential:
        credential = self.authority.issue(kind or CertificateKind.GOOD, NAME)
        self.sink = self.stack.enter_context(
            RecordingSink(
                LoopbackNetwork().address(7),
                0,
                context=server_context(credential.pem_file) if kind else None,
                wrapped=wrapped,
                keywords=["PIPELINING", "8BITMIME", *([f"AUTH {auth}"] if auth else [])],
                answer=answer,
            )
        )
        self.records[f"{NAME}.", "A"] = (self.sink.address,)
        self.key = f"[{NAME}]:{self.sink.port}"
        return credential

    def tlsa(self, credential: Credential, *, matches: bool = True) -> None:
        data = tlsa_rdata(3, 1, 1, credential.leaf)[3:].hex() if matches else "00" * 32
        self.records[f"_{self.sink.port}._tcp.{NAME}.", "TLSA"] = (f"3 1 1 {data}",)

    async def start(
        self, *, passwords: str = "", policy: str = "", smtp: str = "", trust: Trust = Trust.SECURE
    ) -> None:
        (self.directory / "sasl_passwd").write_text(passwords or f"{self.key} {USER}:{PASSWORD}\n")
        (self.directory / "tls_policy").write_text(policy.format(key=self.key))
        root = Zone(".", Trust.SECURE, {(".", "NS"): ("ns.test.",)})
        server = NameServer((root, Zone("provider.test.", trust, self.records, self.faults)))
        self.stack.push_async_callback(server.stop)
        host, port = await server.start()
        config = read(
            '[relay]\nmyhostname = "relay.test"\nstate_dir = "state"\n[smtpd]\nlisten = ["127.0.0.1:0"]\n'
            f'[smtp]\nrelayhost = "{self.key}"\ntls_policy_maps = ["tls_policy"]\nsasl_password_maps = ["sasl_passwd"]\n'
            f'tls_CAfile = "{self.authority.ca_file}"\n{smtp}\n'
            f'[dns]\nmode = "trust-ad"\nnameservers = ["{host}:{port}"]\n[http]\nlisten = ""\n',
            name="relay.toml",
            base=self.directory,
            environ={},
            hostname="relay.test",
        )
        self.relay = await self.stack.enter_async_context(open_relay(config, write_line=self.log.write))

    async def send(self, sender: str = "ann@client.test") -> str:
        """Hand in a message; returns what stands behind its queue ID in its status line."""

        def talk() -> str:
            with smtplib.SMTP(*self.relay.smtp_addresses[0], local_hostname="client.test", timeout=60) as client:
                client.ehlo()
                client.mail(sender)
                client.rcpt("bob@elsewhere.test")
                _, text = client.data(b"Subject: hello\r\n\r\nhello\r\n")
                return text.decode().rpartition(" ")[2]

        queue_id = await asyncio.to_thread(talk)
        line = await self.log.wait_for(rf": {queue_id}: to=<bob@elsewhere\.test>.* status=")
        return line.partition(f"{queue_id}: ")[2]

    def heard_credentials(self) -> bool:
        return shows_credentials(line for line, _ in self.sink.heard())


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        made = Scene(tmp_path, stack)
        yield made
    shown = "\n".join(made.log.lines)
    assert PASSWORD not in shown
    assert TOKEN not in shown


@pytest.mark.parametrize("level", ["none", "may", "encrypt", "dane"])
async def test_without_a_line_the_host_shows_a_certificate_for_its_name(scene: Scene, level: str) -> None:
    scene.host(Scram(), auth="SCRAM-SHA-256 PLAIN")
    await scene.start(smtp=f'tls_security_level = "{level}"')
    status = await scene.send()
    assert "tls=secure, dsn=2.0.0, status=sent" in status
    assert [message.encrypted for message in scene.sink.messages()] == [True]
    commands = [line.split()[0] for line, _ in scene.sink.heard() if line[:4] in (b"EHLO", b"STAR", b"AUTH", b"MAIL")]
    assert commands == [b"EHLO", b"STARTTLS", b"EHLO", b"AUTH", b"MAIL"]


async def test_a_session_carries_mail_of_one_login_only(scene: Scene) -> None:
    """Who logs in by another line, or not at all, has a session of his own, be user and password the same."""
    scene.host(Plain())
    passwords = f"ann@client.test {USER}:{PASSWORD}\nbob@client.test {USER}:{PASSWORD}\n"
    await scene.start(
        passwords=passwords,
        policy="{key} secure match=hostname\n",
        smtp='sender_dependent_authentication = true\nconnection_cache_time_limit = "60s"\n',
    )
    used = []
    for sender in ("ann", "ann", "bob", "bob", "cid", "cid", "ann"):
        status = await scene.send(f"{sender}@client.test")
        assert "tls=secure, dsn=2.0.0, status=sent" in status
        used.append("conn_use=2" in status)
    assert used == [False, True, False, True, False, True, False]
    heard = [line.split(b":")[-1] if line[:4] == b"MAIL" else line[:4] for line, _ in scene.sink.heard()]
    assert [word for word in heard if word == b"AUTH" or b"@" in word] == [
        *(b"AUTH", b"<ann@client.test>", b"<ann@client.test>"),
        *(b"AUTH", b"<bob@client.test>", b"<bob@client.test>"),
        *(b"<cid@client.test>", b"<cid@client.test>"),
        *(b"AUTH", b"<ann@client.test>"),
    ]


async def test_where_its_records_are_usable_it_is_dane(scene: Scene) -> None:
    scene.tlsa(scene.host(Plain(), kind=CertificateKind.SELF_SIGNED))
    await scene.start(smtp='tls_security_level = "may"')
    assert "tls=dane, dsn=2.0.0, status=sent" in await scene.send()


async def test_a_resolver_that_does_not_validate_does_not_stop_a_smarthost(scene: Scene) -> None:
    scene.host(Plain())
    await scene.start(trust=Trust.INSECURE)
    assert "tls=secure, dsn=2.0.0, status=sent" in await scene.send()


async def test_implicit_tls(scene: Scene) -> None:
    scene.host(Plain(), wrapped=True)
    await scene.start(smtp=f"tls_wrappermode_ports = [{scene.sink.port}]")
    assert "tls=secure, dsn=2.0.0, status=sent" in await scene.send()
    assert all(encrypted for _, encrypted in scene.sink.heard())


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (None, "TLS is required, but was not offered by host"),
        (CertificateKind.WRONG_NAME, "Server certificate not verified: expected "),
        (CertificateKind.EXPIRED, "Server certificate not verified: expected "),
        (CertificateKind.SELF_SIGNED, "Server certificate not verified: expected "),
        (CertificateKind.UNKNOWN_CA, "Server certificate not verified: expected "),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_host_that_proves_nothing_hears_nothing(
    scene: Scene, kind: CertificateKind | None, reason: str, wrapped: bool
) -> None:
    if wrapped and kind is None:
        reason = "Cannot start TLS: handshake failure"
    scene.host(Plain(), kind=kind, wrapped=wrapped)
    ports = f"tls_wrappermode_ports = [{scene.sink.port if wrapped else 465}]"
    await scene.start(smtp=f'tls_security_level = "may"\n{ports}')
    status = await scene.send()
    assert f"status=deferred ({reason}" in status
    assert "rule sasl_passwd:1" in status
    assert not scene.heard_credentials()
    assert not scene.sink.messages()


async def test_starttls_that_is_refused_is_no_way_out(scene: Scene) -> None:
    plain = Plain()
    scene.host(lambda line: "454 4.7.0 not now" if line == b"STARTTLS" else plain(line))
    await scene.start(smtp='tls_security_level = "may"')
    assert "status=deferred (TLS is required, but host" in await scene.send()
    assert not scene.heard_credentials()


@pytest.mark.parametrize("state", ["mismatch", "lookup fails"])
async def test_records_that_do_not_fit_or_cannot_be_had_hold_mail(scene: Scene, state: str) -> None:
    credential = scene.host(Plain())
    scene.tlsa(credential, matches=False)
    if state == "lookup fails":
        scene.faults[f"_{scene.sink.port}._tcp.{NAME}.", "TLSA"] = Fault.SERVFAIL
    await scene.start(smtp='tls_security_level = "may"\n')
    reason = "Server certificate not verified" if state == "mismatch" else f"TLSA lookup error for {NAME}"
    assert f"status=deferred ({reason}" in await scene.send()
    assert not scene.heard_credentials()


@pytest.mark.parametrize("level", ["none", "may", "encrypt"])
async def test_a_line_that_asks_for_less_withholds_them_and_says_so(scene: Scene, level: str) -> None:
    scene.host(Plain())
    await scene.start(policy=f"{{key}} {level}\n")
    status = await scene.send()
    assert (
        "dsn=4.7.5, status=deferred (SASL credentials withheld: expected a level at which the host proves who it is "
        f"(fingerprint, dane, dane-only, verify or secure); found level {level}; rule tls_policy:1)"
    ) in status
    assert not scene.sink.heard(), "nobody was even called"


async def test_a_wrong_password_defers_and_a_reload_brings_the_right_one(scene: Scene) -> None:
    scene.host(Plain())
    await scene.start(passwords=f"{scene.key} {USER}:{OTHER}\n")
    status = await scene.send()
    assert f"dsn=4.7.8, status=deferred (SASL authentication failed; server {NAME}" in status
    assert status.endswith(f"said: {REFUSED})")
    (scene.directory / "sasl_passwd").write_text(f"{scene.key} {USER}:{PASSWORD}\n")
    assert (await scene.relay.reload()).accepted
    assert "status=sent" in await scene.send()
    assert OTHER not in "\n".join(scene.log.lines)


async def test_a_line_that_cannot_be_read_holds_its_mail_and_is_not_quoted(scene: Scene) -> None:
    scene.host(Plain())
    await scene.start(passwords=f"{scene.key} {PASSWORD}\n")
    status = await scene.send()
    assert (
        "dsn=4.3.5, status=deferred (SASL configuration problem: expected a key, white space and user:password"
        in status
    )
    assert "rule sasl_passwd:1)" in status
    assert not scene.sink.heard()


async def test_credentials_by_sender(scene: Scene) -> None:
    scene.host(lambda line: TAKEN if line.startswith(b"AUTH") else None)
    await scene.start(
        passwords=f"ann@client.test {USER}:{PASSWORD}\n@client.test everyone:{OTHER}\n{NAME} host:{OTHER}\n",
        smtp="sender_dependent_authentication = true",
    )
    for sender in ("Ann@client.test", "bob@client.test", "joe@other.test"):
        assert "status=sent" in await scene.send(sender)
    shown = [base64.b64decode(line.split()[2]).split(b"\0")[1] for line, _ in scene.sink.heard() if line[:4] == b"AUTH"]
    assert shown == [USER.encode(), b"everyone", b"host"]


async def test_a_token_from_a_file(scene: Scene) -> None:
    scene.host(Bearer(), auth="XOAUTH2 OAUTHBEARER")
    (scene.directory / "token").write_text(f'{{"access_token": "{TOKEN}", "expires_in": 3600}}')
    (scene.directory / "sasl_tokens").write_text(f"{scene.key} {USER}:file:token\n")
    await scene.start(passwords="# none\n", smtp='sasl_token_maps = ["sasl_tokens"]')
    assert "status=sent" in await scene.send()
