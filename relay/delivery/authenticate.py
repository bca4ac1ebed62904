"""AUTH at a host that has proved who it is (RFC 4954; postfix smtp_sasl_glue.c).

The law: credentials are shown only to a ``Proven`` host. ``decide`` gives no other policy where credentials are at stake; here it
is asked again, beside the wire.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
from dataclasses import dataclass, replace
from typing import Final

from relay.delivery.client import SessionEnded, SmtpConnection, Stage
from relay.delivery.plan import Extensions
from relay.delivery.tokens import Tokens, TokenUnavailable
from relay.mail.reply import EnhancedStatus, Reply, Severity
from relay.outcome.result import Diagnostic, FromPeer, Local, RelayHost
from relay.outcome.wording import explain, one_line
from relay.policy.policy import TlsPolicy
from relay.policy.stake import WITHHELD, proves_enough
from relay.sasl.choose import MECHANISMS, filtered, fitting
from relay.sasl.credentials import AtStake, Credentials, Password
from relay.sasl.exchange import exchange
from relay.sasl.mechanism import Exchange, MechanismFailed
from relay.sasl.redact import redacted
from relay.sasl.secret import Secret
from relay.tls.verdict import Trusted, Verdict, Verified

FAILED: Final = "SASL authentication failed"
_STATUS: Final = EnhancedStatus(4, 7, 0)
_WITHHELD_STATUS: Final = EnhancedStatus(4, 7, 5)
MAX_CHALLENGES: Final = 10
MAX_COMMAND: Final = 512
"""Octets of a command line with its end (RFC 5321 section 4.5.3.1.4); an initial response that does not fit goes later."""
_CANCEL_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginRefused:
    """No login: why, in words that show no secret.

    :param hard: whether the host's 5xx is taken for its last word.
    """

    status: EnhancedStatus
    reason: str
    diagnostic: Diagnostic
    hard: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """A host that proved who it is, and what it offers; made by ``proven`` only."""

    connection: SmtpConnection
    relay: RelayHost
    extensions: Extensions


def proven(
    connection: SmtpConnection,
    relay: RelayHost,
    extensions: Extensions,
    *,
    policy: TlsPolicy,
    verdict: Verdict,
    credentials: Credentials,
) -> Proven | LoginRefused:
    """Whether a host may see credentials: its session is in TLS, at a level that asks for a proof, and one was found."""
    if connection.ssl_object is None or not may_show(policy, verdict, credentials):
        expected = "a session in which the host proved who it is"
        found = f"none, at level {policy.level.word}"
        return _refused(WITHHELD, _WITHHELD_STATUS, expected, found, str(policy.rule))
    return Proven(connection=connection, relay=relay, extensions=extensions)


def may_show(policy: TlsPolicy, verdict: Verdict, credentials: Credentials) -> bool:
    """Whether a verdict is a proof: of a level that asks for one, and one that is enough for these credentials."""
    enough = proves_enough(policy.level, AtStake(credentials.place, credentials.owner))
    return enough and isinstance(verdict, Verified | Trusted)


class Authenticator:
    """Logs in.

    :param mechanism_filter: see ``relay.sasl.choose.filtered``.
    :param soft_bounce: whether a 5xx reply defers mail instead of bouncing it.
    :param timeout: seconds that a host may take for each reply.
    """

    def __init__(self, tokens: Tokens, *, mechanism_filter: tuple[str, ...], soft_bounce: bool, timeout: float) -> None:
        self._tokens = tokens
        self._filter = mechanism_filter
        self._soft_bounce = soft_bounce
        self._timeout = timeout

    def choose(self, host: Proven, credentials: Credentials) -> str | LoginRefused:
        """The mechanism to log in with."""
        offered, namaddr = host.extensions.mechanisms, host.relay.namaddr
        left = filtered(offered, self._filter)
        if not left:
            # Postfix's text for a list that is empty, or was emptied by the filter (smtp_sasl_proto.c).
            text = (
                f"{FAILED}: server {namaddr} offered no compatible authentication mechanisms "
                "for this type of connection security"
            )
            return _refused(text, _STATUS, self._wanted(credentials), _listed(offered), credentials.place)
        usable = fitting(credentials.proof, left)
        if not usable:
            text = f"{_cannot(host)}: no mechanism available"
            return _refused(text, _STATUS, self._wanted(credentials), _listed(left), credentials.place)
        return usable[0]

    async def log_in(self, host: Proven, mechanism: str, credentials: Credentials) -> LoginRefused | None:
        """Log in at a host that offers AUTH.

        :returns: None when it took the credentials.
        :raises SessionEnded: if the session broke.
        """
        rule = credentials.place
        try:
            reply = await self._attempt(host, mechanism, credentials)
        except TokenUnavailable as missing:
            text = f"{_cannot(host)}: no access token"
            return _refused(text, _STATUS, "an access token", str(missing), rule)
        except MechanismFailed as failed:
            text = f"{_cannot(host)}: {mechanism} failed"
            return _refused(text, _STATUS, "an exchange by the book", str(failed), rule)
        return None if reply.severity is Severity.SUCCESS else self._said(host.relay, reply)

    def _wanted(self, credentials: Credentials) -> str:
        fit = filtered(fitting(credentials.proof, MECHANISMS), self._filter)
        return f"one of {', '.join(fit)}" if fit else "a mechanism that smtp.sasl_mechanism_filter leaves (none)"

    async def _attempt(self, host: Proven, mechanism: str, credentials: Credentials) -> Reply:
        """Try once; with a token that the host refuses, once more with the next if there is one."""
        if isinstance(credentials.proof, Password):
            return await self._exchange(host, mechanism, credentials.user, credentials.proof.secret)
        token = await self._tokens.get(credentials.proof)
        reply = await self._exchange(host, mechanism, credentials.user, token)
        if reply.severity is not Severity.PERMANENT:
            return reply
        self._tokens.refused(credentials.proof, token)
        again = await self._tokens.get(credentials.proof)
        if again == token:
            return reply
        return await self._exchange(host, mechanism, credentials.user, again)

    async def _exchange(self, host: Proven, mechanism: str, user: str, secret: Secret) -> Reply:
        """The exchange of one mechanism, up to a reply that is no challenge."""
        nonce = secrets.token_urlsafe(24)
        ours = exchange(mechanism, user, secret, host=host.relay.name, port=host.relay.port, nonce=nonce)
        first = _encoded(ours.first()) if ours.speaks_first else ""
        wire = _Wire(host.connection, secret, self._timeout)
        try:
            reply = await _converse(wire, ours, f"AUTH {mechanism}", first)
        except MechanismFailed:
            await wire.cancel()
            raise
        if reply.severity is Severity.SUCCESS and not ours.proved:
            raise MechanismFailed("a success before the host proved that it knows the password")
        return reply

    def _said(self, relay: RelayHost, reply: Reply) -> LoginRefused:
        hard = reply.severity is Severity.PERMANENT and not self._soft_bounce
        return LoginRefused(
            status=reply.status if hard or reply.severity is Severity.TRANSIENT else reply.status.softened(),
            reason=one_line(f"{FAILED}; server {relay.namaddr} said: {reply.one_line}"),
            diagnostic=FromPeer(reply=reply, mta=relay.name),
            hard=hard,
        )


class _Wire:
    """The lines of one exchange; what a host quotes of them does not come back."""

    def __init__(self, connection: SmtpConnection, secret: Secret, timeout: float) -> None:
        self._connection = connection
        self._secret = secret
        self._timeout = timeout
        self._sent: list[str] = []

    async def say(self, response: str, *, command: str = "") -> Reply:
        """Send a response in base64, behind a command if it is the first, and await the reply.

        :raises SessionEnded: if the session broke.
        """
        self._sent.append(response)
        line = f"{command} {response}".strip()
        try:
            reply = await self._connection.command(line.encode("ascii"), Stage.AUTH, self._timeout)
        except SessionEnded as ended:
            # An echo of what we sent is no reply, and no detail either.
            detail = "not an SMTP reply" if ended.detail else ""
            raise SessionEnded(ended.stage, ended.how, detail) from None
        if reply.severity is Severity.INTERMEDIATE:
            return reply
        return replace(reply, lines=tuple(redacted(one, self._secret, self._sent) for one in reply.lines))

    async def cancel(self) -> None:
        """Tell the host that the exchange ends here (RFC 4954 section 4), so that QUIT is no answer to a challenge."""
        try:
            await self._connection.command(b"*", Stage.AUTH, _CANCEL_SECONDS)
        except SessionEnded:
            pass  # the session ends anyway


async def _converse(wire: _Wire, ours: Exchange, command: str, first: str) -> Reply:
    """The dialogue, from AUTH to a reply that is no challenge.

    :param first: the initial response; it goes with the command where that leaves room, else as the answer to a challenge.
    """
    deferred = first if len(command) + len(first) + 3 > MAX_COMMAND else ""
    reply = await wire.say("" if deferred else first, command=command)
    for _ in range(MAX_CHALLENGES):
        if reply.severity is not Severity.INTERMEDIATE:
            return reply
        challenge = _challenge(reply)
        if deferred and challenge:
            raise MechanismFailed("a challenge where the host has to wait for the initial response")
        # In a thread: SCRAM hashes for as long as the host asks, within limits.
        answer = deferred or _encoded(await asyncio.to_thread(ours.next, challenge))
        deferred = ""
        reply = await wire.say(answer)
    raise MechanismFailed(f"more than {MAX_CHALLENGES} challenges")


def _encoded(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


def _challenge(reply: Reply) -> bytes:
    """What a 334 reply carries."""
    if reply.code != 334 or len(reply.lines) != 1:
        raise MechanismFailed(f"reply {reply.code} of {len(reply.lines)} lines in the place of a challenge")
    text = reply.lines[0]
    try:
        return b"" if text == "=" else base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise MechanismFailed("a challenge that is no base64") from None


def _cannot(host: Proven) -> str:
    return f"{FAILED}; cannot authenticate to server {host.relay.namaddr}"


def _listed(mechanisms: tuple[str, ...]) -> str:
    return one_line(", ".join(mechanisms), 200) or "none"


def _refused(text: str, status: EnhancedStatus, expected: str, found: str, rule: str) -> LoginRefused:
    reason = explain(text, expected=expected, found=found, rule=rule)
    return LoginRefused(status=status, reason=reason, diagnostic=Local(reason))
