"""A session on its way: what is said before it may carry mail, and how its failures are worded."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from relay.delivery.authenticate import LoginRefused
from relay.delivery.client import SessionEnded, SmtpConnection, Stage
from relay.delivery.options import DeliveryOptions
from relay.delivery.plan import Extensions
from relay.delivery.trouble import Kind, Trouble
from relay.log.events import Observer
from relay.mail.envelope import QueueId
from relay.mail.reply import EnhancedStatus, Reply, Severity
from relay.outcome.result import FromPeer, Local, NoHost, RelayHost
from relay.outcome.wording import explain, one_line
from relay.policy.policy import TlsPolicy
from relay.tls.judge import judge_plaintext
from relay.tls.peer import NOT_SEEN, InClear, PeerFacts, Seen
from relay.tls.verdict import Plaintext, Refused, Verdict

_NO_END = datetime.max.replace(tzinfo=UTC)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class Wear:
    """What a session has been through.

    :param messages: how many it has carried, or tried to.
    :param refusals: commands that were refused.
    :param in_transaction: whether the host may still be in the middle of a transaction, so that RSET must come first.
    :param chunks: whether the host took content in chunks; ``no_chunks`` whether it did not know them after all.
    :param unwelcome: whether it should not be used again: the host said 421, or only this message may go over it.
    """

    messages: int = 0
    refusals: int = 0
    in_transaction: bool = False
    chunks: bool = False
    no_chunks: bool = False
    unwelcome: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session whose verdict satisfies the policy it was opened for.

    :param opened_at: not after the verdict.
    :param good_until: when a certificate ends that was valid then; one that had ended by then counted for nothing.
    """

    connection: SmtpConnection
    relay: RelayHost
    policy: TlsPolicy
    verdict: Verdict
    extensions: Extensions
    tls: str
    seen: Seen = NOT_SEEN
    opened_at: datetime = _LONG_AGO
    good_until: datetime = _NO_END
    wear: Wear = field(default_factory=Wear)

    def finish(self) -> None:
        """Say QUIT and do not wait for the answer (postfix ``smtp_skip_quit_response``)."""
        finish(self.connection)


def dated(session: Session, opened_at: datetime) -> Session:
    """A session that knows its age."""
    chain = session.seen.chain if isinstance(session.seen, PeerFacts) else ()
    ends = (facts.not_after for facts in chain if facts.not_after > opened_at)
    return replace(session, opened_at=opened_at, good_until=min(ends, default=_NO_END))


def finish(connection: SmtpConnection) -> None:
    """Say QUIT if that is still possible, and close."""
    try:
        connection.send_lines([b"QUIT"], Stage.QUIT)
    except SessionEnded:
        pass
    connection.close()


class Failed(Exception):  # noqa: N818 - it carries the trouble up to ``open``
    """There will be no session."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.reason)
        self.trouble = trouble


def no_login(session: Session, refused: LoginRefused) -> Trouble:
    """A session whose host did not let us log in."""
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
            raise Failed(self._talk_refused(reply, soft=True))

    async def ehlo(self, *, before_verdict: bool) -> Extensions:
        """Say EHLO, or HELO to a host that knows no better, and hear what is offered."""
        name = self._options.helo_name.encode("ascii", "replace")
        timeout = self._options.timeouts.helo
        reply = await self.connection.command(b"EHLO " + name, Stage.EHLO, timeout)
        if reply.severity is Severity.SUCCESS:
            return Extensions.parse(reply.lines, discard=self._options.discard_ehlo_keywords)
        if reply.severity is Severity.PERMANENT and reply.code != 521:
            reply = await self.connection.command(b"HELO " + name, Stage.HELO, timeout)
            if reply.severity is Severity.SUCCESS:
                return Extensions({})
        raise Failed(self._talk_refused(reply, soft=before_verdict and self.policy.level.requires_tls))

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
            raise Failed(self.refused(verdict, reply))
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
