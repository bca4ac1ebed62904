"""What ``decide`` takes and gives: facts about a host, the rule that applies to it, and the policy that follows."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from typing import Final

from relay.dane.tlsa import NotLookedUp, Tlsa, TlsaLookup
from relay.mail.names import Domain, IpLiteral, NextHop
from relay.mail.reply import EnhancedStatus
from relay.policy.level import Level
from relay.sasl.credentials import NoCredentials, Stake


@dataclass(frozen=True, slots=True)
class Rule:
    """Where a policy came from, in the words of every explanation.

    :param place: ``FILE:LINE`` of a map entry, or the configuration option that gave the default.
    :param text: the entry as written, or the option's value.
    """

    place: str
    text: str = ""

    def __str__(self) -> str:
        return self.place


class MatchName(Enum):
    """The symbolic forms of a ``match=`` item (postfix tls_client.c, add_namechecks)."""

    HOSTNAME = "hostname"
    NEXTHOP = "nexthop"
    DOT_NEXTHOP = "dot-nexthop"


@dataclass(frozen=True, slots=True)
class LiteralName:
    """A ``match=`` item that names a domain.

    :param below: True for ``.example.com``: any sub-domain, at any depth, and not the domain itself.
    """

    domain: Domain
    below: bool = False

    def __str__(self) -> str:
        return f".{self.domain}" if self.below else str(self.domain)


MatchRule = MatchName | LiteralName


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsParameters:
    """How a handshake is made, in Postfix's notation; what is empty takes the default of its class.

    ``protocols`` is a list such as ``>=TLSv1.2`` or ``!TLSv1 !TLSv1.1``; ``ciphers`` a grade; ``exclude`` OpenSSL terms;
    ``reuse`` whether a session may carry several messages.
    """

    protocols: str = ""
    ciphers: str = ""
    exclude: str | None = None
    servername: str = ""
    reuse: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class MalformedEntry:
    """A line that cannot be understood: mail for its destination is deferred, never sent under another policy.

    :param warning: Postfix's text, after ``smtp_tls_policy_maps, next-hop destination "KEY": ``.
    :param since: why a line before this one does not hold any more, empty if there was none.
    """

    key: str
    rule: Rule
    warning: str
    since: str = ""


@dataclass(frozen=True, slots=True)
class NoEntry:
    """No line of any policy map applies; ``since`` as in ``MalformedEntry``."""

    since: str = ""


NO_END: Final = date.max
"""The last day of a line without ``until=``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapEntry:
    """One valid line of a policy map.

    :param match: names at verify and secure, as written and in order; empty takes the level's default.
    :param fingerprints: digests at level fingerprint, lower-case hexadecimal without colons.
    :param tafiles: PEM files that replace the CA store.
    :param mx_patterns: of an MTA-STS policy (``policy_type=sts mx_host_pattern=``), lower case; where there are any besides
        ``match``, hosts must fit one and prove their own name, whatever ``match`` says.
    :param policy_failure: why a plug-in wants every certificate refused (``policy_failure=``), empty if it does not.
    :param until: the last day (UTC) on which the line holds (``until=``).
    :param otherwise: what applies to the next-hop without this line; looked up only for a line that ends.
    :param audit: the level that is tried beside this one and never holds mail (``audit=``); none for no audit.
    :param since: as in ``MalformedEntry``.
    """

    level: Level
    rule: Rule
    match: tuple[MatchRule, ...] = ()
    fingerprints: tuple[str, ...] = ()
    tafiles: tuple[str, ...] = ()
    parameters: TlsParameters = field(default_factory=TlsParameters)
    policy_failure: str = ""
    mx_patterns: tuple[str, ...] = ()
    until: date = NO_END
    otherwise: MapEntry | MalformedEntry | NoEntry = NoEntry()
    audit: Level = Level.NONE
    since: str = ""


Entry = MapEntry | MalformedEntry | NoEntry
"""What a look-up in the policy maps gives."""


NO_CREDENTIALS = NoCredentials()


