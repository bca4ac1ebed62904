"""The program that plays the lab against three mail servers, inside namespaces of their own.

``python -m tests.interop.scoreboard_run DIRECTORY UNPACKED`` lays the lab out, runs its servers, and lets the relay, Postfix and
Exim play all scenarios one after the other; it prints one JSON object: each one's rows.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from relay.cli.lab_real import ACCOUNTS
from relay.lab.real import namespace, servers
from relay.lab.real.layout import Laid, lay_out
from relay.lab.real.running import Programs, find_programs, process, running, until_listening
from relay.lab.real.selftest import Seen, play
from relay.lab.real.servers import Place

NETWORK: Final = "127.80.0."
SENDER: Final = f"{NETWORK}5"
CONTENDERS: Final = ("relay", "postfix", "exim")


def _place(laid: Laid, name: str, *folders: str) -> Place:
    directory = laid.directory / name
    for folder in folders:
        (directory / folder).mkdir(parents=True)
    return Place(directory=directory, mailboxes=laid.mailboxes, credentials={})


def postfix(laid: Laid) -> Sequence[str | Path]:
    """Write a Postfix that sends as the relay is to send: level dane, the same policy file, the same CA."""
    place = _place(laid, "sender-postfix", "conf", "queue", "data")
    relay = laid.directory / "relay"
    main = servers.postfix_main(
        place,
        {
            "myhostname": "postfix-sender.lab.test",
            "mynetworks": "127.0.0.0/8",
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "smtp_dns_support_level": "dnssec",
            "smtp_host_lookup": "dns",
            "smtp_tls_security_level": "dane",
            "smtp_tls_policy_maps": f"texthash:{relay / 'tls_policy'}",
            "smtp_tls_CAfile": str(relay / "ca.pem"),
            "smtp_tls_loglevel": "1",
            "smtp_tls_connection_reuse": "no",
            "minimal_backoff_time": "4s",
            "maximal_backoff_time": "8s",
            "queue_run_delay": "3s",
            "smtp_connect_timeout": "10s",
            "smtp_helo_timeout": "4s",
            "smtp_starttls_timeout": "6s",
        },
    )
    conf = Path(place.directory) / "conf"
    (conf / "main.cf").write_text(main)
    (conf / "master.cf").write_text(f"{SENDER}:2525 inet n - n - - smtpd\n{servers.postfix_services()}")
    shutil.chown(Path(place.directory) / "data", "postfix")
    return [shutil.which("postfix") or "postfix", "-c", conf, "start-fg"]


_EXIM: Final = """\
primary_hostname = exim-sender.lab.test
spool_directory = {directory}/spool
log_file_path = {directory}/log/%slog
pid_file_path =
disable_ipv6
local_interfaces = {sender}
daemon_smtp_ports = 2525
host_lookup =
rfc1413_hosts =
dns_dnssec_ok = 1
acl_smtp_rcpt = take
message_size_limit = 50M
smtputf8_advertise_hosts = *
begin acl
take:
  accept hosts = 127.0.0.0/8
  deny
begin routers
mx:
  driver = dnslookup
  transport = smtp
  ignore_target_hosts =
  dnssec_request_domains = *
begin transports
smtp:
  driver = smtp
  hosts_try_dane = *
  tls_verify_certificates = {ca}
  tls_try_verify_hosts = *
  connect_timeout = 10s
  command_timeout = 6s
begin retry
* * F,1h,3s
begin rewrite
"""


def exim(laid: Laid) -> Sequence[str | Path]:
    """Write an Exim that tries DANE everywhere; it has no policy maps."""
    place = _place(laid, "sender-exim", "spool", "log")
    directory = Path(place.directory)
    text = _EXIM.format(directory=directory, sender=SENDER, ca=laid.directory / "relay/ca.pem")
    (directory / "exim.conf").write_text(text)
    for folder in ("spool", "log"):
        shutil.chown(directory / folder, "Debian-exim", "Debian-exim")
    return [shutil.which("exim4") or "exim4", "-C", directory / "exim.conf", "-bdf", "-q3s"]


@asynccontextmanager
async def contender(name: str, laid: Laid) -> AsyncIterator[tuple[str, int]]:
    """Run one mail server; gives where it takes mail."""
    command: Sequence[str | Path]
    if name == "relay":
        command, address = [sys.executable, "-m", "relay", "serve", "-c", laid.relay_configuration], laid.plan.relay
    else:
        command, address = {"postfix": postfix, "exim": exim}[name](laid), SENDER
    pid_file = laid.directory / "sender-postfix/queue/pid/master.pid" if name == "postfix" else None
    async with process(f"sender-{name}", command, laid, pid_file=pid_file):
        await until_listening(address, 2525, laid.directory / "log" / f"sender-{name}.log")
        yield address, 2525


def forget(laid: Laid) -> None:
    """What the hosts saw of the last contender."""
    for file in laid.evidence.iterdir():
        file.unlink()
    for mailbox in laid.mailboxes.iterdir():
        shutil.rmtree(mailbox)


def row(seen: Seen) -> dict[str, object]:
    one = seen.destination
    return {"name": one.name, "expected": seen.expected, "got": seen.got, "differences": list(seen.differences)}


async def main(directory: Path, programs: Programs) -> None:
    """Run everything, one contender after the other, and print."""
    laid = lay_out(directory / "lab", NETWORK, now=datetime.now(UTC), absent=programs.absent)
    namespace.see_resolver(laid.plan.resolver)
    found: dict[str, object] = {}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(laid, programs))
        for name in CONTENDERS:
            async with contender(name, laid) as address:
                rows, submission = await asyncio.to_thread(
                    play, laid, address, now=datetime.now(UTC), patience=25 if name != "relay" else 60, quiet=3
                )
            found[name] = {"rows": list(map(row, rows)), "refused": dict(submission.refused)}
            forget(laid)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    namespace.bring_up_loopback()
    place = Path(sys.argv[1])
    roots = sorted(one for one in Path(sys.argv[2]).iterdir() if one.is_dir())
    namespace.lay_over(roots, place / "system")
    for account, number in ACCOUNTS.items():
        namespace.add_account(account, number)
    asyncio.run(main(place, find_programs()))
