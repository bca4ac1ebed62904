"""Transport maps in a running relay: DANE at the next-hop's own port, routes that end, and a reload."""

from __future__ import annotations

import asyncio
import smtplib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.app.relay import Relay, open_relay
from relay.config.load import read
from relay.lab.ca import Authority, CertificateKind, tlsa_rdata
from relay.lab.mx import Receiver
from relay.lab.nameserver import NameServer, Trust, Zone
from relay.lab.script import Script

DEADLINE = 60.0
PORT = 25  # of hosts where the next-hop names none; nothing in this test listens there
GOOD, WRONG = "127.0.0.11", "127.0.0.12"


@dataclass
class Lines:
    """The log, with a way to wait for a line."""

    lines: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, line: str) -> None:
        self.lines.append(line)
        self.changed.set()

    async def wait(self, wanted: Callable[[str], bool]) -> str:
        async with asyncio.timeout(DEADLINE):
            while True:
                self.changed.clear()
                if found := next(filter(wanted, self.lines), ""):
                    return found
                await self.changed.wait()


@dataclass
class Scene:
    relay: Relay
    log: Lines
    transport: Path
    good: Receiver
    wrong: Receiver
    ports: tuple[int, int]

    async def send(self, recipient: str) -> str:
        """Hand in a message and wait for its status line."""
        seen = len(self.log.lines)
        host, port = self.relay.smtp_addresses[0]

        def submit() -> None:
            with smtplib.SMTP(host, port, local_hostname="client.test", timeout=DEADLINE) as client:
                client.sendmail("joe@client.test", [recipient], b"Subject: hello\r\n\r\nhello\r\n")

        await asyncio.to_thread(submit)
        known = set(self.log.lines[:seen])
        return await self.log.wait(lambda line: f": to=<{recipient}>, " in line and line not in known)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        authority = Authority(tmp_path, datetime.now(UTC))
        credentials = {name: authority.issue(CertificateKind.GOOD, name) for name in ("good.test", "wrong.test")}
        receivers: list[Receiver] = []
        ports: list[int] = []
        for name, address in (("good.test", GOOD), ("wrong.test", WRONG)):
            receiver = Receiver(name, address, Script(), credentials[name].pem_file)
            ports.append(await receiver.start())
            stack.push_async_callback(receiver.stop)
            receivers.append(receiver)
        matching = tlsa_rdata(3, 1, 1, credentials["good.test"].leaf).hex()
        other = tlsa_rdata(3, 1, 1, credentials["wrong.test"].leaf).hex()

        def tlsa(data: str) -> tuple[str, ...]:
            return (f"3 1 1 {data[6:]}",)

        records = {
            ("good.test.", "A"): (GOOD,),
            ("wrong.test.", "A"): (WRONG,),
            # What is right at the next-hop's port would be wrong at the usual one, and the other way round.
            (f"_{ports[0]}._tcp.good.test.", "TLSA"): tlsa(matching),
            (f"_{PORT}._tcp.good.test.", "TLSA"): tlsa(other),
            (f"_{ports[1]}._tcp.wrong.test.", "TLSA"): tlsa(matching),
            (f"_{PORT}._tcp.wrong.test.", "TLSA"): tlsa(other),
        }
        root = Zone(".", Trust.SECURE, {(".", "NS"): ("ns.test.",)})
        nameserver = NameServer((root, Zone("test.", Trust.SECURE, records)))
        stack.push_async_callback(nameserver.stop)
        host, dns_port = await nameserver.start()
        transport = tmp_path / "transport"
        transport.write_text(
            f"routed.test smtp:[good.test]:{ports[0]}\n"
            f".below.test smtp:[good.test]:{ports[0]}\n"
            f"mismatch.test smtp:[wrong.test]:{ports[1]}\n"
            f"second.test smtp:[wrong.test]:{ports[1]}, [good.test]:{ports[0]}\n"
            "refused.test error:5.1.2 no such place\n"
            "waiting.test retry:4.2.1 come back\n"
            "thrown.test discard:into the bin\n"
            "broken.test lmtp:x\n"
            "client.test discard:reports\n"
        )
        (tmp_path / "state").mkdir(mode=0o700)
        config = read(
            f'[relay]\nmyhostname = "relay.test"\nstate_dir = "state"\n'
            f'[smtpd]\nlisten = ["127.0.0.1:0"]\n'
            f'[smtp]\nport = {PORT}\ntransport_maps = ["texthash:transport"]\n'
            f'[dns]\nmode = "trust-ad"\nnameservers = ["{host}:{dns_port}"]\n'
            f'[http]\nlisten = ""\n',
            name="relay.toml",
            base=tmp_path,
            environ={},
            hostname="relay.test",
        )
        log = Lines()
        async with open_relay(config, write_line=log.write) as relay:
            yield Scene(relay, log, transport, receivers[0], receivers[1], (ports[0], ports[1]))


