"""Access tokens from files and commands, kept while they are good.

A file is read for every session. A command is run without a shell, within limits of time and output, once for all who wait
for it; what it printed is kept until shortly before it expires, or until a host refuses it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, assert_never

from relay.outcome.wording import one_line
from relay.sasl.credentials import TokenCommand, TokenFile, TokenSource
from relay.sasl.secret import Secret
from relay.sasl.token import MAX_OCTETS, NoToken, Token, parse_token

COMMAND_SECONDS: Final = 30.0
MARGIN: Final = timedelta(seconds=60)
"""So long before it expires a token is fetched anew: a session takes its time."""
UNKNOWN_LIFE: Final = timedelta(minutes=5)
"""How long a token is kept that does not say when it expires."""
AFTER_FAILURE: Final = timedelta(seconds=30)
"""How long a command that failed is left alone."""
_MAX_COMMANDS: Final = 256
_REAP_SECONDS: Final = 5.0
_OWN_VARIABLES: Final = "DANE_RELAY_"


class TokenUnavailable(Exception):  # noqa: N818 - it names what is missing
    """There is no token; the message says what was found instead, for people."""


@dataclass(slots=True)
class _Kept:
    """What is known of one command: a token until ``until``, or a failure until then."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    token: Token | None = None
    failure: str = ""
    until: datetime | None = None


class Tokens:
    """Gives tokens; safe to use from many tasks at once.

    :param clock: the time, aware.
    :param command_seconds: how long a command may run.
    """

    def __init__(self, *, clock: Callable[[], datetime], command_seconds: float = COMMAND_SECONDS) -> None:
        self._clock = clock
        self._seconds = command_seconds
        self._kept: OrderedDict[tuple[str, ...], _Kept] = OrderedDict()

    async def get(self, source: TokenSource) -> Secret:
        """A token that has not expired.

        :raises TokenUnavailable: if there is none.
        """
        match source:
            case TokenFile(path):
                return await asyncio.to_thread(self._read, path)
            case TokenCommand(argv):
                return await self._of_command(argv)
            case _:
                assert_never(source)

    def refused(self, source: TokenSource, token: Secret) -> None:
        """A host did not take a token: the next one who asks must not get it again from here."""
        if isinstance(source, TokenCommand):
            kept = self._kept.get(source.argv)
            if kept is not None and kept.token is not None and kept.token.secret == token:
                kept.token = kept.until = None

    def _read(self, path: str) -> Secret:
        try:
            token = parse_token(_content(path), self._clock())
        except OSError as error:
            raise TokenUnavailable(f"{path}: {error.strerror}") from None
        except NoToken as error:
            raise TokenUnavailable(f"{path}: {error}") from None
        if token.expires <= self._clock():
            raise TokenUnavailable(f"{path}: the token expired at {token.expires:%Y-%m-%d %H:%M:%S} UTC")
        return token.secret

    async def _of_command(self, argv: tuple[str, ...]) -> Secret:
        kept = self._kept.setdefault(argv, _Kept())
        self._kept.move_to_end(argv)
        if len(self._kept) > _MAX_COMMANDS:
            self._kept.popitem(last=False)
        async with kept.lock:
            now = self._clock()
            if kept.until is None or kept.until <= now:
                await self._renew(kept, argv)
            if kept.token is None:
                raise TokenUnavailable(kept.failure)
            return kept.token.secret

    async def _renew(self, kept: _Kept, argv: tuple[str, ...]) -> None:
        kept.token = None
        try:
            token = parse_token(await run(argv, self._seconds), self._clock())
        except (NoToken, TokenUnavailable) as error:
            said = f"{argv[0]} printed {error}" if isinstance(error, NoToken) else str(error)
            kept.failure, kept.until = one_line(said), self._clock() + AFTER_FAILURE
            return
        now = self._clock()
        if token.expires <= now:
            kept.failure, kept.until = f"{argv[0]} printed a token that has expired", now + AFTER_FAILURE
            return
        kept.token, kept.failure = token, ""
        kept.until = token.expires - MARGIN if token.knows_expiry else now + UNKNOWN_LIFE


def _content(path: str) -> bytes:
    """What a regular file holds, as far as a token could be in it; a pipe in its place holds nobody up."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise TokenUnavailable(f"{path}: is no file")
        return os.read(descriptor, MAX_OCTETS + 1)
    finally:
        os.close(descriptor)


async def run(argv: tuple[str, ...], seconds: float) -> bytes:
    """Run a command and take what it prints.

    It gets no input, none of our own ``DANE_RELAY_`` variables, and a process group that ends with it.

    :raises TokenUnavailable: if it cannot be run, fails, or takes too long or prints too much.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)}
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise TokenUnavailable(f"{argv[0]}: cannot be run: {getattr(error, 'strerror', None) or error}") from None
    try:
        async with asyncio.timeout(seconds):
            printed = await _read_all(process)
            status = await process.wait()
    except TimeoutError:
        raise TokenUnavailable(f"{argv[0]}: still running after {seconds:g} s") from None
    finally:
        _end(process)
        await asyncio.shield(_reap(process))
    if status:
        raise TokenUnavailable(f"{argv[0]}: exit status {status}; run it by hand as the relay's user")
    return printed


async def _read_all(process: asyncio.subprocess.Process) -> bytes:
    if process.stdout is None:
        raise AssertionError("standard output was asked for")
    printed = bytearray()
    while chunk := await process.stdout.read(MAX_OCTETS):
        printed += chunk
        if len(printed) > MAX_OCTETS:
            raise TokenUnavailable(f"a command that prints more than {MAX_OCTETS} octets")
    return bytes(printed)


async def _reap(process: asyncio.subprocess.Process) -> None:
    """See a command that was ended off; asyncio counts it as ended only when its output is read to the end."""
    try:
        async with asyncio.timeout(_REAP_SECONDS):
            while process.stdout is not None and await process.stdout.read(MAX_OCTETS):
                pass
            await process.wait()
    except TimeoutError:
        pass  # something that it started left its process group and holds its output: not ours to wait for


def _end(process: asyncio.subprocess.Process) -> None:
    """End the command and all that it started and left behind."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # the whole group is gone
