"""``scripts/lab-local``: the lab's destinations run by NSD, Unbound, Postfix, Exim and OpenSMTPD, and the relay among them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from relay.lab.scenarios import DESTINATIONS
from tests.interop import servers

ROOT = Path(__file__).parents[2]
PATIENCE = 300


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the script keeps what it fetched."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        servers.leave_out("lab --real", "only root with apt-get can unpack and run its servers")
    if os.environ.get("RELAY_TEST_INSTALL") != "1":
        servers.leave_out("lab --real", "its servers have to be fetched; set RELAY_TEST_INSTALL=1")
    return tmp_path_factory.mktemp("unpacked")


def test_every_scenario_as_expected(unpacked: Path) -> None:
    done = subprocess.run(
        [ROOT / "scripts/lab-local", "--once"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "LAB_CACHE": str(unpacked), "LAB_PYTHON": sys.executable},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert f"All {len(DESTINATIONS)} as expected." in done.stdout
    for server in ("Postfix", "Exim", "OpenSMTPD"):
        assert f"│ {server}" in done.stdout, done.stdout
        assert f"{server} is not here" not in done.stdout
