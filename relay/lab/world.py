"""A small Internet: the lab's authority, name server and mail hosts, started together and stopped together."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from relay.lab.ca import Authority, Credential, Signer, fingerprint, tlsa_rdata
from relay.lab.destination import Destination, Host
from relay.lab.mx import Receiver
from relay.lab.nameserver import NameServer, Query
from relay.lab.record import Received, SessionRecord
from relay.lab.scenarios import DESTINATIONS, RETURN_DOMAIN, RETURN_HOST
from relay.lab.zones import Placement, build_zones

FIRST_HOST_NUMBER = 11  # 127.0.0.11 and up: below that people have things of their own
MAX_HOSTS = 240
PORT_ATTEMPTS = 10

_RETURN = Destination(
    name=RETURN_DOMAIN.partition(".")[0],
    shows="where bounces of the lab's messages arrive",
    rule="RFC 5321 section 4.5.5",
    hosts=(RETURN_HOST,),
    endings=(),
    reach=DESTINATIONS[0].reach,
)


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
        everyone = (*destinations, _RETURN)
        hosts = [host for one in everyone for host in one.hosts]
        if len(hosts) > MAX_HOSTS:
            raise LabError(f"the lab has room for {MAX_HOSTS} mail hosts; the scenarios have {len(hosts)}")
        credentials = {host.name: authority.issue(host.certificate, host.name) for host in hosts}
        addresses = {host.name: f"127.0.0.{number}" for number, host in enumerate(hosts, FIRST_HOST_NUMBER)}
        receivers = {
            host.name: Receiver(host.name, addresses[host.name], host.script, credentials[host.name].pem_file)
            for host in hosts
            if host.listens
        }
        port = await _listen(tuple(receivers.values()))
        for receiver in receivers.values():
            stack.push_async_callback(receiver.stop)
        tlsa = {host.name: _tlsa(authority, host, credentials[host.name]) for host in hosts}
        placement = Placement(port, addresses, tlsa)
        nameserver = NameServer(build_zones(everyone, placement))
        stack.push_async_callback(nameserver.stop)
        yield World(
            destinations=destinations,
            nameserver=await nameserver.start(),
            smtp_port=port,
            directory=directory,
            ca_file=authority.ca_file,
            policy_file=_write_policy_map(directory, authority, destinations, credentials),
            receivers=receivers,
            placement=placement,
            credentials=credentials,
            dns=nameserver,
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


def _tlsa(authority: Authority, host: Host, credential: Credential) -> tuple[str, ...]:
    texts = []
    for spec in host.tlsa:
        certificate = authority.signer(credential, spec.made_from)
        rdata = tlsa_rdata(spec.usage, spec.selector, spec.matching, certificate)
        texts.append(f"{rdata[0]} {rdata[1]} {rdata[2]} {rdata[3:].hex()}")
    return tuple(texts)


def _write_policy_map(
    directory: Path, authority: Authority, destinations: Sequence[Destination], credentials: Mapping[str, Credential]
) -> Path:
    path = directory / "tls_policy"
    lines = ["# The policy map of the lab, in the form of Postfix's smtp_tls_policy_maps."]
    for one in destinations:
        if one.policy:
            own = credentials[one.hosts[0].name]
            leaf, stranger = own.leaf, authority.signer(own, Signer.STRANGER)
            policy = one.policy.format(leaf=fingerprint(leaf), stranger=fingerprint(stranger))
            lines.append(f"{one.domain}\t{policy}")
    path.write_text("\n".join(lines) + "\n")
    return path
