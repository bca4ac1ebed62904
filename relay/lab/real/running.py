"""Runs a laid-out lab on this machine: its servers as processes of one network namespace, their output in files."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from relay.lab.attacks import LOOK_SECONDS
from relay.lab.real.layout import RELOAD, Laid
from relay.lab.real.plan import SMTP_PORT, Server

START_SECONDS = 30.0
STOP_SECONDS = 15.0
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
# The accounts of Debian's packages.
_POSTFIX, _EXIM = "postfix", "Debian-exim"
_SHOWN_OCTETS = 2000


class CannotRun(Exception):  # noqa: N818 - it names the state, not the handling
    """A server of the lab cannot be had or does not start; the message says which, and why."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the servers are.

    :param paths: the executable of each name that was found.
    """

    paths: Mapping[str, Path]

    def path(self, name: str) -> Path:
        """The executable of a name.

        :raises CannotRun: if it is not there.
        """
        if name not in self.paths:
            raise CannotRun(f"{name} is not installed (scripts/lab-local fetches what the lab runs)")
        return self.paths[name]

    @property
    def absent(self) -> tuple[Server, ...]:
        """The mail servers that cannot be had."""
        return tuple(server for server, name in _EXECUTABLE.items() if name not in self.paths)


_EXECUTABLE: Mapping[Server, str] = {Server.POSTFIX: "postfix", Server.EXIM: "exim4", Server.OPENSMTPD: "smtpd"}


def find_programs() -> Programs:
    """Look for the servers."""
    found = {name: shutil.which(name, path=_SYSTEM_PATH) for name in ("nsd", "unbound", *_EXECUTABLE.values())}
    return Programs({name: Path(path) for name, path in found.items() if path is not None})


@asynccontextmanager
async def running(laid: Laid, programs: Programs) -> AsyncIterator[None]:
    """Run the name servers, the mail hosts and the scripted ones for the length of the context.

    :raises CannotRun: if one of them does not come up.
    """
    _give_away(laid)
    async with AsyncExitStack() as stack:
        for name, command, address, port in _servers(laid, programs):
            pid_file = laid.directory / "postfix/queue/pid/master.pid" if name == "postfix" else None
            await stack.enter_async_context(process(name, command, laid, pid_file=pid_file))
            await until_listening(address, port, laid.directory / "log" / f"{name}.log")
        following = asyncio.create_task(_reload_zones(laid), name="reload zones")
        stack.callback(following.cancel)
        yield


async def _reload_zones(laid: Laid) -> None:
    """Let the name server read its zones again whenever they have changed."""
    stamp = laid.directory / "dns" / RELOAD
    seen = await asyncio.to_thread(stamp.stat)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        now = await asyncio.to_thread(stamp.stat)
        if now.st_mtime_ns != seen.st_mtime_ns:
            seen = now
            with suppress(OSError, ValueError):
                os.kill(int(await asyncio.to_thread((laid.directory / "dns/nsd.pid").read_text)), signal.SIGHUP)


def _give_away(laid: Laid) -> None:
    """Let the mail servers' accounts write where they must."""
    if laid.plan.run_by(Server.POSTFIX):
        shutil.chown(laid.directory / "postfix/data", _POSTFIX)
    if laid.plan.run_by(Server.EXIM):
        for folder in ("spool", "log"):
            shutil.chown(laid.directory / "exim" / folder, _EXIM, _EXIM)


def _servers(laid: Laid, programs: Programs) -> Sequence[tuple[str, Sequence[str | Path], str, int]]:
    """Each server's name, command, and where it will listen when it is up."""
    plan, directory = laid.plan, laid.directory

    def first(server: Server) -> str:
        return plan.addresses[plan.run_by(server)[0].name]

    found: list[tuple[str, Sequence[str | Path], str, int]] = [
        ("nsd", [programs.path("nsd"), "-d", "-c", directory / "dns/nsd.conf"], plan.authority, 53),
        ("unbound", [programs.path("unbound"), "-d", "-c", directory / "resolver/unbound.conf"], plan.resolver, 53),
        (
            "receivers",
            [sys.executable, "-m", "relay", "lab", "receivers", "--lab", directory],
            first(Server.SCRIPTED),
            25,
        ),
    ]
    command: Sequence[str | Path]
    if plan.run_by(Server.POSTFIX):
        command = [programs.path("postfix"), "-c", directory / "postfix/conf", "start-fg"]
        found.append(("postfix", command, first(Server.POSTFIX), SMTP_PORT))
    if plan.run_by(Server.EXIM):
        command = [programs.path("exim4"), "-C", directory / "exim/exim.conf", "-bdf", "-q10s"]
        found.append(("exim4", command, first(Server.EXIM), SMTP_PORT))
    if plan.run_by(Server.OPENSMTPD):
        command = [programs.path("smtpd"), "-d", "-f", directory / "opensmtpd/smtpd.conf"]
        found.append(("smtpd", command, first(Server.OPENSMTPD), SMTP_PORT))
    return found


@asynccontextmanager
async def process(
    name: str, command: Sequence[str | Path], laid: Laid, *, pid_file: Path | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program for the length of the context; what it says goes to ``log/NAME.log`` of the lab.

    :param pid_file: names the process to end, where that is not the one that is started (Postfix's master leads a session
        of its own).
    """
    with (laid.directory / "log" / f"{name}.log").open("ab") as log:
        started = await asyncio.create_subprocess_exec(
            *map(str, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        await _stop(started, pid_file)


async def _stop(started: asyncio.subprocess.Process, pid_file: Path | None) -> None:
    """Ask the whole session of a program to end, and see to it that it does."""
    if pid_file is not None:
        with suppress(OSError, ValueError):
            os.kill(int(await asyncio.to_thread(pid_file.read_text)), 15)
    with suppress(ProcessLookupError):
        os.killpg(started.pid, 15)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await started.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, 9)
        await started.wait()


async def until_listening(address: str, port: int, log: Path) -> None:
    """Wait until something takes connections there.

    :raises CannotRun: if nothing does in time, with the last of what the program said.
    """
    await asyncio.to_thread(_until_listening, address, port, log)


def _until_listening(address: str, port: int, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        try:
            with socket.create_connection((address, port), timeout=1):
                return
        except OSError:
            time.sleep(0.05)  # a closed port answers at once and tells nobody when it opens
    said = log.read_bytes()[-_SHOWN_OCTETS:].decode(errors="replace").strip()
    raise CannotRun(f"{log.stem} does not listen on {address}:{port}; its last words: {said or 'none'}")
