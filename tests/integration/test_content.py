"""What goes in is what comes out: content octet for octet, through the running relay, to a receiver of our own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.lab.ca import Authority, CertificateKind
from tests.loopback import LoopbackNetwork, free_port
from tests.recording_sink import RecordingSink, server_context
from tests.relay_process import RelayProcess, Settings

HEADER = b"From: <sender@client.test>\r\nSubject: content\r\n\r\n"
LONGEST_LINE = 998
LARGE = 10_000_000


def large() -> bytes:
    """Ten million octets of lines of all lengths and values, some of them beginning with a dot."""
    chance = random.Random(7672)
    lines, size = [HEADER], len(HEADER)
    while size < LARGE:
        line = chance.randbytes(chance.randint(0, 300)).translate(None, b"\r\n\0")
        line = (b"." + line if chance.random() < 0.1 else line)[: max(0, LARGE - size - 2)] + b"\r\n"
        lines.append(line)
        size += len(line)
    content = b"".join(lines)
    assert size - len(content) == 0
    return content[: LARGE - 2] + b"\r\n"


CONTENTS = {
    "dots": HEADER + b".\r\n..\r\n...\r\n.a\r\n a.\r\n\r\n.\r\n.b.\r\n..\r\n",
    "ends-with-dot": HEADER + b"text\r\n.\r\n",
    "begins-with-dot": b".no header at all\r\n",
    "eight-bit": HEADER + bytes(octet for octet in range(1, 256) if octet not in b"\r\n") + b"\r\n",
    "longest-lines": HEADER + (b"x" * LONGEST_LINE + b"\r\n") * 3 + b"." * LONGEST_LINE + b"\r\n",
    "empty-lines": HEADER + b"\r\n\r\n\r\n",
    "blanks-at-line-ends": HEADER + b"a \r\nb\t\r\n \r\n",
    "only-a-header": b"Subject: nothing below\r\n",
    "spool-border": HEADER + b"y" * (65536 - len(HEADER) - 2) + b"\r\n",
}


@pytest.fixture(params=["clear", "tls"])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RecordingSink]:
    context = None
    if request.param == "tls":
        credential = Authority(tmp_path, datetime.now(UTC)).issue(CertificateKind.SELF_SIGNED, "sink.test")
        context = server_context(credential.pem_file)
    with RecordingSink(LoopbackNetwork().address(1), 0, context=context) as running:
        yield running


@pytest.fixture
def relay(sink: RecordingSink, tmp_path: Path) -> Iterator[RelayProcess]:
    """A relay that hands everything to the sink, by its address."""
    settings: Settings = {
        "smtp": {
            "relayhost": [f"[{sink.address}]:{sink.port}"],
            "tls_security_level": "may",
            "line_length_limit": 0,
        },
        "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
    }
    with RelayProcess(tmp_path, settings) as running:
        yield running


def split_received(content: bytes) -> tuple[bytes, bytes]:
    """The Received field that the relay put in front, with its folded lines, and the rest."""
    lines = content.split(b"\r\n")
    assert lines[0].startswith(b"Received: from client.test "), lines[0]
    end = next(place for place, line in enumerate(lines) if place and not line.startswith((b" ", b"\t")))
    return b"\r\n".join(lines[:end]), b"\r\n".join(lines[end:])


def test_content_octet_for_octet(relay: RelayProcess, sink: RecordingSink, tmp_path: Path) -> None:
    for count, (name, content) in enumerate({**CONTENTS, "large": large()}.items(), 1):
        eight_bit = any(octet > 127 for octet in content)
        relay.send(
            content, sender="sender@client.test", recipients=["user@sink.test"], body="8BITMIME" if eight_bit else ""
        )
        message = sink.wait_for_messages(count)[-1]
        received, rest = split_received(message.content)
        if rest != content:
            (tmp_path / "expected").write_bytes(content)
            (tmp_path / "found").write_bytes(rest)
        assert rest == content, f"{name}: compare {tmp_path}/expected and found"
        assert b"by relay.test" in received
        expected_wire = (b"\r\n" + received + b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"
        assert message.wire == expected_wire, name
        assert (b"BODY=8BITMIME" in message.mail) == eight_bit, name