async def test_dane_is_asked_for_at_the_next_hops_own_port(scene: Scene) -> None:
    for recipient in ("ann@routed.test", "ann@deep.below.test"):
        status = await scene.send(recipient)
        assert f"relay=good.test[{GOOD}]:{scene.ports[0]}," in status
        assert "tls=dane, dsn=2.0.0, status=sent (250" in status
    assert [message.recipients for message in scene.good.received()] == [("ann@routed.test",), ("ann@deep.below.test",)]
    assert any("Verified TLS connection established to good.test" in line for line in scene.log.lines)


async def test_a_mismatch_at_that_port_holds_the_mail(scene: Scene) -> None:
    status = await scene.send("ann@mismatch.test")
    assert "status=deferred (Server certificate not verified: expected " in status
    assert f"_{scene.ports[1]}._tcp.wrong.test" in status
    assert not scene.wrong.received()


async def test_the_second_next_hop_takes_what_the_first_does_not(scene: Scene) -> None:
    status = await scene.send("ann@second.test")
    assert f"relay=good.test[{GOOD}]:{scene.ports[0]}," in status
    assert "tls=dane, dsn=2.0.0, status=sent" in status
    assert not scene.wrong.received()


async def test_routes_that_end(scene: Scene) -> None:
    refused = await scene.send("ann@refused.test")
    assert " postfix/error[" in refused
    assert "relay=none, " in refused
    assert "dsn=5.1.2, status=bounced (no such place; rule transport:5)" in refused
    await scene.log.wait(lambda line: "sender non-delivery notification" in line)
    assert "dsn=4.2.1, status=deferred (come back; rule transport:6)" in await scene.send("ann@waiting.test")
    thrown = await scene.send("ann@thrown.test")
    assert " postfix/discard[" in thrown
    assert "relay=none, " in thrown
    assert "dsn=2.0.0, status=sent (into the bin)" in thrown
    assert "dsn=4.3.5, status=deferred (mail transport unavailable: expected one of the transports" in (
        await scene.send("ann@broken.test")
    )
    assert not scene.good.sessions


async def test_a_reload_takes_the_new_map_and_keeps_the_old_one_if_it_is_gone(scene: Scene) -> None:
    assert "status=sent (into the bin)" in await scene.send("ann@thrown.test")
    scene.transport.write_text(f"thrown.test smtp:[good.test]:{scene.ports[0]}\nbad.test x:\n")
    reloaded = await scene.relay.reload()
    assert reloaded.accepted
    assert any(
        message.startswith("transport:2: bad.test: expected one of the transports") for message in reloaded.messages
    )
    assert "tls=dane, dsn=2.0.0, status=sent (250" in await scene.send("bob@thrown.test")
    scene.transport.unlink()
    refused = await scene.relay.reload()
    assert not refused.accepted
    assert "transport: the transport map cannot be read" in refused.messages[0]
    assert "tls=dane, dsn=2.0.0, status=sent (250" in await scene.send("cat@thrown.test")
