"""An Exim of our own: unpacked, private configuration and spool, listening on loopback only, stopped with the test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.interop import servers
from tests.interop.nameservers import Endpoint
from tests.loopback import wait_until_listening
from tests.watched_process import WatchedProcess

# The account that Debian's Exim was built to run as; the package's installation would have made it.
_ACCOUNT, _NUMBER = "Debian-exim", 64997
_CONFIGURATION = """\
primary_hostname = exim.test
exim_path = {program}
spool_directory = {directory}/spool
log_file_path = {directory}/log/%slog
pid_file_path =
disable_ipv6
local_interfaces = {address}
daemon_smtp_ports = {port}
host_lookup =
rfc1413_hosts =
tls_advertise_hosts =
chunking_advertise_hosts = *
domainlist local_domains = {domains}
acl_smtp_rcpt = check_rcpt
never_users =
deliver_drop_privilege
message_size_limit = 50M
smtp_accept_max = 100
{options}
begin acl
check_rcpt:
  accept domains = +local_domains
  deny message = relay not permitted
begin routers
local:
  driver = accept
  domains = +local_domains
  transport = mailbox
begin transports
mailbox:
  driver = appendfile
  maildir_format
  directory = {directory}/mail
  create_directory
  user = {account}
begin retry
* * F,1h,1m
begin rewrite
"""


class Exim:
    """A running Exim, every message of which ends in one maildir."""

    def __init__(self, directory: Path) -> None:
        self.maildir = directory / "mail"

    def delivered(self) -> tuple[bytes, ...]:
        """The messages in the mailbox, in no order."""
        folder = self.maildir / "new"
        return tuple(file.read_bytes() for file in folder.iterdir()) if folder.exists() else ()


@contextmanager
def exim(endpoint: Endpoint, directory: Path, domains: list[str], options: str = "") -> Iterator[Exim]:
    """Run an Exim that takes mail for some domains.

    :param directory: private, and open to be entered by other users.
    :param options: lines of its main configuration.
    :raises UnavailableError: if Exim is missing, or this machine does not let it run under its account.
    """
    if os.geteuid() != 0:
        raise servers.UnavailableError("only root can start Exim")
    program = servers.find("exim4")
    for folder in ("spool", "log", "mail"):
        (directory / folder).mkdir()
        os.chown(directory / folder, _NUMBER, _NUMBER)
    configuration = directory / "exim.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            program=program,
            directory=directory,
            address=endpoint.address,
            port=endpoint.port,
            domains=" : ".join(domains),
            account=_ACCOUNT,
            options=options,
        )
    )
    command: list[str | Path] = [*_with_account(directory), program, "-C", configuration, "-bdf", "-q1s"]
    with WatchedProcess(command, log=directory / "out") as process:
        wait_until_listening(endpoint.address, endpoint.port, still=process.running)
        yield Exim(directory)


_CLIENT_CONFIGURATION = """\
primary_hostname = exim-client.test
exim_path = {program}
keep_environment =
spool_directory = {directory}/spool
log_file_path = {directory}/log/%slog
pid_file_path =
disable_ipv6
never_users =
trusted_users = root
begin routers
relay:
  driver = manualroute
  transport = remote
  route_list = * {address}
  self = send
  no_more
begin transports
remote:
  driver = smtp
  port = {port}
  hosts_try_chunking = *
begin retry
* * F,1h,1m
"""


def send_by_exim(message: bytes, relay: Endpoint, directory: Path, *, sender: str, recipients: Sequence[str]) -> str:
    """Have an Exim of our own hand a message to a relay; gives its log.

    :param directory: private, and open to be entered by other users.
    :raises UnavailableError: if Exim is missing.
    """
    program = servers.find("exim4")
    for folder in ("spool", "log"):
        (directory / folder).mkdir()
        os.chown(directory / folder, _NUMBER, _NUMBER)
    configuration = directory / "exim.conf"
    configuration.write_text(
        _CLIENT_CONFIGURATION.format(program=program, directory=directory, address=relay.address, port=relay.port)
    )
    command: list[str | Path] = [
        *_with_account(directory),
        program,
        "-C",
        configuration,
        "-odf",
        "-oi",
        "-f",
        sender,
        *recipients,
    ]
    done = subprocess.run(command, input=message, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return (directory / "log/mainlog").read_text()


def _with_account(directory: Path) -> list[str]:
    """A command prefix under which Exim's account exists, for that program alone."""
    (directory / "passwd").write_text(
        Path("/etc/passwd").read_text() + f"{_ACCOUNT}:x:{_NUMBER}:{_NUMBER}::/nonexistent:/usr/sbin/nologin\n"
    )
    (directory / "group").write_text(Path("/etc/group").read_text() + f"{_ACCOUNT}:x:{_NUMBER}:\n")
    script = 'mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/group" /etc/group && shift && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", script, "sh", str(directory)]
