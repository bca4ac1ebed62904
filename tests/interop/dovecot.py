"""Dovecot as the SASL server behind Postfix, with one account, and a token service that it asks about access tokens."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.interop import servers
from tests.watched_process import WatchedProcess

MECHANISMS = ("plain", "login", "scram-sha-256", "oauthbearer", "xoauth2")


@dataclass(frozen=True, slots=True)
class Dovecot:
    """A running Dovecot that speaks no protocol but that of SASL.

    :param socket: for Postfix's ``smtpd_sasl_path``.
    """

    process: WatchedProcess
    socket: Path


@contextmanager
def dovecot(directory: Path, *, user: str, password: str, tokens: Mapping[str, str]) -> Iterator[Dovecot]:
    """Run it.

    :param directory: private, and open to be entered by other users.
    :param tokens: access tokens that the token service knows, and whose they are.
    :raises UnavailableError: if Dovecot is missing, or this is not root, which it needs.
    """
    if os.geteuid() != 0:
        raise servers.UnavailableError("only root can start Dovecot")
    program = servers.find("dovecot")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    if not version.startswith("2.3."):
        raise servers.UnavailableError(f"its configuration here is that of 2.3, and this is {version.strip()}")
    socket = directory / "auth"
    with _token_service(tokens) as introspection:
        (directory / "users").write_text(f"{user}:{password}\n")
        (directory / "oauth2.conf").write_text(
            f"introspection_url = {introspection}\nintrospection_mode = auth\nusername_attribute = username\n"
            "active_attribute = active\nactive_value = true\n"
        )
        (directory / "dovecot.conf").write_text(_configuration(directory, socket))
        command: list[str | Path] = [program, "-F", "-c", directory / "dovecot.conf"]
        with WatchedProcess(command, log=directory / "dovecot.log") as process:
            process.wait_for(r".*starting up.*")
            try:
                yield Dovecot(process, socket)
            finally:
                process.stop()


def _configuration(directory: Path, socket: Path) -> str:
    return f"""\
protocols =
base_dir = {directory}/base
state_dir = {directory}/state
log_path = /dev/stderr
auth_verbose = yes
auth_mechanisms = {" ".join(MECHANISMS)}
disable_plaintext_auth = no
auth_failure_delay = 0
ssl = no
default_internal_user = nobody
default_internal_group = nogroup
default_login_user = nobody
passdb {{
  driver = passwd-file
  mechanisms = plain login scram-sha-256
  args = scheme=PLAIN username_format=%u {directory}/users
}}
passdb {{
  driver = oauth2
  mechanisms = oauthbearer xoauth2
  args = {directory}/oauth2.conf
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}}
service auth {{
  user = root
  unix_listener {socket} {{
    mode = 0666
  }}
}}
service stats {{
  chroot =
}}
service anvil {{
  chroot =
  # Without this each wrong password makes the next answer wait longer.
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""


@contextmanager
def _token_service(tokens: Mapping[str, str]) -> Iterator[str]:
    """Answers whether a token is good and whose it is (RFC 7662, with the token as the caller's own bearer)."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            known = token in tokens
            answer = json.dumps({"active": known, "username": tokens.get(token, "")}).encode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/introspect"
        finally:
            server.shutdown()
            thread.join()
