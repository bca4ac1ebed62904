"""Audits: a stricter level tried beside the one that holds, which never holds mail. Pure.

``audit=dane`` on a line, or ``smtp.tls_audit_level`` for every destination whose line says nothing of it. What is audited is
what the line would be with that level in the place of its own; what it may ask for, it has from the line.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from relay.policy.level import Level
from relay.policy.policy import (
    NO_END,
    Defaults,
    Entry,
    MalformedEntry,
    MapEntry,
    NoEntry,
    Rule,
    TlsParameters,
)


class Finding(Enum):
    """What a stricter level would have done with one session."""

    VERIFIED = "would verify"
    UNPROVED = "would go out unproved"
    """The level demands nothing here: ``dane`` at a host without TLSA records."""
    REFUSED = "would be deferred"
    UNKNOWN = "would be deferred for want of an answer"
    """A look-up failed; that may be otherwise the next time."""


def audited_entry(entry: Entry, defaults: Defaults) -> MapEntry | NoEntry:
    """The line that is tried beside an entry; ``NoEntry`` where nothing is audited."""
    if isinstance(entry, MalformedEntry):
        return NoEntry()
    if isinstance(entry, MapEntry) and entry.audit.uses_tls:
        return _instead(
            entry, entry.audit, Rule(f"{entry.rule.place} audit={entry.audit.word}", entry.rule.text), defaults
        )
    if not defaults.audit.uses_tls:
        return NoEntry()
    return _instead(entry, defaults.audit, defaults.audit_rule, defaults)


def _instead(entry: MapEntry | NoEntry, level: Level, rule: Rule, defaults: Defaults) -> MapEntry | NoEntry:
    own = entry.level if isinstance(entry, MapEntry) else defaults.level
    if own is level or not own.uses_tls:
        return NoEntry()
    if isinstance(entry, NoEntry):
        return MapEntry(level=level, rule=rule)
    names = entry.level.is_pkix and level.is_pkix
    return replace(
        entry,
        level=level,
        rule=rule,
        match=entry.match if names else (),
        tafiles=entry.tafiles if names else (),
        # What the handshake was made with was right for the line's own level; the other has its own floor.
        parameters=TlsParameters(servername=entry.parameters.servername),
        until=NO_END,
        audit=Level.NONE,
        since="",
    )
