"""What is said on the control socket: one JSON object a line, each with the version of this protocol in ``v``.

A conversation is one request; then any number of ``item`` lines (of a listing) and ``underway`` lines (of long work); then one
line with ``done`` or ``error``.
Both sides bound what they read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from relay.ledger.commands import COMMANDS as LEDGER_COMMANDS

VERSION = 1
MAX_REQUEST = 512 * 1024
MAX_ANSWER_LINE = 4 * 1024 * 1024
MAX_ID = 64
MAX_REASON = 500
MAX_DESTINATION = 300
MAX_PATH = 4096
MAX_ASKER = 100
SOCKET_NAME = "control"
_ACT = ("verb", "where", "reason", "tls_level", "dry_run")


class BadMessage(ValueError):  # noqa: N818 - it names the fault, not the handling
    """A line that is no message of this protocol; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class QueueList:
    """List queued messages in the order of their IDs, from after ``after`` (empty: from the first) on.

    :param where: a filter; empty for whole messages, all of them.
    """

    after: str = ""
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueAct:
    """Do something to queued mail.

    :param verb: of ``relay.queue.administration.Verb``.
    :param tls_level: of what is requeued; empty for what maps and defaults say.
    """

    verb: str
    where: str
    reason: str = ""
    tls_level: str = ""
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class QueueShow:
    """Show one message."""

    queue_id: str


@dataclass(frozen=True, slots=True)
class HoldRules:
    """List the rules for mail that comes in."""


@dataclass(frozen=True, slots=True)
class HoldRuleAdd:
    """Hold mail that comes in and that this filter means."""

    where: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HoldRuleRemove:
    """End a rule."""

    number: int


@dataclass(frozen=True, slots=True)
class QueueBackup:
    """Copy the whole queue into a file, whose absolute path this is; the relay writes it."""

    path: str


@dataclass(frozen=True, slots=True)
class QueueCount:
    """Count what is queued."""


@dataclass(frozen=True, slots=True)
class QueueGroups:
    """Count recipients by what they have in common.

    :param by: of ``relay.queue.acts.GroupBy``.
    :param whole: whether to name the small groups too.
    """

    by: str
    where: str
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """Say which process this is and how it is."""


@dataclass(frozen=True, slots=True)
class Alive:
    """Answer when what must not be stuck has answered."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Say everything counted, as Prometheus reads it."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Say why mail cannot be taken and delivered, if it cannot."""


@dataclass(frozen=True, slots=True)
class Reload:
    """Read maps and certificates again."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Finish what is under way and end."""


@dataclass(frozen=True, slots=True)
class LedgerAsk:
    """Ask something of the ledger, of one destination or (empty) of all (relay/ledger/commands.py)."""

    command: str
    destination: str = ""


QueueRequest = (
    QueueList | QueueAct | QueueShow | QueueBackup | QueueCount | QueueGroups | HoldRules | HoldRuleAdd | HoldRuleRemove
)
Request = QueueRequest | LedgerAsk | Status | Alive | Numbers | Readiness | Reload | Stop


# What is said in a word.
_WORDS: Mapping[object, Request] = {
    "queue counts": QueueCount(),
    "hold rules": HoldRules(),
    "status": Status(),
    "alive": Alive(),
    "numbers": Numbers(),
    "readiness": Readiness(),
    "reload": Reload(),
    "stop": Stop(),
}


@dataclass(frozen=True, slots=True)
class Item:
    """One object of a listing."""

    value: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Underway:
    """How far a long request is."""

    value: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Done:
    """The request was carried out, with its one result (empty for a listing)."""

    value: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Failed:
    """The request was not carried out; why, for people."""

    error: str


Answer = Item | Underway | Done | Failed


def encode_request(request: Request) -> bytes:
    """A request as its line."""
    match request:
        case QueueList(after=after, where=where):
            return _line({"command": "queue list", "after": after, "where": where})
        case QueueAct():
            return _line({"command": "queue act", **{name: getattr(request, name) for name in _ACT}})
        case QueueShow(queue_id=queue_id):
            return _line({"command": "queue show", "id": queue_id})
        case QueueBackup(path=path):
            return _line({"command": "queue backup", "path": path})
        case HoldRules() | HoldRuleAdd() | HoldRuleRemove():
            return _encode_rules(request)
        case QueueCount():
            return _line({"command": "queue counts"})
        case QueueGroups(by=by, where=where, whole=whole):
            return _line({"command": "queue groups", "by": by, "where": where, "whole": whole})
        case Status() | Alive() | Numbers() | Readiness() | Reload() | Stop():
            return _line({"command": type(request).__name__.lower()})
        case LedgerAsk(command=command, destination=destination):
            return _line({"command": command, "destination": destination})
        case _:
            assert_never(request)


