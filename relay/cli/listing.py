"""How ``dane-relay queue list`` prints: a table for people, ``postqueue -p`` and ``postqueue -j``. Pure.

Each takes the objects of ``relay.queue.showq.entry_object`` one by one and gives lines one by one, so that a queue of any
length is listed in little memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, tzinfo

from relay.outcome.wording import one_line

Entry = Mapping[str, object]
Listing = Callable[[Iterable[Entry], tzinfo | None], Iterator[str]]

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TABLE_HEAD = (
    f"{'Queue ID':<18} {'State':<9} {'Size':>9}  {'Arrived':<19}  {'Tries':>5}  {'Next try':<19}  Sender, recipients"
)
_MARKS = {"active": "*", "hold": "!"}


def as_postqueue(entries: Iterable[Entry], zone: tzinfo | None) -> Iterator[str]:
    """As ``postqueue -p`` with long queue IDs (postqueue/showq_compat.c).

    :param zone: of the arrival times; None for the system's.
    """
    messages = octets = 0
    for entry in entries:
        if messages:
            yield ""
        else:
            yield f"{'----Queue ID-----':<17} {'--Size--':>8} {'---Arrival Time----':<19} --Sender/Recipient------"
        messages += 1
        size = _number(entry, "message_size")
        octets += size
        name = _text(entry, "queue_id") + _MARKS.get(_text(entry, "queue_name"), "")
        yield f"{name:<17} {size:8d} {_ctime(entry, zone)} {_text(entry, 'sender')}"
        yield from _postqueue_recipients(entry)
    if not messages:
        yield "Mail queue is empty"
        return
    yield ""
    yield f"-- {octets // 1024} Kbytes in {messages} Request{'' if messages == 1 else 's'}."


def _postqueue_recipients(entry: Entry) -> Iterator[str]:
    """Those that were deferred first, as showq reads the defer log first; a reason once for all that share it."""
    shown = ""
    for recipient in sorted(_recipients(entry), key=lambda each: "delay_reason" not in each):
        reason = _text(recipient, "delay_reason")
        if reason != shown:
            shown = reason
            told = f"({reason or 'reason unavailable'})"
            yield " " * max(0, 78 - len(told.encode("utf-8", "replace"))) + told
        yield f"{'':<17} {'':>8} {'':<19} {_text(recipient, 'address')}"


def as_json(entries: Iterable[Entry], zone: tzinfo | None) -> Iterator[str]:
    """As ``postqueue -j``: one object a line, with keys of ours after Postfix's."""
    del zone
    for entry in entries:
        yield json.dumps(entry, ensure_ascii=True)


def as_table(entries: Iterable[Entry], zone: tzinfo | None) -> Iterator[str]:
    """For people: a line a recipient, and below it why it is still here."""
    messages = octets = 0
    for entry in entries:
        if not messages:
            yield _TABLE_HEAD
        messages += 1
        octets += _number(entry, "message_size")
        arrived = _moment(_text(entry, "arrived_at"), zone)
        yield (
            f"{_text(entry, 'queue_id'):<18} {_text(entry, 'queue_name'):<9} {_number(entry, 'message_size'):>9}"
            f"  {arrived:<19}  {'':>5}  {'':<19}  {_text(entry, 'sender')}"
        )
        for recipient in _recipients(entry):
            due = _moment(_text(recipient, "next_attempt"), zone)
            yield (
                f"{'':<18} {_text(recipient, 'state'):<9} {'':>9}  {'':<19}  {_number(recipient, 'attempts'):>5}"
                f"  {due:<19}    {_text(recipient, 'address')}"
            )
            if reason := _text(recipient, "delay_reason"):
                yield f"{'':<20}{reason}"
            if override := _override(recipient):
                yield f"{'':<20}{override}"
    if messages:
        yield f"{messages} message{'' if messages == 1 else 's'}, {octets} octets"
    else:
        yield "The queue is empty."


