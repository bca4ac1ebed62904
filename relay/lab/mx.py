"""Mail hosts that follow a script and write down what they saw (RFC 5321, RFC 3207).

A receiver of our own and not aiosmtpd's: it must refuse, stall, cut and babble at the stage that its script names, and
it keeps the octets of a message exactly as they came over the wire.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import warnings
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import assert_never

from relay.lab.record import Command, Received, SessionRecord, TlsSeen
from relay.lab.script import Rcpt, Script, Stage, StartTls, TlsRange
from relay.lab.wire import LineTooLong, PeerGone, TooMuch, Wire

MAX_CONTENT_OCTETS = 64 * 2**20
MAX_KEPT_OCTETS = 128 * 2**20
MAX_KEPT_SESSIONS = 1000
MAX_OPEN_SESSIONS = 200
MAX_COMMANDS = 2000
MAX_RECIPIENTS = 1000
IDLE_SECONDS = 60.0
HANDSHAKE_SECONDS = 10.0


class Receiver:
    """One scripted mail host on one address.

    :param host: its name, as it greets.
    :param pem_file: chain and key for TLS.
    :param told: called with a session's record whenever a message came, and when the session has ended.
    """

    def __init__(
        self,
        host: str,
        address: str,
        script: Script,
        pem_file: Path,
        told: Callable[[SessionRecord], None] = lambda record: None,
    ) -> None:
        self.host = host
        self.address = address
        self.script = script
        self.sessions: deque[SessionRecord] = deque(maxlen=MAX_KEPT_SESSIONS)
        self.seen_pairs: set[tuple[str, str]] = set()
        self.changed = asyncio.Event()
        self.told = told
        self._count = 0
        self.pem_file = pem_file
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], Wire] = {}

    async def start(self, port: int = 0) -> int:
        """Listen, and say on which port.

        :raises OSError: if the address or port cannot be had.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Wire(self._connected), self.address, port)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Cut all sessions and close the socket."""
        if self._server is None:
            return
        self._server.close()
        sessions = dict(self._open)
        for task in sessions:
            task.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)
        for wire in sessions.values():
            wire.abort()  # a peer that does not read must not hold up the end
        await self._server.wait_closed()
        self._server = None

    def received(self) -> tuple[Received, ...]:
        """Every message that came and is still kept, oldest first."""
        return tuple(message for session in self.sessions for message in session.received)

    def tls_context(self, names: list[str]) -> ssl.SSLContext:
        """A server context for one session, which appends the SNI that it is shown to ``names``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pem_file)
        match self.script.tls:
            case TlsRange.ANY:
                context.minimum_version = ssl.TLSVersion.TLSv1_2
            case TlsRange.ONLY_1_2:
                context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
            case TlsRange.ONLY_1_3:
                context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
            case TlsRange.ONLY_1_0:
                context.set_ciphers("DEFAULT:@SECLEVEL=0")
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)  # old is what is wanted here
                    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
            case TlsRange.ANONYMOUS:
                context.set_ciphers("aNULL:@SECLEVEL=0")
                context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
            case _:
                assert_never(self.script.tls)

        def note(_: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
            names.append(name or "")

        # ssl hands over an SSLObject under asyncio; the stub has SSLSocket too.
        context.sni_callback = note
        return context

    def forget_oldest(self) -> None:
        """Drop whole sessions until what is kept fits."""
        while len(self.sessions) > 1 and sum(one.content_octets for one in self.sessions) > MAX_KEPT_OCTETS:
            self.sessions.popleft()

    def _connected(self, wire: Wire) -> None:
        if len(self._open) >= MAX_OPEN_SESSIONS:
            wire.send(b"421 4.3.2 too many sessions\r\n")
            wire.close()
            return
        self._count += 1
        record = SessionRecord(wire.peer, number=self._count)
        self.sessions.append(record)
        task = asyncio.get_running_loop().create_task(self._serve(wire, record))
        self._open[task] = wire
        task.add_done_callback(self._open.pop)

    async def _serve(self, wire: Wire, record: SessionRecord) -> None:
        try:
            await _Session(self, wire, record).run()
        except (PeerGone, TimeoutError):
            pass  # the peer went away or fell silent; what it did until then is on record
        finally:
            record.ended = True
            wire.close()
            self.told(record)
            self.changed.set()


class _Close(Exception):  # noqa: N818 - the script ends the session here
    """The session is over by script."""


class _Session:
    """The dialogue with one client."""

    def __init__(self, receiver: Receiver, wire: Wire, record: SessionRecord) -> None:
        self._receiver = receiver
        self._script = receiver.script
        self._wire = wire
        self._record = record
        self._encrypted = False
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._refusals = dict(receiver.script.refused)
        self._verbs: dict[str, Callable[[str], Awaitable[None]]] = {
            "EHLO": self._ehlo,
            "HELO": self._helo,
            "STARTTLS": self._starttls,
            "MAIL": self._mail,
            "RCPT": self._rcpt,
            "DATA": self._data,
            "RSET": self._rset,
            "NOOP": self._noop,
            "QUIT": self._quit,
        }

    async def run(self) -> None:
        try:
            await self._stall(Stage.GREETING)
            self._reply(self._script.greeting.format(host=self._receiver.host))
            if not self._script.greeting.startswith("220"):
                return
            for _ in range(MAX_COMMANDS):
                await self._command()
            self._reply("421 4.7.0 too many commands")
        except LineTooLong:
            self._reply("500 5.5.2 line too long")
        except _Close:
            pass

    async def _command(self) -> None:
        async with asyncio.timeout(IDLE_SECONDS):
            octets = await self._wire.line()
        command = Command(octets.decode("utf-8", "backslashreplace"), self._encrypted)
        self._record.commands.append(command)
        handler = self._verbs.get(command.verb)
        if (refusal := self._refusals.get(command.verb)) is not None:
            self._reply(refusal)
        elif handler is None:
            self._reply("502 5.5.2 command not recognized")
        else:
            await handler(command.line)

    def _reply(self, *lines: str) -> None:
        code, texts = lines[0][:3], [lines[0][4:], *lines[1:]]
        for text in texts[:-1]:
            self._wire.send(f"{code}-{text}\r\n".encode())
        self._wire.send(f"{code} {texts[-1]}\r\n".encode())

    async def _stall(self, stage: Stage) -> None:
        """Say nothing until the peer has gone."""
        if self._script.hang is stage:
            await self._wire.gone()
            raise _Close

    async def _ehlo(self, _: str) -> None:
        await self._stall(Stage.EHLO)
        self._forget_transaction()
        offered = self._script.starttls is not StartTls.ABSENT and not self._encrypted
        self._reply(f"250 {self._receiver.host}", *self._script.extensions, *(["STARTTLS"] if offered else []))

    async def _helo(self, _: str) -> None:
        self._forget_transaction()
        self._reply(f"250 {self._receiver.host}")

    async def _starttls(self, _: str) -> None:
        await self._stall(Stage.STARTTLS)
        if self._encrypted:
            self._reply("503 5.5.1 TLS is already active")
            return
        match self._script.starttls:
            case StartTls.ABSENT:
                self._reply("502 5.5.1 STARTTLS is not offered here")
            case StartTls.REFUSED_454:
                self._reply("454 4.7.0 TLS not available")
            case StartTls.REFUSED_554:
                self._reply("554 5.7.0 no TLS for you")
            case StartTls.GARBAGE:
                await self._client_hello()
                self._wire.send(b"this is no ServerHello\r\n" * 8)
                raise _Close
            case StartTls.CUT:
                await self._client_hello()
                self._wire.abort()
                raise _Close
            case StartTls.INJECTED:
                self._reply("220 2.0.0 ready")
                self._wire.send(b"250 2.0.0 this was not said under TLS\r\n")
                await self._handshake(announced=True)
            case StartTls.WORKS:
                await self._handshake()
            case _:
                assert_never(self._script.starttls)

    async def _client_hello(self) -> None:
        self._reply("220 2.0.0 ready")
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            await self._wire.something()

    async def _handshake(self, *, announced: bool = False) -> None:
        names: list[str] = []
        context = self._receiver.tls_context(names)
        if not announced:
            self._reply("220 2.0.0 ready")
        try:
            session = await self._wire.start_tls(context, HANDSHAKE_SECONDS)
        except (OSError, EOFError, PeerGone) as error:  # ssl.SSLError is an OSError
            self._record.tls_error = f"{type(error).__name__}: {error}"
            raise _Close from None
        cipher = session.cipher()
        self._record.tls = TlsSeen(session.version() or "", cipher[0] if cipher else "", names[0] if names else "")
        self._encrypted = True
        self._forget_transaction()

    async def _mail(self, line: str) -> None:
        await self._stall(Stage.MAIL)
        if self._sender is not None:
            self._reply("503 5.5.1 nested MAIL")
        elif (path := re.match(r"(?i)MAIL FROM:<([^>]*)>", line)) is None:
            self._reply("501 5.1.7 bad sender")
        else:
            self._sender = path[1]
            self._reply("250 2.1.0 Ok")

    async def _rcpt(self, line: str) -> None:
        await self._stall(Stage.RCPT)
        path = re.match(r"(?i)RCPT TO:<([^>]+)>", line)
        if self._sender is None:
            self._reply("503 5.5.1 need MAIL")
        elif path is None:
            self._reply("501 5.1.3 bad recipient")
        elif len(self._recipients) >= MAX_RECIPIENTS:
            self._reply("452 4.5.3 too many recipients")
        else:
            self._answer_rcpt(self._sender, path[1])

    def _answer_rcpt(self, sender: str, recipient: str) -> None:
        match self._script.rcpt:
            case Rcpt.REJECTED:
                self._reply(f"550 5.1.1 <{recipient}>: no such user here")
            case Rcpt.GREYLISTED if (sender, recipient) not in self._receiver.seen_pairs:
                self._receiver.seen_pairs.add((sender, recipient))
                self._reply("450 4.2.0 greylisted, come again")
            case Rcpt.GREYLISTED | Rcpt.ACCEPTED:
                self._recipients.append(recipient)
                self._reply("250 2.1.5 Ok")
            case _:
                assert_never(self._script.rcpt)

    async def _data(self, _: str) -> None:
        await self._stall(Stage.DATA)
        if self._sender is None or not self._recipients:
            self._reply("554 5.5.1 no valid recipients")
            return
        self._reply("354 go ahead")
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                wire = await self._wire.content(MAX_CONTENT_OCTETS)
        except TooMuch:
            self._reply("552 5.3.4 too big")
            raise _Close from None
        accepted = self._script.end_of_data.startswith("250")
        message = Received(self._sender, tuple(self._recipients), wire, self._encrypted, accepted)
        self._record.received.append(message)
        self._record.content_octets += len(wire)
        self._receiver.forget_oldest()
        self._receiver.told(self._record)
        await self._stall(Stage.END_OF_DATA)
        self._reply(self._script.end_of_data)
        self._forget_transaction()
        self._receiver.changed.set()

    async def _rset(self, _: str) -> None:
        self._forget_transaction()
        self._reply("250 2.0.0 Ok")

    async def _noop(self, _: str) -> None:
        self._reply("250 2.0.0 Ok")

    async def _quit(self, _: str) -> None:
        self._reply("221 2.0.0 Bye")
        raise _Close

    def _forget_transaction(self) -> None:
        self._sender = None
        self._recipients = []
