"""What is said in one session, from the greeting to the last word, over streams that somebody else binds to a connection.

``dialogue.py`` decides the replies and ``reception.py`` takes the contents; here commands are read, carried out and answered.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from relay.lanes import Lanes
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
from relay.mail.envelope import Client, ClientCertificate, ClientTls, Envelope
from relay.mail.reply import Reply
from relay.smtpd import replies
from relay.smtpd.authentication import Authenticator
from relay.smtpd.commands import Command, first_word, quoted, read_command
from relay.smtpd.content import BareLineEnds
from relay.smtpd.dialogue import Dialogue
from relay.smtpd.incoming import TIMED_OUT, ClientGone, Incoming, Odd
from relay.smtpd.lobby import Admission, Entry, Lobby
from relay.smtpd.naming import NameOf, name_without_dns
from relay.smtpd.options import SmtpdOptions
from relay.smtpd.outgoing import Outgoing
from relay.smtpd.patience import Patience
from relay.smtpd.reception import Accept, Reception
from relay.smtpd.transcript import NO_TRANSCRIPTS, Transcript, Transcripts

TOO_MANY_ERRORS = "too many errors"
# Commands whose answer depends on nobody else.
_ANSWERED_AT_ONCE = frozenset({b"HELO", b"EHLO", b"MAIL", b"RCPT", b"RSET", b"NOOP", b"VRFY"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What the sessions of a server share.

    :param accept: takes each message.
    :param observe: told of what happens.
    :param authenticator: for AUTH.
    :param refusal: why no message could be taken now; None while one could.
    :param permits: whether a client may relay for what it is, whatever its address and though it has not logged in.
    :param transcripts: of which sessions the postmaster is to hear.
    :param name_of: the client's name, for the log and the Received field.
    :param lanes: where large contents take turns.
    """

    options: SmtpdOptions
    accept: Accept
    observe: Observer
    authenticator: Authenticator
    refusal: Callable[[], Reply | None] = lambda: None
    permits: Callable[[Client], bool] = lambda client: False
    transcripts: Transcripts = NO_TRANSCRIPTS
    name_of: NameOf = name_without_dns
    lanes: Lanes = field(default_factory=Lanes)

    def crashed(self) -> None:
        """Report the exception being handled as a fault of ours."""
        self.observe(Crashed("smtpd session", traceback.format_exc()))

    async def guarded(self, work: Awaitable[Reply]) -> Reply:
        """What goes wrong inside is our fault: 4xx, and the reason for our log only."""
        try:
            return await work
        except ClientGone:
            raise
        except Exception:
            self.crashed()
            return replies.LOCAL_PROBLEM

    async def guarded_accept(self, envelope: Envelope, content: AsyncIterator[bytes]) -> Reply:
        """``accept``, whatever goes wrong inside."""
        return await self.guarded(self.accept(envelope, content))


