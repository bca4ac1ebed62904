"""A small Internet: the lab's authority, name server and mail hosts, started together and stopped together."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from relay.lab.attacks import Attack, Attacks, Stage, play, prepare
from relay.lab.ca import Authority, Credential
from relay.lab.destination import LAB, Destination
from relay.lab.issued import issue_for
from relay.lab.mx import Receiver
from relay.lab.nameserver import NameServer, Query
from relay.lab.record import Received, SessionRecord
from relay.lab.scenarios import DESTINATIONS, RETURN, RETURN_HOST
from relay.lab.zones import Placement, build_zones

FIRST_HOST_NUMBER = 11  # 127.0.0.11 and up: below that people have things of their own
MAX_HOSTS = 240
PORT_ATTEMPTS = 10


class LabError(Exception):
    """The lab could not be set up; the message says what to do."""


@dataclass(frozen=True, slots=True)
class World:
    """A running lab.

    :param nameserver: address and port, UDP and TCP.
    :param smtp_port: the one port of all mail hosts.
    :param ca_file: PEM file with the lab's root.
    :param policy_file: a policy map in Postfix's text form.
    :param receivers: the mail hosts that listen, by name.
    """

    destinations: tuple[Destination, ...]
    nameserver: tuple[str, int]
    smtp_port: int
    directory: Path
    ca_file: Path
    policy_file: Path
    receivers: Mapping[str, Receiver]
    placement: Placement
    credentials: Mapping[str, Credential]
    dns: NameServer
    stages: Mapping[str, Stage]

    def play(self, attacks: Attacks) -> None:
        """Put destinations under attack, and heal all others."""
        play(attacks, {one.name: one for one in self.destinations}, self.stages)
        self.dns.spoil({f"{name}.{LAB}." for name, attack in attacks.items() if attack is Attack.BOGUS})

    def sessions(self) -> Mapping[str, Sequence[SessionRecord]]:
        """What each mail host recorded, by host name."""
        return {name: tuple(receiver.sessions) for name, receiver in self.receivers.items()}

    def queries(self) -> Sequence[Query]:
        """What the name server was asked."""
        return tuple(self.dns.queries)

    def reports(self) -> Sequence[Received]:
        """What came back to the sender of the lab's messages."""
        return self.receivers[RETURN_HOST.name].received()


@asynccontextmanager
async def open_world(*, now: datetime, destinations: tuple[Destination, ...] = DESTINATIONS) -> AsyncIterator[World]:
    """Start a lab in a temporary directory; at the end everything is stopped and removed.

    :param now: the moment that certificates are valid at, aware.
    :raises LabError: if a socket cannot be had.
    """
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dane-relay-lab-")))
        authority = Authority(directory, now)
        everyone = (*destinations, RETURN)
        hosts = [host for one in everyone for host in one.hosts]
        if len(hosts) > MAX_HOSTS:
            raise LabError(f"the lab has room for {MAX_HOSTS} mail hosts; the scenarios have {len(hosts)}")
        issued = issue_for(hosts, authority)
        policy_file = directory / "tls_policy"
        policy_file.write_text(issued.policy_map(destinations))
        credentials = issued.credentials
        addresses = {host.name: f"127.0.0.{number}" for number, host in enumerate(hosts, FIRST_HOST_NUMBER)}
        receivers = {
            host.name: Receiver(host.name, addresses[host.name], host.script, credentials[host.name].pem_file)
            for host in hosts
            if host.listens
        }
        port = await _listen(tuple(receivers.values()))
        prepare(authority, {name: credentials[name].pem_file for name in receivers}, directory / "attackers")
        stages = {
            name: Stage(receiver, receiver.script, credentials[name].pem_file, directory / "attackers")
            for name, receiver in receivers.items()
        }
        for receiver in receivers.values():
            stack.push_async_callback(receiver.stop)
        placement = Placement(port=port, addresses=addresses, tlsa=issued.tlsa)
        nameserver = NameServer(build_zones(everyone, placement))
        stack.push_async_callback(nameserver.stop)
        yield World(
            destinations=destinations,
            nameserver=await nameserver.start(),
            smtp_port=port,
            directory=directory,
            ca_file=authority.ca_file,
            policy_file=policy_file,
            receivers=receivers,
            placement=placement,
            credentials=credentials,
            dns=nameserver,
            stages=stages,
        )


async def _listen(receivers: Sequence[Receiver]) -> int:
    """Start all mail hosts on one port that is free on every address."""
    for attempts_left in reversed(range(PORT_ATTEMPTS)):
        port = 0
        address = ""
        try:
            for receiver in receivers:
                address = receiver.address
                port = await receiver.start(port)
        except OSError as error:
            for receiver in receivers:
                await receiver.stop()
            if not attempts_left:
                raise LabError(
                    f"the lab cannot listen on {address}:{port or 'any port'}: {error.strerror or error}; it needs the"
                    " loopback addresses from 127.0.0.11 on (macOS: sudo ifconfig lo0 alias ADDRESS for each)"
                ) from None
        else:
            return port
    raise LabError("the lab has no mail hosts")  # pragma: no cover - PORT_ATTEMPTS is positive
