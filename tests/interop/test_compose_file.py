"""docker-compose.yml, as far as it can be told without an engine: what compose says of it, and whether it fits the plan."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from relay.lab.real.plan import Server, make_plan
from tests.interop import servers

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
NETWORK = "172.31.80."


def test_compose_accepts_it() -> None:
    compose = servers.require("docker-compose")
    done = subprocess.run(
        [compose, "config", "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def address_of(service: str) -> str:
    found = re.search(rf"^  {service}:.*?ipv4_address: ([\d.]+)", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_addresses_are_the_plans() -> None:
    plan = make_plan(NETWORK)
    assert address_of("dns") == plan.authority
    assert address_of("resolver") == plan.resolver
    assert address_of("relay") == plan.relay
    for server in Server:
        first = plan.addresses[plan.run_by(server)[0].name]
        assert f"</dev/tcp/{first}/25" in TEXT, server
    own = {address_of(name) for name in ("postfix", "exim", "opensmtpd", "badmx")}
    assert own.isdisjoint({*plan.addresses.values(), plan.void})


@pytest.mark.parametrize("service", ["layout", "dns", "resolver", "badmx", "relay", "app", "selftest", "prometheus"])
def test_services_are_closed(service: str) -> None:
    """Read-only, no capability but those named, and not root unless it says why."""
    block = re.search(rf"^  {service}:(.*?)(?=^  \S|^\S)", TEXT, re.MULTILINE | re.DOTALL)
    assert block is not None
    assert "*hardened" in block[1] or ("read_only: true" in block[1] and "cap_drop: [ALL]" in block[1])
    assert '"0:0"' not in block[1] or re.search(r'"0:0" # \w', block[1])


def test_nothing_is_open_beyond_loopback() -> None:
    ports = re.findall(r"ports: \[(.*)\]", TEXT)
    assert ports
    assert all(re.fullmatch(r'"127\.0\.0\.1:\d+:\d+"', one.strip()) for line in ports for one in line.split(","))
    assert "internal: true" in TEXT


def test_images_come_from_one_point_release_of_debian() -> None:
    bases = {
        match
        for file in (ROOT / "docker").rglob("*Dockerfile")
        for match in re.findall(r"^FROM (\S+)", file.read_text(), re.MULTILINE)
    }
    (base,) = bases
    assert re.fullmatch(r"debian:12\.\d+-slim", base)
