"""One session on aiosmtpd: its connection, its STARTTLS, its task; everything that is said is ours.

The only file that uses private names of aiosmtpd (DESIGN section 4; ``tests/unit/smtpd/test_private_names.py`` fails when
one of them changes). From ``aiosmtpd.smtp.SMTP``:

* ``_handle_client``: the coroutine of a connection; replaced, and with it the dispatch to every ``smtp_*`` method
* ``_handler_coroutine``: its task, made by ``connection_made``; cancelled by ``abort``
* ``_writer``: the stream of what we say, set by ``connection_made``; that of what clients say is fed nothing (``incoming.py``)
* ``_original_transport``, ``_tls_protocol``: the plain transport under TLS and what makes TLS of it, set by ``smtp_STARTTLS``
* ``_reset_timeout``: the timer of a command; replaced by the deadlines of ``incoming.py``

and these public ones in ways that its documentation does not promise: ``push`` (called with the text of the 220 by
``smtp_STARTTLS``), ``command_size_limits`` (shared by all sessions there), ``line_length_limit`` (the stream's limit),
the constructor (looks through ``dir()`` of session and handler, which is empty here). The destructor looks at
``StreamReaderProtocol._closed``, so that the loop does not log what a connection ended with; it is left that.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import AnyStr, assert_never, cast

from aiosmtpd.smtp import SMTP, TLSSetupException

from relay.log.events import Noted, Program, Warned
from relay.mail.envelope import Client, ClientTls
from relay.mail.names import IpAddress
from relay.smtpd import replies
from relay.smtpd.access import client_address, is_in
from relay.smtpd.conversation import Conversation, Service
from relay.smtpd.incoming import BLOCK_OCTETS, LOST, TIMED_OUT, ClientGone, Incoming
from relay.smtpd.introduction import Introduction, NotIntroduced
from relay.smtpd.lobby import Admission, Lobby
from relay.smtpd.local import is_local, peer_user
from relay.smtpd.naming import name_without_dns
from relay.smtpd.outgoing import Outgoing
from relay.smtpd.proxy import Passed, Unnamed
from relay.smtpd.server_tls import ServerContext, client_tls
from relay.smtpd.watch import Watch
from relay.smtpd.wrapped import Hello

# Seconds that a client has to take our last words and close, before the connection is cut.
_LINGER = 10.0
# Postfix's words for a client without an address (smtpd_peer.c), with a port.
_LOCALHOST = ("127.0.0.1", 0)


class _Unlisted:
    """aiosmtpd looks for hooks, commands and mechanisms in ``dir()`` of a session and its handler, at each connection, which
    takes as long as half a message does. Nothing of that is used here, so there is nothing to be found."""

    def __dir__(self) -> tuple[str, ...]:
        return ()


_NO_HANDLER = _Unlisted()


class Session(_Unlisted, SMTP):
    """A connection of a client, from the greeting to the end.

    :param lobby: the sessions of the same server.
    :param service: what they share.
    :param tls: how clients encrypt that connect now; None means that TLS is not offered.
    :param wrapped: whether TLS begins with the connection (RFC 8314), and not by STARTTLS.
    """

    # The size of the stream's buffer here, not of a line: incoming.py bounds those.
    line_length_limit = BLOCK_OCTETS

    def __init__(
        self,
        lobby: Lobby,
        service: Service,
        *,
        tls: Callable[[], ServerContext | None] = lambda: None,
        wrapped: bool = False,
    ) -> None:
        # aiosmtpd keeps this in the class and empties it for everybody at each new connection.
        self.command_size_limits = {}
        super().__init__(
            _NO_HANDLER,
            data_size_limit=None,
            enable_SMTPUTF8=True,
            hostname=str(service.options.hostname),
            timeout=service.options.timeout,
            loop=asyncio.get_running_loop(),
        )
        # Not by the constructor, which looks at attributes that only contexts of the standard library have.
        self.tls_context = cast("ssl.SSLContext | None", tls())
        self._lobby = lobby
        self._service = service
        self._wrapped = wrapped
        self._hello = Hello()
        self._introduction: Introduction | None = None
        self._over = False
        self._local = False
        self._watch = Watch(lobby.alarms)
        self._incoming = Incoming(
            self._watch, timeout=service.options.timeout, hurried=lambda: lobby.is_full, reading=self._read_on
        )
        # Made when the connection is (_handle_client), before anything else here is called.
        self._outgoing: Outgoing

    # --- for the lobby ----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End with 421 4.3.2: at once if the client is silent, else after what it is doing."""
        self._incoming.interrupt()
        if self._introduction is not None and not self._introduction.over:
            self.abort()

    def hurry(self) -> None:
        """Wait for the client no longer than in a full house."""
        self._incoming.hurry()

    def abort(self) -> None:
        """End now, whatever is half done."""
        if self._handler_coroutine is not None:
            self._handler_coroutine.cancel()

    # --- aiosmtpd's connection --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; a proxy is to say whose connection it is before anything else is done with it."""
        begins = self.transport is None
        if begins:
            self._local = is_local(transport)
        networks = self._service.options.proxy_networks if begins and not self._local else ()
        peer = transport.get_extra_info("peername") if networks else None
        if peer and is_in(client_address(peer[0]), networks):
            self._introduction = Introduction(self.loop)
        # Nothing that was said in the clear is read after TLS began (RFC 3207 section 4.2).
        self._incoming.clear()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Read; where TLS comes first, what came before it could begin is kept for it, and no more is read until then."""
        if self._introduction is not None and not self._introduction.over:
            data = self._introduction.feed(data)
            if not data:
                return
        if self._wrapped and self._original_transport is None:
            self._hello.keep(data, self.transport)
        else:
            self._incoming.feed(data)

    def _read_on(self, go_on: bool) -> None:
        transport = cast("asyncio.Transport | None", self.transport)
        if transport is not None and not transport.is_closing():
            (transport.resume_reading if go_on else transport.pause_reading)()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the streams; the task goes on, because a message that was sent to its end is still committed."""
        if self._introduction is not None:
            self._introduction.end()
        if self._original_transport is not None:
            self._original_transport.close()
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self._incoming.end(error)
        self.transport = None
        self._let_go()

    def eof_received(self) -> bool | None:
        """Tell the streams; what was sent before is still answered (except under TLS, which ends both ways)."""
        if self._introduction is not None:
            self._introduction.end()
        keep_open = asyncio.StreamReaderProtocol.eof_received(self)
        self._incoming.end()
        return keep_open if self._original_transport is None and not self._wrapped else False

    def _reset_timeout(self, duration: float | None = None) -> None:
        pass

    async def push(self, status: AnyStr) -> None:
        """Answer STARTTLS, the one reply that is left to aiosmtpd, as Postfix does."""
        if not self._wrapped:
            self._outgoing.answer(replies.START_TLS)
            await self._outgoing.flush()
        if self._incoming.ended:  # nobody would tell the handshake, which begins when this returns
            raise ClientGone(LOST)

    # --- the session ------------------------------------------------------------------------------------------------

    async def _handle_client(self) -> None:
        try:
            await self._attend()
        finally:
            self._over = True
            self._let_go()

    def _let_go(self) -> None:
        """When connection and task are both over, forget all: session, streams and transport refer to one another.

        Else some fifty objects and their buffers stay until the garbage collector comes by, which then has them all to look
        over, and the memory that the next session gets is never the one that is still in the processor's caches.
        """
        if self._over and self.transport is None:
            all_of_it = vars(self)
            closed = all_of_it["_closed"]
            all_of_it.clear()
            all_of_it["_closed"] = closed

    async def _attend(self) -> None:
        peer = _LOCALHOST if self._local else self._writer.get_extra_info("peername")
        if not peer:  # gone before it was there
            self._writer.close()
            return
        options = self._service.options
        self._outgoing = Outgoing(self._writer, options)
        try:
            client = await self._identify(client_address(peer[0]), peer[1])
            entry = self._lobby.enter(self, client.address)
            # Who is turned away costs no questions: there may be any number of them.
            name_of = self._service.name_of if entry.admission is Admission.ADMITTED else name_without_dns
            client = replace(client, name=await name_of(client.address))
            await self._conversation(client).hold(entry)
            await self._hang_up()
        except NotIntroduced as why:
            text = f"PROXY protocol: connection from {peer[0]} of [smtpd] proxy_protocol_networks dropped: {why}"
            self._service.observe(Warned(Program.SMTPD, text))
        except Exception:
            self._service.crashed()
        finally:
            self._watch.close()
            self._lobby.leave(self)
            self._writer.transport.abort()  # does nothing to what is closed

    async def _identify(self, address: IpAddress, port: int) -> Client:
        """Who the client is: the peer of the connection, or whom a proxy names.

        :raises NotIntroduced: if a proxy names nobody.
        """
        if self._local:
            user = await peer_user(self._writer.transport)
            self._service.observe(Noted(Program.SMTPD, f"connection through a Unix socket from local user {user}"))
            return Client(address=address, port=port, local=user)
        if self._introduction is None:
            return Client(address=address, port=port)
        if not self._lobby.wait(self):
            raise NotIntroduced("too many connections of all clients")
        match await self._introduction.header():
            case Passed(address=of_client, port=its_port):
                return Client(address=of_client, port=its_port)
            case Unnamed():
                return Client(address=address, port=port, unnamed=True)
            case never:
                assert_never(never)

    def _conversation(self, client: Client) -> Conversation:
        return Conversation(
            client,
            self._incoming,
            self._outgoing,
            lobby=self._lobby,
            service=self._service,
            encrypt=self._encrypt,
            tls_available=self.tls_context is not None,
            wrapped=self._wrapped,
        )

    async def _hang_up(self) -> None:
        """Close, when the client has our last words or ``_LINGER`` is over."""
        transport = self._writer.transport
        # After a failed handshake nobody will tell us of the end. Asked first: a TLS transport that is closed a second
        # time, here because the client went first, forgets its protocol.
        told = not transport.is_closing() and transport.get_protocol() is self
        self._writer.close()
        if not told:
            return
        with suppress(OSError), self._watch.within(_LINGER):  # a reset, or the timeout
            await self._writer.wait_closed()

    async def _encrypt(self, client: Client) -> ClientTls:
        """Have TLS begin.

        :raises ClientGone: if it does not; a failed handshake is noted.
        """
        if self._wrapped:
            if self.transport is None:
                raise ClientGone(LOST)
            # As soon as smtp_STARTTLS waits.
            self.loop.call_soon(lambda: self._hello.give(self._tls_protocol, self._original_transport))
        try:
            async with asyncio.timeout(self._service.options.timeout):
                await self.smtp_STARTTLS("")
        except TimeoutError:
            raise ClientGone(TIMED_OUT) from None
        except TLSSetupException as failure:
            self._service.observe(Noted(Program.SMTPD, f"SSL_accept error from {client}: {failure.__cause__}"))
            raise ClientGone(LOST) from None
        return client_tls(self._writer, cast("ServerContext | None", self.tls_context))
