"""The Internet in which Postfix and our relay are compared: NSD, Unbound, and scripted hosts that record what they saw."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from relay.lab.ca import Authority, Credential, tlsa_rdata
from relay.lab.destination import TlsaSpec
from relay.lab.mx import Receiver
from relay.lab.record import SessionRecord
from tests.interop.nameservers import Endpoint, name_service
from tests.interop.side_by_side_case import EE, Case, Host
from tests.interop.zones import Signing, Zone, ZoneTree, sign_tree
from tests.loopback import LoopbackNetwork, free_port
from tests.watched_process import PATIENCE

SENDER_DOMAIN = "sender.test"
_BOUNCES = Host(name=f"mx.{SENDER_DOMAIN}", tlsa=(EE,))
_SHARED_ZONES = (
    Zone("."),
    Zone("test."),
    Zone("insecure.test.", Signing.UNSIGNED),
    Zone("bogus.test.", Signing.WRONG_DS),
    Zone("expired.test.", Signing.EXPIRED),
)
_NUMBERS = {"name server": 1, "resolver": 2, "silent name server": 3, "Postfix": 4, "relay": 5}
_FIRST_HOST = 10


class Receivers:
    """All hosts, in a thread of their own.

    :param hosts: name → where, how and with which certificate.
    """

    def __init__(self, receivers: Mapping[str, tuple[Receiver, int]]) -> None:
        self._receivers = receivers
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="receivers", daemon=True)

    def sessions(self, host: str, client: str) -> tuple[SessionRecord, ...]:
        """What one host recorded of the sessions that came from one address; empty too if it does not listen."""
        found = self._receivers.get(host)
        return tuple(one for one in found[0].sessions if one.peer[0] == client) if found else ()

    def wait_until_quiet(self, hosts: Iterable[str]) -> None:
        """Wait until no session with any of these hosts is open any more.

        :raises TimeoutError: if one does not end.
        """
        receivers = [self._receivers[name][0] for name in hosts if name in self._receivers]
        asyncio.run_coroutine_threadsafe(self._quiet(receivers), self._loop).result(PATIENCE)

    async def _quiet(self, receivers: Iterable[Receiver]) -> None:
        for receiver in receivers:
            while not all(session.ended for session in receiver.sessions):
                receiver.changed.clear()
                await receiver.changed.wait()

    async def _start(self) -> None:
        for receiver, port in self._receivers.values():
            await receiver.start(port)

    async def _stop(self) -> None:
        for receiver, _ in self._receivers.values():
            await receiver.stop()

    def __enter__(self) -> Receivers:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All of it, running.

    :param ports: what ``port`` and ``other_port`` stand for.
    :param resolver: a validating Unbound.
    :param clients: the address that each contender, ``Postfix`` and ``relay``, is to send from.
    :param addresses: by host name.
    :param credentials: what each host presents, by name.
    """

    directory: Path
    ports: Mapping[str, int]
    resolver: Endpoint
    clients: Mapping[str, str]
    addresses: Mapping[str, str]
    authority: Authority
    credentials: Mapping[str, Credential]
    receivers: Receivers

    @property
    def ca_file(self) -> Path:
        """The authority's root, which everybody trusts."""
        return self.authority.ca_file

    def recipient(self, case: Case) -> str:
        """The address that mail for a destination is sent to."""
        return f"user@[{self.addresses[case.hosts[0].name]}]" if case.literal else f"user@{case.domain}"


@contextmanager
def world(cases: Sequence[Case], directory: Path) -> Iterator[World]:
    """Start everything.

    :raises UnavailableError: if a server is missing or may not be started.
    """
    network = LoopbackNetwork()
    numbered = {name: network.address(number) for name, number in _NUMBERS.items()}
    hosts = {host.name: host for case in cases for host in case.hosts} | {_BOUNCES.name: _BOUNCES}
    addresses = dict(zip(hosts, _host_addresses(network), strict=False))
    port = free_port(numbered["name server"], *addresses.values())
    ports = {"port": port, "other_port": free_port(*addresses.values())}
    places = {**ports, "silent": numbered["silent name server"]}
    authority = Authority(directory, datetime.now(UTC))
    credentials = {
        host.name: authority.issue(host.certificate, host.issued_for or host.name) for host in hosts.values()
    }
    records = [f"{name}. IN A {address}" for name, address in addresses.items()]
    records += [line for host in hosts.values() for line in _tlsa(host, authority, credentials[host.name])]
    records += [line for case in cases for line in (*case.mx_records, *case.records)]
    records += [f"{SENDER_DOMAIN}. IN MX 10 {_BOUNCES.name}.", "ns.silent.test. IN A {silent}"]
    zones = _allot(
        [*_SHARED_ZONES, *(zone for case in cases for zone in case.zones)], [r.format(**places) for r in records]
    )
    folder = directory / "dns"
    folder.mkdir()
    name_server, resolver = Endpoint(numbered["name server"], port), Endpoint(numbered["resolver"], 53)
    tree = sign_tree(zones, name_server.address, folder)
    _spell_out(tree)
    listening = {
        host.name: (
            Receiver(host.name, addresses[host.name], host.script, credentials[host.name].pem_file),
            int(host.port.format(**ports)),
        )
        for host in hosts.values()
        if host.listens
    }
    with ExitStack() as running:
        silent = running.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        silent.bind((numbered["silent name server"], 53))  # bound, so that no ICMP message says that nobody is there
        running.enter_context(name_service(tree, name_server, (resolver,), folder))
        yield World(
            directory=directory,
            ports=ports,
            resolver=resolver,
            clients={name: numbered[name] for name in ("Postfix", "relay")},
            addresses=addresses,
            authority=authority,
            credentials=credentials,
            receivers=running.enter_context(Receivers(listening)),
        )


def _host_addresses(network: LoopbackNetwork) -> Iterator[str]:
    """As many addresses as there are hosts; what one network cannot hold is in others."""
    while True:
        yield from map(network.address, range(_FIRST_HOST, 255))
        network = LoopbackNetwork()


def _tlsa(host: Host, authority: Authority, presented: Credential) -> Iterator[str]:
    for record in host.tlsa:
        if isinstance(record, TlsaSpec):
            made_from = authority.signer(presented, record.made_from)
            data = tlsa_rdata(record.usage, record.selector, record.matching, made_from)[3:].hex()
            text = f"{record.usage} {record.selector} {record.matching} {data}"
        else:
            text = record
        yield f"{host.tlsa_owner} IN TLSA {text}"


def _spell_out(tree: ZoneTree) -> None:
    """Write TLSA records without data as RFC 3597 does: ldns-signzone prints nothing for them, which NSD cannot read."""
    for file in filter(Path.exists, tree.files.values()):
        file.write_text(
            re.sub(r"\bTLSA\t(\d) (\d) (\d) *$", r"TLSA \\# 3 0\g<1>0\g<2>0\g<3>", file.read_text(), flags=re.M)
        )


def _allot(zones: Sequence[Zone], records: Sequence[str]) -> list[Zone]:
    """The zones with the records, each in the deepest zone that its owner is in."""
    inside: dict[str, list[str]] = {zone.name: [] for zone in zones}
    for record in records:
        owner = record.split(" ")[0]
        deepest = max((name for name in inside if f".{owner}".endswith(f".{name.lstrip('.')}")), key=len)
        inside[deepest].append(record)
    return [Zone(zone.name, zone.signing, inside[zone.name]) for zone in zones]
