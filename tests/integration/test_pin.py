"""``dane-relay pin`` and ``finger`` in the lab: sessions as a delivery has them, no mail, and maps that stay what they were."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay.cli.main import main
from relay.lab.ca import fingerprint
from relay.lab.scenarios import DESTINATIONS
from relay.lab.world import World, open_world
from relay.policy.pins import written

NAMES = {"good", "two-hosts", "mismatch", "cleartext", "tlsa-servfail"}
CHOSEN = tuple(one for one in DESTINATIONS if one.name in NAMES)
OTHER = "AB:" * 31 + "AB"


@dataclass(frozen=True, slots=True)
class Office:
    directory: Path
    world: World

    async def run(self, command: str) -> Result:
        files = {"relay.toml", "tls_policy", "leaf.pem"}
        arguments = [str(self.directory / word) if word in files else word for word in shlex.split(command)]
        return await asyncio.to_thread(CliRunner().invoke, main, arguments)

    def pin(self, host: str) -> str:
        """The digest of a lab host's public key, by the lab's own reckoning."""
        import hashlib

        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        key = self.world.credentials[host].leaf.public_key()
        return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()

    @property
    def map(self) -> Path:
        return self.directory / "tls_policy"

    def said_mail(self) -> bool:
        return any(session.saw_mail for sessions in self.world.sessions().values() for session in sessions)


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_world(now=datetime.now(UTC), destinations=CHOSEN) as world:
        host, port = world.nameserver
        (tmp_path / "relay.toml").write_text(
            f'[relay]\nmyhostname = "relay.lab.test"\nstate_dir = "state"\n[smtp]\nport = {world.smtp_port}\n'
            f'tls_CAfile = "{world.ca_file}"\n'
            f'[dns]\nmode = "trust-ad"\nnameservers = ["{host}:{port}"]\ntimeout = "3s"\n'
        )
        office = Office(tmp_path, world)
        yield office
        assert not office.said_mail()


async def test_capture_verify(office: Office) -> None:
    pin = written(office.pin("mx.good.lab.test"))
    result = await office.run("pin capture good.lab.test -c relay.toml --into tls_policy")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"good.lab.test\tfingerprint match={pin}"
    assert "# Nothing proved who that was" in result.stdout
    assert office.map.read_text() == result.stdout
    again = await office.run("pin capture good.lab.test -c relay.toml --into tls_policy")
    assert again.exit_code == 1
    assert "has a line for good.lab.test already" in again.stderr

    same = await office.run("pin verify tls_policy -c relay.toml")
    assert same.exit_code == 0
    assert f": matches {pin} (public key)" in same.stdout
    office.map.write_text(f"good.lab.test fingerprint match={OTHER}\n.lab.test fingerprint match={OTHER}\n")
    other = await office.run("pin verify tls_policy -c relay.toml")
    assert other.exit_code == 1
    assert f"DOES NOT MATCH: shows public key {pin} of CN=mx.good.lab.test" in other.stdout
    assert f"no host shows {OTHER}" in other.stdout
    assert "not compared: the key names no host" in other.stdout


async def test_capture_takes_every_host_and_says_who_showed_nothing(office: Office) -> None:
    both = await office.run("pin capture two-hosts.lab.test -c relay.toml")
    pins = (written(office.pin(f"mx{number}.two-hosts.lab.test")) for number in (1, 2))
    assert both.stdout.splitlines()[-1] == f"two-hosts.lab.test\tfingerprint match={'|'.join(pins)}"
    one = await office.run("pin capture [mx2.two-hosts.lab.test] -c relay.toml --certificate")
    leaf = fingerprint(office.world.credentials["mx2.two-hosts.lab.test"].leaf)
    assert (
        one.stdout.splitlines()[-1]
        == f"[mx2.two-hosts.lab.test]\tfingerprint match={written(leaf.replace(':', '').lower())}"
    )
    nothing = await office.run("pin capture cleartext.lab.test -c relay.toml")
    assert nothing.exit_code == 1
    assert "showed nothing: TLS is required, but was not offered" in nothing.stdout
    assert "fingerprint match=" not in nothing.stdout


async def test_rotate_adds_the_new_beside_the_old_and_drops_the_old(office: Office) -> None:
    pin = written(office.pin("mx.good.lab.test"))
    before = f"# why\n#: audit=dane\ngood.lab.test fingerprint\n  match={OTHER}, ciphers=high\nb.example may\n"
    office.map.write_text(before)
    office.map.chmod(0o640)
    dry = await office.run("pin rotate tls_policy good.lab.test -c relay.toml --dry-run")
    assert f"{pin} is added" in dry.stdout
    assert office.map.read_text() == before
    assert (await office.run("pin rotate tls_policy good.lab.test -c relay.toml")).exit_code == 0
    assert office.map.read_text() == before.replace(OTHER, f"{OTHER}|{pin}")
    assert office.map.stat().st_mode & 0o777 == 0o640
    done = await office.run("pin rotate tls_policy good.lab.test -c relay.toml --finish")
    assert f"{OTHER} is dropped" in done.stdout
    assert office.map.read_text() == before.replace(OTHER, pin)
    assert "Nothing changes." in (await office.run("pin rotate tls_policy good.lab.test -c relay.toml --finish")).stdout


async def test_rotate_with_a_pin_that_no_host_shows_yet(office: Office) -> None:
    pin = written(office.pin("mx.good.lab.test"))
    office.map.write_text(f"good.lab.test fingerprint match={pin}\n")
    assert (await office.run(f"pin rotate tls_policy good.lab.test --new {OTHER} -c relay.toml")).exit_code == 0
    assert office.map.read_text() == f"good.lab.test fingerprint match={pin}|{OTHER}\n"
    leaf = office.world.credentials["mx.mismatch.lab.test"].pem_file.read_bytes()
    (office.directory / "leaf.pem").write_bytes(leaf)
    assert (await office.run("pin rotate tls_policy good.lab.test --new leaf.pem -c relay.toml")).exit_code == 0
    assert written(office.pin("mx.mismatch.lab.test")) in office.map.read_text()


async def test_finish_drops_nothing_while_a_host_shows_none_of_the_pins(office: Office) -> None:
    before = f"two-hosts.lab.test fingerprint match={written(office.pin('mx1.two-hosts.lab.test'))}|{OTHER}\n"
    office.map.write_text(before)
    refused = await office.run("pin rotate tls_policy two-hosts.lab.test -c relay.toml --finish")
    assert refused.exit_code == 1
    assert "shows none of the pins" in refused.stderr
    assert office.map.read_text() == before


async def test_finger_calls_every_address(office: Office) -> None:
    good = await office.run("finger good.lab.test -c relay.toml")
    assert good.exit_code == 0, good.output
    assert good.stdout.startswith("good.lab.test: 1 of 1 address meet the policy\n  met mx.good.lab.test[127.0.0.")
    both = await office.run("finger two-hosts.lab.test -c relay.toml --json")
    assert both.exit_code == 1  # explain would say that mail can go
    (story,) = map(json.loads, both.stdout.splitlines())
    assert story["met"] is False
    states = [each["session"]["status"] for host in story["next_hops"][0]["hosts"] for each in host["addresses"]]
    assert states == ["failed", "satisfied"]
    clear = await office.run("finger cleartext.lab.test good.lab.test -c relay.toml")
    assert clear.exit_code == 0  # opportunistic: nothing is demanded there
    failing = await office.run("finger tlsa-servfail.lab.test good.lab.test -c relay.toml")
    assert failing.exit_code == 75
    assert "NOT mx.tlsa-servfail.lab.test[" in failing.stdout
    assert (await office.run("finger mismatch.lab.test tlsa-servfail.lab.test -c relay.toml")).exit_code == 1
    verbose = await office.run("finger two-hosts.lab.test -v -c relay.toml")
    assert verbose.stdout.count("Untrusted TLS connection") == verbose.stdout.count("Verified TLS connection") == 1
