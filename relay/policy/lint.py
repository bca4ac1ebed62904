"""What an administrator should know about policy maps beyond what makes their lines malformed. Pure.

Errors are lines that do not do what their author wanted: they defer mail or never match. Everything else is advice.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

from cryptography import x509

from relay.mail.envelope import NULL_SENDER
from relay.mail.names import BadName, Domain, NextHop
from relay.maps.comments import MARK
from relay.maps.lines import logical_lines
from relay.maps.notation import tokens
from relay.maps.table import Found
from relay.policy.attributes import OURS
from relay.policy.compare import lesser_guarantees, names_accepted, sample_next_hop, versions_allowed
from relay.policy.exceptions import ending_lines, endings, misplaced
from relay.policy.level import Level
from relay.policy.policy import NO_END, Defaults, Entry, MalformedEntry, MapEntry, MatchName, NoEntry
from relay.policy.stake import withholds
from relay.policy.table import PolicyTable, PolicyTables, lookup_keys
from relay.policy.withheld import withheld_text
from relay.sasl.credentials import AtStake, stake_of
from relay.sasl.passwords import NO_TABLES, CredentialTables

_DIGEST_DIGITS = {"md5": 32, "sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}
_WEAK_DIGESTS = ("md5", "sha1")
_OLD_VERSIONS = ("TLSv1", "TLSv1.1")
# Which release of Postfix brought an attribute; an older one finds the whole entry malformed and defers its mail.
_SINCE = {
    "enable_rpk": "3.9",
    "policy_type": "3.10",
    "policy_domain": "3.10",
    "policy_ttl": "3.10",
    "policy_string": "3.10",
    "mx_host_pattern": "3.10",
    "policy_failure": "3.10",
}
_NO_EFFECT = {
    "enable_rpk": "raw public keys cannot be negotiated",
}
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"


class Check(Enum):
    """What a remark is about: a stable word for programs."""

    ENTRY = "entry"
    SHADOWED = "shadowed"
    UNREACHABLE = "unreachable"
    WEAKER = "weaker"
    FALLBACK = "fallback"
    MATCH = "match"
    TRUST_ANCHOR = "trust-anchor"
    FINGERPRINT = "fingerprint"
    PROTOCOLS = "protocols"
    NO_EFFECT = "no-effect"
    EXCEPTION = "exception"
    POSTFIX = "postfix"
    CREDENTIALS = "credentials"


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about a line.

    :param place: ``FILE:LINE``.
    :param is_error: whether the line does not do what its author wanted; else this is advice.
    """

    place: str
    check: Check
    text: str
    is_error: bool = False

    def __str__(self) -> str:
        return f"{self.place}: {'error' if self.is_error else 'advice'}: {self.text}"


