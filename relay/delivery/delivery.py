"""What one attempt is given: a delivery, and the rules in force when it began."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from relay.delivery.opening import Session
from relay.delivery.pool import Terms
from relay.delivery.route import NextHops, Route
from relay.mail.envelope import Message, Recipient
from relay.mail.names import NextHop
from relay.policy.exceptions import in_force
from relay.policy.override import AsConfigured, TlsOverride
from relay.policy.policy import Defaults, Entry
from relay.policy.ratchet import UNSEEN, Best, Ratchet
from relay.sasl.passwords import NO_TABLES, CredentialTables


def _nothing_seen(destination: str) -> Best:
    del destination
    return UNSEEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """The administrator's rules as one attempt sees them; a reload makes a new object and leaves attempts theirs.

    :param lookup: the map entry for a next-hop, lines that have ended included until ``at`` says which those are.
    :param credentials: who we log in as, and where.
    :param written_for_fallback: places of the lines whose key is a fallback relay itself: they alone may ask for less
        there than the policy of the destination that it stands in for.
    :param best: the best that was seen at a next-hop, by its key; nothing where the ratchet is off.
    :param edition: the same object for all that one reading of the rules gave: a session carries mail of one edition only.
    """

    lookup: Callable[[NextHop], Entry]
    defaults: Defaults
    credentials: CredentialTables = NO_TABLES
    written_for_fallback: frozenset[str] = frozenset()
    ratchet: Ratchet = Ratchet.OFF
    best: Callable[[str], Best] = _nothing_seen
    edition: object = None

    def at(self, now: datetime) -> Policies:
        """The rules as they stand at one time: an attempt goes by the day on which it began, from first to last."""
        return Policies(
            lookup=lambda next_hop: in_force(self.lookup(next_hop), now),
            defaults=self.defaults,
            credentials=self.credentials,
            written_for_fallback=self.written_for_fallback,
            ratchet=self.ratchet,
            best=self.best,
            edition=self.edition,
        )


def overridden(policies: Policies, override: TlsOverride | AsConfigured) -> Policies:
    """The rules for mail that may carry an override: that takes the place of every map entry and default."""
    match override:
        case TlsOverride():
            entry = override.entry
            return replace(policies, lookup=lambda next_hop: entry)
        case AsConfigured():
            return policies
        case _:
            assert_never(override)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What is to be delivered: some recipients of a message, all of one route.

    :param configured: whether the administrator named the route's next-hops, and not the sender of the message.
    :param fallback: the fallback relays, in order: tried when every next-hop of the route failed softly.
    :param leased_at: when the queue gave it out.
    :param body: opens the content; called anew for each transaction.
    :param held: gets each session that the attempt is done with, and its terms; whoever settles the outcomes gives it back to
        the pool. None gives it back at once.
    """

    message: Message
    route: Route
    recipients: tuple[Recipient, ...]
    leased_at: datetime
    configured: bool = False
    fallback: NextHops = ()
    body: Callable[[], AsyncIterator[bytes]]
    held: list[tuple[Terms, Session]] | None = None

    @property
    def waited(self) -> float:
        """Seconds from the message's arrival until the queue gave it out this time."""
        return max(0.0, (self.leased_at - self.message.arrived_at).total_seconds())
