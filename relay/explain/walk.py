"""The pieces of a delivery with ears: they do what they always do, note it in a trail, and let no session send."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import assert_never

from relay.dane.tlsa import TlsaLookup
from relay.delivery.attempt import Deliverer
from relay.delivery.client import SmtpConnection
from relay.delivery.gather import Destination, Gatherer, HostAddress, LookupTrouble
from relay.delivery.leg import Leg
from relay.delivery.opening import Opening, Session, finish
from relay.delivery.options import DeliveryOptions
from relay.delivery.session import SessionOpener
from relay.delivery.trouble import Trouble
from relay.dns.answer import Mx
from relay.dns.probe import Validation
from relay.dns.resolver import Resolver
from relay.explain.story import Failed, Handshake, Login, NoHandshake, NoLogin, NotTried, Satisfied
from relay.explain.trail import NOT_LIVE, Trail
from relay.log.events import ConnectFailed, Event, TlsEstablished, TlsRefused
from relay.log.postfix import PostfixLines
from relay.mail.envelope import QueueId
from relay.mail.names import Domain, IpLiteral, NextHop
from relay.mail.reply import EnhancedStatus
from relay.outcome.result import Local, RelayHost
from relay.policy.policy import NO_CREDENTIALS, Decision, TlsPolicy
from relay.sasl.credentials import Credentials, NoCredentials
from relay.tls.peer import CheckChain

_HANDED_OUT = EnhancedStatus(4, 0, 0)


def texts(lines: PostfixLines, event: Event, at: datetime) -> list[str]:
    """What the log says of an event, from behind ``postfix/smtp[PID]: `` on."""
    return [line.partition("]: ")[2] for line in lines.lines(event, at)]


class WatchedGatherer(Gatherer):
    """Looks up as always, and notes what was found.

    Hosts of equal preference come by name, so that the same question gets the same answer; a delivery takes them as chance
    has it.
    """

    def __init__(self, resolver: Resolver, options: DeliveryOptions, trail: Trail) -> None:
        super().__init__(resolver, shuffle=list[Mx].sort, reach=options.reach)
        self._trail = trail

    async def destination(self, next_hop: NextHop) -> Destination | LookupTrouble:
        """See ``Gatherer``."""
        found = await super().destination(next_hop)
        self._trail.found_destination(found)
        return found

    async def addresses(self, host: Domain | IpLiteral) -> Sequence[HostAddress] | LookupTrouble:
        """See ``Gatherer``."""
        found = await super().addresses(host)
        self._trail.found_addresses(host, found)
        return found

    async def tlsa(self, host: Domain | IpLiteral, port: int, address: HostAddress) -> TlsaLookup:
        """See ``Gatherer``."""
        found = await super().tlsa(host, port, address)
        self._trail.found_tlsa(found)
        return found


class WatchedDeliverer(Deliverer):
    """Decides as always, and notes what was decided."""

    trail: Trail

    async def decide_for(
        self,
        destination: Destination,
        host: Domain | IpLiteral,
        address: HostAddress,
        leg: Leg,
        opinion: Validation | None,
    ) -> Decision:
        """See ``Deliverer``."""
        decision = await super().decide_for(destination, host, address, leg, opinion)
        self.trail.decided(decision)
        return decision


class WatchedOpener(SessionOpener):
    """Opens sessions as always, if that was asked for, notes what came of them, and hands none out."""

    def __init__(
        self,
        options: DeliveryOptions,
        *,
        context_for: Callable[[TlsPolicy], ssl.SSLContext],
        check_chain: CheckChain,
        clock: Callable[[], datetime],
        lines: PostfixLines,
        trail: Trail,
        live: bool,
    ) -> None:
        super().__init__(options, context_for=context_for, check_chain=check_chain, clock=clock, observe=self._note)
        self._now = clock
        self._lines = lines
        self._trail = trail
        self._live = live
        self._patience = options.timeouts.quit
        self._connections: list[SmtpConnection] = []
        self._login: Login | NoLogin = NoLogin()
        self._events: list[TlsEstablished | TlsRefused | ConnectFailed] = []
        self.everywhere = False
        self.in_clear_later: Callable[[TlsPolicy], bool] = lambda policy: False

    def _note(self, event: Event) -> None:
        if isinstance(event, TlsEstablished | TlsRefused | ConnectFailed):
            self._events.append(event)

    async def open(
        self,
        relay: RelayHost,
        policy: TlsPolicy,
        queue_id: QueueId,
        *,
        plaintext: bool = False,
        credentials: Credentials | NoCredentials = NO_CREDENTIALS,
    ) -> Session | Trouble:
        """See ``SessionOpener``; what is returned is always a reason to try the next host."""
        if not self._live:
            self._trail.had_session(relay, policy, NOT_LIVE)
            return _handed_out(relay)
        if self._trail.taken is not None and not self.everywhere:
            self._trail.had_session(relay, policy, NotTried(f"mail would be gone, over {self._trail.taken.relay}"))
            return _handed_out(relay)
        self._events.clear()
        self._login = NoLogin()
        opened = await super().open(relay, policy, queue_id, plaintext=plaintext, credentials=credentials)
        if isinstance(opened, Session):
            finish(opened.connection)
        # Nobody else lives in this loop: it must not end before its connections have.
        while self._connections:
            await self._connections.pop().wait_closed(self._patience)
        match opened:
            case Session():
                self._trail.had_session(relay, policy, self._satisfied(opened))
                return _handed_out(relay)
            case Trouble():
                later = opened.handshake and self.in_clear_later(policy)
                failed = Failed(trouble=opened, handshake=self._handshake_seen(), in_clear_later=later)
                self._trail.had_session(relay, policy, failed)
                return opened
            case _:
                assert_never(opened)

    async def log_in(self, session: Session, credentials: Credentials) -> Session:
        """See ``SessionOpener``; how a delivery would log in is noted, and no credentials leave."""
        mechanism = self.mechanism_for(session, credentials)[1] if session.extensions.has_auth else ""
        self._login = Login(user=credentials.user, place=credentials.place, mechanism=mechanism)
        return session

    async def negotiate(self, opening: Opening, *, plaintext: bool) -> Session:
        """See ``SessionOpener``."""
        self._connections.append(opening.connection)
        return await super().negotiate(opening, plaintext=plaintext)

    def _satisfied(self, session: Session) -> Satisfied:
        return Satisfied(
            relay=session.relay,
            verdict=session.verdict,
            handshake=self._handshake_seen(),
            extensions=session.extensions,
            tls=session.tls,
            login=self._login,
        )

    def _handshake_seen(self) -> Handshake | NoHandshake:
        for event in self._events:
            if isinstance(event, TlsEstablished):
                log = (text for each in self._events for text in texts(self._lines, each, self._now()))
                return Handshake(word=event.word, peer=event.peer, log=tuple(log))
        return NoHandshake()


def _handed_out(relay: RelayHost) -> Trouble:
    """What the walk is told of a host that would take the mail, so that it goes on to the next."""
    reason = "the walk goes on without this session"
    return Trouble(status=_HANDED_OUT, reason=reason, diagnostic=Local(reason), relay=relay, tls="")