@dataclass(frozen=True, slots=True)
class LintedMap:
    """One map as it was read, and its text, for what parsing does not keep."""

    table: PolicyTable
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What lines are judged against.

    :param routes_known: whether ``relay_hosts`` is what the relay uses; without, no key counts as unreachable.
    :param relay_hosts: the next-hops of all mail; empty if mail goes by the recipient's domain.
    :param fallback: the fallback relays, which take over mail of every destination.
    :param anchors: the content of trust anchor files, by the names in ``MapEntry.tafiles``; those missing are left out.
    :param credentials: the password and token maps, where the relay has some.
    :param now: aware; what the validity of anchors is judged by.
    """

    defaults: Defaults
    now: datetime
    routes_known: bool = False
    relay_hosts: tuple[NextHop, ...] = ()
    fallback: tuple[NextHop, ...] = ()
    anchors: Mapping[str, bytes] = field(default_factory=dict)
    credentials: CredentialTables = NO_TABLES


def lint(maps: Iterable[LintedMap], around: Surroundings) -> tuple[Remark, ...]:
    """Everything to be said about policy maps that are tried in this order, by map and line."""
    maps = tuple(maps)
    linter = _Linter(PolicyTables(tuple(each.table for each in maps)), around)
    remarks: list[Remark] = []
    for position, each in enumerate(maps):
        found = list(linter.remarks(position, each))
        remarks += sorted(found, key=lambda remark: (_line(remark.place), not remark.is_error))
    return tuple(remarks)


def _line(place: str) -> int:
    return int(place.rpartition(":")[2])


class _Linter:
    """The checks of one run; all of them look at one entry at a time."""

    def __init__(self, tables: PolicyTables, around: Surroundings) -> None:
        self._tables = tables
        self._around = around
        self._taken = frozenset(key for table in tables.tables for key in table.entries)
        hops = (*around.relay_hosts, *around.fallback)
        self._reachable = frozenset(key for hop in hops for key in lookup_keys(hop))
        self._fallback = {hop.key: hop for hop in around.fallback}
        self._of_endings = tuple(_of_endings(tables, around))

    def remarks(self, position: int, linted: LintedMap) -> Iterator[Remark]:
        for problem in linted.table.problems:
            yield Remark(problem.place, Check.ENTRY, problem.text, problem.is_error)
        yield from (each for each in self._of_endings if each.place.rpartition(":")[0] == linted.table.name)
        attributes, written = _attributes(linted)
        yield from self._of_patterns(linted.table, attributes)
        for key, entry in linted.table.entries.items():
            place = entry.rule.place
            yield from self._of_key(position, key, entry, written.get(place, key))
            if isinstance(entry, MapEntry):
                yield from _of_attributes(place, key, attributes.get(place, ()))
                yield from self._of_entry(key, entry)

    def _of_key(self, position: int, key: str, entry: MapEntry | MalformedEntry, written: str) -> Iterator[Remark]:
        place = entry.rule.place
        for earlier in self._tables.tables[:position]:
            found = earlier.lookup(key)
            if found is not None:
                text = f"{key}: never used: {found.rule.place} has the same key and is tried first"
                if key not in earlier.entries:
                    text = f"{key}: never used: {found.rule.place} answers this key too and is tried first"
                yield Remark(place, Check.SHADOWED, text)
                break
        unreachable = self._unreachable(key)
        if unreachable:
            yield Remark(place, Check.UNREACHABLE, f"{key}: no mail ever goes there: {unreachable}")
        if written.lower() != key:
            text = f'{key}: written "{written}", which Postfix compares as it stands and does not read as {key}'
            yield Remark(place, Check.POSTFIX, text)

    def _of_patterns(self, table: PolicyTable, attributes: Mapping[str, tuple[str, ...]]) -> Iterator[Remark]:
        """What can be said of lines without knowing for whom they hold."""
        next_hop = NextHop.parse("example.com", default_port=25)
        for entry in table.unkeyed():
            if isinstance(entry, MalformedEntry):
                continue
            place, whom = entry.rule.place, "whatever it matches"
            yield from _of_attributes(place, whom, attributes.get(place, ()))
            lesser = lesser_guarantees(NoEntry(), entry, next_hop, self._around.defaults)
            if lesser and entry.until == NO_END:
                text = f"{whom}: weaker than what {self._around.defaults.level_rule} says: {'; '.join(lesser)}"
                yield Remark(place, Check.WEAKER, text)
            yield from self._anchors(whom, entry)
            yield from self._fingerprints(whom, entry)
            yield from _protocols(whom, entry)

    def _unreachable(self, key: str) -> str:
        """Why no next-hop ever asks for the key, if that is so."""
        if re.fullmatch(r"[0-9.]+", key):
            return f"an address is written [{key}]"
        if not self._around.routes_known or key in self._reachable:
            return ""
        if self._around.relay_hosts:
            hosts = ", ".join(hop.key for hop in self._around.relay_hosts)
            return f"smtp.relayhost sends all mail to {hosts}"
        try:
            next_hop = sample_next_hop(key)
        except BadName:
            return ""  # an error of its own
        if not next_hop.use_mx and isinstance(next_hop.host, Domain):
            return "neither smtp.relayhost nor smtp.transport_maps names a host in brackets"
        if key != NextHop.of_domain(next_hop.host, next_hop.port).key and not key.startswith("."):
            return f"neither smtp.relayhost nor smtp.transport_maps names it so; write {next_hop.host}"
        return ""

    def _of_entry(self, key: str, entry: MapEntry) -> Iterator[Remark]:
        try:
            next_hop = sample_next_hop(key, self._taken)
        except BadName:
            return
        yield from self._weaker(key, entry, next_hop)
        if entry.audit.uses_tls and entry.audit is entry.level:
            yield Remark(entry.rule.place, Check.NO_EFFECT, f"{key}: audit={entry.audit.word} is the line's own level")
        if key in self._fallback:
            yield from self._weaker_for_others(key, entry, self._fallback[key])
        yield from self._match(key, entry, next_hop)
        yield from self._credentials(key, entry, next_hop)
        yield from self._anchors(key, entry)
        yield from self._fingerprints(key, entry)
        yield from _protocols(key, entry)

    def _weaker(self, key: str, entry: MapEntry, next_hop: NextHop) -> Iterator[Remark]:
        if entry.until != NO_END:
            return  # its author says so, and for how long
        otherwise = self._without(key, next_hop)
        if isinstance(otherwise, MalformedEntry):
            return  # no mail at all would go without this line, for a reason that is an error already
        lesser = lesser_guarantees(otherwise, entry, next_hop, self._around.defaults)
        if lesser:
            rule = self._around.defaults.level_rule if isinstance(otherwise, NoEntry) else otherwise.rule
            text = f"{key}: weaker than what {rule} says: {'; '.join(lesser)}"
            yield Remark(entry.rule.place, Check.WEAKER, text)

    def _weaker_for_others(self, key: str, entry: MapEntry, relay: NextHop) -> Iterator[Remark]:
        """A fallback relay's own line is the last word on mail of every destination, also of those that ask for more."""
        lesser = [
            other.rule.place
            for table in self._tables.tables
            for other in table.entries.values()
            if isinstance(other, MapEntry) and lesser_guarantees(other, entry, relay, self._around.defaults)
        ]
        if lesser:
            more = f" and {len(lesser) - 1} more" if len(lesser) > 1 else ""
            text = f"{key}: smtp.fallback_relay takes over mail of destinations whose lines ask for more: {lesser[0]}{more}"
            yield Remark(entry.rule.place, Check.FALLBACK, text)

    def _without(self, key: str, next_hop: NextHop) -> Entry:
        """What would apply to a next-hop if the key were in no table."""
        for other in lookup_keys(next_hop):
            for table in self._tables.tables:
                entry = table.lookup(other) if other != key or key not in table.entries else None
                if entry is not None:
                    return entry
        return NoEntry()

    def _match(self, key: str, entry: MapEntry, next_hop: NextHop) -> Iterator[Remark]:
        defaults = self._around.defaults
        if not entry.level.is_pkix or not entry.match or entry.mx_patterns:
            return
        if set(names_accepted(entry, next_hop, defaults)) == set(
            names_accepted(replace(entry, match=()), next_hop, defaults)
        ):
            option = "tls_verify_cert_match" if entry.level is Level.VERIFY else "tls_secure_cert_match"
            text = f"{key}: match= says what smtp.{option} says anyway at level {entry.level.word}"
            yield Remark(entry.rule.place, Check.MATCH, text)

    def _credentials(self, key: str, entry: MapEntry, next_hop: NextHop) -> Iterator[Remark]:
        stake = stake_of(self._around.credentials.lookup(NULL_SENDER, next_hop, next_hop.host))
        if not isinstance(stake, AtStake):
            return
        match = entry.match or self._around.defaults.verify_match
        if withholds(entry, stake):
            text = withheld_text(key, entry, stake)
            yield Remark(entry.rule.place, Check.CREDENTIALS, text, is_error=True)
        elif entry.level is Level.VERIFY and next_hop.use_mx and MatchName.HOSTNAME in match:
            text = (
                f"{key}: {stake.place} has credentials for it, and at level verify its MX records say who may see them: "
                "whoever forges those sees them too; ask for secure"
            )
            yield Remark(entry.rule.place, Check.CREDENTIALS, text)

    def _anchors(self, key: str, entry: MapEntry) -> Iterator[Remark]:
        for name in entry.tafiles:
            for problem in _anchor_problems(self._around.anchors.get(name, b""), self._around.now):
                yield Remark(entry.rule.place, Check.TRUST_ANCHOR, f"{key}: {name}: {problem}")

    def _fingerprints(self, key: str, entry: MapEntry) -> Iterator[Remark]:
        digest = self._around.defaults.fingerprint_digest
        wanted = _DIGEST_DIGITS[digest]
        strange = [one for one in entry.fingerprints if len(one) != wanted]
        place, option = entry.rule.place, f"smtp.tls_fingerprint_digest = {digest}"
        for one in strange:
            kind = next(name for name, digits in _DIGEST_DIGITS.items() if digits == len(one))
            text = f"{key}: {one[:16]}... has as many digits as {kind} gives and never matches under {option}"
            yield Remark(place, Check.FINGERPRINT, text, is_error=len(strange) == len(entry.fingerprints))
        if digest in _WEAK_DIGESTS and len(strange) < len(entry.fingerprints):
            text = f"{key}: {digest} digests can be forged; take sha256, of the public key"
            yield Remark(place, Check.FINGERPRINT, text)


