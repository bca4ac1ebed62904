"""Writes a lab with real servers to disk: zones, keys, certificates, and every server's configuration.

Made once, at start; what runs afterwards reads files only, on this machine or in containers that mount the directory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from relay.lab.attacks import prepare
from relay.lab.ca import Authority
from relay.lab.issued import Issued, issue_for
from relay.lab.real import servers
from relay.lab.real.plan import SMTP_PORT, Plan, Server, make_plan
from relay.lab.real.servers import Place
from relay.lab.real.signing import SignedTree, Signer
from relay.lab.scenarios import DESTINATIONS, RETURN
from relay.lab.zones import Placement, build_zones

PLAN_FILE = "lab.json"
RELOAD = "reload"
"""Changes in ``dns/`` whenever the name server is to read its zones again."""


@dataclass(frozen=True, slots=True)
class Laid:
    """A laid-out lab.

    :param directory: everything is below.
    """

    directory: Path
    plan: Plan

    def credential(self, host: str) -> Path:
        """PEM file of a host: key, then chain."""
        return self.directory / "certificates" / f"{host}.pem"

    @property
    def attackers(self) -> Path:
        """What hosts present under attack."""
        return self.directory / "certificates" / "attackers"

    @property
    def evidence(self) -> Path:
        """Where scripted hosts write down what they saw, a file for each."""
        return self.directory / "evidence"

    @property
    def mailboxes(self) -> Path:
        """Where the real servers put mail, a maildir for each host."""
        return self.directory / "mail"

    @property
    def relay_configuration(self) -> Path:
        """relay.toml of the relay in this lab."""
        return self.directory / "relay" / "relay.toml"


def read_layout(directory: Path) -> Laid:
    """Find a laid-out lab again.

    :raises OSError: if there is none.
    :raises ValueError: if its plan cannot be read.
    """
    facts = json.loads((directory / PLAN_FILE).read_text())
    return Laid(directory, make_plan(facts["network"], [Server[name] for name in facts["absent"]]))


def lay_out(
    directory: Path,
    network: str,
    *,
    now: datetime,
    absent: Iterable[Server] = (),
) -> Laid:
    """Write a lab.

    :param directory: new or empty; open to be entered by the servers' accounts.
    :param network: the first three numbers of its addresses, with the dot.
    :param absent: servers whose hosts the lab plays itself.
    """
    absent = tuple(absent)
    plan = make_plan(network, absent)
    laid = Laid(directory, plan)
    for name in ("certificates", "dns", "resolver", "evidence", "mail", "relay", "log"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    laid.mailboxes.chmod(0o1777)  # throw-away mail, written by whoever delivers it
    laid.evidence.chmod(0o1777)
    authority = Authority(directory / "certificates", now)
    issued = issue_for(tuple(plan.hosts.values()), authority)
    _name_credentials(laid, issued)
    tree = _write_dns(laid, issued, now)
    _write_resolver(laid, tree)
    writing = _MailServers(laid)
    for server in Server:
        if plan.run_by(server):
            writing.write(server)
    _write_relay(laid, issued, tree)
    _write_addresses(laid)
    facts = {"network": network, "absent": sorted(one.name for one in absent), "made": now.isoformat()}
    (directory / PLAN_FILE).write_text(json.dumps(facts, indent=2) + "\n")
    return laid


def _name_credentials(laid: Laid, issued: Issued) -> None:
    for host, credential in issued.credentials.items():
        credential.pem_file.rename(laid.credential(host))
    scripted = {host.name: laid.credential(host.name) for host in laid.plan.run_by(Server.SCRIPTED)}
    prepare(issued.authority, scripted, laid.attackers)
    for file in (laid.directory / "certificates").rglob("*.pem"):
        file.chmod(0o644)  # keys of a lab: containers read them under accounts of their own


def _write_dns(laid: Laid, issued: Issued, now: datetime) -> SignedTree:
    plan, directory = laid.plan, laid.directory / "dns"
    placement = Placement(port=SMTP_PORT, addresses=plan.addresses, tlsa=issued.tlsa, nameserver=plan.authority)
    tree = Signer(directory, now=now, void=plan.void).write(build_zones((*DESTINATIONS, RETURN), placement))
    (directory / RELOAD).touch()
    (directory / "nsd.conf").write_text(servers.nsd(plan, tree.files, directory))
    return tree


def _write_resolver(laid: Laid, tree: SignedTree) -> None:
    directory = laid.directory / "resolver"
    (directory / "root.hints").write_text(servers.root_hints(laid.plan))
    (directory / "unbound.conf").write_text(servers.unbound(laid.plan, directory, tree.trust_anchor))


class _MailServers:
    """Writes what each mail server reads."""

    def __init__(self, laid: Laid) -> None:
        self._laid = laid
        self._plan = laid.plan

    def write(self, server: Server) -> None:
        match server:
            case Server.POSTFIX:
                self._postfix()
            case Server.EXIM:
                self._exim()
            case Server.OPENSMTPD:
                self._opensmtpd()
            case Server.SCRIPTED:
                pass  # reads the plan itself

    def _place(self, server: Server, *folders: str) -> Place:
        directory = self._laid.directory / server.name.lower()
        for folder in folders:
            (directory / folder).mkdir(parents=True)
        return Place(
            directory=directory,
            mailboxes=self._laid.mailboxes,
            credentials={name: self._laid.credential(name) for name in self._plan.hosts},
        )

    def _postfix(self) -> None:
        place = self._place(Server.POSTFIX, "conf", "queue", "data")
        hosts, conf = self._plan.run_by(Server.POSTFIX), Path(place.directory) / "conf"
        main = servers.postfix_hosts_main(
            place,
            list(map(servers.domain_of, hosts)),
        )
        (conf / "main.cf").write_text(main)
        (conf / "master.cf").write_text(servers.postfix_hosts_master(self._plan, place, hosts))
        (conf / "mailboxes").write_text(servers.postfix_mailboxes(hosts))

    def _exim(self) -> None:
        place = self._place(Server.EXIM, "spool", "log")
        hosts, directory = self._plan.run_by(Server.EXIM), Path(place.directory)
        domains = list(map(servers.domain_of, hosts))
        (directory / "exim.conf").write_text(servers.exim(self._plan, place, hosts, domains))
        (directory / "certificates").write_text(servers.exim_certificates(self._plan, place, hosts))
        (directory / "mailboxes").write_text(servers.exim_mailboxes(hosts))

    def _opensmtpd(self) -> None:
        place = self._place(Server.OPENSMTPD)
        Path(place.directory).mkdir()
        (Path(place.directory) / "smtpd.conf").write_text(
            servers.opensmtpd(self._plan, place, self._plan.run_by(Server.OPENSMTPD))
        )


def _write_addresses(laid: Laid) -> None:
    """What containers take for themselves: the addresses of each mail server, one a line."""
    for server in Server:
        addresses = [laid.plan.addresses[host.name] for host in laid.plan.run_by(server)]
        if server is Server.SCRIPTED:
            (laid.directory / "scripted.addresses").write_text("\n".join([laid.plan.void, *addresses]) + "\n")
        elif addresses:
            (laid.directory / server.name.lower() / "addresses").write_text("\n".join(addresses) + "\n")


def _write_relay(laid: Laid, issued: Issued, tree: SignedTree) -> None:
    directory = laid.directory / "relay"
    (directory / "ca.pem").write_bytes(issued.authority.root.public_bytes(Encoding.PEM))
    (directory / "root.ds").write_text(tree.trust_anchor.read_text())
    (directory / "tls_policy").write_text(issued.policy_map(DESTINATIONS))
    laid.relay_configuration.write_text(servers.relay(laid.plan))
