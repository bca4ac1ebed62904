"""One session on aiosmtpd: its connection, its STARTTLS, its task; everything that is said is ours.

The only file that uses private names of aiosmtpd (DESIGN section 4; ``tests/unit/smtpd/test_private_names.py`` fails when
one of them changes). From ``aiosmtpd.smtp.SMTP``:

* ``_handle_client``: the coroutine of a connection; replaced, and with it the dispatch to every ``smtp_*`` method
* ``_handler_coroutine``: its task, made by ``connection_made``; cancelled by ``abort``
* ``_reader``, ``_writer``: the streams, set by ``connection_made``
* ``_original_transport``, ``_tls_protocol``: the plain transport under TLS and what makes TLS of it, set by ``smtp_STARTTLS``
* ``_reset_timeout``: the timer of a command; replaced by the deadlines of ``incoming.py``

and these public ones in ways that its documentation does not promise: ``push`` (called with the text of the 220 by
``smtp_STARTTLS``), ``command_size_limits`` (shared by all sessions there), ``line_length_limit`` (the stream's limit).
"""

from __future__ import annotations

import asyncio
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import AnyStr

from aiosmtpd.smtp import SMTP, TLSSetupException

from relay.log.events import (
    ClientConnected,
    ClientDisconnected,
    ClientLost,
    Crashed,
    Noted,
    Observer,
    Program,
    Rejected,
    Warned,
)
from relay.mail.envelope import Client, Envelope
from relay.mail.reply import Reply
from relay.smtpd import replies
from relay.smtpd.access import client_address
from relay.smtpd.authentication import Authenticator
from relay.smtpd.commands import Command, quoted, read_command
from relay.smtpd.content import BareLineEnds
from relay.smtpd.dialogue import Dialogue
from relay.smtpd.incoming import BLOCK_OCTETS, LOST, TIMED_OUT, ClientGone, Incoming, Odd
from relay.smtpd.lobby import Admission, Entry, Lobby
from relay.smtpd.naming import NameOf, name_without_dns
from relay.smtpd.options import SmtpdOptions
from relay.smtpd.outgoing import Outgoing
from relay.smtpd.patience import Patience
from relay.smtpd.reception import Accept, Reception
from relay.smtpd.server import client_tls
from relay.smtpd.wrapped import Hello

TOO_MANY_ERRORS = "too many errors"
# Seconds that a client has to take our last words and close, before the connection is cut.
_LINGER = 10.0


