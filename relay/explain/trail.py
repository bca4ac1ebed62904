"""What a delivery passes on its way, noted as it happens, and made into a story at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never

from relay.dane.tlsa import NotLookedUp, TlsaLookup
from relay.delivery.gather import Destination, HostAddress, LookupTrouble
from relay.delivery.options import DeliveryOptions
from relay.dns.probe import Validation
from relay.explain.story import (
    AddressStory,
    Failed,
    HopStory,
    HostStory,
    NotReached,
    NotTried,
    SessionStory,
    Tried,
    WouldSend,
)
from relay.mail.names import Domain, IpLiteral, NextHop
from relay.outcome.result import RelayHost
from relay.policy.policy import (
    Decision,
    Defaults,
    Entry,
    MalformedEntry,
    MapEntry,
    NoEntry,
    TlsPolicy,
    Withheld,
    rule_of,
)

NOT_NEEDED = NotLookedUp("the decision does not depend on TLSA records")
NOT_ALLOWED = NotTried("no session with this host can satisfy the policy now")
NOT_LIVE = NotTried("no session was asked for")


@dataclass(slots=True)
class _Host:
    host: Domain | IpLiteral
    addresses: tuple[HostAddress, ...] | LookupTrouble
    made: list[Tried] = field(default_factory=list)


@dataclass(slots=True)
class _Hop:
    found: Destination | LookupTrouble
    hosts: list[_Host] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """How many addresses had their turn."""
        return sum(len(host.made) for host in self.hosts)


class Trail:
    """Notes of one delivery, in order; everything goes to the last next-hop, its last host, its last address."""

    def __init__(self) -> None:
        self._hops: list[_Hop] = []
        self._tlsa: TlsaLookup = NOT_NEEDED
        self._opinions: list[Validation] = []
        self.taken: WouldSend | None = None

    def asked_validation(self, opinion: Validation) -> None:
        """The delivery asked whether the resolver validates."""
        self._opinions.append(opinion)

    def found_destination(self, found: Destination | LookupTrouble) -> None:
        """The hosts of the next next-hop are known."""
        self._hops.append(_Hop(found))

    def found_addresses(self, host: Domain | IpLiteral, found: Sequence[HostAddress] | LookupTrouble) -> None:
        """The addresses of the next host are known."""
        addresses = found if isinstance(found, LookupTrouble) else tuple(found)
        self._hops[-1].hosts.append(_Host(host, addresses))

    def found_tlsa(self, found: TlsaLookup) -> None:
        """TLSA records were asked for, on the way to a decision."""
        self._tlsa = found

    def decided(self, decision: Decision) -> None:
        """It is decided on the next address."""
        serials = {opinion.serial for opinion in self._opinions}
        believed = all(opinion.validating for opinion in self._opinions) and len(serials) < 2
        session = NOT_ALLOWED if isinstance(decision, Withheld) else NOT_LIVE
        tried = Tried(tlsa=self._tlsa, decision=decision, session=session, believed=believed)
        self._hops[-1].hosts[-1].made.append(tried)
        self._tlsa = NOT_NEEDED

    def had_session(self, relay: RelayHost, policy: TlsPolicy, session: SessionStory) -> None:
        """A session with the address that was decided on last was opened, or not."""
        made = self._hops[-1].hosts[-1].made
        last = made[-1]
        made[-1] = Tried(tlsa=last.tlsa, decision=last.decision, session=session, believed=last.believed)
        if self.taken is None and not isinstance(session, Failed):
            self.taken = WouldSend(relay=relay, policy=policy, session=session)

    @property
    def validation(self) -> Validation:
        """The last opinion on the resolver."""
        return self._opinions[-1] if self._opinions else Validation(False, "not asked: nothing depends on DNSSEC")

    def hops(
        self,
        route: Sequence[tuple[NextHop, Entry, bool]],
        fallback: Sequence[tuple[NextHop, Entry, bool]],
        defaults: Defaults,
        options: DeliveryOptions,
    ) -> tuple[HopStory, ...]:
        """The notes as a story.

        :param route: next-hops in order, with the entry that holds for each and whether the configuration names it.
        :param fallback: likewise the fallback relays behind them.
        """
        stories: list[HopStory] = []
        for position, (next_hop, entry, configured) in enumerate((*route, *fallback)):
            noted = self._hops[position] if position < len(self._hops) else None
            stories.append(
                HopStory(
                    next_hop=next_hop,
                    entry=entry,
                    rule=rule_of(entry, defaults),
                    level=_level(entry, defaults),
                    configured=configured,
                    found=NotReached("mail would have bounced by now") if noted is None else noted.found,
                    hosts=() if noted is None else tuple(_hosts(noted, options)),
                    fallback=position >= len(route),
                )
            )
        return tuple(stories)

    def lookups_only(self) -> bool:
        """Whether all that stands in the way is look-ups that failed, this time."""
        causes: list[bool] = []
        for hop in self._hops:
            if isinstance(hop.found, LookupTrouble):
                causes.append(hop.found.status.klass == 4)
            for host in hop.hosts:
                if isinstance(host.addresses, LookupTrouble):
                    causes.append(host.addresses.status.klass == 4)
                causes += [tried.lookup_failed for tried in host.made]
        return bool(causes) and all(causes)


def _level(entry: Entry, defaults: Defaults) -> str:
    match entry:
        case MapEntry():
            return entry.level.word
        case MalformedEntry():
            return "malformed"
        case NoEntry():
            return defaults.level.word
        case _:
            assert_never(entry)


def _hosts(hop: _Hop, options: DeliveryOptions) -> list[HostStory]:
    if isinstance(hop.found, LookupTrouble):
        return []
    end = NotReached(_what_ended(hop, options))
    stories: list[HostStory] = []
    for position, host in enumerate(hop.found.hosts):
        if position >= len(hop.hosts):
            stories.append(HostStory(host, end))
            continue
        noted = hop.hosts[position]
        if isinstance(noted.addresses, LookupTrouble):
            stories.append(HostStory(host, noted.addresses))
            continue
        addresses = tuple(
            AddressStory(address, noted.made[number] if number < len(noted.made) else end)
            for number, address in enumerate(noted.addresses)
        )
        stories.append(HostStory(host, addresses))
    return stories


def _what_ended(hop: _Hop, options: DeliveryOptions) -> str:
    """Why the walk over the hosts did not get to the end."""
    if hop.tried == options.mx_address_limit:
        return f"smtp.mx_address_limit = {options.mx_address_limit} ends the attempt before"
    return "mail would have bounced by now"
