"""Clients of the world show a certificate, openssl s_client, curl, swaks, Postfix: the fingerprint alone says who may relay."""

from __future__ import annotations

import re
import smtplib
import ssl
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests import pki
from tests.interop import servers
from tests.interop.nameservers import Endpoint
from tests.interop.places import places
from tests.interop.postfix import Listener, postfix
from tests.loopback import free_port
from tests.recording_sink import RecordingSink
from tests.relay_process import RelayProcess
from tests.watched_process import WatchedProcess

pytestmark = pytest.mark.interop

SENDER, RECIPIENT = "joe@client.test", "ann@sink.test"
NOW, DAY = datetime.now(UTC), timedelta(days=1)
DATES = (NOW - DAY, NOW + DAY)

Send = Callable[[RelayProcess, Path, int], str]
"""Hands a message in with a certificate and key, over submissions at a port or (0) with STARTTLS; gives what was answered."""


def by_openssl(relay: RelayProcess, certificate: Path, wrapped: int) -> str:
    command: list[str | Path] = [servers.require("openssl"), "s_client", "-quiet", "-crlf", "-cert", certificate]
    command += ["-key", certificate, "-connect", f"127.0.0.1:{wrapped or relay.port}"]
    command += [] if wrapped else ["-starttls", "smtp"]
    with WatchedProcess(command, log=relay.directory / "openssl.log", commands=True) as client:
        # With -starttls what openssl shows first is the end of its own EHLO.
        client.wait_for("220 relay.test ESMTP" if wrapped else "250 CHUNKING")
        for line, reply in (("EHLO client.test", "250 CHUNKING"), (f"MAIL FROM:<{SENDER}>", "250 2.1.0 Ok")):
            since = client.mark()
            client.say(line)
            client.wait_for(reply, since=since)
        client.say(f"RCPT TO:<{RECIPIENT}>")
        answer = client.wait_for("(250 2.1.5|454 4.7.1|554 5.7.1) ")[1]
        if answer.startswith("250"):
            client.say("DATA")
            client.wait_for("354 End data")
            for line in ("Subject: hello", "", "hello", "."):
                client.say(line)
            client.wait_for("250 2.0.0 Ok: queued")
        client.say("QUIT")
        client.wait()
    return answer[:3]


def by_curl(relay: RelayProcess, certificate: Path, wrapped: int) -> str:
    mail = relay.directory / "mail"
    mail.write_bytes(b"Subject: hello\r\n\r\nhello\r\n")
    url = f"smtps://127.0.0.1:{wrapped}/client.test" if wrapped else f"smtp://127.0.0.1:{relay.port}/client.test"
    command: list[str | Path] = [
        servers.require("curl"),
        "--silent",
        "--verbose",
        "--insecure",
        "--ssl-reqd",
        "--cert",
        certificate,
    ]
    command += ["--key", certificate, "--mail-from", SENDER, "--mail-rcpt", RECIPIENT, "--upload-file", mail, url]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr
    found = re.findall(r"^< (\d\d\d) [\d.]+ (?:Ok: queued|<)", said, re.MULTILINE)
    assert found, said
    return str(found[-1])


