"""Programs hand mail in through a Unix socket: swaks and curl, as this user and as another."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from tests.interop import servers
from tests.loopback import free_port
from tests.recording_sink import RecordingSink
from tests.relay_process import RelayProcess

pytestmark = pytest.mark.interop

OTHER = pwd.getpwnam("nobody")


def relay_of(directory: Path, sink: RecordingSink) -> RelayProcess:
    me = pwd.getpwuid(os.geteuid()).pw_name
    return RelayProcess(
        directory,
        {
            "smtp": {"relayhost": [f"[{sink.address}]:{sink.port}"], "tls_security_level": "may"},
            "smtpd": {"unix_listen": ["unix:smtp"], "unix_listen_mode": "0666", "unix_relay_users": [me]},
            "dns": {"nameservers": [f"127.0.0.1:{free_port()}"], "timeout": "1s"},
        },
    )


def swaks(path: Path, *, prefix: tuple[str, ...] = ()) -> str:
    command = [*prefix, str(servers.require("swaks")), "--socket", str(path), "--helo", "client.test"]
    command += ["--from", "joe@client.test", "--to", "ann@sink.test"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout


def test_swaks_and_curl(tmp_path: Path, sink: RecordingSink) -> None:
    path = tmp_path / "smtp"
    with relay_of(tmp_path, sink) as relay:
        assert "250 2.0.0 Ok: queued" in swaks(path)
        mail = tmp_path / "mail"
        mail.write_bytes(b"Subject: hello\r\n\r\nhello\r\n")
        command: list[str | Path] = [
            servers.require("curl"),
            "--silent",
            "--show-error",
            "--unix-socket",
            path,
            "--upload-file",
            mail,
        ]
        command += ["--mail-from", "joe@client.test", "--mail-rcpt", "ann@sink.test", "smtp://relay.test/client.test"]
        subprocess.run(command, timeout=60, check=True)
        line = f"\r\n\t(local user {pwd.getpwuid(os.geteuid()).pw_name}, uid {os.geteuid()})\r\n".encode()
        for message in sink.wait_for_messages(2):
            assert line in message.content
        # Killed, it leaves its socket; the next one takes its place.
        relay.kill()
        assert path.is_socket()
        relay.start()
        assert "250 2.0.0 Ok: queued" in swaks(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_may_not_relay(tmp_path: Path, sink: RecordingSink) -> None:
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(directory.stat().st_mode | 0o011)
    with relay_of(tmp_path, sink) as relay:
        said = swaks(tmp_path / "smtp", prefix=("setpriv", f"--reuid={OTHER.pw_uid}", "--clear-groups"))
        assert "454 4.7.1 <ann@sink.test>: Relay access denied" in said
        relay.process.wait_for(rf"connection through a Unix socket from local user nobody \(uid {OTHER.pw_uid}\)")
