"""``decide``: facts about one host in, the TLS policy for it (or why no session may be had) out. Pure.

Two laws:

* Doubt defers. A malformed entry, a failed or bogus look-up, an unknown state never selects a weaker level
  (postfix smtp_tls_policy.c; RFC 7672 section 2.1.2).
* The levels of a map are the administrator's word: DNS facts move only ``dane`` (to halfdane, encrypt or may, as
  RFC 7672 section 2.2 says) and nothing else. Credentials move it up again (``relay.policy.stake``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from relay.dane.names import reference_names
from relay.dane.tlsa import Absent, Failed, NotLookedUp, Unusable, Usable
from relay.mail.names import Domain
from relay.mail.reply import EnhancedStatus
from relay.policy.level import Level
from relay.policy.policy import (
    NO_CREDENTIALS,
    NO_END,
    Decision,
    Defaults,
    Entry,
    HostFacts,
    InsecureMxPolicy,
    LiteralName,
    MalformedEntry,
    MapEntry,
    MatchName,
    MatchRule,
    NoEntry,
    PolicyFacts,
    Rule,
    TlsParameters,
    TlsPolicy,
    Withheld,
)
from relay.policy.stake import entry_in_force, misunderstood, nameless, own_names, proves_enough, withheld
from relay.sasl.credentials import AtStake, BadCredentials, NoCredentials, Stake

TLS_POLICY_FAILURE = EnhancedStatus(4, 7, 5)
_NO_HOST = EnhancedStatus(4, 3, 0)


def decide(facts: PolicyFacts) -> Decision:
    """Decide which TLS policy a session with one host must satisfy.

    :returns: the policy, or ``Withheld`` when the host may not be used now; never a weaker policy for want of facts.
    """
    match entry_in_force(facts.entry, facts.defaults, facts.credentials):
        case MalformedEntry() as bad:
            return Withheld(
                status=TLS_POLICY_FAILURE,
                text="client TLS configuration problem",
                expected="a valid policy entry",
                found=bad.warning,
                rule=bad.rule,
                asked=Level.SECURE,
                warning=f'smtp_tls_policy_maps, next-hop destination "{bad.key}": {bad.warning}',
            )
        case MapEntry() as entry:
            return _decide_for_login(entry, facts)
        case unknown:
            assert_never(unknown)


def _decide_for_login(entry: MapEntry, facts: PolicyFacts) -> Decision:
    """What credentials make of the decision."""
    match facts.credentials:
        case NoCredentials():
            return _decide(entry, facts)
        case BadCredentials() as bad:
            return misunderstood(bad, entry.level)
        case AtStake() as stake:
            return _decide_at_stake(entry, facts, stake)
        case _:
            assert_never(facts.credentials)


def _decide_at_stake(entry: MapEntry, facts: PolicyFacts, stake: AtStake) -> Decision:
    why = f"{stake.place} has credentials for this {stake.owner.value}"
    if not facts.host.validating and isinstance(facts.entry, NoEntry) and entry.level is Level.DANE:
        # Nobody asked for DANE; without a resolver that validates, the host's own certificate is proof enough.
        return _secure(entry, facts, stake, why=(why, facts.host.not_validating_why))
    decision = _decide(entry, facts)
    if isinstance(decision, Withheld):
        return replace(decision, why=(why, *decision.why))
    if proves_enough(decision.level, stake):
        return replace(decision, sni=_sni_for_login(decision, facts.host), why=(why, *decision.why))
    if entry.level is Level.DANE:
        return _secure(entry, facts, stake, why=(why, *decision.why))
    return withheld(replace(decision, why=(why, *decision.why)))


def _secure(entry: MapEntry, facts: PolicyFacts, stake: AtStake, *, why: tuple[str, ...]) -> Decision:
    """In the place of an opportunistic level: the host shows a certificate for a name that the credentials are meant for."""
    names = own_names(facts.host, stake)
    if not names:
        return nameless(entry, stake)
    why = (*why, "so it must show a certificate for its own name")
    policy = _policy(entry, facts, Level.SECURE, names=names, why=why)
    return replace(policy, sni=_sni_for_login(policy, facts.host))


def _sni_for_login(policy: TlsPolicy, host: HostFacts) -> str:
    """Hosts of many names show the right certificate only to those who say which; big mail services insist."""
    return policy.sni or (str(host.host) if policy.level.is_pkix and isinstance(host.host, Domain) else "")


def needs_tlsa(
    entry: Entry,
    host: HostFacts,
    defaults: Defaults,
    credentials: Stake = NO_CREDENTIALS,
) -> bool:
    """Whether the decision on ``host`` depends on its TLSA records, so that they must be looked up first."""
    level = _level_asked_for(entry, defaults, credentials)
    if level is None or not level.asks_for_dane or not isinstance(host.host, Domain):
        return False
    # An insecure MX set under "may" (or dane-only, which then fails anyway) makes the records worthless.
    return host.mx_secure or (level is Level.DANE and defaults.insecure_mx is not InsecureMxPolicy.MAY)


def asks_for_dane(entry: Entry, defaults: Defaults, credentials: Stake = NO_CREDENTIALS) -> bool:
    """Whether DANE is asked for, so that what the DNS says of a destination must have been validated."""
    level = _level_asked_for(entry, defaults, credentials)
    return level is not None and level.asks_for_dane


def _level_asked_for(entry: Entry, defaults: Defaults, credentials: Stake) -> Level | None:
    in_force = entry_in_force(entry, defaults, credentials)
    return in_force.level if isinstance(in_force, MapEntry) else None


def _decide(entry: MapEntry, facts: PolicyFacts) -> Decision:
    source = f"{entry.rule.place} asks for {entry.level.word}{'' if entry.until == NO_END else f' until {entry.until}'}"
    if entry.policy_failure and entry.level.requires_match:
        return _withheld(
            entry,
            "Server certificate not verified",
            "a policy under which a certificate can be accepted",
            f"external policy failure ({entry.policy_failure})",
        )
    match entry.level:
        case Level.NONE | Level.MAY | Level.ENCRYPT:
            return _policy(entry, facts, entry.level, why=(source,))
        case Level.FINGERPRINT:
            if not entry.fingerprints:
                return _misconfigured(entry, "at least one fingerprint to match", "none configured")
            return _policy(entry, facts, entry.level, why=(source,))
        case Level.VERIFY | Level.SECURE if entry.mx_patterns and entry.match:
            return _decide_sts(entry, facts, source)
        case Level.VERIFY | Level.SECURE:
            names = _expand(entry.match or _default_match(entry.level, facts.defaults), facts.host)
            if not names:
                return _misconfigured(entry, "a name to match", "no match rule gives one for this destination")
            return _policy(entry, facts, entry.level, names=names, why=(source,))
        case Level.DANE | Level.DANE_ONLY:
            return _decide_dane(entry, facts, source)
        case Level.HALFDANE:
            raise AssertionError("halfdane is a result and cannot be asked for")
        case _:
            assert_never(entry.level)


def _decide_sts(entry: MapEntry, facts: PolicyFacts, source: str) -> Decision:
    """An MTA-STS policy in a line: the host must be one of the policy's and prove its own name.

    RFC 8461 section 4.1; postfix smtp_tls_policy.c, smtp_tls_authorize_mx_hostname (3.11, smtp_tls_enforce_sts_mx_patterns).
    """
    host = facts.host.host
    if not isinstance(host, Domain) or not any(fits_mx_pattern(host, pattern) for pattern in entry.mx_patterns):
        return Withheld(
            status=_NO_HOST,
            text="server unavailable or unable to receive mail",
            expected=f"an MX host that fits {', '.join(entry.mx_patterns)}",
            found=str(host),
            rule=entry.rule,
            asked=entry.level,
            warning=f"MX name '{host}' does not match STS MX pattern for '{facts.host.next_hop.host}'",
        )
    return _policy(entry, facts, entry.level, names=(LiteralName(host),), why=(source,))


def fits_mx_pattern(host: Domain, pattern: str) -> bool:
    """Whether a host is one that a pattern of an MTA-STS policy means: itself, or ``*.`` and all but one label."""
    _, _, parent = host.name.partition(".")
    return host.name == pattern or (pattern.startswith("*.") and bool(parent) and parent == pattern[2:])


def _decide_dane(entry: MapEntry, facts: PolicyFacts, source: str) -> Decision:
    """The table of RFC 7672 section 2.2 and of postfix smtp_tls_policy.c, dane_init."""
    host, only = facts.host, entry.level is Level.DANE_ONLY
    if not host.validating:
        return _without_validation(entry, facts, source)
    if not host.mx_secure and only:
        return _withheld(
            entry, "non DNSSEC destination", "MX records with DNSSEC", f"insecure MX records of {host.next_hop.host}"
        )
    match host.tlsa:
        case Failed(why):
            return _withheld(
                entry,
                f"TLSA lookup error for {host.host}:{host.next_hop.port}",
                "an answer for the TLSA records",
                why,
            )
        case NotLookedUp(why) | Absent(why):
            if only:
                return _withheld(entry, "no TLSA records found", "usable TLSA records", why)
            return _policy(entry, facts, Level.MAY, why=(source, why))
        case Unusable() as records:
            reasons = "; ".join(record.reason for record in records.unusable)
            if only:
                return _withheld(entry, "TLSA records unusable", "a usable TLSA record", reasons)
            level = Level.ENCRYPT if host.mx_secure else _insecure_mx_level(facts.defaults, Level.ENCRYPT)
            return _policy(entry, facts, level, why=(source, f"no usable TLSA record: {reasons}"))
        case Usable() as usable:
            return _decide_usable(entry, facts, usable, source)
        case _:
            assert_never(host.tlsa)


def _decide_usable(entry: MapEntry, facts: PolicyFacts, usable: Usable, source: str) -> Decision:
    host = facts.host
    found = f"secure TLSA records at _{host.next_hop.port}._tcp.{usable.base}"
    if host.mx_secure:
        level, why = entry.level, [source, found]
    else:
        level = _insecure_mx_level(facts.defaults, Level.HALFDANE)
        why = [source, found, f"the MX records of {host.next_hop.host} are insecure: {level.word}"]
    if not level.is_dane:
        return _policy(entry, facts, level, why=tuple(why))
    next_hop = host.next_hop.host
    names = reference_names(
        base=usable.base,
        next_hop=next_hop if isinstance(next_hop, Domain) else None,
        expanded_next_hop=host.expanded_next_hop,
        mx_secure=host.mx_secure,
    )
    return _policy(entry, facts, level, names=tuple(map(LiteralName, names)), usable=usable, why=tuple(why))


def _without_validation(entry: MapEntry, facts: PolicyFacts, source: str) -> Decision:
    """DESIGN section 6: only the global ``dane`` may degrade, and only where the administrator said so."""
    by_default = isinstance(facts.entry, NoEntry)
    if entry.level is Level.DANE and by_default and facts.defaults.degrade_without_validation:
        degraded = "dns.on_no_validation = degrade lets the global dane act as may"
        policy = _policy(entry, facts, Level.MAY, why=(source, f"resolver does not validate; {degraded}"))
        return replace(policy, alarm=f"resolver does not validate: {facts.host.not_validating_why}; {degraded}")
    return _withheld(
        entry, "resolver does not validate", "a resolver that validates DNSSEC", facts.host.not_validating_why
    )


def _insecure_mx_level(defaults: Defaults, under_dane: Level) -> Level:
    match defaults.insecure_mx:
        case InsecureMxPolicy.MAY:
            return Level.MAY
        case InsecureMxPolicy.ENCRYPT:
            return Level.ENCRYPT
        case InsecureMxPolicy.DANE:
            return under_dane
        case _:
            assert_never(defaults.insecure_mx)


def _default_match(level: Level, defaults: Defaults) -> tuple[MatchRule, ...]:
    return defaults.verify_match if level is Level.VERIFY else defaults.secure_match


def _expand(rules: tuple[MatchRule, ...], host: HostFacts) -> tuple[LiteralName, ...]:
    """The names that match rules stand for at one host (postfix tls_client.c, add_namechecks)."""
    names: list[LiteralName] = []
    for rule in rules:
        match rule:
            case LiteralName():
                names.append(rule)
            case MatchName.HOSTNAME:
                names += [LiteralName(host.host)] if isinstance(host.host, Domain) else []
            case MatchName.NEXTHOP | MatchName.DOT_NEXTHOP:
                below = rule is MatchName.DOT_NEXTHOP
                domain = host.next_hop.host
                names += [LiteralName(domain, below)] if isinstance(domain, Domain) else []
            case _:
                assert_never(rule)
    return tuple(dict.fromkeys(names))


def _sni(parameters: TlsParameters, host: HostFacts) -> str:
    """The server name of a non-DANE session: none unless the entry gives one (postfix smtp_tls_servername)."""
    match parameters.servername:
        case "hostname":
            return str(host.host) if isinstance(host.host, Domain) else ""
        case "nexthop":
            return str(host.next_hop.host) if isinstance(host.next_hop.host, Domain) else ""
        case name:
            return name


def _policy(
    entry: MapEntry,
    facts: PolicyFacts,
    level: Level,
    *,
    names: tuple[LiteralName, ...] = (),
    usable: Usable | None = None,
    why: tuple[str, ...],
) -> TlsPolicy:
    defaults, parameters = facts.defaults, entry.parameters
    mandatory = level.requires_tls
    rule = entry.rule
    if usable is not None:
        rule = Rule(f"TLSA _{facts.host.next_hop.port}._tcp.{usable.base} by {entry.rule.place}", entry.rule.text)
    return TlsPolicy(
        level=level,
        asked=entry.level,
        rule=rule,
        names=names,
        fingerprints=entry.fingerprints,
        fingerprint_digest=defaults.fingerprint_digest,
        tlsa=usable.records if usable else (),
        tlsa_base=str(usable.base) if usable else "",
        tafiles=entry.tafiles,
        protocols=parameters.protocols or (defaults.mandatory_protocols if mandatory else defaults.protocols),
        ciphers=parameters.ciphers or (defaults.mandatory_ciphers if mandatory else defaults.ciphers),
        exclude=parameters.exclude,
        sni=str(usable.base) if usable else _sni(parameters, facts.host),
        why=why,
        reuse=parameters.reuse,
    )


def _misconfigured(entry: MapEntry, expected: str, found: str) -> Withheld:
    return Withheld(
        status=TLS_POLICY_FAILURE,
        text="client TLS configuration problem",
        expected=expected,
        found=found,
        rule=entry.rule,
        asked=entry.level,
        warning=f"{entry.rule.place}: {entry.level.word}: expected {expected}; found {found}",
    )


def _withheld(entry: MapEntry, text: str, expected: str, found: str) -> Withheld:
    return Withheld(
        status=TLS_POLICY_FAILURE, text=text, expected=expected, found=found, rule=entry.rule, asked=entry.level
    )
