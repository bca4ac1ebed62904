"""Unix sockets: made for the users that their mode lets in, and who it is that came through one."""

from __future__ import annotations

import asyncio
import pwd
import socket
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from relay.mail.envelope import LocalUser

_UNKNOWN_UID = -1
_CREDENTIALS = struct.Struct("3i")


class UnusableSocket(Exception):  # noqa: N818 - it names the state, not the handling
    """A socket cannot be made; the message says why, and begins what to do about it."""


@dataclass(frozen=True, slots=True)
class LocalSockets:
    """Where to make sockets.

    :param mode: of each; directories above them decide too.
    """

    paths: tuple[Path, ...] = ()
    mode: int = 0o660


NO_SOCKETS = LocalSockets()


def bind(path: Path, mode: int) -> socket.socket:
    """A socket at a path, not listening yet, so that nobody gets through before it has its mode.

    One that was left by a relay that was killed is replaced, one that somebody serves never.

    :raises UnusableSocket: if it cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _make_way(path)
        listener.bind(str(path))
        path.chmod(mode)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        why = error.strerror or str(error)
        raise UnusableSocket(f"{why};") from None
    except UnusableSocket:
        listener.close()
        raise
    return listener


def _make_way(path: Path) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise UnusableSocket("it exists and is no socket; remove it, or")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:  # nobody serves it
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:  # somebody does, and has much to do
            pass
    raise UnusableSocket("another program serves it; stop that, or")


def unlink(path: Path, inode: int) -> None:
    """Remove a socket that is still ours."""
    with suppress(FileNotFoundError):
        if path.lstat().st_ino == inode:
            path.unlink()


def is_local(transport: asyncio.BaseTransport) -> bool:
    """Whether a connection came through a Unix socket."""
    connection = transport.get_extra_info("socket")
    return connection is not None and connection.family == socket.AF_UNIX


async def peer_user(transport: asyncio.BaseTransport) -> LocalUser:
    """The user at the other end, as the system tells it (SO_PEERCRED, unix(7)); where it does not, one without a name."""
    uid = _peer_uid(transport)
    return LocalUser(uid=uid, name=await asyncio.to_thread(_name, uid))


def _peer_uid(transport: asyncio.BaseTransport) -> int:
    connection = transport.get_extra_info("socket")
    if not hasattr(socket, "SO_PEERCRED"):
        return _UNKNOWN_UID
    try:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return _UNKNOWN_UID
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    return int(uid)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return ""