def shown_lines(entry: Entry, details: Entry, zone: tzinfo | None) -> Iterator[str]:
    """One message for people: ``relay.queue.showq.entry_object`` and ``details_object``."""
    yield f"queue ID    {_text(entry, 'queue_id')} ({_text(entry, 'queue_name')})"
    yield f"arrived     {_moment(_text(entry, 'arrived_at'), zone)}"
    user = _text(details, "client_user")
    yield f"client      {_text(entry, 'client')}{f', user {user}' if user else ''}"
    yield f"size        {_number(entry, 'message_size')} octets"
    envelope = details.get("envelope")
    if isinstance(envelope, dict):
        words = [f"{key}={one_line(str(value))}" for key, value in envelope.items() if value not in ("", False)]
        yield f"envelope    {' '.join(words)}"
    yield f"sender      {_text(entry, 'sender')}"
    for recipient in _recipients(entry):
        yield f"recipient   {_text(recipient, 'address')}"
        yield f"            {_text(recipient, 'state')}, to {_text(recipient, 'destination')}"
        tries = f"            {_number(recipient, 'attempts')} tries"
        if last := _text(recipient, "last_attempt"):
            tries += f", the last at {_moment(last, zone)}"
        yield f"{tries}, next at {_moment(_text(recipient, 'next_attempt'), zone)}"
        if reason := _text(recipient, "delay_reason"):
            yield f"            {_text(recipient, 'dsn')} {reason}".rstrip()
        if override := _override(recipient):
            yield f"            {override}"
    yield ""
    header = details.get("header")
    yield from (one_line(line) for line in header.rstrip("\n").split("\n")) if isinstance(header, str) else ()


def _override(recipient: Entry) -> str:
    override = recipient.get("tls_override")
    if not isinstance(override, dict):
        return ""
    by, at, reason = (_text(override, key) for key in ("by", "at", "reason"))
    return f"TLS level {_text(override, 'level')}: override by {by} at {at}: {reason}"


def summary_lines(counts: Mapping[str, object], zone: tzinfo | None) -> Iterator[str]:
    """What ``relay.queue.showq.counts_object`` says, for people."""
    yield f"messages    {_number(counts, 'messages')}"
    deliveries = counts.get("deliveries")
    for state, number in deliveries.items() if isinstance(deliveries, dict) else ():
        yield f"{one_line(str(state)):<11} {number} deliveries"
    if oldest := _text(counts, "oldest_arrival"):
        yield f"oldest      {_moment(oldest, zone)}"


def group_lines(groups: Sequence[Entry], total: Entry, zone: tzinfo | None) -> Iterator[str]:
    """Recipients by what they have in common, for people.

    :param total: how many groups there are, and how many recipients are in those that are not shown.
    """
    if not groups:
        yield "The queue is empty, or the filter means nothing in it."
        return
    yield f"{'Recipients':>10}  {'Oldest':<19}  Group"
    for group in groups:
        name = _text(group, "group") or "(none)"
        oldest = _moment(_text(group, "oldest_arrival"), zone)
        yield f"{_number(group, 'recipients'):>10}  {oldest:<19}  {name}"
    if others := _number(total, "recipients_of_others"):
        yield f"{others:>10}  {'':<19}  in {_number(total, 'groups') - len(groups)} other groups or more"


def _ctime(entry: Entry, zone: tzinfo | None) -> str:
    """asctime(3) without the year."""
    at = datetime.fromtimestamp(_number(entry, "arrival_time"), zone)
    return f"{_DAYS[at.weekday()]} {_MONTHS[at.month - 1]} {at.day:2d} {at:%H:%M:%S}"


def _moment(text: str, zone: tzinfo | None) -> str:
    try:
        return f"{datetime.fromisoformat(text).astimezone(zone):%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return one_line(text, 19)


def _recipients(entry: Entry) -> list[Entry]:
    recipients = entry.get("recipients")
    return [each for each in recipients if isinstance(each, dict)] if isinstance(recipients, list) else []


def _text(record: Entry, key: str) -> str:
    value = record.get(key, "")
    return one_line(value) if isinstance(value, str) else ""


def _number(record: Entry, key: str) -> int:
    value = record.get(key, 0)
    return value if isinstance(value, int) else 0
