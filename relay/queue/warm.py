"""The contents of small messages that came in lately, kept in memory until their first attempt so that it need not read them.

What is here is on the disk as well; forgetting it costs a read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from relay.mail.envelope import QueueId

BUDGET_OCTETS = 16 * 1024 * 1024
# What an entry costs beside its content.
_OVERHEAD_OCTETS = 512
# When there is no room: whoever has waited so long for a first attempt waits for a slow destination.
_LONG = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class _Entry:
    content: bytes
    since: datetime

    @property
    def octets(self) -> int:
        return len(self.content) + _OVERHEAD_OCTETS


class WarmContents:
    """Contents by queue ID, within a budget; those that came first stay, because their turn comes first.

    :param budget: octets.
    """

    def __init__(self, budget: int = BUDGET_OCTETS) -> None:
        self._budget = budget
        self._entries: dict[QueueId, _Entry] = {}
        self.octets = 0

    def keep(self, queue_id: QueueId, content: bytes, now: datetime) -> None:
        """Keep a content that was committed, if there is room."""
        entry = _Entry(content, now)
        if self.octets + entry.octets > self._budget:
            self._forget_the_slow(now)
            if self.octets + entry.octets > self._budget:
                return
        self._entries[queue_id] = entry
        self.octets += entry.octets

    def get(self, queue_id: QueueId) -> bytes | None:
        """A content that is here."""
        entry = self._entries.get(queue_id)
        return None if entry is None else entry.content

    def forget(self, queue_id: QueueId) -> None:
        """The message was attempted, or is gone."""
        entry = self._entries.pop(queue_id, None)
        if entry is not None:
            self.octets -= entry.octets

    def clear(self) -> None:
        """The queue is closed."""
        self._entries.clear()
        self.octets = 0

    def _forget_the_slow(self, now: datetime) -> None:
        while self._entries:
            queue_id, entry = next(iter(self._entries.items()))
            if now - entry.since < _LONG:
                return
            self.forget(queue_id)