def _of_endings(tables: PolicyTables, around: Surroundings) -> Iterator[Remark]:
    """What ``until=`` comes to: where it may not stand, what has ended or soon will, and what its end would weaken."""
    for problem in misplaced(tables, around.defaults):
        yield Remark(problem.place, Check.EXCEPTION, problem.text, problem.is_error)
    for problem in endings(tables, around.defaults, around.now):
        yield Remark(problem.place, Check.EXCEPTION, problem.text)
    for each in ending_lines(tables, around.defaults):
        if isinstance(each.entry, MapEntry):
            lesser = lesser_guarantees(each.entry, each.entry.otherwise, each.sample, around.defaults)
            if lesser:
                text = f"{each.key}: after {each.entry.until} weaker than before: {'; '.join(lesser)}"
                yield Remark(each.place, Check.EXCEPTION, text)


def _attributes(linted: LintedMap) -> tuple[Mapping[str, tuple[str, ...]], Mapping[str, str]]:
    """The names of the attributes of each line, lower case, and its key as written, by ``FILE:LINE``."""
    found: dict[str, tuple[str, ...]] = {}
    for row in linted.table.source.rows():
        if isinstance(row.answer, Found):
            words = (word for word in tokens(row.answer.value) if "=" in word)
            names = (word.strip("{ \t").partition("=")[0].strip().lower() for word in words)
            found[row.answer.place] = tuple(dict.fromkeys(names))
    if not linted.table.source.keys():
        return found, {}
    name = linted.table.name
    return found, {f"{name}:{line.number}": line.text.split(maxsplit=1)[0] for line in logical_lines(linted.text)}


