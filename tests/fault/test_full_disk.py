"""A disk that is really full: a small file system of its own for the queue, in a mount namespace of the relay's own.

The test fills it through ``/proc/PID/root``. What the relay says to clients, what it keeps, and how it recovers.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import smtplib
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop import servers
from tests.loopback import LoopbackNetwork, free_port, wait_until_listening
from tests.recording_sink import RecordingSink
from tests.watched_process import WatchedProcess

MIB = 1024 * 1024
# Room for the floor (32 MiB, and 1.5 times the largest message of 1 MiB) and some mail.
DISK = 48 * MIB
CONTENT = b"Subject: hello\r\n\r\nhello\r\n"

pytestmark = pytest.mark.interop


@dataclass
class Scene:
    """A relay whose state directory is a file system of its own."""

    process: WatchedProcess
    state: Path
    port: int
    http: int

    @property
    def disk(self) -> Path:
        """The state directory as the relay sees it."""
        return Path(f"/proc/{self.process.pid}/root{self.state}")

    def fill(self, leave: int) -> None:
        """Write until so many octets are free."""
        free = os.statvfs(self.disk).f_bavail * os.statvfs(self.disk).f_frsize
        with (self.disk / "ballast").open("ab") as ballast:
            for _ in range(max(0, free - leave) // MIB):
                ballast.write(bytes(MIB))
            rest = os.statvfs(self.disk).f_bavail * os.statvfs(self.disk).f_frsize - leave
            ballast.write(bytes(max(0, rest - 8192)))

    def empty(self) -> None:
        """Take away what was filled in."""
        (self.disk / "ballast").unlink()

    def mail(self) -> tuple[int, str]:
        """What MAIL is answered."""
        with smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.test") as client:
            client.ehlo()
            code, text = client.mail("sender@client.test")
            return code, text.decode()

    def send(self) -> None:
        """Hand in a message."""
        with smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.test") as client:
            client.sendmail("sender@client.test", ["user@sink.test"], CONTENT)

    def ready(self) -> tuple[int, list[str]]:
        """What /readyz says."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz") as answer:
                return answer.status, json.load(answer)["reasons"]
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)["reasons"]

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics") as answer:
            found = re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)
        assert found is not None, name
        return float(found[1])


@pytest.fixture
def sink() -> Iterator[RecordingSink]:
    with RecordingSink(LoopbackNetwork().address(1), 0) as sink:
        yield sink


@pytest.fixture
def scene(tmp_path: Path, sink: RecordingSink, request: pytest.FixtureRequest) -> Iterator[Scene]:
    unshare = servers.require("unshare")
    state, port, http = tmp_path / "state", free_port(), free_port()
    state.mkdir()
    configuration = tmp_path / "relay.toml"
    configuration.write_text(
        f"""
[relay]
myhostname = "relay.test"
state_dir = "state"
[smtpd]
listen = ["127.0.0.1:{port}"]
message_size_limit = "1MiB"
[smtp]
tls_security_level = "may"
relayhost = ["[{sink.address}]:{sink.port}"]
[http]
listen = "127.0.0.1:{http}"
[dns]
mode = "trust-ad"
nameservers = ["127.0.0.1:{free_port()}"]
timeout = "1s"
{getattr(request, "param", "")}
"""
    )
    mount = f"mount -t tmpfs -o size={DISK} tmpfs {shlex.quote(str(state))}"
    serve = shlex.join([sys.executable, "-m", "relay", "serve", "-c", str(configuration)])
    process = WatchedProcess(
        [unshare, "--mount", "--propagation", "private", "--", "sh", "-c", f"{mount} && exec {serve}"],
        log=tmp_path / "relay.log",
        environment={"PYTHONUNBUFFERED": "1"},
    )
    try:
        wait_until_listening("127.0.0.1", port, still=process.running)
    except AssertionError:
        process.kill()
        if re.search("permission denied|not permitted", process.log.read_text(), re.IGNORECASE):
            servers.leave_out("unshare", "this machine allows no mount namespace with a file system of its own")
        raise
    with process:
        yield Scene(process, state, port, http)


def test_below_the_floor_clients_are_told_and_results_are_written(scene: Scene, sink: RecordingSink) -> None:
    sink.close_gate()
    scene.send()
    sink.wait_for_body()
    scene.fill(leave=8 * MIB)
    assert scene.mail() == (452, "4.3.1 Insufficient system storage")
    status, reasons = scene.ready()
    assert status == 503
    assert any("no mail is taken into the queue" in reason and "kept free" in reason for reason in reasons)
    assert scene.metric("dane_relay_queue_taking_mail") == 0
    scene.process.wait_for(r"warning: no mail is taken into the queue: .* free in .*, and .* are kept free")
    sink.open_gate.set()
    scene.process.wait_for(r": to=<user@sink.test>.* status=sent")
    scene.process.wait_for(r": removed$")
    scene.empty()
    assert scene.mail()[0] == 250
    scene.process.wait_for(r"mail is taken into the queue again")
    assert scene.metric("dane_relay_queue_taking_mail") == 1
    scene.send()
    sink.wait_for_messages(2)


@pytest.mark.parametrize(
    "scene", ['[bounce]\nnotify_classes = ["resource"]\npostmaster = "ops@sink.test"\n'], indirect=True
)
def test_the_postmaster_hears_of_it_when_there_is_room_again(scene: Scene, sink: RecordingSink) -> None:
    scene.fill(leave=8 * MIB)
    assert scene.mail() == (452, "4.3.1 Insufficient system storage")
    scene.empty()
    (told,) = sink.wait_for_messages(1)
    assert b"no mail was taken into the queue (resource)" in told.content
    assert b" MiB are kept free." in told.content


def test_on_a_disk_without_a_single_octet_results_are_kept_until_there_is_room(
    scene: Scene, sink: RecordingSink
) -> None:
    sink.close_gate()
    for _ in range(3):
        scene.send()
    sink.wait_for_body(3)
    scene.fill(leave=0)
    sink.open_gate.set()
    scene.process.wait_for(r"warning: \w+: results not written yet, they are kept: .*full")
    scene.empty()
    for _ in range(3):
        scene.process.wait_for(r": to=<user@sink.test>.* status=sent")
    scene.process.wait_for(r"results are written now")
    scene.send()
    sink.wait_for_messages(4)
    assert scene.process.stop() == 0
    assert len(sink.messages()) == 4, "each was delivered once"
