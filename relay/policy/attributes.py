"""The right-hand side of a policy map line: ``LEVEL [name=value]...`` (postfix smtp_tls_policy.c). Pure.

Errors in attributes may have security consequences: whatever cannot be understood makes the whole entry malformed,
and mail for it is deferred. Where Postfix finds a bad protocol list or cipher grade only at the handshake (and may
then go on in the clear at level ``may``), this parser finds it here.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date

from relay.mail.names import BadName, Domain
from relay.maps.comments import NO_COMMENT, Comment
from relay.maps.notation import tokens
from relay.policy.level import Level
from relay.policy.notation import parse_exclusions, parse_fingerprint, parse_grade, parse_match, parse_protocols
from relay.policy.policy import NO_END, MalformedEntry, MapEntry, MatchRule, Rule, TlsParameters

OURS = ("until", "audit")
"""Attributes that Postfix does not know; they may stand in a ``#:`` comment (relay/policy/comments.py)."""
_ONCE = frozenset(
    {
        *OURS,
        "ciphers",
        "protocols",
        "servername",
        "exclude",
        "policy_ttl",
        "policy_type",
        "policy_domain",
        "policy_failure",
    }
)
# What STS plug-ins add for reports; meaningless in an entry without a policy type.
_EXTERNAL = frozenset({"policy_ttl", "policy_domain", "policy_string", "mx_host_pattern", "policy_failure"})
_POLICY_TYPES = ("sts", "no-policy-found")
_POLICY_FAILURES = ("sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid", "validation-failure")


@dataclass(frozen=True, slots=True)
class ParsedPolicy:
    """An entry and what is to be said about it although mail goes on, in Postfix's words."""

    entry: MapEntry | MalformedEntry
    warnings: tuple[str, ...] = ()


class _Malformed(Exception):  # noqa: N818 - it names the state of the entry and never leaves this file
    """The entry cannot be understood; the message is Postfix's warning."""


@dataclass(slots=True)
class _Draft:
    """An entry while its attributes are read."""

    level: Level
    base: str
    match: list[MatchRule] = field(default_factory=list)
    fingerprints: list[str] = field(default_factory=list)
    tafiles: list[str] = field(default_factory=list)
    once: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    until: date = NO_END
    audit: Level = Level.NONE
    mx_patterns: list[str] = field(default_factory=list)


def parse_policy(text: str, *, key: str, rule: Rule, base: str, comment: Comment = NO_COMMENT) -> ParsedPolicy:
    """Read one right-hand side.

    :param key: the key of the line, for a malformed entry.
    :param rule: where the line stands.
    :param base: the directory that relative ``tafile`` names start from.
    :param comment: what stands in a ``#:`` comment above the line.
    """
    try:
        draft = _read(text, base, comment)
    except _Malformed as error:
        return ParsedPolicy(MalformedEntry(key=key, rule=rule, warning=str(error)))
    entry = MapEntry(
        level=draft.level,
        rule=rule,
        match=tuple(dict.fromkeys(draft.match)),
        fingerprints=tuple(dict.fromkeys(draft.fingerprints)),
        tafiles=tuple(dict.fromkeys(draft.tafiles)),
        parameters=TlsParameters(
            protocols=draft.once.get("protocols", ""),
            ciphers=draft.once.get("ciphers", ""),
            exclude=draft.once.get("exclude"),
            servername=draft.once.get("servername", ""),
            reuse=draft.once.get("connection_reuse", "yes") == "yes",
        ),
        policy_failure=draft.once.get("policy_failure", ""),
        mx_patterns=tuple(dict.fromkeys(draft.mx_patterns)) if draft.once.get("policy_type") == "sts" else (),
        until=draft.until,
        audit=draft.audit,
    )
    return ParsedPolicy(entry, tuple(draft.warnings))


