"""What we pass on and what we print, beside a real Postfix: DSN parameters seen there, ``postqueue`` compared with ours."""

from __future__ import annotations

import email
import json
import re
import shutil
import smtplib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import cast

import pytest

from relay.cli.listing import as_postqueue
from relay.queue.showq import entry_object
from tests.interop import servers
from tests.interop.nameservers import Endpoint
from tests.interop.postfix import Listener, Postfix, library_path, postfix
from tests.loopback import LoopbackNetwork, free_port
from tests.relay_process import RelayProcess, Setting
from tests.unit.control.stores import entry, pending

pytestmark = pytest.mark.interop

# Postfix takes mail for these users, and then: returns it, keeps it.
TRANSPORT = (
    "inline:{ {nobody@dsn.test = error:5.1.1 nobody of that name}, {later@dsn.test = retry:4.3.0 come back later} }"
)


@dataclass
class Scene:
    """A relay whose only host is a Postfix that takes mail for ``dsn.test`` and ``sender.test`` into one maildir."""

    relay: RelayProcess
    postfix: Postfix
    configuration: Path

    def submit(self, token: str, recipient: str, parameters: list[str], options: list[str]) -> str:
        """Hand in a message and wait until Postfix has it; returns Postfix's queue ID."""
        content = (
            f"From: Ann@sender.test\r\nSubject: {token}\r\nMessage-ID: <{token}@sender.test>\r\n\r\nbody of {token}\r\n"
        )
        with smtplib.SMTP(self.relay.address, self.relay.port, local_hostname="client.test", timeout=60) as client:
            client.ehlo()
            assert client.mail("Ann@sender.test", options)[0] == 250
            assert client.rcpt(recipient, parameters)[0] == 250
            code, text = client.data(content)
        assert code == 250
        status = self.relay.wait_for_status(text.decode().rpartition(" ")[2])
        taken = re.search(r"status=sent \(250 2\.0\.0 Ok: (?:\d+ bytes )?queued as (\S+)\)", status)
        assert taken, status
        return taken[1]

    def report(self, queue_id: str, kind: str) -> Message:
        """The report that Postfix made of a message, as it stored it for the sender."""
        found = self.postfix.process.wait_for(rf"bounce\[\d+\]: {queue_id}: sender {kind} notification: (\S+)")
        self.postfix.process.wait_for(rf": {found[1]}: to=<Ann@sender.test>.*status=sent")
        (report,) = (one for one in map(email.message_from_bytes, self.postfix.delivered()) if found[1] in str(one))
        return report

    def command(self, name: str, *arguments: str) -> str:
        """Run one of Postfix's own programs on its queue."""
        program = servers.find("postfix")
        done = subprocess.run(
            [program.parent / name, "-c", self.configuration, *arguments],
            capture_output=True,
            text=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **library_path(program)},
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    servers.require("postfix")
    directory = Path(tempfile.mkdtemp(prefix="dane-relay-"))  # not pytest's: Postfix's own users must get in
    directory.chmod(0o755)
    address = LoopbackNetwork().address(11)
    endpoint = Endpoint(address, free_port(address))
    try:
        with postfix(
            [Listener("mx", endpoint)],
            directory,
            virtual_domains=("dsn.test", "sender.test"),
            settings={
                "transport_maps": TRANSPORT,
                "enable_long_queue_ids": "yes",
                "smtpd_reject_unlisted_recipient": "no",
            },
        ) as receiver:
            settings: dict[str, dict[str, Setting]] = {
                "smtp": {"tls_security_level": "may", "relayhost": [f"[{address}]:{endpoint.port}"]}
            }
            with RelayProcess(tmp_path_factory.mktemp("relay"), settings) as relay:
                yield Scene(relay, receiver, directory / "conf")
    except servers.UnavailableError as error:
        servers.leave_out("postfix", str(error))
    finally:
        shutil.rmtree(directory)


