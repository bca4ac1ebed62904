"""One next-hop in its turn: what holds there, and what was found out about it on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from relay.delivery.delivery import Delivery, Policies
from relay.delivery.remembered import Remembered
from relay.mail.envelope import NULL_SENDER, Sender
from relay.mail.names import Domain, IpLiteral, NextHop
from relay.policy.decide import asks_for_dane, decide, needs_tlsa
from relay.policy.inherit import Bond, Demand, decide_for_fallback, demand_of
from relay.policy.policy import NO_CREDENTIALS, Decision, Defaults, Entry, HostFacts, MapEntry, NoEntry, PolicyFacts
from relay.policy.ratchet import UNSEEN, Best, Mark, Ratchet, held_at, is_below, raised
from relay.sasl.credentials import Credentials, NoCredentials, Standing, stake_of
from relay.sasl.passwords import NO_TABLES, CredentialTables

_DECIDED: Final = Remembered[tuple[str, Domain | IpLiteral], PolicyFacts, Decision]()


def _decided(facts: PolicyFacts) -> Decision:
    """What ``decide`` gives; the same object for equal facts while it is remembered."""
    key = facts.host.next_hop.key, facts.host.host
    return _DECIDED.get(key, facts) or _DECIDED.keep(key, facts, decide(facts))


@dataclass(slots=True, kw_only=True)
class Leg:
    """A next-hop in its turn.

    :param configured: the option that names the next-hop where its absence is our own fault, as Postfix calls it.
    :param fallback: whether it stands in for the destination after that failed.
    :param sender: of the message, where the sender may choose who we log in as; else the null sender.
    :param best: that was seen there, and whether nothing below it will do (``smtp.tls_ratchet``).
    :param edition: of the rules that it is made from.
    :param bonds: what holds there besides its own entry: of the destinations that it stands in for.
    :param login: who we log in as at the host that was decided on last.
    """

    next_hop: NextHop
    entry: Entry
    defaults: Defaults
    configured: str = ""
    fallback: bool = False
    sender: Sender = NULL_SENDER
    credentials: CredentialTables = NO_TABLES
    bonds: tuple[Bond, ...] = ()
    login: Credentials | NoCredentials = field(default=NO_CREDENTIALS, init=False)
    best: Best = UNSEEN
    enforces_best: bool = False
    edition: object = None
    _demand: Demand = field(default=Demand.NOTHING, init=False)

    @property
    def asks_for_dane(self) -> bool:
        """Whether DANE is asked for there, so that what the DNS says must have been validated."""
        return any(asks_for_dane(entry, self.defaults) for entry in self._entries())

    @property
    def needs_validation(self) -> bool:
        """Whether to find out if the resolver validates: DANE is asked for, or would do for a host that we log in at."""
        return self.asks_for_dane or (isinstance(self.entry, NoEntry) and bool(self.credentials.tables))

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
        if needs_tlsa(self.entry, host, self.defaults, stake_of(self.standing(host.host))):
            return True
        return any(needs_tlsa(bond.entry, host, self.defaults) for bond in self.bonds)

    def standing(self, host: Domain | IpLiteral) -> Standing:
        """Who we log in as at a host of this next-hop."""
        return self.credentials.lookup(self.sender, self.next_hop, host)

    def decide(self, host: HostFacts) -> Decision:
        """Decide for a host of this next-hop, and remember what it came to."""
        standing = self.standing(host.host)
        self.login = standing if isinstance(standing, Credentials) else NO_CREDENTIALS
        stake = stake_of(standing)
        facts = PolicyFacts(entry=self.entry, host=host, defaults=self.defaults, credentials=stake)
        decision = decide_for_fallback(facts, self.bonds) if self.bonds else _decided(facts)
        held = held_at(self.entry, self.defaults, self.best) if self.enforces_best else Mark.NOTHING
        if is_below(decision, held):
            decision = decide(replace(facts, entry=raised(self.entry, self.defaults, held, self.best)))
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
        passed.append(_leg(next_hop, delivery, policies, configured=configured))
        yield passed[-1]
    for next_hop in delivery.fallback if passed else ():
        leg = _leg(next_hop, delivery, policies, configured="smtp_fallback_relay")
        leg.fallback = True
        if not (isinstance(leg.entry, MapEntry) and leg.entry.rule.place in policies.written_for_fallback):
            leg.bonds = tuple(each.bond for each in passed)
        yield leg


def _leg(next_hop: NextHop, delivery: Delivery, policies: Policies, *, configured: str) -> Leg:
    # Credentials by sender name no host: they are for hosts that the administrator sends mail to, and would be anybody's
    # if the domain of a recipient could ask for them.
    by_recipient = bool(policies.credentials.tables) and any(
        str(each.address.domain).lower() == next_hop.key for each in delivery.recipients
    )
    return Leg(
        next_hop=next_hop,
        entry=policies.lookup(next_hop),
        defaults=policies.defaults,
        configured=configured,
        sender=NULL_SENDER if by_recipient else delivery.message.envelope.sender,
        credentials=policies.credentials,
        best=policies.best(next_hop.key),
        enforces_best=policies.ratchet is Ratchet.ENFORCE,
        edition=policies.edition,
    )