def _read(text: str, base: str, comment: Comment) -> _Draft:
    if comment.fault:
        raise _Malformed(comment.fault)
    words = tokens(text)
    first = next(words, "")
    if not first:
        raise _Malformed("invalid empty policy")
    try:
        draft = _Draft(Level.parse(first), base)
    except ValueError:
        raise _Malformed(f'invalid security level "{first}"') from None
    for word in words:
        if not draft.level.uses_tls and _NO_USE.match(word):
            draft.warnings.append(f'ignoring attribute "{word}" with TLS disabled')
            continue
        name, value = _name_and_value(word)
        _apply(draft, name, value)
    for word in tokens(comment.text):
        name, value = _name_and_value(word)
        if name.lower() not in OURS:
            # Postfix would not see it, and deliver under another policy than is written here.
            raise _Malformed(f'attribute "{name}" must stand on the line itself, not in a "#:" comment')
        _apply(draft, name, value)
    if draft.seen & _EXTERNAL and "policy_type" not in draft.seen:
        raise _Malformed(
            "built-in policy has unexpected attribute policy_ttl, policy_domain, policy_string, "
            "mx_host_pattern or policy_failure"
        )
    if draft.level is Level.FINGERPRINT and not draft.fingerprints:
        draft.warnings.append("configured at fingerprint security level, but with no fingerprints to match.")
    return draft


def _name_and_value(word: str) -> tuple[str, str]:
    """Read ``name=value`` or ``{ name = value }``, as postfix extpar() and split_nameval() do."""
    if word.startswith("{"):
        end = _closing_brace(word)
        if end < 0:
            raise _Malformed(f'malformed attribute/value pair "{word[1:].strip()}": missing \'}}\' in "{word}"')
        if end != len(word) - 1:
            inside = word[1:end].strip()
            raise _Malformed(f'malformed attribute/value pair "{inside}": syntax error after \'}}\' in "{word}"')
        # White space is made plain, so that no line break hides inside a value.
        word = re.sub(r"\s+", " ", word[1:-1].strip())
    match = re.fullmatch(r"\s*([^\s=]+)\s*=(.*)", word, re.DOTALL)
    if match is None:
        empty = not word.strip() or word.lstrip().startswith("=")
        reason = "missing attribute name" if empty else "missing '=' after attribute name"
        raise _Malformed(f'malformed attribute/value pair "{word}": {reason}')
    return match[1], match[2].strip()


def _closing_brace(word: str) -> int:
    depth = 0
    for position, character in enumerate(word):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return position
    return -1


def _apply(draft: _Draft, name: str, value: str) -> None:
    """Check one attribute against its rules and enter it in the draft; ``name`` keeps its case for the warning."""
    attribute = name.lower()
    if attribute in _ONCE and attribute in draft.seen:
        raise _Malformed(f'attribute "{name}" is specified multiple times')
    draft.seen.add(attribute)
    reader = _READERS.get(attribute)
    if reader is None:
        raise _Malformed(f'invalid attribute name: "{name}"')
    reader(draft, name, value)


def _apply_match(draft: _Draft, name: str, value: str) -> None:
    if not value:
        raise _Malformed(f'attribute "{name}" has empty value')
    match draft.level:
        case Level.FINGERPRINT:
            for text in filter(None, value.split("|")):
                try:
                    draft.fingerprints.append(parse_fingerprint(text))
                except ValueError as error:
                    draft.warnings.append(str(error))
        case Level.VERIFY | Level.SECURE:
            found = parse_match(filter(None, value.split(":")))
            draft.match += found.rules
            draft.warnings += found.ignored
            if not draft.match:
                # Without this the default names of the level would stand in for names that nobody wrote.
                raise _Malformed(f'could not configure peer name checks: no valid name in "{name}={value}"')
        case level:
            raise _Malformed(f'attribute "{name}" invalid at security level "{level.word}"')


def _apply_tafile(draft: _Draft, name: str, value: str) -> None:
    if not draft.level.is_pkix:
        raise _Malformed(f'attribute "{name}" invalid at security level "{draft.level.word}"')
    if not value:
        raise _Malformed(f'attribute "{name}" has empty value')
    draft.tafiles.append(posixpath.join(draft.base, value))


def _apply_external(draft: _Draft, name: str, value: str) -> None:
    attribute = name.lower()
    allowed = {"policy_type": _POLICY_TYPES, "policy_failure": _POLICY_FAILURES}.get(attribute, ())
    value = value.lower() if allowed else value  # postfix name_code.c compares without case
    if allowed and value not in allowed:
        raise _Malformed(f'attribute "{name}" has an unexpected value: "{value}"')
    if attribute == "policy_ttl" and not re.fullmatch(r"\d{1,18}", value, re.ASCII):
        raise _Malformed(f'attribute "{name}" has a malformed value: "{value}"')
    if attribute == "policy_domain" and not _is_host_name(value):
        raise _Malformed(f'attribute "{name}" has a malformed value: "{value}"')
    draft.once[attribute] = value


