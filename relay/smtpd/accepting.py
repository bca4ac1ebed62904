"""Takes connections of the listening sockets: those who wait together in one turn of the loop, and no more than a worker's share.

The event loop's own servers take one connection a turn, so that clients who come together would be served one after another, and
each of their messages would have a commit and a sync of its own. And the system tells every worker that somebody waits: who runs
at the moment takes all, and another that runs the next moment has too few clients to do anything with its time. So a worker
that has its share of all sessions leaves who waits to the others, and takes them all the same if nobody did within a moment.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
import struct
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from relay.smtpd.lobby import Lobby

AT_ONCE: Final = 16
"""Connections that are taken of one socket in one turn of the loop."""
MOMENT_SECONDS: Final = 0.02
# After accept(2) failed for another reason than the connection that it was to give, as asyncio's servers do. Any other error is
# that connection's, since Linux reports what its network had to say.
_REST_SECONDS: Final = 1.0
_OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EBADF, errno.EINVAL})
# tcpi_unacked of struct tcp_info: of a socket that listens, how many wait (Linux: include/uapi/linux/tcp.h, net/ipv4/tcp.c).
_WAITING: Final = struct.Struct("@24xI")

Factory = Callable[[], asyncio.BaseProtocol]
_Steps = Coroutine[Any, Any, object]


@dataclass(eq=False, slots=True)
class _Door:
    """A listening socket.

    :param open: whether the loop looks at it.
    :param left: ends the moment for which those who wait there are left to other workers; None if they are not.
    :param overdue: whether that moment is over.
    """

    listener: socket.socket
    name: str
    factory: Factory
    open: bool = False
    left: asyncio.TimerHandle | None = None
    overdue: bool = False

    def settle(self) -> None:
        """Nobody is left to others any more."""
        if self.left is not None:
            self.left.cancel()
        self.left, self.overdue = None, False


class Doors:
    """The listening sockets of a server.

    :param lobby: knows the sessions here, those of the other workers, and how many workers there are.
    :param warn: told why nobody is let in for a second.
    """

    def __init__(self, lobby: Lobby, warn: Callable[[str], None]) -> None:
        self._lobby = lobby
        self._warn = warn
        self._loop = asyncio.get_running_loop()
        self._doors: list[_Door] = []
        self._beginning: set[_Steps] = set()
        self._all_begun: asyncio.Future[None] | None = None
        lobby.when_somebody_left(self._look_again)

    def open(self, listener: socket.socket, factory: Factory) -> None:
        """Take connections of this socket from now on.

        :param listener: stays the caller's, to be closed after ``close``.
        :param factory: makes the protocol of each connection.
        """
        listener.setblocking(False)
        door = _Door(listener, _name(listener), factory)
        self._doors.append(door)
        self._open(door)

    async def close(self) -> None:
        """Take nobody any more; who was taken is with the lobby when this returns."""
        self._lobby.when_somebody_left(None)
        doors, self._doors = self._doors, []
        for door in doors:
            self._shut(door)
            door.settle()
        if self._beginning:
            self._all_begun = self._loop.create_future()
            await self._all_begun

    def _open(self, door: _Door) -> None:
        if not door.open:
            door.open = True
            self._loop.add_reader(door.listener, self._take, door)

    def _shut(self, door: _Door) -> None:
        if door.open:
            door.open = False
            self._loop.remove_reader(door.listener)

    def _take(self, door: _Door) -> None:
        """Somebody waits."""
        room = self._room(door)
        for _ in range(room):
            try:
                connection, _address = door.listener.accept()
            except (BlockingIOError, InterruptedError):
                door.settle()
                return
            except OSError as error:
                if error.errno not in _OURS:
                    continue
                self._warn(
                    f"no connections are taken at {door.name} for {_REST_SECONDS:g} s: {error.strerror}; allow this process more "
                    "open files and memory, or lower [smtpd] connection_limit"
                )
                self._shut(door)
                door.settle()
                self._loop.call_later(_REST_SECONDS, self._after_rest, door)
                return
            connection.setblocking(False)
            self._begin(connection, self._loop.connect_accepted_socket(door.factory, connection))
        if room:
            door.settle()
        else:
            self._leave(door)

    def _begin(self, connection: socket.socket, steps: _Steps, waited: object = None) -> None:
        """One step of a session's beginning, which waits for nothing but the loop: a task for it costs a tenth of the session."""
        try:
            wait = steps.send(None)
        except StopIteration:
            self._has_begun(steps)
        except Exception as error:  # whatever it is, the others must be let in
            self._has_begun(steps)
            connection.close()
            if not isinstance(error, OSError):  # a client who has gone is nobody's error
                self._loop.call_exception_handler({"message": "a session could not begin", "exception": error})
        else:
            self._beginning.add(steps)
            wait.add_done_callback(functools.partial(self._begin, connection, steps))

    def _has_begun(self, steps: _Steps) -> None:
        self._beginning.discard(steps)
        if self._all_begun is None:
            self._look_again()  # until now it was counted twice
        elif not self._beginning and not self._all_begun.done():
            self._all_begun.set_result(None)

    def _room(self, door: _Door) -> int:
        """How many to take now."""
        workers = 1 if door.overdue else self._lobby.workers
        if workers == 1:
            return AT_ONCE
        here = len(self._lobby) + len(self._beginning)
        everybody = here + self._lobby.sessions_elsewhere + _waiting(door.listener)
        return max(0, min(AT_ONCE, -(-everybody // workers) - here))

    def _leave(self, door: _Door) -> None:
        """Look again when there may be room, or in a moment."""
        self._shut(door)
        if door.left is None:
            door.left = self._loop.call_later(MOMENT_SECONDS, self._after_a_moment, door)

    def _after_a_moment(self, door: _Door) -> None:
        door.overdue = True
        self._open(door)

    def _look_again(self) -> None:
        """Those who were left to others may have been taken by them; if not, there may be room now."""
        for door in self._doors:
            if door.left is not None:
                self._open(door)

    def _after_rest(self, door: _Door) -> None:
        if door in self._doors:
            self._open(door)


def _name(listener: socket.socket) -> str:
    address = listener.getsockname()
    return f"unix:{address}" if isinstance(address, str) else f"[{address[0]}]:{address[1]}"


def _waiting(listener: socket.socket) -> int:
    """How many wait at a socket; where the system does not tell, as many as are taken at once."""
    if not sys.platform.startswith("linux"):
        return AT_ONCE
    try:
        told = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _WAITING.size)
    except OSError:  # a Unix socket
        return AT_ONCE
    return max(1, int(_WAITING.unpack(told)[0])) if len(told) == _WAITING.size else AT_ONCE
