"""A Postfix of our own: private configuration, queue and data, listening on loopback only, stopped with the test.

Its log is its standard output (``postfix start-fg`` with ``maillog_file = /dev/stdout``), so that tests wait for lines.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.interop import servers
from tests.interop.nameservers import Endpoint
from tests.watched_process import WatchedProcess

_MAILBOX_OWNER = 65534  # nobody: the maildirs belong to no account

_CLIENT = "smtp      unix  - - n - - smtp\n"
_MASTER = """\
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
smtp      unix  - - n - - smtp
relay     unix  - - n - - smtp
showq     unix  n - n - - showq
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
virtual   unix  - n n - - virtual
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
tlsmgr    unix  - - n 1000? 1 tlsmgr
tlsproxy  unix  - - n - 0 tlsproxy
postlog   unix-dgram n - n - 1 postlogd
"""


@dataclass(frozen=True, slots=True)
class Listener:
    """One smtpd.

    :param name: its log lines begin with ``NAME/smtpd``.
    :param pem_file: key and chain; None offers no STARTTLS.
    :param options: main.cf parameters for this listener alone.
    """

    name: str
    endpoint: Endpoint
    pem_file: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def master_line(self) -> str:
        """Its lines of master.cf."""
        options = {"syslog_name": self.name, **self.options}
        if self.pem_file is None:
            options["smtpd_tls_security_level"] = "none"
        else:
            options["smtpd_tls_security_level"] = "may"
            options["smtpd_tls_chain_files"] = str(self.pem_file)
        words = "".join(f"  -o {{ {name} = {value} }}\n" for name, value in options.items())
        return f"{self.endpoint} inet n - n - - smtpd\n{words}"


class Postfix:
    """A running Postfix.

    :param maildir: where every accepted message ends, whoever it is for; one file a message.
    """

    def __init__(self, process: WatchedProcess, maildir: Path) -> None:
        self.process = process
        self.maildir = maildir

    def delivered(self) -> tuple[bytes, ...]:
        """The messages in the mailbox, in no order."""
        folder = self.maildir / "new"
        return tuple(file.read_bytes() for file in folder.iterdir()) if folder.exists() else ()

    def sessions(self, name: str) -> tuple[str, ...]:
        """What one listener has logged."""
        return tuple(line for line in self.process.lines() if f" {name}/" in line)


@contextmanager
def postfix(
    listeners: Sequence[Listener],
    directory: Path,
    *,
    virtual_domains: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
    main_cf: str = "",
    client_options: Mapping[str, str] | None = None,
    resolver: str = "",
    verbose_client: bool = False,
) -> Iterator[Postfix]:
    """Run a Postfix that takes mail for ``virtual_domains`` into one maildir.

    :param main_cf: an administrator's main.cf, which wins over everything but what a private Postfix needs.
    :param client_options: ``-o`` settings of the smtp service.
    :param directory: private, and open to be entered by other users.
    :param resolver: the address of the name server that it shall use, on port 53; empty for the machine's.
    :param verbose_client: whether smtp(8) runs with ``-v`` and logs how it decides.
    :raises UnavailableError: if Postfix is missing, or this is not root, which Postfix needs.
    """
    if os.geteuid() != 0:
        raise servers.UnavailableError("only root can start Postfix")
    program = servers.find("postfix")
    configuration, maildir = directory / "conf", directory / "mail"
    for folder in (configuration, directory / "queue", directory / "data", maildir):
        folder.mkdir()
    os.chown(maildir, _MAILBOX_OWNER, _MAILBOX_OWNER)
    owner = _account("postfix", "daemon")
    shutil.chown(directory / "data", owner)
    main = {
        **_places(program),
        "config_directory": str(configuration),
        "queue_directory": str(directory / "queue"),
        "data_directory": str(directory / "data"),
        "mail_owner": owner,
        "setgid_group": "postdrop" if owner == "postfix" else "mail",
        "compatibility_level": "3.6",
        "maillog_file": "/dev/stdout",
        "myhostname": "postfix.test",
        "mydestination": "",
        "alias_maps": "",
        "alias_database": "",
        "inet_protocols": "ipv4",
        "mynetworks": "127.255.255.255/32",
        "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
        "smtpd_peername_lookup": "no",
        "smtpd_tls_loglevel": "1",
        "virtual_mailbox_domains": " ".join(virtual_domains),
        "virtual_mailbox_maps": "static:./",
        "virtual_mailbox_base": str(maildir),
        "virtual_uid_maps": f"static:{_MAILBOX_OWNER}",
        "virtual_gid_maps": f"static:{_MAILBOX_OWNER}",
        "message_size_limit": "52428800",
        "mailbox_size_limit": "0",
        "virtual_mailbox_limit": "0",
        "import_environment": "MAIL_CONFIG MAIL_LOGTAG TZ LANG=C LD_LIBRARY_PATH POSTLOG_SERVICE POSTLOG_HOSTNAME",
        **(settings or {}),
    }
    # The last setting of a parameter counts (postconf(5)).
    before = "".join(f"{name} = {value}\n" for name, value in main.items() if name not in (settings or {}))
    after = "".join(f"{name} = {value}\n" for name, value in (settings or {}).items())
    (configuration / "main.cf").write_text(f"{before}{main_cf}\n{after}")
    client = "".join(f"  -o {{ {name} = {value} }}\n" for name, value in (client_options or {}).items())
    services = _MASTER.replace(_CLIENT, f"{_CLIENT}{client}")
    services = services.replace("- smtp\n", "- smtp -v\n") if verbose_client else services
    (configuration / "master.cf").write_text("".join(one.master_line() for one in listeners) + services)
    command: list[str | Path] = [program, "-c", configuration, "start-fg"]
    if resolver:
        command = [*seeing_resolver(resolver, directory), *command]
    with WatchedProcess(command, log=directory / "maillog", environment=library_path(program)) as process:
        process.wait_for(r"daemon started")
        try:
            yield Postfix(process, maildir)
        finally:
            # master leads a session of its own; the script that waits for it would not pass a signal on
            os.kill(int((directory / "queue/pid/master.pid").read_text()), signal.SIGTERM)
            process.wait()


def version() -> str:
    """The release of the Postfix that tests start."""
    program = servers.find("postfix")
    command: list[str | Path] = [program.with_name("postconf"), "-d", "-h", "mail_version"]
    environment = {**os.environ, **library_path(program)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def library_path(program: Path) -> dict[str, str]:
    """The environment by which a program of Postfix finds its libraries, wherever it was unpacked."""
    root = program.parents[2]
    return {} if root == Path("/") else {"LD_LIBRARY_PATH": f"{root}/usr/lib/postfix"}


def seeing_resolver(address: str, directory: Path) -> list[str]:
    """A command prefix under which ``/etc/resolv.conf`` names one resolver, for that program alone.

    :raises UnavailableError: if this machine allows no mount namespace.
    """
    file = directory / "resolv.conf"
    file.write_text(f"nameserver {address}\noptions trust-ad edns0\n")
    prefix = ["unshare", "--mount", "--propagation", "private", "--"]
    script = 'mount --bind "$1" "$(readlink -f /etc/resolv.conf)" && shift && exec "$@"'
    prefix += ["sh", "-c", script, "sh", str(file)]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as error:
        raise servers.UnavailableError(
            "this machine allows no mount namespace, so Postfix cannot get our resolver"
        ) from error
    return prefix


def _places(program: Path) -> dict[str, str]:
    root = program.parents[2]
    usr = root / "usr"
    if root == Path("/"):
        return {}
    return {
        "command_directory": f"{usr}/sbin",
        "daemon_directory": f"{usr}/lib/postfix/sbin",
        "shlib_directory": f"{usr}/lib/postfix",
        "meta_directory": f"{root}/etc/postfix",
        "sendmail_path": f"{usr}/sbin/sendmail",
    }


def _account(*names: str) -> str:
    """The first of these accounts that exists: Postfix's own, or one of the system's that nothing else runs as."""
    for name in names:
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise servers.UnavailableError(f"no account for Postfix: none of {', '.join(names)}")