def _apply_ciphers(draft: _Draft, name: str, value: str) -> None:
    if not value:
        raise _Malformed(f'attribute "{name}" has empty value')
    draft.once["ciphers"] = _or_malformed(parse_grade, value)


def _apply_protocols(draft: _Draft, _name: str, value: str) -> None:
    draft.once["protocols"] = _or_malformed(parse_protocols, value)


def _apply_exclude(draft: _Draft, _name: str, value: str) -> None:
    draft.once["exclude"] = _or_malformed(parse_exclusions, value)


def _apply_servername(draft: _Draft, name: str, value: str) -> None:
    if not _is_host_name(value):
        raise _Malformed(f'"{name}={value}" specifies an invalid hostname')
    draft.once["servername"] = value.lower()


def _apply_yes_or_no(draft: _Draft, name: str, value: str) -> None:
    """``connection_reuse``, and ``enable_rpk``, which nothing here reads; but a wrong value is a wrong line."""
    if value.lower() not in {"yes", "no"}:
        raise _Malformed(f'attribute "{name}" has bad value: "{value}"')
    draft.once[name.lower()] = value.lower()


def _apply_until(draft: _Draft, name: str, value: str) -> None:
    """``until=``: the last day on which the line holds; whether it may have one, relay/policy/exceptions.py says."""
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
            raise ValueError
        draft.until = date.fromisoformat(value)
    except ValueError:
        raise _Malformed(f'attribute "{name}" has a malformed value: "{value}": expected YYYY-MM-DD') from None
    if draft.until == NO_END:
        raise _Malformed(f'attribute "{name}" has a malformed value: "{value}": that is no end; leave it out')


def _apply_audit(draft: _Draft, name: str, value: str) -> None:
    """``audit=``: a level to try beside the line's own (relay/policy/audit.py)."""
    if not draft.level.uses_tls:
        raise _Malformed(f'attribute "{name}" invalid at security level "{draft.level.word}"')
    try:
        draft.audit = parse_audit_level(value, fingerprints=draft.level is Level.FINGERPRINT)
    except ValueError as error:
        raise _Malformed(f'attribute "{name}" has an unexpected value: {error}') from None


def parse_audit_level(text: str, *, fingerprints: bool = False) -> Level:
    """Read a level that can be audited.

    :param fingerprints: whether there are fingerprints to compare with.
    :raises ValueError: if it is no level, or one under which nothing would be held back or nothing can be compared.
    """
    level = Level.parse(text)
    if not level.requires_tls or (level is Level.FINGERPRINT and not fingerprints):
        raise ValueError(
            f'"{text}": nothing is audited at this level; write encrypt, verify, secure, dane or dane-only'
        )
    return level


def _accept(_draft: _Draft, _name: str, _value: str) -> None:
    """``policy_string``: any text, for reports only."""


def _apply_mx_host_pattern(draft: _Draft, _name: str, value: str) -> None:
    """``mx_host_pattern``: any text; one that is no pattern fits no host."""
    draft.mx_patterns.append(value.lower())


_READERS: dict[str, Callable[[_Draft, str, str], None]] = {
    "match": _apply_match,
    "tafile": _apply_tafile,
    "ciphers": _apply_ciphers,
    "protocols": _apply_protocols,
    "exclude": _apply_exclude,
    "servername": _apply_servername,
    "connection_reuse": _apply_yes_or_no,
    "enable_rpk": _apply_yes_or_no,
    "policy_string": _accept,
    "mx_host_pattern": _apply_mx_host_pattern,
    "policy_ttl": _apply_external,
    "policy_type": _apply_external,
    "policy_domain": _apply_external,
    "policy_failure": _apply_external,
    "until": _apply_until,
    "audit": _apply_audit,
}


# Without TLS these mean nothing (postfix reads no attribute there at all). What has none of these names could be a mistyped
# end, and then the line would hold for ever: it is looked at like everywhere else.
_NO_USE = re.compile(rf"[{{\s]*({'|'.join(_READERS.keys() - set(OURS))})\s*=", re.IGNORECASE)


def _or_malformed(parse: Callable[[str], str], value: str) -> str:
    try:
        return parse(value)
    except ValueError as error:
        raise _Malformed(str(error)) from None


def _is_host_name(text: str) -> bool:
    """Postfix's valid_hostname(): ASCII, no trailing dot, and not digits and dots alone."""
    if not text.isascii() or text.endswith(".") or not text.strip("0123456789."):
        return False
    try:
        Domain.parse(text)
    except BadName:
        return False
    return True
