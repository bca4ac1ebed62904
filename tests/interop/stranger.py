"""A relay seen by a stranger: run in a network namespace of its own, where addresses of any network are on the loopback.

``unshare --net python -m tests.interop.stranger DIRECTORY`` prints what became of each recipient, as JSON.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

from tests.relay_process import RelayProcess, Settings

HERE, STRANGER, FRIEND = "192.0.2.25", "203.0.113.66", "192.0.2.77"
SETTINGS: Settings = {
    "smtpd": {
        "listen": [f"{HERE}:25"],
        "mynetworks": [f"{FRIEND}/32", "127.0.0.0/8"],
        "hard_error_limit": 1000,
        "error_sleep_time": "0s",
    },
    "smtp": {"relayhost": ["[127.0.0.1]:9"], "tls_security_level": "may"},
    "dns": {"nameservers": ["127.0.0.1:9"], "timeout": "1s"},
}
# "here" is the relay's own name, "there" anybody's; each is a way to have mail for there taken by a relay that looks at
# less than the final address, or at another form of it than it delivers to.
RECIPIENTS = (
    "<victim@there.test>",
    "<@relay.test:victim@there.test>",
    "<@relay.test,@other.test:victim@there.test>",
    "<@[192.0.2.25]:victim@there.test>",
    "<@there.test:victim@relay.test>",
    "<victim%there.test@relay.test>",
    "<victim%there.test@[192.0.2.25]>",
    "<victim%there.test@[127.0.0.1]>",
    "<victim%there.test>",
    "<victim@there.test@relay.test>",
    "<victim@relay.test@there.test>",
    '<"victim@there.test"@relay.test>',
    '<"victim%there.test"@relay.test>',
    '<"victim@there.test">',
    '<"@relay.test:victim@there.test">',
    '<""@there.test>',
    "<there.test!victim>",
    "<there.test!victim@relay.test>",
    "<relay.test!there.test!victim>",
    "<victim@there.test!relay.test>",
    "<victim@relay.test.there.test>",
    "<victim@there.test.>",
    "<victim@[203.0.113.1]>",
    "<victim@[IPv6:2001:db8::1]>",
    "<victim@[IPv6:::ffff:192.0.2.25]>",
    "<victim@127.0.0.1>",
    "<victim@localhost>",
    "<victim@>",
    "<victim>",
    "<@>",
    "<>",
    "<postmaster>",
    "<postmaster@there.test>",
    "<Postmaster@relay.test>",
    "<abuse@relay.test>",
    "<victim@relay.test>",
    "<victim@\u0433elay.test>",
    "<victim@relay\u3002test>",
    "<victim\uff20there.test@relay.test>",
    "<victim\ufe6bthere.test@relay.test>",
    "<victim@\u24e1elay.test>",
    "<victim@relay.test\u202e>",
    "<victim@there.test> <honest@relay.test>",
    "<victim@there.test>,<honest@relay.test>",
    "<honest@relay.test>,victim@there.test",
    "<victim@there.test\\>@relay.test>",
    "<victim@there.test\0@relay.test>",
    "<victim@there.test\t@relay.test>",
    "<victim@there.test ORCPT=rfc822;x@relay.test>",
    "<victim @there.test>",
    "<(relay.test)victim@there.test>",
    "<victim@(relay.test)there.test>",
    "victim@there.test",
    '"victim"@there.test',
    ":victim@there.test",
    "<<victim@there.test>>",
    "<victim@there.test",
    "victim@there.test>",
    "<mailto:victim@there.test>",
    "<smtp:victim@there.test>",
    "<|/bin/sh@relay.test>",
    "</etc/passwd@relay.test>",
    "<:include:/etc/passwd@relay.test>",
)
SENDERS = ("<>", "<honest@relay.test>", "<honest@there.test>", "<honest@[192.0.2.25]>", "<postmaster>")


def main(directory: Path) -> None:
    """Run the relay, ask it as a stranger and as a friend, print the replies."""
    for address in (HERE, STRANGER, FRIEND):
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True, capture_output=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, capture_output=True)
    relay = RelayProcess(directory, SETTINGS)
    relay.address, relay.port = HERE, 25
    with relay:
        asked = {
            "stranger": {sender: replies(STRANGER, sender) for sender in SENDERS},
            "friend": {SENDERS[1]: replies(FRIEND, SENDERS[1])},
            "data": [outcome_of_data()],
        }
    json.dump(asked, sys.stdout)


def replies(source: str, sender: str) -> dict[str, str]:
    """What the relay says to each recipient."""
    with socket.create_connection((HERE, 25), timeout=60, source_address=(source, 0)) as peer:
        stream = peer.makefile("rb")
        reply(stream)
        peer.sendall(b"EHLO relay.test\r\n")
        reply(stream)
        found = {}
        for recipient in RECIPIENTS:
            peer.sendall(f"MAIL FROM:{sender} SMTPUTF8\r\nRCPT TO:{recipient}\r\n".encode())
            assert reply(stream).startswith("250"), sender
            found[recipient] = reply(stream)
            peer.sendall(b"RSET\r\n")
            assert reply(stream).startswith("250")
        return found


def outcome_of_data() -> str:
    """What a stranger hears who sends on though every recipient was refused."""
    with socket.create_connection((HERE, 25), timeout=60, source_address=(STRANGER, 0)) as peer:
        stream = peer.makefile("rb")
        reply(stream)
        for line in ("EHLO x", "MAIL FROM:<>", "RCPT TO:<victim@there.test>"):
            peer.sendall(line.encode() + b"\r\n")
            reply(stream)
        peer.sendall(b"DATA\r\n")
        return reply(stream)


def reply(stream: BinaryIO) -> str:
    """One whole reply."""
    lines = ""
    while True:
        line = stream.readline().decode()
        assert line, "the relay hung up"
        lines += line
        if line[3] == " ":
            return lines


if __name__ == "__main__":
    main(Path(sys.argv[1]))
