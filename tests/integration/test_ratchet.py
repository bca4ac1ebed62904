"""The ratchet over two days of the lab: what was seen on the first is held, or missed, on the second."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from click.testing import CliRunner, Result

from relay.app import open_relay
from relay.cli.main import main
from relay.config.load import load
from relay.lab.client import submit
from relay.lab.destination import Destination
from relay.lab.scenarios import DESTINATIONS
from relay.lab.script import Script, StartTls
from relay.lab.world import World, open_world

GOOD = next(one for one in DESTINATIONS if one.name == "good")
PLAIN = next(one for one in DESTINATIONS if one.name == "no-tlsa")
WITHOUT_TLSA = replace(GOOD, hosts=(replace(GOOD.hosts[0], tlsa=()),))
WITHOUT_TLS = replace(PLAIN, hosts=(replace(PLAIN.hosts[0], script=Script(starttls=StartTls.ABSENT)),))


@dataclass
class Office:
    directory: Path
    world: World
    smtp: tuple[str, int]
    lines: list[str]
    said: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, command: str) -> Result:
        arguments = [str(self.directory / word) if word == "relay.toml" else word for word in shlex.split(command)]
        return await asyncio.to_thread(CliRunner().invoke, main, arguments)

    async def send(self, one: Destination) -> str:
        """The status line of a message to a destination."""
        before = len(self.lines)
        await asyncio.to_thread(submit, self.smtp, [one], datetime.now(UTC))
        async with asyncio.timeout(60):
            while True:
                for line in self.lines[before:]:
                    if f"to=<{one.recipient}>" in line and "status=" in line:
                        return line
                self.said.clear()
                await self.said.wait()


@asynccontextmanager
async def day(directory: Path, ratchet: str, *destinations: Destination, policy: str = "") -> AsyncIterator[Office]:
    """A relay in a world, both new; the state directory is the same each day, and so are the names."""
    async with open_world(now=datetime.now(UTC), destinations=destinations) as world:
        (directory / "tls_policy").write_text(policy)
        (directory / "state").mkdir(mode=0o700, exist_ok=True)
        host, port = world.nameserver
        (directory / "relay.toml").write_text(
            f'[relay]\nmyhostname = "relay.lab.test"\nstate_dir = "state"\n[smtpd]\nlisten = ["127.0.0.1:0"]\n'
            f'[smtp]\nport = {world.smtp_port}\ntls_CAfile = "{world.ca_file}"\ntls_policy_maps = ["tls_policy"]\n'
            f'tls_ratchet = "{ratchet}"\n'
            f'[dns]\nmode = "trust-ad"\nnameservers = ["{host}:{port}"]\ntimeout = "3s"\n'
            '[queue]\nminimal_backoff_time = "1h"\nmaximal_backoff_time = "1h"\n[http]\nlisten = ""\n'
        )
        config = load(directory / "relay.toml", {}, hostname="relay.lab.test")
        office = Office(directory, world, ("", 0), [])

        def write(line: str) -> None:
            office.lines.append(line)
            office.said.set()

        async with open_relay(config, write_line=write) as relay:
            office.smtp = relay.smtp_addresses[0]
            yield office


async def first_day(directory: Path) -> None:
    async with day(directory, "alarm", GOOD, PLAIN) as office:
        assert "tls=dane, dsn=2.0.0, status=sent" in await office.send(GOOD)
        assert "tls=may, dsn=2.0.0, status=sent" in await office.send(PLAIN)
        listed = await office.run("policy ratchet list -c relay.toml --json")
        marks = {one["destination"]: one["best"] for one in map(json.loads, listed.stdout.splitlines())}
        assert marks == {"good.lab.test": "dane", "no-tlsa.lab.test": "encrypted"}
        assert not any("ratchet" in line for line in office.lines)


async def test_alarm_warns_and_sends(tmp_path: Path) -> None:
    await first_day(tmp_path)
    async with day(tmp_path, "alarm", WITHOUT_TLSA, WITHOUT_TLS) as office:
        assert "tls=may, dsn=2.0.0, status=sent" in await office.send(WITHOUT_TLSA)
        assert "tls=may:none, dsn=2.0.0, status=sent" in await office.send(WITHOUT_TLS)
        alarms = [line for line in office.lines if "warning: " in line and "ratchet: " in line]
        assert re.search(
            r"ratchet: good\.lab\.test at mx\.\S+ is encrypted; it was proved by DANE at mx\.good", alarms[0]
        )
        assert re.search(
            r"ratchet: no-tlsa\.lab\.test at mx\.\S+ is in the clear; it was encrypted at mx\.no-tlsa", alarms[1]
        )


async def test_enforce_defers_until_somebody_says_so(tmp_path: Path) -> None:
    await first_day(tmp_path)
    async with day(tmp_path, "enforce", WITHOUT_TLSA, WITHOUT_TLS) as office:
        dane, clear = await office.send(WITHOUT_TLSA), await office.send(WITHOUT_TLS)
        assert re.search(
            r"dsn=4\.7\.5, status=deferred \(no TLSA records found: expected usable TLSA records; found no TLSA records at "
            r"\S+; rule ratchet \(proved by DANE at mx\.good\S+ on \S+\) over default smtp\.tls_security_level\)$",
            dane,
        ), dane
        assert re.search(
            r"tls=!encrypt, dsn=4\.7\.4, status=deferred \(TLS is required, but was not offered by host \S+: expected .*; found "
            r"none; rule ratchet \(encrypted at mx\.no-tlsa\S+ on \S+\) over default smtp\.tls_security_level\)$",
            clear,
        ), clear
        assert not any(receiver.received() for receiver in office.world.receivers.values())
        told = await office.run("explain good.lab.test -c relay.toml")
        assert told.exit_code == 1
        assert "rule ratchet (proved by DANE at mx.good" in told.stdout
        forgotten = await office.run("policy ratchet forget good.lab.test -c relay.toml")
        assert forgotten.stdout == "good.lab.test: forgotten\n"
        assert "tls=may, dsn=2.0.0, status=sent" in await office.send(WITHOUT_TLSA)


async def test_a_line_is_the_administrators_word(tmp_path: Path) -> None:
    await first_day(tmp_path)
    async with day(tmp_path, "enforce", WITHOUT_TLSA, policy="good.lab.test may until=2126-12-31\n") as office:
        assert "tls=may, dsn=2.0.0, status=sent" in await office.send(WITHOUT_TLSA)


async def test_off_remembers_nothing(tmp_path: Path) -> None:
    async with day(tmp_path, "off", GOOD) as office:
        assert "tls=dane, dsn=2.0.0, status=sent" in await office.send(GOOD)
        assert (await office.run("policy ratchet list -c relay.toml")).stdout == "Nothing is remembered.\n"
        assert (await office.run("policy ratchet forget good.lab.test -c relay.toml")).exit_code == 1
