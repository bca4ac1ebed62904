"""AUTH (RFC 4954): a client shows who it is, over TLS only. The exchange, the slow work beside it, and who is shut out."""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
import time
from collections.abc import Awaitable, Callable

from relay.log.events import Observer, Program, Warned
from relay.mail.envelope import Client, Sender
from relay.mail.names import IpAddress
from relay.mail.reply import Reply
from relay.sasl.server import MECHANISMS, Challenge, Claim, Proved, Refused, ServerExchange, begin
from relay.sasl.users import Users
from relay.smtpd import replies
from relay.smtpd.commands import quoted
from relay.smtpd.dialogue import Dialogue
from relay.smtpd.incoming import Odd
from relay.smtpd.ownership import Owners
from relay.smtpd.rates import client_key

# Passwords that are compared at a time (32 MiB each), and that may wait for it.
_AT_A_TIME = 2
_WAITING = 64
_REMEMBERED = 10_000

Ask = Callable[[bytes], Awaitable[bytes | Odd]]
"""Says a challenge (octets before base64) and gives the line that answers it."""


class Lockout:
    """Failures by client address; the oldest of too many clients are forgotten.

    :param limit: failures of one client within ``seconds``; after that none of its passwords is looked at until they are over.
        0 for no limit.
    :param clock: seconds that never go back.
    """

    def __init__(self, limit: int = 10, seconds: float = 600.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._seconds = seconds
        self._clock = clock
        self._windows: dict[str, tuple[float, int]] = {}

    def __len__(self) -> int:
        return len(self._windows)

    def enter(self, address: IpAddress) -> bool:
        """Count an attempt as failed until ``forgive`` says that it was not; False if there were too many."""
        if not self._limit:
            return True
        key, now = client_key(address), self._clock()
        began, count = self._windows.pop(key, (now, 0))
        if now - began >= self._seconds:
            began, count = now, 0
        allowed = count < self._limit
        if len(self._windows) >= _REMEMBERED:
            del self._windows[next(iter(self._windows))]
        self._windows[key] = (began, count + allowed)
        return allowed

    def forgive(self, address: IpAddress) -> None:
        """Take one attempt back: it was none, or a good one."""
        key = client_key(address)
        if key in self._windows:
            began, count = self._windows[key]
            self._windows[key] = (began, max(0, count - 1))


class Authenticator:
    """Carries out AUTH for every session of a server.

    :param users: those who may log in now; None where nobody may, and AUTH is not offered.
    :param observe: told of each failure.
    :param owners: who may use which sender address now.
    """

    def __init__(
        self,
        users: Callable[[], Users | None],
        *,
        observe: Observer,
        owners: Callable[[], Owners] = Owners,
        lockout: Lockout | None = None,
    ) -> None:
        self._users = users
        self._owners = owners
        self._observe = observe
        self._lockout = Lockout() if lockout is None else lockout
        self._slots = asyncio.Semaphore(_AT_A_TIME)
        self._waiting = 0

    @property
    def available(self) -> bool:
        """Whether there is anybody to log in as."""
        return self._users() is not None

    def disowns(self, sender: Sender, user: str) -> Reply | None:
        """Why a user who has logged in may not use a sender address, or None."""
        return self._owners().refuses(sender, user)

    async def log_in(self, dialogue: Dialogue, argument: str, ask: Ask) -> Reply:
        """Carry out the command AUTH; the dialogue knows the user afterwards, if it was one."""
        refusal, users = dialogue.refuses_auth(argument), self._users()
        if refusal is not None or users is None:
            return refusal or replies.AUTH_DISABLED
        mechanism, _, initial = argument.partition(" ")
        mechanism, client = mechanism.upper(), dialogue.client
        if mechanism not in MECHANISMS:
            return replies.UNKNOWN_MECHANISM
        if not self._lockout.enter(client.address):
            self._warn(client, mechanism, "too many failures of this client", "")
            return replies.too_many_auth(str(client.address))
        exchange = begin(mechanism, users, nonce=secrets.token_urlsafe(18))
        try:
            user = await self._prove(exchange, users, initial.strip(), ask)
        except Refused as refused:
            self._warn(client, mechanism, str(refused), refused.user)
            return replies.AUTH_FAILED
        if isinstance(user, Reply):
            if user is not replies.AUTH_ABORTED and user is not replies.BAD_BASE64:
                self._lockout.forgive(client.address)
            return user
        self._lockout.forgive(client.address)
        known = users.find(user)
        dialogue.logged_in(known.name if known else user, mechanism)
        return replies.AUTHENTICATED

    async def _prove(self, exchange: ServerExchange, users: Users, initial: str, ask: Ask) -> str | Reply:
        """The user, or what else to answer.

        :raises Refused: if the client does not prove to be one.
        """
        response: bytes | Reply
        response = _decoded(initial.encode()) if initial else _answer(await ask(exchange.opening))
        while True:
            if isinstance(response, Reply):
                return response
            match exchange.next(response):
                case Challenge(octets):
                    response = _answer(await ask(octets))
                case Claim() as claim:
                    return await self._compare(users, claim)
                case Proved(user):
                    return user

    async def _compare(self, users: Users, claim: Claim) -> str | Reply:
        if self._waiting >= _WAITING:
            return replies.AUTH_BUSY
        self._waiting += 1
        try:
            async with self._slots:
                right = await asyncio.to_thread(users.is_password, claim.user, claim.password)
        finally:
            self._waiting -= 1
        if not right:
            raise Refused("authentication failure", claim.user)
        return claim.user

    def _warn(self, client: Client, mechanism: str, reason: str, user: str) -> None:
        name = f", sasl_username={quoted(user.encode())}" if user else ""
        text = f"{client}: SASL {mechanism} authentication failed: {reason}{name}"
        self._observe(Warned(Program.SMTPD, text))


def _answer(line: bytes | Odd) -> bytes | Reply:
    if isinstance(line, Odd):
        return replies.LINE_TOO_LONG if line is Odd.TOO_LONG else replies.AUTH_BUSY
    return replies.AUTH_ABORTED if line == b"*" else b"" if not line else _decoded(line)


def _decoded(text: bytes) -> bytes | Reply:
    """``=`` is the initial response that is there and empty (RFC 4954 section 4)."""
    try:
        return b"" if text == b"=" else base64.b64decode(text, validate=True)
    except binascii.Error:
        return replies.BAD_BASE64
