"""``dane-relay explain``: usage, faults of the configuration, exit status. Walks are in tests/integration/test_explain.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay.cli.explain import _looking_on, exit_status
from relay.cli.main import main
from relay.config.load import read
from relay.explain.story import Ending
from tests.unit.explain.stories import BOUNCED, DEFERRED, DISCARDED, ENDINGS, story

LOOKUPS_FAILED = replace(DEFERRED, lookups_only=True)


def explain(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["explain", *map(str, arguments)])


@pytest.mark.parametrize("destination", ["", "a b", "@example.com", "[example.com]", "k..example"])
def test_what_is_no_destination_is_a_usage_error(destination: str) -> None:
    refused = explain(destination)
    assert refused.exit_code == 2
    assert "expected a domain, [address] or mail address" in refused.output


def test_a_destination_is_needed() -> None:
    assert explain().exit_code == 2


def test_a_configuration_with_faults(tmp_path: Path) -> None:
    config = tmp_path / "relay.toml"
    config.write_text("[smtp]\nport = 0\ntls_CAfile = 'nope.pem'\n")
    refused = explain("example.com", "-c", config)
    assert refused.exit_code == 1
    assert f"{config}:2: " in refused.output
    assert f"{config}:3: " in refused.output


def test_ca_certificates_that_are_none(tmp_path: Path) -> None:
    config = tmp_path / "relay.toml"
    config.write_text("[smtp]\ntls_CAfile = 'ca.pem'\n")
    (tmp_path / "ca.pem").write_text("nothing\n")
    refused = explain("example.com", "-c", config)
    assert refused.exit_code == 1
    assert "no certificate in it" in refused.output


@pytest.mark.parametrize(
    ("endings", "status"),
    [
        (ENDINGS[:2], 0),
        ((DISCARDED,), 0),
        ((DEFERRED,), 1),
        ((BOUNCED,), 1),
        ((LOOKUPS_FAILED,), 75),
        ((ENDINGS[0], LOOKUPS_FAILED), 75),
        ((LOOKUPS_FAILED, DEFERRED, DISCARDED, ENDINGS[0]), 1),
    ],
)
def test_exit_status_is_that_of_the_worst(endings: tuple[Ending, ...], status: int) -> None:
    assert exit_status([story(ending=ending) for ending in endings]) == status


@pytest.mark.parametrize("kept", [True, False])
def test_the_relay_s_state_is_read_and_not_written(tmp_path: Path, kept: bool) -> None:
    state, own = tmp_path / "state", tmp_path / "own"
    state.mkdir()
    own.mkdir()
    if kept:
        (state / "root.key").write_text("the keys")
    config = read(
        '[relay]\nmyhostname = "relay.example"\nstate_dir = "state"\n',
        name="x",
        base=tmp_path,
        environ={},
        hostname="x",
    )
    looking = _looking_on(config, own)
    assert looking.relay.state_dir == own
    assert config.relay.state_dir == state
    assert (own / "root.key").exists() is kept
    assert [path.name for path in state.iterdir()] == (["root.key"] if kept else [])