class Session(SMTP):
    """A connection of a client, from the greeting to the end.

    :param lobby: the sessions of the same server.
    :param accept: takes each message.
    :param observe: told of what happens.
    :param refusal: why no message could be taken now; None while one could.
    :param tls_context: for STARTTLS; None means that TLS is not offered.
    :param name_of: the client's name, for the log and the Received field.
    :param authenticator: for AUTH; None means that it is not offered.
    :param wrapped: whether TLS begins with the connection (RFC 8314), and not by STARTTLS.
    """

    # The size of the stream's buffer here, not of a line: incoming.py bounds those.
    line_length_limit = BLOCK_OCTETS

    def __init__(
        self,
        lobby: Lobby,
        *,
        options: SmtpdOptions,
        accept: Accept,
        observe: Observer,
        refusal: Callable[[], Reply | None] = lambda: None,
        tls_context: ssl.SSLContext | None = None,
        name_of: NameOf = name_without_dns,
        authenticator: Authenticator | None = None,
        wrapped: bool = False,
    ) -> None:
        # aiosmtpd keeps this in the class and empties it for everybody at each new connection.
        self.command_size_limits = {}
        super().__init__(
            None,
            data_size_limit=None,
            enable_SMTPUTF8=True,
            hostname=str(options.hostname),
            tls_context=tls_context,
            timeout=options.timeout,
            loop=asyncio.get_running_loop(),
        )
        self._lobby = lobby
        self._options = options
        self._accept = accept
        self._observe = observe
        self._refusal = refusal
        self._name_of = name_of
        self._logins = authenticator or Authenticator(lambda: None, observe=observe)
        self._patience = Patience(options)
        self._verb = "UNKNOWN"
        self._stage = "CONNECT"
        self._wrapped = wrapped
        self._hello = Hello()
        self._over = False
        self._had_bare_line_end = False
        # All are made when the connection is (_handle_client), before anything else here is called.
        self._incoming: Incoming
        self._outgoing: Outgoing
        self._dialogue: Dialogue
        self._reception: Reception

    # --- for the lobby ----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End with 421 4.3.2: at once if the client is silent, else after what it is doing."""
        self._incoming.interrupt()

    def hurry(self) -> None:
        """Wait for the client no longer than in a full house."""
        self._incoming.hurry()

    def abort(self) -> None:
        """End now, whatever is half done."""
        if self._handler_coroutine is not None:
            self._handler_coroutine.cancel()

    # --- aiosmtpd's connection --------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Read; where TLS comes first, what came before it could begin is kept for it, and no more is read until then."""
        if self._wrapped and self._original_transport is None:
            self._hello.keep(data, self.transport)
        else:
            super().data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the streams; the task goes on, because a message that was sent to its end is still committed."""
        if self._original_transport is not None:
            self._original_transport.close()
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self.transport = None

    def eof_received(self) -> bool | None:
        """Tell the streams; what was sent before is still answered (except under TLS, which ends both ways)."""
        keep_open = asyncio.StreamReaderProtocol.eof_received(self)
        return keep_open if self._original_transport is None and not self._wrapped else False

    def _reset_timeout(self, duration: float | None = None) -> None:
        pass

    async def push(self, status: AnyStr) -> None:
        """Answer STARTTLS, the one reply that is left to aiosmtpd, as Postfix does."""
        if not self._wrapped:
            self._outgoing.answer(replies.START_TLS)
            await self._outgoing.flush()
        if self._reader.at_eof():  # nobody would tell the handshake, which begins when this returns
            raise ClientGone(LOST)

    # --- the session ------------------------------------------------------------------------------------------------

    async def _handle_client(self) -> None:
        peer = self._writer.get_extra_info("peername")
        if not peer:  # gone before it was there
            self._writer.close()
            return
        address = client_address(peer[0])
        timeout = self._options.timeout
        self._outgoing = Outgoing(self._writer, self._options)
        self._incoming = Incoming(self._reader, timeout=timeout, hurried=lambda: self._lobby.is_full)
        try:
            entry = self._lobby.enter(self, address)
            self._meet(Client(address=address, port=peer[1], name=await self._name_of(address)))
            try:
                await self._serve(entry)
            finally:
                await self._reception.abandon()
            notes = ("bare_lf",) if self._had_bare_line_end or self._reception.had_bare else ()
            self._observe(ClientDisconnected(self._dialogue.client, self._patience.commands, notes))
            await self._hang_up()
        except Exception:
            self._crashed()
        finally:
            self._lobby.leave(self)
            self._writer.transport.abort()  # does nothing to what is closed

    def _meet(self, client: Client) -> None:
        self._dialogue = Dialogue(
            client,
            self._options,
            tls_available=self.tls_context is not None,
            exceeds=self._lobby.exceeds,
            observe=self._observe,
            refusal=self._refusal,
            auth_available=lambda: self._logins.available,
            disowns=self._logins.disowns,
        )
        self._reception = Reception(
            self._incoming,
            self._dialogue,
            options=self._options,
            budget=self._lobby.budget,
            lanes=self._lobby.lanes,
            accept=self._accepted,
            start=self._start_content,
            observe=self._observe,
        )
        self._observe(ClientConnected(client))

    async def _serve(self, entry: Entry) -> None:
        try:
            if entry.admission is Admission.ADMITTED:
                await self._converse()
            else:
                self._turn_away(entry)
            await self._outgoing.flush()
        except ClientGone as gone:
            self._observe(ClientLost(self._dialogue.client, gone.how, gone.after or self._stage))
            if gone.how == TIMED_OUT:
                self._outgoing.answer(replies.timeout_exceeded(self.hostname))
                with suppress(ClientGone):
                    await self._outgoing.flush()

    async def _hang_up(self) -> None:
        """Close, when the client has our last words or ``_LINGER`` is over."""
        self._writer.close()
        if self._writer.transport.get_protocol() is not self:  # a failed handshake: nobody will tell us of the end
            return
        with suppress(OSError):  # a reset, or the timeout
            async with asyncio.timeout(_LINGER):
                await self._writer.wait_closed()

    def _turn_away(self, entry: Entry) -> None:
        client = self._dialogue.client
        if entry.admission is Admission.TOO_MANY:
            reply = replies.too_busy(self.hostname)
        else:
            reply = replies.too_many_connections(self.hostname, str(client.address))
            self._warn(f"{entry.limit} limit exceeded: {entry.count} from {client} for service smtp")
        self._observe(Rejected(client=client, where="CONNECT", reply=reply))
        if not self._wrapped:  # a handshake would be work that this client is not to get
            self._outgoing.answer(reply)

    async def _converse(self) -> None:
        if self._wrapped:
            if self.transport is None:
                raise ClientGone(LOST)
            # As soon as smtp_STARTTLS waits.
            self.loop.call_soon(lambda: self._hello.give(self._tls_protocol, self._original_transport))
            await self._encrypt()
        await self._incoming.look()
        if self._out_of_turn("CONNECT"):
            self._outgoing.answer(replies.NOT_SYNCHRONIZED)
            return
        self._outgoing.answer(replies.greeting(self.hostname))
        while not self._over:
            if self._patience.exhausted:
                self._observe(ClientLost(self._dialogue.client, TOO_MANY_ERRORS, self._stage))
                self._outgoing.answer(replies.too_many_errors(self.hostname))
                return
            if self._incoming.interrupted:
                self._outgoing.answer(replies.shutting_down(self.hostname))
                return
            if not self._incoming.has_line:
                await self._outgoing.flush()
            line = await self._incoming.line()
            if line is Odd.INTERRUPTED:
                continue
            reply = await self._guarded(self._command(line))
            self._patience.count(self._verb, reply)
            if reply.code >= 400 and self._patience.thin:
                await asyncio.sleep(self._options.error_sleep_time)
            if reply is not replies.START_TLS:  # which was said before TLS began
                self._outgoing.answer(reply)
            if reply in replies.LAST_WORDS:
                self._over = True

    def _out_of_turn(self, after: str) -> bool:
        """Whether the client said something before it was its turn, and is to be cut off for it."""
        early = self._incoming.early
        if early:
            self._note(f"improper command pipelining after {after} from {self._dialogue.client}: {self._said(early)}")
        return bool(early) and self._options.forbid_unauth_pipelining

    async def _guarded(self, work: Awaitable[Reply]) -> Reply:
        """What goes wrong inside is our fault: 4xx, and the reason for our log only."""
        try:
            return await work
        except ClientGone:
            raise
        except Exception:
            self._crashed()
            return replies.LOCAL_PROBLEM

    async def _accepted(self, envelope: Envelope, content: AsyncIterator[bytes]) -> Reply:
        return await self._guarded(self._accept(envelope, content))

    async def _start_content(self) -> None:
        self._outgoing.answer(replies.START_DATA)
        await self._outgoing.flush()

    def _crashed(self) -> None:
        self._observe(Crashed("smtpd session", traceback.format_exc()))

    # --- commands ---------------------------------------------------------------------------------------------------

    async def _command(self, line: bytes | Odd) -> Reply:
        self._verb = self._stage = "UNKNOWN"
        if isinstance(line, Odd):
            return replies.LINE_TOO_LONG
        if self._incoming.bare_line_end and self._options.forbid_bare_newline is not BareLineEnds.NO:
            self._had_bare_line_end = True
            if self._options.forbid_bare_newline is BareLineEnds.REJECT:
                self._over = True
                return replies.bare_line_end(self.hostname)
        command = read_command(line, self._dialogue.knows)
        client = self._dialogue.client
        if isinstance(command, Reply):
            if command is replies.FORBIDDEN_COMMAND:
                self._warn(f"non-SMTP command from {client}: {self._said(line)}")
            return command
        self._verb = self._stage = command.verb
        if command.ends_a_group(client.protocol) and self._out_of_turn(command.verb):
            return replies.NOT_SYNCHRONIZED
        return await self._carry_out(command)

    async def _carry_out(self, command: Command) -> Reply:
        match command.verb:
            case "DATA":
                return await self._received(self._reception.data(command.argument))
            case "BDAT":
                return await self._received(self._reception.bdat(command.argument))
            case "STARTTLS":
                return await self._start_tls(command.argument)
            case "AUTH":
                return await self._logins.log_in(self._dialogue, command.argument, self._ask)
            case "QUIT":
                return replies.BYE
            case verb:
                reply = self._dialogue.answer(verb, command.argument)
                if reply.code < 400 and verb in {"MAIL", "RSET", "HELO", "EHLO"}:
                    await self._reception.abandon()  # the transaction is over, or another one began
                return reply

    async def _received(self, receiving: Awaitable[Reply]) -> Reply:
        """Receive a content, or a part of one; what a fault of ours leaves of it unread must not become commands."""
        self._over = True
        reply = await receiving
        self._over = False
        if reply.code < 400 and not self._dialogue.in_transaction:
            self._stage = "END-OF-MESSAGE"
            self._patience.renew()
        return reply

    async def _ask(self, challenge: bytes) -> bytes | Odd:
        self._outgoing.answer(replies.challenge(challenge))
        await self._outgoing.flush()
        return await self._incoming.line()

    async def _start_tls(self, argument: str) -> Reply:
        reply = self._dialogue.begin_tls(argument)
        if reply is not replies.START_TLS:
            return reply
        if self._out_of_turn("STARTTLS"):
            return replies.NOT_SYNCHRONIZED
        self._incoming.clear()
        await self._encrypt()
        return reply

    async def _encrypt(self) -> None:
        client = self._dialogue.client
        try:
            async with asyncio.timeout(self._options.timeout):
                await self.smtp_STARTTLS("")
        except TimeoutError:
            raise ClientGone(TIMED_OUT) from None
        except TLSSetupException as failure:
            self._note(f"SSL_accept error from {client}: {failure.__cause__}")
            raise ClientGone(LOST) from None
        tls = client_tls(self._writer, self.tls_context)
        self._dialogue.tls_began(tls)
        strength = f"{tls.protocol} with cipher {tls.cipher} ({tls.bits}/{tls.algorithm_bits} bits)"
        self._note(f"Anonymous TLS connection established from {client}: {strength}")

    def _said(self, octets: bytes) -> str:  # behind an AUTH, whatever became of it, may be a password
        return "..." if self._verb == "AUTH" or "auth" in self._patience.commands else quoted(octets)

    def _warn(self, text: str) -> None:
        self._observe(Warned(Program.SMTPD, text))

    def _note(self, text: str) -> None:
        self._observe(Noted(Program.SMTPD, text))
