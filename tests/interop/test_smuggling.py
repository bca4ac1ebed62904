"""One message in, one message out: every published end-of-data variant, against our port and through us to other servers.

Sources: SEC Consult's "SMTP Smuggling" (December 2023) and the advisories that followed (CVE-2023-51764 to 51766,
CVE-2024-27305, CVE-2024-27938), the variants of their scanners, and some of our own with NUL, blanks and other line ends.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.lab.ca import Authority, CertificateKind
from tests.interop import servers
from tests.interop.exim import exim
from tests.interop.nameservers import Endpoint
from tests.interop.places import places
from tests.interop.postfix import Listener, postfix
from tests.loopback import LoopbackNetwork, free_port
from tests.recording_sink import RecordingSink
from tests.relay_process import RelayProcess, Settings

pytestmark = pytest.mark.interop

ENDS = {
    "lf-dot-lf": b"\n.\n",
    "lf-dot-crlf": b"\n.\r\n",
    "lf-dot-cr": b"\n.\r",
    "cr-dot-cr": b"\r.\r",
    "cr-dot-lf": b"\r.\n",
    "cr-dot-crlf": b"\r.\r\n",
    "crlf-dot-lf": b"\r\n.\n",
    "crlf-dot-cr": b"\r\n.\r",
    "crlf-dot-cr-cr-lf": b"\r\n.\r\r\n",
    "cr-crlf-dot-cr-crlf": b"\r\r\n.\r\r\n",
    "lf-lf-dot-lf-lf": b"\n\n.\n\n",
    "crlf-nul-dot-crlf": b"\r\n\0.\r\n",
    "crlf-dot-nul-crlf": b"\r\n.\0\r\n",
    "crlf-dot-cr-nul-lf": b"\r\n.\r\0\n",
    "cr-nul-lf-dot-cr-nul-lf": b"\r\0\n.\r\0\n",
    "crlf-dot-blank-crlf": b"\r\n. \r\n",
    "crlf-dot-tab-crlf": b"\r\n.\t\r\n",
    "crlf-blank-dot-crlf": b"\r\n .\r\n",
    "crlf-dot-dot-crlf": b"\r\n..\r\n",
    "crlf-dot-dot-lf": b"\r\n..\n",
    "lf-dot-dot-crlf": b"\n..\r\n",
    "cr-lf-lf-dot-cr-lf-lf": b"\r\n\n.\r\r\n\n",
    "vt-dot-vt": b"\x0b.\x0b",
    "ff-dot-ff": b"\x0c.\x0c",
    "nel-dot-nel": b"\x85.\x85",
    "utf8-nel": b"\xc2\x85.\xc2\x85",
    "utf8-line-separator": b"\xe2\x80\xa8.\xe2\x80\xa8",
    "utf8-fullwidth-dot": b"\r\n\xef\xbc\x8e\r\n",
    "ctrl-z": b"\r\n\x1a\r\n",
    "ctrl-d": b"\r\n\x04\r\n",
    "bdat-in-data": b"\r\nBDAT 0 LAST\r\n",
    "crlf-dot-lf-split": b"\r\n" + b"x" * 990 + b"\r\n.\n",
    "long-line-then-dot": b"x" * 998 + b".\n.\r\n",
    "long-line-breaks-before-dot": b"x" * 998 + b".\r\n",
}
SMUGGLED = (
    b"MAIL FROM:<smuggled@evil.test>\r\nRCPT TO:<smuggled@%b>\r\nDATA\r\nSubject: smuggled-%b\r\n\r\nsmuggled\r\n"
)
DOMAINS = {"postfix": b"postfix.test", "exim": b"exim.test", "lab": b"lab.test"}
_QUEUED = re.compile(rb"250 2\.0\.0 Ok: (?:\d+ bytes )?queued as (\S+)\r\n")


@dataclass
class World:
    """The relay, and what each receiver behind it holds."""

    relay: RelayProcess
    delivered: Mapping[str, Callable[[], tuple[bytes, ...]]]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """All of it, shared by the tests of this file: each of their messages has a name of its own."""
    network = LoopbackNetwork()
    endpoints = {name: Endpoint(network.address(number), free_port()) for number, name in enumerate(DOMAINS, 1)}
    with ExitStack() as stack:
        directories = stack.enter_context(places("postfix", "exim", "relay"))
        try:
            receiver = stack.enter_context(
                postfix([Listener("mx", endpoints["postfix"])], directories[0], virtual_domains=["postfix.test"])
            )
            other = stack.enter_context(exim(endpoints["exim"], directories[1], ["exim.test"]))
        except servers.UnavailableError as error:
            servers.leave_out("smuggling through other servers", str(error))
        sink = stack.enter_context(RecordingSink(endpoints["lab"].address, endpoints["lab"].port))
        routes = "".join(
            f"{name}.test smtp:[{endpoint.address}]:{endpoint.port}\n" for name, endpoint in endpoints.items()
        )
        settings: Settings = {
            "smtp": {"transport_maps": ["transport"], "tls_security_level": "may"},
            "smtpd": {"recipient_limit": 1000, "hard_error_limit": 100},
            "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
        }
        relay = stack.enter_context(RelayProcess(directories[2], settings, {"transport": routes}))
        yield World(
            relay,
            {
                "postfix": receiver.delivered,
                "exim": other.delivered,
                "lab": lambda: tuple(message.content for message in sink.messages()),
            },
        )


class Peer:
    """A client that sends octets and reads whole replies."""

    def __init__(self, relay: RelayProcess) -> None:
        self._socket = relay.connect()
        self._stream = self._socket.makefile("rb")
        assert self.reply().startswith(b"220")
        assert self.say(b"EHLO client.test\r\n").startswith(b"250")

    def say(self, octets: bytes) -> bytes:
        self._socket.sendall(octets)
        return self.reply()

    def reply(self) -> bytes:
        lines = b""
        while True:
            line = self._stream.readline()
            lines += line
            if line[3:4] != b"-":
                return lines

    def begin(self, domain: bytes) -> None:
        for command in (b"MAIL FROM:<honest@client.test> BODY=8BITMIME\r\n", b"RCPT TO:<honest@" + domain + b">\r\n"):
            assert self.say(command).startswith(b"250")

    def rest(self) -> bytes:
        self._socket.shutdown(socket.SHUT_WR)
        return self._stream.read()

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


def content_of(name: str, end: bytes, domain: bytes) -> bytes:
    """A message in which everything behind a false end is a second one."""
    honest = b"From: <honest@client.test>\r\nSubject: honest-" + name.encode() + b"\r\n\r\nhonest" + end
    return honest + SMUGGLED % (domain, name.encode())


@pytest.mark.parametrize("how", ["data", "bdat"])
def test_one_message_in_one_message_out(world: World, how: str) -> None:
    queue_ids: list[str] = []
    for receiver, domain in DOMAINS.items():
        peer = Peer(world.relay)
        for name, end in ENDS.items():
            content = content_of(f"{how}-{receiver}-{name}", end, domain)
            peer.begin(domain)
            if how == "data":
                assert peer.say(b"DATA\r\n").startswith(b"354")
                reply = peer.say(content + b"\r\n.\r\n")
            else:
                reply = peer.say(b"BDAT %d LAST\r\n" % len(content) + content)
            queued = _QUEUED.fullmatch(reply)
            assert queued is not None, (name, reply)
            queue_ids.append(queued[1].decode())
        assert peer.say(b"QUIT\r\n").startswith(b"221")  # and not the reply to something smuggled
        assert peer.rest() == b""
        peer.close()
    for queue_id in queue_ids:
        assert "status=sent" in world.relay.wait_for_status(queue_id), queue_id
    for receiver, delivered in world.delivered.items():
        wait_until(lambda: len(_ours(delivered(), how)) >= len(ENDS))  # noqa: B023 - called before the next turn
        messages = _ours(delivered(), how)
        assert len(messages) == len(ENDS), receiver
        assert {subject(message) for message in messages} == {f"honest-{how}-{receiver}-{name}" for name in ENDS}, (
            receiver
        )
        assert all(b"smuggled@evil.test" in message for message in messages), "what was smuggled is content"
    assert not any("evil.test" in line for line in world.relay.process.lines() if "from=<" in line)


def _ours(messages: tuple[bytes, ...], how: str) -> list[bytes]:
    return [
        message for message in messages if subject(message).partition("-")[2].startswith(how) or not subject(message)
    ]


def subject(message: bytes) -> str:
    """The Subject field of the header, which is the first: a second message would begin with another."""
    found = re.search(rb"^Subject: (\S+)\r?$", message.partition(b"\r\n\r\n")[0].partition(b"\n\n")[0], re.MULTILINE)
    return found[1].decode() if found else ""


def wait_until(true: Callable[[], bool]) -> None:
    """Look again until it is so, for a minute at most; Exim and Postfix deliver after their 250."""
    deadline = time.monotonic() + 60
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)


def test_a_chunk_hides_nothing(world: World) -> None:
    """Commands within a chunk are content, and what is said behind its octets is a command."""
    peer = Peer(world.relay)
    peer.begin(b"lab.test")
    inner = b"Subject: honest-chunk\r\n\r\n.\r\nBDAT 0 LAST\r\nRSET\r\nMAIL FROM:<smuggled@evil.test>\r\n"
    assert peer.say(b"BDAT %d\r\n" % len(inner) + inner).startswith(b"250 2.0.0 Ok: %d bytes" % len(inner))
    reply = peer.say(b"BDAT 0 LAST\r\n")
    queued = _QUEUED.fullmatch(reply)
    assert queued is not None, reply
    assert "status=sent" in world.relay.wait_for_status(queued[1].decode())
    peer.close()
    (message,) = [one for one in world.delivered["lab"]() if b"honest-chunk" in one]
    assert message.endswith(inner)


@pytest.mark.parametrize(
    "injected",
    [
        b"MAIL FROM:<smuggled@evil.test>\r\n",
        b"EHLO evil.test\r\nMAIL FROM:<smuggled@evil.test>\r\nRCPT TO:<x@lab.test>\r\nDATA\r\n",
        b"\0",
        b"\n",
    ],
)
def test_nothing_is_injected_before_tls(tmp_path: Path, injected: bytes) -> None:
    """CVE-2011-0411 and its kin: what is sent in the clear behind STARTTLS is no command within TLS."""
    pem = Authority(tmp_path, datetime.now(UTC)).issue(CertificateKind.SELF_SIGNED, "relay.test").pem_file
    settings: Settings = {
        "smtpd": {"tls_security_level": "may", "tls_cert_file": str(pem), "tls_key_file": str(pem)},
        "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
    }
    with RelayProcess(tmp_path, settings) as relay:
        peer = Peer(relay)
        assert peer.say(b"STARTTLS\r\n" + injected) == b"554 5.5.0 Error: SMTP protocol synchronization\r\n"
        assert peer.rest() == b""
        peer.close()
        relay.process.wait_for("improper command pipelining after STARTTLS from")
