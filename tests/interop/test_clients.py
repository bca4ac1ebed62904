"""The client side of the world works unchanged: nodemailer, msmtp, aiosmtplib, gsasl, curl, swaks, and Postfix with a relayhost.

Each sends over STARTTLS and over TLS from the first octet where it can, checks our certificate, logs in, and what it sent is
looked up at the receiver. test_authentication.py has Python's smtplib, and more of swaks and curl.
"""

from __future__ import annotations

import asyncio
import email
import json
import os
import smtplib
import ssl
import subprocess
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from pathlib import Path

import aiosmtplib
import pytest

from tests.interop import servers
from tests.interop.front_door import HOST, PASSWORD, USER, logged_in, login_relay, submissions
from tests.interop.nameservers import Endpoint
from tests.interop.places import places
from tests.interop.postfix import Listener, postfix
from tests.loopback import free_port
from tests.recording_sink import RecordingSink
from tests.relay_process import RelayProcess
from tests.watched_process import PATIENCE

pytestmark = pytest.mark.interop

RECIPIENTS = ("ann@sink.test", "bob@sink.test")
SUBJECT, TEXT = "Grüße", "Zeile eins\n.\n..Zeile drei, gr\u00fcn\n"
BOTH_PORTS = pytest.mark.parametrize("wrapped", [False, True], ids=["starttls", "submissions"])


@pytest.fixture
def relay(tmp_path: Path, sink: RecordingSink) -> Iterator[RelayProcess]:
    with login_relay(tmp_path, sink) as relay:
        yield relay


def port(relay: RelayProcess, wrapped: bool) -> int:
    return submissions(relay) if wrapped else relay.port


