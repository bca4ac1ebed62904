"""Events worded as Postfix words them, in traditional syslog shape, so that pflogsumm and mailgraph read them. Pure.

The words are those of smtpd.c, cleanup_message.c, qmgr_active.c, log_adhoc.c, tls_misc.c and bounce_notify_service.c.
Whatever a stranger wrote is made one bounded line before it is printed: an event never makes lines of its own choosing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import assert_never

from relay.log.events import (
    Accepted,
    Activated,
    ClientConnected,
    ClientDisconnected,
    ClientLost,
    ConnectFailed,
    Crashed,
    Downgraded,
    Event,
    Expired,
    HostFailed,
    Noted,
    Notified,
    NotNotified,
    Program,
    Rejected,
    Removed,
    ResolverProbed,
    SessionAudited,
    Settled,
    StoreState,
    TlsEstablished,
    TlsRefused,
    Warned,
)
from relay.mail.envelope import sender_text
from relay.outcome.dsn import Audience
from relay.outcome.result import Bounced, Deferred, NoHost, Outcome, RecipientResult, Sent
from relay.outcome.untried import SUSPENDED
from relay.outcome.wording import one_line
from relay.tls.peer import PeerFacts
from relay.tls.verdict import Word

MAX_ADDRESS = 320
MAX_NAME = 255
MAX_TRACEBACK_LINES = 40
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# Before HELO a client has said nothing of an envelope; from MAIL on Postfix prints from=<>, be it empty.
_WITH_SENDER = frozenset({"MAIL", "RCPT", "DATA", "BDAT", "END-OF-MESSAGE"})

Said = Iterator[tuple[Program, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PostfixLines:
    """Words events as lines of ``Nov 22 05:32:05 HOST postfix/smtp[PID]: ...``.

    :param tls_loglevel: from 1 on a summary line is printed for each handshake (smtp_tls_loglevel).
    :param tls_feature_status: whether status lines carry ``tls=`` (smtp_log_tls_feature_status; pflogsumm up to 1.1.5
        overlooks status lines that do).
    :param tz: the time zone of the timestamps, which name none; None for the system's, through summer and winter.
    """

    hostname: str
    pid: int
    syslog_name: str = "postfix"
    tls_loglevel: int = 1
    tls_feature_status: bool = True
    tz: tzinfo | None = UTC

    def lines(self, event: Event, at: datetime) -> tuple[str, ...]:
        """The lines of an event that happened ``at`` (aware), without line ends; most have one, some none or more."""
        before = f"{_stamp(at.replace(microsecond=0), self.tz)} {self.hostname} {self.syslog_name}/"
        return tuple([f"{before}{program.value}[{self.pid}]: {text}" for program, text in self._said(event)])

    def _said(self, event: Event) -> Said:
        match event:
            case ClientConnected() | ClientDisconnected() | ClientLost() | Rejected() | Accepted():
                return _accepting(event)
            case Activated() | Removed() | Expired() | Notified() | NotNotified():
                return _queueing(event)
            case TlsEstablished():
                return _tls_established(event) if self.tls_loglevel >= 1 else iter(())
            case TlsRefused() | ConnectFailed() | HostFailed() | SessionAudited() | Downgraded():
                return _trying(event)
            case Settled():
                return self._settled(event)
            case Warned() | Noted() | ResolverProbed() | StoreState() | Crashed():
                return _telling(event)
            case _:
                assert_never(event)

    def _settled(self, event: Settled) -> Said:
        outcome = event.outcome
        reason = one_line(outcome.result.reason)
        tls = f", tls={outcome.tls}" if outcome.tls and self.tls_feature_status else ""
        text = (
            f"{event.queue_id}: to=<{_address(event.recipient.text)}>, relay={outcome.relay}{_conn_use(outcome)}, "
            f"{delays(outcome)}{tls}, dsn={outcome.result.status}, status={status_word(outcome.result)} ({reason})"
        )
        yield _deliverer(outcome, reason), text


def _deliverer(outcome: Outcome, reason: str) -> Program:
    """Which of Postfix's delivery agents would have said it: smtp(8), or error(8) and discard(8), which know no TLS."""
    if isinstance(outcome.relay, NoHost) and (not outcome.tls or reason.startswith(SUSPENDED)):
        return Program.DISCARD if isinstance(outcome.result, Sent) else Program.ERROR
    return Program.SMTP


@lru_cache(maxsize=16)
def _stamp(at: datetime, tz: tzinfo | None) -> str:
    return timestamp(at.astimezone(tz))


