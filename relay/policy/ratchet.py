"""The ratchet: never below the best that was seen at a destination, unless the administrator says so. Pure.

It stands where levels are opportunistic: the default ``may``, and ``dane`` wherever it is asked for. There an attacker on
the way (STARTTLS stripped) or with power over a zone (records or DNSSEC gone) gets less than was had before, and nothing
else would notice. The laws:

* A line of a policy map that names ``none``, ``may`` or ``encrypt`` is the administrator's word: the ratchet does not stand
  against it. That is also the way out for a destination that gave up TLS or DANE.
* It never asks for more than the level asked for could have given: ``may`` is held at encryption, ``dane`` at TLSA records.
* Only what carried mail counts as seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from enum import Enum, IntEnum

from relay.policy.level import Level
from relay.policy.policy import Decision, Defaults, Entry, MapEntry, NoEntry, Rule, TlsPolicy, Withheld, rule_of


class Ratchet(Enum):
    """``smtp.tls_ratchet``."""

    OFF = "off"
    ALARM = "alarm"
    ENFORCE = "enforce"


class Mark(IntEnum):
    """What a session that carried mail was worth."""

    NOTHING = 0
    ENCRYPTED = 1
    DANE = 2
    """The host was proved by TLSA records, behind secure MX records."""

    @property
    def words(self) -> str:
        """For people."""
        return {Mark.NOTHING: "in the clear", Mark.ENCRYPTED: "encrypted", Mark.DANE: "proved by DANE"}[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best that was seen at a destination.

    :param host: where it was seen first, ``NAME[ADDRESS]:PORT``.
    :param since: the day (UTC) on which it was seen first; ``last`` the day on which it was seen last.
    """

    mark: Mark
    host: str
    since: date
    last: date


UNSEEN = Best(mark=Mark.NOTHING, host="", since=date.min, last=date.min)


def mark_of(policy: TlsPolicy, *, encrypted: bool) -> Mark:
    """What a session is worth whose verdict satisfied a policy."""
    if not encrypted:
        return Mark.NOTHING
    return Mark.DANE if policy.level in {Level.DANE, Level.DANE_ONLY} else Mark.ENCRYPTED


def held_at(entry: Entry, defaults: Defaults, best: Best) -> Mark:
    """What the ratchet asks for at a destination with this entry."""
    if isinstance(entry, NoEntry):
        level = defaults.level
    elif isinstance(entry, MapEntry) and entry.level is Level.DANE:
        level = entry.level
    else:
        return Mark.NOTHING
    if level is Level.MAY:
        return min(best.mark, Mark.ENCRYPTED)
    return best.mark if level is Level.DANE else Mark.NOTHING


def is_below(decision: Decision, held: Mark) -> bool:
    """Whether mail could leave under a decision for less than the ratchet asks for."""
    if isinstance(decision, Withheld):
        return False
    if held is Mark.DANE:
        return not decision.level.requires_match or decision.level is Level.HALFDANE
    return held is Mark.ENCRYPTED and not decision.level.requires_tls


def raised(entry: Entry, defaults: Defaults, held: Mark, best: Best) -> MapEntry:
    """The entry to decide by instead."""
    rule = rule_of(entry, defaults)
    place = f"ratchet ({best.mark.words} at {best.host} on {best.since}) over {rule.place}"
    level = Level.DANE_ONLY if held is Mark.DANE else Level.ENCRYPT
    made = Rule(place, rule.text)
    if isinstance(entry, MapEntry):
        return replace(entry, level=level, rule=made, since="")
    return MapEntry(level=level, rule=made)
