"""From a next-hop to its hosts, their addresses and TLSA records, each with its DNSSEC status (RFC 7672 section 2.2).

What was not asked stays ``NotLookedUp``; a failed look-up is never taken for absence. One host's trouble is that host's:
addresses and TLSA records are looked up per host, when its turn comes (RFC 7672 section 2.1.2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import assert_never

from relay.dane.tlsa import Absent, Failed, NotLookedUp, TlsaLookup, classify
from relay.delivery.reach import ANYWHERE, Reach
from relay.delivery.remembered import Remembered
from relay.dns.answer import (
    Answer,
    Bogus,
    Found,
    LookupFailed,
    Mx,
    NoData,
    NxDomain,
    RRType,
    parse_address,
    parse_mx,
)
from relay.dns.resolver import Resolver
from relay.mail.names import BadName, Domain, IpAddress, IpLiteral, NextHop
from relay.mail.reply import EnhancedStatus
from relay.outcome.wording import one_line

_TRY_AGAIN = EnhancedStatus(4, 4, 3)
_NOT_FOUND = EnhancedStatus(5, 4, 4)
_NULL_MX = EnhancedStatus(5, 1, 0)
_LOOP = EnhancedStatus(5, 4, 6)
_NO_WAY = EnhancedStatus(4, 4, 4)
# Of one host's addresses, more than any honest host has (postfix 3.9 caps at 100 records a host).
MAX_ADDRESSES = 32
MAX_HOSTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupTrouble:
    """Hosts or addresses could not be had; class 4 if that may pass.

    :param loops: whether it is because we are the host ourselves; then nobody else may be tried for the next-hop.
    """

    status: EnhancedStatus
    text: str
    loops: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """The hosts of a next-hop, best first.

    :param had_mx: whether MX records named them.
    :param mx_secure: whether those were secure; True where there was no MX set to judge.
    :param expanded: where CNAME records of the next-hop domain lead, None if nowhere.
    :param backup: whether we are one of its hosts; those that are no better than we were left out.
    :param equals: how many of the first hosts share the best preference, so that their order means nothing.
    """

    next_hop: NextHop
    hosts: tuple[Domain | IpLiteral, ...]
    had_mx: bool
    mx_secure: bool
    expanded: Domain | None = None
    backup: bool = False
    equals: int = 1


@dataclass(frozen=True, slots=True)
class HostAddress:
    """One address of a host.

    :param secure: whether the answer that gave it, CNAMEs included, was secure.
    :param canonical: the host's name after its CNAMEs.
    """

    address: IpAddress
    secure: bool
    canonical: Domain | IpLiteral


class Gatherer:
    """Looks up what a delivery must know.

    :param shuffle: orders hosts of equal preference and addresses of one host anew each time (RFC 5321 section 5.1).
    :param reach: which addresses count, in which order, and which are ourselves.
    """

    def __init__(self, resolver: Resolver, *, shuffle: Callable[[list[Mx]], None], reach: Reach = ANYWHERE) -> None:
        self._resolver = resolver
        # What a cache knows is had without a task for each question.
        self._known: Callable[[Domain, RRType], Answer | None] = getattr(resolver, "known", _nothing)
        self._shuffle = shuffle
        self._reach = reach
        self._destinations = Remembered[str, tuple[NextHop, Found], Destination]()
        self._hosts = Remembered[Domain, tuple[Answer, ...], tuple[HostAddress, ...]]()
        self._records = Remembered[Domain, Answer, TlsaLookup]()

    async def destination(self, next_hop: NextHop) -> Destination | LookupTrouble:
        """Find the hosts of a next-hop: itself if it is in brackets, else by MX records (RFC 5321 section 5.1)."""
        host = next_hop.host
        if not next_hop.use_mx or isinstance(host, IpLiteral):
            return await self._one_host(next_hop)
        answer = await self._resolver.query(host, RRType.MX)
        match answer:
            case Found():
                kept = self._destinations.get(next_hop.key, (next_hop, answer))
                return kept or await self._from_mx(next_hop, host, answer)
            case NoData() | NxDomain():
                # Implicit MX: the domain is its own host; whether it exists, its address records will say.
                return await self._one_host(next_hop)
            case Bogus() | LookupFailed():
                return _trouble(host, RRType.MX, answer)
            case _:
                assert_never(answer)

    async def _one_host(self, next_hop: NextHop) -> Destination | LookupTrouble:
        if await self._is_ourselves(next_hop.host, next_hop):
            return _loop(next_hop)
        return Destination(next_hop=next_hop, hosts=(next_hop.host,), had_mx=False, mx_secure=True)

    async def _from_mx(self, next_hop: NextHop, domain: Domain, answer: Found) -> Destination | LookupTrouble:
        records = [record for record in map(parse_mx, answer.rdata) if record is not None]
        hosts = [record for record in records if record.exchange is not None]
        if not hosts:
            if records:
                return LookupTrouble(status=_NULL_MX, text=f"Domain {domain} does not accept mail (nullMX)")
            return LookupTrouble(status=_TRY_AGAIN, text=f"no MX record of {domain} names a valid host")
        self._shuffle(hosts)
        hosts.sort(key=lambda record: record.preference)
        preferences: dict[Domain, int] = {}
        for record in hosts:
            if record.exchange is not None:
                preferences.setdefault(record.exchange, record.preference)
        names = tuple(preferences)[:MAX_HOSTS]
        looks_further = self._reach.ourselves.listen_at(next_hop.port)
        if looks_further:
            ours = await asyncio.gather(*(self._is_ourselves(name, next_hop) for name in names))
        else:
            ours = [self._has_our_name(name, next_hop) for name in names]
        if any(ours):
            # RFC 5321 section 5.1: hosts at our own preference and above are not for us to try.
            own = min(preferences[name] for name, is_ours in zip(names, ours, strict=True) if is_ours)
            names = tuple(name for name in names if preferences[name] < own)
            if not names:
                return _loop(next_hop)
        found = Destination(
            next_hop=next_hop,
            hosts=names,
            had_mx=True,
            mx_secure=answer.secure,
            expanded=answer.canonical if answer.canonical != domain else None,
            backup=any(ours),
            equals=sum(preferences[name] == preferences[names[0]] for name in names),
        )
        # Neither chance nor another answer had a say.
        if not looks_further and len({record.preference for record in hosts}) == len(hosts):
            self._destinations.keep(next_hop.key, (next_hop, answer), found)
        return found

    async def _is_ourselves(self, host: Domain | IpLiteral, next_hop: NextHop) -> bool:
        """Whether mail for a host would come back to us: by its name in an MX set, or by one of its addresses.

        Addresses are looked up only where we listen at the port that would be dialled.
        """
        if self._has_our_name(host, next_hop):
            return True
        ourselves, port = self._reach.ourselves, next_hop.port
        if not ourselves.listen_at(port):
            return False
        found = await self._addresses(host)
        return not isinstance(found, LookupTrouble) and any(ourselves.take_mail_at(one.address, port) for one in found)

    def _has_our_name(self, host: Domain | IpLiteral, next_hop: NextHop) -> bool:
        return next_hop.use_mx and self._reach.ourselves.has_name(host, next_hop.port)

    async def addresses(self, host: Domain | IpLiteral) -> Sequence[HostAddress] | LookupTrouble:
        """The addresses of one host, in order, those of a family that failed left out if others were found."""
        return await self._addresses(host)

    async def _addresses(self, host: Domain | IpLiteral) -> Sequence[HostAddress] | LookupTrouble:
        families = self._reach.families
        if isinstance(host, IpLiteral):
            if not families.has(host.address.version):
                return LookupTrouble(status=_NO_WAY, text=f"{host} is left out by inet_protocols = {families.value}")
            return (HostAddress(host.address, secure=False, canonical=host),)
        types = [rrtype for version, rrtype in ((4, RRType.A), (6, RRType.AAAA)) if families.has(version)]
        known = [self._known(host, rrtype) for rrtype in types]
        answers = [answer for answer in known if answer is not None]
        if len(answers) < len(types):
            answers = await asyncio.gather(*(self._resolver.query(host, rrtype) for rrtype in types))
        given = tuple(answers)
        if (kept := self._hosts.get(host, given)) is not None:
            return kept
        found = [
            HostAddress(address, secure=answer.secure, canonical=answer.canonical)
            for answer in answers
            if isinstance(answer, Found)
            for address in map(parse_address, answer.rdata)
            if address is not None
        ]
        if found:
            v6, v4 = ([one for one in found if one.address.version == version] for version in (6, 4))
            return self._hosts.keep(host, given, tuple(self._reach.preference.order(v6, v4)[:MAX_ADDRESSES]))
        failed = next((answer for answer in answers if isinstance(answer, Bogus | LookupFailed)), answers[0])
        return _trouble(host, types[0], failed)

    async def tlsa(self, host: Domain | IpLiteral, port: int, address: HostAddress) -> TlsaLookup:
        """TLSA records of a host at one of its addresses (RFC 7672 section 2.2.2; postfix tls_dane_resolve).

        :param port: the real TCP port that will be dialled.
        """
        canonical = address.canonical
        if isinstance(host, IpLiteral) or isinstance(canonical, IpLiteral):
            return NotLookedUp(f"{host} is an address literal: no DANE")
        if address.secure:
            records = await self._tlsa_at(canonical, port)
            if isinstance(records, Absent) and canonical != host:
                return await self._tlsa_at(host, port)
            return records
        if canonical == host:
            return NotLookedUp(f"the address records of {host} are not DNSSEC secure")
        return await self._tlsa_behind_insecure_alias(host, port)

    async def _tlsa_behind_insecure_alias(self, host: Domain, port: int) -> TlsaLookup:
        """The alias itself may be in a signed zone though its target is not (RFC 7672 section 2.1.3)."""
        answer = await self._resolver.query(host, RRType.CNAME)
        match answer:
            case Found(secure=True):
                return await self._tlsa_at(host, port)
            case Found():
                return NotLookedUp(f"the CNAME record of {host} is not DNSSEC secure")
            case Bogus(why) | LookupFailed(_, why):
                return Failed(f"DNSSEC status lookup error for {host}: {why}")
            case NoData() | NxDomain():
                return Failed(f"DNSSEC status lookup error for {host}: its CNAME record is gone")
            case _:
                assert_never(answer)

    async def _tlsa_at(self, base: Domain, port: int) -> TlsaLookup:
        owner = _owner(base, port)
        if owner is None:
            return Absent(f"_{port}._tcp.{base} is too long for a domain name")
        answer = await self._resolver.query(owner, RRType.TLSA)
        return self._records.get(owner, answer) or self._records.keep(owner, answer, self._tlsa_of(base, owner, answer))

    def _tlsa_of(self, base: Domain, owner: Domain, answer: Answer) -> TlsaLookup:
        match answer:
            case Found(secure=True):
                return classify(base, answer.rdata)
            case Found():
                return Absent(f"the TLSA records at {owner} are not DNSSEC secure")
            case NoData() | NxDomain():
                return Absent(f"no TLSA records at {owner}")
            case Bogus(why) | LookupFailed(_, why):
                return Failed(f"{owner}: {why}")
            case _:
                assert_never(answer)


def _nothing(name: Domain, rrtype: RRType) -> None:
    del name, rrtype


@lru_cache(maxsize=4096)
def _owner(base: Domain, port: int) -> Domain | None:
    """Where TLSA records stand; None if that is no name."""
    try:
        return Domain.parse(f"_{port}._tcp.{base}")
    except BadName:
        return None


def _loop(next_hop: NextHop) -> LookupTrouble:
    return LookupTrouble(status=_LOOP, text=f"mail for {next_hop.host} loops back to myself", loops=True)


def _trouble(name: Domain, rrtype: RRType, answer: Answer) -> LookupTrouble:
    """A failed look-up in Postfix's words (smtp_addr.c, dns_strerror.c), our finding behind them."""
    text = f"Host or domain name not found. Name service error for name={name} type={rrtype.name}: "
    match answer:
        case NxDomain():
            return LookupTrouble(status=_NOT_FOUND, text=text + "Host not found")
        case Found() | NoData():
            return LookupTrouble(status=_NOT_FOUND, text=text + "Host found but no data record of requested type")
        case Bogus(why) | LookupFailed(_, why):
            return LookupTrouble(
                status=_TRY_AGAIN, text=one_line(f"{text}Host not found, try again: expected an answer; found {why}")
            )
        case _:
            assert_never(answer)
