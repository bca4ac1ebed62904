"""``audit=dane`` over the lab: nothing is held back, and the report says how many would verify, which not and why.

``RELAY_TEST_WRITE=1`` writes the report in docs/audit.md anew instead of comparing it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay.app import open_relay
from relay.cli.main import main
from relay.config.load import load
from relay.lab.client import submit
from relay.lab.scenarios import DESTINATIONS
from relay.lab.world import World, open_world
from tests.steady import steady

DOCUMENT = Path(__file__).parents[2] / "docs" / "audit.md"
BLOCK = re.compile(r"```console\n\$ dane-relay (?P<command>policy audit [^\n]*)\n(?P<output>.*?)```\n", re.DOTALL)
FINDINGS = {
    "good": "verified",
    "ta": "verified",
    "rollover": "verified",
    "halfdane": "verified",
    "mismatch": "refused",
    "expired-ta": "refused",
    "no-starttls": "refused",
    "two-hosts": "refused",  # the first host took the mail
    "tlsa-servfail": "unknown",
    "tlsa-garbage": "unknown",
    "no-tlsa": "unproved",
    "cleartext": "unproved",
    "pkix-only": "unproved",
    "insecure": "unproved",
}
CHOSEN = tuple(one for one in DESTINATIONS if one.name in FINDINGS)


@dataclass
class Office:
    """A running relay at level ``may`` in the lab, its log and its directory."""

    directory: Path
    world: World
    smtp: tuple[str, int]
    lines: list[str]
    said: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, command: str) -> Result:
        arguments = [str(self.directory / word) if word == "relay.toml" else word for word in shlex.split(command)]
        return await asyncio.to_thread(CliRunner().invoke, main, arguments)

    async def until(self, count: int, words: str) -> list[str]:
        async with asyncio.timeout(60):
            while len(found := [line for line in self.lines if words in line]) < count:
                self.said.clear()
                await self.said.wait()
        return found


@asynccontextmanager
async def open_office(directory: Path, options: str) -> AsyncIterator[Office]:
    async with open_world(now=datetime.now(UTC), destinations=CHOSEN) as world:
        (directory / "tls_policy").write_text("#: audit=dane\nmismatch.lab.test may\n")
        (directory / "state").mkdir(mode=0o700)
        host, port = world.nameserver
        (directory / "relay.toml").write_text(
            f'[relay]\nmyhostname = "relay.lab.test"\nstate_dir = "state"\n[smtpd]\nlisten = ["127.0.0.1:0"]\n'
            f'[smtp]\nport = {world.smtp_port}\ntls_CAfile = "{world.ca_file}"\ntls_policy_maps = ["tls_policy"]\n'
            f'tls_security_level = "may"\n{options}'
            f'[dns]\nmode = "trust-ad"\nnameservers = ["{host}:{port}"]\ntimeout = "3s"\n[http]\nlisten = ""\n'
        )
        config = load(directory / "relay.toml", {}, hostname="relay.lab.test")
        office = Office(directory, world, ("", 0), [])

        def write(line: str) -> None:
            office.lines.append(line)
            office.said.set()

        async with open_relay(config, write_line=write) as relay:
            office.smtp = relay.smtp_addresses[0]
            yield office


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path, 'tls_audit_level = "dane"\n') as opened:
        yield opened


async def test_nothing_is_held_back_and_the_report_says_what_would_be(office: Office) -> None:
    await asyncio.to_thread(submit, office.smtp, CHOSEN, datetime.now(UTC))
    sent = await office.until(len(CHOSEN), "status=")
    assert all("status=sent" in line and "tls=may" in line for line in sent)
    delivered = {
        one.name for one in CHOSEN if any(r for h in one.hosts for r in office.world.receivers[h.name].received())
    }
    assert delivered == set(FINDINGS)
    await office.until(len(CHOSEN), ": audit: ")

    report = await office.run("policy audit -c relay.toml --json")
    objects = {one["destination"].partition(".")[0]: one for one in map(json.loads, report.stdout.splitlines())}
    assert {name: [each for each in set(FINDINGS.values()) if one[each]] for name, one in objects.items()} == {
        name: [finding] for name, finding in FINDINGS.items()
    }
    assert all(one["sessions"] == 1 for one in objects.values())
    assert report.exit_code == 1
    why = objects["mismatch"]["why"]["refused"]["text"]
    assert why.startswith("Server certificate not verified: expected TLSA 3 1 1 ")
    assert "rule TLSA _" in why
    assert "by tls_policy:2 audit=dane" in why
    assert "SERVFAIL" in objects["tlsa-servfail"]["why"]["unknown"]["text"]
    assert "TLS is required, but was not offered" in objects["no-starttls"]["why"]["refused"]["text"]
    # The same words as in the log, and as a delivery would log them.
    assert any(line.endswith(f"would be deferred at level dane: {why}") for line in office.lines)
    fine = await office.run("policy audit good.lab.test -c relay.toml")
    assert fine.exit_code == 0
    assert "good.lab.test  dane       1 of 1 session would verify" in fine.stdout
    await compare(office)


async def compare(office: Office) -> None:
    text = DOCUMENT.read_text()
    for example in BLOCK.finditer(text):
        made = (await office.run(example["command"])).stdout.replace(f"{office.directory}/", "")
        if os.environ.get("RELAY_TEST_WRITE") == "1":
            text = text.replace(example[0], f"```console\n$ dane-relay {example['command']}\n{made}```\n")
        else:
            assert steady(example["output"]) == steady(made)
    if text != DOCUMENT.read_text():
        DOCUMENT.write_text(text)


async def test_counts_outlive_the_relay_and_can_be_forgotten(tmp_path: Path) -> None:
    mismatch = tuple(one for one in CHOSEN if one.name in {"mismatch", "good"})
    async with open_office(tmp_path, 'connection_cache_time_limit = "0s"\n') as office:
        for _ in range(2):  # a session each
            await asyncio.to_thread(submit, office.smtp, mismatch, datetime.now(UTC))
        await office.until(2, ": audit: ")  # only the line asks for it
    state = shlex.quote(str(tmp_path / "state"))
    alone = await office.run(f"policy audit --state-dir {state}")
    assert not alone.stderr
    assert "mismatch.lab.test  dane       0 of 2 sessions would verify" in alone.stdout
    assert "  2 would be deferred, last at mx.mismatch.lab.test[" in alone.stdout
    assert "0 of 2 sessions would verify; at 0 of 1 destinations all would." in alone.stdout
    assert (await office.run(f"policy audit --forget --state-dir {state}")).stdout == "1 count forgotten.\n"
    assert "No session was audited" in (await office.run(f"policy audit --state-dir {state}")).stdout
