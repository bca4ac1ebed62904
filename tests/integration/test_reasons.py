"""Must show: a refusal names what was expected, what was found and the line that asked for it, in the same words everywhere.

In the log, in the queue's listing, in the report to the sender and in ``explain``, text and JSON, for a line of a policy
map at line 14.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay.app import open_relay
from relay.cli.main import main
from relay.config.load import load
from relay.lab.client import submit
from relay.lab.scenarios import DESTINATIONS
from relay.lab.world import World, open_world

GOOD = next(one for one in DESTINATIONS if one.name == "good")
OTHER = "AB" * 32
LINES = {
    "fingerprint": (
        f"fingerprint match={OTHER}",
        re.compile(
            rf"Server certificate not verified: expected sha256 fingerprint {OTHER}; found sha256\(cert\) [0-9A-F]{{64}}, "
            r"sha256\(spki\) [0-9A-F]{64} of CN=mx\.good\.lab\.test; rule conf/tls_policy:14"
        ),
    ),
    "secure": (
        "secure match=elsewhere.example",
        re.compile(
            r"Server certificate not verified: expected a certificate for elsewhere\.example from a trusted CA; found a "
            r"certificate for mx\.good\.lab\.test; rule conf/tls_policy:14"
        ),
    ),
    "malformed": (
        "dane match=nexthop",
        re.compile(
            r"client TLS configuration problem: expected a valid policy entry; found attribute \"match\" invalid at security "
            r"level \"dane\"; rule conf/tls_policy:14"
        ),
    ),
    "misplaced end": (
        "dane-only until=2126-12-31",
        re.compile(
            r"client TLS configuration problem: expected a valid policy entry; found attribute \"until\" allowed only on a line "
            r"that is weaker than what applies without it \(conf/tls_policy:15\); rule conf/tls_policy:14"
        ),
    ),
}


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

    async def until(self, words: str) -> str:
        async with asyncio.timeout(90):
            while True:
                for line in self.lines:
                    if words in line:
                        return line
                self.said.clear()
                await self.said.wait()


@asynccontextmanager
async def open_office(directory: Path, line: str, lifetime: str) -> AsyncIterator[Office]:
    async with open_world(now=datetime.now(UTC), destinations=(GOOD,)) as world:
        (directory / "conf").mkdir()
        text = "# a comment\n" * 13 + f"{GOOD.domain} {line}\n.lab.test dane-only\n"
        (directory / "conf" / "tls_policy").write_text(text)
        host, port = world.nameserver
        (directory / "relay.toml").write_text(
            f'[relay]\nmyhostname = "relay.lab.test"\nstate_dir = "state"\n[smtpd]\nlisten = ["127.0.0.1:0"]\n'
            f'[smtp]\nport = {world.smtp_port}\ntls_CAfile = "{world.ca_file}"\ntls_policy_maps = ["conf/tls_policy"]\n'
            f'[dns]\nmode = "trust-ad"\nnameservers = ["{host}:{port}"]\ntimeout = "3s"\n'
            f'[queue]\nmaximal_queue_lifetime = "{lifetime}"\nminimal_backoff_time = "1h"\nmaximal_backoff_time = "1h"\n'
            '[http]\nlisten = ""\n'
        )
        config = load(directory / "relay.toml", {}, hostname="relay.lab.test")
        office = Office(directory, world, ("", 0), [])

        def write(text: str) -> None:
            office.lines.append(text)
            office.said.set()

        async with open_relay(config, write_line=write) as relay:
            office.smtp = relay.smtp_addresses[0]
            yield office


@pytest.mark.parametrize("name", LINES)
async def test_a_deferral_and_a_bounce_name_the_rule_and_its_line(tmp_path: Path, name: str) -> None:
    line, reason = LINES[name]
    async with open_office(tmp_path, line, "0s") as office:
        await asyncio.to_thread(submit, office.smtp, [GOOD], datetime.now(UTC))
        status = await office.until("status=deferred")
        logged = re.search(r"status=deferred \((.*)\)$", status)
        assert logged is not None
        assert reason.fullmatch(logged[1]), logged[1]
        assert any("status=expired, returned to sender" in each for each in office.lines) or await office.until(
            "expired"
        )

        told = await office.run("explain good.lab.test --live -c relay.toml")
        assert told.exit_code == 1
        assert f"status=deferred ({logged[1]})" in told.stdout
        assert f"Diagnostic-Code: X-Relay; {logged[1]}" in told.stdout
        (story,) = map(
            json.loads, (await office.run("explain good.lab.test --live --json -c relay.toml")).stdout.splitlines()
        )
        assert story["message"]["reason"] == logged[1]
        assert story["message"]["report"]["Diagnostic-Code"] == f"X-Relay; {logged[1]}"

        await office.until("nrcpt=1 (queue active)")
        report = await received_report(office)
        assert f"Diagnostic-Code: X-Relay; {logged[1]}" in report
        assert "Status: 4.7.5" in report
        assert "Action: failed" in report


async def received_report(office: Office) -> str:
    """The report as the sender's host received it, fields unfolded."""
    async with asyncio.timeout(90):
        while not (reports := office.world.reports()):
            office.said.clear()
            await office.said.wait()
    parsed = message_from_bytes(reports[0].content)
    fields = [
        f"{field}: {' '.join(str(value).split())}"
        for part in parsed.walk()
        if "Final-Recipient" in part
        for field, value in part.items()
    ]
    return "\n".join(fields)


async def test_what_waits_says_so_in_the_queue(tmp_path: Path) -> None:
    line, reason = LINES["fingerprint"]
    async with open_office(tmp_path, line, "5d") as office:
        await asyncio.to_thread(submit, office.smtp, [GOOD], datetime.now(UTC))
        await office.until("status=deferred")
        (entry,) = map(json.loads, (await office.run("queue list -c relay.toml --json")).stdout.splitlines())
        assert reason.fullmatch(entry["recipients"][0]["delay_reason"])
