"""``dane-relay explain`` in the lab: what it says of good and bad destinations, and docs/explain.md word for word.

``RELAY_TEST_WRITE=1`` writes the examples in docs/explain.md anew instead of comparing them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay.cli.lab import open_laboratory
from relay.cli.main import main
from relay.lab.client import submit
from relay.lab.scenarios import DESTINATIONS
from relay.lab.world import World, open_world
from tests.steady import steady

DOCUMENT = Path(__file__).parents[2] / "docs" / "explain.md"
NAMES = ("good", "mismatch", "expired-exception", "tlsa-servfail", "bad-line", "two-hosts", "secure")
CHOSEN = tuple(one for one in DESTINATIONS if one.name in NAMES)
BLOCK = re.compile(r"```console\n\$ dane-relay (?P<command>explain [^\n]*)\n(?P<output>.*?)```\n", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Office:
    """A directory with a configuration for the world, and the world."""

    directory: Path
    world: World

    async def run(self, command: str) -> Result:
        """Run ``dane-relay COMMAND`` as from the directory."""
        arguments = [str(self.directory / word) if word == "relay.toml" else word for word in shlex.split(command)]
        return await asyncio.to_thread(CliRunner().invoke, main, arguments)

    def said_mail(self) -> bool:
        """Whether a host ever heard more than it may before a message."""
        return any(session.saw_mail for sessions in self.world.sessions().values() for session in sessions)


@asynccontextmanager
async def open_office(directory: Path) -> AsyncIterator[Office]:
    async with open_world(now=datetime.now(UTC), destinations=CHOSEN) as world:
        (directory / "tls_policy").write_bytes(world.policy_file.read_bytes())
        host, port = world.nameserver
        (directory / "relay.toml").write_text(
            f'[relay]\nmyhostname = "relay.lab.test"\nstate_dir = "state"\n'
            f"[smtp]\nport = {world.smtp_port}\n"
            f'tls_CAfile = "{world.ca_file}"\ntls_policy_maps = ["texthash:tls_policy"]\n'
            f'[dns]\nmode = "trust-ad"\nnameservers = ["{host}:{port}"]\ntimeout = "3s"\n'
        )
        yield Office(directory, world)


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path) as opened:
        yield opened


def shown(result: Result, command: str) -> str:
    """The output as the document shows it: JSON spread out."""
    if "--json" not in command:
        return result.stdout
    return "".join(json.dumps(json.loads(line), indent=2) + "\n" for line in result.stdout.splitlines())


def domains_shown(*, as_objects: bool) -> set[str]:
    commands = (example["command"].split() for example in BLOCK.finditer(DOCUMENT.read_text()))
    return {
        words[1].removesuffix(".lab.test")
        for words in commands
        if "--live" in words and ("--json" in words) is as_objects
    }


@pytest.mark.parametrize("as_objects", [False, True], ids=["text", "json"])
def test_the_document_shows_each_kind_of_destination_in_both_forms(as_objects: bool) -> None:
    wanted = {"good", "mismatch", "expired-exception", "tlsa-servfail"}
    assert domains_shown(as_objects=as_objects) >= wanted


async def test_the_document_shows_what_is_printed(office: Office) -> None:
    text = DOCUMENT.read_text()
    examples = list(BLOCK.finditer(text))
    assert len(examples) >= 6
    for example in examples:
        made = shown(await office.run(example["command"]), example["command"])
        if os.environ.get("RELAY_TEST_WRITE") == "1":
            text = text.replace(example[0], f"```console\n$ dane-relay {example['command']}\n{made}```\n")
        else:
            assert steady(example["output"]) == steady(made), example["command"]
    if text != DOCUMENT.read_text():
        DOCUMENT.write_text(text)
    assert not office.said_mail()


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("good", 0, "Verified TLS connection established to mx.good.lab.test["),
        ("mismatch", 1, "status=deferred (Server certificate not verified: expected TLSA 3 1 1"),
        ("tlsa-servfail", 75, "TLSA lookup error for mx.tlsa-servfail.lab.test:"),
        ("expired-exception", 1, "by default smtp.tls_security_level since tls_policy:3 expired on 2026-01-31"),
        (
            "bad-line",
            1,
            'client TLS configuration problem: expected a valid policy entry; found attribute "match" invalid',
        ),
        ("secure", 0, "matched peername: mx.secure.lab.test"),
        ("two-hosts", 0, "would be attempted over mx2.two-hosts.lab.test["),
    ],
)
async def test_live(office: Office, name: str, status: int, words: str) -> None:
    result = await office.run(f"explain {name}.lab.test --live -c relay.toml")
    assert result.exit_code == status, result.output
    assert words in result.stdout
    assert not result.stderr
    assert not office.said_mail()


async def test_several_destinations_and_the_worst_status(office: Office) -> None:
    result = await office.run("explain good.lab.test mismatch.lab.test tlsa-servfail.lab.test --json -c relay.toml")
    objects = [json.loads(line) for line in result.stdout.splitlines()]
    assert [each["domain"].partition(".")[0] for each in objects] == ["good", "mismatch", "tlsa-servfail"]
    # Nobody was called, so nobody knows of the mismatch.
    assert [each["message"]["status"] for each in objects] == ["sent", "sent", "deferred"]
    assert result.exit_code == 75
    assert not any(office.world.sessions().values())
    live = await office.run("explain good.lab.test mismatch.lab.test tlsa-servfail.lab.test --live -c relay.toml")
    assert live.exit_code == 1


async def test_nothing_is_left_behind(office: Office) -> None:
    before = sorted(path.name for path in office.directory.iterdir())
    assert (await office.run("explain good.lab.test --live -c relay.toml")).exit_code == 0
    assert sorted(path.name for path in office.directory.iterdir()) == before


async def test_the_reason_is_the_log_s_word_for_word(tmp_path: Path) -> None:
    """P4: what explain foretells is what the relay then logs, for every destination of the lab that fails."""
    lines: list[str] = []
    async with open_laboratory(listen="127.0.0.1:0", http="127.0.0.1:0", show=lines.append) as laboratory:
        world = laboratory.world
        failing = [one for one in CHOSEN if one.name in {"mismatch", "tlsa-servfail", "bad-line"}]
        host, port = world.nameserver
        (tmp_path / "relay.toml").write_text(
            f'[relay]\nmyhostname = "relay.lab.test"\nstate_dir = "state"\n[smtp]\nport = {world.smtp_port}\n'
            f'tls_CAfile = "{world.ca_file}"\ntls_policy_maps = ["texthash:{world.policy_file}"]\n'
            f'[dns]\nmode = "trust-ad"\nnameservers = ["{host}:{port}"]\ntimeout = "3s"\n'
        )
        await asyncio.to_thread(submit, laboratory.smtp, failing, datetime.now(UTC))
        for one in failing:
            told = await Office(tmp_path, world).run(f"explain {one.domain} --live --json -c relay.toml")
            message = json.loads(told.stdout)["message"]
            expected = f"tls={message['tls']}, dsn={message['dsn']}, status={message['status']} ({message['reason']})"
            async with asyncio.timeout(60):
                while not any(f"to=<{one.recipient}>" in line and line.endswith(expected) for line in lines):
                    laboratory.book.changed.clear()
                    await laboratory.book.changed.wait()