def timestamp(local: datetime) -> str:
    """The traditional syslog timestamp (RFC 3164 section 4.1.2): English month, day padded with a space, no year."""
    return f"{_MONTHS[local.month - 1]} {local.day:2d} {local:%H:%M:%S}"


def seconds(value: float) -> str:
    """A time span with two significant digits, at most two decimals, half up, trailing zeros dropped (format_tv.c).

    :param value: seconds; less than none (a clock set back) counts as none.
    """
    microseconds = max(0, round(value * 1_000_000))
    if microseconds < 1_000_000:
        resolution = 10_000
    elif microseconds < 10_000_000:
        resolution = 100_000
    else:
        resolution = 1_000_000
    return _decimal((microseconds + resolution // 2) // resolution * resolution // 10_000)


@lru_cache(maxsize=1024)
def _decimal(hundredths: int) -> str:
    whole, fraction = divmod(hundredths, 100)
    return f"{whole}.{fraction:02d}".rstrip("0").rstrip(".")


def delays(outcome: Outcome) -> str:
    """``delay=`` and ``delays=`` of a status line (log_adhoc.c)."""
    spans = outcome.delays
    parts = (spans.before_queue, spans.in_queue, spans.setup, spans.transmission)
    return f"delay={seconds(spans.total)}, delays={'/'.join(map(seconds, parts))}"


def status_word(result: RecipientResult) -> str:
    """What follows ``status=``."""
    match result:
        case Sent():
            return "sent"
        case Deferred(softened=True):
            return "SOFTBOUNCE"  # bounce/bounce.c, with soft_bounce
        case Deferred():
            return "deferred"
        case Bounced():
            return "bounced"
        case _:
            assert_never(result)


def tls_summary(peer: PeerFacts) -> str:
    """A session's properties from the protocol on, as in the summary line (tls_misc.c, tls_log_summary)."""
    text = f"{peer.protocol} with cipher {peer.cipher} ({peer.bits}/{peer.algorithm_bits} bits)"
    if peer.key_exchange:
        text += f" key-exchange {peer.key_exchange}"
    if peer.signature:
        text += f" server-signature {peer.signature}"
        if peer.digest:
            text += f" server-digest {peer.digest}"
    return one_line(text)


def _address(text: str) -> str:
    return one_line(text, MAX_ADDRESS)


def _conn_use(outcome: Outcome) -> str:
    return f", conn_use={outcome.reused + 1}" if outcome.reused > 0 else ""


def _accepting(event: ClientConnected | ClientDisconnected | ClientLost | Rejected | Accepted) -> Said:
    client = one_line(str(event.client), MAX_NAME)
    match event:
        case ClientConnected():
            yield Program.SMTPD, f"connect from {client}"
        case ClientDisconnected(commands=commands, notes=notes):
            good = sum(accepted for accepted, _ in commands.values())
            total = sum(count for _, count in commands.values())
            counts = [f"{name}={_count(*pair)}" for name, pair in commands.items()]
            everything = "0/0" if not total else _count(good, total)
            words = [*counts, f"commands={everything}", *(f"notes={note}" for note in notes)]
            yield Program.SMTPD, one_line(f"disconnect from {client} {' '.join(words)}")
        case ClientLost(how=how, after=after):
            yield Program.SMTPD, one_line(f"{how} after {after} from {client}")
        case Rejected():
            yield Program.SMTPD, _reject(event, client)
        case Accepted(queue_id=queue_id, message_id=message_id):
            user, method = event.client.user, event.client.sasl_method
            login = f", sasl_method={method}" if method else ""
            login += f", sasl_username={one_line(user, MAX_NAME)}" if user else ""
            yield Program.SMTPD, f"{queue_id}: client={client}{login}"
            yield Program.CLEANUP, f"{queue_id}: message-id={one_line(message_id.strip()) or '<>'}"
        case _:
            assert_never(event)


def _count(accepted: int, total: int) -> str:
    return str(total) if accepted == total else f"{accepted}/{total}"


def _reject(event: Rejected, client: str) -> str:
    text = f"{event.queue_id}: reject: {event.where} from {client}: {one_line(event.reply.one_line)};"
    if event.sender or event.where in _WITH_SENDER:
        text += f" from=<{_address(event.sender)}>"
    if event.recipient:
        text += f" to=<{_address(event.recipient)}>"
    text += f" proto={event.client.protocol}"
    if event.client.helo:
        text += f" helo=<{one_line(event.client.helo, MAX_NAME)}>"
    if event.client.user:
        text += f" sasl_username={one_line(event.client.user, MAX_NAME)}"
    return text


def _queueing(event: Activated | Removed | Expired | Notified | NotNotified) -> Said:
    match event:
        case Activated(queue_id=queue_id, size=size, recipients=recipients):
            sender = _address(sender_text(event.sender))
            yield Program.QMGR, f"{queue_id}: from=<{sender}>, size={size}, nrcpt={recipients} (queue active)"
        case Removed(queue_id=queue_id):
            yield Program.QMGR, f"{queue_id}: removed"
        case Expired(queue_id=queue_id):
            sender = _address(sender_text(event.sender))
            yield Program.QMGR, f"{queue_id}: from=<{sender}>, status=expired, returned to sender"
        case Notified(queue_id=queue_id, kind=kind, report=report, audience=audience):
            yield Program.BOUNCE, f"{queue_id}: {audience.value} {kind} notification: {report}"
        case NotNotified(queue_id=queue_id, audience=Audience.POSTMASTER):
            yield Program.BOUNCE, f"{queue_id}: undeliverable postmaster notification discarded"
        case NotNotified(queue_id=queue_id, why=why):
            yield Program.BOUNCE, one_line(f"{queue_id}: sender notification not sent: {why}")
        case _:
            assert_never(event)


def _tls_established(event: TlsEstablished) -> Said:
    if event.word is Word.PLAINTEXT:
        return
    host = one_line(str(event.relay), MAX_NAME)
    # No queue ID: Postfix prints none here; the JSON format does.
    how = "reused" if event.reused else "established"
    yield Program.SMTP, f"{event.word.value} TLS connection {how} to {host}: {tls_summary(event.peer)}"


def _trying(event: TlsRefused | ConnectFailed | HostFailed | SessionAudited | Downgraded) -> Said:
    match event:
        case TlsRefused(relay=relay, detail=detail):
            yield Program.SMTP, one_line(detail.replace("{peer}", str(relay)))
        case ConnectFailed(relay=relay, error=error):
            yield Program.SMTP, one_line(f"connect to {relay}: {error}")
        case HostFailed(queue_id=queue_id, reason=reason):
            yield Program.SMTP, f"{queue_id}: {one_line(reason)}"
        case SessionAudited(queue_id=queue_id, relay=relay, asked=asked, finding=finding, text=text):
            told = f"{event.destination} at {relay} {finding.value} at level {asked.word}: {text}"
            yield Program.SMTP, f"{queue_id}: audit: {one_line(told)}"
        case Downgraded(queue_id=queue_id, relay=relay, now=now, best=best):
            told = f"{event.destination} at {relay} is {now}; it was {best.mark.words} at {best.host} on {best.since}"
            yield Program.SMTP, f"warning: {queue_id}: ratchet: {one_line(told)}"
        case _:
            assert_never(event)


def _telling(event: Warned | Noted | ResolverProbed | StoreState | Crashed) -> Said:
    match event:
        case Warned(program=program, text=text, queue_id=queue_id):
            yield program, f"warning: {_prefix(queue_id)}{one_line(text)}"
        case Noted(program=program, text=text, queue_id=queue_id):
            yield program, f"{_prefix(queue_id)}{one_line(text)}"
        case ResolverProbed(validating=True, why=why, changed=changed, resolver=resolver):
            if changed or resolver:
                yield Program.SMTP, one_line(f"resolver validates: {resolver and f'{resolver}: '}{why}")
        case ResolverProbed(why=why):
            yield Program.SMTP, one_line(f"warning: resolver does not validate: {why}")
        case StoreState(why=why):
            if why:
                yield Program.QMGR, f"warning: no mail is taken into the queue: {one_line(why)}"
            else:
                yield Program.QMGR, "mail is taken into the queue again"
        case Crashed(where=where, traceback=traceback, queue_id=queue_id):
            told = [line for line in traceback.splitlines() if line.strip()] or ["no traceback"]
            error = one_line(told[-1])
            yield Program.MASTER, f"warning: {_prefix(queue_id)}unexpected error in {one_line(where)}: {error}"
            for line in told[-MAX_TRACEBACK_LINES:]:
                yield Program.MASTER, f"{_prefix(queue_id)}traceback: {one_line(line)}"
        case _:
            assert_never(event)


def _prefix(queue_id: str) -> str:
    return f"{queue_id}: " if queue_id else ""