class Conversation:
    """Everything that is said to and by a client.

    :param client: as connected.
    :param encrypt: has TLS begin, after the 220 of STARTTLS where it does not come first; raises ClientGone if it does not.
    :param tls_available: whether it can.
    :param wrapped: whether TLS begins with the connection (RFC 8314), and not by STARTTLS.
    """

    def __init__(
        self,
        client: Client,
        incoming: Incoming,
        outgoing: Outgoing,
        *,
        lobby: Lobby,
        service: Service,
        encrypt: Callable[[Client], Awaitable[ClientTls]],
        tls_available: bool,
        wrapped: bool,
    ) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._options = service.options
        self._hostname = str(service.options.hostname)
        self._observe = service.observe
        self._logins = service.authenticator
        self._guarded = service.guarded
        self._crashed = service.crashed
        self._encrypt = encrypt
        self._wrapped = wrapped
        self._patience = Patience(service.options)
        self._transcripts = service.transcripts
        self._transcript = Transcript(service.transcripts.wanted)
        self._verb = "UNKNOWN"
        self._stage = "CONNECT"
        self._over = False
        self._had_bare_line_end = False
        # None of these refers to this object: a circle would stay in memory until the collector comes by.
        self._dialogue = Dialogue(
            client,
            service.options,
            tls_available=tls_available,
            exceeds=lobby.exceeds,
            observe=service.observe,
            refusal=service.refusal,
            auth_available=lambda: service.authenticator.available,
            disowns=service.authenticator.disowns,
            permits=service.permits,
        )
        self._reception = Reception(
            incoming,
            self._dialogue,
            options=service.options,
            budget=lobby.budget,
            lanes=service.lanes,
            accept=service.guarded_accept,
            observe=service.observe,
        )

    async def hold(self, entry: Entry) -> None:
        """Speak with the client, or turn it away, until one of both is done; what is half done then is given up."""
        self._observe(ClientConnected(self._dialogue.client))
        try:
            await self._serve(entry)
        finally:
            await self._reception.abandon()
        notes = ("bare_lf",) if self._had_bare_line_end or self._reception.had_bare else ()
        self._observe(ClientDisconnected(self._dialogue.client, self._patience.commands, notes))
        if (incident := self._transcript.incident(self._dialogue.client)) is not None:
            self._transcripts.take(incident)

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
                self._say(replies.timeout_exceeded(self._hostname))
                with suppress(ClientGone):
                    await self._outgoing.flush()

    def _turn_away(self, entry: Entry) -> None:
        client = self._dialogue.client
        if entry.admission is Admission.TOO_MANY:
            reply = replies.too_busy(self._hostname)
        else:
            reply = replies.too_many_connections(self._hostname, str(client.address))
            self._warn(f"{entry.limit} limit exceeded: {entry.count} from {client} for service smtp")
        self._observe(Rejected(client=client, where="CONNECT", reply=reply))
        if not self._wrapped:  # a handshake would be work that this client is not to get
            self._say(reply)

    async def _converse(self) -> None:
        if self._wrapped:
            await self._begin_tls()
        await self._incoming.look()
        if self._out_of_turn("CONNECT"):
            self._say(replies.NOT_SYNCHRONIZED)
            return
        self._say(replies.greeting(self._hostname))
        while not self._over:
            if self._patience.exhausted:
                self._observe(ClientLost(self._dialogue.client, TOO_MANY_ERRORS, self._stage))
                self._say(replies.too_many_errors(self._hostname))
                return
            if self._incoming.interrupted:
                self._say(replies.shutting_down(self._hostname))
                return
            if not self._incoming.has_line:
                await self._outgoing.flush()
            line = await self._incoming.line(self._answered_at_once)
            if line is Odd.INTERRUPTED:
                continue
            reply = await self._guarded(self._command(line))
            self._patience.count(self._verb, reply)
            if reply.code >= 400 and self._patience.thin:
                await asyncio.sleep(self._options.error_sleep_time)
            if reply is not replies.START_TLS:  # which was said before TLS began
                self._say(reply)
            if reply in replies.LAST_WORDS:
                self._over = True

    def _out_of_turn(self, after: str) -> bool:
        """Whether the client said something before it was its turn, and is to be cut off for it."""
        early = self._incoming.early
        if early:
            self._note(f"improper command pipelining after {after} from {self._dialogue.client}: {self._said(early)}")
        return bool(early) and self._options.forbid_unauth_pipelining

    async def _start_content(self) -> None:
        self._say(replies.START_DATA)
        await self._outgoing.flush()

    # --- commands ---------------------------------------------------------------------------------------------------

    def _answered_at_once(self, line: bytes) -> bool:
        """Answer a command for which nothing need be waited for, and which cannot end the session, without the task.

        A session's task has most of its life nothing to do but this, and to be woken costs it more than the answer.
        """
        if line[:4].upper() not in _ANSWERED_AT_ONCE or line[4:5] not in (b"", b" "):
            return False
        if not (self._patience.ample and self._outgoing.flows and self._reception.is_idle):
            return False
        try:
            command = self._understood(line)
            reply = command if isinstance(command, Reply) else self._dialogue.answer(command.verb, command.argument)
        except Exception:
            self._crashed()
            reply = replies.LOCAL_PROBLEM
        self._patience.count(self._verb, reply)
        self._say(reply)
        self._outgoing.send()
        return True

    async def _command(self, line: bytes | Odd) -> Reply:
        command = self._understood(line)
        return command if isinstance(command, Reply) else await self._carry_out(command)

    def _understood(self, line: bytes | Odd) -> Command | Reply:
        """What is to be carried out, or why not."""
        self._verb = self._stage = "UNKNOWN"
        if isinstance(line, Odd):
            self._transcript.heard_else("(a line that is too long)")
            return replies.LINE_TOO_LONG
        if self._incoming.bare_line_end and self._options.forbid_bare_newline is not BareLineEnds.NO:
            self._had_bare_line_end = True
            self._transcript.heard_else("(a line with a bare CR or LF)")
            if self._options.forbid_bare_newline is BareLineEnds.REJECT:
                self._over = True
                return replies.bare_line_end(self._hostname)
        command = read_command(line, self._dialogue.knows)
        client = self._dialogue.client
        if isinstance(command, Reply):
            self._transcript.heard_else(self._said(line))
            if command is replies.FORBIDDEN_COMMAND:
                self._warn(f"non-SMTP command from {client}: {self._said(line)}")
            return command
        self._transcript.heard(command)
        self._verb = self._stage = command.verb
        if command.ends_a_group(client.protocol) and self._out_of_turn(command.verb):
            return replies.NOT_SYNCHRONIZED
        return command

    async def _carry_out(self, command: Command) -> Reply:
        match command.verb:
            case "DATA":
                return await self._received(self._reception.data(command.argument, self._start_content))
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
        self._say(replies.challenge(challenge))
        await self._outgoing.flush()
        return await self._incoming.line()

    async def _start_tls(self, argument: str) -> Reply:
        reply = self._dialogue.begin_tls(argument)
        if reply is not replies.START_TLS:
            return reply
        if self._out_of_turn("STARTTLS"):
            return replies.NOT_SYNCHRONIZED
        self._incoming.clear()
        await self._begin_tls()
        return reply

    async def _begin_tls(self) -> None:
        client = self._dialogue.client
        tls = await self._encrypt(client)
        self._dialogue.tls_began(tls)
        strength = f"{tls.protocol} with cipher {tls.cipher} ({tls.bits}/{tls.algorithm_bits} bits)"
        word, shown = "Anonymous", tls.certificate
        if isinstance(shown, ClientCertificate):
            word = "Untrusted"
            prints = f"cert fingerprint={shown.fingerprint}, pkey fingerprint={shown.key_fingerprint}"
            self._note(f"{client}: subject_CN={shown.subject}, issuer={shown.issuer}, {prints}")
        self._note(f"{word} TLS connection established from {client}: {strength}")

    def _said(self, octets: bytes) -> str:
        """What was said out of turn or as no command, for the log: behind an AUTH, whatever became of it, may be a password."""
        if self._verb == "AUTH" or "auth" in self._patience.commands:
            return "..."
        return first_word(octets) if self._logins.available else quoted(octets)

    def _say(self, reply: Reply) -> None:
        self._transcript.said(reply, self._outgoing.answer(reply))

    def _warn(self, text: str) -> None:
        self._observe(Warned(Program.SMTPD, text))

    def _note(self, text: str) -> None:
        self._observe(Noted(Program.SMTPD, text))
