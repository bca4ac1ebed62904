"""A relay that takes mail of those who log in over TLS, and of nobody else, in front of a receiver that records."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests import pki
from tests.loopback import free_port
from tests.recording_sink import RecordingSink
from tests.relay_process import RelayProcess, Settings

USER, PASSWORD = "joe@client.test", "correct horse"
HOST = "relay.test"
"""The name in the relay's certificate, whose issuer is ``ca.pem`` in its directory."""


def user(relay: RelayProcess, *words: str, password: str = "") -> None:
    """Run ``dane-relay user``."""
    subprocess.run(
        [sys.executable, "-m", "relay", "user", *words, "-c", relay.configuration],
        input=f"{password}\n",
        text=True,
        capture_output=True,
        check=True,
        timeout=60,
    )


@contextmanager
def login_relay(directory: Path, sink: RecordingSink) -> Iterator[RelayProcess]:
    """Run it, with STARTTLS at its port and TLS from the first octet at another (``submissions``)."""
    now, submissions = datetime.now(UTC), free_port()
    dates = (now - timedelta(days=1), now + timedelta(days=1))
    root = pki.authority(dates=dates)
    leaf = root.issue(HOST, dns=[HOST], dates=dates, eku=[pki.SERVER_AUTH])
    settings: Settings = {
        "smtp": {"relayhost": [f"[{sink.address}]:{sink.port}"], "tls_security_level": "may"},
        "smtpd": {
            "mynetworks": ["192.0.2.0/24"],
            "tls_security_level": "may",
            "tls_cert_file": "relay.pem",
            "tls_key_file": "relay.pem",
            "users_file": "users",
            "submissions_listen": [f"127.0.0.1:{submissions}"],
        },
        "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
    }
    relay = RelayProcess(
        directory, settings, {"ca.pem": root.pem.decode(), "relay.pem": (leaf.key_pem + leaf.pem).decode()}
    )
    (directory / "relay.pem").chmod(0o600)
    user(relay, "add", USER, password=PASSWORD)
    with relay:
        yield relay


def submissions(relay: RelayProcess) -> int:
    """Its port for TLS from the first octet."""
    found = re.search(r'submissions_listen = \["127.0.0.1:(\d+)"\]', relay.configuration.read_text())
    assert found
    return int(found[1])


def logged_in(relay: RelayProcess, method: str) -> None:
    """Wait until the log says that mail came in by somebody who logged in so."""
    relay.process.wait_for(rf": client=\S+, sasl_method={method}, sasl_username={re.escape(USER)}$")
