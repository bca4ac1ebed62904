"""One frozen dataclass for each fact worth telling; whoever learns it says so to an ``Observer``. Pure.

Nothing else in the relay formats a log line or counts a metric: ``relay.log.postfix`` words these facts as Postfix does,
``relay.log.json`` as objects, ``relay.log.metrics`` as numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from relay.mail.envelope import Address, Client, QueueId, Sender
from relay.mail.reply import Reply
from relay.outcome.dsn import Audience
from relay.outcome.result import Outcome, RelayHost
from relay.policy.audit import Finding
from relay.policy.level import Level
from relay.policy.ratchet import Best
from relay.tls.peer import PeerFacts
from relay.tls.verdict import Word


class Program(Enum):
    """Which of Postfix's programs would have said it; the name after ``postfix/`` in a log line."""

    SMTPD = "smtpd"
    CLEANUP = "cleanup"
    QMGR = "qmgr"
    SMTP = "smtp"
    ERROR = "error"
    DISCARD = "discard"
    BOUNCE = "bounce"
    MASTER = "master"
    POSTSUPER = "postsuper"


# --- smtpd ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClientConnected:
    """A client opened a session."""

    client: Client


@dataclass(frozen=True, slots=True)
class ClientDisconnected:
    """A session ended; ``commands`` counts (accepted, total) by command in the order of first use.

    :param notes: what was odd about it, in Postfix's words: ``bare_lf``.
    """

    client: Client
    commands: Mapping[str, tuple[int, int]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClientLost:
    """A session ended badly: ``how`` is ``lost connection``, ``timeout`` or ``too many errors``, ``after`` the stage."""

    client: Client
    how: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A command was refused for policy; ``where`` is CONNECT, EHLO, MAIL, RCPT, DATA or END-OF-MESSAGE."""

    client: Client
    where: str
    reply: Reply
    sender: str = ""
    recipient: str = ""
    queue_id: str = "NOQUEUE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A message is in the queue, committed; ``message_id`` is the field's value, possibly empty."""

    queue_id: QueueId
    client: Client
    message_id: str
    size: int
    recipients: int


# --- qmgr, bounce ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Activated:
    """A message was taken up for delivery; ``recipients`` counts all of the message's, not only the remaining."""

    queue_id: QueueId
    sender: Sender
    size: int
    recipients: int


@dataclass(frozen=True, slots=True)
class Removed:
    """The last recipient of a message was settled, and the message is gone."""

    queue_id: QueueId


@dataclass(frozen=True, slots=True)
class Expired:
    """A message was too old after another failed attempt and went back to its sender."""

    queue_id: QueueId
    sender: Sender


@dataclass(frozen=True, slots=True)
class Notified:
    """A report was queued: ``kind`` is ``non-delivery``, ``delay`` or ``delivery status``."""

    queue_id: QueueId
    kind: str
    report: QueueId
    audience: Audience = Audience.SENDER


@dataclass(frozen=True, slots=True)
class NotNotified:
    """No report was made, and why: the message itself was a report, or the sender asked for none."""

    queue_id: QueueId
    why: str
    audience: Audience = Audience.SENDER


# --- smtp -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsEstablished:
    """A handshake ended and was judged (whatever the verdict).

    :param reused: whether that was for an earlier message, and this one goes over the same session.
    """

    queue_id: QueueId
    relay: RelayHost
    word: Word
    peer: PeerFacts
    reused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsRefused:
    """Why a certificate was not accepted: Postfix's detail line, from ``certificate verification failed`` on."""

    queue_id: QueueId
    relay: RelayHost
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectFailed:
    """One address could not be connected to."""

    queue_id: QueueId
    relay: RelayHost
    error: str


@dataclass(frozen=True, slots=True)
class HostFailed:
    """One host failed softly and another one follows: ``QID: REASON``."""

    queue_id: QueueId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """One recipient's outcome is committed: the status line."""

    queue_id: QueueId
    recipient: Address
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionAudited:
    """What a stricter level would have done with a session; whatever it was, the delivery did not hear of it.

    :param destination: the next-hop, as a key of policy maps.
    :param asked: the audited level; ``level`` is what it came to for the host.
    :param text: what a finding rests on, in the words that the log would use if the level held.
    """

    queue_id: QueueId
    destination: str
    relay: RelayHost
    asked: Level
    level: Level
    finding: Finding
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Downgraded:
    """A session is about to carry mail that is worth less than the best seen at its destination.

    :param now: what it is worth, in words.
    """

    queue_id: QueueId
    destination: str
    relay: RelayHost
    now: str
    best: Best


# --- anywhere -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Warned:
    """Something an administrator should see; ``text`` follows ``warning: ``."""

    program: Program
    text: str
    queue_id: str = ""


@dataclass(frozen=True, slots=True)
class Noted:
    """Something an administrator may want to see."""

    program: Program
    text: str
    queue_id: str = ""


@dataclass(frozen=True, slots=True)
class ResolverProbed:
    """A probe of the resolver ended: whether it validates, and how that was seen.

    :param resolver: which one is asked from now on; empty if there is none, or no choice.
    :param kind: what sort of resolver that is: ``libunbound-forwarding``, ``libunbound-recursion`` or ``trust-ad``.
    """

    validating: bool
    why: str
    changed: bool
    resolver: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class StoreState:
    """The queue's store takes mail again (``why`` is empty) or stops taking it: an alarm that stands until then."""

    why: str


@dataclass(frozen=True, slots=True)
class Crashed:
    """An exception that nobody expected, caught by a guard; ``where`` names the guard."""

    where: str
    traceback: str
    queue_id: str = ""


Event = (
    ClientConnected
    | ClientDisconnected
    | ClientLost
    | Rejected
    | Accepted
    | Activated
    | Removed
    | Expired
    | Notified
    | NotNotified
    | TlsEstablished
    | TlsRefused
    | ConnectFailed
    | HostFailed
    | Settled
    | SessionAudited
    | Downgraded
    | Warned
    | Noted
    | ResolverProbed
    | StoreState
    | Crashed
)

Observer = Callable[[Event], None]
"""Told of each event as it happens; never raises and never blocks."""
