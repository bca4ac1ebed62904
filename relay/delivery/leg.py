"""One next-hop in its turn: what holds there, and what was found out about it on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from relay.delivery.delivery import Delivery, Policies
from relay.mail.names import NextHop
from relay.policy.decide import asks_for_dane, decide, needs_tlsa
from relay.policy.inherit import Bond, Demand, decide_for_fallback, demand_of
from relay.policy.policy import Decision, Defaults, Entry, HostFacts, MapEntry, NoEntry, PolicyFacts


@dataclass(slots=True, kw_only=True)
class Leg:
    """A next-hop in its turn.

    :param configured: the option that names the next-hop where its absence is our own fault, as Postfix calls it.
    :param fallback: whether it stands in for the destination after that failed.
    :param bonds: what holds there besides its own entry: of the destinations that it stands in for.
    """

    next_hop: NextHop
    entry: Entry
    defaults: Defaults
    configured: str = ""
    fallback: bool = False
    bonds: tuple[Bond, ...] = ()
    _demand: Demand = field(default=Demand.NOTHING, init=False)

    @property
    def asks_for_dane(self) -> bool:
        """Whether DANE is asked for there, so that what the DNS says must have been validated."""
        return any(asks_for_dane(entry, self.defaults) for entry in self._entries())

    @property
    def degrades(self) -> bool:
        """Whether an answer that was not validated is good enough here (``dns.on_no_validation = "degrade"``)."""
        only_default = all(isinstance(entry, NoEntry) for entry in self._entries())
        return self.defaults.degrade_without_validation and only_default

    @property
    def bond(self) -> Bond:
        """What a fallback relay that takes over from here is bound by."""
        return Bond(self.next_hop.key, self.entry, self._demand)

    def needs_tlsa(self, host: HostFacts) -> bool:
        """Whether the decision on a host depends on its TLSA records."""
        return any(needs_tlsa(entry, host, self.defaults) for entry in self._entries())

    def decide(self, host: HostFacts) -> Decision:
        """Decide for a host of this next-hop, and remember what it came to."""
        facts = PolicyFacts(entry=self.entry, host=host, defaults=self.defaults)
        decision = decide_for_fallback(facts, self.bonds) if self.bonds else decide(facts)
        self._demand = max(self._demand, demand_of(decision))
        return decision

    def not_found(self) -> None:
        """A look-up failed for now: what a host would have had to show nobody knows."""
        self._demand = Demand.PROOF

    def _entries(self) -> Iterator[Entry]:
        yield self.entry
        yield from (bond.entry for bond in self.bonds)


def legs(delivery: Delivery, policies: Policies) -> Iterator[Leg]:
    """The next-hops of a delivery in order, each made when its turn comes: a fallback relay inherits what was found."""
    passed: list[Leg] = []
    for next_hop in delivery.route:
        configured = "relayhost" if delivery.configured else ""
        passed.append(_leg(next_hop, policies, configured=configured))
        yield passed[-1]
    for next_hop in delivery.fallback if passed else ():
        leg = _leg(next_hop, policies, configured="smtp_fallback_relay")
        leg.fallback = True
        if not (isinstance(leg.entry, MapEntry) and leg.entry.rule.place in policies.written_for_fallback):
            leg.bonds = tuple(each.bond for each in passed)
        yield leg


def _leg(next_hop: NextHop, policies: Policies, *, configured: str) -> Leg:
    return Leg(next_hop=next_hop, entry=policies.lookup(next_hop), defaults=policies.defaults, configured=configured)
