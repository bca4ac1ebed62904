"""The conversation of one transaction: what can go in one write does, and the content is streamed.

With PIPELINING the commands up to DATA leave together. With CHUNKING beside it the content needs no leave: a small message
follows its commands in the same write, so that it takes one round trip. That is done only in a session whose host has taken a
chunk before. A host that does not know BDAT after all would read content for commands; so nothing is sent that way until
recipients were taken, the first time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from relay.delivery.client import SessionEnded, SmtpConnection, Stage, lines_of
from relay.delivery.framing import Chunks
from relay.delivery.options import Timeouts
from relay.delivery.plan import DotStuffer, Extensions
from relay.mail.reply import Reply, Severity

ONE_WRITE: Final = 64 * 1024
"""Octets of content that go with their commands at most: more is not worth sending in vain to recipients that are refused."""
_NOT_UNDERSTOOD: Final = frozenset({500, 501, 502, 503, 504, 555})


class Chunking(Enum):
    """How far BDAT may be used."""

    NO = "not at all"
    OFFERED = "after recipients were taken"
    PROVED = "in one write with the commands"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionReplies:
    """What a host said to each command of a transaction; a reply that was not asked for or not had is absent.

    :param rcpt: replies in the order of the RCPT commands, as far as they came.
    :param final: the reply to the end of data, None if the data was not sent.
    :param chunked: whether the content went in chunks.
    :param spent: whether nobody knows what the host will say next, so that the session must end.
    """

    mail: Reply
    rcpt: tuple[Reply, ...] = ()
    data: Reply | None = None
    final: Reply | None = None
    chunked: bool = False
    spent: bool = False

    @property
    def knows_no_chunks(self) -> bool:
        """Whether a host that offered CHUNKING, and took recipients, did not understand BDAT."""
        return self.chunked and self.final is not None and _taken(self) and self.final.code in _NOT_UNDERSTOOD


@dataclass(frozen=True, slots=True)
class _Commands:
    """The commands that go together, RSET first if there is one."""

    lines: tuple[bytes, ...]
    rcpts: int
    reset: bool


async def transact(
    connection: SmtpConnection,
    *,
    mail: bytes,
    rcpts: Sequence[bytes],
    body: AsyncIterator[bytes],
    extensions: Extensions,
    timeouts: Timeouts,
    reset: bool = False,
    chunking: Chunking = Chunking.NO,
) -> TransactionReplies:
    """Send one message.

    With DATA the content follows only if the host agreed and took at least one recipient.

    :param reset: whether RSET goes first, to end the transaction of a message before.
    :raises SessionEnded: if the session broke; the caller knows by its stage what may have been taken.
    """
    commands = _Commands((b"RSET", mail, *rcpts) if reset else (mail, *rcpts), len(rcpts), reset)
    if "PIPELINING" in extensions and "CHUNKING" in extensions and chunking is not Chunking.NO:
        if chunking is Chunking.PROVED:
            return await _at_once(connection, commands, body, timeouts)
        return await _in_chunks(connection, commands, body, timeouts)
    if "PIPELINING" in extensions:
        connection.send_lines((*commands.lines, b"DATA"), Stage.MAIL)
        replies = await _envelope(connection, commands, timeouts)
        replies = replace(replies, data=await connection.reply(Stage.DATA, timeouts.data_init))
    else:
        if reset:
            await connection.command(b"RSET", Stage.RSET, timeouts.rset)
        replies = await _one_by_one(connection, mail, rcpts, timeouts)
    if replies.data is None or replies.data.severity is not Severity.INTERMEDIATE:
        return replies
    if not _taken(replies):
        # RFC 2920 section 3.1: a host that agreed to DATA without recipients gets an empty message, which it must refuse.
        final = await connection.command(b".", Stage.END, timeouts.data_done)
        return replace(replies, data=final)
    try:
        await _send_body(connection, body, timeouts)
    except SessionEnded:
        if not connection.has_unread:
            raise
        # The host answered before it had heard all, and hung up: its answer is the better reason.
    return replace(replies, final=await connection.reply(Stage.END, timeouts.data_done))


async def _envelope(
    connection: SmtpConnection, commands: _Commands, timeouts: Timeouts, stage: Stage = Stage.RCPT
) -> TransactionReplies:
    """The replies to commands that were sent together.

    :param stage: what it means if the session breaks once the host has begun to answer.
    """
    if commands.reset:
        await connection.reply(Stage.RSET, timeouts.rset)
    return TransactionReplies(
        mail=await connection.reply(Stage.MAIL, timeouts.mail),
        rcpt=tuple([await connection.reply(stage, timeouts.rcpt) for _ in range(commands.rcpts)]),
    )


async def _at_once(
    connection: SmtpConnection, commands: _Commands, body: AsyncIterator[bytes], timeouts: Timeouts
) -> TransactionReplies:
    """Everything in one write, if there is not too much of it."""
    pieces, octets = list[bytes](), 0
    async for piece in body:
        pieces.append(piece)
        octets += len(piece)
        if octets > ONE_WRITE:
            return await _in_chunks(connection, commands, body, timeouts, begun=pieces)
    chunks = Chunks()
    chunks.feed(b"".join(pieces))
    connection.send_octets(lines_of(commands.lines) + chunks.end(), Stage.MAIL)
    # A host that answers at all may have taken the message, wherever it breaks off.
    replies = await _envelope(connection, commands, timeouts, Stage.END)
    final = await connection.reply(Stage.END, timeouts.data_done)
    spent = final.severity is not Severity.SUCCESS
    return TransactionReplies(mail=replies.mail, rcpt=replies.rcpt, final=final, chunked=True, spent=spent)


async def _in_chunks(
    connection: SmtpConnection,
    commands: _Commands,
    body: AsyncIterator[bytes],
    timeouts: Timeouts,
    *,
    begun: Sequence[bytes] = (),
) -> TransactionReplies:
    """The commands, and when recipients were taken the content, chunk behind chunk without waiting for each reply.

    :param begun: pieces of the content that were read already.
    """
    connection.send_octets(lines_of(commands.lines), Stage.MAIL)
    replies = await _envelope(connection, commands, timeouts)
    if not _taken(replies):
        return replies
    replies, chunks = replace(replies, chunked=True), Chunks()
    try:
        for piece in begun:
            connection.send_octets(chunks.feed(piece), Stage.BODY)
        async for piece in body:
            connection.send_octets(chunks.feed(piece), Stage.BODY)
            await connection.drain(Stage.BODY, timeouts.data_xfer)
            while chunks.sent and connection.has_reply:
                reply = await connection.reply(Stage.BODY, timeouts.data_xfer)
                if reply.severity is not Severity.SUCCESS:
                    return replace(replies, final=reply, spent=True)
                chunks.sent -= 1
        connection.send_octets(chunks.end(), Stage.BODY)
    except SessionEnded:
        if not connection.has_reply:
            raise
        # As with DATA: the host's answer is the better reason.
    return await _chunks_taken(connection, replies, chunks.sent, timeouts)


async def _chunks_taken(
    connection: SmtpConnection, replies: TransactionReplies, chunks: int, timeouts: Timeouts
) -> TransactionReplies:
    """The replies to chunks; the first refusal is the answer for all."""
    reply = await connection.reply(Stage.END, timeouts.data_done)
    for _ in range(chunks - 1):
        if reply.severity is not Severity.SUCCESS:
            break
        reply = await connection.reply(Stage.END, timeouts.data_done)
    return replace(replies, final=reply, spent=reply.severity is not Severity.SUCCESS)


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
