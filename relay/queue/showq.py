"""What is queued, as plain JSON objects: the keys of ``postqueue -j`` (postqueue/showq_json.c) and ours. Pure.

The control socket, the command ``dane-relay queue`` and ``/api/queue`` all show these objects.
"""

from __future__ import annotations

from typing import assert_never

from relay.mail.envelope import sender_text
from relay.policy.override import AsConfigured, TlsOverride
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


def details_object(entry: QueueEntry, header: bytes) -> dict[str, Json]:
    """What a listing has no room for.

    :param header: the header section of its content.
    """
    envelope = entry.message.envelope
    return {
        "envelope": {
            "body": envelope.body.value,
            "smtputf8": envelope.smtputf8,
            "ret": envelope.ret.value,
            "envid": envelope.envid,
            "requiretls": envelope.requiretls,
            "recipients": len(envelope.recipients),
        },
        "client_helo": envelope.client.helo,
        "client_user": envelope.client.user,
        "header": header.decode("utf-8", "backslashreplace").replace("\r\n", "\n"),
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
        "dsn": pending.status,
        **_override(pending.override),
    }


def _override(override: TlsOverride | AsConfigured) -> dict[str, Json]:
    """Nothing where maps and defaults decide."""
    match override:
        case TlsOverride(level=level, by=by, at=at, reason=reason):
            return {"tls_override": {"level": level.word, "by": by, "at": at.isoformat(), "reason": reason}}
        case AsConfigured():
            return {}
        case _:
            assert_never(override)


def counts_object(counts: QueueCounts) -> dict[str, Json]:
    """How much is queued; every state has a number, and ``oldest_arrival`` is empty for an empty queue."""
    return {
        "messages": counts.messages,
        "deliveries": {state.value: counts.deliveries.get(state, 0) for state in EntryState},
        "oldest_arrival": "" if counts.oldest_arrival is None else counts.oldest_arrival.isoformat(),
    }
