"""Small messages that came in lately, kept in memory until their first attempt so that leasing and sending need not read them.

What is here is on the disk as well; forgetting it costs a read. Nothing here changes in the life of a message: what does
(recipients that are done, held, deleted) is always asked of the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from relay.mail.envelope import Message, QueueId

BUDGET_OCTETS = 16 * 1024 * 1024
# What an entry costs beside its content, and what each recipient does.
_OVERHEAD_OCTETS = 1024
_RECIPIENT_OCTETS = 512
# When there is no room: whoever has waited so long for a first attempt waits for a slow destination.
_LONG = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class _Entry:
    message: Message
    content: bytes
    octets: int
    since: datetime


class WarmMessages:
    """Messages with their contents by queue ID, within a budget; those that came first stay, because their turn comes first.

    :param budget: octets.
    """

    def __init__(self, budget: int = BUDGET_OCTETS) -> None:
        self._budget = budget
        self._entries: dict[QueueId, _Entry] = {}
        self.octets = 0

    def keep(self, message: Message, content: bytes, now: datetime) -> None:
        """Keep a message that was committed, if there is room."""
        recipients = len(message.envelope.recipients)
        entry = _Entry(message, content, len(content) + _OVERHEAD_OCTETS + recipients * _RECIPIENT_OCTETS, now)
        if self.octets + entry.octets > self._budget:
            self._forget_the_slow(now)
            if self.octets + entry.octets > self._budget:
                return
        self._entries[message.queue_id] = entry
        self.octets += entry.octets

    def content(self, queue_id: QueueId) -> bytes | None:
        """A content that is here."""
        entry = self._entries.get(queue_id)
        return None if entry is None else entry.content

    def message(self, queue_id: QueueId) -> Message | None:
        """A message that is here, as it was put; may be asked in any thread."""
        entry = self._entries.get(queue_id)
        return None if entry is None else entry.message

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
