"""Who may relay, and whose mail is completed: decided from what is known of a client. No sockets, no names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from relay.mail.envelope import Client, LocalUser
from relay.mail.names import IpAddress

IpNetwork = IPv4Network | IPv6Network

_MAPPED = int(IPv6Address("::ffff:0:0"))


@lru_cache(maxsize=4096)
def client_address(text: str) -> IpAddress:
    """The address of a socket's peer: without a scope, and an IPv4 client of a dual-stack socket as IPv4.

    :raises ValueError: if the text is no address.
    """
    address = ip_address(text.partition("%")[0])
    if address.version == 6 and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_in(address: IpAddress, networks: Iterable[IpNetwork]) -> bool:
    """Whether an address is in one of the networks.

    A network written in its IPv4-mapped form (``::ffff:127.0.0.0/104``, as in Postfix's own default) holds the IPv4
    clients that it means, and an IPv4 network holds clients whose address came in mapped.
    """
    forms = _forms(address)
    return any(form.version == network.version and form in network for network in networks for form in forms)


@lru_cache(maxsize=1024)
def _forms(address: IpAddress) -> tuple[IpAddress, ...]:
    """The ways in which networks may mean an address; it is asked for with each recipient."""
    if address.version == 4:
        return address, IPv6Address(_MAPPED | int(address))
    return (address,) if address.ipv4_mapped is None else (address, address.ipv4_mapped)


def may_send(client: Client, mynetworks: Iterable[IpNetwork]) -> bool:
    """Whether a client may have mail sent anywhere: for its address, or because it has logged in.

    The address of a proxy that does not name its client is no reason, nor is the one that stands for a Unix socket.
    """
    return bool(client.user) or (client.has_address and is_in(client.address, mynetworks))


@dataclass(frozen=True, slots=True)
class LocalUsers:
    """Which users may have mail sent anywhere that comes through a Unix socket.

    :param names: accounts, by name or number; ``*`` is everybody whom the socket's mode lets in.
    """

    names: frozenset[str] = frozenset()

    def permit(self, client: Client) -> bool:
        """Whether a client is one of them."""
        if not isinstance(client.local, LocalUser):
            return False
        known = {"*", client.local.name, str(client.local.uid)} - {"", "-1"}
        return not self.names.isdisjoint(known)


class LocalRewrite(Enum):
    """Whose mail counts as written here: the words of Postfix's ``local_header_rewrite_clients``."""

    INET_INTERFACES = "permit_inet_interfaces"
    MYNETWORKS = "permit_mynetworks"
    SASL_AUTHENTICATED = "permit_sasl_authenticated"


def is_written_here(
    client: Client,
    clauses: Collection[LocalRewrite],
    *,
    mynetworks: Iterable[IpNetwork],
    is_own: Callable[[IpAddress], bool],
) -> bool:
    """Whether a client's mail is to be completed with what it lacks (Date, Message-Id).

    :param is_own: whether an address is one of this machine's.
    """
    return (
        (LocalRewrite.SASL_AUTHENTICATED in clauses and bool(client.user))
        or (client.has_address and LocalRewrite.MYNETWORKS in clauses and is_in(client.address, mynetworks))
        or (
            not client.unnamed
            and LocalRewrite.INET_INTERFACES in clauses
            and (client.address.is_loopback or is_own(client.address))
        )
    )
