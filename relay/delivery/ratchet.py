"""The ratchet at work: notes what sessions that carried mail were worth, and tells of those that are worth less."""

from __future__ import annotations

from collections.abc import Callable

from relay.delivery.leg import Leg
from relay.delivery.opening import Session
from relay.delivery.trouble import Trouble
from relay.log.events import Downgraded, Observer
from relay.mail.envelope import QueueId
from relay.outcome.result import RelayHost
from relay.policy.ratchet import Mark, held_at, mark_of
from relay.tls.verdict import Plaintext

Saw = Callable[[str, Mark, str], None]
"""(next-hop, what a session was worth, its host): called for every session that carried mail."""


class RatchetWatch:
    """See ``relay.delivery.watch.Watch``.

    :param saw: keeps the best.
    """

    def __init__(self, *, saw: Saw, observe: Observer) -> None:
        self._saw = saw
        self._observe = observe

    def had(self, leg: Leg, relay: RelayHost, opened: Session | Trouble, queue_id: QueueId) -> None:
        """Sound the alarm before mail goes; where the ratchet is enforced, no such session is ever opened."""
        if isinstance(opened, Trouble):
            return
        held, mark = held_at(leg.entry, leg.defaults, leg.best), _mark(opened)
        if mark < held:
            self._observe(
                Downgraded(queue_id=queue_id, destination=leg.next_hop.key, relay=relay, now=mark.words, best=leg.best)
            )

    def reused(self, leg: Leg, relay: RelayHost, session: Session, queue_id: QueueId) -> None:
        """Sound it for each message."""
        self.had(leg, relay, session, queue_id)

    def carried(self, leg: Leg, relay: RelayHost, session: Session) -> None:
        """Remember what mail went over."""
        self._saw(leg.next_hop.key, _mark(session), str(relay))


def _mark(session: Session) -> Mark:
    return mark_of(session.policy, encrypted=not isinstance(session.verdict, Plaintext))
