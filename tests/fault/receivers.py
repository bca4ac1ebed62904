"""Receivers that a crash harness delivers to: fast, slow, reluctant; each keeps a record of what it answered to whom.

Nothing of the relay's own code: the record is the evidence.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

_TOKEN = re.compile(rb"^Subject: (\S+)\r$", re.MULTILINE)
_DIGEST = re.compile(rb"^X-Digest: (\S+)\r$", re.MULTILINE)
_QUEUE_ID = re.compile(rb"\r\n\tby [^\r]* id ([0-9A-Za-z]+)\b")
_RECIPIENT = re.compile(rb"RCPT TO:<([^>]*)>", re.IGNORECASE)
_LARGEST = 4 * 1024 * 1024


def letter(token: str, octets: int, chance: random.Random) -> bytes:
    """A message that carries its own check."""
    body = b"".join(b"%020x\r\n" % chance.getrandbits(80) for _ in range(max(1, octets // 22)))
    return b"Subject: %s\r\nX-Digest: %s\r\n\r\n%s" % (token.encode(), hashlib.sha256(body).hexdigest().encode(), body)


@dataclass(slots=True)
class Taken:
    """One message that a receiver answered with 250, or was about to.

    :param life: of the relay, counted by the harness, when it connected.
    :param answered: when the 250 was written (``time.monotonic``).
    :param followed: whether the session went on after the 250: the relay had read it.
    :param guard: which certificate the session was encrypted with; empty in the clear.
    """

    token: str
    queue_id: str
    recipients: tuple[str, ...]
    life: int
    whole: bool
    answered: float
    followed: bool = False
    guard: str = ""


@dataclass(slots=True)
class Stay:
    """One transaction, from MAIL to the last answer in it (``time.monotonic``).

    :param cut: whether the client said nothing after it, not even QUIT: it may have been gone before the end.
    """

    began: float
    ended: float
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What a receiver offers for STARTTLS.

    :param name: of the certificate, in the record.
    """

    name: str
    context: ssl.SSLContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How a receiver behaves, each time by chance.

    :param slowness: at most so many seconds before the answer to a message.
    :param busy: how often it greets with 421.
    :param reluctant: how often it answers a recipient with 450.
    :param forgetful: how often it answers a whole message with 451.
    :param refuses: recipients that it always answers with 450.
    """

    slowness: float = 0.0
    busy: float = 0.0
    reluctant: float = 0.0
    forgetful: float = 0.0
    refuses: frozenset[str] = frozenset()


class Receiver:
    """An SMTP server on one address.

    :param life: which life of the relay this is.
    :param guards: one of them, or none, is offered in each session, as chance will have it.
    """

    def __init__(
        self,
        manners: Manners,
        chance: random.Random,
        life: Callable[[], int],
        guards: tuple[Guard | None, ...] = (None,),
    ) -> None:
        self.manners = manners
        self.taken: list[Taken] = []
        self.stays: list[Stay] = []
        self.deferred = 0
        self._guards = guards
        self._chance = chance
        self._life = life
        self._server: asyncio.Server
        self._writers: set[asyncio.StreamWriter] = set()
        self._sessions: dict[asyncio.Task[None], int] = {}

    async def start(self, address: str, port: int) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, address, port, limit=_LARGEST, backlog=500)

    async def bury(self, life: int) -> None:
        """Wait until the sessions of earlier lives are over: each answers its dead client before it notices."""
        if old := [task for task, its in self._sessions.items() if its < life]:
            await asyncio.wait(old)

    async def stop(self) -> None:
        """Stop listening and cut what is open."""
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        if self._sessions:
            await asyncio.wait(self._sessions)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._sessions[task] = self._life()
        try:
            await self._converse(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the relay was killed, or gave up
        finally:
            self._writers.discard(writer)
            del self._sessions[task]
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._happens(self.manners.busy):
            writer.write(b"421 4.3.2 busy\r\n")
            await writer.drain()
            return
        writer.write(b"220 receiver.test ESMTP\r\n")
        guard = self._chance.choice(self._guards) if len(self._guards) > 1 else self._guards[0]
        recipients, life, within = list[str](), self._life(), ""
        last: Taken | None = None
        stay = Stay(0.0, 0.0)  # nothing yet
        try:
            while line := await reader.readline():
                if last is not None:
                    last.followed, last = True, None
                verb = line[:4].upper()
                if verb == b"EHLO":
                    offer = b"250-STARTTLS\r\n" if guard is not None and not within else b""
                    writer.write(b"250-receiver.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n" + offer)
                    writer.write(b"250 ENHANCEDSTATUSCODES\r\n")
                elif verb == b"STAR" and guard is not None:
                    writer.write(b"220 2.0.0 go on\r\n")
                    await writer.drain()
                    await writer.start_tls(guard.context)
                    within = guard.name
                elif verb == b"RCPT":
                    self._recipient(line, recipients, writer)
                elif verb == b"DATA" and not recipients:
                    writer.write(b"554 5.5.1 no valid recipients\r\n")
                elif verb == b"DATA":
                    writer.write(b"354 go on\r\n")
                    content = await reader.readuntil(b"\r\n.\r\n")
                    last = await self._content(content, tuple(recipients), life, writer)
                    if last is not None:
                        last.guard = within
                elif verb == b"QUIT":
                    writer.write(b"221 2.0.0 bye\r\n")
                    await writer.drain()
                    return
                else:
                    if verb in (b"MAIL", b"RSET"):
                        recipients.clear()
                    if verb == b"MAIL":
                        stay = Stay(time.monotonic(), time.monotonic())
                        self.stays.append(stay)
                    writer.write(b"250 2.0.0 Ok\r\n")
                if verb in (b"MAIL", b"RCPT", b"DATA"):
                    stay.ended = time.monotonic()
                await writer.drain()
            stay.cut = True
        except (OSError, asyncio.IncompleteReadError):
            stay.cut = True
            raise

    def _recipient(self, line: bytes, recipients: list[str], writer: asyncio.StreamWriter) -> None:
        found = _RECIPIENT.search(line)
        refused = found is not None and found[1].decode() in self.manners.refuses
        if found is None or refused or self._happens(self.manners.reluctant):
            self.deferred += 1
            writer.write(b"450 4.2.0 try again\r\n")
            return
        recipients.append(found[1].decode())
        writer.write(b"250 2.1.5 Ok\r\n")

    async def _content(
        self, content: bytes, recipients: tuple[str, ...], life: int, writer: asyncio.StreamWriter
    ) -> Taken | None:
        if self.manners.slowness:
            await asyncio.sleep(self._chance.uniform(0.0, self.manners.slowness))
        if self._happens(self.manners.forgetful):
            self.deferred += 1
            writer.write(b"451 4.3.0 try again\r\n")
            return None
        head, _, body = content.removesuffix(b".\r\n").partition(b"\r\n\r\n")
        token, digest, queue_id = _TOKEN.search(head + b"\r\n"), _DIGEST.search(head + b"\r\n"), _QUEUE_ID.search(head)
        taken = Taken(
            token=token[1].decode() if token else "",
            queue_id=queue_id[1].decode() if queue_id else "",
            recipients=recipients,
            life=life,
            whole=digest is not None and hashlib.sha256(body).hexdigest().encode() == digest[1],
            answered=time.monotonic(),
        )
        self.taken.append(taken)
        writer.write(b"250 2.0.0 Ok: taken\r\n")
        return taken

    def _happens(self, how_often: float) -> bool:
        return how_often > 0 and self._chance.random() < how_often
