"""Receivers that go up and down: each changes its mood every few seconds, at random.

``python -m tests.bench.churn PORT PEM-FILE SEED ADDRESS...`` listens with STARTTLS on each address. A line ``calm`` on standard
input makes all of them well-behaved, and ``churn`` ends that. When the input ends it prints ``taken MESSAGES`` and what each mood
did, and ends.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import sys
from collections import Counter
from enum import Enum, auto

import uvloop

from tests.bench.sink import Sink

SHORTEST, LONGEST = 2.0, 15.0
"""Seconds of one mood."""


class Mood(Enum):
    """How a receiver is for a while."""

    UP = auto()
    DOWN = auto()
    BUSY = auto()
    CUTS = auto()
    SILENT = auto()
    NO_TLS = auto()


HOW_OFTEN = {Mood.UP: 12, Mood.DOWN: 3, Mood.BUSY: 2, Mood.CUTS: 2, Mood.SILENT: 1, Mood.NO_TLS: 1}


class Receiver:
    """One address and its mood."""

    def __init__(self, address: str, port: int, context: ssl.SSLContext, chance: random.Random) -> None:
        self._address = address
        self._port = port
        self.context = context
        self._chance = chance
        self._calm = asyncio.Event()
        self._server: asyncio.Server | None = None
        self.mood = Mood.UP
        self.sessions: set[Moody] = set()
        self.seen: Counter[str] = Counter()

    async def live(self) -> None:
        """Change moods until calm comes."""
        while not self._calm.is_set():
            await self.become(self._chance.choices(list(HOW_OFTEN), list(HOW_OFTEN.values()))[0])
            try:
                await asyncio.wait_for(self._calm.wait(), self._chance.uniform(SHORTEST, LONGEST))
            except TimeoutError:
                pass
        self._calm.clear()
        await self.become(Mood.UP)

    def calm(self) -> None:
        """Be well-behaved until it lives again."""
        self._calm.set()

    async def become(self, mood: Mood) -> None:
        """Change to a mood, whatever it takes."""
        before, self.mood = self.mood, mood
        self.seen[f"mood {mood.name}"] += 1
        if mood is Mood.DOWN and self._server is not None:
            self._server.close()
            self._server = None
        if mood is Mood.DOWN or before is Mood.SILENT:
            for session in tuple(self.sessions):
                session.cut()
        if mood is not Mood.DOWN and self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(lambda: Moody(self), self._address, self._port, backlog=1000)


class Moody(Sink):
    """One session of a receiver."""

    def __init__(self, receiver: Receiver) -> None:
        super().__init__(receiver.context, Counter())
        self._receiver = receiver

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._receiver.sessions.add(self)
        self._receiver.seen["sessions"] += 1
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget it."""
        self._receiver.sessions.discard(self)

    def cut(self) -> None:
        """End it without a word."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._receiver.mood is Mood.SILENT:
            return  # whatever was said, the session ends with the mood
        super().data_received(data)

    def _command(self, line: bytes) -> bytes:
        word, mood = line[:4].upper(), self._receiver.mood
        if word == b"RCPT" and b"<nobody@" in line:
            return b"550 5.1.1 No such user"
        if word == b"RCPT" and mood is Mood.BUSY:
            self._receiver.seen["answered 450"] += 1
            return b"450 4.2.1 Busy, try again later"
        if word == b"RCPT" and mood is Mood.CUTS:
            self._receiver.seen["cut"] += 1
            asyncio.get_running_loop().call_soon(self.cut)
        answer = super()._command(line)
        return answer.replace(b"STARTTLS", b"NOTHING") if word == b"EHLO" and mood is Mood.NO_TLS else answer

    def _count(self) -> None:
        self._receiver.seen["taken"] += 1


async def main(port: int, pem_file: str, seed: int, addresses: list[str]) -> None:
    """Run until standard input ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem_file)
    receivers = [Receiver(address, port, context, random.Random(f"{seed} {address}")) for address in addresses]
    loop = asyncio.get_running_loop()
    input_lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(input_lines), sys.stdin)
    await asyncio.gather(*(receiver.become(Mood.UP) for receiver in receivers))
    lives: list[asyncio.Task[None]] = []
    say("ready")
    while line := await input_lines.readline():
        if line.strip() == b"churn":
            lives = [asyncio.create_task(receiver.live()) for receiver in receivers]
        elif line.strip() == b"calm":
            for receiver in receivers:
                receiver.calm()
            await asyncio.gather(*lives)
            say("calm")
    seen: Counter[str] = sum((receiver.seen for receiver in receivers), Counter())
    say(f"taken {seen['taken']}: {dict(sorted(seen.items()))}")


def say(line: str) -> None:
    """Tell whoever started this."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