class InsecureMxPolicy(Enum):
    """``smtp_tls_dane_insecure_mx_policy``: what TLSA records are worth behind MX records without DNSSEC."""

    MAY = "may"
    ENCRYPT = "encrypt"
    DANE = "dane"


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """The options that hold where no map entry says otherwise; ``tls_`` prefixes as in the ``[smtp]`` section."""

    level: Level
    level_rule: Rule
    verify_match: tuple[MatchRule, ...] = (MatchName.HOSTNAME,)
    secure_match: tuple[MatchRule, ...] = (MatchName.NEXTHOP, MatchName.DOT_NEXTHOP)
    insecure_mx: InsecureMxPolicy = InsecureMxPolicy.DANE
    protocols: str = ">=TLSv1.2"
    mandatory_protocols: str = ">=TLSv1.2"
    ciphers: str = "medium"
    mandatory_ciphers: str = "medium"
    fingerprint_digest: str = "sha256"
    degrade_without_validation: bool = False
    audit: Level = Level.NONE
    audit_rule: Rule = Rule("")


def rule_of(entry: Entry, defaults: Defaults) -> Rule:
    """The line or option that gives the policy, with what ended before it came to hold."""
    rule = defaults.level_rule if isinstance(entry, NoEntry) else entry.rule
    return Rule(f"{rule.place} since {entry.since}", rule.text) if entry.since else rule


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What is known of one host before it is dialled.

    :param host: the MX host name, or the literal of the next-hop.
    :param had_mx: whether MX records led here (False for ``[host]``, literals and implicit MX).
    :param mx_secure: whether those were secure; True where there was no MX set to judge.
    :param expanded_next_hop: where CNAME records of the next-hop domain lead, if anywhere.
    :param validating: whether the resolver was seen to validate; if not, every answer counts as insecure.
    :param not_validating_why: what was found where a resolver that validates was expected.
    """

    next_hop: NextHop
    host: Domain | IpLiteral
    had_mx: bool
    mx_secure: bool
    tlsa: TlsaLookup = field(default_factory=lambda: NotLookedUp("DANE was not asked for"))
    expanded_next_hop: Domain | None = None
    validating: bool = True
    not_validating_why: str = "answers without the AD bit"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFacts:
    """Everything that ``decide`` looks at.

    :param credentials: whether we would log in at the host.
    """

    entry: Entry
    host: HostFacts
    defaults: Defaults
    credentials: Stake = NO_CREDENTIALS


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsPolicy:
    """What a session with one host must satisfy before MAIL FROM.

    :param asked: the level of the rule; ``level`` is what it came to for this host.
    :param names: names of which the certificate must carry one (PKIX levels: from the match rules; DANE: reference
        identifiers), each an exact domain or, with ``below``, any sub-domain of it.
    :param tlsa: usable records to match at a DANE level.
    :param sni: the name for the server name extension, empty for none.
    :param why: the steps of the decision, one sentence each, first cause first.
    :param alarm: what the administrator must be told with every delivery under this policy, empty for nothing.
    :param reuse: whether a session may carry several messages.
    """

    level: Level
    asked: Level
    rule: Rule
    names: tuple[LiteralName, ...] = ()
    fingerprints: tuple[str, ...] = ()
    fingerprint_digest: str = "sha256"
    tlsa: tuple[Tlsa, ...] = ()
    tlsa_base: str = ""
    tafiles: tuple[str, ...] = ()
    protocols: str = ">=TLSv1.2"
    ciphers: str = "medium"
    exclude: str | None = None
    sni: str = ""
    why: tuple[str, ...] = ()
    alarm: str = ""
    reuse: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    """No session with this host can satisfy the policy now: try the next host, else defer.

    :param text: Postfix's reason; ``expected`` and ``found`` say the rest for people.
    :param warning: what Postfix warns of when it meets a malformed entry, else empty.
    """

    status: EnhancedStatus
    text: str
    expected: str
    found: str
    rule: Rule
    asked: Level
    warning: str = ""
    why: tuple[str, ...] = ()


Decision = TlsPolicy | Withheld
