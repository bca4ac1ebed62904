"""The whole relay in the modes ``validate`` and ``auto`` on a signed tree: what is verified, deferred, and delivered later."""

from __future__ import annotations

import asyncio
import re
import smtplib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.app import CannotStart, open_relay
from relay.config.load import read
from relay.dns import follow, libunbound, probe
from relay.lab.ca import Authority, CertificateKind, tlsa_rdata
from relay.lab.mx import Receiver
from relay.lab.script import Script
from tests.interop.servers import require_libunbound
from tests.loopback import LoopbackNetwork
from tests.relay_process import RelayProcess
from tests.signed_tree import Key, Signing, Tree, TreeServer, Zone

PATIENCE = 60.0
VERIFIED = r"Verified TLS connection established to mx\.good\.zt"


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
        (self.directory / "tls_policy").write_text("may.zt may\n")
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
            Zone("plain.zt.", ["@ IN MX 10 mx", f"mx IN A {address}"], Signing.UNSIGNED),
        ]
    )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    require_libunbound()
    network = LoopbackNetwork()
    credential = Authority(tmp_path, datetime.now(UTC)).issue(CertificateKind.SELF_SIGNED, "mx.good.zt")
    receiver = Receiver("mx.good.zt", network.address(2), Script(), credential.pem_file)
    port = await receiver.start()
    (tmp_path / "state").mkdir(mode=0o700)
    tree = tree_of(port, receiver.address, tlsa_rdata(3, 1, 1, credential.leaf))
    try:
        with TreeServer(tree) as server:
            yield World(tmp_path, server, receiver, port, network.address(9))
    finally:
        await receiver.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at a resolver that failed again soon."""
    monkeypatch.setattr(probe, "_BETWEEN_FAILURES", 0.2)


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


async def test_validate_verifies_and_follows_its_anchor(world: World) -> None:
    (world.directory / "state" / "root.key").write_text("\n".join(world.server.tree.anchors) + "\n")
    async with world.relay(f'mode = "validate"\n{world.nameserver}') as (log, address):
        await log.wait_for(r"resolver validates: libunbound through 127\.0\.0\.1:\d+: dnssec_probe 'ns:\.'")
        await log.wait_for(r"trust anchor .*root\.key: the trusted keys have changed")  # from DS to DNSKEY records
        queue_id = await send(address, "bob@good.zt")
        await log.wait_for(VERIFIED)
        await log.wait_for(f"{queue_id}: to=<bob@good.zt>.*tls=dane.*status=sent")
    (message,) = world.receiver.received()
    assert message.encrypted
    assert "autotrust" in (world.directory / "state" / "root.key").read_text()


async def test_validate_defers_bogus_with_its_reason_and_delivers_insecure_opportunistically(world: World) -> None:
    anchor = world.write_anchor(world.server.tree.anchors)
    settings = f'mode = "validate"\n{world.nameserver}\ntrust_anchor_file = "{anchor}"'
    async with world.relay(settings) as (log, address):
        bogus, plain = await send(address, "bob@bogus.zt"), await send(address, "bob@plain.zt")
        line = await log.wait_for(f"{bogus}: to=.*status=deferred")
        assert "validation failure <mx.bogus.zt. A" in line
        await log.wait_for(f"{plain}: to=.*status=sent")
    assert not (world.directory / "state" / "root.key").exists()


async def test_stopped_resolver_defers_with_its_reason_and_mail_flows_when_it_returns(
    world: World, impatient: None
) -> None:
    anchor = world.write_anchor(world.server.tree.anchors)
    world.server.stop()
    settings = f'mode = "validate"\n{world.nameserver}\ntrust_anchor_file = "{anchor}"'
    async with world.relay(settings) as (log, address):
        queue_id = await send(address, "bob@good.zt")
        await log.wait_for("warning: resolver does not validate: dnssec_probe 'ns:.' received no response")
        line = await log.wait_for(f"{queue_id}: to=<bob@good.zt>.*status=deferred")
        assert "type=MX: Host not found, try again" in line
        assert "libunbound through" in line
        assert not world.receiver.sessions
        world.server.start()
        await log.wait_for("resolver validates: libunbound through")
        await log.wait_for(f"{queue_id}: to=<bob@good.zt>.*tls=dane.*status=sent")


async def test_auto_takes_libunbound_where_it_validates(world: World) -> None:
    anchor = world.write_anchor(world.server.tree.anchors)
    async with world.relay(f'mode = "auto"\n{world.nameserver}\ntrust_anchor_file = "{anchor}"') as (log, address):
        queue_id = await send(address, "bob@good.zt")
        await log.wait_for(f"{queue_id}: to=<bob@good.zt>.*tls=dane.*status=sent")
        assert "libunbound through" in await log.wait_for("resolver validates")


async def test_auto_behind_a_forwarder_that_strips_signatures(world: World, impatient: None) -> None:
    anchor = world.write_anchor(world.server.tree.anchors)
    world.server.strips_signatures = True
    async with world.relay(f'mode = "auto"\n{world.nameserver}\ntrust_anchor_file = "{anchor}"') as (log, address):
        alarm = await log.wait_for("warning: resolver does not validate")
        for candidate in ("libunbound through", "libunbound with full recursion", "trust-ad through"):
            assert candidate in alarm
        queue_id, plain = await send(address, "bob@good.zt"), await send(address, "bob@may.zt")
        line = await log.wait_for(f"{queue_id}: to=<bob@good.zt>.*status=deferred")
        assert "resolver does not validate: expected a resolver that validates DNSSEC; found libunbound through" in line
        # What asks for no DANE needs no proof, and its hosts are found.
        await log.wait_for(f"{plain}: to=<bob@may.zt>.*status=sent")
        assert [message.recipients for message in world.receiver.received()] == [("bob@may.zt",)]
        world.server.strips_signatures = False
        await log.wait_for("resolver validates: libunbound through")
        await log.wait_for(f"{queue_id}: to=<bob@good.zt>.*tls=dane.*status=sent")


async def test_auto_without_libunbound_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise libunbound.NoLibunbound("libunbound is not installed (apt-get install libunbound8)")

    monkeypatch.setattr(libunbound, "load", none)
    async with world.relay(f'mode = "auto"\n{world.nameserver}') as (log, _):
        assert "apt-get install libunbound8" in await log.wait_for("warning: resolver does not validate")
    with pytest.raises(CannotStart, match=r'dns\.mode = "validate": .*apt-get install libunbound8'):
        async with world.relay(f'mode = "validate"\n{world.nameserver}'):
            pass


async def test_wrong_anchor_does_not_validate_and_is_named(world: World) -> None:
    anchor = world.write_anchor([Key.new().delegation_signer(".")])
    async with world.relay(f'mode = "validate"\n{world.nameserver}\ntrust_anchor_file = "{anchor}"') as (log, address):
        alarm = await log.wait_for("warning: resolver does not validate")
        assert f"trust anchor: {anchor}" in alarm
        queue_id = await send(address, "bob@good.zt")
        await log.wait_for(f"{queue_id}: to=<bob@good.zt>.*status=deferred")
    assert not world.receiver.sessions


@pytest.mark.parametrize(("text", "why"), [(None, "Is a directory"), ("nonsense\n", "is no master file")])
async def test_anchor_that_cannot_be_read_stops_the_start(world: World, text: str | None, why: str) -> None:
    managed = world.directory / "state" / "root.key"
    if text is None:
        managed.mkdir()
    else:
        managed.write_text(text)
    with pytest.raises(CannotStart, match=f"trust anchor .*root.key: .*{why}"):
        async with world.relay(f'mode = "validate"\n{world.nameserver}'):
            pass


async def test_name_that_must_be_refused(world: World) -> None:
    anchor = world.write_anchor(world.server.tree.anchors)
    common = f'mode = "validate"\n{world.nameserver}\ntrust_anchor_file = "{anchor}"'
    async with world.relay(f'{common}\nprobe_bogus_name = "mx.bogus.zt"') as (log, _):
        await log.wait_for(r"resolver validates: .* and refused dns\.probe_bogus_name 'mx\.bogus\.zt'")
    async with world.relay(f'{common}\nprobe_bogus_name = "mx.good.zt"') as (log, _):
        await log.wait_for(
            r"warning: resolver does not validate: dns\.probe_bogus_name 'mx\.good\.zt' received an answer"
        )


async def test_anchor_that_cannot_be_followed_is_told_and_mail_flows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> bool:
        raise follow.FollowFailed("No space left on device")

    monkeypatch.setattr(follow, "follow", fails)
    (world.directory / "state" / "root.key").write_text("\n".join(world.server.tree.anchors) + "\n")
    async with world.relay(f'mode = "validate"\n{world.nameserver}') as (log, address):
        await log.wait_for(r"warning: trust anchor .* could not be brought up to date: No space left on device")
        queue_id = await send(address, "bob@good.zt")
        await log.wait_for(f"{queue_id}: to=<bob@good.zt>.*tls=dane.*status=sent")


async def test_as_people_run_it(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A process of its own, on uvloop, from a configuration file."""
    anchor = world.write_anchor(world.server.tree.anchors)
    relay = RelayProcess(
        tmp_path_factory.mktemp("relay"),
        {
            "smtp": {"port": world.port},
            "dns": {
                "mode": "validate",
                "nameservers": [f"{world.server.address}:{world.server.port}"],
                "trust_anchor_file": str(anchor),
            },
        },
    )

    def run() -> str:
        with relay:
            content = b"Subject: hello\r\n\r\nhello\r\n"
            queue_id = relay.send(content, sender="ann@client.test", recipients=["bob@good.zt"])
            return relay.wait_for_status(queue_id)

    assert "status=sent" in await asyncio.to_thread(run)
    assert world.receiver.sessions[0].tls is not None
