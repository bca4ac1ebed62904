"""``dane-relay user``: the file as it leaves it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay.cli.main import main
from relay.config.users import load_users
from relay.sasl import users
from relay.sasl.secret import Secret
from relay.sasl.users import Cost
from tests.unit.cli.test_check import TLS, check, write_pair

CONFIG = TLS + 'users_file = "users"\n'


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "Cost", lambda *given: Cost(*(given or (16, 1, 1))))


def run(folder: Path, *words: str, stdin: str = "") -> Result:
    write_pair(folder)
    (folder / "relay.toml").write_text(f'[relay]\nmyhostname = "relay.example"\nstate_dir = "state"\n{CONFIG}')
    return CliRunner().invoke(main, ["user", *words, "-c", str(folder / "relay.toml")], input=stdin)


def test_add_list_remove(tmp_path: Path) -> None:
    file = tmp_path / "users"
    for name in ("joe", "ann"):
        assert run(tmp_path, "add", name, stdin=f"password of {name}\n").exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert "password" not in file.read_text()
    found = load_users(str(file))
    assert found is not None
    assert found.is_password("joe", Secret("password of joe"))
    assert run(tmp_path, "list").stdout == "joe\nann\n"
    assert run(tmp_path, "remove", "joe").exit_code == 0
    assert run(tmp_path, "list").stdout == "ann\n"
    again = run(tmp_path, "remove", "joe")
    assert (again.exit_code, again.stderr) == (1, f"Error: {file}: there is no user joe\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cert.pem", "key.pem", "relay.toml", "users"]


def test_what_cannot_be_added(tmp_path: Path) -> None:
    assert run(tmp_path, "add", "a b", stdin="x\n").exit_code == 1
    assert run(tmp_path, "add", "joe", stdin="\n").exit_code == 1
    assert not (tmp_path / "users").exists()


def test_check_reads_the_users(tmp_path: Path) -> None:
    write_pair(tmp_path)
    missing = check(tmp_path, CONFIG)
    assert missing.exit_code == 1
    assert "users: no such file; `dane-relay user add` makes it" in missing.stderr
    assert run(tmp_path, "add", "joe", stdin="correct horse\n").exit_code == 0
    assert f"{tmp_path / 'users'}: 1 users" in check(tmp_path, CONFIG).stdout
    (tmp_path / "users").chmod(0o644)
    assert "chmod go=" in check(tmp_path, CONFIG).stderr
    with (tmp_path / "users").open("a") as file:
        file.write("ann my-secret\n")
    broken = check(tmp_path, CONFIG)
    assert broken.exit_code == 1
    assert f"{tmp_path / 'users'}:3: expected a name" in broken.stderr
    assert "my-secret" not in broken.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ('[smtpd]\nusers_file = "users"\n', "users_file needs TLS"),
        ('[smtpd]\nsubmissions_listen = "127.0.0.1:10465"\n', "submissions_listen needs TLS"),
        (f'{TLS}listen = "127.0.0.1:10465"\nsubmissions_listen = "127.0.0.1:10465"\n', "is also smtpd.listen"),
        (f"{CONFIG}tls_auth_only = false\n", "tls_auth_only = false"),
    ],
)
def test_what_cannot_be_configured(tmp_path: Path, options: str, words: str) -> None:
    write_pair(tmp_path)
    (tmp_path / "users").write_text("")
    assert words in check(tmp_path, options).stderr