def by_swaks(relay: RelayProcess, certificate: Path, wrapped: int) -> str:
    command: list[str | Path] = [servers.require("swaks"), "--from", SENDER, "--to", RECIPIENT, "--helo", "client.test"]
    command += ["--server", f"127.0.0.1:{wrapped or relay.port}", "--tls-on-connect" if wrapped else "--tls"]
    command += ["--tls-cert", str(certificate), "--tls-key", str(certificate)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    found = re.findall(r"^<[~*]\*? +(\d\d\d) [\d.]+ (?:Ok: queued|<)", said, re.MULTILINE)
    assert found, said
    return str(found[-1])


def by_postfix(relay: RelayProcess, certificate: Path, wrapped: int) -> str:
    """As it is set up to be known by its certificate at a smarthost; what cannot be delivered stays in its queue."""
    entrance = Endpoint("127.0.0.1", free_port())
    with places("postfix") as (directory,):
        shown = directory / "client.pem"
        shown.write_bytes(certificate.read_bytes())
        settings = {
            "mynetworks": "127.0.0.0/8",
            "myhostname": "client.test",
            "relayhost": f"[127.0.0.1]:{wrapped or relay.port}",
            "smtp_tls_security_level": "encrypt",
            "smtp_tls_wrappermode": "yes" if wrapped else "no",
            "smtp_tls_cert_file": str(shown),
            "smtp_tls_key_file": str(shown),
        }
        with postfix([Listener("in", entrance)], directory, settings=settings) as running:
            with smtplib.SMTP(entrance.address, entrance.port, "client.test", timeout=60) as client:
                client.sendmail(SENDER, RECIPIENT, b"Subject: hello\r\n\r\nhello\r\n")
            found = running.process.wait_for(r"status=(?:sent \(|deferred \(.* said: )(\d\d\d) ")
    return str(found[1])


CLIENTS: dict[str, Send] = {"openssl": by_openssl, "curl": by_curl, "swaks": by_swaks, "postfix": by_postfix}


@pytest.fixture
def relay(tmp_path: Path, sink: RecordingSink) -> Iterator[RelayProcess]:
    """A relay that takes mail of a client with a known certificate, and of nobody else."""
    leaf = pki.authority(dates=DATES).issue("relay.test", dns=["relay.test"], dates=DATES, eku=[pki.SERVER_AUTH])
    relay = RelayProcess(
        tmp_path,
        {
            "smtp": {"relayhost": [f"[{sink.address}]:{sink.port}"], "tls_security_level": "may"},
            "smtpd": {
                "mynetworks": ["192.0.2.0/24"],
                "tls_security_level": "may",
                "tls_cert_file": "relay.pem",
                "tls_key_file": "relay.pem",
                "tls_ask_ccert": True,
                "relay_clientcerts": ["texthash:clients"],
                "submissions_listen": [f"127.0.0.1:{free_port()}"],
            },
            "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
        },
        {"relay.pem": (leaf.key_pem + leaf.pem).decode(), "clients": "# nobody yet\n"},
    )
    (tmp_path / "relay.pem").chmod(0o600)
    with relay:
        yield relay


def certificate(directory: Path, name: str) -> tuple[Path, str]:
    """A certificate that its own key signed, and its fingerprint as openssl says it."""
    own = pki.authority(name, dates=DATES)
    file = directory / f"{name}.pem"
    file.write_bytes(own.key_pem + own.pem)
    command: list[str | Path] = [servers.require("openssl"), "x509", "-in", file, "-noout", "-fingerprint", "-sha256"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    return file, said.partition("=")[2].strip()


def test_who_is_known_may_relay(relay: RelayProcess, sink: RecordingSink, tmp_path: Path) -> None:
    joe, fingerprint = certificate(tmp_path, "joe")
    stranger, _ = certificate(tmp_path, "stranger")
    found = re.search(r'submissions_listen = \["127.0.0.1:(\d+)"\]', relay.configuration.read_text())
    assert found
    (tmp_path / "clients").write_text(f"{fingerprint} joe\n")
    relay.process.wait_for("reload -- version")  # by itself: the file has changed
    sent = 0
    for name, send in CLIENTS.items():
        for wrapped in (0, int(found[1])):
            assert send(relay, stranger, wrapped) == "454", (name, wrapped)
            assert send(relay, joe, wrapped) == "250", (name, wrapped)
            sent += 1
            content = sink.wait_for_messages(sent)[-1].content
            assert b'\r\n\t(Client CN "joe", Issuer "joe" (not verified))\r\n' in content, (name, wrapped)
    prints = f"localhost[127.0.0.1]: subject_CN=joe, issuer=joe, cert fingerprint={fingerprint}, pkey fingerprint="
    relay.stop()  # whose last lines are written then
    assert relay.log.read_text().count(prints) == sent


def test_a_changed_map_holds_for_sessions_under_way(relay: RelayProcess, tmp_path: Path) -> None:
    joe, fingerprint = certificate(tmp_path, "joe")
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(joe)

    def answers(client: smtplib.SMTP) -> int:
        client.rset()
        client.mail(SENDER)
        return client.rcpt(RECIPIENT)[0]

    with smtplib.SMTP(relay.address, relay.port, local_hostname="client.test", timeout=60) as client:
        client.starttls(context=context)
        client.ehlo()
        assert answers(client) == 454
        for text, code in ((f"{fingerprint} joe\n", 250), ("# nobody any more\n", 454)):
            since = relay.process.mark()
            (tmp_path / "clients").write_text(text)
            relay.process.wait_for("reload -- version", since=since)
            assert answers(client) == code
