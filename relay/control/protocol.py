"""What is said on the control socket: one JSON object a line, each with the version of this protocol in ``v``.

A conversation is one request; then any number of ``item`` lines (of a listing); then one line with ``done`` or ``error``.
Both sides bound what they read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

VERSION = 1
MAX_REQUEST = 256 * 1024
MAX_ANSWER_LINE = 4 * 1024 * 1024
MAX_IDS = 10_000
MAX_ID = 64
SOCKET_NAME = "control"


class BadMessage(ValueError):  # noqa: N818 - it names the fault, not the handling
    """A line that is no message of this protocol; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class QueueList:
    """List queued messages in the order of their IDs, from after ``after`` (empty: from the first) on."""

    after: str = ""


@dataclass(frozen=True, slots=True)
class QueueFlush:
    """Try these messages now, or all."""

    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QueueCount:
    """Count what is queued."""


@dataclass(frozen=True, slots=True)
class Status:
    """Say which process this is and how it is."""


@dataclass(frozen=True, slots=True)
class Reload:
    """Read maps and certificates again."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Finish what is under way and end."""


Request = QueueList | QueueFlush | QueueCount | Status | Reload | Stop


@dataclass(frozen=True, slots=True)
class Item:
    """One object of a listing."""

    value: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Done:
    """The request was carried out, with its one result (empty for a listing)."""

    value: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Failed:
    """The request was not carried out; why, for people."""

    error: str


Answer = Item | Done | Failed


def encode_request(request: Request) -> bytes:
    """A request as its line."""
    match request:
        case QueueList(after=after):
            return _line({"command": "queue list", "after": after})
        case QueueFlush(ids=ids):
            return _line({"command": "queue flush", "ids": list(ids)})
        case QueueCount():
            return _line({"command": "queue counts"})
        case Status():
            return _line({"command": "status"})
        case Reload():
            return _line({"command": "reload"})
        case Stop():
            return _line({"command": "stop"})
        case _:
            assert_never(request)


def decode_request(line: bytes) -> Request:
    """Read a request.

    :raises BadMessage: if it is too long, not JSON, of another version, or not a command.
    """
    message = _message(line, MAX_REQUEST)
    command = message.get("command")
    match command:
        case "queue list":
            return QueueList(after=_id(message.get("after", "")))
        case "queue flush":
            ids = message.get("ids", [])
            if not isinstance(ids, list) or len(ids) > MAX_IDS:
                raise BadMessage(f"ids: not a list of at most {MAX_IDS} queue IDs")
            return QueueFlush(ids=tuple(_id(each) for each in ids))
        case "queue counts":
            return QueueCount()
        case "status":
            return Status()
        case "reload":
            return Reload()
        case "stop":
            return Stop()
        case _:
            raise BadMessage(f"unknown command {str(command)[:40]!r}")


def encode_answer(answer: Answer) -> bytes:
    """An answer as its line."""
    match answer:
        case Item(value=value):
            return _line({"item": value})
        case Done(value=value):
            return _line({"done": value})
        case Failed(error=error):
            return _line({"error": error})
        case _:
            assert_never(answer)


def decode_answer(line: bytes) -> Answer:
    """Read an answer.

    :raises BadMessage: if it is too long, not JSON, of another version, or no answer.
    """
    message = _message(line, MAX_ANSWER_LINE)
    match message:
        case {"item": dict(value)}:
            return Item(value)
        case {"done": dict(value)}:
            return Done(value)
        case {"error": str(error)}:
            return Failed(error)
        case _:
            raise BadMessage("neither item, done nor error")


def _line(message: Mapping[str, object]) -> bytes:
    text = json.dumps({"v": VERSION, **message}, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _message(line: bytes, limit: int) -> dict[str, object]:
    if len(line) > limit:
        raise BadMessage(f"longer than {limit} octets")
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadMessage("not a JSON object") from error
    if not isinstance(message, dict):
        raise BadMessage("not a JSON object")
    if message.get("v") != VERSION:
        raise BadMessage(
            f"version {str(message.get('v'))[:20]} of the control protocol; this side speaks version {VERSION}:"
            " use the dane-relay command of the release that is running"
        )
    return message


def _id(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_ID or not (value.isascii() and (value.isalnum() or not value)):
        raise BadMessage(f"not a queue ID: {str(value)[:80]!r}")
    return value
