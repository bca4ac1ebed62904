"""Clients of the world log in at the running relay: swaks, curl, Python's smtplib, and our own SCRAM."""

from __future__ import annotations

import base64
import os
import re
import signal
import smtplib
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.sasl.scram import ScramClient
from relay.sasl.secret import Secret
from tests.interop import servers
from tests.interop.front_door import PASSWORD, USER, login_relay, submissions, user
from tests.recording_sink import RecordingSink
from tests.relay_process import RelayProcess

pytestmark = pytest.mark.interop

CONTENT = b"Subject: hello\r\n\r\nhello\r\n"


@pytest.fixture
def relay(tmp_path: Path, sink: RecordingSink) -> Iterator[RelayProcess]:
    with login_relay(tmp_path, sink) as relay:
        yield relay


def session(relay: RelayProcess) -> smtplib.SMTP:
    client = smtplib.SMTP(relay.address, relay.port, local_hostname="client.test", timeout=60)
    context = ssl.create_default_context(cafile=relay.directory / "ca.pem")
    context.check_hostname = False
    client.starttls(context=context)
    client.ehlo()
    return client


def queued(relay: RelayProcess, text: str, method: str) -> None:
    """What the log says of a message that was taken, and that it arrives."""
    found = re.search(r"queued as (\w+)", text)
    assert found, text
    relay.process.wait_for(
        rf": {found[1]}: client=localhost\[127\.0\.0\.1\], sasl_method={method}, sasl_username={re.escape(USER)}$"
    )
    assert "status=sent" in relay.wait_for_status(found[1])


@pytest.mark.parametrize("method", ["PLAIN", "LOGIN"])
def test_smtplib(relay: RelayProcess, sink: RecordingSink, method: str) -> None:
    with session(relay) as client:
        client.user, client.password = USER, PASSWORD
        client.auth(method, client.auth_plain if method == "PLAIN" else client.auth_login)
        client.sendmail("joe@client.test", ["ann@sink.test"], CONTENT)
    assert b" with ESMTPSA id " in sink.wait_for_messages(1)[0].content
    with session(relay) as client:
        client.login(USER, PASSWORD)
    with session(relay) as client, pytest.raises(smtplib.SMTPAuthenticationError) as refused:
        client.login(USER, "wrong")
    assert refused.value.smtp_code == 535
    log = relay.log.read_text()
    assert "authentication failed: authentication failure, sasl_username=joe@client.test" in log
    assert PASSWORD not in log


def scram(client: smtplib.SMTP, password: str) -> bool:
    exchange = ScramClient(USER, Secret(password), nonce="clientnonce")
    code, text = client.docmd("AUTH", f"SCRAM-SHA-256 {base64.b64encode(exchange.first()).decode()}")
    while code == 334:
        code, text = client.docmd(base64.b64encode(exchange.next(base64.b64decode(text))).decode())
    return code == 235 and exchange.proved


def test_scram(relay: RelayProcess) -> None:
    with session(relay) as client:
        assert not scram(client, "wrong")
        assert scram(client, PASSWORD)
        client.mail(USER)
        client.rcpt("ann@sink.test")
        code, text = client.data(CONTENT)
        assert code == 250
    queued(relay, text.decode(), "SCRAM-SHA-256")


