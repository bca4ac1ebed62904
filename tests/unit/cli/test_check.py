"""``dane-relay check``: what it says, where, and the exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from relay.cli.main import COMMANDS, main
from relay.dns.anchor import BUILT_IN

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def write_pair(folder: Path, *, start: datetime = NOW - DAY, end: datetime = NOW + DAY) -> ec.EllipticCurvePrivateKey:
    """Write cert.pem and key.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay.example")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(end)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    write_key(folder, key)
    return key


def write_key(folder: Path, key: ec.EllipticCurvePrivateKey, *, passphrase: bytes = b"") -> None:
    protection = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))
    (folder / "key.pem").chmod(0o600)


TLS = """
[smtpd]
tls_security_level = "may"
tls_cert_file = "cert.pem"
tls_key_file = "key.pem"
"""


def check(folder: Path, text: str) -> Result:
    """Run the command on a configuration whose state directory is fine."""
    (folder / "relay.toml").write_text(f'[relay]\nmyhostname = "relay.example"\nstate_dir = "state"\n{text}')
    return CliRunner().invoke(main, ["check", "-c", str(folder / "relay.toml")], env={"DANE_RELAY_LOG__FORMAT": "json"})


def test_all_is_well(tmp_path: Path) -> None:
    write_pair(tmp_path)
    (tmp_path / "tls_policy").write_text("a.example secure\nb.example none match=x\n")
    result = check(tmp_path, TLS + '[smtp]\ntls_policy_maps = "texthash:tls_policy"\n')
    assert result.exit_code == 0
    assert result.stderr == ('tls_policy:2: warning: b.example: ignoring attribute "match=x" with TLS disabled\n')
    assert "tls_policy: 2 entries" in result.stdout
    assert f"{tmp_path}/cert.pem: certificate and key" in result.stdout
    assert f"queue {tmp_path}/state/queue.sqlite" in result.stdout
    assert "6 of " in result.stdout
    assert "1 by the environment" in result.stdout
    assert not (tmp_path / "state").exists()  # a check changes nothing


def test_lines_that_end_are_told_of(tmp_path: Path) -> None:
    write_pair(tmp_path)
    soon = datetime.now(UTC).date() + timedelta(days=10)
    (tmp_path / "first").write_text(f"#: until={soon}\na.example may\nb.example may until=2026-01-31\n")
    (tmp_path / "second").write_text("c.example dane until=2027-01-31\n")
    result = check(tmp_path, TLS + '[smtp]\ntls_policy_maps = ["first", "second"]\n')
    assert result.exit_code == 1
    soon_line, late_line, wrong_line = result.stderr.splitlines()
    assert soon_line.startswith(f'first:2: warning: a.example: the exception "may until={soon}" ends in ')
    assert late_line.startswith(
        'first:3: warning: b.example: the exception "may until=2026-01-31" has expired; default'
    )
    assert wrong_line.startswith('second:1: c.example: attribute "until" allowed only on a line that is weaker')


def test_transport_maps_are_read(tmp_path: Path) -> None:
    write_pair(tmp_path)
    (tmp_path / "transport").write_text("a.example smtp:[b.example]\na.example smtp:[b.example]\n")
    result = check(tmp_path, TLS + '[smtp]\ntransport_maps = "texthash:transport"\n')
    assert result.exit_code == 0
    assert result.stderr == 'transport:2: warning: duplicate entry: "a.example" (first at transport:1)\n'
    assert "transport: 1 transport entries" in result.stdout
    (tmp_path / "transport").write_text("# comment\na.example lmtp:x\n@b.example smtp:c.example\n")
    result = check(tmp_path, TLS + '[smtp]\ntransport_maps = ["transport", "gone"]\n')
    assert result.exit_code == 1
    errors = result.stderr.splitlines()
    assert [error for error in errors if error.startswith("transport:2: a.example: expected one of the transports")]
    assert [
        error for error in errors if error.startswith('transport:3: no recipient ever matches the key "@b.example"')
    ]
    assert [error for error in errors if "smtp.transport_maps: " in error and "gone: no such file" in error]


def test_client_certificates_are_read(tmp_path: Path) -> None:
    write_pair(tmp_path)
    clients = TLS + 'tls_ask_ccert = true\nrelay_clientcerts = ["texthash:clients"]\n'
    (tmp_path / "clients").write_text(f"{':'.join(['AB'] * 32)} joe\n{'cd' * 32} ann\n")
    result = check(tmp_path, clients)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "clients: 2 client certificates" in result.stdout
    (tmp_path / "clients").write_text(f"{'ab' * 20} joe\njoe {':'.join(['AB'] * 32)}\n")
    result = check(tmp_path, clients)
    assert result.exit_code == 1
    assert [line.partition(": ")[0] for line in result.stderr.splitlines()] == ["clients:1", "clients:2"]
    (tmp_path / "clients").unlink()
    assert "clients: no such file" in check(tmp_path, clients).stderr


