"""A client's name in the DNS, as Postfix's smtpd_peer.c finds it: believed only where it leads back to the address.

Whoever owns an address writes what its reverse name says, so the name alone says nothing. It is for people: no rule asks for it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from relay.dns.answer import Found, RRType, parse_address, parse_name
from relay.dns.resolver import Resolver
from relay.log.events import Observer, Program, Warned
from relay.mail.names import BadName, Domain, IpAddress
from relay.smtpd.naming import name_without_dns

LOOKUP_SECONDS = 5.0
"""For all questions about one client; it waits that long for the greeting."""
KEPT_SECONDS = 60.0
_MOST_KEPT = 10_000
# Reverse names of one address that are tried.
_MOST_NAMES = 3
UNKNOWN = "unknown"


class ReverseNames:
    """Finds names, and keeps what it found for a minute, so that a client whose DNS is dead waits once.

    :param monotonic: seconds that only ever grow.
    :param warn: told of names that do not lead back.
    """

    def __init__(self, resolver: Resolver, *, monotonic: Callable[[], float], warn: Observer) -> None:
        self._resolver = resolver
        self._monotonic = monotonic
        self._warn = warn
        self._kept: OrderedDict[IpAddress, tuple[float, str]] = OrderedDict()

    async def name_of(self, address: IpAddress) -> str:
        """The client's name, or ``unknown``; see ``NameOf``."""
        if address.is_loopback:
            return await name_without_dns(address)
        until, name = self._kept.get(address, (0.0, UNKNOWN))
        if self._monotonic() < until:
            return name
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                name = await self._look_up(address)
        except TimeoutError:
            name = UNKNOWN
        self._keep(address, name)
        return name

    def _keep(self, address: IpAddress, name: str) -> None:
        self._kept.pop(address, None)
        self._kept[address] = (self._monotonic() + KEPT_SECONDS, name)
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)

    async def _look_up(self, address: IpAddress) -> str:
        try:
            reverse = Domain.parse(address.reverse_pointer)
        except BadName:
            return UNKNOWN
        answer = await self._resolver.query(reverse, RRType.PTR)
        if not isinstance(answer, Found):
            return UNKNOWN
        names = [name for rdata in answer.rdata[:_MOST_NAMES] if (name := parse_name(rdata)) is not None]
        for name in names:
            if not _is_number(name) and await self._leads_back(name, address):
                return str(name)
        for name in names[:1]:
            text = f"hostname {name} does not resolve to address {address}"
            self._warn(Warned(Program.SMTPD, text))
        return UNKNOWN

    async def _leads_back(self, name: Domain, address: IpAddress) -> bool:
        answer = await self._resolver.query(name, RRType.A if address.version == 4 else RRType.AAAA)
        return isinstance(answer, Found) and any(parse_address(rdata) == address for rdata in answer.rdata)


def _is_number(name: Domain) -> bool:
    """Whether the name looks like an address, which it would then be taken for."""
    return name.labels[-1].isdigit()
