"""From a policy and an address to a session that may carry mail, or the reason why there is none.

The order is the law here: connect, greeting, EHLO, STARTTLS, handshake, verdict, EHLO again, AUTH; MAIL FROM only after
that. With implicit TLS it is: connect, handshake, verdict, greeting, EHLO, AUTH. Until the verdict nothing that the host says is
authenticated, so at levels above ``may`` its 5xx replies count as 4xx (DESIGN section 3).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from relay.delivery.authenticate import Authenticator, LoginRefused, Proven, proven
from relay.delivery.client import (
    ConnectError,
    HandshakeFailed,
    SessionEnded,
    SmtpConnection,
    Stage,
    abort_on_error,
    connect,
)
from relay.delivery.options import DeliveryOptions
from relay.delivery.plan import Extensions
from relay.delivery.tokens import Tokens
from relay.log.events import ConnectFailed, Noted, Observer, Program, TlsEstablished, TlsRefused
from relay.mail.envelope import QueueId
from relay.mail.reply import EnhancedStatus, Reply, Severity
from relay.outcome.result import Diagnostic, FromPeer, Local, NoHost, Relay, RelayHost
from relay.outcome.wording import explain, one_line
from relay.policy.policy import NO_CREDENTIALS, TlsPolicy
from relay.sasl.credentials import Credentials, NoCredentials
from relay.tls.handshake import peer_facts
from relay.tls.judge import judge, judge_plaintext
from relay.tls.peer import NOT_SEEN, CheckChain, InClear, Seen
from relay.tls.verdict import Plaintext, Refused, Verdict

CONNECTION_TROUBLE = EnhancedStatus(4, 4, 2)


class Kind(Enum):
    """What a trouble means for the recipients it leaves without an answer."""

    SOFT = "try the next host, then defer"
    HARD = "bounce at once"
    HARD_IF_LAST = "try the next host, then bounce"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why one host did not take mail.

    :param tls: the ``tls=`` feature as far as it got.
    :param throttles: whether the destination itself failed, not the message (postfix smtp_trouble.c).
    :param handshake: whether the TLS handshake failed after STARTTLS, which at ``may`` allows a retry in the clear.
    :param seen: what the session showed, as far as it got to a verdict.
    :param verdict_reached: whether a session stood that could carry mail: it counts towards ``mx_session_limit``, which
        a host that fails before that does not (postfix smtp_connect.c).
    """

    status: EnhancedStatus
    reason: str
    diagnostic: Diagnostic
    relay: Relay
    tls: str
    kind: Kind = Kind.SOFT
    throttles: bool = True
    handshake: bool = False
    verdict_reached: bool = False
    seen: Seen = NOT_SEEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session whose verdict satisfies the policy it was opened for."""

    connection: SmtpConnection
    relay: RelayHost
    policy: TlsPolicy
    verdict: Verdict
    extensions: Extensions
    tls: str
    seen: Seen = NOT_SEEN

    def finish(self) -> None:
        """Say QUIT and do not wait for the answer (postfix ``smtp_skip_quit_response``)."""
        finish(self.connection)


def finish(connection: SmtpConnection) -> None:
    """Say QUIT if that is still possible, and close."""
    try:
        connection.send_lines([b"QUIT"], Stage.QUIT)
    except SessionEnded:
        pass
    connection.close()


class _Failed(Exception):  # noqa: N818 - it carries the trouble up to ``open``
    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.reason)
        self.trouble = trouble


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
        opening = Opening(self._options, relay, policy, queue_id, self._observe)
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
                session = await self.negotiate(opening, plaintext=plaintext)
                return session if isinstance(credentials, NoCredentials) else await self.log_in(session, credentials)
            except _Failed as failed:
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
            raise _Failed(opening.no_wrapping())
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
            raise _Failed(opening.refused(verdict))
        return verdict

    async def log_in(self, session: Session, credentials: Credentials) -> Session:
        """Log in where the host offers AUTH; one that does not is talked to as a stranger (smtp_proto.c, smtp_helo)."""
        if session.extensions.has_auth:
            host, mechanism = self.mechanism_for(session, credentials)
            refused = await self._authenticator.log_in(host, mechanism, credentials)
            if refused is not None:
                raise _Failed(_no_login(session, refused))
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
            raise _Failed(_no_login(session, host))
        mechanism = self._authenticator.choose(host, credentials)
        if isinstance(mechanism, LoginRefused):
            raise _Failed(_no_login(session, mechanism))
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
            raise _Failed(
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


def _no_login(session: Session, refused: LoginRefused) -> Trouble:
    return Trouble(
        status=refused.status,
        reason=refused.reason,
        diagnostic=refused.diagnostic,
        relay=session.relay,
        tls=session.tls,
        kind=Kind.HARD if refused.hard else Kind.SOFT,
    )


class Opening:
    """One session on its way, and how its failures are worded."""

    def __init__(
        self, options: DeliveryOptions, relay: RelayHost, policy: TlsPolicy, queue_id: QueueId, observe: Observer
    ) -> None:
        self.relay = relay
        self.policy = policy
        self.queue_id = queue_id
        self.connection: SmtpConnection
        self.seen: Seen = NOT_SEEN
        self._options = options
        self._observe = observe

    async def greeting(self) -> None:
        """Wait for the host's first words."""
        reply = await self.connection.reply(Stage.GREETING, self._options.timeouts.helo)
        if reply.severity is not Severity.SUCCESS:
            # A 5xx greeting is soft at every level (postfix ``smtp_skip_5xx_greeting``).
            raise _Failed(self._talk_refused(reply, soft=True))

    async def ehlo(self, *, before_verdict: bool) -> Extensions:
        """Say EHLO, or HELO to a host that knows no better, and hear what is offered."""
        name = self._options.helo_name.encode("ascii", "replace")
        timeout = self._options.timeouts.helo
        reply = await self.connection.command(b"EHLO " + name, Stage.EHLO, timeout)
        if reply.severity is Severity.SUCCESS:
            return Extensions.parse(reply.lines)
        if reply.severity is Severity.PERMANENT and reply.code != 521:
            reply = await self.connection.command(b"HELO " + name, Stage.HELO, timeout)
            if reply.severity is Severity.SUCCESS:
                return Extensions({})
        raise _Failed(self._talk_refused(reply, soft=before_verdict and self.policy.level.requires_tls))

    def _talk_refused(self, reply: Reply, *, soft: bool) -> Trouble:
        hard = reply.severity is Severity.PERMANENT and not soft
        return Trouble(
            status=reply.status if hard or reply.severity is Severity.TRANSIENT else reply.status.softened(),
            reason=one_line(f"host {self.relay.namaddr} refused to talk to me: {reply.one_line}"),
            diagnostic=FromPeer(reply=reply, mta=self.relay.name),
            relay=self.relay,
            tls=self._feature("?"),
            kind=Kind.HARD if hard else Kind.SOFT,
        )

    def in_clear(self, how: str, reply: Reply | None, extensions: Extensions) -> Session:
        """The host gives no TLS: go on without if the policy allows, else fail."""
        self.seen = InClear(f"STARTTLS {how}", reply)
        verdict = judge_plaintext(self.policy, self.relay.namaddr, reply)
        if isinstance(verdict, Refused):
            raise _Failed(self.refused(verdict, reply))
        return self.session(verdict, extensions)

    def session(self, verdict: Verdict, extensions: Extensions) -> Session:
        """The session as it will carry mail."""
        in_clear = isinstance(verdict, Plaintext) and self.policy.level.uses_tls
        return Session(
            connection=self.connection,
            relay=self.relay,
            policy=self.policy,
            verdict=verdict,
            extensions=extensions,
            tls=self._feature(":none" if in_clear else ""),
            seen=self.seen,
        )

    def no_wrapping(self) -> Trouble:
        """A port where everything is TLS, and a policy without."""
        reason = explain(
            "client TLS configuration problem",
            expected=f"a level that uses TLS, as port {self.relay.port} does from the first octet",
            found=f"level {self.policy.level.word}",
            rule=str(self.policy.rule),
        )
        return self.local(EnhancedStatus(4, 7, 5), reason, "")

    def refused(self, verdict: Refused, reply: Reply | None = None) -> Trouble:
        """A verdict against the session."""
        reason = explain(verdict.text, expected=verdict.expected, found=verdict.found, rule=verdict.rule)
        return Trouble(
            status=verdict.status,
            reason=reason,
            diagnostic=FromPeer(reply=reply, mta=self.relay.name) if reply else Local(reason),
            relay=self.relay,
            tls=f"!{self.policy.level.word}",
            seen=self.seen,
        )

    def local(self, status: EnhancedStatus, reason: str, suffix: str, *, session_had: bool = True) -> Trouble:
        """A failure that the host did not put into words; without a connection Postfix logs ``relay=none``."""
        return Trouble(
            status=status,
            reason=reason,
            diagnostic=Local(reason),
            relay=self.relay if session_had else NoHost(),
            tls=self._feature(suffix),
        )

    def _feature(self, suffix: str) -> str:
        return f"{self.policy.level.word}{suffix if self.policy.level.uses_tls else ''}"
