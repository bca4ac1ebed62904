"""Expected against got, where *got* is what receivers and name server recorded and what the log says. Pure.

Nothing here knows the relay: a relay that claims one thing and does another is caught by the receivers, and one that
does the right thing and logs another by the log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email import message_from_bytes

from relay.lab.destination import Asked, Destination, Ending, Host, Session
from relay.lab.logbook import SessionLine, StatusLine, read_log
from relay.lab.nameserver import Query, asked
from relay.lab.record import Reach, Received, SessionRecord
from relay.lab.zones import Placement

# The ``tls=`` of attempts that asked the host for a handshake under DANE.
_DANE_REACHED = frozenset({"dane", "!dane", "halfdane"})
# What hosts put in front: trace fields, and what those write that keep a mailbox.
_TRACE_FIELDS = re.compile(
    rb"(?:Received|Return-Path|Delivered-To|X-Original-To|Envelope-to|Delivery-date): ?[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a run left behind outside the relay.

    :param sessions: by host name.
    :param sent: the content that was handed to the relay, by destination name.
    :param reports: messages that came back to the sender.
    """

    log: Sequence[str]
    sessions: Mapping[str, Sequence[SessionRecord]]
    queries: Sequence[Query]
    reports: Sequence[Received]
    sent: Mapping[str, bytes]
    placement: Placement