def _of_attributes(place: str, key: str, names: tuple[str, ...]) -> Iterator[Remark]:
    for name in names:
        if name in _NO_EFFECT:
            yield Remark(place, Check.NO_EFFECT, f"{key}: {name} has no effect here: {_NO_EFFECT[name]}")
        if name in OURS:
            text = (
                f"{key}: no release of Postfix knows {name}, and it would defer mail to this destination; in a comment "
                f'directly above the line ("{MARK} {name}=...") Postfix reads over it'
            )
            yield Remark(place, Check.POSTFIX, text)
        if name in _SINCE:
            text = f"{key}: Postfix before {_SINCE[name]} does not know {name} and would defer mail to this destination"
            yield Remark(place, Check.POSTFIX, text)


def _protocols(key: str, entry: MapEntry) -> Iterator[Remark]:
    listed = entry.parameters.protocols
    old = [version for version in versions_allowed(listed) if version in _OLD_VERSIONS] if listed else []
    if old:
        text = f"{key}: protocols={listed} allows {' and '.join(old)}, which RFC 8996 retired; write >=TLSv1.2"
        yield Remark(entry.rule.place, Check.PROTOCOLS, text)


def _anchor_problems(pem: bytes, now: datetime) -> Iterator[str]:
    """What is wrong with the dates of certificates in a trust anchor file; keys have none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd serial numbers: the file is the administrator's choice
        try:
            certificates = x509.load_pem_x509_certificates(pem) if _CERTIFICATE in pem else []
        except ValueError:
            return  # a file that cannot be read makes its line malformed
        for number, certificate in enumerate(certificates, 1):
            subject = certificate.subject.rfc4514_string()[:100] or f"number {number}"
            if certificate.not_valid_after_utc < now:
                yield f"the certificate {subject} expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
            elif certificate.not_valid_before_utc > now:
                yield f"the certificate {subject} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
