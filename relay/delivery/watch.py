"""Who looks on at sessions without a hand in them: audits and the ratchet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from relay.delivery.leg import Leg
from relay.delivery.opening import Session
from relay.delivery.trouble import Trouble
from relay.mail.envelope import QueueId
from relay.outcome.result import RelayHost


class Watch(Protocol):
    """Told what happens; neither blocks nor raises."""

    def had(self, leg: Leg, relay: RelayHost, opened: Session | Trouble, queue_id: QueueId) -> None:
        """A session was opened or refused, and nothing is sent over it yet."""

    def reused(self, leg: Leg, relay: RelayHost, session: Session, queue_id: QueueId) -> None:
        """A session that was had for another message is used again, and nothing of this one is sent yet."""

    def carried(self, leg: Leg, relay: RelayHost, session: Session) -> None:
        """A message went over a session and was taken."""


class Watches:
    """Several of them as one."""

    def __init__(self, watches: Sequence[Watch] = ()) -> None:
        self._watches = tuple(watches)

    def had(self, leg: Leg, relay: RelayHost, opened: Session | Trouble, queue_id: QueueId) -> None:
        """See ``Watch``."""
        for watch in self._watches:
            watch.had(leg, relay, opened, queue_id)

    def reused(self, leg: Leg, relay: RelayHost, session: Session, queue_id: QueueId) -> None:
        """See ``Watch``."""
        for watch in self._watches:
            watch.reused(leg, relay, session, queue_id)

    def carried(self, leg: Leg, relay: RelayHost, session: Session) -> None:
        """See ``Watch``."""
        for watch in self._watches:
            watch.carried(leg, relay, session)