@dataclass(frozen=True, slots=True)
class Row:
    """One destination's line of the table; ``differences`` is empty where all is as expected."""

    destination: Destination
    expected: str
    got: str
    differences: tuple[str, ...]

    @property
    def as_expected(self) -> bool:
        """Whether the relay did what it must."""
        return not self.differences


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One attempt as the log tells it."""

    line: StatusLine
    word: str


def score(destinations: Sequence[Destination], evidence: Evidence) -> tuple[Row, ...]:
    """The table, one row a destination."""
    attempts = _attempts(evidence.log)
    return tuple(_row(one, attempts.get(one.recipient, []), evidence) for one in destinations)


def complete(destinations: Sequence[Destination], evidence: Evidence) -> bool:
    """Whether everything that is expected to happen has had its turn: all attempts logged, all reports back."""
    attempts = _attempts(evidence.log)
    return all(
        len(attempts.get(one.recipient, [])) >= len(one.endings)
        and (not one.bounces or report_about(one, evidence.reports))
        for one in destinations
    )


def _attempts(log: Sequence[str]) -> dict[str, list[_Attempt]]:
    """The attempts by recipient; a session line belongs to the next status line that names its host."""
    attempts: dict[str, list[_Attempt]] = {}
    words: dict[str, str] = {}
    for line in read_log(log):
        match line:
            case SessionLine():
                words[line.host] = line.word
            case StatusLine():
                attempts.setdefault(line.recipient, []).append(_Attempt(line, words.pop(line.relay, "")))
    return attempts


def _row(one: Destination, attempts: Sequence[_Attempt], evidence: Evidence) -> Row:
    differences: list[str] = []
    got: list[str] = []
    for number, ending in enumerate(one.endings):
        if number >= len(attempts):
            differences.append(f"attempt {number + 1} was not logged")
            got.append("nothing logged")
            continue
        last = number == len(one.endings) - 1
        session = _session(one, attempts[number], evidence, last=last)
        got.append(_ending_text(attempts[number].line, session))
        differences += _compare(ending, attempts[number].line, session)
    differences += compare_receivers(one, evidence.sessions, evidence.sent)
    differences += _compare_queries(one, evidence)
    if one.bounces and not report_about(one, evidence.reports):
        differences.append("no report came back to the sender")
    expected = ", then ".join(map(_expected_text, one.endings))
    return Row(one, expected, ", then ".join(got), tuple(dict.fromkeys(differences)))


def _session(one: Destination, attempt: _Attempt, evidence: Evidence, *, last: bool) -> Session:
    """The receivers' word counts for what went in clear, the log's for what was verified."""
    if last:
        for record in _records(one, evidence):
            if any(not command.encrypted and command.verb == "MAIL" for command in record.commands):
                return Session.CLEAR
    return Session(attempt.word) if attempt.word else Session.NONE


def _compare(ending: Ending, line: StatusLine, session: Session) -> list[str]:
    facts = (
        ("status", ending.status.value, line.status),
        ("dsn", ending.dsn, line.dsn),
        ("session", ending.session.value, session.value),
        ("tls", ending.tls, line.tls),
        ("relay", ending.relay, line.relay),
    )
    differences = [
        f"{name}: expected {wanted}; got {found or 'none'}" for name, wanted, found in facts if wanted != found
    ]
    if ending.reason not in line.reason:
        differences.append(f"reason: expected {ending.reason!r}; got {line.reason!r}")
    return differences


def compare_receivers(
    one: Destination, sessions: Mapping[str, Sequence[SessionRecord]], sent: Mapping[str, bytes]
) -> list[str]:
    """How far the message got, where, how often, and whether it was the same message."""
    differences = []
    wanted_host = _host_name(one, one.endings[-1].relay)
    for host in one.hosts:
        records = sessions.get(host.name, ())
        reach = max((record.reach for record in records), default=Reach.NOTHING)
        wanted = one.reach if host.name == wanted_host else Reach.NOTHING
        if reach is not wanted:
            differences.append(f"at {host.name}: expected {wanted.name.lower()}; got {reach.name.lower()}")
        differences += _compare_names(one, host, records)
        delivered = [message for record in records for message in record.received if message.accepted]
        if len(delivered) > 1:
            differences.append(f"at {host.name}: delivered {len(delivered)} times")
        same = _same_content if "8BITMIME" in host.script.extensions else _same_but_for_encoding
        if not all(same(sent.get(one.name, b""), message.content) for message in delivered):
            differences.append(f"at {host.name}: the content differs from what was sent")
    return differences


def _compare_names(one: Destination, host: Host, records: Sequence[SessionRecord]) -> list[str]:
    """Under DANE the host must have been asked for by its TLSA base domain (RFC 7672 section 8.1)."""
    if not host.tlsa or one.endings[-1].tls not in _DANE_REACHED:
        return []
    asked_for = {record.tls.sni for record in records if record.tls is not None}
    wrong = sorted(asked_for - {host.tlsa_base})
    return [f"at {host.name}: SNI expected {host.tlsa_base}; got {name or 'none'}" for name in wrong]


def _compare_queries(one: Destination, evidence: Evidence) -> list[str]:
    if one.tlsa is Asked.EITHER:
        return []
    owners = [evidence.placement.tlsa_owner(host.tlsa_base) for host in one.hosts]
    got = Asked.YES if any(asked(evidence.queries, owner, "TLSA") for owner in owners) else Asked.NO
    return [] if got is one.tlsa else [f"TLSA records: expected {one.tlsa.value}; got {got.value}"]


def _same_content(sent: bytes, content: bytes) -> bool:
    """Whether the content is what was sent, with trace fields before it and nothing else (RFC 5321 section 4.4)."""
    if not sent or not content.endswith(sent):
        return False
    return (
        re.fullmatch(rb"(?:%b)+" % _TRACE_FIELDS.pattern, content[: len(content) - len(sent)], re.IGNORECASE)
        is not None
    )


def _same_but_for_encoding(sent: bytes, content: bytes) -> bool:
    """Whether the content is what was sent, or the same in 7 bits for a host that takes no more (RFC 6152 section 3)."""
    if _same_content(sent, content):
        return True
    before, after = message_from_bytes(sent), message_from_bytes(content)
    kept = [field for field in before.items() if field[0].lower() != "content-transfer-encoding"]
    return (
        content.isascii()
        and all(field in after.items() for field in kept)
        and before.get_payload(decode=True) == after.get_payload(decode=True)
    )


def report_about(one: Destination, reports: Sequence[Received], *, exact: bool = True) -> bool:
    """Whether a delivery report about this destination came back (RFC 3464), with the null sender.

    :param exact: whether its status must be the one that is expected, and not only of its class.
    """
    local, domain = one.recipient.rsplit("@", 1)
    # RFC 6533 section 3: a report may write a UTF-8 address in an ASCII form of its own.
    local_pattern = re.escape(local) if local.isascii() else r"\S+"
    final = re.compile(rf"(?im)^Final-Recipient: (?:rfc822|utf-8); ?{local_pattern}@{re.escape(domain)}\s*$".encode())
    dsn = one.endings[-1].dsn
    status = f"Status: {dsn if exact else '5.'}".encode()
    return any(not report.sender and final.search(report.content) and status in report.content for report in reports)


def _records(one: Destination, evidence: Evidence) -> list[SessionRecord]:
    return [record for host in one.hosts for record in evidence.sessions.get(host.name, ())]


def _host_name(one: Destination, shown: str) -> str:
    return next((host.name for host in one.hosts if host.shown_name == shown), shown)


def _expected_text(ending: Ending) -> str:
    return f"{ending.status.value} {ending.dsn}, {ending.session.value}, {ending.tls}"


def _ending_text(line: StatusLine, session: Session) -> str:
    return f"{line.status} {line.dsn}, {session.value}, {line.tls or 'no tls='}"
