"""AUTH at a host that proved who it is, and what a host hears that did not: no octet of the credentials."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest

from relay.dane.tlsa import MatchingType, Selector, Tlsa, Usage
from relay.delivery.client import SmtpConnection
from relay.delivery.opening import Opening, Session
from relay.delivery.options import DeliveryOptions, Timeouts
from relay.delivery.session import SessionOpener
from relay.delivery.trouble import Kind, Trouble
from relay.lab.ca import Authority, CertificateKind, Credential, tlsa_rdata
from relay.log.events import Event, TlsRefused
from relay.mail.envelope import QueueId
from relay.mail.names import Domain
from relay.mail.reply import EnhancedStatus
from relay.outcome.result import FromPeer, RelayHost
from relay.policy.level import Level
from relay.policy.policy import LiteralName, Rule, TlsPolicy
from relay.sasl.credentials import Credentials, Owner, Password, TokenCommand, TokenFile
from relay.sasl.secret import Secret
from relay.tls.chain import ChainChecker
from relay.tls.handshake import ClientContexts
from tests.auth_scripts import (
    PASSWORD,
    REFUSED,
    TAKEN,
    TOKEN,
    USER,
    Answer,
    Bearer,
    Plain,
    Scram,
    b64,
    shows_credentials,
)
from tests.loopback import LoopbackNetwork
from tests.recording_sink import RecordingSink, server_context

NAME = "smtp.provider.test"
RULE = "sasl_passwd:1"
JOE = Credentials(user=USER, proof=Password(Secret(PASSWORD)), place=RULE, owner=Owner.NEXT_HOP)
SECURE = TlsPolicy(level=Level.SECURE, asked=Level.DANE, rule=Rule(RULE), names=(LiteralName(Domain(NAME)),), sni=NAME)


def silent(_: bytes) -> str | None:
    return None


class Watched(SessionOpener):
    """Remembers its connections, so that a test can see them end."""

    connections: list[SmtpConnection]

    async def negotiate(self, opening: Opening, *, plaintext: bool) -> Session:
        self.connections = [opening.connection]
        return await super().negotiate(opening, plaintext=plaintext)


@dataclass
class Scene:
    """One host, and ways to open a session with it."""

    directory: Path
    stack: ExitStack
    events: list[Event] = field(default_factory=list)
    options: DeliveryOptions = field(
        default_factory=lambda: DeliveryOptions(helo_name="relay.test", timeouts=Timeouts(helo=5, starttls=5))
    )
    sink: RecordingSink = field(init=False)
    credential: Credential | None = None

    def __post_init__(self) -> None:
        self.authority = Authority(self.directory, datetime.now(UTC))

    def host(
        self,
        auth: str = "",
        answer: Answer = silent,
        *,
        kind: CertificateKind | None = CertificateKind.GOOD,
        wrapped: bool = False,
    ) -> None:
        self.credential = self.authority.issue(kind, NAME) if kind else None
        context = server_context(self.credential.pem_file) if self.credential else None
        keywords = ["PIPELINING", *([f"AUTH {auth}".rstrip()] if auth else [])]
        address = LoopbackNetwork().address(1)
        sink = RecordingSink(address, 0, context=context, wrapped=wrapped, keywords=keywords, answer=answer)
        self.sink = self.stack.enter_context(sink)

    async def open(
        self, credentials: Credentials = JOE, policy: TlsPolicy = SECURE, *, plaintext: bool = False
    ) -> Session | Trouble:
        opener = Watched(
            self.options,
            context_for=ClientContexts().client_context,
            check_chain=ChainChecker.load(cafile=str(self.authority.ca_file)),
            clock=lambda: datetime.now(UTC),
            observe=self.events.append,
        )
        relay = RelayHost(NAME, ip_address(self.sink.address), self.sink.port)
        opened = await opener.open(relay, policy, QueueId("4XYZ"), plaintext=plaintext, credentials=credentials)
        for connection in opener.connections:
            connection.close()
            await connection.wait_closed(5)
        for secret in (PASSWORD, TOKEN, b64(f"\0{USER}\0{PASSWORD}".encode())):
            assert secret not in repr((opened, self.events))
        return opened

    async def refused(self, credentials: Credentials = JOE, policy: TlsPolicy = SECURE) -> Trouble:
        opened = await self.open(credentials, policy)
        assert isinstance(opened, Trouble), opened
        return opened

    @property
    def heard(self) -> list[bytes]:
        return [line for line, _ in self.sink.heard()]

    def credentials_heard(self) -> bool:
        return shows_credentials(self.heard)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(tmp_path, stack)


# --- logging in


@pytest.mark.parametrize(
    ("offered", "script", "mechanism"),
    [
        ("PLAIN LOGIN", Plain(), b"AUTH PLAIN"),
        ("LOGIN", Plain(), b"AUTH LOGIN"),
        ("=LOGIN PLAIN", Plain(), b"AUTH PLAIN"),
        ("LOGIN PLAIN CRAM-MD5 SCRAM-SHA-256", Scram(), b"AUTH SCRAM-SHA-256"),
    ],
)
async def test_the_best_mechanism_logs_in_after_the_verdict(
    scene: Scene, offered: str, script: Answer, mechanism: bytes
) -> None:
    scene.host(offered, script)
    opened = await scene.open()
    assert isinstance(opened, Session), opened
    commands = [line.split()[0] for line in scene.heard if line and line.split()[0] in (b"EHLO", b"STARTTLS", b"AUTH")]
    assert commands == [b"EHLO", b"STARTTLS", b"EHLO", b"AUTH"]
    assert any(line.startswith(mechanism) for line in scene.heard)
    assert all(encrypted for line, encrypted in scene.sink.heard() if not line.startswith((b"EHLO", b"STARTTLS")))


@pytest.mark.parametrize("offered", ["OAUTHBEARER XOAUTH2 PLAIN", "PLAIN XOAUTH2"])
async def test_a_token_logs_in(scene: Scene, offered: str) -> None:
    (scene.directory / "token").write_text(f"{TOKEN}\n")
    scene.host(offered, Bearer())
    opened = await scene.open(replace(JOE, proof=TokenFile(str(scene.directory / "token"))))
    assert isinstance(opened, Session), opened


async def test_a_host_that_does_not_offer_auth_is_talked_to_as_a_stranger(scene: Scene) -> None:
    scene.host("")
    assert isinstance(await scene.open(), Session)
    assert not scene.credentials_heard()


async def test_a_long_initial_response_waits_for_the_challenge(scene: Scene) -> None:
    token = "x" * 2000
    (scene.directory / "token").write_text(token)
    asked: list[bytes] = []

    def answer(line: bytes) -> str | None:
        if line == b"AUTH XOAUTH2":
            return "334 "
        if len(line) > 2000:
            asked.append(base64.b64decode(line))
            return TAKEN
        return None

    scene.host("XOAUTH2", answer)
    opened = await scene.open(replace(JOE, proof=TokenFile(str(scene.directory / "token"))))
    assert isinstance(opened, Session), opened
    assert asked == [f"user={USER}\x01auth=Bearer {token}\x01\x01".encode()]


async def test_a_token_that_is_refused_is_fetched_anew_once(scene: Scene) -> None:
    count = scene.directory / "count"
    script = scene.directory / "get-token"
    script.write_text(f'#!/bin/sh\necho x >> {count}\n[ "$(wc -l < {count})" = 1 ] && echo old || echo {TOKEN}\n')
    script.chmod(0o755)
    scene.host("OAUTHBEARER", Bearer())
    opened = await scene.open(replace(JOE, proof=TokenCommand((str(script),))))
    assert isinstance(opened, Session), opened
    assert [line.split()[:2] for line in scene.heard].count([b"AUTH", b"OAUTHBEARER"]) == 2
    assert b"AQ==" in scene.heard, "RFC 7628 section 3.2.3: the error is acknowledged"


async def test_a_token_that_does_not_change_is_shown_once(scene: Scene) -> None:
    (scene.directory / "token").write_text("old")
    scene.host("OAUTHBEARER", Bearer())
    trouble = await scene.refused(replace(JOE, proof=TokenFile(str(scene.directory / "token"))))
    assert [line.split()[:2] for line in scene.heard].count([b"AUTH", b"OAUTHBEARER"]) == 1
    assert trouble.reason.endswith(f"said: {REFUSED}")


async def test_without_a_token_mail_waits_and_says_why(scene: Scene) -> None:
    scene.host("OAUTHBEARER", Bearer())
    trouble = await scene.refused(replace(JOE, proof=TokenFile("/nonexistent/token")))
    assert trouble.reason == (
        f"SASL authentication failed; cannot authenticate to server {NAME}[{scene.sink.address}]: no access token: "
        f"expected an access token; found /nonexistent/token: No such file or directory; rule {RULE}"
    )
    assert trouble.kind is Kind.SOFT
    assert not scene.credentials_heard()


# --- being refused


async def test_a_refusal_defers_in_postfixs_words(scene: Scene) -> None:
    scene.host("PLAIN", lambda line: REFUSED if line.startswith(b"AUTH") else None)
    trouble = await scene.refused()
    assert trouble.reason == f"SASL authentication failed; server {NAME}[{scene.sink.address}] said: {REFUSED}"
    assert (trouble.status, trouble.kind) == (EnhancedStatus(4, 7, 8), Kind.SOFT)
    assert isinstance(trouble.diagnostic, FromPeer)
    assert (trouble.throttles, trouble.handshake, trouble.verdict_reached) == (True, False, False)


@pytest.mark.parametrize("quote", ["502 5.5.2 Unknown command: {}", "{}"])
async def test_a_host_that_quotes_us_is_not_quoted(scene: Scene, quote: str) -> None:
    scene.host("PLAIN", lambda line: quote.format(line.decode()) if line.startswith(b"AUTH") else None)
    trouble = await scene.refused()
    wanted = "Unknown command: AUTH PLAIN <secret>" if " " in quote else "protocol error"
    assert wanted in trouble.reason
    assert b64(f"\0{USER}".encode())[:8] not in trouble.reason


async def test_soft_bounce_off_takes_the_hosts_word(scene: Scene) -> None:
    scene.options = replace(scene.options, sasl_auth_soft_bounce=False)
    scene.host("PLAIN", lambda line: REFUSED if line.startswith(b"AUTH") else None)
    trouble = await scene.refused()
    assert (trouble.status, trouble.kind) == (EnhancedStatus(5, 7, 8), Kind.HARD)


@pytest.mark.parametrize("soft_bounce", [True, False])
async def test_a_passing_refusal_passes(scene: Scene, soft_bounce: bool) -> None:
    scene.options = replace(scene.options, sasl_auth_soft_bounce=soft_bounce)
    scene.host("PLAIN", lambda line: "454 4.7.0 Temporary failure" if line.startswith(b"AUTH") else None)
    trouble = await scene.refused()
    assert (trouble.status, trouble.kind) == (EnhancedStatus(4, 7, 0), Kind.SOFT)


@pytest.mark.parametrize(
    ("offered", "words", "text"),
    [
        ("CRAM-MD5 GSSAPI", (), "; cannot authenticate to server {}: no mechanism available: expected one of SCRAM"),
        (
            "PLAIN",
            ("login",),
            ": server {} offered no compatible authentication mechanisms for this type of connection",
        ),
        ("XOAUTH2", (), "; cannot authenticate to server {}: no mechanism available"),
    ],
)
async def test_no_mechanism_that_fits_defers(scene: Scene, offered: str, words: tuple[str, ...], text: str) -> None:
    scene.options = replace(scene.options, sasl_mechanism_filter=words)
    scene.host(offered, Plain())
    trouble = await scene.refused()
    assert trouble.reason.startswith("SASL authentication failed" + text.format(f"{NAME}[{scene.sink.address}]"))
    assert (trouble.status, trouble.kind) == (EnhancedStatus(4, 7, 0), Kind.SOFT)
    assert not scene.credentials_heard()


@pytest.mark.parametrize(
    ("script", "found"),
    [
        (Scram(early=True), "a success before the host proved"),
        (Scram(lambda text: "v=AAAA" if text.startswith("v=") else text), "does not prove that it knows"),
        (Scram(lambda text: text.replace("i=4096", "i=1")), "1 SCRAM iterations"),
        (Scram(lambda text: text.replace("i=4096", "i=90000000")), "90000000 SCRAM iterations"),
        (lambda line: "334 " if line.startswith(b"AUTH") else None, "malformed"),
        (lambda line: "334 ***" if line.startswith(b"AUTH") else None, "no base64"),
        (lambda line: "354 go on" if line.startswith(b"AUTH") else None, "reply 354"),
        (lambda line: TAKEN if line.startswith(b"AUTH") else None, "a success before the host proved"),
    ],
)
async def test_a_host_that_cheats_in_scram_gets_no_mail(scene: Scene, script: Answer, found: str) -> None:
    scene.host("SCRAM-SHA-256", script)
    trouble = await scene.refused()
    assert "SCRAM-SHA-256 failed: expected an exchange by the book; found" in trouble.reason
    assert found in trouble.reason
    assert trouble.kind is Kind.SOFT
    assert not any(line.startswith(b"MAIL") for line in scene.heard)


async def test_challenges_without_end_end(scene: Scene) -> None:
    scene.host(
        "LOGIN", lambda line: None if line.startswith((b"EHLO", b"STARTTLS", b"QUIT")) or not line else "334 VXNlcg=="
    )
    trouble = await scene.refused()
    assert "a challenge after all was said" in trouble.reason


async def test_a_host_that_hangs_up_is_a_lost_connection(scene: Scene) -> None:
    def answer(line: bytes) -> str | None:
        if line.startswith(b"AUTH"):
            raise OSError
        return None

    scene.host("PLAIN", answer)
    trouble = await scene.refused()
    assert trouble.reason == f"lost connection with {NAME}[{scene.sink.address}] while performing SASL authentication"


async def test_a_host_that_falls_silent_runs_into_the_deadline(scene: Scene) -> None:
    scene.options = replace(scene.options, timeouts=Timeouts(helo=0.3, starttls=5))
    scene.host("PLAIN", lambda line: "235-and then nothing more" if line.startswith(b"AUTH") else None)
    trouble = await scene.refused()
    assert "timed out while performing SASL authentication" in trouble.reason


# --- who may not see them


@pytest.mark.parametrize(
    "kind",
    [
        CertificateKind.WRONG_NAME,
        CertificateKind.EXPIRED,
        CertificateKind.SELF_SIGNED,
        CertificateKind.UNKNOWN_CA,
        None,
    ],
)
async def test_a_host_that_proves_nothing_hears_nothing(scene: Scene, kind: CertificateKind | None) -> None:
    scene.host("PLAIN LOGIN", Plain(), kind=kind)
    trouble = await scene.refused()
    assert trouble.kind is Kind.SOFT
    assert not scene.credentials_heard()


@pytest.mark.parametrize("level", [Level.NONE, Level.MAY, Level.ENCRYPT])
@pytest.mark.parametrize("kind", [CertificateKind.GOOD, None])
async def test_even_a_policy_that_decide_never_gives_withholds_them(
    scene: Scene, level: Level, kind: CertificateKind | None
) -> None:
    scene.host("PLAIN LOGIN", Plain(), kind=kind)
    trouble = await scene.refused(policy=replace(SECURE, level=level, asked=level))
    wanted = "SASL credentials withheld" if kind or level is not Level.ENCRYPT else "TLS is required"
    assert trouble.reason.startswith(wanted)
    assert not scene.credentials_heard()


@pytest.mark.parametrize("owner", list(Owner))
async def test_half_dane_shows_them_only_to_the_host_that_they_are_for(scene: Scene, owner: Owner) -> None:
    scene.host("PLAIN", Plain(), kind=CertificateKind.SELF_SIGNED)
    assert scene.credential is not None
    rdata = tlsa_rdata(3, 1, 1, scene.credential.leaf)
    record = Tlsa(Usage.DANE_EE, Selector.SPKI, MatchingType.SHA2_256, rdata[3:])
    half = replace(SECURE, level=Level.HALFDANE, asked=Level.DANE, tlsa=(record,), tlsa_base=NAME)
    opened = await scene.open(replace(JOE, owner=owner), half)
    assert isinstance(opened, Session) is (owner is Owner.HOST), opened
    assert scene.credentials_heard() is (owner is Owner.HOST)


async def test_a_retry_in_the_clear_withholds_them(scene: Scene) -> None:
    scene.host("PLAIN LOGIN", Plain())
    opened = await scene.open(policy=replace(SECURE, level=Level.MAY), plaintext=True)
    assert isinstance(opened, Trouble)
    assert opened.reason.startswith("SASL credentials withheld")
    assert not scene.credentials_heard()


# --- implicit TLS


def wrapped(scene: Scene) -> None:
    scene.options = replace(scene.options, wrapped_ports=frozenset({scene.sink.port}))


async def test_implicit_tls_says_nothing_before_the_verdict(scene: Scene) -> None:
    scene.host("PLAIN", Plain(), wrapped=True)
    wrapped(scene)
    opened = await scene.open()
    assert isinstance(opened, Session), opened
    assert [line.split()[0] for line in scene.heard][:2] == [b"EHLO", b"AUTH"]
    assert all(encrypted for _, encrypted in scene.sink.heard())


@pytest.mark.parametrize("kind", [CertificateKind.WRONG_NAME, CertificateKind.EXPIRED, CertificateKind.SELF_SIGNED])
async def test_implicit_tls_is_judged_like_any_session(scene: Scene, kind: CertificateKind) -> None:
    scene.host("PLAIN", Plain(), kind=kind, wrapped=True)
    wrapped(scene)
    trouble = await scene.refused()
    assert trouble.reason.startswith("Server certificate not verified")
    assert trouble.tls == "!secure"
    assert any(isinstance(event, TlsRefused) for event in scene.events)
    assert not [line for line in scene.heard if line != b"QUIT"]


@pytest.mark.parametrize("level", [Level.MAY, Level.SECURE])
async def test_a_port_without_implicit_tls_is_no_reason_for_the_clear(scene: Scene, level: Level) -> None:
    scene.host("PLAIN", Plain())
    wrapped(scene)
    trouble = await scene.refused(policy=replace(SECURE, level=level))
    assert trouble.reason.startswith("Cannot start TLS: handshake failure")
    assert not trouble.handshake, "a retry in the clear would wait for ever, or worse"
    assert not [line for line in scene.heard if line.isascii() and line.startswith((b"EHLO", b"AUTH"))]


async def test_a_policy_without_tls_cannot_go_to_such_a_port(scene: Scene) -> None:
    scene.host("PLAIN", Plain(), wrapped=True)
    wrapped(scene)
    trouble = await scene.refused(policy=replace(SECURE, level=Level.NONE))
    assert trouble.reason.startswith("client TLS configuration problem: expected a level that uses TLS")
    assert trouble.kind is Kind.SOFT
