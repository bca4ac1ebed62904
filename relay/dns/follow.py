"""RFC 5011 for the managed trust anchor, in a process of its own: ``python -m relay.dns.follow``.

libunbound keeps the file up to date by itself, but ends the whole process when it cannot write it (``fatal_exit`` in its
autotrust.c), and a full disk must not end a relay. So a child process asks for the root's keys with the file as followed
anchor, and the resolvers of the relay itself only read what is in the file afterwards.
"""

from __future__ import annotations

import asyncio
import json
import re
import select
import sys
import time
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from relay.dns.anchor import AnchorError, read_anchors
from relay.dns.answer import RRType
from relay.dns.libunbound import Context, NoLibunbound, Result, UnboundError
from relay.dns.unbound import Upstream, configure, settle

# RFC 5011 section 2.3 asks for half the TTL of the root's keys (two days), fifteen days at most.
FOLLOW_SECONDS: Final = 12 * 3600.0
RETRY_SECONDS: Final = 3600.0  # the same section: an hour at least after a failure
_START_SECONDS: Final = 30.0
_MAX_WHY: Final = 400
_HOUSE: Final = Path(__file__).parent.parent.parent


class FollowFailed(Exception):  # noqa: N818 - it names the state of the file
    """The trust anchor could not be brought up to date; it stays as it was, and is tried again."""


async def follow(path: Path, upstream: Upstream, *, timeout: float) -> bool:
    """Bring the managed file up to date.

    :param timeout: seconds for the look-up.
    :return: whether other keys are trusted than before.
    :raises FollowFailed: if that did not work.
    """
    try:
        before = set(read_anchors(path).records)
        await _in_child(_order(path, upstream, timeout), timeout + _START_SECONDS)
        return set(read_anchors(path).records) != before
    except AnchorError as error:
        raise FollowFailed(str(error)) from None
    finally:
        _clear_up(path)


def _order(path: Path, upstream: Upstream, timeout: float) -> str:
    return json.dumps(
        {
            "path": str(path.absolute()),
            "forwarders": [[str(host), port] for host, port in upstream.forwarders],
            "root_hints": upstream.root_hints,
            "timeout": timeout,
        }
    )


def _clear_up(path: Path) -> None:
    """Remove what a child left that could not finish writing."""
    for left in path.parent.glob(f"{path.name}.*-*"):
        with suppress(OSError):
            left.unlink()


async def _in_child(order: str, timeout: float) -> None:
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "relay.dns.follow",
            order,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            cwd=_HOUSE,  # where -m finds the package, installed or not
        )
    except OSError as error:
        raise FollowFailed(f"cannot start {sys.executable}: {error.strerror}") from None
    try:
        async with asyncio.timeout(timeout):
            _, said = await child.communicate()
    except TimeoutError:
        raise FollowFailed(f"no end after {timeout:g} s") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode:
        why = re.sub(r"[^\x20-\x7e]+", " ", said.decode("utf-8", "replace")).strip()
        raise FollowFailed(why[-_MAX_WHY:] or f"exit status {child.returncode}")


def _follow_here(order: str) -> str:
    """The child's work; returns what went wrong, empty if nothing."""
    wanted = json.loads(order)
    forwarders = tuple((ip_address(host), int(port)) for host, port in wanted["forwarders"])
    came: list[Result | UnboundError] = []
    try:
        context = Context(lambda token, outcome: came.append(outcome))
        configure(context, Upstream(forwarders=forwarders, root_hints=wanted["root_hints"]))
        context.follow_trust_anchor(wanted["path"])
        settle(context)
        context.resolve(".", int(RRType.NS), 1)
        until = time.monotonic() + wanted["timeout"]
        while not came and (left := until - time.monotonic()) > 0:
            if select.select([context.fileno()], [], [], left)[0]:
                context.process()
        context.close()
    except (NoLibunbound, UnboundError) as error:
        return str(error)
    match came:
        case [Result(secure=True)]:
            return ""
        case [Result(bogus=True, why_bogus=why)]:
            return f"the root's keys do not validate: {why}"
        case [UnboundError() as failure]:
            return str(failure)
        case _:
            return "no answer for the root's keys"


if __name__ == "__main__":
    sys.exit(_follow_here(sys.argv[1]) or 0)
