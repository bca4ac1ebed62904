"""What is queued, as plain JSON objects: the keys of ``postqueue -j`` (postqueue/showq_json.c) and ours. Pure.

The control socket, the command ``dane-relay queue`` and ``/api/queue`` all show these objects.
"""

from __future__ import annotations

from relay.mail.envelope import sender_text
from relay.queue.store import EntryState, PendingRecipient, QueueCounts, QueueEntry

Json = str | int | float | bool | list["Json"] | dict[str, "Json"]


def entry_object(entry: QueueEntry) -> dict[str, Json]:
    """One message: postqueue's keys first and in its order, then ours."""
    message = entry.message
    return {
        "queue_name": entry.state.value,
        "queue_id": message.queue_id,
        "arrival_time": int(message.arrived_at.timestamp()),
        "message_size": message.size,
        "forced_expire": False,
        "sender": sender_text(message.envelope.sender) or "MAILER-DAEMON",
        "recipients": [_recipient(pending) for pending in entry.recipients],
        "client": str(message.envelope.client),
        "arrived_at": message.arrived_at.isoformat(),
    }


def _recipient(pending: PendingRecipient) -> dict[str, Json]:
    address = pending.recipient.address.text
    # Postfix has no key at all where there is no reason yet.
    reason: dict[str, Json] = {"delay_reason": pending.reason} if pending.reason else {}
    return {
        "orig_address": address,
        "address": address,
        **reason,
        "destination": pending.destination,
        "state": pending.state.value,
        "attempts": pending.attempts,
        "next_attempt": pending.next_attempt.isoformat(),
        "last_attempt": "" if pending.last_attempt is None else pending.last_attempt.isoformat(),
    }


def counts_object(counts: QueueCounts) -> dict[str, Json]:
    """How much is queued; every state has a number, and ``oldest_arrival`` is empty for an empty queue."""
    return {
        "messages": counts.messages,
        "deliveries": {state.value: counts.deliveries.get(state, 0) for state in EntryState},
        "oldest_arrival": "" if counts.oldest_arrival is None else counts.oldest_arrival.isoformat(),
    }
