"""One message over one session: which recipients the host took, and in what words it refused the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Final

from relay.delivery.client import SessionEnded, Stage, abort_on_error
from relay.delivery.conversation import Chunking, TransactionReplies, transact
from relay.delivery.fitting import Body, Unfit, fit
from relay.delivery.opening import Session
from relay.delivery.options import DeliveryOptions
from relay.delivery.plan import mail_command, rcpt_command
from relay.delivery.trouble import CONNECTION_TROUBLE, Kind, Trouble
from relay.log.events import Noted, Observer, Program
from relay.mail.envelope import Message, Recipient, RecipientId
from relay.mail.reply import EnhancedStatus, Reply, Severity
from relay.outcome.result import FromPeer, Local, Sent
from relay.outcome.wording import one_line


class Stale(Enum):
    """The session is to blame, and nothing was taken: a fresh one is to be asked.

    It had carried mail before, or the host does not know the chunks that it offered to take.
    """

    STALE = "stale"


STALE: Final = Stale.STALE

Answers = Mapping[RecipientId, Sent | Trouble | Stale]


async def send_message(
    session: Session,
    message: Message,
    recipients: Sequence[Recipient],
    *,
    body: Body,
    options: DeliveryOptions,
    observe: Observer,
    chunking: bool = True,
) -> Answers:
    """Send a message to some of its recipients; the session stays open, and its wear tells what it has been through.

    :param body: opens the content; what it raises passes through, and the host never sees an end of data then.
    :param chunking: whether BDAT may be used where it is offered.
    :returns: an answer for every recipient.
    """
    limit = options.line_length_limit

    def broke() -> None:
        text = f"breaking line > {limit} bytes with <CR><LF>SPACE"
        observe(Noted(Program.SMTP, text, message.queue_id))

    wear = session.wear
    try:
        with abort_on_error(session.connection):
            fitted = await fit(
                message,
                recipients,
                body,
                host=session.relay.namaddr,
                extensions=session.extensions,
                line_length_limit=limit,
                broke=broke,
            )
            if isinstance(fitted, Unfit):
                kind = Kind.HARD_IF_LAST if fitted.last else Kind.HARD
                unfit = _local(session, fitted.status, one_line(fitted.text), kind=kind)
                return dict.fromkeys((recipient.id for recipient in recipients), unfit)
            replies = await transact(
                session.connection,
                mail=mail_command(fitted.message, session.extensions),
                rcpts=[rcpt_command(recipient, session.extensions) for recipient in recipients],
                body=fitted.body(),
                extensions=session.extensions,
                timeouts=options.timeouts,
                reset=wear.in_transaction,
                chunking=_chunking(session, chunking),
            )
    except SessionEnded as ended:
        # Before the end of the data nothing was taken. Behind it the host may have: that is not to be tried at once.
        lost: Trouble | Stale = STALE
        if not wear.messages or ended.stage is Stage.END:
            lost = _local(session, CONNECTION_TROUBLE, one_line(ended.reason(session.relay.namaddr)), throttles=True)
        return dict.fromkeys((recipient.id for recipient in recipients), lost)
    answers = _answers(session, recipients, replies)
    if replies.knows_no_chunks:
        answers, wear.no_chunks = dict.fromkeys(answers, STALE), True
    _wear_out(session, replies)
    return answers


def _chunking(session: Session, allowed: bool) -> Chunking:
    if not allowed:
        return Chunking.NO
    return Chunking.PROVED if session.wear.chunks else Chunking.OFFERED


def _wear_out(session: Session, replies: TransactionReplies) -> None:
    """Note what a transaction did to the session."""
    wear = session.wear
    wear.messages += 1
    wear.chunks = wear.chunks or (replies.chunked and not replies.spent)
    wear.unwelcome |= replies.spent
    wear.in_transaction = replies.final is None and replies.mail.severity is Severity.SUCCESS
    for reply in _all(replies):
        wear.refusals += reply.severity not in (Severity.SUCCESS, Severity.INTERMEDIATE)
        wear.unwelcome |= reply.code == 421


def _all(replies: TransactionReplies) -> Iterator[Reply]:
    yield replies.mail
    yield from replies.rcpt
    if replies.data is not None:
        yield replies.data
    if replies.final is not None:
        yield replies.final


def _answers(session: Session, recipients: Sequence[Recipient], replies: TransactionReplies) -> Answers:
    """Pair recipients with replies: each command's refusal stands for those whom the later commands would have served."""
    if replies.mail.severity is not Severity.SUCCESS:
        # Hosts that take only so many messages in a session say so here, in whatever words.
        refused = STALE if session.wear.messages else _said(session, replies.mail, "MAIL FROM command")
        return dict.fromkeys((recipient.id for recipient in recipients), refused)
    answers: dict[RecipientId, Sent | Trouble | Stale] = {}
    for recipient, reply in zip(recipients, replies.rcpt, strict=True):
        if reply.severity is not Severity.SUCCESS:
            answers[recipient.id] = _refused(session, reply, "RCPT TO command")
        elif replies.final is not None:
            answers[recipient.id] = _ended(session, replies.final)
        elif replies.data is not None:
            answers[recipient.id] = _refused(session, replies.data, "DATA command")
        else:
            raise AssertionError("a recipient was taken and DATA never sent")
    return answers


def _refused(session: Session, reply: Reply, command: str) -> Trouble | Stale:
    """A refusal; one that ends a used session (421) says more about the session than about the message."""
    return STALE if reply.code == 421 and session.wear.messages else _said(session, reply, command)


def _ended(session: Session, final: Reply) -> Sent | Trouble | Stale:
    if final.severity is Severity.SUCCESS:
        return Sent(status=final.status, reply=final, dsn_passed_on="DSN" in session.extensions)
    return _refused(session, final, "end of DATA command")


def _said(session: Session, reply: Reply, command: str) -> Trouble:
    """A refusal in the host's words (postfix smtp_trouble.c); a class that is none of 4 and 5 breaks the protocol."""
    text = f"host {session.relay.namaddr} said: {reply.one_line} (in reply to {command})"
    status, kind = reply.status, Kind.HARD if reply.severity is Severity.PERMANENT else Kind.SOFT
    if reply.severity not in (Severity.TRANSIENT, Severity.PERMANENT):
        text, status, kind = f"Protocol error: {text}", EnhancedStatus(4, 5, 0), Kind.SOFT
    return Trouble(
        status=status,
        reason=one_line(text),
        diagnostic=FromPeer(reply=reply, mta=session.relay.name),
        relay=session.relay,
        tls=session.tls,
        kind=kind,
        throttles=False,
        verdict_reached=True,
        reused=session.wear.messages,
    )


def _local(
    session: Session, status: EnhancedStatus, text: str, *, kind: Kind = Kind.SOFT, throttles: bool = False
) -> Trouble:
    return Trouble(
        status=status,
        reason=text,
        diagnostic=Local(text),
        relay=session.relay,
        tls=session.tls,
        kind=kind,
        throttles=throttles,
        verdict_reached=True,
        reused=session.wear.messages,
    )
