"""The listening sockets of the front end: opened all or none, closed gracefully."""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from relay.smtpd.lobby import Lobby
from relay.smtpd.local import NO_SOCKETS, LocalSockets, UnusableSocket, bind, unlink
from relay.smtpd.options import SmtpdOptions

_BACKLOG = 512


class CannotServe(Exception):  # noqa: N818 - it names the state, not the handling
    """A socket cannot be opened or a certificate not be used; the message says which, why, and what to do."""


class SmtpServer:
    """Accepts connections and makes a session of each.

    :param listen: (host, port) pairs; port 0 takes a free one.
    :param session_factory: makes the protocol of a connection, given the lobby that it enters.
    :param options: its limits of connections are kept here.
    :param submissions: (host, port) pairs where TLS comes first; ``submissions_factory`` makes those sessions.
    :param local: Unix sockets, whose sessions are as those of ``listen``.
    """

    def __init__(
        self,
        listen: Sequence[tuple[str, int]],
        session_factory: Callable[[Lobby], asyncio.BaseProtocol],
        options: SmtpdOptions,
        *,
        submissions: Sequence[tuple[str, int]] = (),
        submissions_factory: Callable[[Lobby], asyncio.BaseProtocol] | None = None,
        local: LocalSockets = NO_SOCKETS,
    ) -> None:
        self._listen = [("listen", host, port, session_factory) for host, port in listen]
        if submissions_factory is not None:
            self._listen += [("submissions_listen", host, port, submissions_factory) for host, port in submissions]
        self._local = local
        self._session_factory = session_factory
        self._lobby = Lobby(options)
        self._servers: list[asyncio.Server] = []
        self._made: dict[Path, int] = {}

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The (address, port) of every open socket."""
        open_ones = (each for server in self._servers for each in server.sockets if each.family != socket.AF_UNIX)
        return tuple(each.getsockname()[:2] for each in open_ones)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The path of every open Unix socket."""
        return tuple(self._made)

    @property
    def sessions(self) -> int:
        """How many sessions there are now."""
        return len(self._lobby)

    @property
    def content_memory(self) -> int:
        """Octets that contents coming in have in memory, at most."""
        return self._lobby.budget.held

    async def start(self) -> None:
        """Open every socket.

        :raises CannotServe: if one cannot be opened; none is then.
        """
        loop = asyncio.get_running_loop()
        for option, host, port, factory in self._listen:
            try:
                server = await loop.create_server(functools.partial(factory, self._lobby), host, port, backlog=_BACKLOG)
            except (OSError, OverflowError) as error:
                await self._close_sockets()
                raise CannotServe(_cannot_listen(option, host, port, error)) from None
            self._servers.append(server)
        for path in self._local.paths:
            try:
                listener = bind(path, self._local.mode)
            except UnusableSocket as error:
                await self._close_sockets()
                raise CannotServe(f"cannot listen on unix:{path}: {error} correct [smtpd] unix_listen") from None
            self._made[path] = path.lstat().st_ino
            factory = functools.partial(self._session_factory, self._lobby)
            self._servers.append(await loop.create_unix_server(factory, sock=listener, backlog=_BACKLOG))

    async def close(self, *, grace: float) -> None:
        """Stop accepting, end the sessions, and return when all are gone.

        :param grace: seconds that sessions have to finish a command or a message; idle ones get 421 4.3.2 at once.
        """
        self._stop_listening()
        await self._lobby.close(grace=grace)
        await self._close_sockets()

    async def _close_sockets(self) -> None:
        self._stop_listening()
        servers, self._servers = self._servers, []
        for server in servers:
            await server.wait_closed()

    def _stop_listening(self) -> None:
        for server in self._servers:
            server.close()
        made, self._made = self._made, {}
        for path, inode in made.items():
            unlink(path, inode)


def _cannot_listen(option: str, host: str, port: int, error: OSError | OverflowError) -> str:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.EADDRINUSE:
        return (
            f"cannot listen on {where}: the port is in use; stop the program that holds it "
            f"(`ss -ltnp 'sport = :{port}'` names it), or change [smtpd] {option}"
        )
    if code in {errno.EACCES, errno.EPERM}:
        return (
            f"cannot listen on {where}: permission denied; ports below 1024 need the capability CAP_NET_BIND_SERVICE, "
            f"or choose another in [smtpd] {option}"
        )
    # asyncio of Python 3.13 has words of its own for it, and no number.
    if code == errno.EADDRNOTAVAIL or (code is None and "could not bind" in str(error)):
        return f"cannot listen on {where}: this machine does not have that address; correct [smtpd] {option}"
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"cannot listen on {where}: {why}; correct [smtpd] {option}"
