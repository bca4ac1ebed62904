"""The listening sockets of the front end: opened all or none, closed gracefully."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from relay.log.events import Observer, Program, Warned
from relay.smtpd.accepting import Doors
from relay.smtpd.elsewhere import ALONE, Elsewhere
from relay.smtpd.listeners import CannotServe, Kind, Listeners
from relay.smtpd.lobby import Lobby
from relay.smtpd.local import NO_SOCKETS, LocalSockets
from relay.smtpd.options import SmtpdOptions

__all__ = ["CannotServe", "SmtpServer"]


class SmtpServer:
    """Accepts connections and makes a session of each.

    :param listen: (host, port) pairs; port 0 takes a free one.
    :param session_factory: makes the protocol of a connection, given the lobby that it enters.
    :param options: its limits of connections are kept here.
    :param submissions: (host, port) pairs where TLS comes first; ``submissions_factory`` makes those sessions.
    :param local: Unix sockets, whose sessions are as those of ``listen``.
    :param inherited: the sockets, where a parent opened them; then none of the three above is opened.
    :param elsewhere: what other workers count of their clients.
    :param observe: told when connections cannot be taken.
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
        inherited: Listeners | None = None,
        elsewhere: Elsewhere = ALONE,
        observe: Observer = lambda event: None,
    ) -> None:
        self._listen = listen
        self._submissions = submissions if submissions_factory is not None else ()
        self._local = local
        self._listeners = Listeners()
        self._inherited = inherited
        self._lobby = Lobby(options, elsewhere=elsewhere)
        plain = functools.partial(session_factory, self._lobby)
        wrapped = functools.partial(submissions_factory or session_factory, self._lobby)
        self._factories = {Kind.PLAIN: plain, Kind.WRAPPED: wrapped, Kind.LOCAL: plain}
        self._observe = observe
        self._doors: Doors | None = None

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The (address, port) of every open socket."""
        return self._listeners.addresses

    @property
    def paths(self) -> tuple[Path, ...]:
        """The path of every open Unix socket."""
        return self._listeners.paths

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
        self._listeners = self._inherited or Listeners.bind(self._listen, self._submissions, self._local)
        self._doors = Doors(self._lobby, lambda text: self._observe(Warned(Program.SMTPD, text)))
        for kind, each in self._listeners.all():
            self._doors.open(each, self._factories[kind])

    async def close(self, *, grace: float) -> None:
        """Stop accepting, end the sessions, and return when all are gone.

        :param grace: seconds that sessions have to finish a command or a message; idle ones get 421 4.3.2 at once.
        """
        doors, self._doors = self._doors, None
        if doors is not None:
            await doors.close()
        listeners, self._listeners = self._listeners, Listeners()
        listeners.close()
        await self._lobby.close(grace=grace)
