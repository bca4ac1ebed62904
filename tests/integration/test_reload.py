"""Rules that change under a running relay: by a file alone, all or nothing, and not for what has begun."""

from __future__ import annotations

import asyncio
import smtplib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from relay.app import watch
from relay.app.relay import Relay, open_relay
from relay.config.config import Config
from relay.config.load import load
from relay.lab.nameserver import NameServer, Trust, Zone

DEADLINE = 60.0


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


class SlowHost:
    """Greets when it is let to, offers no STARTTLS, takes everything."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.may_greet = asyncio.Event()
        self.mail = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.called.set()
        await self.may_greet.wait()
        writer.write(b"220 slow.test\r\n")
        content = False
        while line := await reader.readline():
            verb = line[:4].upper()
            if content:
                content = line != b".\r\n"
                if not content:
                    writer.write(b"250 2.0.0 taken\r\n")
            elif verb == b"QUIT":
                break
            elif verb == b"DATA":
                content = True
                writer.write(b"354 go\r\n")
            else:
                self.mail += verb == b"MAIL"
                writer.write(b"250 ok\r\n")
        writer.close()


@dataclass
class Scene:
    relay: Relay
    log: Lines
    directory: Path
    host: SlowHost

    def policy(self, text: str) -> None:
        (self.directory / "tls_policy").write_text(text)

    async def send(self, recipient: str) -> None:
        host, port = self.relay.smtp_addresses[0]

        def submit() -> None:
            with smtplib.SMTP(host, port, local_hostname="client.test", timeout=DEADLINE) as client:
                client.sendmail("joe@client.test", [recipient], b"Subject: hello\r\n\r\nhello\r\n")

        await asyncio.to_thread(submit)

    async def status(self, recipient: str) -> str:
        return await self.log.wait(lambda line: f": to=<{recipient}>, " in line)


@asynccontextmanager
async def running(directory: Path, *, watched: bool = False) -> AsyncIterator[Scene]:
    host = SlowHost()
    server = await asyncio.start_server(host.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    records = {("slow.test.", "A"): ("127.0.0.1",)}
    root = Zone(".", Trust.SECURE, {(".", "NS"): ("ns.test.",)})
    names = NameServer((root, Zone("test.", Trust.SECURE, records)))
    address, dns_port = await names.start()
    (directory / "tls_policy").write_text("slow.test encrypt\n")
    (directory / "state").mkdir(mode=0o700)
    source = directory / "relay.toml"
    source.write_text(
        f'[relay]\nmyhostname = "relay.test"\nstate_dir = "state"\n[smtpd]\nlisten = ["127.0.0.1:0"]\n'
        f'[smtp]\nport = {port}\ntls_security_level = "may"\ntls_policy_maps = ["texthash:tls_policy"]\n'
        f'connection_cache_time_limit = "60s"\n'
        f'[dns]\nmode = "trust-ad"\nnameservers = ["{address}:{dns_port}"]\n[http]\nlisten = ""\n'
    )

    def reread() -> Config:
        return load(source, {}, hostname="relay.test")

    log = Lines()
    try:
        async with open_relay(
            reread(), reread=reread, write_line=log.write, source=source if watched else None
        ) as relay:
            yield Scene(relay, log, directory, host)
    finally:
        server.close()
        await names.stop()


async def test_a_delivery_ends_under_the_policy_that_it_began_with(tmp_path: Path) -> None:
    async with running(tmp_path) as scene:
        await scene.send("ann@slow.test")
        await scene.host.called.wait()
        scene.policy("slow.test may\n")
        assert (await scene.relay.reload()).accepted
        scene.host.may_greet.set()
        held = await scene.status("ann@slow.test")
        assert "status=deferred (TLS is required, but was not offered" in held
        assert "rule tls_policy:1" in held
        assert scene.host.mail == 0
        await scene.send("bob@slow.test")
        assert "tls=may:none, dsn=2.0.0, status=sent" in await scene.status("bob@slow.test")


async def test_a_session_carries_mail_of_one_reading_of_the_rules(tmp_path: Path) -> None:
    async with running(tmp_path) as scene:
        scene.host.may_greet.set()
        used = []
        for policy, recipients in (
            ("slow.test may\n", ("ann", "bob")),
            ("slow.test may\n", ("cid", "dan")),
            ("slow.test may connection_reuse=no\n", ("eve", "fay")),
        ):
            scene.policy(policy)
            assert (await scene.relay.reload()).accepted
            for name in recipients:
                await scene.send(f"{name}@slow.test")
                status = await scene.status(f"{name}@slow.test")
                assert "status=sent" in status
                used.append("conn_use=2" in status)
        assert used == [False, True, False, True, False, False]


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.02)


@pytest.mark.usefixtures("_quick")
async def test_a_file_that_changes_is_read_without_being_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path, watched=True) as scene:
        scene.host.may_greet.set()
        scene.policy("slow.test may\n# changed\n")
        await scene.log.wait(lambda line: "policy maps and routes are in force" in line)
        assert any("changed, so the rules are read anew: " in line and "tls_policy" in line for line in scene.log.lines)
        await scene.send("ann@slow.test")
        assert "status=sent" in await scene.status("ann@slow.test")


@pytest.mark.usefixtures("_quick")
async def test_a_configuration_that_cannot_be_read_keeps_the_old_rules_and_shouts(tmp_path: Path) -> None:
    async with running(tmp_path, watched=True) as scene:
        scene.host.may_greet.set()
        source = tmp_path / "relay.toml"
        good = source.read_text()
        source.write_text(good.replace('tls_security_level = "may"', 'tls_security_level = "mya"'))
        shout = await scene.log.wait(lambda line: "reload refused" in line)
        assert "warning: reload refused, the old rules stay in force: " in shout
        assert "relay.toml:8: smtp.tls_security_level: expected one of" in shout
        await scene.send("ann@slow.test")
        assert "status=deferred (TLS is required" in await scene.status("ann@slow.test")
        source.write_text(good.replace('tls_policy_maps = ["texthash:tls_policy"]', "tls_policy_maps = []"))
        await scene.log.wait(lambda line: "policy maps and routes are in force" in line)
        await scene.send("bob@slow.test")
        assert "status=sent" in await scene.status("bob@slow.test")
        assert sum("reload refused" in line for line in scene.log.lines) == 1


async def test_what_no_reload_can_change_is_told(tmp_path: Path) -> None:
    async with running(tmp_path) as scene:
        source = tmp_path / "relay.toml"
        text = source.read_text().replace("[smtp]\n", "message_size_limit = 1000\n[smtp]\n", 1)
        source.write_text(text)
        reloaded = await scene.relay.reload()
        assert reloaded.accepted
        assert [message.partition("relay.toml")[2] for message in reloaded.messages] == [
            ":6: smtpd.message_size_limit has changed: that takes effect at the next start"
        ]
