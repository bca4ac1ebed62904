"""Which addresses deliveries may go to, in which order, and which of them are this relay itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain
from typing import TypeVar

from relay.mail.names import Domain, IpAddress, IpLiteral

T = TypeVar("T")


class Families(Enum):
    """IP versions that are used (postfix ``inet_protocols``)."""

    ALL = "all"
    IPV4 = "ipv4"
    IPV6 = "ipv6"

    def has(self, version: int) -> bool:
        """Whether addresses of IP version 4 or 6 are used."""
        return self is Families.ALL or self.value == f"ipv{version}"


class Preference(Enum):
    """Which of a host's addresses come first (postfix ``smtp_address_preference``)."""

    ANY = "any"
    IPV4 = "ipv4"
    IPV6 = "ipv6"

    def order(self, v6: Sequence[T], v4: Sequence[T]) -> list[T]:
        """The addresses of a host in the order in which they are tried.

        ``ANY`` takes turns, so that a limit on addresses never leaves one version out (``smtp_balance_inet_protocols``).
        """
        match self:
            case Preference.IPV4:
                return [*v4, *v6]
            case Preference.IPV6:
                return [*v6, *v4]
            case Preference.ANY:
                both = min(len(v6), len(v4))
                return [*chain(*zip(v6[:both], v4[:both], strict=True)), *v6[both:], *v4[both:]]


def _nowhere(address: IpAddress) -> bool:
    del address
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ourselves:
    """Where mail for a host would come back to this relay (postfix smtp_addr.c, smtp_find_self).

    :param names: what we are called; a host of an MX set with one of them is taken for us at ``port``.
    :param port: the TCP port that mail goes to where the next-hop names none.
    :param endpoints: addresses and ports that we listen at.
    :param everywhere: IP versions and ports that we listen at on every address of the machine.
    :param is_local: whether an address is one of the machine's.
    """

    names: frozenset[Domain] = frozenset()
    port: int = 25
    endpoints: frozenset[tuple[IpAddress, int]] = frozenset()
    everywhere: frozenset[tuple[int, int]] = frozenset()
    is_local: Callable[[IpAddress], bool] = _nowhere

    def has_name(self, host: Domain | IpLiteral, port: int) -> bool:
        """Whether a host of an MX set, at a port, has our name."""
        return port == self.port and host in self.names

    def listen_at(self, port: int) -> bool:
        """Whether we listen at a port, at whatever address."""
        return any(port == ours for _, ours in chain(self.endpoints, self.everywhere))

    def take_mail_at(self, address: IpAddress, port: int) -> bool:
        """Whether a connection to an address and port would be one to us."""
        if (address, port) in self.endpoints:
            return True
        return (address.version, port) in self.everywhere and self.is_local(address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Where deliveries may go."""

    families: Families = Families.ALL
    preference: Preference = Preference.ANY
    ourselves: Ourselves = field(default_factory=Ourselves)


ANYWHERE = Reach()
