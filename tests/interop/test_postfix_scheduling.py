"""A dead destination at a real Postfix and at the relay: after how many failures, and what the others are told."""

from __future__ import annotations

import re
import shutil
import smtplib
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.mail.reply import EnhancedStatus
from relay.scheduling.window import Failing, Limits, Window
from tests.interop import servers
from tests.interop.nameservers import Endpoint
from tests.interop.postfix import Listener, postfix
from tests.loopback import free_port
from tests.relay_process import RelayProcess, Settings
from tests.watched_process import WatchedProcess

pytestmark = pytest.mark.interop

PARTS = 12
"""Postfix forgets a destination when all its mail has been tried: so one message has many recipients, two a delivery."""
_STATUS = re.compile(
    r"/(?P<program>\w+)\[\d+\]: \w+: to=<u\d+@dead\.test>, relay=(?P<relay>\S+), .*dsn=(?P<dsn>[\d.]+), "
    r"status=(?P<status>\w+) \((?P<reason>.*)\)"
)

Told = Counter[tuple[str, str, str, str, str]]


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that Postfix's own users may enter."""
    path = Path(tempfile.mkdtemp(prefix="dane-relay-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def send(endpoint: Endpoint, process: WatchedProcess) -> Told:
    """Hand in one message with many recipients at the dead destination; what the status lines say of each."""
    people = [f"u{number}@dead.test" for number in range(2 * PARTS)]
    with smtplib.SMTP(endpoint.address, endpoint.port, local_hostname="client.test", timeout=60) as client:
        client.sendmail("sender@client.test", people, b"Subject: x\r\n\r\nx\r\n")
    for person in people:
        process.wait_for(rf": to=<{person}>.* status=")
    found = filter(None, map(_STATUS.search, process.lines()))
    return Counter((one["program"], one["relay"], one["dsn"], one["status"], one["reason"]) for one in found)


def at_postfix(directory: Path, port: int) -> Told:
    """A Postfix that has one delivery agent: its attempts come one after the other, so that they can be counted."""
    endpoint = Endpoint("127.0.0.1", free_port())
    settings = {
        "mynetworks": "127.0.0.0/8",
        "transport_maps": f"static:{{smtp:[127.0.0.1]:{port}}}",
        "default_process_limit": "1",
        "smtp_tls_security_level": "none",
        "smtp_destination_recipient_limit": "2",
    }
    try:
        with postfix([Listener("front", endpoint)], directory, settings=settings) as running:
            return send(endpoint, running.process)
    except servers.UnavailableError as error:
        servers.leave_out("postfix", str(error))


def at_the_relay(directory: Path, port: int) -> Told:
    options: Settings = {
        "smtp": {
            "relayhost": [f"[127.0.0.1]:{port}"],
            "tls_security_level": "none",
            "destination_recipient_limit": 2,
        },
        "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
    }
    with RelayProcess(directory, options) as relay:
        return send(Endpoint(relay.address, relay.port), relay.process)


def failures_until_dead() -> int:
    window = Window(Limits())
    for count in range(1, 100):
        window.busy += 1
        window.ended(0, Failing(status=EnhancedStatus(4, 4, 1), reason="x"))
        if window.suspension is not None:
            return count
    raise AssertionError("never")


def test_dead_after_as_many_failures_and_told_in_the_same_words(directory: Path, tmp_path: Path) -> None:
    servers.require("postfix")
    port = free_port()
    refused = f"connect to 127.0.0.1[127.0.0.1]:{port}: Connection refused"
    dialled = ("smtp", "none", "4.4.1", "deferred", refused)
    suspended = ("error", "none", "4.4.1", "deferred", f"delivery temporarily suspended: {refused}")
    theirs = at_postfix(directory, port)
    assert theirs == {dialled: 2 * failures_until_dead(), suspended: 2 * (PARTS - failures_until_dead())}
    ours = at_the_relay(tmp_path, port)
    assert set(ours) == set(theirs)
    assert failures_until_dead() <= ours[dialled] / 2 <= Limits().initial, "those that were under way may fail too"