def run(
    *command: object, text: bytes = b"", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    words = [str(word) for word in command]
    environment = {**os.environ, **(environment or {})}
    return subprocess.run(words, input=text, capture_output=True, timeout=120, check=False, env=environment)


def message() -> EmailMessage:
    made = EmailMessage(policy=policy.SMTP)
    made["From"], made["To"], made["Subject"] = USER, ", ".join(RECIPIENTS), SUBJECT
    made.set_content(TEXT)
    return made


def arrived(sink: RecordingSink) -> EmailMessage:
    """What came in for both recipients, as one message or two; the first is given, and it is what was sent."""
    taken = sink.wait_for_messages(1)
    while sum(len(one.rcpts) for one in taken) < len(RECIPIENTS):
        taken = sink.wait_for_messages(len(taken) + 1)
    words = b" ".join(rcpt for one in taken for rcpt in one.rcpts)
    assert all(f"<{recipient}>".encode() in words for recipient in RECIPIENTS), words
    assert all(f"<{USER}>".encode() in one.mail for one in taken)
    found = email.message_from_bytes(taken[0].content, policy=policy.SMTP)
    assert isinstance(found, EmailMessage)
    assert found["Subject"] == SUBJECT
    body = found.get_body(("plain",))
    assert body is not None
    assert body.get_content().replace("\r\n", "\n").rstrip("\n") == TEXT.rstrip("\n")
    return found


def nodemailer(
    relay: RelayProcess, wrapped: bool, password: str, method: str, **more: object
) -> tuple[int, dict[str, object]]:
    transport = {
        "host": relay.address,
        "port": port(relay, wrapped),
        "secure": wrapped,
        "requireTLS": not wrapped,
        "name": "client.test",
        "auth": {"user": USER, "pass": password},
        "authMethod": method,
        "tls": {"ca": (relay.directory / "ca.pem").read_text(), "servername": HOST},
    }
    content = {"from": USER, "to": list(RECIPIENTS), "subject": SUBJECT, "text": TEXT, **more}
    script = Path(__file__).with_name("nodemailer_send.js")
    given = json.dumps({"transport": transport, "message": content})
    modules = str(servers.require_nodemailer())
    done = run(servers.require("node"), script, given, environment={"NODE_PATH": modules})
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@BOTH_PORTS
def test_nodemailer(relay: RelayProcess, sink: RecordingSink, wrapped: bool) -> None:
    """As a web application sends: both login methods, a large attachment, a recipient that is none, a wrong password."""
    size = 3_000_000
    method = "LOGIN" if wrapped else "PLAIN"
    status, answer = nodemailer(relay, wrapped, PASSWORD, method, big=size)
    assert (status, answer["accepted"], answer["rejected"]) == (0, list(RECIPIENTS), [])
    attachment = next(arrived(sink).iter_attachments())
    assert attachment.get_content() == bytes([7]) * size
    logged_in(relay, method)
    status, answer = nodemailer(relay, wrapped, PASSWORD, method, to=["ann@sink.test", "bob@sink..test"])
    assert (status, answer["accepted"], answer["rejected"]) == (0, ["ann@sink.test"], ["bob@sink..test"])
    status, answer = nodemailer(relay, wrapped, "wrong", method)
    assert (status, answer["code"], answer["responseCode"]) == (1, "EAUTH", 535)


@BOTH_PORTS
@pytest.mark.parametrize("method", ["plain", "login", "scram-sha-256"])
def test_msmtp(relay: RelayProcess, sink: RecordingSink, tmp_path: Path, wrapped: bool, method: str) -> None:
    """A sendmail(1) for machines without a server; its SCRAM is GNU SASL's."""
    program, configuration = servers.require("msmtp"), tmp_path / "msmtprc"

    def send(password: str) -> subprocess.CompletedProcess[bytes]:
        configuration.write_text(
            f"account default\nhost {relay.address}\nport {port(relay, wrapped)}\nfrom {USER}\ndomain client.test\n"
            f"tls on\ntls_starttls {'off' if wrapped else 'on'}\ntls_trust_file {relay.directory / 'ca.pem'}\n"
            f"tls_host_override {HOST}\nauth {method}\nuser {USER}\npassword {password}\n"
        )
        configuration.chmod(0o600)
        return run(program, "-C", configuration, *RECIPIENTS, text=message().as_bytes(policy=policy.default))

    done = send(PASSWORD)
    assert done.returncode == 0, done.stderr
    arrived(sink)
    logged_in(relay, method.upper())
    wrong = send("wrong")
    assert wrong.returncode == 77, wrong.stderr  # EX_NOPERM
    assert b"authentication failed" in wrong.stderr


@BOTH_PORTS
def test_aiosmtplib(relay: RelayProcess, sink: RecordingSink, wrapped: bool) -> None:
    context = ssl.create_default_context(cafile=relay.directory / "ca.pem")
    context.check_hostname = False  # it takes the name from the address

    async def send(password: str, *recipients: str) -> tuple[dict[str, aiosmtplib.SMTPResponse], str]:
        client = aiosmtplib.SMTP(
            hostname=relay.address,
            port=port(relay, wrapped),
            use_tls=wrapped,
            start_tls=None if wrapped else True,
            tls_context=context,
            local_hostname="client.test",
        )
        await client.connect()
        try:
            await client.login(USER, password)
            return await client.send_message(message(), recipients=recipients)
        finally:
            socket = client.get_transport_info("socket")
            await client.quit()
            async with asyncio.timeout(PATIENCE):
                while socket.fileno() >= 0:  # the loop must not end before TLS has
                    await asyncio.sleep(0.01)

    errors, _ = asyncio.run(send(PASSWORD, *RECIPIENTS))
    assert not errors
    arrived(sink)
    errors, _ = asyncio.run(send(PASSWORD, "ann@sink.test", "bob@sink..test"))
    assert {address: answer.code for address, answer in errors.items()} == {"bob@sink..test": 501}
    with pytest.raises(aiosmtplib.SMTPAuthenticationError) as refused:
        asyncio.run(send("wrong", *RECIPIENTS))
    assert refused.value.code == 535


@pytest.mark.parametrize("method", ["PLAIN", "LOGIN", "SCRAM-SHA-256"])
def test_gsasl(relay: RelayProcess, method: str) -> None:
    """GNU SASL's own program, which checks the server's proof too."""
    program = servers.require("gsasl")

    def login(password: str) -> subprocess.CompletedProcess[bytes]:
        return run(
            *(program, "--smtp", "--connect", f"{relay.address}:{relay.port}", "--mechanism", method, "--no-cb"),
            *("--authentication-id", USER, "--password", password, "--quiet"),
            "--x509-ca-file=",  # it knows the host by its address only, which no certificate has
        )

    done = login(PASSWORD)
    assert b"235 2.7.0" in done.stdout, done
    wrong = login("wrong")
    assert wrong.returncode
    assert b"235" not in wrong.stdout


@pytest.mark.parametrize("method", ["PLAIN", "LOGIN"])
@BOTH_PORTS
def test_curl(relay: RelayProcess, sink: RecordingSink, tmp_path: Path, wrapped: bool, method: str) -> None:
    (tmp_path / "mail").write_bytes(message().as_bytes())
    where = port(relay, wrapped)

    def send(password: str) -> subprocess.CompletedProcess[bytes]:
        return run(
            *(servers.require("curl"), "-sv", "--ssl-reqd", "--cacert", tmp_path / "ca.pem"),
            *("--connect-to", f"{HOST}:{where}:{relay.address}:{where}", "--login-options", f"AUTH={method}"),
            *("--url", f"{'smtps' if wrapped else 'smtp'}://{HOST}:{where}/client.test", "-u", f"{USER}:{password}"),
            *(
                "--mail-from",
                USER,
                *(word for one in RECIPIENTS for word in ("--mail-rcpt", one)),
                "-T",
                tmp_path / "mail",
            ),
        )

    done = send(PASSWORD)
    assert done.returncode == 0, done.stderr
    arrived(sink)
    logged_in(relay, method)
    assert send("wrong").returncode == 67  # CURLE_LOGIN_DENIED


@pytest.mark.parametrize("method", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize(
    "mode",
    [
        ["-tls"],
        ["-tlso"],
        ["-tlsc"],
        ["-tls", "--tls-verify"],
        ["-tls", "--tls-protocol", "tlsv1_2"],
        ["-tls", "--pipeline"],
    ],
    ids=" ".join,
)
def test_swaks(relay: RelayProcess, sink: RecordingSink, swaks: Path, mode: list[str], method: str) -> None:
    """Its ways into TLS and its ways to log in, each with each, and pipelining."""
    verified = ["--tls-ca-path", str(relay.directory / "ca.pem")] if "--tls-verify" in mode else []
    done = run(
        *(
            swaks,
            "--server",
            relay.address,
            "--port",
            port(relay, "-tlsc" in mode),
            "--helo",
            "client.test",
            *mode,
            *verified,
        ),
        *("--from", USER, "--to", ",".join(RECIPIENTS), "--data", "-"),
        *("--auth", method, "--auth-user", USER, "--auth-password", PASSWORD),
        text=message().as_bytes(policy=policy.default),
    )
    assert done.returncode == 0, done.stdout
    arrived(sink)
    logged_in(relay, method)


@BOTH_PORTS
@pytest.mark.parametrize("method", ["plain", "login", "scram-sha-256"])
def test_postfix_with_a_relayhost(relay: RelayProcess, sink: RecordingSink, wrapped: bool, method: str) -> None:
    """Postfix as it is set up for a smarthost: it verifies our certificate and logs in through Cyrus SASL."""
    servers.require("saslpasswd2")  # with it come the mechanisms
    entrance = Endpoint("127.0.0.1", free_port())
    relayhost = f"[{relay.address}]:{port(relay, wrapped)}"
    with places("postfix") as (directory,):
        authority = directory / "ca.pem"
        authority.write_bytes((relay.directory / "ca.pem").read_bytes())
        settings = {
            "mynetworks": "127.0.0.0/8",
            "relayhost": relayhost,
            "smtp_tls_security_level": "secure",
            "smtp_tls_secure_cert_match": HOST,
            "smtp_tls_CAfile": str(authority),
            "smtp_tls_wrappermode": "yes" if wrapped else "no",
            "smtp_tls_loglevel": "1",
            "smtp_sasl_auth_enable": "yes",
            "smtp_sasl_password_maps": f"inline:{{ {{ {relayhost} = {USER}:{PASSWORD} }} }}",
            "smtp_sasl_security_options": "noanonymous",
            "smtp_sasl_mechanism_filter": method,
        }
        with postfix([Listener("in", entrance)], directory, settings=settings) as running:
            with smtplib.SMTP(entrance.address, entrance.port, "client.test", timeout=60) as client:
                client.sendmail(USER, list(RECIPIENTS), message().as_bytes(), ["BODY=8BITMIME"])
            running.process.wait_for("Verified TLS connection established")
            for recipient in RECIPIENTS:
                running.process.wait_for(
                    rf"to=<{recipient}>, relay=127\.0\.0\.1.*status=sent \(250 2\.0\.0 Ok: queued as"
                )
            arrived(sink)
    logged_in(relay, method.upper())
