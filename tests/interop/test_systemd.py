"""The unit file in conf/ as systemd reads it: no word that it does not know, and little that it exposes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop import servers

pytestmark = pytest.mark.interop

UNIT = Path(__file__).parents[2] / "conf" / "dane-relay.service"
EXPOSURE = 20
"""Tenths, as ``systemd-analyze security --threshold`` wants them; a service without any hardening has 96."""


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists on this machine."""
    program = tmp_path / "dane-relay"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m relay "$@"\n')
    program.chmod(0o755)
    copy = tmp_path / "dane-relay.service"
    copy.write_text(UNIT.read_text().replace("/opt/dane-relay/bin/dane-relay", str(program)))
    return copy


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    program = servers.require("systemd-analyze")
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=60, check=False)


def test_systemd_understands_every_line(unit: Path) -> None:
    verified = analyze("verify", "--man=no", unit)
    about_ours = [line for line in verified.stderr.splitlines() if "dane-relay" in line]
    assert about_ours == []
    assert verified.returncode == 0, verified.stderr


def test_a_line_that_systemd_does_not_know_is_found(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("UMask=0077", "UMask=0077\nProtectEverything=yes"))
    assert "ProtectEverything" in analyze("verify", "--man=no", unit).stderr


def test_the_exposure_is_small(unit: Path) -> None:
    judged = analyze("security", "--offline=yes", f"--threshold={EXPOSURE}", "--no-pager", unit)
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_the_unit_fits_the_relay() -> None:
    text = UNIT.read_text()
    stop = re.search(r"^TimeoutStopSec=(\d+)s$", text, re.MULTILINE)
    assert stop is not None
    drain = re.search(r'^drain_time = "(\d+)s"$', UNIT.with_name("relay.toml").read_text(), re.MULTILINE)
    assert drain is not None
    assert int(stop[1]) > int(drain[1])
    assert "Type=notify\n" in text
