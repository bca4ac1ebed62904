"""Good destinations beside bad ones: one hangs, at each stage in turn, one never connects, one answers 450 for ever.

All are hosts on loopback addresses of their own and one port, served by one thread; they count what they see.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from types import TracebackType

from tests.loopback import LoopbackNetwork, free_port
from tests.watched_process import PATIENCE

HANGS = "hangs.test"
BUSY = "busy.test"
SILENT = "silent.test"
STAGES = ("greeting", "EHLO", "STARTTLS", "handshake", "MAIL", "RCPT", "DATA", "content", "end")


class Neighbourhood:
    """The hosts, for the length of a context.

    :param good: how many good destinations there are: ``good0.test`` and so on.
    """

    def __init__(self, good: int) -> None:
        network = LoopbackNetwork()
        self.good = [f"good{number}.test" for number in range(good)]
        self._addresses = {
            name: network.address(number) for number, name in enumerate((*self.good, HANGS, BUSY, SILENT), 1)
        }
        self.port = free_port(*self._addresses.values())
        self.delivered: Counter[str] = Counter()
        self.last_delivery = 0.0
        self.most_at_once: Counter[str] = Counter()
        self.refused = 0
        self.hung: Counter[str] = Counter()
        self._at_once: Counter[str] = Counter()
        self._sessions = count()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="neighbourhood", daemon=True)
        self._listening = threading.Event()

    def transport_map(self) -> str:
        """The lines that lead to them."""
        return "".join(f"{name} smtp:[{address}]:{self.port}\n" for name, address in self._addresses.items())

    def wait_until(self, happened: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        """Wait for something that is counted here."""
        deadline = time.monotonic() + patience
        with self._changed:
            while not happened():
                left = deadline - time.monotonic()
                assert left > 0, f"waited {patience:.0f} s for {what}; delivered {self.delivered.total()}"
                self._changed.wait(left)

    @property
    def delivered_to_good(self) -> int:
        """Messages that the good destinations took."""
        return sum(self.delivered[name] for name in self.good)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        servers = [
            await asyncio.start_server(self._handler(name), address, self.port, backlog=1000)
            for name, address in self._addresses.items()
            if name != SILENT
        ]
        with _full(self._addresses[SILENT], self.port):
            self._listening.set()
            await self._ending.wait()
        for server in servers:
            server.close()
        sessions = asyncio.all_tasks() - {asyncio.current_task()}
        for task in sessions:
            task.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)

    def _handler(self, name: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._at_once[name] += 1
            self.most_at_once[name] = max(self.most_at_once[name], self._at_once[name])
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._session(name, reader, writer)
            self._at_once[name] -= 1
            writer.close()

        return handle

    async def _session(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hangs_at = STAGES[next(self._sessions) % len(STAGES)] if name == HANGS else ""

        async def say(stage: str, text: str) -> None:
            if stage and stage == hangs_at:
                await self._hang(stage, reader)
            writer.write(f"{text}\r\n".encode())
            await writer.drain()

        await say("greeting", f"220 {name} ESMTP")
        refused = name == BUSY
        while line := await reader.readline():
            match line[:4].upper():
                case b"EHLO":
                    tls = "250-STARTTLS\r\n" if hangs_at in {"STARTTLS", "handshake"} else ""
                    await say("EHLO", f"250-{name}\r\n{tls}250 PIPELINING")
                case b"STAR":
                    await say("STARTTLS", "220 2.0.0 Ready to start TLS")
                    await self._hang("handshake", reader)
                case b"MAIL":
                    await say("MAIL", "250 2.1.0 Ok")
                case b"RCPT" if refused:
                    with self._changed:
                        self.refused += 1
                        self._changed.notify_all()
                    await say("RCPT", "450 4.2.1 Mailbox busy")
                case b"RCPT":
                    await say("RCPT", "250 2.1.5 Ok")
                case b"DATA" if refused:
                    await say("DATA", "554 5.5.1 No valid recipients")
                case b"DATA":
                    await say("DATA", "354 Go ahead")
                    if hangs_at == "content":
                        await self._hang(hangs_at, reader)
                    await reader.readuntil(b"\r\n.\r\n")
                    if hangs_at == "end":
                        await self._hang(hangs_at, reader)
                    # Counted before it is answered: what was answered is never missing.
                    with self._changed:
                        self.delivered[name] += 1
                        self.last_delivery = time.monotonic()
                        self._changed.notify_all()
                    await say("", "250 2.0.0 Ok")
                case b"QUIT":
                    await say("", "221 2.0.0 Bye")
                    return
                case _:
                    await say("", "250 2.0.0 Ok")

    async def _hang(self, stage: str, reader: asyncio.StreamReader) -> None:
        with self._changed:
            self.hung[stage] += 1
            self._changed.notify_all()
        while await reader.read(65_536):
            pass  # until the relay gives up
        raise ConnectionResetError

    def __enter__(self) -> Neighbourhood:
        self._thread.start()
        assert self._listening.wait(PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(PATIENCE)


@contextmanager
def _full(address: str, port: int) -> Iterator[None]:
    """An address where connections are neither accepted nor refused: its queue of them is full."""
    with ExitStack() as held:
        listener = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(8):
            filler = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            filler.setblocking(False)
            filler.connect_ex((address, port))
        yield


def hand_in(address: str, port: int, destinations: Sequence[str]) -> None:
    """Hand a relay one message for each of these, in this order, over one session."""
    with socket.create_connection((address, port), timeout=PATIENCE) as client, client.makefile("rb") as replies:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def hear(wanted: bytes) -> None:
            line = replies.readline()
            while line[3:4] == b"-":
                line = replies.readline()
            assert line.startswith(wanted), line

        hear(b"220")
        client.sendall(b"EHLO client.test\r\n")
        hear(b"250")
        for number, name in enumerate(destinations):
            client.sendall(f"MAIL FROM:<s@client.test>\r\nRCPT TO:<u{number}@{name}>\r\nDATA\r\n".encode())
            hear(b"250")
            hear(b"250")
            hear(b"354")
            client.sendall(f"Subject: {number}\r\n\r\n{'x' * 1000}\r\n.\r\n".encode())
            hear(b"250")
        client.sendall(b"QUIT\r\n")
        hear(b"221")
