"""Who serves which host, and at which address: the same in network namespaces and in containers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from relay.lab.destination import Host
from relay.lab.scenarios import DESTINATIONS, RETURN_HOST
from relay.lab.scenarios.build import mx

SMTP_PORT = 25


class Server(Enum):
    """What a mail host runs."""

    SCRIPTED = "the lab's own receiver, which does as it is told"
    POSTFIX = "Postfix"
    EXIM = "Exim"
    OPENSMTPD = "OpenSMTPD"


# The first of the addresses of each; hosts follow in the order below, scripted ones in that of the scenarios.
_FIRST: Mapping[Server, int] = {Server.POSTFIX: 10, Server.EXIM: 20, Server.OPENSMTPD: 30, Server.SCRIPTED: 40}
_REAL: Mapping[Server, tuple[str, ...]] = {
    Server.POSTFIX: tuple(
        mx(name)
        for name in ("good", "known-ca", "mismatch", "wrong-name-ee", "rollover", "rsa", "secure", "expired-ta")
    ),
    Server.EXIM: (mx("ta"), mx("self-signed"), mx("no-tlsa")),
    Server.OPENSMTPD: (mx("cleartext"),),  # 6.8 as in Debian 12 can do no TLS with OpenSSL 3
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where everything is.

    :param network: the first three numbers of every address, with the dot.
    :param addresses: of each mail host, by name.
    :param servers: what runs there, by host name.
    """

    network: str
    addresses: Mapping[str, str]
    servers: Mapping[str, Server]
    hosts: Mapping[str, Host] = field(repr=False)

    @property
    def authority(self) -> str:
        """Of the name server that has all zones."""
        return f"{self.network}2"

    @property
    def resolver(self) -> str:
        """Of the validating resolver."""
        return f"{self.network}3"

    @property
    def relay(self) -> str:
        """Of the relay under test."""
        return f"{self.network}4"

    @property
    def void(self) -> str:
        """Where questions to the DNS go that get no answer."""
        return f"{self.network}9"

    def run_by(self, server: Server) -> tuple[Host, ...]:
        """The hosts that a server plays, in the order of their addresses."""
        return tuple(self.hosts[name] for name, runs in self.servers.items() if runs is server)


def make_plan(network: str, absent: Iterable[Server] = ()) -> Plan:
    """Give every host its address.

    :param network: such as ``127.80.0.``.
    :param absent: servers that cannot be had; the lab's own receivers play their hosts, at the same addresses.
    """
    missing = frozenset(absent)
    everyone = {host.name: host for one in DESTINATIONS for host in one.hosts} | {RETURN_HOST.name: RETURN_HOST}
    addresses: dict[str, str] = {}
    servers: dict[str, Server] = {}
    for server, names in _REAL.items():
        for number, name in enumerate(names, _FIRST[server]):
            addresses[name] = f"{network}{number}"
            servers[name] = Server.SCRIPTED if server in missing else server
    scripted = [name for name in everyone if name not in addresses]
    for number, name in enumerate(scripted, _FIRST[Server.SCRIPTED]):
        addresses[name] = f"{network}{number}"
        servers[name] = Server.SCRIPTED
    return Plan(network=network, addresses=addresses, servers=servers, hosts=everyone)
