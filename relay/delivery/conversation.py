"""The conversation of one transaction: commands in one write where the host pipelines, the content streamed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from relay.delivery.client import SessionEnded, SmtpConnection, Stage
from relay.delivery.options import Timeouts
from relay.delivery.plan import DotStuffer, Extensions
from relay.mail.reply import Reply, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionReplies:
    """What a host said to each command of a transaction; a reply that was not asked for or not had is absent.

    :param rcpt: replies in the order of the RCPT commands, as far as they came.
    :param final: the reply to the end of data, None if the data was not sent.
    """

    mail: Reply
    rcpt: tuple[Reply, ...] = ()
    data: Reply | None = None
    final: Reply | None = None


async def transact(
    connection: SmtpConnection,
    *,
    mail: bytes,
    rcpts: Sequence[bytes],
    body: AsyncIterator[bytes],
    extensions: Extensions,
    timeouts: Timeouts,
    reset: bool = False,
) -> TransactionReplies:
    """Send one message.

    With PIPELINING the commands up to DATA leave in one write; the data follows only if the host agreed to DATA and took at
    least one recipient.

    :param reset: whether RSET goes first, to end the transaction of a message before.
    :raises SessionEnded: if the session broke; the caller knows by its stage what may have been taken.
    """
    if "PIPELINING" in extensions:
        connection.send_lines([*([b"RSET"] if reset else []), mail, *rcpts, b"DATA"], Stage.MAIL)
        if reset:
            await connection.reply(Stage.RSET, timeouts.rset)
        replies = TransactionReplies(
            mail=await connection.reply(Stage.MAIL, timeouts.mail),
            rcpt=tuple([await connection.reply(Stage.RCPT, timeouts.rcpt) for _ in rcpts]),
            data=await connection.reply(Stage.DATA, timeouts.data_init),
        )
    else:
        if reset:
            await connection.command(b"RSET", Stage.RSET, timeouts.rset)
        replies = await _one_by_one(connection, mail, rcpts, timeouts)
    if replies.data is None or replies.data.severity is not Severity.INTERMEDIATE:
        return replies
    if not _taken(replies):
        # RFC 2920 section 3.1: a host that agreed to DATA without recipients gets an empty message, which it must refuse.
        final = await connection.command(b".", Stage.END, timeouts.data_done)
        return TransactionReplies(mail=replies.mail, rcpt=replies.rcpt, data=final)
    try:
        await _send_body(connection, body, timeouts)
    except SessionEnded:
        if not connection.has_unread:
            raise
        # The host answered before it had heard all, and hung up: its answer is the better reason.
    final = await connection.reply(Stage.END, timeouts.data_done)
    return TransactionReplies(mail=replies.mail, rcpt=replies.rcpt, data=replies.data, final=final)


def _taken(replies: TransactionReplies) -> bool:
    return replies.mail.severity is Severity.SUCCESS and any(
        reply.severity is Severity.SUCCESS for reply in replies.rcpt
    )


async def _one_by_one(
    connection: SmtpConnection, mail: bytes, rcpts: Sequence[bytes], timeouts: Timeouts
) -> TransactionReplies:
    mail_reply = await connection.command(mail, Stage.MAIL, timeouts.mail)
    if mail_reply.severity is not Severity.SUCCESS:
        return TransactionReplies(mail=mail_reply)
    rcpt = [await connection.command(line, Stage.RCPT, timeouts.rcpt) for line in rcpts]
    replies = TransactionReplies(mail=mail_reply, rcpt=tuple(rcpt))
    if not _taken(replies):
        return replies
    data = await connection.command(b"DATA", Stage.DATA, timeouts.data_init)
    return TransactionReplies(mail=mail_reply, rcpt=tuple(rcpt), data=data)


async def _send_body(connection: SmtpConnection, body: AsyncIterator[bytes], timeouts: Timeouts) -> None:
    stuffer = DotStuffer()
    async for chunk in body:
        connection.send_octets(stuffer.feed(chunk), Stage.BODY)
        await connection.drain(Stage.BODY, timeouts.data_xfer)
    connection.send_octets(stuffer.end(), Stage.BODY)
