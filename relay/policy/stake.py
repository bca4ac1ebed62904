"""What credentials change about a policy: they leave only over a session in which the host proved who it is. Pure.

The laws:

* A host that we would log in at must satisfy fingerprint, dane, dane-only, verify or secure. Where no map line says which,
  it is DANE if its TLSA records are usable, else secure with the host's own name.
* A map line that asks for less is the administrator's word about TLS and not about passwords: nothing is sent under it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from relay.mail.names import Domain
from relay.mail.reply import EnhancedStatus
from relay.policy.level import Level
from relay.policy.policy import (
    Defaults,
    Entry,
    HostFacts,
    LiteralName,
    MalformedEntry,
    MapEntry,
    NoEntry,
    Rule,
    TlsPolicy,
    Withheld,
    rule_of,
)
from relay.sasl.credentials import AtStake, BadCredentials, Owner, Stake

WITHHELD = "SASL credentials withheld"
_STATUS = EnhancedStatus(4, 7, 5)
_CONFIGURATION = EnhancedStatus(4, 3, 5)
_ENOUGH_BY_DEFAULT = (Level.DANE_ONLY, Level.SECURE)


def entry_in_force(entry: Entry, defaults: Defaults, credentials: Stake) -> MapEntry | MalformedEntry:
    """The map entry, or what stands for it where there is none: the defaults, or the demand that credentials make."""
    rule = rule_of(entry, defaults)
    if not isinstance(entry, NoEntry):
        return replace(entry, rule=rule, since="") if entry.since else entry
    if isinstance(credentials, AtStake) and defaults.level not in _ENOUGH_BY_DEFAULT:
        return MapEntry(level=Level.DANE, rule=Rule(credentials.place, "credentials"))
    return _bare(defaults.level, rule)


@lru_cache(maxsize=64)
def _bare(level: Level, rule: Rule) -> MapEntry:
    """A line that says nothing but a level; each delivery asks for it several times."""
    return MapEntry(level=level, rule=rule)


def proves_enough(level: Level, credentials: AtStake) -> bool:
    """Whether a host that satisfied a level may see credentials.

    Half-DANE proves the host and not that it is the next-hop's: enough for credentials of that host.
    """
    return level.requires_match and (level is not Level.HALFDANE or credentials.owner is Owner.HOST)


def withholds(entry: MapEntry, credentials: AtStake) -> bool:
    """Whether credentials never leave under a map line, whatever the host shows."""
    return entry.level is not Level.DANE and not proves_enough(entry.level, credentials)


def own_names(host: HostFacts, credentials: AtStake) -> tuple[LiteralName, ...]:
    """Names of whom the credentials are meant for: of their key, or of what is known by DNSSEC to belong to it.

    Empty where there is none: an address proves nothing.
    """
    names: list[LiteralName] = []
    next_hop = host.next_hop
    if credentials.owner is not Owner.HOST and next_hop.use_mx and isinstance(next_hop.host, Domain):
        names += [LiteralName(next_hop.host), LiteralName(next_hop.host, below=True)]
        if not (host.validating and host.had_mx and host.mx_secure):
            return tuple(names)
    if isinstance(host.host, Domain):
        names.append(LiteralName(host.host))
    return tuple(dict.fromkeys(names))


def withheld(policy: TlsPolicy) -> Withheld:
    """No session: a line asks for less than credentials demand."""
    return Withheld(
        status=_STATUS,
        text=WITHHELD,
        expected="a level at which the host proves who it is (fingerprint, dane, dane-only, verify or secure)",
        found=f"level {policy.level.word}",
        rule=policy.rule,
        asked=policy.asked,
        why=policy.why,
    )


def nameless(entry: MapEntry, credentials: AtStake) -> Withheld:
    """No session: there is nothing that a certificate could be asked for."""
    return Withheld(
        status=_STATUS,
        text=WITHHELD,
        expected="a host name, or a policy map line at level fingerprint",
        found="an address literal",
        rule=Rule(credentials.place, "credentials"),
        asked=entry.level,
    )


def misunderstood(bad: BadCredentials, asked: Level) -> Withheld:
    """No session: nobody knows who we are to say we are."""
    return Withheld(
        status=_CONFIGURATION,
        text="SASL configuration problem",
        expected=bad.expected,
        found=bad.found,
        rule=Rule(bad.place, "credentials"),
        asked=asked,
        warning=f"{bad.place}: expected {bad.expected}; found {bad.found}",
    )
