"""``docker compose up``: the lab in containers, really run. ``make test-compose``; CI runs it where an engine can be had."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.lab.scenarios import DESTINATIONS
from tests.compose.engine import Engine, engine, provide_base_image
from tests.interop import servers

pytestmark = pytest.mark.compose
HEALTHY_SECONDS = 120


@pytest.fixture(scope="module")
def docker() -> Iterator[Engine]:
    with tempfile.TemporaryDirectory(prefix="dane-relay-compose-", ignore_cleanup_errors=True) as temporary:
        directory = Path(temporary)
        try:
            with engine(directory) as running:
                provide_base_image(running, directory)
                try:
                    yield running
                finally:
                    running.compose("--profile", "selftest", "--profile", "monitoring", "down", "-v", "--timeout", "5")
        except servers.UnavailableError as why:
            if os.environ.get("CI"):
                print(f"\n\n*** THE COMPOSE LAB WAS NOT RUN: {why} ***\n")  # noqa: T201 - to be seen
            pytest.skip(f"{servers.LEFT_OUT}the compose lab: {why}")


def containers(docker: Engine) -> dict[str, str]:
    """State and health by service."""
    wanted = '{{.Label "com.docker.compose.service"}}\t{{.Status}}'
    listed = docker.docker(
        "ps", "--all", "--filter", "label=com.docker.compose.project=dane-relay-test", "--format", wanted
    )
    return dict(line.split("\t", 1) for line in listed.stdout.splitlines())


def wait_until_healthy(docker: Engine) -> None:
    until = time.monotonic() + HEALTHY_SECONDS
    waiting: dict[str, str] = {}
    while time.monotonic() < until:
        waiting = {
            name: state
            for name, state in containers(docker).items()
            if name not in {"layout", "app", "prometheus"} and "(healthy)" not in state
        }
        if not waiting:
            return
        time.sleep(1)  # an engine tells nobody when a container becomes healthy
    raise AssertionError(f"not healthy: {waiting}\n{docker.compose('logs', '--tail', '20', *waiting).stdout[-4000:]}")


def queue_ids(docker: Engine) -> set[str]:
    listed = docker.compose(
        "exec", "-T", "relay", "dane-relay", "queue", "list", "--json", "-c", "/lab/relay/relay.toml"
    )
    assert listed.returncode == 0, listed.stderr
    return {json.loads(line)["queue_id"] for line in listed.stdout.splitlines() if line.strip()}


def scrape(docker: Engine) -> None:
    """Prometheus, beside the relay, reads what the relay counts."""
    up = docker.compose("--profile", "monitoring", "up", "-d", "prometheus")
    assert up.returncode == 0, up.stderr[-4000:]
    ask = (
        "import sys, urllib.request;"
        "print(urllib.request.urlopen('http://127.0.0.1:9090/api/v1/query?query=dane_relay_resolver_validating').read().decode())"
    )
    until = time.monotonic() + HEALTHY_SECONDS
    told = ""
    while time.monotonic() < until:
        asked = docker.compose("exec", "-T", "relay", "python3", "-c", ask)
        told = asked.stdout + asked.stderr
        if asked.returncode == 0 and '"job":"dane-relay"' in told and '"1"]' in told:
            break
        time.sleep(1)  # it scrapes in its own time
    else:
        raise AssertionError(f"Prometheus did not scrape the relay: {told[-2000:]}")


def test_up_scoreboard_stop_start_down(docker: Engine) -> None:
    built = docker.compose("--profile", "selftest", "--profile", "monitoring", "build")
    assert built.returncode == 0, built.stdout[-4000:] + built.stderr[-4000:]
    began = time.monotonic()
    up = docker.compose("up", "-d")
    assert up.returncode == 0, up.stderr[-4000:]
    wait_until_healthy(docker)
    score = docker.compose("--profile", "selftest", "run", "--rm", "-T", "selftest")
    took = time.monotonic() - began
    print(score.stdout)  # noqa: T201 - the scoreboard is what this is for
    print(f"from up to the scoreboard: {took:.0f} s")  # noqa: T201 - likewise
    assert score.returncode == 0, (
        score.stdout[-6000:] + score.stderr[-2000:] + docker.compose("logs", "relay").stdout[-4000:]
    )
    assert f"All {len(DESTINATIONS)} as expected." in score.stdout
    assert "handed over" in docker.compose("logs", "app").stdout

    scrape(docker)
    docker.compose("stop", "app")
    waiting = queue_ids(docker)
    assert waiting, "mail for hosts that do not verify must be waiting"
    assert docker.compose("stop").returncode == 0
    assert docker.compose("start").returncode == 0
    wait_until_healthy(docker)
    docker.compose("stop", "app")
    assert waiting <= queue_ids(docker)

    everything = ("--profile", "selftest", "--profile", "monitoring")
    assert docker.compose(*everything, "down", "-v").returncode == 0
    assert containers(docker) == {}
    for kind in ("volume", "network"):
        left = docker.docker(kind, "ls", "--quiet", "--filter", "label=com.docker.compose.project=dane-relay-test")
        assert left.stdout == ""
