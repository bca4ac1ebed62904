"""``dane-relay import-postfix``: what it writes where, and the exit status."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay.cli.main import main

FINE = "myhostname = a.example\nmydestination =\nmynetworks = 127.0.0.0/8\nsmtp_tls_security_level = may\ninet_protocols = ipv4\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["import-postfix", *arguments])


def test_a_file_that_can_be_checked_at_once(tmp_path: Path) -> None:
    Path("main.cf").write_text(f"{FINE}transport_maps = hash:$config_directory/transport\nheader_checks = x\n")
    Path("transport").write_text("a.test smtp:[b.test]\n")
    result = run("main.cf", "-o", "relay.toml")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "main.cf:7: no counterpart: header_checks = x\n" in result.stderr
    text = Path("relay.toml").read_text()
    assert "# main.cf:7: no counterpart: header_checks = x\n" in text
    assert f'transport_maps = ["hash:{tmp_path}/transport"]' in text
    Path("relay.toml").write_text(text.replace("[relay]", '[relay]\nstate_dir = "."'))
    assert CliRunner().invoke(main, ["check", "-c", "relay.toml"]).exit_code == 0


def test_standard_output_and_a_master_file_elsewhere() -> None:
    Path("main.cf").write_text(FINE)
    Path("services").write_text("10025 inet n - n - - smtpd\n")
    result = run("main.cf", "--master", "services")
    assert result.exit_code == 0
    assert 'listen = ["0.0.0.0:10025"]' in result.stdout


def test_the_master_file_beside_it_is_read() -> None:
    Path("main.cf").write_text(FINE)
    Path("master.cf").write_text("127.0.0.1:26 inet n - n - - smtpd\n")
    assert 'listen = ["127.0.0.1:26"]' in run("main.cf").stdout


def test_what_must_be_looked_at_gives_1() -> None:
    Path("main.cf").write_text(f"{FINE}transport_maps = hash:missing\nno setting\n")
    result = run("main.cf")
    assert result.exit_code == 1
    assert 'main.cf:7: to be looked at: expected "name = value"; found "no setting"' in result.stderr
    assert "missing: no such file" in result.stderr
    assert "tls_security_level" in result.stdout


def test_lines_of_maps_that_nobody_understands_are_told() -> None:
    Path("main.cf").write_text(
        f"{FINE}transport_maps = hash:$config_directory/transport\nsmtp_tls_policy_maps = hash:$config_directory/policy\n"
    )
    Path("transport").write_text("a.test mine:[b.test]\n")
    Path("policy").write_text("a.test encypt\n")
    result = run("main.cf")
    assert result.exit_code == 1
    assert "transport:1: to be looked at: a.test: expected one of the transports" in result.stderr
    assert 'policy:1: to be looked at: a.test: invalid security level "encypt"' in result.stderr


def test_nothing_is_written_over() -> None:
    Path("main.cf").write_text(FINE)
    Path("relay.toml").write_text("mine")
    result = run("main.cf", "-o", "relay.toml")
    assert result.exit_code == 1
    assert "relay.toml: cannot be written: File exists" in result.stderr
    assert Path("relay.toml").read_text() == "mine"


def test_a_file_that_is_not_there() -> None:
    result = run("gone.cf")
    assert result.exit_code == 1
    assert "gone.cf: cannot be read: No such file or directory" in result.stderr
