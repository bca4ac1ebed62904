"""Addresses and ports on loopback that nobody else uses, so that test runs can go on side by side."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

from tests.watched_process import PATIENCE

_TRIES = 200


class LoopbackNetwork:
    """A ``127.A.B.0/24`` of one's own.

    :param chance: where A and B come from; two runs at once must not draw the same numbers.
    """

    def __init__(self, chance: random.Random | None = None) -> None:
        chance = chance or random.SystemRandom()
        self._prefix = f"127.{chance.randint(10, 250)}.{chance.randint(0, 250)}"

    def address(self, host: int) -> str:
        """The address with this last number, 1 to 254."""
        if not 1 <= host <= 254:
            raise ValueError(f"no host number: {host}")
        return f"{self._prefix}.{host}"


def free_port(*addresses: str) -> int:
    """A port above 1023 that is free for TCP and UDP on every one of the addresses (127.0.0.1 if none is given)."""
    for _ in range(_TRIES):
        with ExitStack() as held:
            first = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            first.bind((addresses[0] if addresses else "127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                for number, address in enumerate(addresses or ("127.0.0.1",)):
                    udp = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    udp.bind((address, port))
                    if number:
                        tcp = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                        tcp.bind((address, port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no port is free on all of {addresses}")


def wait_until_listening(
    address: str, port: int, *, still: Callable[[], bool] = lambda: True, patience: float = PATIENCE
) -> None:
    """Return as soon as a TCP connection is accepted.

    :param still: whether there is hope, such as whether the server's process lives.
    :raises AssertionError: if that does not happen in time.
    """
    deadline = time.monotonic() + patience
    pause = 0.005
    while True:
        try:
            with socket.create_connection((address, port), timeout=max(0.1, deadline - time.monotonic())):
                return
        except OSError as error:
            if not still() or time.monotonic() > deadline:
                raise AssertionError(f"nothing listens on {address}:{port}: {error}") from error
            time.sleep(pause)  # a closed port answers at once and tells nobody when it opens
            pause = min(0.2, pause * 1.5)
