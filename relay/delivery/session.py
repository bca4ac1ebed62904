"""From a policy and an address to a session that may carry mail, or the reason why there is none.

The order is the law here: connect, greeting, EHLO, STARTTLS, handshake, verdict, EHLO again, AUTH; MAIL FROM only after
that. With implicit TLS it is: connect, handshake, verdict, greeting, EHLO, AUTH. Until the verdict nothing that the host says is
authenticated, so at levels above ``may`` its 5xx replies count as 4xx (DESIGN section 3).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import datetime

from relay.delivery.authenticate import Authenticator, LoginRefused, Proven, proven
from relay.delivery.client import (
    ConnectError,
    HandshakeFailed,
    SessionEnded,
    Stage,
    abort_on_error,
    connect,
)
from relay.delivery.opening import Failed, Opening, Session, dated, finish, no_login
from relay.delivery.options import DeliveryOptions
from relay.delivery.tokens import Tokens
from relay.delivery.trouble import CONNECTION_TROUBLE, Trouble
from relay.log.events import ConnectFailed, Noted, Observer, Program, TlsEstablished, TlsRefused
from relay.mail.envelope import QueueId
from relay.mail.reply import EnhancedStatus
from relay.outcome.result import Local, RelayHost
from relay.outcome.wording import explain, one_line
from relay.policy.policy import NO_CREDENTIALS, TlsPolicy
from relay.sasl.credentials import Credentials, NoCredentials
from relay.tls.handshake import peer_facts
from relay.tls.judge import judge
from relay.tls.peer import CheckChain
from relay.tls.verdict import Plaintext, Refused, Verdict


class SessionOpener:
    """Opens sessions.

    :param context_for: the TLS context for a policy; raises ValueError with a text for people if there can be none.
    """

    def __init__(
        self,
        options: DeliveryOptions,
        *,
        context_for: Callable[[TlsPolicy], ssl.SSLContext],
        check_chain: CheckChain,
        clock: Callable[[], datetime],
        observe: Observer,
        tokens: Tokens | None = None,
    ) -> None:
        self._options = options
        self._authenticator = Authenticator(
            tokens or Tokens(clock=clock),
            mechanism_filter=options.sasl_mechanism_filter,
            soft_bounce=options.sasl_auth_soft_bounce,
            timeout=options.timeouts.helo,
        )
        self._context_for = context_for
        self._check_chain = check_chain
        self._clock = clock
        self._observe = observe

    async def open(
        self,
        relay: RelayHost,
        policy: TlsPolicy,
        queue_id: QueueId,
        *,
        plaintext: bool = False,
        credentials: Credentials | NoCredentials = NO_CREDENTIALS,
    ) -> Session | Trouble:
        """Connect to one address and get as far as the policy demands.

        :param queue_id: of the message on whose behalf this happens, for the log.
        :param plaintext: leave TLS off; only for the retry after a failed handshake at ``may``.
        :param credentials: for a host that offers AUTH; ``decide`` must have known of them.
        """
        opening, opened_at = Opening(self._options, relay, policy, queue_id, self._observe), self._clock()
        local = self._options.bind_address if relay.address.version == 4 else self._options.bind_address6
        try:
            opening.connection = await connect(
                str(relay.address), relay.port, local_address=local, timeout=self._options.timeouts.connect
            )
        except ConnectError as error:
            self._observe(ConnectFailed(queue_id=queue_id, relay=relay, error=str(error)))
            return opening.local(EnhancedStatus(4, 4, 1), f"connect to {relay}: {error}", "?", session_had=False)
        with abort_on_error(opening.connection):
            try:
                session = dated(await self.negotiate(opening, plaintext=plaintext), opened_at)
                session.wear.unwelcome = plaintext  # the retry in the clear is allowed for one message
                return session if isinstance(credentials, NoCredentials) else await self.log_in(session, credentials)
            except Failed as failed:
                finish(opening.connection)
                return failed.trouble
            except SessionEnded as ended:
                opening.connection.abort()
                return opening.local(CONNECTION_TROUBLE, one_line(ended.reason(relay.namaddr)), "?")

    async def negotiate(self, opening: Opening, *, plaintext: bool) -> Session:
        """Get from a connection to a session that satisfies the policy, or raise what stands in the way."""
        policy = opening.policy
        if self._options.wraps(opening.relay.port):
            return await self._wrapped(opening)
        await opening.greeting()
        extensions = await opening.ehlo(before_verdict=True)
        if plaintext or not policy.level.uses_tls:
            if policy.level.requires_tls:
                raise AssertionError("a session in the clear was asked for above may")
            if "STARTTLS" in extensions and not plaintext and self._options.note_starttls_offer:
                self._observe(Noted(Program.SMTP, f"Host offered STARTTLS: [{opening.relay.name}]"))
            return opening.session(Plaintext("TLS is off for this session"), extensions)
        if "STARTTLS" not in extensions:
            return opening.in_clear("not offered", None, extensions)
        timeouts = self._options.timeouts
        reply = await opening.connection.command(b"STARTTLS", Stage.STARTTLS, timeouts.starttls)
        if reply.code != 220:
            return opening.in_clear("refused", reply, extensions)
        verdict = await self._secure(opening)
        return opening.session(verdict, await opening.ehlo(before_verdict=False))

    async def _wrapped(self, opening: Opening) -> Session:
        """Implicit TLS (RFC 8314 section 3.3): nothing is said before the verdict, and there is no way in the clear."""
        if not opening.policy.level.uses_tls:
            raise Failed(opening.no_wrapping())
        verdict = await self._secure(opening)
        await opening.greeting()
        return opening.session(verdict, await opening.ehlo(before_verdict=False))

    async def _secure(self, opening: Opening) -> Verdict:
        """Handshake and verdict."""
        tls = await self._handshake(opening)
        peer = opening.seen = peer_facts(tls, tls.context, opening.policy.sni)
        verdict = judge(opening.policy, peer, self._check_chain, self._clock())
        self._observe(TlsEstablished(queue_id=opening.queue_id, relay=opening.relay, word=verdict.word, peer=peer))
        if isinstance(verdict, Refused):
            if verdict.detail:
                self._observe(TlsRefused(queue_id=opening.queue_id, relay=opening.relay, detail=verdict.detail))
            raise Failed(opening.refused(verdict))
        return verdict

    async def log_in(self, session: Session, credentials: Credentials) -> Session:
        """Log in where the host offers AUTH; one that does not is talked to as a stranger (smtp_proto.c, smtp_helo)."""
        if session.extensions.has_auth:
            host, mechanism = self.mechanism_for(session, credentials)
            refused = await self._authenticator.log_in(host, mechanism, credentials)
            if refused is not None:
                raise Failed(no_login(session, refused))
        return session

    def mechanism_for(self, session: Session, credentials: Credentials) -> tuple[Proven, str]:
        """A host that proved who it is, and the mechanism to log in with; raises what stands in the way."""
        host = proven(
            session.connection,
            session.relay,
            session.extensions,
            policy=session.policy,
            verdict=session.verdict,
            credentials=credentials,
        )
        if isinstance(host, LoginRefused):
            raise Failed(no_login(session, host))
        mechanism = self._authenticator.choose(host, credentials)
        if isinstance(mechanism, LoginRefused):
            raise Failed(no_login(session, mechanism))
        return host, mechanism

    async def _handshake(self, opening: Opening) -> ssl.SSLObject:
        policy, wrapped = opening.policy, self._options.wraps(opening.relay.port)
        try:
            context = self._context_for(policy)
            return await opening.connection.upgrade(context, policy.sni, self._options.timeouts.starttls)
        except (HandshakeFailed, ValueError) as error:
            reason = explain(
                "Cannot start TLS: handshake failure",
                expected=f"a TLS session ({policy.protocols}, {policy.ciphers} ciphers)",
                found=str(error),
                rule=str(policy.rule),
            )
            raise Failed(
                Trouble(
                    status=EnhancedStatus(4, 7, 5),
                    reason=reason,
                    diagnostic=Local(reason),
                    relay=opening.relay,
                    tls=f"{policy.level.word}?",
                    throttles=policy.level.requires_tls or wrapped,
                    handshake=not wrapped,
                )
            ) from None
