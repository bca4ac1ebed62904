"""Plays every scenario against a mail server and scores it by what the hosts saw; the server's own word counts for nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from relay.lab.client import Submission, submit
from relay.lab.destination import Destination, Session
from relay.lab.real.evidence import read_evidence
from relay.lab.real.layout import Laid
from relay.lab.real.plan import Plan, Server
from relay.lab.record import Reach, Received, SessionRecord
from relay.lab.scenarios import DESTINATIONS, RETURN_HOST
from relay.lab.scoreboard import compare_receivers, report_about

LOOK_SECONDS = 0.5
_MESSAGE_ID = re.compile(rb"^Message-ID: (<[^>]+>)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Seen:
    """One scenario's line of the scoreboard.

    :param differences: empty where all is as expected.
    """

    destination: Destination
    expected: str
    got: str
    differences: tuple[str, ...]

    @property
    def as_expected(self) -> bool:
        """Whether the server did what it must."""
        return not self.differences


def play(
    laid: Laid,
    server: tuple[str, int],
    *,
    now: datetime,
    patience: float,
    quiet: float,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> tuple[tuple[Seen, ...], Submission]:
    """Send one message to each destination, wait for what must come of it, and score.

    :param server: address and port of the mail server's SMTP service.
    :param patience: seconds after which what has not happened counts as not happening.
    :param quiet: seconds to look on after all has happened that must, for what must not.
    :raises OSError: if the server takes no mail.
    """
    submission = submit(server, DESTINATIONS, now)
    until = monotonic() + patience
    while monotonic() < until and not _complete(laid.plan, _of_run(read_evidence(laid), submission)):
        sleep(LOOK_SECONDS)
    sleep(quiet)
    return score(laid.plan, _of_run(read_evidence(laid), submission), submission), submission


def _of_run(
    sessions: Mapping[str, Sequence[SessionRecord]], submission: Submission
) -> Mapping[str, Sequence[SessionRecord]]:
    """What the hosts saw, without messages of other senders and of earlier runs: a run's messages have IDs of their own."""
    marks = [found[1] for content in submission.sent.values() if (found := _MESSAGE_ID.search(content))]

    def ours(host: str, message: Received) -> bool:
        return host == RETURN_HOST.name or any(mark in message.content for mark in marks)

    return {
        host: [replace(record, received=[one for one in record.received if ours(host, one)]) for record in records]
        for host, records in sessions.items()
    }


def score(plan: Plan, sessions: Mapping[str, Sequence[SessionRecord]], submission: Submission) -> tuple[Seen, ...]:
    """The scoreboard, one row a scenario."""
    reports = _reports(sessions)
    return tuple(_row(one, plan, sessions, reports, submission) for one in DESTINATIONS)


def _complete(plan: Plan, sessions: Mapping[str, Sequence[SessionRecord]]) -> bool:
    reports = _reports(sessions)
    return all(
        (one.reach is not Reach.DELIVERED or _reached(one, sessions) is Reach.DELIVERED)
        and (not one.bounces or report_about(one, reports, exact=False))
        and not _unapproached(one, plan, sessions)
        for one in DESTINATIONS
    )


def _unapproached(one: Destination, plan: Plan, sessions: Mapping[str, Sequence[SessionRecord]]) -> list[str]:
    """The hosts that had to be called before anything could be refused, and were not; real ones do not tell."""
    wanted = {ending.relay for ending in one.endings}
    return [
        host.name
        for host in one.hosts
        if host.shown_name in wanted and plan.servers[host.name] is Server.SCRIPTED and not sessions.get(host.name)
    ]


def _reports(sessions: Mapping[str, Sequence[SessionRecord]]) -> list[Received]:
    return [message for record in sessions.get(RETURN_HOST.name, ()) for message in record.received]


def _row(
    one: Destination,
    plan: Plan,
    sessions: Mapping[str, Sequence[SessionRecord]],
    reports: Sequence[Received],
    submission: Submission,
) -> Seen:
    differences = [f"{name} was never called" for name in _unapproached(one, plan, sessions)]
    if one.name in submission.refused:
        differences.append(f"not taken: {submission.refused[one.name]}")
    differences += compare_receivers(one, sessions, submission.sent)
    wanted_clear = one.endings[-1].session is Session.CLEAR
    in_clear = [message.accepted for message in _messages(one, sessions) if not message.encrypted]
    if in_clear and not wanted_clear:
        differences.append("content went in clear")
    if one.reach is Reach.DELIVERED and wanted_clear and not in_clear and _messages(one, sessions):
        differences.append("expected in clear; went over TLS")
    reported = report_about(one, reports, exact=False)
    if one.bounces and not reported:
        differences.append("no report came back to the sender")
    if not one.bounces and reported:
        differences.append("a report came back to the sender")
    return Seen(one, _expected(one), _got(one, sessions, reported=reported), tuple(dict.fromkeys(differences)))


def _messages(one: Destination, sessions: Mapping[str, Sequence[SessionRecord]]) -> list[Received]:
    return [message for host in one.hosts for record in sessions.get(host.name, ()) for message in record.received]


def _reached(one: Destination, sessions: Mapping[str, Sequence[SessionRecord]]) -> Reach:
    records = [record for host in one.hosts for record in sessions.get(host.name, ())]
    return max((record.reach for record in records), default=Reach.NOTHING)


_WORDS: Mapping[Reach, str] = {
    Reach.NOTHING: "nothing said",
    Reach.ENVELOPE: "envelope only",
    Reach.CONTENT: "content sent, not taken",
    Reach.DELIVERED: "delivered",
}


def _expected(one: Destination) -> str:
    words = _WORDS[one.reach]
    if one.reach is Reach.DELIVERED:
        words += " in clear" if one.endings[-1].session is Session.CLEAR else " over TLS"
    return words + (", bounced" if one.bounces else "")


def _got(one: Destination, sessions: Mapping[str, Sequence[SessionRecord]], *, reported: bool) -> str:
    reach = _reached(one, sessions)
    words = _WORDS[reach]
    if reach is Reach.DELIVERED:
        words += " over TLS" if all(message.encrypted for message in _messages(one, sessions)) else " in clear"
    return words + (", bounced" if reported else "")