@pytest.mark.parametrize("method", ["PLAIN", "LOGIN"])
def test_swaks(relay: RelayProcess, swaks: Path, method: str) -> None:
    def run(password: str, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(swaks, "--server", f"{relay.address}:{relay.port}", "--helo", "client.test"),
                *("--from", USER, "--to", "ann@sink.test", "--body", "A few words."),
                *("--auth", method, "--auth-user", USER, "--auth-password", password, *more),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    queued(relay, run(PASSWORD, "-tls").stdout, method)
    wrong = run("wrong", "-tls")
    assert "535 5.7.8" in wrong.stdout
    assert wrong.returncode
    clear = run(PASSWORD)
    assert clear.returncode, "swaks found AUTH in the clear"
    assert "queued as" not in clear.stdout


def test_submissions(relay: RelayProcess, swaks: Path) -> None:
    """TLS from the first octet on."""
    context = ssl.create_default_context(cafile=relay.directory / "ca.pem")
    context.check_hostname = False
    with smtplib.SMTP_SSL(relay.address, submissions(relay), "client.test", timeout=60, context=context) as client:
        client.ehlo()
        assert client.has_extn("auth")
        assert not client.has_extn("starttls")
        assert client.docmd("STARTTLS")[0] == 554
        client.login(USER, PASSWORD)
        client.sendmail(USER, ["ann@sink.test"], CONTENT)
    for _ in range(50):  # the first octets come before, while or after the session begins
        with smtplib.SMTP_SSL(relay.address, submissions(relay), "client.test", timeout=60, context=context) as client:
            assert client.noop()[0] == 250
    done = subprocess.run(
        [
            *(swaks, "--server", f"{relay.address}:{submissions(relay)}", "--helo", "client.test", "-tlsc"),
            *("--from", USER, "--to", "ann@sink.test", "--body", "A few words."),
            *("--auth", "PLAIN", "--auth-user", USER, "--auth-password", PASSWORD),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    queued(relay, done.stdout, "PLAIN")


def test_curl(relay: RelayProcess, tmp_path: Path) -> None:
    (tmp_path / "mail").write_bytes(CONTENT)
    done = subprocess.run(
        [
            *(servers.require("curl"), "-sv", "--ssl-reqd", "--cacert", tmp_path / "ca.pem"),
            *("--connect-to", f"relay.test:{relay.port}:{relay.address}:{relay.port}"),
            *("--url", f"smtp://relay.test:{relay.port}/client.test", "-u", f"{USER}:{PASSWORD}"),
            *("--mail-from", USER, "--mail-rcpt", "ann@sink.test", "-T", tmp_path / "mail"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    queued(relay, done.stderr, "[-A-Z0-9]+")


def test_no_credentials_are_taken_in_the_clear(relay: RelayProcess) -> None:
    good = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
    with smtplib.SMTP(relay.address, relay.port, local_hostname="client.test", timeout=60) as client:
        client.ehlo()
        assert not client.has_extn("auth")
        assert client.docmd("AUTH", f"PLAIN {good}")[0] == 538
        assert client.docmd("AUTH", "LOGIN")[0] == 538
        client.mail(USER)
        assert client.rcpt("ann@sink.test")[0] == 454
    assert good not in relay.log.read_text()


def test_a_changed_file_counts_at_once_and_a_bad_one_never(relay: RelayProcess) -> None:
    user(relay, "add", "ann", password="battery staple")
    relay.process.wait_for("reload -- version")
    with session(relay) as client:
        client.login("ann", "battery staple")
    with (relay.directory / "users").open("a") as file:
        file.write("broken my-secret\n")
    os.kill(relay.process.pid, signal.SIGHUP)
    relay.process.wait_for(r"reload refused, the old rules stay in force: .*users:4: expected a name")
    assert "my-secret" not in relay.log.read_text()
    with session(relay) as client:
        client.login("ann", "battery staple")


def test_who_may_be_which_sender(relay: RelayProcess) -> None:
    text = relay.configuration.read_text()
    (relay.directory / "owners").write_text(f"@client.test {USER}\n")
    relay.configuration.write_text(text.replace("[smtpd]\n", '[smtpd]\nsender_login_maps = ["owners"]\n'))
    os.kill(relay.process.pid, signal.SIGHUP)
    relay.process.wait_for("reload -- version")
    with session(relay) as client:
        client.login(USER, PASSWORD)
        assert client.mail("ann@elsewhere.test")[0] == 553
        client.sendmail(USER, ["ann@sink.test"], CONTENT)


def test_who_fails_too_often_is_shut_out(relay: RelayProcess) -> None:
    for _ in range(2):
        with session(relay) as client:
            for _ in range(5):
                assert client.docmd("AUTH", "PLAIN AGpvZQB3cm9uZw==")[0] == 535
    with session(relay) as client, pytest.raises(smtplib.SMTPAuthenticationError) as refused:
        client.login(USER, PASSWORD)
    assert refused.value.smtp_code == 450
