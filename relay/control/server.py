"""The relay's end of the control socket: one request a connection, dispatched to what the app hands in."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from relay.control import queue
from relay.control.address import socket_address
from relay.control.lock import StateLock
from relay.control.protocol import (
    MAX_REQUEST,
    SOCKET_NAME,
    Alive,
    Answer,
    BadMessage,
    Done,
    Failed,
    Item,
    LedgerAsk,
    Numbers,
    Readiness,
    Reload,
    Request,
    Status,
    Stop,
    asker,
    decode_request,
    encode_answer,
)
from relay.ledger.file import LedgerUnavailable
from relay.queue.administration import Administration
from relay.queue.store import StoreUnavailable

MAX_CONNECTIONS = 16


class ControlFailed(Exception):  # noqa: N818 - it names what happened, not the handling
    """The control socket cannot be made; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """How a reload went: whether the new files are in use, and what there is to say about them."""

    accepted: bool
    messages: tuple[str, ...] = ()


async def _alive() -> None:
    return


async def _no_numbers() -> bytes:
    return b""


async def _no_reasons() -> Sequence[str]:
    return ()


async def _no_ledger(command: str, destination: str) -> Sequence[Mapping[str, object]]:
    del command, destination
    raise LedgerUnavailable("this relay keeps no ledger")


class Answering(Protocol):
    """What carries out requests."""

    def answers(self, request: Request, by: str) -> AsyncGenerator[Answer, None]:
        """Carry out a request for somebody; the last answer is ``Done`` or ``Failed``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Handlers:
    """What commands act on.

    :param stop: begins the end; returns at once.
    :param status: facts about this process beyond its pid and queue, such as version and start.
    :param metrics: everything counted, as Prometheus reads it.
    :param reasons: why mail cannot be taken and delivered.
    :param alive: returns when what must not be stuck has answered.
    :param ledger: carries out one of ``relay.ledger.commands.COMMANDS`` for a destination.
    """

    administration: Administration
    reload: Callable[[], Awaitable[Reloaded]]
    stop: Callable[[], None]
    status: Callable[[], Mapping[str, str | int | float | bool]]
    ledger: Callable[[str, str], Awaitable[Sequence[Mapping[str, object]]]] = _no_ledger
    metrics: Callable[[], Awaitable[bytes]] = _no_numbers
    reasons: Callable[[], Awaitable[Sequence[str]]] = _no_reasons
    alive: Callable[[], Awaitable[None]] = _alive

    async def answers(self, request: Request, by: str) -> AsyncGenerator[Answer, None]:
        """As ``Answering``."""
        match request:
            case Status():
                yield Done({"pid": os.getpid(), **self.status()})
            case Alive():
                await self.alive()
                yield Done({})
            case Numbers():
                yield Done({"numbers": (await self.metrics()).decode()})
            case Readiness():
                yield Done({"reasons": list(await self.reasons())})
            case Reload():
                reloaded = await self.reload()
                yield Done({"accepted": reloaded.accepted, "messages": list(reloaded.messages)})
            case LedgerAsk(command=command, destination=destination):
                for item in await self.ledger(command, destination):
                    yield Item(item)
                yield Done({})
            case Stop():
                yield Done({"pid": os.getpid()})
                self.stop()
            case _:
                async with aclosing(queue.answers(request, self.administration, by)) as answers:
                    async for answer in answers:
                        yield answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds: to read a request, and until a client takes what was written to it."""

    read: float = 10.0
    write: float = 30.0


def peer_uid(connection: socket.socket) -> int:
    """The user at the other end (SO_PEERCRED, unix(7)); where the system does not tell, ours: the socket's mode guards it."""
    if hasattr(socket, "SO_PEERCRED"):
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", credentials)
        return int(uid)
    return os.geteuid()


@asynccontextmanager
async def serve(
    lock: StateLock,
    handlers: Answering,
    *,
    limits: Limits = Limits(),
    uid_of: Callable[[socket.socket], int] = peer_uid,
) -> AsyncIterator[None]:
    """Answer commands on ``state_dir/control`` for the length of the context.

    A socket left by a relay that was killed is replaced: the lock proves that nobody serves it.

    :raises ControlFailed: if the socket cannot be made.
    """
    conversations = _Conversations(handlers, limits, uid_of)
    path = lock.state_dir / SOCKET_NAME
    with ExitStack() as stack:
        try:
            # Kept while we serve: from Python 3.13 on asyncio removes the socket by this name.
            listener = _bind(path, stack.enter_context(socket_address(lock.state_dir)))
            server = await asyncio.start_unix_server(conversations.run, sock=listener, limit=MAX_REQUEST)
        except OSError as error:
            raise ControlFailed(f"control socket {path}: {error.strerror or error}") from error
        inode = path.stat().st_ino
        try:
            yield
        finally:
            server.close()
            await conversations.end()
            _unlink(path, inode)


def _bind(path: Path, address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listener.bind(address)
        path.chmod(0o600)  # before listen(), so that nobody else ever gets through
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _unlink(path: Path, inode: int) -> None:
    try:
        if path.stat().st_ino == inode:
            path.unlink()
    except FileNotFoundError:
        return  # asyncio removes it itself from Python 3.13 on


class _Conversations:
    """The open connections, each with its task."""

    def __init__(self, handlers: Answering, limits: Limits, uid_of: Callable[[socket.socket], int]) -> None:
        self._handlers = handlers
        self._limits = limits
        self._uid_of = uid_of
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ending = False

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from its first to its last line."""
        task = asyncio.current_task()
        if task is None or self._ending or len(self._tasks) >= 4 * MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._tasks.add(task)
        try:
            await self._converse(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            # The command went away, does not take what was written, or we end: nothing more can be told to it.
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # Read before anything is said: a socket that is closed with something unread in it loses the answer too.
            line = await self._read(reader)
            if len(self._tasks) > MAX_CONNECTIONS:
                await self._say(writer, Failed("too many commands at once: try again"))
            elif (uid := self._uid_of(writer.get_extra_info("socket"))) not in {os.geteuid(), 0}:
                await self._say(writer, Failed("only the user that the relay runs as, and root, may command it"))
            else:
                await self._answer(decode_request(line), writer, asker(line) or user_name(uid))
        except BadMessage as error:
            await self._say(writer, Failed(f"bad request: {error}"))
        except StoreUnavailable as error:
            await self._say(writer, Failed(f"the queue store does not answer: {error}"))
        except LedgerUnavailable as error:
            await self._say(writer, Failed(str(error)))

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(self._limits.read):
                return await reader.readline()
        except ValueError:  # asyncio's, for a line beyond the limit
            raise BadMessage(f"longer than {MAX_REQUEST} octets") from None

    async def end(self) -> None:
        """Cut off the conversations that are still going on."""
        self._ending = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, request: Request, writer: asyncio.StreamWriter, by: str) -> None:
        async with aclosing(self._handlers.answers(request, by)) as answers:
            async for answer in answers:
                await self._say(writer, answer)

    async def _say(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        writer.write(encode_answer(answer))
        async with asyncio.timeout(self._limits.write):
            await writer.drain()


def user_name(uid: int) -> str:
    """Who that is, for the log and for whoever reads a queue later."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
