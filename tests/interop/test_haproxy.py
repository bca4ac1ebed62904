"""haproxy stands before the relay and says whose connection it is: versions 1 and 2, STARTTLS and submissions through it."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests import pki
from tests.interop import servers
from tests.loopback import free_port, wait_until_listening
from tests.recording_sink import RecordingSink
from tests.relay_process import RelayProcess
from tests.watched_process import WatchedProcess

pytestmark = pytest.mark.interop

# What the relay sees of haproxy, a client that may relay, and one that may not.
PROXY, FRIEND, STRANGER = "127.0.0.9", "127.0.0.77", "127.0.0.78"
CONTENT = b"Subject: hello\r\n\r\nhello\r\n"

# One frontend for each form of the header; what a server's health check says of itself is LOCAL, or its own address. A check that
# a loaded machine makes late must not cut clients off.
FORMS = {
    "v1": "send-proxy",
    "v2": "send-proxy-v2",
    "v2-all": "send-proxy-v2 proxy-v2-options crc32c,unique-id",
}
CONFIGURATION = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    timeout check 60s
    default-server source {proxy} check inter 100ms fall 1000 init-addr last,libc,none
{listens}
"""
LISTEN = """
listen {name}
    bind 127.0.0.1:{port}
    unique-id-format %[uuid()]
    option smtpchk EHLO health.test
    server relay 127.0.0.1:{relay} {form}
"""
# TLS comes first: a check in clear would fail there.
WRAPPED = """
listen wrapped
    bind 127.0.0.1:{port}
    server relay 127.0.0.1:{relay} send-proxy-v2 no-check
"""


class Balancer:
    """A running haproxy; ``ports`` by form."""

    def __init__(self, directory: Path, relay: RelayProcess, submissions: int) -> None:
        self.ports = {name: free_port() for name in (*FORMS, "wrapped")}
        listens = [
            LISTEN.format(name=name, port=self.ports[name], relay=relay.port, form=form) for name, form in FORMS.items()
        ]
        listens.append(WRAPPED.format(port=self.ports["wrapped"], relay=submissions))
        configuration = directory / "haproxy.cfg"
        configuration.write_text(CONFIGURATION.format(proxy=PROXY, listens="".join(listens)))
        self._process = WatchedProcess(
            [servers.require("haproxy"), "-db", "-f", configuration], log=directory / "haproxy.log"
        )
        for port in self.ports.values():
            wait_until_listening("127.0.0.1", port, still=self._process.running)

    def stop(self) -> None:
        self._process.stop()


@pytest.fixture
def relay(tmp_path: Path, sink: RecordingSink) -> Iterator[RelayProcess]:
    servers.require("haproxy")
    now, submissions = datetime.now(UTC), free_port()
    dates = (now - timedelta(days=1), now + timedelta(days=1))
    root = pki.authority(dates=dates)
    leaf = root.issue("relay.test", dns=["relay.test"], dates=dates, eku=[pki.SERVER_AUTH])
    relay = RelayProcess(
        tmp_path,
        {
            "smtp": {"relayhost": [f"[{sink.address}]:{sink.port}"], "tls_security_level": "may"},
            "smtpd": {
                "mynetworks": [f"{FRIEND}/32", f"{PROXY}/32"],
                "proxy_protocol_networks": [f"{PROXY}/32"],
                "tls_security_level": "may",
                "tls_cert_file": "relay.pem",
                "tls_key_file": "relay.pem",
                "submissions_listen": [f"127.0.0.1:{submissions}"],
            },
            "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
        },
        {"ca.pem": root.pem.decode(), "relay.pem": (leaf.key_pem + leaf.pem).decode(), "port": str(submissions)},
    )
    (tmp_path / "relay.pem").chmod(0o600)
    with relay:
        yield relay


@pytest.fixture
def balancer(tmp_path: Path, relay: RelayProcess) -> Iterator[Balancer]:
    balancer = Balancer(tmp_path, relay, int((tmp_path / "port").read_text()))
    yield balancer
    balancer.stop()


def trust(relay: RelayProcess) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=relay.directory / "ca.pem")
    context.check_hostname = False
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # which Python 3.13 asks of a test's authority too
    return context


def client(port: int, source: str) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", port, local_hostname="client.test", timeout=60, source_address=(source, 0))


def test_the_client_is_who_connected_to_haproxy(relay: RelayProcess, sink: RecordingSink, balancer: Balancer) -> None:
    for number, form in enumerate(FORMS, 1):
        port = balancer.ports[form]
        # Its health check, which logs as haproxy's own address, has to be good before anybody gets through.
        relay.process.wait_for(rf"disconnect from localhost\[{PROXY}\] ehlo=1")
        with client(port, FRIEND) as session:
            session.starttls(context=trust(relay))
            session.sendmail("joe@client.test", ["ann@sink.test"], CONTENT)
        received = sink.wait_for_messages(number)[-1].content
        assert received.startswith(f"Received: from client.test (localhost [{FRIEND}])".encode()), form
        assert b" with ESMTPS id " in received
        with client(port, STRANGER) as session, pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            session.sendmail("joe@client.test", ["ann@sink.test"], CONTENT)
        assert refused.value.recipients["ann@sink.test"][0] == 454
    relay.stop()  # whose last lines are written then
    log = relay.log.read_text()
    for source in (FRIEND, STRANGER):
        assert log.count(f"]: connect from localhost[{source}]\n") == len(FORMS)
    assert "PROXY protocol" not in log


def test_submissions(relay: RelayProcess, sink: RecordingSink, balancer: Balancer) -> None:
    with smtplib.SMTP_SSL(
        "127.0.0.1",
        balancer.ports["wrapped"],
        local_hostname="client.test",
        timeout=60,
        source_address=(FRIEND, 0),
        context=trust(relay),
    ) as session:
        session.sendmail("joe@client.test", ["ann@sink.test"], CONTENT)
    (message,) = sink.wait_for_messages(1)
    assert message.content.startswith(f"Received: from client.test (localhost [{FRIEND}])".encode())


def test_a_client_does_not_pass_for_another(relay: RelayProcess, balancer: Balancer) -> None:
    """A header of the client's own comes behind haproxy's, and directly it comes from no proxy."""
    header = f"PROXY TCP4 {FRIEND} 127.0.0.1 1 25"
    for port in (balancer.ports["v1"], balancer.ports["v2"], relay.port):
        relay.process.wait_for(rf"disconnect from localhost\[{PROXY}\] ehlo=1")
        with client(port, STRANGER) as session:
            assert session.docmd(header)[0] in {500, 502}
            session.ehlo()
            session.mail("joe@client.test")
            assert session.rcpt("ann@sink.test")[0] == 454
