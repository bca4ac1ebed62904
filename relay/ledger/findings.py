"""Findings of audits, counted by destination and level. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from relay.log.events import SessionAudited
from relay.outcome.wording import one_line
from relay.policy.audit import Finding

MAX_WHY = 900


@dataclass(frozen=True, slots=True)
class Why:
    """The last reason for a finding, and at which host."""

    host: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCount:
    """What audits of one destination at one level came to.

    :param destination: the next-hop, as a key of policy maps.
    :param level: the audited level, as Postfix writes it.
    :param counts: sessions by finding.
    :param why: the last reason for each finding that there was.
    """

    destination: str
    level: str
    first: datetime
    last: datetime
    counts: Mapping[Finding, int] = field(default_factory=dict)
    why: Mapping[Finding, Why] = field(default_factory=dict)

    @property
    def sessions(self) -> int:
        """How many sessions were audited."""
        return sum(self.counts.values())

    @property
    def verified(self) -> int:
        """How many of them would have verified."""
        return self.counts.get(Finding.VERIFIED, 0)

    def plus(self, later: AuditCount) -> AuditCount:
        """Both together."""
        counts = {each: self.counts.get(each, 0) + later.counts.get(each, 0) for each in Finding}
        return replace(
            later,
            first=min(self.first, later.first),
            last=max(self.last, later.last),
            counts={each: count for each, count in counts.items() if count},
            why={**self.why, **later.why},
        )


def one_session(event: SessionAudited, at: datetime) -> AuditCount:
    """The count of a single session."""
    return AuditCount(
        destination=event.destination,
        level=event.asked.word,
        first=at,
        last=at,
        counts={event.finding: 1},
        why={event.finding: Why(str(event.relay), one_line(event.text, MAX_WHY))},
    )


Json = str | int | float | bool | list["Json"] | dict[str, "Json"]


def count_object(count: AuditCount) -> dict[str, Json]:
    """A count for programs; keys are stable."""
    return {
        "destination": count.destination,
        "audit": count.level,
        "sessions": count.sessions,
        **{each.name.lower(): count.counts.get(each, 0) for each in Finding},
        "why": {
            each.name.lower(): {"host": why.host, "text": why.text}
            for each, why in count.why.items()
            if each in Finding
        },
        "first": count.first.isoformat(timespec="seconds"),
        "last": count.last.isoformat(timespec="seconds"),
    }


def count_of(made: Mapping[str, object]) -> AuditCount:
    """Read what ``count_object`` made.

    :raises ValueError: (or KeyError, TypeError) if it did not make that.
    """
    reasons = made["why"]
    if not isinstance(reasons, dict):
        raise TypeError("why: not an object")
    return AuditCount(
        destination=str(made["destination"]),
        level=str(made["audit"]),
        first=datetime.fromisoformat(str(made["first"])),
        last=datetime.fromisoformat(str(made["last"])),
        counts={each: int(str(made[each.name.lower()])) for each in Finding if made[each.name.lower()]},
        why={
            each: Why(str(reasons[each.name.lower()]["host"]), str(reasons[each.name.lower()]["text"]))
            for each in Finding
            if each.name.lower() in reasons
        },
    )


def together(counts: Iterable[AuditCount]) -> list[AuditCount]:
    """One count for each destination and level, where several ledgers have their own."""
    found: dict[tuple[str, str], AuditCount] = {}
    for count in sorted(counts, key=lambda each: each.last):
        key = count.destination, count.level
        found[key] = found[key].plus(count) if key in found else count
    return [found[key] for key in sorted(found)]


def totals(counts: Iterable[AuditCount]) -> tuple[int, int, int, int]:
    """Sessions that would verify, sessions, destinations of which all would, destinations."""
    counts = tuple(counts)
    whole = sum(count.verified == count.sessions for count in counts)
    return sum(count.verified for count in counts), sum(count.sessions for count in counts), whole, len(counts)
