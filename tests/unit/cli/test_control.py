from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from relay.cli.control import reload, stop
from relay.control.server import Reloaded
from tests.unit.cli.relays import running


def test_stop_waits_until_the_relay_has_ended(tmp_path: Path) -> None:
    with running(tmp_path):
        stopped = CliRunner().invoke(stop, ["--state-dir", str(tmp_path)])
        assert not (tmp_path / "control").exists()
    assert stopped.exit_code == 0
    assert "has stopped" in stopped.output


def test_stop_does_not_wait_for_ever(tmp_path: Path) -> None:
    with running(tmp_path) as relay:
        relay.ends_when_told = False
        stopped = CliRunner().invoke(stop, ["--state-dir", str(tmp_path), "--wait", "0.01"])
        asked = CliRunner().invoke(stop, ["--state-dir", str(tmp_path), "--wait", "0"])
    assert stopped.exit_code == 75
    assert "still finishing" in stopped.output
    assert asked.exit_code == 0
    assert "is stopping" in asked.output


def test_no_relay_to_stop(tmp_path: Path) -> None:
    refused = CliRunner().invoke(stop, ["--state-dir", str(tmp_path)])
    assert refused.exit_code == 1
    assert f"no relay runs on state_dir {tmp_path}" in refused.output


def test_reload_that_is_accepted(tmp_path: Path) -> None:
    with running(tmp_path) as relay:
        relay.reloaded = Reloaded(True, ("tls_policy:7: warning: never used",))
        reloaded = CliRunner().invoke(reload, ["--state-dir", str(tmp_path)])
    assert reloaded.exit_code == 0
    assert "tls_policy:7: warning" in reloaded.output
    assert "has read its files again" in reloaded.output


def test_reload_that_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as relay:
        relay.reloaded = Reloaded(False, ("tls_policy:3: no such level",))
        reloaded = CliRunner().invoke(reload, ["--state-dir", str(tmp_path)])
    assert reloaded.exit_code == 1
    assert "tls_policy:3: no such level" in reloaded.output
    assert "goes on with the old ones" in reloaded.output
