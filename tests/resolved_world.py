"""A signed tree, a receiver that it leads to, and a relay that looks for it: what the resolver's troubles are shown with."""

from __future__ import annotations

import asyncio
import re
import smtplib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from relay.app import open_relay
from relay.config.load import read
from relay.lab.ca import Authority, CertificateKind, tlsa_rdata
from relay.lab.mx import Receiver
from relay.lab.script import Script
from tests.loopback import LoopbackNetwork
from tests.signed_tree import Signing, Tree, TreeServer, Zone

PATIENCE = 60.0


@dataclass
class Log:
    """The relay's lines, to be waited for."""

    lines: list[str] = field(default_factory=list)
    came: asyncio.Condition = field(default_factory=asyncio.Condition)
    wake: set[asyncio.Task[None]] = field(default_factory=set)

    def write(self, line: str) -> None:
        self.lines.append(line)
        task = asyncio.get_running_loop().create_task(self._tell())
        self.wake.add(task)
        task.add_done_callback(self.wake.discard)

    async def _tell(self) -> None:
        async with self.came:
            self.came.notify_all()

    async def wait_for(self, pattern: str, *, since: int = 0) -> str:
        def seen() -> list[str]:
            return [line for line in self.lines[since:] if re.search(pattern, line)]

        try:
            async with asyncio.timeout(PATIENCE), self.came:
                await self.came.wait_for(lambda: bool(seen()))
        except TimeoutError:
            raise AssertionError(f"no line with {pattern!r} among:\n" + "\n".join(self.lines)) from None
        return seen()[0]


@dataclass
class World:
    """A receiver with a DANE certificate, a signed tree that leads to it, and what a relay needs to find both."""

    directory: Path
    server: TreeServer
    receiver: Receiver
    port: int
    nowhere: str

    def configuration(self, dns: str) -> str:
        return f"""
[relay]
myhostname = "relay.test"
state_dir = "state"
[smtpd]
listen = ["127.0.0.1:0"]
[smtp]
port = {self.port}
tls_policy_maps = ["texthash:tls_policy"]
[dns]
timeout = "2s"
{dns}
[queue]
minimal_backoff_time = "0.5s"
maximal_backoff_time = "0.5s"
[http]
listen = ""
"""

    @property
    def nameserver(self) -> str:
        return f'nameservers = ["{self.server.address}:{self.server.port}"]'

    def write_anchor(self, records: Sequence[str]) -> Path:
        path = self.directory / "anchor.key"
        path.write_text("\n".join(records) + "\n")
        return path

    @asynccontextmanager
    async def relay(self, dns: str) -> AsyncIterator[tuple[Log, tuple[str, int]]]:
        """A relay that would ask a closed port on loopback where it means the DNS root."""
        log = Log()
        (self.directory / "tls_policy").write_text("may.zt may\nnamed.zt dane\n")
        hints = self.directory / "root.hints"
        hints.write_text(f". 3600 IN NS ns.zt.\nns.zt. 3600 IN A {self.nowhere}\n")
        text = self.configuration(dns)
        config = read(text, name="relay.toml", base=self.directory, environ={}, hostname="relay.test")
        async with open_relay(config, write_line=log.write, root_hints=str(hints)) as relay:
            yield log, relay.smtp_addresses[0]


def tree_of(port: int, address: str, tlsa: bytes) -> Tree:
    record = f"_{port}._tcp.mx IN TLSA {tlsa[0]} {tlsa[1]} {tlsa[2]} {tlsa[3:].hex()}"
    return Tree(
        [
            Zone("."),
            Zone("zt.", ["probe IN A 127.0.0.1"]),
            Zone("good.zt.", ["@ IN MX 10 mx", f"mx IN A {address}", record]),
            Zone("bogus.zt.", ["@ IN MX 10 mx", f"mx IN A {address}", record], Signing.BAD_SIGNATURES),
            Zone("may.zt.", ["@ IN MX 10 mx.plain.zt."]),
            Zone("named.zt.", ["@ IN MX 10 mx.good.zt."]),
            Zone("plain.zt.", ["@ IN MX 10 mx", f"mx IN A {address}"], Signing.UNSIGNED),
        ]
    )


@asynccontextmanager
async def open_world(directory: Path, nameserver: str = "") -> AsyncIterator[World]:
    """Serve the tree and receive its mail, for the length of the context."""
    network = LoopbackNetwork()
    credential = Authority(directory, datetime.now(UTC)).issue(CertificateKind.SELF_SIGNED, "mx.good.zt")
    receiver = Receiver("mx.good.zt", network.address(2), Script(), credential.pem_file)
    port = await receiver.start()
    (directory / "state").mkdir(mode=0o700)
    tree = tree_of(port, receiver.address, tlsa_rdata(3, 1, 1, credential.leaf))
    try:
        with TreeServer(tree, address=nameserver) as server:
            yield World(directory, server, receiver, port, network.address(9))
    finally:
        await receiver.stop()


async def send(address: tuple[str, int], recipient: str) -> str:
    """Hand the relay a message; returns its queue ID."""

    def talk() -> str:
        with smtplib.SMTP(*address, local_hostname="client.test", timeout=PATIENCE) as client:
            client.ehlo()
            client.mail("ann@client.test")
            client.rcpt(recipient)
            _, text = client.data(b"Subject: hello\r\n\r\nhello\r\n")
            return text.decode().rpartition(" ")[2]

    return await asyncio.to_thread(talk)