def on_behalf(request: Request, by: str) -> bytes:
    """A request as its line, passed on for somebody who asked the parent of the process that gets it."""
    return encode_request(request)[:-2] + b"," + json.dumps({"by": by[:MAX_ASKER]}).encode()[1:] + b"\n"


def asker(line: bytes) -> str:
    """For whom a request was passed on; empty where the one who said it wants it himself.

    :raises BadMessage: if that is no name, or the line none of this protocol.
    """
    by = _text(_message(line, MAX_REQUEST), "by")
    if len(by) > MAX_ASKER or not by.isprintable():
        raise BadMessage("by: not a name")
    return by


def no_such_message(queue_id: str) -> str:
    """What is said of a message that is not there."""
    return f"{queue_id}: no such message in the queue"


def _encode_rules(request: HoldRules | HoldRuleAdd | HoldRuleRemove) -> bytes:
    match request:
        case HoldRules():
            return _line({"command": "hold rules"})
        case HoldRuleAdd(where=where, reason=reason):
            return _line({"command": "hold rule add", "where": where, "reason": reason})
        case HoldRuleRemove(number=number):
            return _line({"command": "hold rule remove", "number": number})
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
            return QueueList(after=_id(message.get("after", "")), where=_text(message, "where"))
        case "queue act":
            return QueueAct(
                verb=_text(message, "verb"),
                where=_text(message, "where"),
                reason=_reason(message),
                tls_level=_text(message, "tls_level"),
                dry_run=message.get("dry_run") is True,
            )
        case "queue show":
            return QueueShow(_id(message.get("id", "")))
        case "queue backup":
            return QueueBackup(_path(message))
        case "hold rule add":
            return HoldRuleAdd(_text(message, "where"), _reason(message))
        case "hold rule remove":
            return HoldRuleRemove(_number(message, "number"))
        case "queue groups":
            return QueueGroups(_text(message, "by"), _text(message, "where"), message.get("whole") is True)
        case str() if command in _WORDS:
            return _WORDS[command]
        case str() if command in LEDGER_COMMANDS:
            return LedgerAsk(command, _destination(message.get("destination", "")))
        case _:
            raise BadMessage(f"unknown command {str(command)[:40]!r}")


def encode_answer(answer: Answer) -> bytes:
    """An answer as its line."""
    match answer:
        case Item(value=value):
            return _line({"item": value})
        case Underway(value=value):
            return _line({"underway": value})
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
        case {"underway": dict(value)}:
            return Underway(value)
        case {"done": dict(value)}:
            return Done(value)
        case {"error": str(error)}:
            return Failed(error)
        case _:
            raise BadMessage("neither item, underway, done nor error")


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


def _destination(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_DESTINATION:
        raise BadMessage(f"not a destination: {str(value)[:80]!r}")
    return value


def _text(message: Mapping[str, object], key: str) -> str:
    value = message.get(key, "")
    if not isinstance(value, str):
        raise BadMessage(f"{key}: not a text")
    return value


def _reason(message: Mapping[str, object]) -> str:
    reason = _text(message, "reason")
    if len(reason) > MAX_REASON or not reason.isprintable():
        raise BadMessage(f"reason: not one line of at most {MAX_REASON} characters")
    return reason


def _path(message: Mapping[str, object]) -> str:
    path = _text(message, "path")
    if not path.startswith("/") or not path.isprintable() or len(path) > MAX_PATH:
        raise BadMessage(f"path: not an absolute path of at most {MAX_PATH} characters")
    return path


def _number(message: Mapping[str, object], key: str) -> int:
    value = message.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise BadMessage(f"{key}: not a number")
    return value


def _id(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_ID or not (value.isascii() and (value.isalnum() or not value)):
        raise BadMessage(f"not a queue ID: {str(value)[:80]!r}")
    return value