def test_trust_anchor_is_read(tmp_path: Path) -> None:
    text = '[dns]\nmode = "validate"\ntrust_anchor_file = "root.key"\n'
    (tmp_path / "root.key").write_text(BUILT_IN[0] + "\n")
    assert f"{tmp_path}/root.key: 1 DNSSEC trust anchors" in check(tmp_path, text).stdout
    (tmp_path / "root.key").write_text("nonsense\n")
    result = check(tmp_path, text)
    assert result.exit_code == 1
    assert f"dns.trust_anchor_file: trust anchor {tmp_path}/root.key: is no master file" in result.stderr


def test_six_mistakes_six_messages(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text(
        "[mail]\n"
        "x = 1\n"
        "[smtp]\n"
        "tls_securty_level = 'dane'\n"
        "mx_address_limit = 'five'\n"
        "connect_timeout = '30x'\n"
        "tls_CAfile = 'nope.pem'\n"
        "[queue]\n"
        "minimal_backoff_time = '2h'\n"
    )
    result = CliRunner().invoke(main, ["check", "-c", str(path)])
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{path}:{number}" for number in (1, 4, 5, 6, 7, 9)]
    for line, words in zip(
        lines,
        ("no such section", "no such option", "whole number", "units are", "no such file", "is above"),
        strict=True,
    ):
        assert words in line


def test_a_syntax_error_alone_is_one_message_with_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text("[mail]\nx = 1\n[smtp]\nport = = 1\n")
    result = CliRunner().invoke(main, ["check", "-c", str(path)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"{path}:4:8: TOML syntax: Invalid value\n"


def test_faults_of_maps_certificates_and_options_come_together(tmp_path: Path) -> None:
    write_pair(tmp_path, start=NOW - 2 * DAY, end=NOW - DAY)
    (tmp_path / "tls_policy").write_text("a.example secrue\n\nb.example secure tafile=nope.pem\n")
    result = check(tmp_path, TLS + '[smtp]\nport = 0\ntls_policy_maps = ["tls_policy", "texthash:gone"]\n')
    assert result.exit_code == 1
    places = [line.split(": ")[0] for line in result.stderr.splitlines()]
    path = tmp_path / "relay.toml"
    assert places == [f"{path}:10", f"{path}:11", "tls_policy:1", "tls_policy:3", f"{path}:7"]
    assert 'invalid security level "secrue"' in result.stderr
    assert "the certificate expired on" in result.stderr


def test_certificates_and_keys(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"

    def only_fault() -> str:
        result = check(tmp_path, TLS)
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        return line

    key = write_pair(tmp_path)
    assert check(tmp_path, TLS).exit_code == 0
    write_key(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    assert only_fault().startswith(f"{path}:8: smtpd.tls_key_file: {tmp_path}/key.pem: is not the key of")
    write_key(tmp_path, key, passphrase=b"secret")
    assert "the key is encrypted" in only_fault()
    (tmp_path / "key.pem").write_text("nonsense")
    assert "holds no private key in PEM" in only_fault()
    write_pair(tmp_path, start=NOW + DAY, end=NOW + 2 * DAY)
    assert "is not valid before" in only_fault()
    (tmp_path / "cert.pem").write_text("nonsense")
    assert only_fault().startswith(f"{path}:7: smtpd.tls_cert_file: {tmp_path}/cert.pem: holds no certificate")


def test_a_key_that_everybody_can_read_is_a_warning(tmp_path: Path) -> None:
    write_pair(tmp_path)
    (tmp_path / "key.pem").chmod(0o644)
    result = check(tmp_path, TLS)
    assert result.exit_code == 0
    assert f"relay.toml:8: warning: smtpd.tls_key_file: {tmp_path}/key.pem: every user can read it" in result.stderr


def test_a_trust_store_without_certificates(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    result = check(tmp_path, '[smtp]\ntls_CAfile = "ca.pem"\n')
    assert result.exit_code == 1
    assert f"smtp.tls_CAfile: {tmp_path}/ca.pem: holds no certificate" in result.stderr


def test_directories(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    result = check(tmp_path, "")
    assert result.exit_code == 1
    assert result.stderr == f"{tmp_path}/relay.toml:3: relay.state_dir: {tmp_path}/state: is no directory\n"
    (tmp_path / "state").unlink()
    result = check(tmp_path, '[log]\nfile = "gone/mail.log"\n[queue]\nurl = "sqlite:' + f'{tmp_path}/relay.toml/q"')
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == ["queue.url", "log.file"]


def test_a_directory_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = os.access  # root, whom tests may run as, can write anywhere
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and not mode & os.W_OK)
    fault = f"{tmp_path}/relay.toml:3: relay.state_dir: {tmp_path}/state: "
    rest = " by this user; create it and give it to the relay's user\n"
    result = check(tmp_path, "")
    assert (result.exit_code, result.stderr) == (1, f"{fault}does not exist and cannot be made in {tmp_path}{rest}")
    (tmp_path / "state").mkdir()
    result = check(tmp_path, "")
    assert (result.exit_code, result.stderr) == (1, f"{fault}cannot be written{rest}")


def test_a_default_directory_is_told_of_only_when_all_else_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
    path = tmp_path / "relay.toml"
    for text, place in (("smtp.port = 0\n", f"{path}:1"), ("smtp.port = 26\n", "default relay.state_dir")):
        path.write_text(text)
        result = CliRunner().invoke(main, ["check", "-c", str(path)])
        assert result.exit_code == 1
        assert [line.partition(": ")[0] for line in result.stderr.splitlines()] == [place]


def test_usage() -> None:
    runner = CliRunner()
    assert runner.invoke(main, ["check"]).exit_code == 2
    assert runner.invoke(main, ["chekc"]).exit_code == 2
    version = runner.invoke(main, ["--version"])
    assert (version.exit_code, version.stdout) == (0, "dane-relay, version 0.1.0\n")


def test_help_lists_every_command_and_imports_none() -> None:
    script = (
        "import sys\n"
        "from relay.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "loaded = {'asyncio', 'pydantic', 'cryptography', 'dns', 'aiosmtpd', 'apsw'} & sys.modules.keys()\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


SASL = '[smtp]\nsasl_password_maps = ["texthash:sasl_passwd"]\n'


def test_credentials_are_read_and_never_quoted(tmp_path: Path) -> None:
    (tmp_path / "sasl_passwd").write_text("[a.test]:587 joe:hunter2\n")
    (tmp_path / "sasl_passwd").chmod(0o600)
    fine = check(tmp_path, SASL)
    assert fine.exit_code == 0
    assert "sasl_passwd: 1 credentials" in fine.output
    (tmp_path / "sasl_passwd").write_text("joe:hunter2\n[a.test] hunter2\n")
    (tmp_path / "sasl_passwd").chmod(0o644)
    wrong = check(tmp_path, SASL)
    assert wrong.exit_code == 1
    assert (
        "sasl_passwd:2: expected a key, white space and user:password; found no colon behind the user name"
        in wrong.output
    )
    assert "every user can read it; chmod o= it" in wrong.output
    assert "hunter2" not in fine.output + wrong.output


def test_senders_without_the_switch_are_told(tmp_path: Path) -> None:
    (tmp_path / "sasl_passwd").write_text("joe@example.com joe:hunter2\n")
    told = "keys with @ are senders"
    assert told in check(tmp_path, SASL).output
    assert told not in check(tmp_path, SASL + "sender_dependent_authentication = true\n").output


def test_where_tokens_come_from_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "sasl_tokens").write_text("[a.test] joe:file:token\n[b.test] joe:command:/nonexistent/get-token\n")
    told = check(tmp_path, '[smtp]\nsasl_token_maps = ["sasl_tokens"]\n')
    assert told.exit_code == 1
    assert f"sasl_tokens:1: warning: {tmp_path}/token: no such file" in told.output
    assert "sasl_tokens:2: /nonexistent/get-token: no program that this user can run" in told.output
    (tmp_path / "token").write_text("hunter2")
    (tmp_path / "token").chmod(0o644)
    assert "token: every user can read it" in check(tmp_path, '[smtp]\nsasl_token_maps = ["sasl_tokens"]\n').output


@pytest.mark.parametrize(
    "spec", ["static:joe:hunter2", "inline:{a.test=joe:hunter2}", "regexp:sasl", "pcre:sasl", "cidr:sasl"]
)
def test_secrets_come_from_files_of_literal_keys(tmp_path: Path, spec: str) -> None:
    told = check(tmp_path, f'[smtp]\nsasl_password_maps = ["{spec}"]\n')
    assert told.exit_code == 1
    assert "is not for secrets" in told.output
    assert "hunter2" not in told.output


def test_a_line_that_withholds_credentials_is_told_before_mail_waits(tmp_path: Path) -> None:
    (tmp_path / "sasl_passwd").write_text("[a.test]:587 joe:hunter2\nb.test joe:hunter2\n")
    (tmp_path / "sasl_passwd").chmod(0o600)
    (tmp_path / "tls_policy").write_text("[a.test]:587 encrypt\n[b.test]:465 may\n[c.test] none\n")
    told = check(tmp_path, SASL + 'tls_policy_maps = ["tls_policy"]\n')
    assert told.exit_code == 1
    assert "tls_policy:1: [a.test]:587: sasl_passwd:1 has credentials for it, and at level encrypt" in told.output
    assert "tls_policy:2: [b.test]:465: sasl_passwd:2 has credentials for it, and at level may" in told.output
    assert "tls_policy:3" not in told.output
    (tmp_path / "tls_policy").write_text("[a.test]:587 secure\n[b.test]:465 dane\n")
    assert check(tmp_path, SASL + 'tls_policy_maps = ["tls_policy"]\n').exit_code == 0
