"""Which recipients of which queued messages a command means: filters as data, and whether one means a recipient. Pure.

A filter is about recipients: of a message to two domains, ``domain:`` means one half. ``filter_text`` reads them,
``matching`` asks the database for what they mean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import assert_never

from relay.mail.envelope import QueueId
from relay.queue.store import EntryState


@dataclass(frozen=True, slots=True)
class Everything:
    """Every recipient."""


@dataclass(frozen=True, slots=True)
class InDomain:
    """The recipient's domain, or with ``below`` any sub-domain of it; as ``str(Domain)`` or ``str(IpLiteral)``."""

    name: str
    below: bool = False


@dataclass(frozen=True, slots=True)
class IsRecipient:
    """The recipient's address, without regard to ASCII case."""

    address: str


@dataclass(frozen=True, slots=True)
class FromSender:
    """The sender's address, without regard to ASCII case; empty for the null sender."""

    address: str


@dataclass(frozen=True, slots=True)
class FromDomain:
    """The sender's domain."""

    name: str


@dataclass(frozen=True, slots=True)
class ToDestination:
    """The scheduling key of the next-hop."""

    key: str


class Sign(Enum):
    """How a number compares."""

    MORE = ">"
    AT_LEAST = ">="
    LESS = "<"
    AT_MOST = "<="


@dataclass(frozen=True, slots=True)
class Age:
    """Seconds since the message came in."""

    sign: Sign
    seconds: int


@dataclass(frozen=True, slots=True)
class Size:
    """Octets of the message."""

    sign: Sign
    octets: int


@dataclass(frozen=True, slots=True)
class At:
    """Where the delivery is."""

    place: EntryState


@dataclass(frozen=True, slots=True)
class LastStatus:
    """The enhanced status code of the last attempt: whole, or its first numbers."""

    prefix: str


@dataclass(frozen=True, slots=True)
class ReasonHas:
    """The reason of the last attempt has this text, without regard to ASCII case; in lower case."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasonLike:
    """A regular expression finds something in the reason of the last attempt, without regard to case.

    :param position: of the expression in the filter, for who finds a fault in it.
    """

    pattern: str
    position: int


@dataclass(frozen=True, slots=True)
class HasId:
    """One of these queue IDs."""

    ids: frozenset[QueueId]


@dataclass(frozen=True, slots=True)
class Not:
    """What the inner filter does not mean."""

    inner: Filter


@dataclass(frozen=True, slots=True)
class And:
    """What all mean."""

    inner: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """What any means."""

    inner: tuple[Filter, ...]


Term = (
    Everything
    | InDomain
    | IsRecipient
    | FromSender
    | FromDomain
    | ToDestination
    | Age
    | Size
    | At
    | LastStatus
    | ReasonHas
    | ReasonLike
    | HasId
)
Filter = Term | Not | And | Or


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One queued recipient, as filters see it; texts as they are stored."""

    queue_id: QueueId
    sender: str
    sender_domain: str
    recipient: str
    domain: str
    destination: str
    arrived_at: datetime
    size: int
    place: EntryState
    status: str
    reason: str


def ascii_lower(text: str) -> str:
    """Lower case for ASCII letters alone, as SQLite's ``lower``."""
    return "".join(chr(ord(each) + 32) if "A" <= each <= "Z" else each for each in text)


def ids_of(where: Filter) -> frozenset[QueueId] | None:
    """The only messages that a filter can mean, where it names them; None where it may mean any."""
    match where:
        case HasId(ids):
            return ids
        case And(inner):
            known = [ids for ids in map(ids_of, inner) if ids is not None]
            return frozenset.intersection(*known) if known else None
        case Or(inner):
            each = [ids_of(one) for one in inner]
            return None if None in each else frozenset().union(*(ids for ids in each if ids is not None))
        case _:
            return None


def fits_arrivals(where: Filter) -> bool:
    """Whether a filter asks only for what is known of a message that comes in: no age, no status, no reason, no ID."""
    match where:
        case Not(inner):
            return fits_arrivals(inner)
        case And(inner) | Or(inner):
            return all(map(fits_arrivals, inner))
        case Age() | At() | LastStatus() | ReasonHas() | ReasonLike() | HasId():
            return False
        case Everything() | InDomain() | IsRecipient() | FromSender() | FromDomain() | ToDestination() | Size():
            return True
        case _:
            assert_never(where)


def matches(where: Filter, facts: Facts, now: datetime) -> bool:
    """Whether a filter means a recipient."""
    match where:
        case Not(inner):
            return not matches(inner, facts, now)
        case And(inner):
            return all(matches(one, facts, now) for one in inner)
        case Or(inner):
            return any(matches(one, facts, now) for one in inner)
        case _:
            return _term_matches(where, facts, now)


def _term_matches(term: Term, facts: Facts, now: datetime) -> bool:
    match term:
        case Everything():
            return True
        case InDomain(name, below):
            return facts.domain.endswith(f".{name}") if below else facts.domain == name
        case IsRecipient(address):
            return ascii_lower(facts.recipient) == address
        case ToDestination(key):
            return facts.destination == key
        case At(place):
            return facts.place is place
        case LastStatus(prefix):
            return f"{facts.status}.".startswith(f"{prefix}.")
        case ReasonHas(text):
            return text in ascii_lower(facts.reason)
        case ReasonLike(pattern):
            return re.search(pattern, facts.reason, re.IGNORECASE) is not None
        case _:
            return _message_matches(term, facts, now)


def _message_matches(term: FromSender | FromDomain | Age | Size | HasId, facts: Facts, now: datetime) -> bool:
    match term:
        case FromSender(address):
            return ascii_lower(facts.sender) == address
        case FromDomain(name):
            return facts.sender_domain == name
        case Age(sign, seconds):
            return compare(sign, (now - facts.arrived_at).total_seconds(), seconds)
        case Size(sign, octets):
            return compare(sign, facts.size, octets)
        case HasId(ids):
            return facts.queue_id in ids
        case _:
            assert_never(term)


def compare(sign: Sign, number: float, bound: float) -> bool:
    """Whether a number is on the side of a bound that the sign says."""
    match sign:
        case Sign.MORE:
            return number > bound
        case Sign.AT_LEAST:
            return number >= bound
        case Sign.LESS:
            return number < bound
        case Sign.AT_MOST:
            return number <= bound
        case _:
            assert_never(sign)
