"""What a destination's policy asks of the fallback relay that takes its mail over. Pure.

A fallback relay is named by the administrator and stands in for the hosts of a destination that failed. Postfix goes by
the relay's own policy alone, so whoever can make a destination fail can have its mail sent under a weaker one. Here the
destination's policy binds on, and the relay's own beside it:

* ``none``, ``may``, ``encrypt``, ``dane-only``: the same level, at the relay.
* ``verify``, ``secure``: what the entry says relative to the next-hop (``nexthop``, ``dot-nexthop``, ``hostname``) is
  relative to the relay now, whom the administrator named as he named the destination. Names written out, fingerprints
  and trust anchors stand for the peer that they name and for no other: a relay that does not show them gets no mail.
* ``dane``: the relay's own TLSA records. Where it has none, what counts is what ``dane`` came to at the destination: if
  one of its hosts had to prove itself, or nobody could find that out, the relay must prove itself too, by a trusted
  certificate with the name that the administrator wrote.

Only a line written for the relay itself says otherwise, and ``policy lint`` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import assert_never

from relay.policy.decide import decide
from relay.policy.level import Level
from relay.policy.policy import (
    NO_CREDENTIALS,
    Decision,
    Defaults,
    Entry,
    LiteralName,
    MalformedEntry,
    MapEntry,
    MatchName,
    NoEntry,
    PolicyFacts,
    Rule,
    TlsPolicy,
    Withheld,
    rule_of,
)
from relay.policy.stake import withheld
from relay.sasl.credentials import AtStake


class Demand(IntEnum):
    """What a host of the destination had to show, least first."""

    NOTHING = 0
    ENCRYPTION = 1
    PROOF = 2
    """Who it is; also where nobody could find out what it would have had to show."""


@dataclass(frozen=True, slots=True)
class Bond:
    """What holds for a destination, and what it came to there.

    :param key: the destination, for reasons.
    """

    key: str
    entry: Entry
    demand: Demand


def demand_of(decision: Decision) -> Demand:
    """What a decision asks of its host; a host that may not be used at all might have had to prove itself."""
    match decision:
        case Withheld():
            return Demand.PROOF
        case TlsPolicy(level=level):
            if level.requires_match:
                return Demand.PROOF
            return Demand.ENCRYPTION if level.requires_tls else Demand.NOTHING
        case _:
            assert_never(decision)


def decide_for_fallback(facts: PolicyFacts, bonds: Sequence[Bond]) -> Decision:
    """Decide for a host of a fallback relay.

    :param facts: of that host; the entry is the relay's own, where no line was written for the relay itself.
    :param bonds: of the next-hops that it stands in for.
    :returns: the strongest of the relay's own policy and those of the bonds; ``Withheld`` if one of them is.
    """
    strongest = decide(facts)
    if isinstance(strongest, Withheld):
        return strongest
    for bond in bonds:
        bound = _bound(facts, bond)
        if isinstance(bound, Withheld):
            return bound
        if isinstance(facts.credentials, AtStake) and _names_a_peer(bond.entry):
            found = f"a line for {bond.key} that names its own peer; write a line for the relay"
            return replace(withheld(bound), found=found)
        strongest = _stronger(bound, strongest, bond)
    return strongest


def _names_a_peer(entry: Entry) -> bool:
    """Whether what satisfies an entry may be somebody else than the relay that our credentials are for."""
    if not isinstance(entry, MapEntry):
        return False
    return bool(entry.fingerprints or entry.tafiles) or any(isinstance(rule, LiteralName) for rule in entry.match)


def _bound(facts: PolicyFacts, bond: Bond) -> Decision:
    entry = _named(bond, facts.defaults)
    # What the relay must show for our credentials its own policy knows; the destination has nothing to do with them.
    facts = replace(facts, credentials=NO_CREDENTIALS)
    decision = decide(replace(facts, entry=entry))
    if isinstance(entry, MalformedEntry) or _level(entry, facts.defaults) is not Level.DANE:
        return decision
    if isinstance(decision, TlsPolicy) and decision.level is not Level.DANE:
        # TLSA records do not prove the relay: it has to show otherwise what the destination had to show.
        if bond.demand is Demand.PROOF:
            return decide(replace(facts, entry=_instead(entry, Level.SECURE, facts.defaults)))
        if bond.demand is Demand.ENCRYPTION and not decision.level.requires_tls:
            return decide(replace(facts, entry=_instead(entry, Level.ENCRYPT, facts.defaults)))
    return decision


def _instead(entry: MapEntry | NoEntry, level: Level, defaults: Defaults) -> MapEntry:
    """What stands in for ``dane`` at a relay without TLSA records."""
    if isinstance(entry, NoEntry):
        return MapEntry(level=level, rule=rule_of(entry, defaults), match=(MatchName.NEXTHOP,))
    return replace(entry, level=level, match=(MatchName.NEXTHOP,))


def _level(entry: MapEntry | NoEntry, defaults: Defaults) -> Level:
    return entry.level if isinstance(entry, MapEntry) else defaults.level


def _named(bond: Bond, defaults: Defaults) -> Entry:
    """The bond's entry, its rule with the destination that it was looked up for."""
    entry = bond.entry
    if isinstance(entry, NoEntry):
        return entry
    rule = Rule(f"{entry.rule.place} for {bond.key}", entry.rule.text)
    return replace(entry, rule=rule)


def _stronger(bound: TlsPolicy, own: TlsPolicy, bond: Bond) -> TlsPolicy:
    """The policy that asks for more; where both ask for as much, the destination's: that is the mail's.

    What the destination's line says of protocols and ciphers holds in either case.
    """
    if _rank(bound) >= _rank(own):
        return replace(bound, why=(*bound.why, f"the policy of {bond.key} holds at the fallback relay too"))
    if not isinstance(bond.entry, MapEntry):
        return own
    said = bond.entry.parameters
    return replace(
        own,
        protocols=bound.protocols if said.protocols else own.protocols,
        ciphers=bound.ciphers if said.ciphers else own.ciphers,
        exclude=own.exclude if said.exclude is None else bound.exclude,
    )


def _rank(policy: TlsPolicy) -> int:
    if policy.level.requires_match:
        # halfdane and verify prove a host that insecure MX records may have named
        return 4 if policy.level in (Level.HALFDANE, Level.VERIFY) else 5
    return 2 if policy.level.requires_tls else int(policy.level.uses_tls)
