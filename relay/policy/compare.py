"""What two entries are worth against each other, by what ``decide`` makes of them in every DNS situation. Pure.

Levels have no one order: ``dane`` is stronger than ``encrypt`` where a destination has TLSA records and weaker where it
has none. So entries are compared by the decisions that come of them, situation by situation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from typing import assert_never

from relay.dane.tlsa import (
    Absent,
    MatchingType,
    NotLookedUp,
    Selector,
    Tlsa,
    TlsaLookup,
    Unusable,
    UnusableTlsa,
    Usable,
    Usage,
)
from relay.mail.names import BadName, Domain, IpLiteral, NextHop
from relay.policy.decide import decide
from relay.policy.level import Level
from relay.policy.notation import split_list
from relay.policy.parameters import TlsVersion, enabled_versions
from relay.policy.policy import (
    Decision,
    Defaults,
    Entry,
    HostFacts,
    LiteralName,
    MalformedEntry,
    MapEntry,
    MatchName,
    NoEntry,
    PolicyFacts,
    Rule,
    TlsPolicy,
    Withheld,
)

_NOWHERE = Rule("")
_OTHER_NAME = LiteralName(Domain("other.invalid"))
_MX_HOST = Domain("mx-host.invalid")  # stands for whatever host the MX records name (RFC 2606 section 2)
_RECORD = Tlsa(Usage.DANE_EE, Selector.SPKI, MatchingType.SHA2_256, bytes(32))
_USABLE = Usable(_MX_HOST, (_RECORD,))
_UNUSABLE = Unusable(_MX_HOST, (UnusableTlsa(b"", "unsupported TLSA certificate usage"),))
_VERSIONS = {
    TlsVersion.TLS1: "TLSv1",
    TlsVersion.TLS1_1: "TLSv1.1",
    TlsVersion.TLS1_2: "TLSv1.2",
    TlsVersion.TLS1_3: "TLSv1.3",
}
_GRADES = {"null": 0, "export": 1, "low": 1, "medium": 1, "high": 2}  # export and low are medium today
_MAX_SAMPLES = 100


class Guarantee(IntEnum):
    """What is certain of every message that leaves under a decision, least first."""

    NOTHING = 0
    TRIED = 1
    """TLS if the host has it."""
    ENCRYPTED = 2
    HOST_PROVED = 3
    """The peer is the host that MX records without DNSSEC named."""
    PROVED = 4
    """The peer is whom the administrator or DNSSEC named; or no message leaves."""


@dataclass(frozen=True, slots=True)
class _Situation:
    words: str
    mx_secure: bool
    tlsa: TlsaLookup


_SITUATIONS = (
    _Situation("where the destination has usable TLSA records", True, _USABLE),
    _Situation("where none of its TLSA records is usable", True, _UNUSABLE),
    _Situation("where it has no TLSA records", True, Absent("no TLSA records")),
    _Situation("where TLSA records stand behind insecure MX records", False, _USABLE),
    _Situation("where nothing is DNSSEC secure", False, NotLookedUp("insecure")),
)


def lesser_guarantees(before: Entry, after: Entry, next_hop: NextHop, defaults: Defaults) -> tuple[str, ...]:
    """Where ``after`` guarantees less than ``before``; empty if nowhere.

    :param next_hop: what both apply to.
    :returns: one text for each pair of levels, such as ``may instead of dane where ...``.
    """
    return _lesser(_essence(before), _essence(after), _essence_of_hop(next_hop), defaults)


@lru_cache(maxsize=4096)
def _lesser(before: Entry, after: Entry, next_hop: NextHop, defaults: Defaults) -> tuple[str, ...]:
    lesser: dict[tuple[str, str], list[str]] = {}
    for situation, old, new in _decisions(before, after, next_hop, defaults):
        if _guarantee(new, situation) < _guarantee(old, situation):
            lesser.setdefault((_word(new), _word(old)), []).append(situation.words)
    everywhere = len(_situations(next_hop))
    return tuple(
        f"{new} instead of {old}" + ("" if len(where) == everywhere else f" {' and '.join(where)}")
        for (new, old), where in lesser.items()
    )


def _essence(entry: Entry) -> Entry:
    """What a guarantee depends on, the same for all entries of a kind: large maps have many entries and few kinds."""
    match entry:
        case NoEntry():
            return NoEntry()
        case MalformedEntry():
            return MalformedEntry(key="", rule=_NOWHERE, warning="")
        case MapEntry():
            literal = (_OTHER_NAME,) if any(isinstance(rule, LiteralName) for rule in entry.match) else ()
            return MapEntry(
                level=entry.level,
                rule=_NOWHERE,
                match=(*(rule for rule in entry.match if isinstance(rule, MatchName)), *literal),
                fingerprints=entry.fingerprints and ("",),
                policy_failure=entry.policy_failure,
            )
        case _:
            assert_never(entry)


def _essence_of_hop(next_hop: NextHop) -> NextHop:
    if isinstance(next_hop.host, IpLiteral):
        return next_hop
    return replace(next_hop, key=str(_OTHER_NAME), host=_OTHER_NAME.domain, port=25)


def wider(before: Entry, after: Entry, next_hop: NextHop, defaults: Defaults) -> tuple[str, ...]:
    """What ``after`` accepts, at the same level, in addition to all that ``before`` accepts; empty if nothing."""
    found = dict.fromkeys(_wider_patterns(before, after))
    for _, old, new in _decisions(before, after, next_hop, defaults):
        if isinstance(old, TlsPolicy) and isinstance(new, TlsPolicy) and new.level.uses_tls:
            if old.level is new.level or (old.level.is_pkix and new.level.is_pkix):
                found |= dict.fromkeys(_wider_proof(old, new))
            if old.level is new.level:
                found |= dict.fromkeys(_wider_session(old, new))
    return tuple(found)


def names_accepted(entry: Entry, next_hop: NextHop, defaults: Defaults) -> tuple[LiteralName, ...]:
    """The names of which a certificate must carry one under an entry; empty where none is asked for."""
    decision = decide(_facts(entry, next_hop, defaults, _SITUATIONS[0]))
    return decision.names if isinstance(decision, TlsPolicy) else ()


def versions_allowed(protocols: str) -> tuple[str, ...]:
    """The versions of TLS that a protocol list leaves, lowest first, as Postfix calls them."""
    return tuple(_VERSIONS[version] for version in enabled_versions(protocols))


def sample_next_hop(key: str, taken: frozenset[str] = frozenset()) -> NextHop:
    """A next-hop that finds a key: for ``.example.com`` some domain below it that has no entry of its own.

    :param taken: the keys of all tables.
    :raises BadName: if there is no such next-hop.
    """
    if not key.startswith("."):
        return NextHop.parse(key, default_port=25)
    for number in range(_MAX_SAMPLES):
        name = f"any{number or ''}{key}"
        if name not in taken:
            return NextHop.parse(name, default_port=25)
    raise BadName(f"no domain below {key[1:]} without an entry of its own")


def _decisions(
    before: Entry, after: Entry, next_hop: NextHop, defaults: Defaults
) -> Iterator[tuple[_Situation, Decision, Decision]]:
    # Which hosts a policy names has its own comparison: here the host is one of them.
    before, after = (replace(one, mx_patterns=()) if isinstance(one, MapEntry) else one for one in (before, after))
    # Both sides are to be weighed as they stand, not as they fare on the day that a resolver fails.
    defaults = replace(defaults, degrade_without_validation=False)
    for situation in _situations(next_hop):
        yield (
            situation,
            decide(_facts(before, next_hop, defaults, situation)),
            decide(_facts(after, next_hop, defaults, situation)),
        )


def _situations(next_hop: NextHop) -> tuple[_Situation, ...]:
    """Those that can come about: where no MX records are looked up, none can be insecure; a literal has no DNS at all."""
    if next_hop.use_mx:
        return _SITUATIONS
    if isinstance(next_hop.host, Domain):
        return tuple(each for each in _SITUATIONS if each.mx_secure)
    return (_Situation("where nothing is DNSSEC secure", True, NotLookedUp("an address literal")),)


def _facts(entry: Entry, next_hop: NextHop, defaults: Defaults, situation: _Situation) -> PolicyFacts:
    host = HostFacts(
        next_hop=next_hop,
        host=_MX_HOST if next_hop.use_mx else next_hop.host,
        had_mx=next_hop.use_mx,
        mx_secure=situation.mx_secure,
        tlsa=situation.tlsa,
    )
    return PolicyFacts(entry=entry, host=host, defaults=defaults)


def _guarantee(decision: Decision, situation: _Situation) -> Guarantee:
    if isinstance(decision, Withheld):
        return Guarantee.PROVED
    level = decision.level
    if not level.uses_tls:
        return Guarantee.NOTHING
    if not level.requires_tls:
        return Guarantee.TRIED
    if not level.requires_match:
        return Guarantee.ENCRYPTED
    named_by_dns = level.is_pkix and LiteralName(_MX_HOST) in decision.names
    if level is Level.HALFDANE or (named_by_dns and not situation.mx_secure):
        return Guarantee.HOST_PROVED
    return Guarantee.PROVED


def _word(decision: Decision) -> str:
    return "no delivery" if isinstance(decision, Withheld) else decision.level.word


def _wider_patterns(before: Entry, after: Entry) -> Iterator[str]:
    if isinstance(before, MapEntry) and isinstance(after, MapEntry) and before.mx_patterns:
        added = [pattern for pattern in after.mx_patterns if pattern not in before.mx_patterns]
        if not after.mx_patterns:
            yield f"accepts MX hosts that do not fit {', '.join(before.mx_patterns)}"
        elif added:
            yield f"accepts MX hosts that fit {', '.join(added)}"


def _wider_proof(old: TlsPolicy, new: TlsPolicy) -> Iterator[str]:
    added = [name for name in new.names if not _covered(name, old.names)]
    if added and new.level.is_pkix and all(_covered(name, new.names) for name in old.names):
        yield f"accepts more names: {', '.join(map(_shown_name, added))}"
    if set(new.fingerprints) > set(old.fingerprints):
        yield f"accepts more fingerprints: {', '.join(one for one in new.fingerprints if one not in old.fingerprints)}"
    if old.tafiles and not new.tafiles:
        yield f"accepts every authority of the CA store, not only {', '.join(old.tafiles)}"
    elif old.tafiles and set(new.tafiles) > set(old.tafiles):
        added_files = (name for name in new.tafiles if name not in old.tafiles)
        yield f"accepts more trust anchors: {', '.join(added_files)}"


def _wider_session(old: TlsPolicy, new: TlsPolicy) -> Iterator[str]:
    lower = [each for each in versions_allowed(new.protocols) if each < versions_allowed(old.protocols)[0]]
    if lower:
        yield f"allows {', '.join(lower)}"
    if _GRADES[new.ciphers] < _GRADES[old.ciphers]:
        yield f"ciphers {new.ciphers} instead of {old.ciphers}"
    allowed = [term for term in split_list(old.exclude or "") if term not in split_list(new.exclude or "")]
    if allowed:
        yield f"no longer excludes {', '.join(allowed)}"


def _covered(name: LiteralName, by: tuple[LiteralName, ...]) -> bool:
    """Whether every certificate that carries ``name`` carries one of the others."""
    return name in by or any(other.below and name.domain.is_below(str(other.domain)) for other in by)


def _shown_name(name: LiteralName) -> str:
    return "the MX host's" if name == LiteralName(_MX_HOST) else str(name)
