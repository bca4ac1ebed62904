"""The sockets on which clients are listened to: opened all or none, by the process that serves them or by its parent."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Self

from relay.smtpd.local import NO_SOCKETS, LocalSockets, UnusableSocket, bind, unlink

BACKLOG = 512


class CannotServe(Exception):  # noqa: N818 - it names the state, not the handling
    """A socket cannot be opened or a certificate not be used; the message says which, why, and what to do."""


class Kind(Enum):
    """What a socket is for; the value is the option that names it."""

    PLAIN = "listen"
    WRAPPED = "submissions_listen"
    LOCAL = "unix_listen"


@dataclass(slots=True)
class Listeners:
    """Open sockets, which listen.

    :param made: Unix sockets that are to be removed in the end, each with its inode.
    """

    sockets: dict[Kind, list[socket.socket]] = field(default_factory=lambda: {kind: [] for kind in Kind})
    made: dict[Path, int] = field(default_factory=dict)

    @classmethod
    def bind(
        cls,
        listen: Sequence[tuple[str, int]],
        submissions: Sequence[tuple[str, int]] = (),
        local: LocalSockets = NO_SOCKETS,
    ) -> Self:
        """Open them.

        :raises CannotServe: if one cannot be opened; none is then.
        """
        opened = cls()
        try:
            for kind, endpoints in ((Kind.PLAIN, listen), (Kind.WRAPPED, submissions)):
                for host, port in endpoints:
                    opened.sockets[kind].append(_listen(kind, host, port))
            for path in local.paths:
                opened._bind_local(path, local.mode)
        except CannotServe:
            opened.close()
            raise
        return opened

    @classmethod
    def inherited(cls, descriptors: Mapping[Kind, Sequence[int]]) -> Self:
        """Those that a parent opened and keeps, by the numbers that they have in this process."""
        return cls({kind: [socket.socket(fileno=number) for number in descriptors.get(kind, ())] for kind in Kind})

    def all(self) -> Iterator[tuple[Kind, socket.socket]]:
        """Each with what it is for."""
        for kind, sockets in self.sockets.items():
            for each in sockets:
                yield kind, each

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The (address, port) of those that are no Unix sockets."""
        return tuple(each.getsockname()[:2] for kind, each in self.all() if kind is not Kind.LOCAL)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Of the Unix sockets."""
        return tuple(Path(each.getsockname()) for each in self.sockets[Kind.LOCAL])

    def close(self) -> None:
        """Close our end of them; Unix sockets that we made are removed."""
        for _, each in self.all():
            each.close()
        made, self.made = self.made, {}
        for path, inode in made.items():
            unlink(path, inode)

    def _bind_local(self, path: Path, mode: int) -> None:
        try:
            listener = bind(path, mode)
        except UnusableSocket as error:
            raise CannotServe(f"cannot listen on unix:{path}: {error} correct [smtpd] unix_listen") from None
        listener.listen(BACKLOG)
        self.sockets[Kind.LOCAL].append(listener)
        self.made[path] = path.lstat().st_ino


def _listen(kind: Kind, host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, OverflowError) as error:
        raise CannotServe(_cannot_listen(kind, host, port, error)) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            with suppress(AttributeError):  # a system without the option has no sockets for both families either
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setblocking(False)
        listener.bind((address[0], port, *address[2:]))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise CannotServe(_cannot_listen(kind, host, port, error)) from None
    return listener


def _cannot_listen(kind: Kind, host: str, port: int, error: OSError | OverflowError) -> str:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.EADDRINUSE:
        return (
            f"cannot listen on {where}: the port is in use; stop the program that holds it "
            f"(`ss -ltnp 'sport = :{port}'` names it), or change [smtpd] {kind.value}"
        )
    if code in {errno.EACCES, errno.EPERM}:
        return (
            f"cannot listen on {where}: permission denied; ports below 1024 need the capability CAP_NET_BIND_SERVICE, "
            f"or choose another in [smtpd] {kind.value}"
        )
    if code == errno.EADDRNOTAVAIL:
        return f"cannot listen on {where}: this machine does not have that address; correct [smtpd] {kind.value}"
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"cannot listen on {where}: {why}; correct [smtpd] {kind.value}"