def blocks(mail: Message) -> tuple[Message, Message]:
    """The fields of the message and of its one recipient."""
    part = cast(list[Message], mail.get_payload())[1]
    message, recipient = cast(list[Message], part.get_payload())
    return message, recipient


def test_success_that_we_passed_on_is_reported_there(scene: Scene) -> None:
    """ENVID, ORCPT and NOTIFY arrive with their case: Postfix tells of its delivery, and we do not."""
    queue_id = scene.submit(
        "success",
        "Bob@dsn.test",
        ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;Bob+2B1@List.test"],
        ["ENVID=AbC+2B7", "RET=HDRS"],
    )
    message, recipient = blocks(scene.report(queue_id, "delivery status"))
    assert message["Original-Envelope-Id"] == "AbC+7"
    assert recipient["Original-Recipient"] == "rfc822;Bob+1@List.test"
    assert (recipient["Final-Recipient"], recipient["Action"]) == ("rfc822; Bob@dsn.test", "delivered")
    assert not any("notification" in line for line in scene.relay.process.lines())


def test_an_original_recipient_that_we_made_is_known_there(scene: Scene) -> None:
    queue_id = scene.submit("made", "a+b@dsn.test", ["NOTIFY=SUCCESS"], [])
    _, recipient = blocks(scene.report(queue_id, "delivery status"))
    assert recipient["Original-Recipient"] == "rfc822;a+b@dsn.test"


@pytest.mark.parametrize(
    ("ret", "kind", "has_text"), [("HDRS", "text/rfc822-headers", False), ("FULL", "message/rfc822", True)]
)
def test_ret_is_obeyed_there(scene: Scene, ret: str, kind: str, has_text: bool) -> None:
    queue_id = scene.submit(f"ret-{ret}", "nobody@dsn.test", [], [f"RET={ret}", "ENVID=E1"])
    report = scene.report(queue_id, "non-delivery")
    assert cast(list[Message], report.get_payload())[2].get_content_type() == kind
    assert (f"body of ret-{ret}" in str(report)) is has_text
    assert blocks(report)[0]["Original-Envelope-Id"] == "E1"


def test_never_is_obeyed_there(scene: Scene) -> None:
    queue_id = scene.submit("never", "nobody@dsn.test", ["NOTIFY=NEVER"], [])
    scene.postfix.process.wait_for(rf"qmgr\[\d+\]: {queue_id}: removed")
    assert not any(f"{queue_id}: sender" in line for line in scene.postfix.process.lines())


def test_postqueue_prints_as_we_do(scene: Scene) -> None:
    """Postfix's own list of its queue, made from its own JSON by our printer: line for line the same."""
    later = [scene.submit(f"later-{number}", "later@dsn.test", [], []) for number in range(3)]
    for queue_id in later:
        scene.postfix.process.wait_for(rf"{queue_id}: to=<later@dsn.test>.*status=deferred")
    scene.command("postsuper", "-h", later[1])
    objects = [json.loads(line) for line in scene.command("postqueue", "-j").splitlines()]
    assert {each["queue_name"] for each in objects} == {"deferred", "hold"}
    printed = scene.command("postqueue", "-p").splitlines()
    assert list(as_postqueue(objects, None)) == printed
    assert any(line.startswith(f"{later[1]}! ") for line in printed)
    assert printed[-1].startswith("-- ")

    ours = entry_object(entry("4XYZ0z1", pending(1, reason="come back later")))
    for theirs in objects:
        assert [key for key in ours if key in theirs] == list(theirs)
        assert {key: type(ours[key]) for key in theirs} == {key: type(value) for key, value in theirs.items()}
        (recipient,), (mine, *_) = theirs["recipients"], cast(list[dict[str, object]], ours["recipients"])
        assert [key for key in mine if key in recipient] == list(recipient)


def test_an_empty_queue_prints_as_ours(scene: Scene) -> None:
    scene.command("postsuper", "-d", "ALL")
    assert scene.command("postqueue", "-p").splitlines() == list(as_postqueue([], None))
    assert scene.command("postqueue", "-j") == ""
